//! What a leader should be doing, as scenarios: the state is told in the language of the scripts, what the leader sees
//! is an [`Outlook`], and time is an argument.

#![expect(clippy::panic, clippy::unwrap_used, reason = "tests stop where something is wrong")]

#[path = "support/language.rs"]
mod language;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_membership::detector::Moment;
use quorate_membership::*;

const N1: NodeId = NodeId::new(1);
const N2: NodeId = NodeId::new(2);
const N3: NodeId = NodeId::new(3);
const N4: NodeId = NodeId::new(4);

fn at(ms: u64) -> Moment {
    Moment::new(Duration::from_millis(ms))
}

fn life(text: &str) -> Identity {
    text.parse().unwrap()
}

/// Three voters at work, whose contracts time can prove (D = 3.3 s), and then what the lines say.
fn three(lines: &str) -> ClusterState {
    let bounded = language::THREE.lines().map(|line| match line.starts_with("join") {
        true => format!("{line} stop=deadman:250"),
        false => line.into(),
    });
    told(ClusterState::new(), bounded.chain(lines.lines().map(String::from)))
}

fn then(state: &ClusterState, lines: &str) -> ClusterState {
    told(state.clone(), lines.lines().map(String::from))
}

fn told(mut state: ClusterState, lines: impl Iterator<Item = String>) -> ClusterState {
    for line in lines {
        let command = language::under_current(language::command(&line).unwrap(), &state);
        let revision = state.revision().next();
        apply(&mut state, revision, &command).unwrap_or_else(|rejection| panic!("{line}: {rejection}"));
    }
    state
}

/// A leader on n1 that has just heard everybody, and whose followers have everything.
fn outlook(state: &ClusterState) -> Outlook {
    let others: Vec<NodeId> = state.members().map(|(node, _)| node).filter(|node| *node != N1).collect();
    Outlook {
        me: N1,
        now: at(100_000),
        under: state.leadership().map(|leadership| leadership.activation),
        can_fence: true,
        given_up: BTreeSet::new(),
        proved_in: BTreeMap::new(),
        tells_lives_apart: false,
        spares_idle: false,
        heard: others.iter().map(|node| (*node, at(99_950))).collect(),
        silent: BTreeSet::new(),
        matched: others.iter().map(|node| (*node, state.revision())).collect(),
        last: Some(state.revision()),
        should_make_way: false,
        heartbeat: Duration::from_millis(80),
        election_max: Duration::from_millis(800),
        successor_timeout: Duration::from_secs(5),
    }
}

/// The agenda of a leader that has known the former lives for a long time.
fn agenda_of(state: &ClusterState, outlook: &Outlook) -> Vec<Work> {
    let mut former_lives = FormerLives::default();
    former_lives.observe(state, at(0));
    agenda(state, outlook, &former_lives)
}

fn condemn(former: &str, waiting: &str) -> Work {
    Work::Duty(Duty::Condemn { former: life(former), waiting: life(waiting) })
}

#[test]
fn nothing_is_to_be_done_in_a_healthy_cluster() {
    let state = three("");
    assert_eq!(agenda_of(&state, &outlook(&state)), []);
}

#[test]
fn an_open_order_is_for_a_leader_with_a_fencer_or_for_an_operator() {
    let state = three("order n3#1 requested \"maintenance\"");
    let with = outlook(&state);
    assert_eq!(agenda_of(&state, &with), [Work::Duty(Duty::Fence(FenceId::new(1)))]);
    assert_eq!(agenda_of(&state, &Outlook { can_fence: false, ..with }), []);
}

#[test]
fn a_silent_life_is_spared_only_while_nobody_waits_for_anything_of_it() {
    let silent = |state: &ClusterState, spares_idle| {
        let (silent, heard) = (BTreeSet::from([N2, N3]), BTreeMap::new());
        agenda_of(state, &Outlook { silent, heard, spares_idle, ..outlook(state) })
    };
    let both = [Work::Suspect(life("n2#1")), Work::Suspect(life("n3#1"))];
    assert_eq!(silent(&three(""), false), both);
    assert_eq!(silent(&three(""), true), []);
    // Granted, and in line.
    let state = three("lock db n2#1 req=3 since=r9 wait\nlock db n3#1 req=4 since=r9 wait");
    assert_eq!(silent(&state, true), both);
    // Back, and heard with that very request, before the detector has looked again.
    let seen = Outlook { silent: BTreeSet::from([N2, N3]), spares_idle: true, ..outlook(&state) };
    assert_eq!(agenda_of(&state, &seen), []);
}

