//! Locks: named, exclusive, held by one life of a member or by a session, passed on in the order of asking.
//!
//! ```text
//!              Lock ─▶ free: granted, token = this revision        Unlock (by token) ─┐
//!              Lock ─▶ held: waits ──────────────────────────────┐                    ▼
//!                                                                └── first in line ◀── released
//!   the holder's life is over, with a proof (Fenced, Left) ──────────────────────────▶ released
//!   the holder's session ended uncleanly ─▶ delayed for as long as it asked for ─────▶ released
//! ```
//!
//! A member's lock passes on when it is released, or when the life that holds it is *proved* to be over. Never because a
//! timer ran out: a life that is silent, suspected, or being fenced keeps its locks, since it may still act. What time
//! can prove, an expiry proves under a contract ([`lease`](crate::lease)).
//!
//! The token is the revision of the grant (P13). Tokens of one lock strictly grow, and so do those of all locks that are
//! granted by different entries; two locks that pass on by the same end share one.
//!
//! **What a session's lock does not promise.** A session is kept by a client that nobody can stop. When it ends by time,
//! the client may not know yet, and may still act: the lock says who *should* act, and only a resource that checks
//! tokens makes sure of it. The lock-delay (Burrows, *Chubby*, 2006) makes harm less likely and proves nothing.

use std::fmt;
use std::time::Duration;

use imbl::Vector;
use serde::{Deserialize, Serialize};

use crate::id::{Identity, Nonce, Revision, SessionId};
use crate::text::text;

/// The most locks that may be held, delayed or waited for at a time.
pub const MAX_LOCKS: usize = 4096;

/// The most that may wait for one lock.
pub const MAX_WAITERS: usize = 256;

/// The most that may wait for all locks together: all of it has to fit into a snapshot.
pub const MAX_WAITING: usize = 16_384;

text!(
    /// The name of a lock and of the queue that belongs to it. At most 255 bytes.
    Name, "a name", 255
);

/// Who holds something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Holder {
    /// One life of a member: what it holds passes on when its end is proved.
    Life(Identity),
    /// A client that is no member: what it holds passes on when its session has ended.
    Session(SessionId),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Life(who) => write!(f, "{who}"),
            Self::Session(session) => write!(f, "{session}"),
        }
    }
}

impl From<Identity> for Holder {
    fn from(who: Identity) -> Self {
        Self::Life(who)
    }
}

impl From<SessionId> for Holder {
    fn from(session: SessionId) -> Self {
        Self::Session(session)
    }
}

/// That a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Grant {
    /// By whom.
    pub holder: Holder,
    /// The fencing token: the revision of the grant. To be shown to whatever is touched under the lock.
    pub token: Revision,
    /// The request that asked for it: a grant counts for no other.
    pub request: Nonce,
}

/// Someone who waits for a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Waiter {
    /// Who.
    pub holder: Holder,
    /// Under which request.
    pub request: Nonce,
}

/// That a lock is held back after the unclean end of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Delay {
    /// The token of the session that ended.
    pub token: Revision,
    /// For at least how long.
    pub at_least: Duration,
}

/// A lock that is held, held back or waited for.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lock {
    /// By whom it is held.
    pub grant: Option<Grant>,
    /// Whether it is held back.
    pub delay: Option<Delay>,
    /// Who waits, first in line first. At most [`MAX_WAITERS`].
    pub waiters: Vector<Waiter>,
}

impl Lock {
    /// Whether nobody holds it and nothing holds it back.
    pub fn is_free(&self) -> bool {
        self.grant.is_none() && self.delay.is_none()
    }

    /// Whether nothing about it is worth remembering.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_free() && self.waiters.is_empty()
    }
}

/// Why a lock was released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Release {
    /// Its holder said so.
    Unlocked,
    /// Its holder is over.
    HolderEnded,
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unlocked => "unlocked",
            Self::HolderEnded => "its holder has ended",
        })
    }
}
