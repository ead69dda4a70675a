//! Properties of random walks: each invariant is a function with a sentence for a name and its number from the protocol.
//!
//! A failure prints the shortest walk that proptest could find. `PROPTEST_CASES=20000` walks further, and
//! `PROPTEST_RNG_SEED=n` walks the same way again.

#![expect(clippy::unwrap_used, reason = "a helper of tests stops the test")]

#[path = "support/language.rs"]
mod language;
#[path = "support/store_properties.rs"]
mod store;
#[path = "support/walk.rs"]
mod walk;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use quorate_membership::fencing::HISTORY;
use quorate_membership::*;
use store::*;
use walk::{Step, Walk, carried_out, walks};

/// I8: what is said of one life changes nothing for another.
fn what_is_said_of_a_life_changes_no_other(step: &Step) {
    let (Command::Activate { who: named }
    | Command::OrderFence { target: named, .. }
    | Command::ConfirmFence { target: named, .. }
    | Command::Vouch { target: named, .. }
    | Command::Expire { target: named, .. }
    | Command::DeclareProcessBound { who: named }
    | Command::Inherit { former: named, .. }
    | Command::Leave { who: named }) = &step.command
    else {
        return;
    };
    let others = |state: &ClusterState| -> Vec<_> {
        state.lives().filter(|(who, _)| who != named).map(|(who, life)| (who, life.clone())).collect()
    };
    assert_eq!(others(&step.before), others(&step.after), "{:?}", step.command);
}

/// I10: a device proves only what was begun: an attempt of this very order, against this very life, not yet closed.
fn a_device_proves_only_an_attempt_that_was_begun(walk: &Walk) {
    let (mut open, mut begun) = (BTreeMap::new(), BTreeSet::new());
    for (_, _, event) in walk.events() {
        match event {
            Event::FenceOrdered { order, target, .. } => assert_eq!(open.insert(order, target), None),
            Event::FenceStarted { order, attempt, .. } => assert!(begun.insert((order, attempt)), "begun twice"),
            Event::Fenced { order, who, proof, .. } => {
                assert_eq!(open.remove(&order), Some(who), "fenced without an open order of its own");
                if let FenceProof::Device { attempt, .. } = proof {
                    assert!(begun.contains(&(order, attempt)), "{order} was never begun a {attempt}. time");
                }
            }
            _ => {}
        }
    }
}

/// I16: a rejection changes nothing.
fn a_rejection_changes_nothing(step: &Step) {
    assert!(step.answer.is_ok() || step.before == step.after, "{:?}", step.command);
}

/// I17: a snapshot of any moment and the events since then give the state.
fn a_snapshot_and_the_events_since_give_the_state(walk: &Walk) {
    for cut in 0..walk.0.len() {
        let mut state: ClusterState = codec::decode(&codec::encode(&walk.0[cut].before).unwrap()).unwrap();
        for step in &walk.0[cut..] {
            step.events().iter().for_each(|event| evolve(&mut state, step.revision, event));
        }
        assert_eq!(state, walk.end(), "cut before {cut}");
    }
}

/// I18: no order leaves fewer standing voters than a majority. An operator's word, time, or its successor may end a former
/// life when there is none, but then it takes nobody away.
fn no_order_leaves_a_minority(step: &Step) {
    if step.events().iter().any(|event| matches!(event, Event::FenceOrdered { .. })) {
        let takes_nobody = step.after.standing() == step.before.standing();
        let word = matches!(step.command, Command::Vouch { .. } | Command::Expire { .. } | Command::Inherit { .. });
        let majority = step.after.configuration().has_quorum(&step.after.standing());
        assert!(majority || (word && takes_nobody), "{}", step.after.configuration().describe(&step.after.standing()));
    }
}