#[test]
fn an_order_that_a_leader_cannot_carry_out_moves_to_another_voter() {
    let state = three("order n3#1 requested \"maintenance\"");
    let (order, fence) = (FenceId::new(1), Work::Duty(Duty::Fence(FenceId::new(1))));
    let given_up = Outlook { given_up: BTreeSet::from([order]), ..outlook(&state) };
    // It goes on trying, too.
    assert_eq!(agenda_of(&state, &given_up), [fence, Work::MoveOrder(order)]);
    assert_eq!(agenda_of(&state, &Outlook { can_fence: false, ..given_up.clone() }), [Work::MoveOrder(order)]);
    assert_eq!(fencers_for(order, &state, N1).collect::<Vec<_>>(), [N2], "not the target, and not the leader");
    // Nobody else answers.
    assert_eq!(agenda_of(&state, &Outlook { heard: BTreeMap::new(), ..given_up.clone() }), [fence]);
    // Time is about to prove the end here, and under another leader it would begin anew.
    for (left, moves) in [(801, true), (800, false), (0, false)] {
        let proved_in = BTreeMap::from([(order, Duration::from_millis(left))]);
        let work = agenda_of(&state, &Outlook { proved_in, ..given_up.clone() });
        assert_eq!(work.contains(&Work::MoveOrder(order)), moves, "{left} ms");
    }
    // An order that is not open moves nowhere.
    let closed = Outlook { given_up: BTreeSet::from([FenceId::new(7)]), ..given_up };
    assert_eq!(agenda_of(&state, &closed), [fence]);
}

#[test]
fn a_leader_hands_over_rather_than_fence_its_own_node() {
    let state = three("order n1#1 requested \"maintenance\"");
    let with = outlook(&state);
    assert_eq!(agenda_of(&state, &with), [Work::HandOver]);
    assert_eq!(agenda_of(&state, &Outlook { can_fence: false, ..with }), [Work::HandOver]);
}

#[test]
fn a_former_life_gets_twice_its_wait_to_be_proved_ended_by_time() {
    let state = three("join n3 voter disk=3/2 nonce=32");
    let wait = state.life(life("n3#1")).unwrap().contract.own_wait().unwrap();
    let mut former_lives = FormerLives::default();
    former_lives.observe(&state, at(1000));
    former_lives.observe(&state, at(2000)); // looked at again: the wait does not begin anew
    let seen = |since: Duration| {
        let now = Moment::new(Duration::from_secs(1) + since);
        agenda(&state, &Outlook { now, ..outlook(&state) }, &former_lives)
    };
    assert_eq!(seen(wait * 2 - Duration::from_nanos(1)), []);
    assert_eq!(seen(wait * 2), [condemn("n3#1", "n3#2")]);
}

#[test]
fn a_former_life_that_time_cannot_prove_is_condemned_at_once() {
    let state = told(ClusterState::new(), language::THREE.lines().map(String::from));
    let state = then(&state, "join n3 voter disk=3/2 nonce=32");
    let mut former_lives = FormerLives::default();
    former_lives.observe(&state, at(100_000));
    assert_eq!(agenda(&state, &outlook(&state), &former_lives), [condemn("n3#1", "n3#2")]);
}

