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

impl Request {
    /// Whether an entry at `revision` that carries it comes after what its proposer had applied, and not too late.
    pub(super) const fn is_in_time(self, revision: Revision) -> bool {
        let since = self.since.get();
        since < revision.get() && revision.get() - since <= WINDOW
    }
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
    pub(super) const fn at(self) -> Revision {
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
