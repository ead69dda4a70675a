//! The errors of starting a node, of commands, of reads and of events. Each states what it changed and what to do.
//!
//! | error             | returned by                               | what is certain after it                            |
//! |-------------------|-------------------------------------------|-----------------------------------------------------|
//! | [`StartError`]    | `bootstrap`, `join`, `resume`             | each variant states it                              |
//! | [`ProposeError`]  | every command, and writes of records      | nothing was changed, except after `OutcomeUnknown`  |
//! | [`ReadError`]     | `read_barrier`, and linearizable reads    | nothing was changed                                 |
//! | [`HandOverError`] | `hand_over`                               | nothing was changed, except after `TimedOut`        |
//! | [`SucceedError`]  | `dangerous().succeed`                     | nothing was changed                                 |
//! | [`ActiveError`]   | `active`                                  | this life can never become active                   |
//! | [`EventsError`]   | the stream of events                      | nothing was changed; a gap carries the whole state  |
//! | [`Fatal`]         | all of them, once the node has stopped    | what was under way may or may not have taken effect |
//!
//! [`LockError`](crate::LockError) is in [`lock`](crate::lock), and the errors of leases are in
//! [`lease`](crate::lease).

use std::sync::Arc;

use quorate_membership::{ClusterState, Revision};

pub use quorate_raft_core::{Fatal, HandOverError, ProposeError, ReadError, StartError, SucceedError};

/// Why [`Events`](crate::Events) has no next event. Reading changes nothing in the cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EventsError {
    /// Events were missed. They left this node's history before they were read, or this node started from a snapshot
    /// that includes them. Continue from `state`; the events after it follow.
    #[error("events were missed; continue from the state as of {}", state.revision())]
    Gap {
        /// The committed state after the missed events.
        state: Arc<ClusterState>,
    },
    /// The reader named a revision that does not exist yet. Another cluster gave it, or this one was founded anew. No
    /// events follow. Read the state, and begin after its revision.
    #[error(
        "{after} does not exist yet, the newest revision is {newest}; read the state, and begin after its revision"
    )]
    Ahead {
        /// The revision that the reader named.
        after: Revision,
        /// The newest revision, confirmed by a quorum.
        newest: Revision,
    },
    /// The node has stopped, and no more events follow.
    #[error("this node has stopped; there are no more events")]
    Stopped,
}

/// Why this life cannot become active any more. [`Cluster::active`](crate::Cluster::active) changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ActiveError {
    /// The life has ended or is being fenced: it left, it was ordered to be fenced, a newer process of this node has
    /// joined, or the node was removed. Unless the node was removed, start it again with `resume`.
    #[error("{0} has ended or is being fenced; start this node again with `resume`, unless it was removed")]
    Over(quorate_membership::Identity),
    /// The node has stopped before the life became active.
    #[error(transparent)]
    Stopped(#[from] Fatal),
}