/// Where the fencer ends one life and no other, nothing is gained by waiting, and the leader's own machine is safe from it.
#[test]
fn a_fencer_that_tells_lives_apart_is_called_at_once_even_for_the_leaders_own_node() {
    let state = three("join n3 voter disk=3/2 nonce=32\njoin n1 voter disk=1/2 nonce=12");
    let mut former_lives = FormerLives::default();
    former_lives.observe(&state, at(100_000));
    let plain = outlook(&state);
    assert_eq!(agenda(&state, &plain, &former_lives), []);
    let apart = Outlook { tells_lives_apart: true, ..plain };
    // One order at a time: two would leave less than a majority standing.
    assert_eq!(agenda(&state, &apart, &former_lives), [condemn("n3#1", "n3#2")]);

    let state = three("join n1 voter disk=1/2 nonce=12\norder n1#1 returned n1#2");
    let plain = outlook(&state);
    assert_eq!(agenda_of(&state, &plain), [Work::HandOver]);
    let apart = Outlook { tells_lives_apart: true, ..plain };
    assert_eq!(agenda_of(&state, &apart), [Work::Duty(Duty::Fence(FenceId::new(1)))]);
    // Against the life that leads, another has to act all the same.
    let state = three("order n1#1 requested \"maintenance\"");
    let apart = Outlook { tells_lives_apart: true, ..outlook(&state) };
    assert_eq!(agenda_of(&state, &apart), [Work::HandOver]);
}

#[test]
fn a_successor_on_the_same_boot_gets_time_to_inherit() {
    let unbounded = told(ClusterState::new(), language::THREE.lines().map(String::from));
    let unbounded = then(&unbounded, "process-bound n3#1");
    for (boot, known_for, condemned) in [(31, 4999, false), (31, 5000, true), (99, 0, true)] {
        let state = then(&unbounded, &format!("join n3 voter disk=3/2 nonce=32 boot={boot}"));
        let mut former_lives = FormerLives::default();
        former_lives.observe(&state, at(100_000 - known_for));
        let got = agenda(&state, &outlook(&state), &former_lives);
        assert_eq!(got == [condemn("n3#1", "n3#2")], condemned, "boot {boot}, known for {known_for} ms");
    }
}

#[test]
fn the_former_life_of_the_leaders_own_node_is_condemned_last() {
    let state = three("join n1 voter disk=1/2 nonce=12\njoin n3 voter disk=3/2 nonce=32");
    assert_eq!(agenda_of(&state, &outlook(&state)), [condemn("n3#1", "n3#2")]);
    let state = three("join n1 voter disk=1/2 nonce=12");
    assert_eq!(agenda_of(&state, &outlook(&state)), [condemn("n1#1", "n1#2")]);
}

#[test]
fn what_the_rules_would_refuse_is_not_tried() {
    let state = three("join n3 voter disk=3/2 nonce=32");
    let silent = BTreeSet::from([N2]);
    let without = Outlook { under: None, silent, ..outlook(&state) };
    assert_eq!(agenda_of(&state, &without), [], "an opinion counts under an activation only");
}

#[test]
fn a_silent_life_is_suspected_if_the_others_hold_a_majority() {
    let state = three("");
    let seen = |silent| Outlook { silent, ..outlook(&state) };
    assert_eq!(agenda_of(&state, &seen([N3].into())), [Work::Suspect(life("n3#1"))]);
    let state = then(
        &state,
        "order n3#1 silent 5000\nstart f1 by n1 attempt 1\nconfirm f1 n3#1 device by n1 attempt 1 \"off\"",
    );
    assert_eq!(agenda_of(&state, &seen([N2].into())), [], "n1 alone is no majority");
}

#[test]
fn a_silent_life_that_only_joins_is_suspected_for_the_locks_that_it_inherited() {
    let joins = "lock vm/100 n3#1 req=5 since=r9 try\nprocess-bound n3#1\njoin n3 voter disk=3/2 nonce=32 boot=31";
    let state = three(joins);
    let silent = |state: &ClusterState| Outlook { silent: [N3].into(), ..outlook(state) };
    // The former life may still hold the lock, so the new one has nothing to forfeit.
    assert_eq!(agenda_of(&state, &silent(&state)), [condemn("n3#1", "n3#2")]);
    let state = then(&state, "inherit n3#2 n3#1");
    assert!(agenda_of(&state, &silent(&state)).contains(&Work::Suspect(life("n3#2"))));
    let state = three("join n4 learner disk=4/1 nonce=41\nconfigure n1 n2 n3 learners n4");
    let seen = Outlook { silent: [N4].into(), matched: [].into(), ..outlook(&state) };
    assert_eq!(agenda_of(&state, &seen), [], "it holds nothing, and never worked");
}

