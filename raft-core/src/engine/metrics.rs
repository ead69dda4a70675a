//! What openraft reports about itself: the leader, the term, and which nodes have answered.
//!
//! None of it proves anything. An isolated leader keeps reporting itself as leader, because the passing of time does
//! not change openraft's state. These values only trigger work and route commands to the leader.

use std::collections::{BTreeMap, BTreeSet};

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use openraft::type_config::alias::WatchReceiverOf;
use quorate_membership::{NodeId, Revision};

use crate::engine::Engine;
use crate::engine::state_machine::revision;
use crate::engine::types::{Types, membership_from};
use crate::rpc::Ballot;

/// Changes of openraft's idea of the leader or of the term.
pub(crate) struct LeadershipChanges(WatchReceiverOf<Types, RaftServerMetrics<Types>>);

impl LeadershipChanges {
    /// Waits for the next change. `false` if the engine has stopped.
    pub(crate) async fn next(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

impl Engine {
    /// A later vote that the engine has yet to make durable. Until it is durable, openraft reports the old state, so a
    /// deposed leader still reports itself as leader for as long as its disk is full or hangs.
    fn overtaken_by(&self) -> Option<Ballot> {
        let term = self.term();
        let later = self.0.store.vote_under_way().filter(|vote| vote.term > term && vote.node != self.0.node);
        later.filter(|_| !quorate_membership::mutant!("deposed_unnoticed"))
    }

    /// The Raft term.
    pub(crate) fn term(&self) -> u64 {
        self.0.raft.metrics().borrow_watched().current_term
    }

    /// Whether this node leads, as far as it knows.
    pub(crate) fn leading(&self) -> bool {
        // Read the metrics once: a second read would wait for the engine, and the engine for the first.
        let state = self.0.raft.metrics().borrow_watched().state;
        state == ServerState::Leader && self.overtaken_by().is_none()
    }

    /// The term in which this node leads, according to openraft. It ignores a vote that is not yet durable.
    pub(crate) fn leading_term(&self) -> Option<u64> {
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        (metrics.state == ServerState::Leader).then_some(metrics.current_term)
    }

    /// Changes when openraft's idea of the leader or of the term does.
    pub(crate) fn watch_leadership(&self) -> LeadershipChanges {
        LeadershipChanges(self.0.raft.server_metrics())
    }

    /// The leader, as far as this node knows.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        match self.overtaken_by() {
            Some(vote) => vote.committed.then_some(vote.node),
            None => self.0.raft.metrics().borrow_watched().current_leader.map(NodeId::new),
        }
    }

    /// Whether a quorum has answered in this term what this leader sent within the last election timeout.
    pub(crate) fn heard_by_quorum(&self) -> bool {
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        let configuration = membership_from(metrics.membership_config.membership()).configuration();
        // A sole voter is its own majority, and nobody answers it.
        configuration.has_quorum(&BTreeSet::from([self.0.node])) || {
            let sent = self.0.peers.answered.by_quorum(metrics.current_term, self.0.node, &configuration);
            sent.is_some_and(|sent| sent.elapsed() < self.0.config.election_max())
        }
    }

    /// How far the engine has applied its log, including entries that change nothing.
    pub(crate) fn engine_applied(&self) -> Revision {
        let metrics = self.0.raft.metrics().borrow_watched().clone();
        metrics.last_applied.map(|id| revision(id.index)).unwrap_or_default()
    }

    /// Sets whether this node may stand for election.
    pub(crate) fn may_stand(&self, stands: bool) {
        self.0.raft.runtime_config().elect(stands);
    }

    /// The index up to which the log of `node` matches that of this leader.
    pub(super) fn matched(&self, node: NodeId) -> Option<u64> {
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.replication.as_ref()?.get(&node.get())?.as_ref().map(|id| id.index)
    }

    /// How far the log of each other node matches that of this leader.
    pub(crate) fn all_matched(&self) -> BTreeMap<NodeId, Revision> {
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        let all = metrics.replication.iter().flatten();
        all.filter_map(|(node, id)| Some((NodeId::new(*node), revision(id.as_ref()?.index)))).collect()
    }

    /// The last entry of this node's own log; `None` while it is empty.
    pub(crate) fn last_entry(&self) -> Option<Revision> {
        self.0.raft.metrics().borrow_watched().last_log_index.map(revision)
    }

    /// The other nodes whose engines have answered this leader within the last election timeout. A node that waits for
    /// its disk does not answer, although its calls still arrive.
    pub(crate) fn answering(&self) -> BTreeSet<NodeId> {
        self.0.peers.answered.within(self.term(), self.0.config.election_max())
    }
}
