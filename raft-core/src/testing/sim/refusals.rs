//! How the end of a process shows to others: its machine closes its connections, and refuses new ones. A firewall can do the same
//! in its place; a machine without power does neither.
//!
//! ```text
//!   killed ──────▶ machine: closed, refused        firewall: closed, refused, to one node or to all
//!   power cut ───▶ silence                         (the process goes on)
//! ```

use std::collections::{BTreeMap, BTreeSet};

use quorate_membership::NodeId;
use tokio::sync::broadcast;

use super::observation::End;

/// How many ends a listener may be behind.
const BEHIND: usize = 64;

/// What machines and firewalls say of processes that have ended.
pub(super) struct Refusals {
    /// Pairs between which a firewall refuses.
    rejecting: BTreeSet<(NodeId, NodeId)>,
    /// How the last process of each machine without one ended.
    ends: BTreeMap<NodeId, End>,
    ended: broadcast::Sender<NodeId>,
}

impl Default for Refusals {
    fn default() -> Self {
        Self { rejecting: BTreeSet::new(), ends: BTreeMap::new(), ended: broadcast::Sender::new(BEHIND) }
    }
}

impl Refusals {
    pub(super) fn rejects(&self, from: NodeId, to: NodeId) -> bool {
        self.rejecting.contains(&(from, to))
    }

    pub(super) fn mend(&mut self) {
        self.rejecting.clear();
    }

    pub(super) fn is_whole(&self) -> bool {
        self.rejecting.is_empty()
    }

    /// A process runs on the machine again.
    pub(super) fn runs(&mut self, node: NodeId) {
        self.ends.remove(&node);
    }

    /// The process of a machine has ended.
    pub(super) fn note_end(&mut self, node: NodeId, how: End) {
        self.ends.insert(node, how);
        // A machine without power closes nothing.
        if how == End::Killed {
            // Perhaps nobody listens.
            let _heard = self.ended.send(node);
        }
    }

    /// Which nodes' side closes its connections, whoever has one.
    pub(super) fn ended(&self) -> broadcast::Receiver<NodeId> {
        self.ended.subscribe()
    }

    /// A firewall closes the connections from `from` to `to`, and refuses new ones in the name of `to`.
    pub(super) fn reject(&mut self, from: NodeId, to: NodeId) {
        self.rejecting.insert((from, to));
        let _heard = self.ended.send(to);
    }

    /// Whether no process answers `from` at `to`, where messages arrive.
    pub(super) fn refuses(&self, from: NodeId, to: NodeId) -> bool {
        self.ends.get(&to) == Some(&End::Killed) || self.rejects(from, to)
    }
}
