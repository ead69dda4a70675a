//! How the end of a process shows to others: its machine closes its connections, and refuses new ones. A firewall can do the same
//! in its place; a machine without power does neither.
//!
//! ```text
//!   killed ──────▶ machine: closed, refused        firewall: closed, refused, to one node or to all
//!   power cut ───▶ silence                         (the process goes on)
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use quorate_membership::NodeId;
use tokio::sync::broadcast;

use super::host::SimHost;
use super::net::Net;
use super::observation::End;

/// What is called when a process ends.
pub(super) type Told = Box<dyn FnOnce(NodeId, End) + Send>;

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
}

impl Net {
    /// A process is on the network. Its end will be told.
    pub(super) fn tells_of_its_end(&self, host: &Arc<SimHost>) {
        self.lock().refusals.ends.remove(&host.node());
        let net = self.clone();
        host.at_its_end(Box::new(move |node, how| {
            let mut state = net.lock();
            state.refusals.ends.insert(node, how);
            // A machine without power closes nothing.
            if how == End::Killed {
                // Perhaps nobody listens.
                let _heard = state.refusals.ended.send(node);
            }
        }));
    }

    /// Which nodes' side closes its connections, whoever has one.
    pub(super) fn ended(&self) -> broadcast::Receiver<NodeId> {
        self.lock().refusals.ended.subscribe()
    }

    /// Whether what `from` sends to `to` is answered by a machine, or a firewall, on which no process listens.
    pub(super) fn refuses(&self, from: NodeId, to: NodeId) -> bool {
        let state = self.lock();
        let whole = !state.cut.contains(&(from, to)) && !state.cut.contains(&(to, from)) && !state.closed.contains(&to);
        let killed = state.refusals.ends.get(&to) == Some(&End::Killed);
        whole && (killed || state.refusals.rejects(from, to))
    }

    /// Puts a firewall in the way that closes the connections from `from` to `to`, and refuses new ones in the name of `to`.
    pub fn reject(&self, from: NodeId, to: NodeId) {
        let mut state = self.lock();
        state.refusals.rejecting.insert((from, to));
        let _heard = state.refusals.ended.send(to);
    }

    /// Whether a firewall refuses what `from` says in the name of `to`.
    pub fn is_rejected(&self, from: NodeId, to: NodeId) -> bool {
        self.lock().refusals.rejects(from, to)
    }
}

impl SimHost {
    /// Has `told` called when the process ends.
    fn at_its_end(&self, told: Told) {
        *self.told.lock() = Some(told);
    }

    /// Calls whoever is to be told of the end.
    pub(super) fn tell_of_the_end(&self, how: End) {
        let told = self.told.lock().take();
        if let Some(told) = told {
            told(self.node(), how);
        }
    }
}
