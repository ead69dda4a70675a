//! Locks: named and exclusive, held by one life of a member or by a session, and granted in the order of asking.
//!
//! ```text
//!              Lock ─▶ free: granted, token = this revision        Unlock (by token) ─┐
//!              Lock ─▶ held: waits ──────────────────────────────┐                    ▼
//!                                                                └── first in line ◀── released
//!   the end of the holder's life is proved (Fenced, Left) ───────────────────────────▶ released
//!   the holder's session expired ─▶ delayed for the lock-delay of the session ───────▶ released
//! ```
//!
//! A member's lock passes on when it is released, or when the end of the life that holds it is *proved*. It never
//! passes on because a timer ran out: a life that is silent, suspected or being fenced keeps its locks, since it may
//! still act. What time can prove, an expiry proves under a contract ([`lease`](crate::lease)).
//!
//! The token is the revision of the grant (P13). The tokens of one lock strictly grow. Two locks that are granted by
//! different entries have different tokens; those that pass on by the same entry share one.
//!
//! **What a session's lock does not promise.** Nothing can stop the client of a session. When the session expires, the
//! client may not know it yet and may still act. The lock tells which client *should* act; only a resource that checks
//! tokens enforces it. The lock-delay (Burrows, *Chubby*, 2006) makes harm less likely, and proves nothing.

use std::fmt;
use std::time::Duration;

use imbl::Vector;
use serde::{Deserialize, Serialize};

use crate::bounded_text::text;
use crate::id::{Identity, Nonce, Revision, SessionId};

/// The most locks that may be held, delayed or waited for at a time.
pub const MAX_LOCKS: usize = 4096;

/// The most requests that may wait for one lock.
pub const MAX_WAITERS: usize = 256;

/// The most requests that may wait for all locks together, so that they fit into a snapshot.
pub const MAX_WAITING: usize = 16_384;

text!(
    /// The name of a lock and of the queue that belongs to it. At most 255 bytes.
    Name, "a name", 255
);

/// What can hold a lock, or own a bound record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Holder {
    /// One life of a member: what it holds passes on when its end is proved.
    Life(Identity),
    /// A client that is not a member: what it holds passes on when its session ends.
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

/// The grant under which a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Grant {
    /// The life or session that holds the lock.
    pub holder: Holder,
    /// The fencing token: the revision of the grant. The holder shows it to every resource that it uses under the lock.
    pub token: Revision,
    /// The nonce of the request that asked for it. The grant counts for no other.
    pub request: Nonce,
}

/// A request that waits for a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Waiter {
    /// The life or session that is to hold the lock.
    pub holder: Holder,
    /// The nonce of the request.
    pub request: Nonce,
}

/// The lock-delay after the session that held the lock has expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Delay {
    /// The token under which the session held the lock.
    pub token: Revision,
    /// How long the delay lasts at least. At most [`MAX_TTL`](crate::session::MAX_TTL).
    pub at_least: Duration,
}

/// A lock that is held, delayed or waited for.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lock {
    /// The grant under which it is held; `None` if it is not held.
    pub grant: Option<Grant>,
    /// The lock-delay, while it lasts.
    pub delay: Option<Delay>,
    #[serde(deserialize_with = "crate::collections::vector")]
    pub(crate) waiters: Vector<Waiter>,
}

impl Lock {
    /// The waiting requests, in the order in which they asked. At most [`MAX_WAITERS`].
    pub fn waiters(&self) -> impl ExactSizeIterator<Item = &Waiter> {
        self.waiters.iter()
    }

    /// Whether it can be granted: it is neither held nor delayed.
    pub fn is_free(&self) -> bool {
        self.grant.is_none() && self.delay.is_none()
    }

    /// Whether it can be forgotten: it is free, and no request waits.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_free() && self.waiters.is_empty()
    }
}

/// Why a lock was released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Release {
    /// Its holder released it.
    Unlocked,
    /// Its holder has ended.
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
