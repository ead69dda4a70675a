//! The checkers themselves: what they must accept, and what they must reject.
//!
//! ```text
//!   by hand:    "n1/c1 put k 1 | 0 10 | done r5"          one call a line: what, when, what came of it
//!   by dozens:  a store that is right, many clients, seeded ─▶ accepted ─▶ one answer changed ─▶ rejected
//! ```
//!
//! A checker that rejects nothing proves nothing.

#![expect(clippy::unwrap_used, clippy::panic, reason = "what a person wrote wrongly fails as a test does")]

use crate::locks;
use crate::op::{Call, CallResult, NEVER, Op};
use crate::records;
use crate::report::{Violation, told};
use crate::simulated::simulate;
use crate::witness;
use quorate::testing::sim::Rng;

/// A history as a person writes it. Without an end, or with an unknown one: unknown.
fn history(text: &str) -> Vec<Op> {
    let op = |line: &str| {
        let mut parts = line.split('|').map(str::trim);
        let (client, call) = parts.next()?.split_once(' ')?;
        let mut times = parts.next()?.split_ascii_whitespace().map(|time| time.parse().unwrap());
        let outcome = CallResult::parse(parts.next()?).unwrap();
        let (invoked, returned) = (times.next()?, times.next().unwrap_or(NEVER));
        Some(Op { client: client.into(), call: Call::parse(call).unwrap(), invoked, returned, outcome })
    };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| op(line).unwrap_or_else(|| panic!("{line}"))).collect()
}

/// What an order that exists or not says, and what the witnesses say.
fn both(ops: &[Op]) -> [Vec<Violation>; 2] {
    [[records::check(ops), locks::check(ops)].concat(), witness::check(ops).wrong]
}

fn accepted(text: &str) {
    let [order, witnesses] = both(&history(text));
    assert!(order.is_empty() && witnesses.is_empty(), "{text}\n{}{}", told(&order), told(&witnesses));
}

/// Rejected by a finding that says so. Whether both must see it: not everything has a witness.
fn rejected(text: &str, order: &str, witnesses: &str) {
    for (found, says) in both(&history(text)).iter().zip([order, witnesses]) {
        let said = told(found);
        assert!(if says.is_empty() { said.is_empty() } else { said.contains(says) }, "{text}\nwants {says:?}:\n{said}");
    }
}

#[test]
fn what_overlaps_may_come_in_any_order() {
    accepted(
        "n1/c1 put k 1     | 0 30  | done r6
         n2/c1 put k 2     | 5 20  | done r5
         n3/c1 get k       | 10 25 | seen r5 r5 2
         n3/c1 get k       | 26 40 | seen r6 r6 1
         n1/c1 cas k r6 3  | 41 60 | done r8
         n2/c1 cas k r6 4  | 42 55 | conflict r8
         n3/c1 delete k    | 61 70 | done r9
         n2/c1 cas k r8 5  | 65 80 | conflict -
         n1/c1 get k       | 71 81 | seen r10 -
         n1/c1 cas k - 6   | 82 90 | done r11",
    );
}

#[test]
fn an_unknown_write_may_have_happened_late_or_never() {
    let late = "n1/c1 put k 1     | 0 10  | done r5
                n2/c1 put k 2     | 11    | unknown killed
                n3/c1 get k       | 20 30 | seen r6 r5 1
                n3/c1 get k       | 80 90 | seen r9 r8 2";
    accepted(late);
    accepted(&late.replace("seen r9 r8 2", "seen r9 r5 1"));
    // Its version is met before its value is, or without it.
    accepted(&late.replace("get k       | 80 90 | seen r9 r8 2", "cas k r5 3   | 80 90 | conflict r8"));
    let deleted = "n1/c1 put k 1  | 0 10  | done r5
                   n2/c1 delete k | 11    | unknown no quorum
                   n3/c1 get k    | 20 30 | seen r6 r5 1
                   n3/c1 get k    | 40 50 | seen r7 -";
    accepted(deleted);
}

/// Each of them might be the one that was met, at any time; that must not make it hard to say.
#[test]
fn many_unknown_writes_make_no_answer_too_long_to_look_for() {
    let deletes: String = (1..=9).map(|i| format!("n{i}/c2 delete k | {i} | unknown killed\n")).collect();
    let overlap = "n1/c3 put k 105    | 100 300 | done r105
                   n1/c4 cas k r7 106 | 110 310 | conflict r100
                   n1/c5 get k        | 120 320 | seen r106 -
                   n1/c6 put k 107    | 130 330 | done r107
                   n1/c7 get k        | 331 340 | seen r107 r107 107";
    let puts: String = (1..=60).map(|i| format!("n{i}/c1 put k {i} | {i} | unknown killed\n")).collect();
    accepted(&format!("{puts}{deletes}{overlap}"));
    let wrong = overlap.replace("seen r107 r107 107", "seen r107 r105 105");
    rejected(&format!("{puts}{deletes}{wrong}"), "k is not linearizable", "does not know r107");
}