/// I20: the epoch grows with every change of who is in, tokens and order numbers with each that is given.
fn epochs_and_tokens_strictly_grow(walk: &Walk) {
    let (mut last_token, mut last_order) = (None, None);
    for (state, revision, event) in walk.events() {
        let mut after = state.clone();
        evolve(&mut after, revision, &event);
        // That its work dies with its process says nothing of who is in.
        let declared = matches!(event, Event::DeclaredProcessBound { .. });
        let members_differ =
            (!state.members().eq(after.members()) && !declared) || state.configuration() != after.configuration();
        assert!(after.epoch() > state.epoch() || (after.epoch() == state.epoch() && !members_differ), "{event}");
        assert!(after.revision() >= state.revision(), "{event}");
        if let Event::Fenced { token, .. } | Event::Left { token, .. } = event {
            assert!(last_token.replace(token) < Some(token) && token == revision, "{event}");
        }
        if let Event::FenceOrdered { order, .. } = event {
            assert!(last_order.replace(order) < Some(order), "{event}");
        }
    }
}

/// Phases move along the drawn arrows, and only by an event about that life.
fn phases_move_along_the_drawn_arrows(walk: &Walk) {
    use Phase::{Active, Fenced, Fencing, Joining, Left};
    for (before, revision, event) in walk.events() {
        let mut after = before.clone();
        evolve(&mut after, revision, &event);
        let named: BTreeSet<_> = before.lives().chain(after.lives()).map(|(who, _)| who).collect();
        for who in named {
            let phase = |state: &ClusterState| state.life(who).map(|life| life.phase);
            let drawn = match (phase(&before), phase(&after)) {
                (from, to) if from == to => continue,
                (None, Some(to)) => to == Joining && matches!(event, Event::Joined { .. }),
                (Some(Joining), Some(Active)) => matches!(event, Event::Activated { .. }),
                (Some(Active), Some(Fencing)) => matches!(event, Event::FenceOrdered { .. }),
                // A life that has ended is forgotten once its node has a newer one, at the latest with its node.
                (Some(Fencing), to) => matches!(event, Event::Fenced { .. }) && to.is_none_or(|to| to == Fenced),
                (Some(Active | Joining), Some(Left)) => matches!(event, Event::Left { .. }),
                (Some(Active), None) => matches!(event, Event::Left { .. }),
                (Some(Joining), None) => matches!(event, Event::Superseded { .. }),
                (Some(Fenced | Left), None) => {
                    assert!(
                        matches!(event, Event::Joined { .. } | Event::Removed { .. }),
                        "{who} forgotten by {event}"
                    );
                    continue;
                }
                _ => false,
            };
            assert!(drawn && event.who() == Some(who), "{who}: {:?} to {:?} by {event}", phase(&before), phase(&after));
        }
    }
}

/// A life is being fenced exactly while one order against it is open, and of a node at most one life is active.
fn each_fencing_life_has_one_order_and_each_node_one_active_life(step: &Step) {
    let mut targets: Vec<_> = step.after.fences().open().map(|order| order.target).collect();
    let fencing: Vec<_> =
        step.after.lives().filter(|(_, life)| life.phase == Phase::Fencing).map(|(who, _)| who).collect();
    targets.sort();
    assert_eq!(targets, fencing);
    let active: Vec<_> = step.after.active().map(|who| who.node).collect();
    assert_eq!(active.len(), active.iter().collect::<BTreeSet<_>>().len(), "{active:?}");
    // And while one is, no other life of the node may be working.
    let working = step.after.lives().filter(|(_, life)| life.phase.may_work()).map(|(who, _)| who.node);
    let working: Vec<_> = working.collect();
    assert_eq!(working.len(), working.iter().collect::<BTreeSet<_>>().len(), "two lives that may work: {working:?}");
}

/// Numbers are given once: an incarnation of a node, an order; and a node that was removed never comes back.
fn numbers_are_given_once(walk: &Walk) {
    let mut last = BTreeMap::new();
    for (_, _, event) in walk.events() {
        if let Event::Joined { who, .. } = event {
            assert!(last.insert(who.node, who.incarnation) < Some(who.incarnation), "{event}");
        }
    }
    for step in &walk.0 {
        assert!(step.before.retired().is_subset(step.after.retired()));
        assert!(step.after.retired().iter().all(|node| step.after.member(*node).is_none()));
    }
}

