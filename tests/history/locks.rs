//! One lock as a sequential specification, and what must hold of its holders whatever the order was.
//!
//! ```text
//!   n1  ├ lock ┤ r40      ├act┤   ├act┤  ╳ killed                        an act: between two looks at the guard that both
//!   n2     ├ lock ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─┤ r52   ├act┤  ├release┤    said that it may be done
//!                                             └ lost: from n1's last act on, at any time
//! ```
//!
//! No two acts of different tokens overlap; tokens grow in the order of acts, of grants and of what was written under them.

use std::collections::{BTreeMap, BTreeSet};

use crate::linear::{self, Spec, Timed, Verdict};
use crate::op::{Call, CallResult, NEVER, Op};
use crate::report::Violation;

/// Who holds it, by the place of the call that asked, and under which token if that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Hold {
    asked: usize,
    token: Option<u64>,
}

/// The lock, and the largest token that was said so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    held: Option<Hold>,
    floor: u64,
}

/// What the specification is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Take {
        asked: usize,
        token: Option<u64>,
    },
    /// Somebody met it held under that token: its holder in an act, or who tried.
    Met {
        token: u64,
    },
    /// Held under that token no more; it may have been lost before.
    Release {
        token: u64,
    },
    /// Its holder's end was proved, or it was dropped.
    Lost {
        asked: usize,
    },
}

/// The specification of one lock.
pub(crate) struct Mutex;

impl Spec for Mutex {
    type Call = Step;
    type State = State;

    fn start() -> State {
        State { held: None, floor: 0 }
    }

    fn step(state: &State, call: &Step) -> Option<State> {
        let State { held, floor } = *state;
        match (*call, held) {
            (Step::Take { asked, token }, None) => {
                let grown = token.is_none_or(|token| token > floor);
                let (held, floor) = (Some(Hold { asked, token }), token.unwrap_or(floor));
                grown.then_some(State { held, floor })
            }
            (Step::Met { token }, Some(Hold { token: Some(held), .. })) => (held == token).then_some(*state),
            (Step::Met { token }, Some(Hold { asked, token: None })) => {
                (token > floor).then_some(State { held: Some(Hold { asked, token: Some(token) }), floor: token })
            }
            (Step::Release { token }, Some(Hold { token: Some(held), .. })) if held == token => {
                Some(State { held: None, floor })
            }
            (Step::Release { token }, _) => (token <= floor).then_some(*state),
            // What nobody met while it was held can as well be left out.
            (Step::Lost { asked }, Some(hold)) => {
                (hold.asked == asked && hold.token.is_some()).then_some(State { held: None, floor })
            }
            (Step::Take { .. }, Some(_)) | (Step::Met { .. } | Step::Lost { .. }, None) => None,
        }
    }

    fn makes(call: &Step) -> u64 {
        match call {
            Step::Take { token, .. } => token.unwrap_or(0),
            Step::Met { .. } | Step::Release { .. } | Step::Lost { .. } => 0,
        }
    }

    fn until(call: &Step) -> u64 {
        match call {
            Step::Take { token, .. } => token.unwrap_or(u64::MAX),
            Step::Met { token } => *token,
            // Said late, it changes nothing.
            Step::Release { .. } | Step::Lost { .. } => u64::MAX,
        }
    }
}

/// Every lock of a history.
pub(crate) fn check(ops: &[Op]) -> Vec<Violation> {
    let mut locks: BTreeMap<&str, Vec<&Op>> = BTreeMap::new();
    for op in ops {
        let guarded = match &op.call {
            Call::Guarded { name, .. } => Some(name.as_str()),
            _ => None,
        };
        if let Some(name) = op.lock().or(guarded) {
            locks.entry(name).or_default().push(op);
        }
    }
    locks.into_iter().flat_map(|(name, ops)| one(name, &ops)).collect()
}

fn one(name: &str, ops: &[&Op]) -> Vec<Violation> {
    let mut wrong = [overlaps(name, ops), tokens(name, ops)].concat();
    let (of, calls): (Vec<_>, Vec<_>) = steps(ops).into_iter().unzip();
    match linear::check::<Mutex>(&calls) {
        Verdict::Linearizable => {}
        Verdict::Undecided => wrong.push(Violation::new(format!("lock {name}: too many orders to try"), [])),
        Verdict::Stuck { placed, state, next } => {
            let title = format!("lock {name} is not linearizable: after these none of those marked can be next");
            let (placed, next) = (placed.iter().map(|i| of[*i]), next.iter().map(|i| of[*i]));
            wrong.push(Violation::stuck(format!("{title}\n    where it is {state}"), placed, next));
        }
    }
    wrong
}

/// Two that both might act, at one moment.
fn overlaps(name: &str, ops: &[&Op]) -> Vec<Violation> {
    let mut acts: Vec<_> = ops.iter().filter_map(|op| acted(op).map(|token| (token, *op))).collect();
    acts.sort_by_key(|(_, op)| op.invoked);
    let (mut last, mut wrong): (Option<(u64, &Op)>, _) = (None, vec![]);
    for (token, act) in acts {
        if let Some((earlier, other)) = last.filter(|(earlier, _)| *earlier != token) {
            if act.invoked < other.returned {
                wrong.push(Violation::new(format!("lock {name}: two holders at once"), [other, act]));
            } else if token < earlier {
                let title = format!("lock {name}: a token went backwards, from r{earlier} to r{token}");
                wrong.push(Violation::new(title, [other, act]));
            }
        }
        if last.is_none_or(|(_, other)| act.returned > other.returned) {
            last = Some((token, act));
        }
    }
    wrong
}