#[test]
fn a_lost_update_is_found() {
    let lost = "n1/c1 put k 1    | 0 10  | done r5
                n1/c1 cas k r5 2 | 11 20 | done r6
                n2/c1 put k 3    | 15 30 | done r7
                n3/c1 get k      | 31 40 | seen r8 r6 2";
    rejected(lost, "k is not linearizable", "a read at r8 shows r6, and does not know r7");
}

#[test]
fn a_stale_read_is_found() {
    let stale = "n1/c1 put k 1 | 0 10  | done r5
                 n1/c1 put k 2 | 11 20 | done r6
                 n2/c1 get k   | 21 30 | seen r5 r5 1";
    rejected(stale, "k is not linearizable", "r5 was told of a call that began when r6 had been told");
    // Also where another key alone shows that it is.
    let other = "n1/c1 put j 1 | 0 10  | done r5
                 n2/c1 get k   | 21 30 | seen r4 -";
    rejected(other, "", "r4 was told of a call that began when r5 had been told");
}

#[test]
fn a_value_that_nobody_wrote_is_found() {
    let never = "n1/c1 put k 1 | 0 10  | done r5
                 n2/c1 get k   | 11 20 | seen r7 r6 9";
    rejected(never, "shows 9, which nobody wrote", "");
    let denied = "n1/c1 put k 1 | 0 10  | failed no leader
                  n2/c1 get k   | 11 20 | seen r7 r6 1";
    rejected(denied, "whose write is said to have changed nothing", "");
    let twice = "n1/c1 put k 1 | 0 10  | done r5
                 n2/c1 get k   | 11 20 | seen r7 r7 1";
    rejected(twice, "1 has version r5 and version r7", "");
}

#[test]
fn two_winners_from_one_version_are_found() {
    let two = "n1/c1 put k 1    | 0 10  | done r5
               n1/c1 cas k r5 2 | 11 30 | done r6
               n2/c1 cas k r5 3 | 12 31 | done r7";
    rejected(two, "k is not linearizable", "a compare-and-set succeeded on a version that was not there any more");
    let fresh = "n1/c1 cas k - 2 | 11 30 | done r6
                 n2/c1 cas k - 3 | 12 31 | done r7";
    rejected(fresh, "k is not linearizable", "a compare-and-set succeeded on a version that was not there any more");
}

#[test]
fn a_refusal_without_a_reason_is_found() {
    let none = "n1/c1 put k 1    | 0 10  | done r5
                n2/c1 cas k r5 3 | 12 31 | conflict r5";
    rejected(none, "k is not linearizable", "");
    let old = "n1/c1 put k 1    | 0 10  | done r5
               n1/c1 put k 2    | 11 20 | done r6
               n2/c1 cas k r3 3 | 21 31 | conflict r5";
    rejected(old, "k is not linearizable", "refused for a version that had been replaced before it began");
}

#[test]
fn an_acknowledged_write_that_vanished_is_found() {
    let gone = "n1/c1 put k 1 | 0 10  | done r5
                n2/c1 put j 2 | 20 30 | done r6
                n3/c1 get k   | 40 50 | seen r7 -";
    rejected(gone, "k is not linearizable", "a read at r7 shows nothing, and does not know r5");
}

#[test]
fn an_unknown_write_that_took_effect_before_its_invocation_is_found() {
    let early = "n1/c1 put k 1 | 0 10  | done r5
                 n3/c1 get k   | 20 30 | seen r8 r8 2
                 n2/c1 put k 2 | 40    | unknown killed";
    rejected(early, "k is not linearizable", "r8 was told of a call that began when r8 had been told already");
    // Seen only later, its revision gives it away.
    let late = "n1/c1 put k 1 | 0 10  | done r9
                n2/c1 put k 2 | 40    | unknown killed
                n3/c1 get k   | 50 60 | seen r12 r8 2";
    rejected(late, "k is not linearizable", "r8 was told of a call that began when r9 had been told already");
}

#[test]
fn writes_against_real_time_are_found() {
    let reversed = "n1/c1 put k 1 | 0 10  | done r6
                    n2/c1 put k 2 | 20 30 | done r5";
    rejected(reversed, "k is not linearizable", "r5 was told of a call that began when r6 had been told already");
    rejected(&reversed.replace("put k 2", "put j 2"), "", "r5 was told of a call");
}

