//! The fates of the last requests: found by nonce, added at the end, and forgotten from the beginning.
//!
//! ```text
//!   runs, each sorted by nonce                                         newest, as they came
//!   ┌──────────────────┐ ┌──────────────────┐ ┌─────────┐ ┌────┐      ┌────┐
//!   │ 4096, r1 … r4100 │ │ 4096             │ │ 2048    │ │ 64 │      │ 17 │ ◀── note
//!   └──────────────────┘ └──────────────────┘ └─────────┘ └────┘      └────┘
//!     goes once all of it is too old            two of the same size become one
//! ```
//!
//! This is the logarithmic method of Bentley and Saxe, with an upper limit. Each write of the cluster adds a fate, and each
//! published picture shares the runs with the next. A balanced tree would copy a path of its nodes for each fate, in and out.
//!
//! What is here depends on the fates that were noted, in their order, and on nothing else. So all replicas hold the same.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::request::{Admission, Fate, Request, WINDOW};
use crate::id::{Nonce, Revision};

/// How many are kept as they came. A published picture may cost a copy of so many.
const NEWEST: usize = 32;
/// A run of this length joins no other.
const LONGEST: usize = 4096;

/// A request and what became of it.
type Noted = (Nonce, Fate);

/// Fates of requests, sorted by nonce.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Run {
    /// The revision of the newest.
    last: Revision,
    fates: Arc<[Noted]>,
}

impl Run {
    fn find(&self, nonce: Nonce) -> Option<Fate> {
        let at = self.fates.binary_search_by_key(&nonce, |(nonce, _)| *nonce).ok()?;
        self.fates.get(at).map(|(_, fate)| *fate)
    }

    /// The fates of two runs, of which `later` has the newer ones.
    fn joined(earlier: &Self, later: &Self) -> Self {
        let (mut a, mut b) = (earlier.fates.iter().copied().peekable(), later.fates.iter().copied().peekable());
        let mut fates = Vec::with_capacity(earlier.fates.len() + later.fates.len());
        while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
            let next = if x.0 < y.0 { a.next() } else { b.next() };
            fates.extend(next);
        }
        fates.extend(a);
        fates.extend(b);
        Self { last: later.last, fates: fates.into() }
    }
}

/// The fates of the requests of the last [`WINDOW`] entries.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Answered {
    /// From the oldest to the newest.
    runs: Arc<Vec<Run>>,
    newest: Arc<Vec<Noted>>,
}

impl Answered {
    /// What became of a request; `None` if it is unknown, or no longer remembered.
    pub fn fate(&self, nonce: Nonce) -> Option<Fate> {
        let newest = self.newest.iter().rev().find(|(noted, _)| *noted == nonce).map(|(_, fate)| *fate);
        let fate = newest.or_else(|| self.runs.iter().rev().find_map(|run| run.find(nonce)))?;
        self.is_remembered(fate.at()).then_some(fate)
    }

    /// Whether a request whose entry is at `revision` may still take effect.
    pub(crate) fn admit(&self, revision: Revision, request: Request) -> Admission {
        match self.fate(request.nonce) {
            Some(Fate::Done(_)) => Admission::Done,
            Some(Fate::Void(_)) => Admission::Void,
            None if request.is_in_time(revision) => Admission::Fresh,
            None => Admission::Outdated,
        }
    }

    pub(crate) fn note(&mut self, nonce: Nonce, fate: Fate) {
        let newest = Arc::make_mut(&mut self.newest);
        newest.push((nonce, fate));
        if newest.len() >= NEWEST {
            let mut full = std::mem::take(newest);
            full.sort_by_key(|(nonce, _)| *nonce);
            self.append(Run { last: fate.at(), fates: full.into() });
        }
    }

    /// Adds a run, joins those of one length, and drops those that are too old.
    fn append(&mut self, mut run: Run) {
        let at = run.last;
        let runs = Arc::make_mut(&mut self.runs);
        while let Some(before) = runs.pop_if(|b| b.fates.len() == run.fates.len() && run.fates.len() < LONGEST) {
            run = Run::joined(&before, &run);
        }
        runs.push(run);
        runs.retain(|run| remembered(run.last, at));
    }

    fn is_remembered(&self, at: Revision) -> bool {
        let newest = self.newest.last().map(|(_, fate)| fate.at()).or_else(|| self.runs.last().map(|run| run.last));
        newest.is_none_or(|newest| remembered(at, newest))
    }
}

/// Whether a copy of a request that was answered at `at` may still arrive when `newest` is answered.
const fn remembered(at: Revision, newest: Revision) -> bool {
    newest.get().saturating_sub(at.get()) <= WINDOW
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const fn request(nonce: u128, since: u64) -> Request {
        Request { nonce: Nonce::new(nonce), since: Revision::new(since) }
    }

    #[test]
    fn a_copy_is_known_for_as_long_as_one_may_come() {
        let (mut answered, r) = (Answered::default(), Revision::new);
        assert_eq!(answered.admit(r(11), request(1, 10)), Admission::Fresh);
        answered.note(Nonce::new(1), Fate::Done(r(11)));
        // Fresh ones push it towards its end, and the last moment at which a copy counts is one at which it is known.
        answered.note(Nonce::new(2), Fate::Done(r(10 + WINDOW)));
        assert_eq!(answered.admit(r(10 + WINDOW), request(1, 10)), Admission::Done);
        answered.note(Nonce::new(3), Fate::Void(r(12 + WINDOW)));
        assert_eq!(answered.fate(Nonce::new(1)), None);
        assert_eq!(answered.admit(r(12 + WINDOW), request(1, 10)), Admission::Outdated);
        assert_eq!(answered.admit(r(13 + WINDOW), request(3, 11)), Admission::Void);
    }

    #[test]
    fn who_claims_to_come_from_the_future_is_refused() {
        let answered = Answered::default();
        assert_eq!(answered.admit(Revision::new(11), request(1, 11)), Admission::Outdated);
    }

    /// Beside a plain map of all that was ever noted, for three windows, with gaps.
    #[test]
    fn each_fate_of_the_window_is_found_and_none_before_it() {
        let (mut answered, mut all) = (Answered::default(), BTreeMap::new());
        let (mut at, mut longest) = (0, 0);
        for step in 1..=3 * WINDOW {
            // Nonces in no order and none twice: an odd constant has an inverse.
            let nonce = Nonce::new(u128::from(step.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
            at += if step % 1000 == 0 { 700 } else { 1 + step % 2 };
            let fate = if step % 7 == 0 { Fate::Void(Revision::new(at)) } else { Fate::Done(Revision::new(at)) };
            answered.note(nonce, fate);
            all.insert(nonce, fate);
            longest = longest.max(answered.runs.len());
            if step % 509 == 0 {
                for (nonce, fate) in &all {
                    let expected = (at - fate.at().get() <= WINDOW).then_some(*fate);
                    assert_eq!(answered.fate(*nonce), expected, "{nonce:?} at {at}");
                }
                all.retain(|_, fate| at - fate.at().get() <= 2 * WINDOW);
            }
        }
        assert!(longest <= 12, "{longest} runs");
        assert!(answered.runs.iter().map(|run| run.fates.len()).sum::<usize>() <= WINDOW as usize + LONGEST);
    }
}
