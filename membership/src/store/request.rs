//! Requests: commands that take effect at most once, however often and however late their copies arrive.
//!
//! ```text
//!   Request{nonce, since r40} ─▶ log ─▶ r43: takes effect, remembered
//!                  └── a copy ─▶ log ─▶ r51: remembered, nothing new
//!                  └── a copy ─▶ log ─▶ r40 + WINDOW + 1: too old, refused, whatever is remembered
//! ```
//!
//! A network repeats and delays messages. What became of a request is remembered for [`WINDOW`] entries, and a request
//! is rejected when its entry lies more than that after the last entry that its proposer had applied. So nothing has to
//! be remembered for longer. A proposer that does not know the outcome [settles](crate::Command::Settle) the request:
//! from then on it either has taken effect, at a revision that the proposer is told, or never will.

use std::fmt;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use crate::id::{Nonce, Revision};

/// How many entries a request may be under way, and for how many its fate is remembered.
pub const WINDOW: u64 = 16_384;

/// The identity of a request, and what its proposer had applied when it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Request {
    /// Drawn at random for this request, and used for no other.
    pub nonce: Nonce,
    /// How far its proposer had applied the log. The request must be committed at most [`WINDOW`] entries later.
    pub since: Revision,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x} of {}", self.nonce.get() >> 96, self.since)
    }
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Fate {
    /// It took effect at that revision.
    Done(Revision),
    /// It was settled at that revision before it took effect, and never will.
    Void(Revision),
}

impl Fate {
    const fn at(self) -> Revision {
        match self {
            Self::Done(at) | Self::Void(at) => at,
        }
    }
}

/// Whether an entry that carries a request may take effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// The first copy to arrive, and in time: it takes effect.
    Fresh,
    /// An earlier copy has taken effect, so this one changes nothing.
    Done,
    /// The request was settled before it took effect, so no copy of it ever will.
    Void,
    /// More than [`WINDOW`] entries late, or older than what its proposer claims to have applied. An earlier copy may
    /// or may not have taken effect: that is no longer remembered.
    Outdated,
}

/// The fates of the requests of the last [`WINDOW`] entries.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Answered {
    fates: OrdMap<Nonce, Fate>,
    /// The same by revision, to forget the oldest. An entry carries at most one request.
    order: OrdMap<Revision, Nonce>,
}

impl Answered {
    /// What became of a request; `None` if it is unknown, or no longer remembered.
    pub fn fate(&self, nonce: Nonce) -> Option<Fate> {
        self.fates.get(&nonce).copied()
    }

    /// Whether a request whose entry is at `revision` may still take effect.
    pub(crate) fn admit(&self, revision: Revision, request: Request) -> Admission {
        match self.fate(request.nonce) {
            Some(Fate::Done(_)) => Admission::Done,
            Some(Fate::Void(_)) => Admission::Void,
            None if within(revision, request) => Admission::Fresh,
            None => Admission::Outdated,
        }
    }

    pub(crate) fn note(&mut self, nonce: Nonce, fate: Fate) {
        let at = fate.at();
        self.fates.insert(nonce, fate);
        self.order.insert(at, nonce);
        while let Some((oldest, nonce)) = self.order.get_min().copied() {
            if at.get().saturating_sub(oldest.get()) <= WINDOW {
                break;
            }
            self.order.remove(&oldest);
            self.fates.remove(&nonce);
        }
    }
}

const fn within(revision: Revision, request: Request) -> bool {
    let since = request.since.get();
    since < revision.get() && revision.get() - since <= WINDOW
}

#[cfg(test)]
mod tests {
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
}