/// Passed on twice: by a release and by a loss. Who asks in vain, and who dies while asking, changes nothing.
const PASSED_ON: &str = "n1/c1 lock a         | 0 10    | granted r5
                         n2/c1 lock a         | 5 8     | held r5
                         n2/c1 lock a         | 20 60   | granted r9
                         n1/c1 act a r5       | 21 25   | fine
                         n1/c1 guarded j 1 a r5 | 22 24 | done r6
                         n1/c1 release a r5   | 30 62   | fine
                         n2/c1 act a r9       | 61 70   | fine
                         n2/c1 act a r9       | 75      | unknown killed
                         n3/c1 lock a         | 71 200  | granted r20
                         n3/c1 act a r20      | 201 210 | fine
                         n3/c1 guarded j 2 a r20 | 202 204 | done r21
                         n3/c1 release a r20  | 211     | unknown dropped
                         n4/c1 lock a         | 212     | unknown killed
                         n1/c1 lock a         | 300 310 | held r25
                         n1/c1 lock a         | 320 330 | granted r30";

#[test]
fn a_lock_passes_on_by_a_release_or_a_loss() {
    accepted(PASSED_ON);
}

#[test]
fn two_holders_at_once_are_found() {
    let two = PASSED_ON.replace("act a r20      | 201 210", "act a r20      | 65 66");
    rejected(&two, "lock a: two holders at once", "");
    // Nobody acts at one moment, but the first had not let go.
    let kept = PASSED_ON.replace("act a r9       | 75      | unknown killed", "act a r9       | 220 230 | fine");
    rejected(&kept, "lock a is not linearizable", "");
    let ghost = PASSED_ON.replace("held r25", "held r5");
    rejected(&ghost, "lock a is not linearizable", "");
}

#[test]
fn a_token_that_went_backwards_is_found() {
    let acts = PASSED_ON.replace("n2/c1 act a r9       | 75      | unknown killed", "n1/c1 act a r5 | 75 80 | fine");
    rejected(&acts, "lock a: a token went backwards, from r9 to r5", "");
    let grants = PASSED_ON.replace("granted r30", "granted r7");
    rejected(&grants, "lock a is not linearizable", "r7 was told of a call that began when r21 had been told already");
    let same = PASSED_ON.replace("granted r30", "granted r20");
    rejected(&same, "lock a: r20 was granted twice", "r20 was told of a call");
    let late = PASSED_ON.replace("guarded j 1 a r5 | 22 24 | done r6", "guarded j 1 a r5 | 22 290 | done r22");
    rejected(&late, "a write under r5 took effect after one under r20", "");
    let superseded = PASSED_ON.replace("guarded j 1 a r5 | 22 24 | done r6", "guarded j 1 a r5 | 22 290 | done r10");
    rejected(&superseded, "a write under r5 took effect at r10, after the grant of r9", "");
    assert!(locks::resource("a r5 n1#1\nb r4 n2#1\na r5 n1#1\na r9 n2#1\n").is_empty());
    let back = told(&locks::resource("a r5 n1#1\na r9 n2#1\na r5 n1#1\n"));
    assert!(back.contains("the resource was written under a r9 n2#1, then a r5 n1#1"), "{back}");
}

#[test]
fn a_finding_names_the_calls_that_conflict() {
    let [order, _] = both(&history("n1/c1 put k 7 | 0 10 | done r5\nn2/c1 get k | 11000000 12000000 | seen r6 -"));
    let said = told(&order);
    assert!(said.contains("?") && said.contains("n2/c1") && said.contains("get k"), "{said}");
    assert!(said.contains("11.000 ms ..        12.000 ms  seen r6 -"), "{said}");
}

/// Changes one answer of a history; `false` where there is nothing to change.
type Mutation = fn(&mut Vec<Op>, &mut Rng) -> bool;

/// Changes one of those calls for which it can be said what it would have been.
fn one(ops: &mut [Op], rng: &mut Rng, change: impl Fn(&mut Op) -> bool) -> bool {
    let from = rng.below(ops.len() as u64) as usize;
    let (before, after) = ops.split_at_mut(from);
    after.iter_mut().chain(before).any(change)
}