/// Every command may be repeated: right after it was accepted it changes nothing more.
fn a_command_repeated_at_once_changes_nothing(step: &Step) {
    if step.answer.is_ok() {
        let again = decide(&step.after, step.revision.next(), &step.command);
        assert!(again.as_ref().map_or(true, Vec::is_empty), "{:?} again: {again:?}", step.command);
    }
}

/// Nothing is owed exactly when everything is settled: said here in other words than `duties` says it.
fn nothing_is_owed_exactly_when_all_is_settled(step: &Step) {
    let (state, now) = (&step.after, step.after.configuration());
    // A vote whose loss would leave no majority standing is taken later.
    let needed = |node: NodeId| {
        let mut rest = state.standing();
        rest.remove(&node);
        now.is_voter(node) && !now.without_voter(node).has_quorum(&rest)
    };
    let settled_node = |(node, member): (NodeId, &Member)| {
        let (newest, life) = member.newest().unwrap();
        let in_place = match member.role {
            Role::Voter | Role::Witness => now.is_voter(node),
            Role::Learner => now.is_learner(node) || needed(node),
        };
        let former = member.lives.iter().filter(|(i, life)| **i != newest && life.phase.may_work()).count();
        match life.phase {
            Phase::Joining => false,
            Phase::Active => in_place && former == 0,
            // Who does not stand is given nothing; but a vote that it shall not have is taken.
            Phase::Fencing | Phase::Fenced | Phase::Left => {
                former == 0 && (member.role.votes() || !now.is_voter(node) || needed(node))
            }
        }
    };
    let settled = state.fences().open().count() == 0
        && !now.is_joint()
        && state.members().all(settled_node)
        && state.retired().iter().all(|node| !now.contains(*node) || needed(*node));
    assert_eq!(duties(state).is_empty(), settled, "{:?} in {state:#?}", duties(state));
}

/// Progress: a leader with a fencer that works carries out all that is owed, but for what must wait for a majority.
fn all_that_is_owed_can_be_carried_out(walk: &Walk) {
    let mut state = walk.end();
    let mut revision = Revision::new(1_000_000);
    for _round in 0..60 {
        let Some(command) = next_accepted(&state, revision) else { break };
        revision = revision.next();
        apply(&mut state, revision, &command).unwrap();
    }
    for duty in duties(&state) {
        for command in carried_out(&state, duty) {
            let refused = decide(&state, revision, &command);
            let waits = matches!((duty, &refused), (Duty::Condemn { .. }, Err(Rejection::Majority { .. })));
            assert!(waits, "{duty} is still owed, {command:?} gives {refused:?} in {state:#?}");
        }
    }
}

/// Availability: while a majority stands, no change of voters that is owed leaves fewer.
fn no_change_that_is_owed_takes_the_majority_away(step: &Step) {
    let standing = step.after.standing();
    if !step.after.configuration().has_quorum(&standing) {
        return;
    }
    for duty in duties(&step.after) {
        for command in carried_out(&step.after, duty) {
            if let Command::Configure { configuration } = command {
                assert!(configuration.has_quorum(&standing), "{duty} leads to {}", configuration.describe(&standing));
            }
        }
    }
}

fn next_accepted(state: &ClusterState, revision: Revision) -> Option<Command> {
    let owed = duties(state).into_iter().flat_map(|duty| carried_out(state, duty).into_iter().rev());
    owed.into_iter().find(|command| decide(state, revision.next(), command).is_ok_and(|events| !events.is_empty()))
}

fn each(walk: &Walk, check: impl Fn(&Step)) {
    walk.0.iter().for_each(check);
}

/// As many walks as take about a second each.
const CASES: u32 = 150;