#[test]
fn a_learner_gets_its_vote_once_it_has_its_own_join_and_nearly_all_of_the_log() {
    let state = three("join n4 voter disk=4/1 nonce=41\nconfigure n1 n2 n3 learners n4");
    let joined = state.life(life("n4#1")).unwrap().since.get();
    for (matched, last, promoted) in [
        (Some(joined), joined + 64, true),
        (Some(joined), joined + 65, false),
        (Some(joined - 1), joined, false),
        (None, joined, false),
    ] {
        let matched = matched.map(|matched| (N4, Revision::new(matched))).into_iter().collect();
        let seen = Outlook { matched, last: Some(Revision::new(last)), ..outlook(&state) };
        let got = agenda_of(&state, &seen) == [Work::Duty(Duty::Promote(N4))];
        assert_eq!(got, promoted, "{seen:?}");
    }
}

#[test]
fn no_change_of_voters_is_begun_that_the_nodes_heard_lately_could_not_commit() {
    let heard = |state: &ClusterState, heard: &[(NodeId, u64)]| Outlook {
        heard: heard.iter().map(|(node, ms)| (*node, at(*ms))).collect(),
        ..outlook(state)
    };
    let state = three("join n4 voter disk=4/1 nonce=41\nconfigure n1 n2 n3 learners n4");
    let promote = [Work::Duty(Duty::Promote(N4))];
    assert_eq!(agenda_of(&state, &heard(&state, &[(N2, 99_761)])), promote, "n1 and n2 of three");
    assert_eq!(agenda_of(&state, &heard(&state, &[(N2, 99_760)])), [], "three heartbeats ago is too long");
    assert_eq!(agenda_of(&state, &heard(&state, &[(N4, 99_950)])), [], "the learner itself does not vote yet");
    // Both sets of a demotion: with the vote that goes, and without it.
    let state = three("role n3 learner");
    let demote = [Work::Duty(Duty::Demote(N3))];
    assert_eq!(agenda_of(&state, &heard(&state, &[(N2, 99_950), (N3, 99_950)])), demote);
    assert_eq!(agenda_of(&state, &heard(&state, &[(N2, 99_950)])), demote, "n1 and n2 hold both majorities");
    assert_eq!(agenda_of(&state, &heard(&state, &[(N3, 99_950)])), [], "n1 is no majority of n1 and n2");
}

#[test]
fn a_removed_voter_is_expelled_by_those_who_can_commit_it() {
    let state = three("leave n3#1\nremove n3");
    assert_eq!(agenda_of(&state, &outlook(&state)), [Work::Duty(Duty::Expel(N3))]);
    assert_eq!(agenda_of(&state, &Outlook { heard: [].into(), ..outlook(&state) }), []);
}

#[test]
fn a_leader_that_loses_its_vote_hands_over() {
    let state = three("role n1 learner");
    assert_eq!(agenda_of(&state, &outlook(&state)), [Work::HandOver]);
}

#[test]
fn a_change_of_voters_that_was_begun_is_finished_whatever_is_heard() {
    let state = three("join n4 voter disk=4/1 nonce=41\nconfigure n1 n2 n3 -> n1 n2 n3 n4");
    let deaf = Outlook { heard: [].into(), matched: [].into(), ..outlook(&state) };
    assert_eq!(agenda_of(&state, &deaf), [Work::Duty(Duty::FinishChange)]);
}

#[test]
fn a_returned_life_is_activated_after_it_was_heard_since_the_end_of_the_former() {
    let returned = three("join n3 voter disk=3/2 nonce=32");
    let fenced = "order n3#1 returned n3#2\nstart f1 by n1 attempt 1\nconfirm f1 n3#1 device by n1 attempt 1 \"off\"";
    let state = then(&returned, fenced);
    let mut former_lives = FormerLives::default();
    former_lives.observe(&returned, at(80_000));
    former_lives.observe(&state, at(90_000));
    let heard = |ms| Outlook { heard: [(N2, at(99_950)), (N3, at(ms))].into(), ..outlook(&state) };
    assert_eq!(agenda(&state, &heard(90_080), &former_lives), [], "it may have been under way at the end");
    let activate = [Work::Duty(Duty::Activate(life("n3#2")))];
    assert_eq!(agenda(&state, &heard(90_081), &former_lives), activate);
    let unheard = Outlook { heard: [(N2, at(99_950))].into(), ..outlook(&state) };
    assert_eq!(agenda(&state, &unheard, &former_lives), []);
    assert_eq!(agenda(&state, &unheard, &FormerLives::default()), activate, "it saw no former life end");
}

