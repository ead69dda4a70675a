//! Why a lock was not acquired, what its request waited for, and why no step may be begun under it.

use std::time::Duration;

use quorate_membership::{Awaited, Holder, Identity, Name, Revision, TextError};

use crate::error::{Fatal, ProposeError};
use crate::lease::{NotHeld, ProtectError};

/// Why a lock was not acquired. The request is withdrawn from the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// The request could not be committed, or the rules refused it:
    /// [`Rejection::LockHeld`](quorate_membership::Rejection::LockHeld) for `try_lock` on a held lock.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// The lock did not become free in time, or this life did not become active or hold its lease in time.
    #[error("lock `{name}` was not acquired within {waited:?}: {why}")]
    TimedOut {
        /// The name of the lock.
        name: Name,
        /// How long the call waited.
        waited: Duration,
        /// What it still waited for, as far as this node had applied the log.
        why: LockWait,
    },
    /// This life has ended or is being fenced, and can acquire no lock any more. Unless the node was removed, start it
    /// again with `resume`.
    #[error(
        "{0} can acquire no lock, because it has ended or is ending; unless it was removed, start it again with `resume`"
    )]
    Over(Identity),
    /// The lock was granted, but the stop mechanism could not be armed for it. The lock was released again.
    #[error("lock `{name}` was granted and released again, because its work could not be protected: {why}")]
    Unprotected {
        /// The name of the lock.
        name: Name,
        /// Why the stop mechanism does not protect the work.
        why: ProtectError,
    },
}

/// What a request for a lock waits for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LockWait {
    /// That this life is active. With what it waits for itself.
    #[error("this life is not active yet, and waits for {}", said(.0.as_ref()))]
    Active(Option<Awaited>),
    /// That the holder releases it.
    #[error("{holder} holds it under token {token}, and {before} other requests come first")]
    Holder {
        /// The holder.
        holder: Holder,
        /// Its token.
        token: Revision,
        /// How many requests wait before this one.
        before: usize,
    },
    /// That the request is committed and applied here.
    #[error("no majority has answered the request")]
    Log,
    /// That this life holds its lease. The lock was granted, and is released again.
    #[error("it was granted, but this life does not hold its lease; it was released again")]
    Lease,
}

fn said(awaited: Option<&Awaited>) -> String {
    awaited.map_or_else(|| "its join".into(), ToString::to_string)
}

impl From<TextError> for LockError {
    fn from(text: TextError) -> Self {
        Self::Propose(text.into())
    }
}

impl From<Fatal> for LockError {
    fn from(fatal: Fatal) -> Self {
        Self::Propose(fatal.into())
    }
}

/// Why no step may be begun under a lock now. Checking changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotPermitted {
    /// The lease does not hold now. If it is renewed, the lock is still held and the next check may succeed.
    #[error(transparent)]
    NotHeld(#[from] NotHeld),
    /// The lock is lost: it was released, or granted to another holder. It never returns under this token.
    #[error("the lock was released or passed to another holder; stop all work under its token")]
    PassedOn,
}
