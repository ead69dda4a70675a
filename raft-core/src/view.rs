//! The view of a node: the committed state, and separately this node's own observations.
//!
//! ```text
//!   View ─┬─ cluster: ClusterState    committed, the same on every node at the same revision
//!         └─ local: Local             observed here and now, different on every node
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorate_membership::detector::Signal;
use quorate_membership::{ClusterState, Identity, NodeId, Revision};
use tokio::time::Instant;

use crate::error::Fatal;
use crate::lease::LeaseView;
use crate::transport::NodeLinks;

/// What a node knows and what it observes.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct View {
    /// The committed state, as far as this node has applied it. The same on every node at the same revision.
    pub cluster: Arc<ClusterState>,
    /// This node's own observations. Other nodes may observe something else.
    pub local: Local,
}

/// What one node observes, here and now. Observations never justify taking work over; only a committed proof does.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Local {
    /// This node.
    pub node: NodeId,
    /// This life of the node; `None` until its join is applied here.
    pub identity: Option<Identity>,
    /// Whether this node was in contact with a majority, directly as leader or through the leader that it follows,
    /// within the last election timeout.
    pub quorate: bool,
    /// The leader, as far as this node knows. An isolated node may be wrong indefinitely, so nothing may rely on it.
    pub leader: Option<NodeId>,
    /// The Raft term, as far as this node knows. It never decreases while the node runs.
    pub term: u64,
    /// How far this node has applied the log, including entries that change nothing.
    pub applied: Revision,
    /// What the failure detector says about each other active node. Empty unless this node leads, because only the
    /// leader is in contact with every node.
    pub sightings: BTreeMap<NodeId, Sighting>,
    /// This node's own lease: whether it may act, what stops its work, and whether that mechanism is armed.
    pub lease: LeaseView,
    /// Why nothing becomes durable on this node now, and the remedy; `None` while its disk works. Meanwhile the node
    /// hands leadership over, does not stand for election, and keeps its lease as long as it can renew it. It recovers
    /// without a restart.
    pub disk: Option<String>,
    /// The links from this node to others, where its transport probes them. A link that is lost shows within a second where a node
    /// has two or more, and one that loses large messages within five.
    pub links: BTreeMap<NodeId, NodeLinks>,
    /// Why the other nodes cannot reach this one, and the remedy; `None` while they can, as far as it is known. Only a
    /// leader finds out. It then hands leadership over, and does not stand for election before another node has called
    /// it, or 20 election timeouts have passed. Also why large messages from this node reach no majority, while another node's do.
    pub unreached: Option<String>,
    /// Why this node lets others lead, and the remedy; `None` unless it has lost leadership twice within 75 election timeouts
    /// (a minute with the standard profile). It then stands for election only if no leader is heard for four.
    pub damped: Option<String>,
    /// Why this node has stopped; `None` while it runs. It starts again only as a new process.
    pub stopped: Option<Fatal>,
}

impl View {
    /// A view made of its two parts, for tests of programs that read views.
    pub fn new(cluster: Arc<ClusterState>, local: Local) -> Self {
        Self { cluster, local }
    }

    /// Whether the other view shows the same but for how long nodes have been silent.
    pub(crate) fn differs_in_time_alone(&self, other: &Self) -> bool {
        let signals = |local: &Local| -> Vec<(NodeId, Signal)> {
            local.sightings.iter().map(|(node, sighting)| (*node, sighting.signal)).collect()
        };
        let (own, theirs) = (&self.local, &other.local);
        Arc::ptr_eq(&self.cluster, &other.cluster)
            && signals(own) == signals(theirs)
            && *own == Local { sightings: own.sightings.clone(), ..theirs.clone() }
    }
}

/// The picture of the state in a view, which may be in the next views as well.
pub(crate) struct Pictured {
    pub(crate) cluster: Arc<ClusterState>,
    /// The revision that had last changed more than records, queues and locks.
    pub(crate) changed: Revision,
    /// How far the log was applied before, at the least.
    pub(crate) applied: Revision,
    pub(crate) at: Instant,
}

/// What the failure detector says about one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// The detector's judgement: healthy, suspect or silent.
    pub signal: Signal,
    /// The time since this node last heard from it. It starts again at zero when this node itself has stood still.
    pub silence: Duration,
}

impl Local {
    /// What `node` knows before its first observation: not quorate, no leader, nothing applied.
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
            links: BTreeMap::new(),
            unreached: None,
            damped: None,
            stopped: None,
        }
    }
}
