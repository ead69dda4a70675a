//! One record as a sequential specification, and the check of every key of a history against it.
//!
//! ```text
//!   Put, Delete        ─▶ the version is the revision, larger than any before
//!   Cas(version)       ─▶ Done only if the record has that version; Conflict(found) only if it has another
//!   Get                ─▶ exactly what is there
//!   never returned     ─▶ its revision is not known: whoever sees its value, or its version, first says which it was
//! ```

use std::collections::{BTreeMap, BTreeSet};

use crate::linear::{self, Spec, Timed, Verdict};
use crate::op::{Call, CallResult, Op};
use crate::report::Violation;

/// What is stored, and since when if that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Stored {
    value: u64,
    version: Option<u64>,
}

/// The record, and the largest revision that was said so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    now: Option<Stored>,
    floor: u64,
    /// It was left so by a write of which nobody was told, and that nobody has met yet. Such a write can as well be left out
    /// where another one follows it at once, and so is tried only where somebody meets it.
    unmet: bool,
}

/// What the specification is asked: a call with what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// `value`: `None` deletes. `at`: `None` where nobody was told.
    Write {
        expected: Option<Option<u64>>,
        value: Option<u64>,
        at: Option<u64>,
    },
    Conflict {
        expected: Option<u64>,
        found: Option<u64>,
    },
    Read {
        record: Option<(u64, u64)>,
    },
}

impl State {
    /// The state if the record has that version, which may be what makes it known.
    fn at_version(self, wanted: Option<u64>) -> Option<Self> {
        match (self.now, wanted) {
            (None, None) => Some(Self { unmet: false, ..self }),
            (Some(Stored { version: Some(version), .. }), Some(wanted)) => (version == wanted).then_some(self),
            (Some(Stored { value, version: None }), Some(wanted)) => {
                let now = Some(Stored { value, version: Some(wanted) });
                (wanted > self.floor).then_some(Self { now, floor: wanted, unmet: false })
            }
            (None, Some(_)) | (Some(_), None) => None,
        }
    }
}

/// The specification of one record.
pub(crate) struct Record;

impl Spec for Record {
    type Call = Step;
    type State = State;

    fn start() -> State {
        State { now: None, floor: 0, unmet: false }
    }

    fn step(state: &State, call: &Step) -> Option<State> {
        match *call {
            Step::Write { expected, value, at } => {
                let blind = (!state.unmet).then_some(*state);
                let state = expected.map_or(blind, |wanted| state.at_version(wanted))?;
                let floor = match at {
                    Some(at) if at <= state.floor => return None,
                    Some(at) => at,
                    None => state.floor,
                };
                Some(State { now: value.map(|value| Stored { value, version: at }), floor, unmet: at.is_none() })
            }
            Step::Conflict { expected, found } => (expected != found).then(|| state.at_version(found))?,
            Step::Read { record: None } => state.at_version(None),
            Step::Read { record: Some((version, value)) } => {
                state.now.filter(|stored| stored.value == value)?;
                state.at_version(Some(version))
            }
        }
    }

    fn makes(call: &Step) -> u64 {
        match call {
            Step::Write { at, .. } => at.unwrap_or(0),
            Step::Conflict { .. } | Step::Read { .. } => 0,
        }
    }

    fn until(call: &Step) -> u64 {
        match call {
            Step::Write { at, .. } => *at,
            Step::Conflict { found, .. } => *found,
            Step::Read { record } => record.map(|(version, _)| version),
        }
        .unwrap_or(u64::MAX)
    }
}

/// What is known of one key before any order is looked for.
#[derive(Debug, Default)]
pub(crate) struct Known<'a> {
    /// Every write that may have taken effect, by its value.
    pub(crate) writes: BTreeMap<u64, &'a Op>,
    /// The revision of every value that somebody was told.
    pub(crate) versions: BTreeMap<u64, u64>,
    /// Versions that were met and belong to no write whose revision is known.
    pub(crate) orphans: BTreeSet<u64>,
}

/// The calls on each key that may have changed or shown something.
pub(crate) fn by_key(ops: &[Op]) -> BTreeMap<&str, Vec<&Op>> {
    let mut keys: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for op in ops {
        if let Some(key) = op.key() {
            keys.entry(key).or_default().push(op);
        }
    }
    keys
}

