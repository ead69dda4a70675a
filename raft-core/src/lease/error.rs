//! Why work may not run here, and why it could not be protected.
//!
//! ```text
//!   lease.check()               ─▶ NotHeld          nothing may begin
//!   lease.protect(), .spawn()   ─▶ ProtectError     this work must not begin; nothing is armed for it
//! ```
//!
//! `NotHeld` passes by itself when the next grant arrives ([`Lease::held`](crate::Lease::held)). The other errors last until
//! the node is started with another stop mechanism, or the named cause is mended.

use quorate_membership::Stop;

/// This node holds no lease at the moment: it was not granted one yet, the last one has ended, or is about to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this node holds no lease; begin nothing, and stop what runs")]
pub struct NotHeld;

/// Work could not be protected. Nothing was armed for it, and it must not begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtectError {
    /// There is no lease.
    #[error(transparent)]
    NotHeld(#[from] NotHeld),
    /// The stop mechanism could not be armed.
    #[error("the stop mechanism could not be armed, so the work must not begin: {0}")]
    Mechanism(String),
    /// A child was to be bound to the lease, and this node has no mechanism that could end a process.
    #[error("{0} ends no process; start the node with a dead-man or a watchdog to bind children to its lease")]
    Unbound(Stop),
    /// A child was to be bound to the lease, and this life has declared that its work dies with its process. A child may
    /// outlive the process by a moment.
    #[error(
        "this life declared that its work dies with its process, which a child may outlive; start the node without `work_dies_with_process` to bind children"
    )]
    ProcessBound,
    /// The child could not be started, or could not be bound to the lease. What was started of it is dead.
    #[error("the process was not started: {0}")]
    Spawn(String),
    /// As [`Self::Spawn`], and it is not certain that all of it is dead. It stays protected: the stop mechanism acts at the end
    /// of the lease.
    #[error("the process was not started: {0}; it stays protected, because it is not certain that all of it is dead")]
    MayRun(String),
    /// The node was shut down. Its lease is gone for good: a later life of the node has a lease of its own, under another
    /// identity.
    #[error("this node was shut down; nothing was protected")]
    Closed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_says_what_to_do_or_what_was_not_done() {
        let text = |error: ProtectError| error.to_string();
        assert_eq!(text(NotHeld.into()), "this node holds no lease; begin nothing, and stop what runs");
        assert!(text(ProtectError::Mechanism("it is broken".into())).contains("must not begin: it is broken"));
        assert!(text(ProtectError::Unbound(Stop::Tokens)).contains("start the node with a dead-man or a watchdog"));
        assert!(text(ProtectError::ProcessBound).contains("without `work_dies_with_process`"));
        assert!(text(ProtectError::Closed).ends_with("nothing was protected"));
    }
}