#[test]
fn a_leader_activates_its_own_returned_life_without_having_to_hear_itself() {
    let returned = three("join n1 voter disk=1/2 nonce=12");
    let state = then(&returned, "vouch n1#1 \"alice\" \"I pulled the plug\"");
    let mut former_lives = FormerLives::default();
    former_lives.observe(&returned, at(80_000));
    former_lives.observe(&state, at(90_000));
    let alone = Outlook { heard: [].into(), matched: [].into(), ..outlook(&state) };
    assert_eq!(agenda(&state, &alone, &former_lives), [Work::Duty(Duty::Activate(life("n1#2")))]);
}

#[test]
fn a_life_that_lags_is_not_activated() {
    let state = three("leave n3#1\njoin n3 voter disk=3/2 nonce=32");
    let behind = Outlook { matched: [(N3, Revision::new(9))].into(), ..outlook(&state) };
    assert_eq!(agenda_of(&state, &behind), []);
    assert_eq!(agenda_of(&state, &outlook(&state)), [Work::Duty(Duty::Activate(life("n3#2")))]);
}

#[test]
fn a_leader_makes_way_when_its_disk_is_in_trouble() {
    let state = three("");
    assert_eq!(agenda_of(&state, &Outlook { should_make_way: true, ..outlook(&state) }), [Work::HandOver]);
}

#[test]
fn a_witness_leads_only_while_no_voter_stands() {
    let state = three("role n1 witness");
    assert_eq!(agenda_of(&state, &outlook(&state)), [Work::HandOver]);
    let state = then(&state, "leave n2#1\nleave n3#1");
    assert_eq!(agenda_of(&state, &outlook(&state)), []);
}

/// A voter that is dead and not yet fenced stands, and cannot take over: two witnesses would hand leadership to and fro.
#[test]
fn a_witness_hands_over_only_to_a_voter_that_is_heard() {
    let state = three("role n1 witness\nrole n2 witness");
    let with = outlook(&state);
    assert_eq!(agenda_of(&state, &with), [Work::HandOver]);
    let heard = BTreeMap::from([(N2, at(99_950)), (N3, at(98_000))]);
    assert_eq!(agenda_of(&state, &Outlook { heard, ..with }), []);
}

#[test]
fn duties_come_before_suspects_and_handing_over_comes_last() {
    let five = "join n4 voter disk=4/1 nonce=41\njoin n5 voter disk=5/1 nonce=51\nconfigure n1 n2 n3 n4 n5\n\
                activate n4#1\nactivate n5#1\nrole n1 witness\norder n5#1 requested \"maintenance\"";
    let state = three(five);
    let seen = Outlook { silent: [N4].into(), should_make_way: true, ..outlook(&state) };
    let expected =
        [Work::Duty(Duty::Fence(FenceId::new(1))), Work::Suspect(life("n4#1")), Work::HandOver, Work::HandOver];
    assert_eq!(agenda_of(&state, &seen), expected);
}

#[test]
fn raft_makes_one_change_of_its_nodes_at_a_time_and_everything_else_runs_beside_it() {
    let changes = [Duty::FinishChange, Duty::CatchUp(N4), Duty::Promote(N4), Duty::Demote(N4), Duty::Expel(N4)];
    assert!(changes.into_iter().all(|duty| Work::Duty(duty).changes_voters()));
    let others = [Work::Duty(Duty::Fence(FenceId::new(1))), Work::Duty(Duty::Activate(life("n3#1")))];
    let others = others.into_iter().chain([condemn("n3#1", "n3#2"), Work::Suspect(life("n3#1")), Work::HandOver]);
    assert!(others.into_iter().all(|work| !work.changes_voters()));
}

