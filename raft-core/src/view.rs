//! The picture that a node has: committed facts on one side, its own observations on the other, in different types.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorate_membership::detector::Signal;
use quorate_membership::{ClusterState, Identity, NodeId, Revision};

use crate::error::Fatal;
use crate::lease::LeaseView;

/// What a node knows and what it sees.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct View {
    /// The committed state, as far as this node has applied it. The same on every node at the same revision.
    pub cluster: Arc<ClusterState>,
    /// What this node sees from where it stands. Others may see something else.
    pub local: Local,
}

/// What one node sees, here and now. Opinions, never a ground to take work over.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Local {
    /// This node.
    pub node: NodeId,
    /// This life of it; `None` until its join is applied here.
    pub identity: Option<Identity>,
    /// Whether this node heard of a majority, itself or through a leader, within the last election timeout.
    pub quorate: bool,
    /// Who leads, as far as this node knows. An isolated node may be wrong for ever: nothing may rest on it.
    pub leader: Option<NodeId>,
    /// The Raft term.
    pub term: u64,
    /// How far this node has applied the log (entries that change nothing count too).
    pub applied: Revision,
    /// How the others sound to this node. Only a leader hears everybody.
    pub sightings: BTreeMap<NodeId, Sighting>,
    /// This node's own lease: whether it may act, what would stop its work, and whether that is armed.
    pub lease: LeaseView,
    /// Why nothing becomes durable on this node just now, and what helps; `None` while its disk does its work. Such a node
    /// hands leadership over and does not stand for election, keeps its lease as long as it can renew it, and goes on by
    /// itself.
    pub disk: Option<String>,
    /// Why this node has stopped for good, if it has.
    pub stopped: Option<Fatal>,
}

impl View {
    /// A picture of `cluster` as `local` sees it, for tests of programs that read one.
    pub fn new(cluster: Arc<ClusterState>, local: Local) -> Self {
        Self { cluster, local }
    }
}

/// How one node sounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// The detector's opinion.
    pub signal: Signal,
    /// For how long it has been silent.
    pub silence: Duration,
}

impl Local {
    /// What `node` sees before its first look: not quorate, no leader, nothing applied.
    pub fn unknown(node: NodeId) -> Self {
        Self {
            node,
            identity: None,
            quorate: false,
            leader: None,
            term: 0,
            applied: Revision::default(),
            sightings: BTreeMap::new(),
            lease: LeaseView::default(),
            disk: None,
            stopped: None,
        }
    }
}
