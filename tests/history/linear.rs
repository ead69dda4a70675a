//! Whether a history is linearizable: whether its calls can be put in an order that the sequential specification allows
//! and that keeps every "returned before the other was invoked".
//!
//! ```text
//!   a ├──────────┤                 may be next: whoever was invoked before the first open return
//!   b      ├──────────┤            a, b    not c: a and b have returned before it was invoked
//!   c                   ├─────┤    u       invoked, never returned: any time from here on, or never
//!   u   ├─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─▶
//! ```
//!
//! The search of Wing and Gong with Lowe's memory: a set of placed calls that led to the same state once is not tried
//! again. Every call has a hint where it belongs (the revision that it was told), which decides only in which order the
//! candidates are tried: a history that is as it says is placed almost without a step back. Where revisions only grow, a
//! call that makes one is not tried while one that needs an older state has still to come.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

use crate::op::NEVER;

/// What one thing does when it is used by one client after another.
pub(crate) trait Spec {
    type Call: PartialEq;
    type State: Clone + Eq + Hash + Debug;

    fn start() -> Self::State;

    /// The state after a call whose outcome was this; `None` if that cannot happen here.
    fn step(state: &Self::State, call: &Self::Call) -> Option<Self::State>;

    /// The revision that it makes, 0 if none or not known.
    fn makes(_: &Self::Call) -> u64 {
        0
    }

    /// The last revision after which it can come: no state that follows a larger one allows it.
    fn until(_: &Self::Call) -> u64 {
        u64::MAX
    }
}

/// A call with its times and its outcome in it.
#[derive(Debug, Clone)]
pub(crate) struct Timed<C> {
    pub(crate) call: C,
    pub(crate) invoked: u64,
    /// [`NEVER`]: it may take effect at any time after its invocation, or not at all.
    pub(crate) returned: u64,
    /// Where it probably belongs.
    pub(crate) hint: u64,
}

/// The answer, by the places of the calls in the list that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Linearizable,
    /// However they are ordered, it does not go on from here: the last that were placed, the state after them, and those
    /// of which one should be next.
    Stuck {
        placed: Vec<usize>,
        state: String,
        next: Vec<usize>,
    },
    /// Too many orders to try.
    Undecided,
}

/// How many calls may be tried. An honest history of n calls needs about n.
const BUDGET: usize = 200_000;

/// How many of the last placed are told.
const TOLD: usize = 6;

struct Frame<S> {
    state: S,
    candidates: Vec<usize>,
    tried: usize,
}

struct Search<'a, S: Spec> {
    calls: &'a [Timed<S::Call>],
    /// Those that returned and those that never did, by invocation.
    known: Vec<usize>,
    unknown: Vec<usize>,
    placed: Vec<bool>,
    open: usize,
}

impl<S: Spec> Search<'_, S> {
    /// Whoever may be next: invoked before the first return of those that are still to be placed.
    fn candidates(&self) -> Vec<usize> {
        let (mut found, mut first_return) = (vec![], NEVER);
        // In the order of invocations.
        for i in self.known.iter().copied().filter(|i| !self.placed[*i]) {
            if self.calls[i].invoked > first_return {
                break;
            }
            first_return = first_return.min(self.calls[i].returned);
            found.push(i);
        }
        // Of several that do the same the earliest is as good as any.
        for i in self.unknown.iter().copied().filter(|i| !self.placed[*i] && self.calls[*i].invoked <= first_return) {
            let same =
                |other: &usize| self.calls[*other].returned == NEVER && self.calls[*other].call == self.calls[i].call;
            if !found.iter().any(same) {
                found.push(i);
            }
        }
        let waited_for = found.iter().filter(|i| self.calls[**i].returned != NEVER);
        let most = waited_for.map(|i| S::until(&self.calls[*i].call)).min().unwrap_or(u64::MAX);
        found.retain(|i| self.calls[*i].invoked <= first_return && S::makes(&self.calls[*i].call) <= most);
        found.sort_by_key(|i| self.calls[*i].hint);
        found
    }

    fn place(&mut self, i: usize, placed: bool) {
        self.placed[i] = placed;
        if self.calls[i].returned != NEVER {
            self.open = if placed { self.open - 1 } else { self.open + 1 };
        }
    }

    fn key(&self) -> Box<[u64]> {
        let word = |bits: &[bool]| bits.iter().rev().fold(0, |word, bit| word << 1 | u64::from(*bit));
        self.placed.chunks(64).map(word).collect()
    }
}