const MUTATIONS: &[(&str, Mutation)] = &[
    ("a read that is older than a write that had returned", |ops, rng| {
        let old = ops.clone();
        one(ops, rng, |op| {
            let CallResult::Read { record: Some((version, _)), .. } = op.outcome else { return false };
            let same = |other: &&Op| other.key() == op.key() && other.returned < op.invoked;
            let before = |other: &Op| match other.outcome {
                CallResult::Done(at) if at < version => Some((at, other.value()?)),
                _ => None,
            };
            // Both had returned: the one that it shows, and the one that it does not know.
            let replaced = old.iter().filter(same).any(|other| other.outcome == CallResult::Done(version));
            let Some(record) = old.iter().filter(same).find_map(before).filter(|_| replaced) else { return false };
            op.outcome = CallResult::Read { at: record.0, record: Some(record) };
            true
        })
    }),
    ("a compare-and-set that won although it was refused", |ops, rng| {
        let most =
            ops.iter().filter_map(|op| if let CallResult::Done(at) = op.outcome { Some(at) } else { None }).max();
        one(ops, rng, |op| {
            let refused =
                matches!((&op.call, &op.outcome), (Call::Cas { expected: Some(_), .. }, CallResult::Conflict(_)));
            op.outcome = if refused { CallResult::Done(most.unwrap_or(0) + 1) } else { op.outcome.clone() };
            refused
        })
    }),
    ("an acknowledged write that a read should have shown, and does not", |ops, rng| {
        let old = ops.clone();
        one(ops, rng, |op| {
            let CallResult::Read { at, record: Some((version, _)) } = op.outcome else { return false };
            let same = |other: &&Op| other.key() == op.key();
            let known =
                old.iter().filter(same).any(|o| o.outcome == CallResult::Done(version) && o.returned < op.invoked);
            // Nothing that may have deleted it explains it.
            let deletes = old.iter().filter(same).filter(|other| matches!(other.call, Call::Delete { .. }));
            let excused = deletes.filter(|other| other.invoked <= op.returned).any(|other| match other.outcome {
                CallResult::Done(deleted) => deleted > version,
                _ => true,
            });
            op.outcome = if known && !excused { CallResult::Read { at, record: None } } else { op.outcome.clone() };
            known && !excused
        })
    }),
    ("a value from nowhere", |ops, rng| {
        one(ops, rng, |op| {
            let CallResult::Read { at, record: Some((version, _)) } = op.outcome else { return false };
            op.outcome = CallResult::Read { at, record: Some((version, 0)) };
            true
        })
    }),
    ("a token that was given before", |ops, rng| {
        let tokens: Vec<_> = ops.iter().filter_map(|op| Some((op.lock()?.to_string(), op.outcome.clone()))).collect();
        one(ops, rng, |op| {
            let CallResult::Granted(token) = op.outcome else { return false };
            let earlier = tokens.iter().find_map(|(name, outcome)| match outcome {
                CallResult::Granted(other) if *other < token && Some(name.as_str()) == op.lock() => Some(*other),
                _ => None,
            });
            op.outcome = CallResult::Granted(earlier.unwrap_or(token));
            earlier.is_some()
        })
    }),
    ("an act that began before the former holder's last had ended", |ops, rng| {
        let acts: Vec<_> = ops.iter().filter(|op| matches!(op.call, Call::Act { .. })).cloned().collect();
        one(ops, rng, |op| {
            let (Call::Act { token, .. }, CallResult::Fine) = (&op.call, &op.outcome) else { return false };
            let fine = |other: &&Op| other.lock() == op.lock() && other.outcome == CallResult::Fine;
            let older = |other: &&Op| matches!(other.call, Call::Act { token: other, .. } if other < *token);
            let former = acts.iter().filter(fine).rfind(older);
            op.invoked = former.map_or(op.invoked, |former| former.returned - 1);
            former.is_some()
        })
    }),
];

#[test]
fn a_store_that_is_right_is_accepted_whatever_its_clients_do() {
    for seed in 0..60 {
        let ops = simulate(seed);
        let [order, witnesses] = both(&ops);
        assert!(order.is_empty() && witnesses.is_empty(), "seed {seed}\n{}{}", told(&order), told(&witnesses));
    }
}

#[test]
fn every_mutant_of_an_accepted_history_is_rejected() {
    for (what, mutate) in MUTATIONS {
        let mut applied = 0;
        for seed in 0..40 {
            let (mut ops, mut rng) = (simulate(seed), Rng::new(seed));
            if !mutate(&mut ops, &mut rng) {
                continue;
            }
            applied += 1;
            let found = both(&ops).concat();
            assert!(!found.is_empty(), "seed {seed}: {what} was accepted");
        }
        assert!(applied > 20, "{what}: {applied} of 40 histories had such a call");
    }
}