#[test]
fn a_former_life_is_forgotten_with_its_node() {
    let returned = three("join n3 voter disk=3/2 nonce=32");
    let mut former_lives = FormerLives::default();
    former_lives.observe(&returned, at(80_000));
    former_lives.observe(&then(&returned, "leave n3#1"), at(90_000));
    assert!(!former_lives.heard_since_end(N3, None, Duration::ZERO));
    former_lives.observe(&then(&returned, "leave n3#1\nleave n3#2\nremove n3"), at(91_000));
    assert!(former_lives.heard_since_end(N3, None, Duration::ZERO));
}

#[test]
fn a_new_life_declares_the_end_of_its_predecessor_first_and_then_its_own_bond() {
    let state = three("process-bound n3#1\njoin n3 voter disk=3/2 nonce=32 boot=31");
    let (who, former) = (life("n3#2"), life("n3#1"));
    assert_eq!(due_declaration(&state, who, true, true), Some(Command::Inherit { who, former }));
    let declares = Some(Command::DeclareProcessBound { who });
    assert_eq!(due_declaration(&state, who, true, false), declares, "the process before may still be there");
    assert_eq!(due_declaration(&state, who, false, false), None, "it is not configured so");
    let inherited = then(&state, "inherit n3#2 n3#1");
    assert_eq!(due_declaration(&inherited, who, true, true), declares);
    assert_eq!(due_declaration(&then(&inherited, "process-bound n3#2"), who, true, true), None);
}

#[test]
fn a_new_life_inherits_only_on_the_same_boot_and_only_from_a_life_bound_to_its_process() {
    let who = life("n3#2");
    let declares = Some(Command::DeclareProcessBound { who });
    for lines in
        ["process-bound n3#1\njoin n3 voter disk=3/2 nonce=32 boot=99", "join n3 voter disk=3/2 nonce=32 boot=31"]
    {
        assert_eq!(due_declaration(&three(lines), who, true, true), declares, "{lines}");
    }
    let ended = three("process-bound n3#1\nleave n3#1\njoin n3 voter disk=3/2 nonce=32 boot=31");
    assert_eq!(due_declaration(&ended, who, true, true), declares, "what has ended needs no successor's word");
    assert_eq!(due_declaration(&ended, life("n3#1"), true, true), None, "forgotten, or over");
}

/// Of three nodes n3 is dead and fenced, and n1 has come back. No order against n1#1 can be given; the status says so.
#[test]
fn what_a_joining_life_waits_for_is_said_with_the_remedy() {
    let says = |state: &ClusterState, who: &str| awaited(state, life(who)).map(|awaited| awaited.to_string());
    let without_time = told(ClusterState::new(), language::THREE.lines().map(String::from));
    let lost = then(&without_time, "vouch n3#1 \"op\" \"off\"\njoin n1 voter disk=1/2 nonce=12");
    let why = "a proof that n1#1 has ended: no order can be given (without n1 only 1 of 3 voters would remain, fewer than a \
               majority; bring another voter back first); bring another voter back, or vouch for it as an operator";
    assert_eq!(says(&lost, "n1#2").as_deref(), Some(why));
    // With a stop mechanism, time proves it.
    let timed = three("vouch n3#1 \"op\" \"off\"\njoin n1 voter disk=1/2 nonce=12");
    assert!(says(&timed, "n1#2").is_some_and(|why| why.contains("time proves it, at the latest")), "{timed:?}");
    // With a third voter the leader orders it, and then the order is named.
    let back = then(&without_time, "join n1 voter disk=1/2 nonce=12");
    assert_eq!(says(&back, "n1#2").as_deref(), Some("a proof that n1#1 has ended: the leader orders it"));
    let ordered = then(&back, "order n1#1 returned n1#2");
    assert!(
        says(&ordered, "n1#2")
            .is_some_and(|why| why.ends_with("order f1 waits for a leader with a fencer, or for an operator"))
    );
    let begun = then(&ordered, "start f1 by n2 attempt 1");
    assert!(says(&begun, "n1#2").is_some_and(|why| why.ends_with("n2 carries out order f1, attempt 1")));
    let ended = then(&begun, "vouch n1#1 \"op\" \"off\"");
    assert!(says(&ended, "n1#2").is_some_and(|why| why.starts_with("the log")));
    assert_eq!(says(&ended, "n2#1"), None, "it is active");
}