/// Looks for an order.
pub(crate) fn check<S: Spec>(calls: &[Timed<S::Call>]) -> Verdict {
    let (mut known, mut unknown): (Vec<_>, Vec<_>) = (0..calls.len()).partition(|i| calls[*i].returned != NEVER);
    for list in [&mut known, &mut unknown] {
        list.sort_by_key(|i| calls[*i].invoked);
    }
    let open = known.len();
    let mut search = Search::<S> { calls, known, unknown, placed: vec![false; calls.len()], open };
    let first = Frame { state: S::start(), candidates: search.candidates(), tried: 0 };
    let (mut order, mut stack, mut seen) = (vec![], vec![first], HashSet::new());
    let (mut best, mut steps) = (Verdict::Undecided, 0);
    let mut least_open = usize::MAX;
    loop {
        if search.open == 0 {
            return Verdict::Linearizable;
        }
        let Some(frame) = stack.last_mut() else { return best };
        if search.open < least_open {
            least_open = search.open;
            let placed = order[order.len().saturating_sub(TOLD)..].to_vec();
            let next = frame.candidates.iter().copied().filter(|i| calls[*i].returned != NEVER).collect();
            best = Verdict::Stuck { placed, state: format!("{:?}", frame.state), next };
        }
        if let Some(i) = frame.candidates.get(frame.tried).copied() {
            frame.tried += 1;
            steps += 1;
            if steps > BUDGET {
                return Verdict::Undecided;
            }
            if let Some(state) = S::step(&frame.state, &calls[i].call) {
                search.place(i, true);
                if seen.insert((search.key(), state.clone())) {
                    order.push(i);
                    stack.push(Frame { state, candidates: search.candidates(), tried: 0 });
                } else {
                    search.place(i, false);
                }
            }
        } else {
            stack.pop();
            if let Some(i) = order.pop() {
                search.place(i, false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A counter that says what it was before.
    struct Counter;

    impl Spec for Counter {
        type Call = u64;
        type State = u64;

        fn start() -> u64 {
            0
        }

        fn step(state: &u64, call: &u64) -> Option<u64> {
            (state == call).then_some(state + 1)
        }
    }

    fn calls(of: &[(u64, u64, u64)]) -> Vec<Timed<u64>> {
        of.iter().map(|&(call, invoked, returned)| Timed { call, invoked, returned, hint: 0 }).collect()
    }

    #[test]
    fn calls_that_overlap_are_put_in_any_order_and_others_only_in_theirs() {
        assert_eq!(check::<Counter>(&calls(&[(1, 0, 10), (0, 5, 15)])), Verdict::Linearizable);
        assert_eq!(check::<Counter>(&calls(&[(2, 0, 10), (1, 1, 9), (0, 2, 8), (3, 20, 30)])), Verdict::Linearizable);
        // They touch: neither returned before the other was invoked.
        assert_eq!(check::<Counter>(&calls(&[(1, 0, 10), (0, 10, 15)])), Verdict::Linearizable);
        let reversed = check::<Counter>(&calls(&[(1, 0, 10), (0, 11, 15)]));
        assert_eq!(reversed, Verdict::Stuck { placed: vec![], state: "0".into(), next: vec![0] });
    }

    #[test]
    fn what_never_returned_takes_effect_late_or_never_but_not_before_its_invocation() {
        assert_eq!(check::<Counter>(&calls(&[(0, 0, NEVER), (0, 5, 10)])), Verdict::Linearizable);
        assert_eq!(check::<Counter>(&calls(&[(0, 0, NEVER), (1, 5, 10), (2, 50, 60)])), Verdict::Linearizable);
        assert!(matches!(check::<Counter>(&calls(&[(0, 20, NEVER), (1, 5, 10)])), Verdict::Stuck { .. }));
    }

    /// Remembers everything, so that no two orders are alike.
    struct Diary;

    impl Spec for Diary {
        type Call = u64;
        type State = Vec<u64>;

        fn start() -> Vec<u64> {
            vec![]
        }

        fn step(state: &Vec<u64>, call: &u64) -> Option<Vec<u64>> {
            (*call < 20).then(|| [&state[..], &[*call]].concat())
        }
    }

    #[test]
    fn a_search_that_would_take_for_ever_says_so() {
        let mut many = calls(&(0..20).map(|i| (i, 0, 1000)).collect::<Vec<_>>());
        assert_eq!(check::<Diary>(&many), Verdict::Linearizable);
        many.push(Timed { call: 99, invoked: 0, returned: 1000, hint: 0 });
        assert_eq!(check::<Diary>(&many), Verdict::Undecided);
    }
}