/// Collects what is known of a key, and says what cannot be whatever the order was.
pub(crate) fn known<'a>(ops: &[&'a Op]) -> (Known<'a>, Vec<Violation>) {
    let (mut known, mut wrong) = (Known::default(), vec![]);
    for op in ops {
        let Some(value) = op.value() else { continue };
        match op.outcome {
            CallResult::Done(at) => {
                known.writes.insert(value, op);
                known.versions.insert(value, at);
            }
            CallResult::Unknown(_) => {
                known.writes.insert(value, op);
            }
            _ => {}
        }
    }
    for op in ops {
        let CallResult::Read { record: Some((version, value)), .. } = op.outcome else { continue };
        match known.writes.get(&value) {
            None => {
                let denied = ops.iter().find(|other| other.value() == Some(value)).copied();
                let title = match denied {
                    Some(_) => format!("a read shows {value}, whose write is said to have changed nothing"),
                    None => format!("a read shows {value}, which nobody wrote"),
                };
                wrong.push(Violation::new(title, denied.into_iter().chain([*op])));
            }
            Some(write) => {
                let first = *known.versions.entry(value).or_insert(version);
                if first != version {
                    let title = format!("{value} has version r{first} and version r{version}");
                    wrong.push(Violation::new(title, [*write, *op]));
                }
            }
        }
    }
    let told: BTreeSet<_> = known.versions.values().copied().collect();
    let met = ops.iter().filter_map(|op| match (&op.call, &op.outcome) {
        (_, CallResult::Conflict(found)) => *found,
        (Call::Cas { expected, .. }, CallResult::Done(_)) => *expected,
        _ => None,
    });
    known.orphans = met.filter(|version| !told.contains(version)).collect();
    (known, wrong)
}

/// Whether the calls on each key are linearizable.
pub(crate) fn check(ops: &[Op]) -> Vec<Violation> {
    let mut wrong = vec![];
    for (key, ops) in by_key(ops) {
        let (known, early) = known(&ops);
        let senseless = !early.is_empty();
        wrong.extend(early);
        if senseless {
            continue; // no order is worth looking for
        }
        let of: Vec<_> = ops.into_iter().filter_map(|op| Some((op, timed(op, &known)?))).collect();
        let calls: Vec<_> = of.iter().map(|(_, timed)| timed.clone()).collect();
        match linear::check::<Record>(&calls) {
            Verdict::Linearizable => {}
            Verdict::Undecided => wrong.push(Violation::new(format!("{key}: too many orders to try"), [])),
            Verdict::Stuck { placed, state, next } => {
                let title = format!("{key} is not linearizable: after these none of those marked can be next");
                let (placed, next) = (placed.iter().map(|i| of[*i].0), next.iter().map(|i| of[*i].0));
                wrong.push(Violation::stuck(format!("{title}\n    where it is {state}"), placed, next));
            }
        }
    }
    wrong
}

/// A call as the specification has it; `None` where it neither changed nor showed anything.
fn timed(op: &Op, known: &Known<'_>) -> Option<Timed<Step>> {
    // Behind a write of the same revision come those that saw it.
    let (write, seen) = (|at: u64| at * 2, |at: u64| at * 2 + 1);
    let (step, hint) = match (&op.call, &op.outcome) {
        (Call::Get { .. }, CallResult::Read { at, record }) => {
            let from = record.map_or(*at, |(version, _)| version.max(*at));
            (Step::Read { record: *record }, seen(from))
        }
        (Call::Cas { expected, .. }, CallResult::Conflict(found)) => {
            (Step::Conflict { expected: *expected, found: *found }, found.map_or(u64::MAX, seen))
        }
        (_, CallResult::Done(at)) => {
            (Step::Write { expected: op.expects(), value: op.value(), at: Some(*at) }, write(*at))
        }
        (Call::Get { .. }, CallResult::Unknown(_)) => return None,
        (_, CallResult::Unknown(_)) => {
            let told = op.value().and_then(|value| known.versions.get(&value)).copied();
            // A write of which nobody ever saw anything can be left out of every order in which it stands.
            if op.value().is_some() && told.is_none() && known.orphans.is_empty() {
                return None;
            }
            // Which value it was makes no difference where nobody saw it.
            let value = op.value().map(|value| told.map_or(0, |_| value));
            (Step::Write { expected: op.expects(), value, at: told }, told.map_or(u64::MAX, write))
        }
        _ => return None,
    };
    Some(Timed { call: step, invoked: op.invoked, returned: op.returned, hint })
}

impl Op {
    /// The version that it insists on, if it insists on one.
    pub(crate) fn expects(&self) -> Option<Option<u64>> {
        match &self.call {
            Call::Cas { expected, .. } => Some(*expected),
            _ => None,
        }
    }
}