fn acted(op: &Op) -> Option<u64> {
    match (&op.call, &op.outcome) {
        (Call::Act { token, .. }, CallResult::Fine) => Some(*token),
        _ => None,
    }
}

/// No token twice, and what is written under them in their order.
fn tokens(name: &str, ops: &[&Op]) -> Vec<Violation> {
    let mut wrong = vec![];
    let mut grants: BTreeMap<u64, &Op> = BTreeMap::new();
    let mut writes: BTreeMap<u64, (u64, &Op)> = BTreeMap::new();
    for op in ops {
        match (&op.call, &op.outcome) {
            (_, CallResult::Granted(token)) => {
                if let Some(other) = grants.insert(*token, op) {
                    wrong.push(Violation::new(format!("lock {name}: r{token} was granted twice"), [other, *op]));
                }
            }
            (Call::Guarded { token, .. }, CallResult::Done(at)) => {
                writes.insert(*at, (*token, op));
            }
            _ => {}
        }
    }
    for (first, next) in writes.values().zip(writes.values().skip(1)) {
        if next.0 < first.0 {
            let title = format!("lock {name}: a write under r{} took effect after one under r{}", next.0, first.0);
            wrong.push(Violation::new(title, [first.1, next.1]));
        }
    }
    for (at, (token, write)) in &writes {
        // While it wrote, nobody else had been granted the lock.
        if let Some((other, grant)) = grants.range(token + 1..*at).next() {
            let title =
                format!("lock {name}: a write under r{token} took effect at r{at}, after the grant of r{other}");
            wrong.push(Violation::new(title, [*grant, *write]));
        }
    }
    wrong
}

/// The calls as the specification has them.
fn steps<'a>(ops: &[&'a Op]) -> Vec<(&'a Op, Timed<Step>)> {
    let granted: BTreeSet<_> = ops.iter().filter_map(|op| grant(op)).collect();
    // Of a grant that nobody lived to tell.
    let orphans = ops.iter().any(|op| matches!(op.outcome, CallResult::Held(token) if !granted.contains(&token)));
    let mut acted_until: BTreeMap<u64, u64> = BTreeMap::new();
    for (token, op) in ops.iter().filter_map(|op| acted(op).map(|token| (token, op))) {
        let until = acted_until.entry(token).or_default();
        *until = op.returned.max(*until);
    }
    let mut steps = vec![];
    for (asked, op) in ops.iter().enumerate() {
        let Op { invoked, returned, .. } = **op;
        let at = |call, hint| Timed { call, invoked, returned, hint };
        let lost = |invoked| Timed { call: Step::Lost { asked }, invoked, returned: NEVER, hint: NEVER };
        match (&op.call, &op.outcome) {
            (_, CallResult::Granted(token)) => {
                steps.push((*op, at(Step::Take { asked, token: Some(*token) }, token * 2)));
                steps.push((*op, lost(acted_until.get(token).copied().unwrap_or(invoked))));
            }
            // One that was not had may have been granted all the same, and given back when nobody wanted it any more.
            (Call::Lock { .. }, CallResult::Unknown(_) | CallResult::Failed(_)) if orphans => {
                let take = Step::Take { asked, token: None };
                steps.push((*op, Timed { call: take, invoked, returned: NEVER, hint: NEVER }));
                steps.push((*op, lost(invoked)));
            }
            (Call::Act { token, .. }, CallResult::Fine)
            | (Call::Guarded { token, .. }, CallResult::Done(_))
            | (_, CallResult::Held(token)) => steps.push((*op, at(Step::Met { token: *token }, token * 2 + 1))),
            (Call::Release { token, .. }, CallResult::Fine) => {
                steps.push((*op, at(Step::Release { token: *token }, token * 2 + 1)));
            }
            // An unknown release is a loss, and anything else changed nothing.
            _ => {}
        }
    }
    steps
}

fn grant(op: &Op) -> Option<u64> {
    match op.outcome {
        CallResult::Granted(token) => Some(token),
        _ => None,
    }
}

/// What holders wrote, in its order, to a resource that asks nobody: the tokens of each lock only grow.
pub(crate) fn resource(lines: &str) -> Vec<Violation> {
    let mut last: BTreeMap<&str, (u64, &str)> = BTreeMap::new();
    let mut wrong = vec![];
    for line in lines.lines() {
        let mut words = line.split_ascii_whitespace();
        let name = words.next().unwrap_or_default();
        let Some(token) = words.next().and_then(|word| word.strip_prefix('r')?.parse().ok()) else {
            wrong.push(Violation::new(format!("no line of a resource: {line}"), []));
            continue;
        };
        if let Some((_, before)) = last.get(name).filter(|(before, _)| *before > token) {
            wrong
                .push(Violation::new(format!("lock {name}: the resource was written under {before}, then {line}"), []));
        }
        last.insert(name, (token, line));
    }
    wrong
}
