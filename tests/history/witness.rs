//! The same question with the answers' own revisions as witnesses: no order is looked for, the one that was told is checked.
//!
//! ```text
//!   returned before the other was invoked   ⇒  revision ≤, and < where the other is a write or a grant
//!   by revision, one key after another:
//!     r12 put 7    r15 cas(r12) 8    read 8 of r15 at r17    r19 delete    read nothing at r20
//!          └─ what a compare-and-set insists on and what a read shows is what the last one before it left
//! ```
//!
//! It sees more than a search for an order: all keys and locks share one log, so what is told of one is checked against
//! what was told of another.

use std::collections::BTreeMap;

use crate::op::{Call, CallResult, NEVER, Op};
use crate::records::{Known, by_key, known};
use crate::report::Violation;

/// What was found, and how much was not as it might be.
#[derive(Debug, Default)]
pub(crate) struct Witnessed {
    pub(crate) wrong: Vec<Violation>,
    /// Reads that show something newer than the revision that they name. That is no stale read; it is only not the
    /// picture as of that revision.
    pub(crate) ahead: usize,
}

/// Checks every revision that was told against the clock and against the other answers.
pub(crate) fn check(ops: &[Op]) -> Witnessed {
    let mut found = Witnessed { wrong: real_time(ops), ahead: 0 };
    for ops in by_key(ops).into_values() {
        let (known, early) = known(&ops);
        // What is senseless by itself is told by the other check.
        if early.is_empty() {
            replay(&ops, &known, &mut found);
        }
    }
    found
}

/// The revision that a call was told, from which on, and whether it made that revision.
fn told(op: &Op, versions: &BTreeMap<u64, u64>) -> Option<(u64, u64, bool)> {
    match op.outcome {
        CallResult::Done(at) | CallResult::Granted(at) => Some((at, at, true)),
        CallResult::Read { at, record } => Some((at, record.map_or(at, |(version, _)| version.max(at)), false)),
        // Its end is not known, but somebody saw it done.
        CallResult::Unknown(_) => op.value().and_then(|value| versions.get(&value)).map(|at| (*at, *at, true)),
        CallResult::Conflict(_) | CallResult::Held(_) | CallResult::Fine | CallResult::Failed(_) => None,
    }
}

fn real_time(ops: &[Op]) -> Vec<Violation> {
    let versions = ops.iter().filter_map(|op| match op.outcome {
        CallResult::Read { record: Some((version, value)), .. } => Some((value, version)),
        _ => None,
    });
    let versions = versions.collect();
    let mut begun: Vec<_> = ops.iter().filter_map(|op| Some((op, told(op, &versions)?))).collect();
    let mut ended: Vec<_> = begun.iter().filter(|(op, _)| op.returned != NEVER).copied().collect();
    begun.sort_by_key(|(op, _)| op.invoked);
    ended.sort_by_key(|(op, _)| op.returned);
    let mut ended = ended.into_iter().peekable();
    let (mut latest, mut wrong): (Option<(u64, &Op)>, _) = (None, vec![]);
    for (op, (at, _, makes)) in begun {
        while let Some((before, (_, upto, _))) = ended.next_if(|(before, _)| before.returned < op.invoked) {
            if latest.is_none_or(|(most, _)| upto > most) {
                latest = Some((upto, before));
            }
        }
        if let Some((most, before)) = latest
            && (at < most || (at == most && makes))
        {
            let title = format!("r{at} was told of a call that began when r{most} had been told already");
            wrong.push(Violation::new(title, [before, op]));
        }
    }
    wrong
}

fn replay(ops: &[&Op], known: &Known<'_>, found: &mut Witnessed) {
    let mut writes: BTreeMap<u64, &Op> = BTreeMap::new();
    let deletes = ops.iter().filter(|op| matches!(op.call, Call::Delete { .. })).copied();
    let done = deletes.clone().filter_map(|op| match op.outcome {
        CallResult::Done(at) => Some((at, op)),
        _ => None,
    });
    let told = known.versions.iter().filter_map(|(value, at)| Some((*at, *known.writes.get(value)?)));
    for (at, op) in told.chain(done) {
        if let Some(other) = writes.insert(at, op) {
            found.wrong.push(Violation::new(format!("two writes of one record have r{at}"), [other, op]));
        }
    }
    // A delete that may have happened, and one that did later: both explain why nothing is there.
    let deleted_unseen = |by: &Op| deletes.clone().any(|delete| delete.is_unknown() && delete.invoked <= by.returned);
    let is_put = |op: &Op| op.value().is_some();
    for op in ops.iter().copied() {
        match (&op.call, &op.outcome) {
            (Call::Cas { expected, .. }, CallResult::Done(at)) => {
                let last = writes.range(..at).next_back();
                let fits = match (expected, last) {
                    (Some(wanted), Some((version, put))) if version == wanted => is_put(put),
                    // Of a write that nobody was told of.
                    (Some(wanted), last) => {
                        known.orphans.contains(wanted) && wanted < at && last.is_none_or(|(v, _)| v < wanted)
                    }
                    (None, last) => last.is_none_or(|(_, put)| !is_put(put)) || deleted_unseen(op),
                };
                if !fits {
                    let title = "a compare-and-set succeeded on a version that was not there any more";
                    found.wrong.push(Violation::new(title, last.map(|(_, op)| *op).into_iter().chain([op])));
                }
            }
            (_, CallResult::Conflict(seen)) => {
                // What had returned before it began, it must have met, or something later.
                let missed = writes.iter().rev().find(|(_, put)| put.returned < op.invoked);
                let stale = missed.filter(|(at, put)| match seen {
                    Some(version) => *at > version,
                    None => is_put(put) && !deleted_unseen(op) && !deleted_by(&writes, **at, op),
                });
                if let Some((_, put)) = stale {
                    let title = "a compare-and-set was refused for a version that had been replaced before it began";
                    found.wrong.push(Violation::new(title, [*put, op]));
                }
            }
            (_, CallResult::Read { at, record: Some((version, _)) }) => {
                found.ahead += usize::from(version > at);
                if let Some((newer, put)) = writes.range(version + 1..).next().filter(|(newer, _)| *newer <= at) {
                    let title = format!("a read at r{at} shows r{version}, and does not know r{newer}");
                    found.wrong.push(Violation::new(title, [*put, op]));
                }
            }
            (_, CallResult::Read { at, record: None }) => {
                let Some((version, put)) = writes.range(..=at).next_back().filter(|(_, put)| is_put(put)) else {
                    continue;
                };
                if deleted_by(&writes, *at, op) {
                    found.ahead += 1;
                } else if !deleted_unseen(op) {
                    let title = format!("a read at r{at} shows nothing, and does not know r{version}");
                    found.wrong.push(Violation::new(title, [*put, op]));
                }
            }
            _ => {}
        }
    }
}

/// Whether a delete after `from` may have happened before `by` returned.
fn deleted_by(writes: &BTreeMap<u64, &Op>, from: u64, by: &Op) -> bool {
    writes.range(from + 1..).any(|(_, op)| op.value().is_none() && op.invoked <= by.returned)
}
