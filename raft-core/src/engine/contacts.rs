//! When each other node was last heard, and how: by its calls, or by its answers.
//!
//! ```text
//!   n2 calls   ─▶ all, calls        it reaches this node          (leader/monitor.rs, should another lead?)
//!   n2 answers ─▶ all, answers      this node reaches it          (the same)
//!                  └──────────────▶ it lives                      (the failure detector)
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use parking_lot::Mutex;
use quorate_membership::NodeId;
use quorate_membership::detector::Moment;

use crate::host::clock;

/// When each other node was last heard.
#[derive(Debug, Default)]
pub(crate) struct Contacts(Mutex<Heard>);

#[derive(Debug, Default)]
struct Heard {
    /// When it called or answered.
    all: BTreeMap<NodeId, Moment>,
    /// When it called: only that shows that it reaches this node.
    calls: BTreeMap<NodeId, Moment>,
    /// When it answered: only that shows that this node reaches it.
    answers: BTreeMap<NodeId, Moment>,
    /// Of each node that has called, whether it holds a connection to this one.
    connected: BTreeMap<NodeId, bool>,
}

impl Contacts {
    /// Notes that `node` answered a call.
    pub(crate) fn note_answer(&self, node: NodeId) {
        let (mut heard, now) = (self.0.lock(), clock::now());
        heard.all.insert(node, now);
        heard.answers.insert(node, now);
    }

    /// Notes that `node` called this one.
    pub(crate) fn note_call(&self, node: NodeId) {
        let (mut heard, now) = (self.0.lock(), clock::now());
        heard.all.insert(node, now);
        heard.calls.insert(node, now);
        heard.connected.insert(node, true);
    }

    /// Notes that `node` holds no connection to this one any more.
    pub(crate) fn note_disconnected(&self, node: NodeId) {
        let mut heard = self.0.lock();
        if let Some(connected) = heard.connected.get_mut(&node) {
            *connected = false;
        }
    }

    /// Whether `node` holds a connection to this one; `None` if it never called.
    pub(crate) fn is_connected(&self, node: NodeId) -> Option<bool> {
        self.0.lock().connected.get(&node).copied()
    }

    pub(crate) fn all(&self) -> BTreeMap<NodeId, Moment> {
        self.0.lock().all.clone()
    }

    /// When `node` called or answered last.
    pub(crate) fn last(&self, node: NodeId) -> Option<Moment> {
        self.0.lock().all.get(&node).copied()
    }

    /// The other nodes that have answered so lately.
    pub(crate) fn answered_within(&self, lately: Duration) -> BTreeSet<NodeId> {
        let (heard, now) = (self.0.lock(), clock::now());
        heard.answers.iter().filter(|(_, at)| now.since(**at) <= lately).map(|(node, _)| *node).collect()
    }

    /// When `node` last called this one.
    pub(crate) fn called(&self, node: NodeId) -> Option<Moment> {
        self.0.lock().calls.get(&node).copied()
    }

    /// When each other node last called this one.
    pub(crate) fn calls(&self) -> BTreeMap<NodeId, Moment> {
        self.0.lock().calls.clone()
    }
}
