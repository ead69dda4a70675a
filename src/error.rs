//! Every error of this crate. Each states what it changed and what to do.

use std::sync::Arc;

use quorate_membership::ClusterState;

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
