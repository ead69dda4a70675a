//! The errors of the front door: each says what it did and did not do. Those of the engine are passed on as they are.

use std::sync::Arc;

use quorate_membership::ClusterState;

pub use quorate_raft_core::{Fatal, HandOverError, ProposeError, ReadError, StartError, SucceedError};

/// Why there is no next event. Reading changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EventsError {
    /// Events were missed: they left this node's history before they were read, or it started after them. Look at
    /// `state` for what holds now, then read on: the events after it follow.
    #[error("events were missed; go on from the state as of {}", state.revision())]
    Gap {
        /// What holds now.
        state: Arc<ClusterState>,
    },
    /// The node has stopped; there will be no more.
    #[error("this node has stopped; there are no more events")]
    Stopped,
}

/// Why this life did not become active.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ActiveError {
    /// It is over: it was fenced, it left, a newer process of this node has joined, or the node was removed. Unless it
    /// was removed, start it again with `resume`.
    #[error("{0} is over; start this node again with `resume`, unless it was removed")]
    Over(quorate_membership::Identity),
    /// The node has stopped.
    #[error(transparent)]
    Stopped(#[from] Fatal),
}