macro_rules! hold {
    ($($(#[$also:meta])* $invariant:ident: $scope:ident),* $(,)?) => { $(
        $(#[$also])*
        #[test]
        fn $invariant() {
            let cases = std::env::var_os("PROPTEST_CASES").map_or(CASES, |_| ProptestConfig::default().cases);
            let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
            proptest!(config, |(walk in walks())| hold!(@$scope walk, $invariant));
        }
    )* };
    (@each_step $walk:ident, $invariant:ident) => { each(&$walk, super::$invariant) };
    (@whole_walk $walk:ident, $invariant:ident) => { super::$invariant(&$walk) };
}

mod random_walks {
    use super::*;

    hold! {
        what_is_said_of_a_life_changes_no_other: each_step,
        a_device_proves_only_an_attempt_that_was_begun: whole_walk,
        a_rejection_changes_nothing: each_step,
        a_snapshot_and_the_events_since_give_the_state: whole_walk,
        no_order_leaves_a_minority: each_step,
        epochs_and_tokens_strictly_grow: whole_walk,
        phases_move_along_the_drawn_arrows: whole_walk,
        each_fencing_life_has_one_order_and_each_node_one_active_life: each_step,
        numbers_are_given_once: whole_walk,
        a_command_repeated_at_once_changes_nothing: each_step,
        nothing_is_owed_exactly_when_all_is_settled: each_step,
        all_that_is_owed_can_be_carried_out: whole_walk,
        no_change_that_is_owed_takes_the_majority_away: each_step,
        tokens_of_a_lock_strictly_grow: whole_walk,
        a_lock_is_released_by_its_token_or_by_an_end: each_step,
        who_is_over_has_nothing: each_step,
        who_is_granted_a_lock_may_have_it: each_step,
        what_was_concluded_under_another_activation_does_not_count: each_step,
        nobody_waits_for_a_free_lock: each_step,
        what_a_write_names_is_so: each_step,
        no_item_is_lost_or_given_out_twice: whole_walk,
        a_request_takes_effect_once: whole_walk,
        what_is_counted_is_what_is_stored: each_step,
    }
}

#[test]
fn the_walks_go_where_it_matters() {
    let mut runner = TestRunner::deterministic();
    let (mut accepted, mut refused) = (BTreeMap::<String, u32>::new(), BTreeMap::<String, u32>::new());
    let first_word = |text: String| text.split([' ', '(']).next().unwrap_or_default().to_owned();
    let (mut orders, mut proofs) = (0, BTreeSet::new());
    for _ in 0..600 {
        let walk = walks().new_tree(&mut runner).unwrap().current();
        for step in walk.0.iter().skip(8) {
            match &step.answer {
                Ok(_) => *accepted.entry(first_word(format!("{:?}", step.command))).or_default() += 1,
                Err(why) => *refused.entry(first_word(format!("{why:?}"))).or_default() += 1,
            }
            orders = orders.max(step.after.fences().open().count());
            proofs.extend(step.after.fences().history().map(|record| first_word(format!("{:?}", record.proof))));
        }
    }
    let (yes, no) = (accepted.values().sum::<u32>(), refused.values().sum::<u32>());
    println!("{yes} accepted {accepted:?}\n{no} refused {refused:?}\nat most {orders} orders open");
    assert!(5 * yes > 2 * (yes + no), "too few commands were accepted");
    assert!(accepted.len() == 26 && accepted.values().all(|count| *count >= 20), "{accepted:?}");
    assert!(refused.len() >= 32, "{refused:?}");
    assert!(orders >= 2 && proofs.len() == 5, "{orders} orders, {} kinds of proof", proofs.len());
}

/// Bounded: of six hundred ended orders the newest five hundred are remembered.
#[test]
fn history_keeps_the_newest() {
    let mut state = ClusterState::new();
    let mut revision = Revision::default();
    let mut give = |state: &mut ClusterState, line: &str| {
        revision = revision.next();
        let command = language::under_current(language::command(line).unwrap(), state);
        apply(state, revision, &command).unwrap();
    };
    language::THREE.lines().for_each(|line| give(&mut state, line));
    for life in 1..=600 {
        give(&mut state, &format!("vouch n3#{life} \"alice\" \"off\""));
        give(&mut state, &format!("join n3 voter disk=3/{} nonce={life}", life + 1));
        give(&mut state, &format!("activate n3#{}", life + 1));
        assert!(state.fences().history().count() <= HISTORY);
    }
    let kept: Vec<_> = state.fences().history().map(|record| record.id.get()).collect();
    assert_eq!(kept, (101..=600).collect::<Vec<_>>());
    assert_eq!(state.member(NodeId::new(3)).unwrap().lives.len(), 1, "ended lives are forgotten");
}
