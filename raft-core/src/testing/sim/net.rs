//! The simulated network: each message takes its time, or is lost, or comes twice; links are cut one way or both.
//!
//! ```text
//!   n1 ── leg ──▶ n2      a leg: cut? lost? else: how long it takes (so that messages overtake each other)
//!   n1 ◀── leg ── n2      judged when it is sent, and again when it arrives
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use quorate_membership::{Address, NodeId};

use super::host::SimHost;
use super::rng::Rng;
use crate::client_service::Service;

/// The time that it takes to hear that a port is closed, or a connection was.
pub(super) const REFUSED: Duration = Duration::from_micros(300);

/// How long messages of the network take, and how many are lost, repeated or late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetConditions {
    /// The shortest delay of a message.
    pub low: Duration,
    /// The longest delay of a message that is not late.
    pub high: Duration,
    /// How many of a thousand messages are lost.
    pub loss: u64,
    /// How many of a thousand calls arrive twice, among those that may.
    pub twice: u64,
    /// How many of a thousand messages are late, by up to [`NetConditions::late_by`].
    pub late: u64,
    /// The longest delay of a late message.
    pub late_by: Duration,
}

impl Default for NetConditions {
    fn default() -> Self {
        let us = Duration::from_micros;
        Self { low: us(80), high: us(600), loss: 0, twice: 0, late: 0, late_by: Duration::ZERO }
    }
}

/// How many messages were sent, and how many met which fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Messages.
    pub sent: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Lost on a cut link.
    pub cut: u64,
    /// Calls that came twice.
    pub twice: u64,
    /// Messages that were late.
    pub late: u64,
}

pub(super) struct State {
    services: BTreeMap<NodeId, (Arc<dyn Service>, Arc<SimHost>)>,
    /// The newest process on each machine, on the network or not yet.
    pub(super) hosts: BTreeMap<NodeId, Arc<SimHost>>,
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Nodes that nothing comes in to, although what they call is answered.
    closed: BTreeSet<NodeId>,
    conditions: NetConditions,
    rng: Rng,
    counts: FaultCounts,
}

/// The network. Clones are the same.
#[derive(Clone)]
pub struct Net(Arc<Mutex<State>>);

/// The fate of one message on one way.
pub(super) enum Leg {
    Takes(Duration),
    Lost,
}

impl Net {
    pub(super) fn new(rng: Rng) -> Self {
        let (services, cut) = (BTreeMap::new(), BTreeSet::new());
        Self(Arc::new(Mutex::new(State {
            services,
            hosts: BTreeMap::new(),
            cut,
            closed: BTreeSet::new(),
            conditions: NetConditions::default(),
            rng,
            counts: FaultCounts::default(),
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    /// The address of a node here.
    ///
    /// # Errors
    /// Never in practice: the address is short and not empty.
    pub fn address(node: NodeId) -> Result<Address, quorate_membership::TextError> {
        Address::new(format!("sim:{node}"))
    }

    pub(super) fn node_at(address: &Address) -> Option<NodeId> {
        address.as_str().strip_prefix("sim:")?.parse().ok()
    }

    pub(super) fn connect(&self, service: Arc<dyn Service>, host: Arc<SimHost>) {
        self.lock().services.insert(host.node(), (service, host));
    }

    pub(super) fn disconnect(&self, node: NodeId) {
        self.lock().services.remove(&node);
    }

    /// How messages fare from now on.
    pub fn set_conditions(&self, conditions: NetConditions) {
        self.lock().conditions = conditions;
    }

    /// Loses everything that `from` says to `to`, from now on and what is on its way.
    pub fn cut_one_way(&self, from: NodeId, to: NodeId) {
        self.lock().cut.insert((from, to));
    }

    /// Loses everything between the two.
    pub fn cut(&self, a: NodeId, b: NodeId) {
        self.lock().cut.extend([(a, b), (b, a)]);
    }

    /// Mends the link between the two, both ways.
    pub fn mend(&self, a: NodeId, b: NodeId) {
        let mut state = self.lock();
        state.cut.remove(&(a, b));
        state.cut.remove(&(b, a));
    }

    /// Loses every call to `node`, as a firewall that drops what comes in. The answers to its own calls arrive.
    pub fn close_port(&self, node: NodeId) {
        self.lock().closed.insert(node);
    }

    /// Lets calls to `node` in again.
    pub fn open_port(&self, node: NodeId) {
        self.lock().closed.remove(&node);
    }

    /// Whether a call from `from` to `to` is lost on its way.
    pub(super) fn loses_call(&self, from: NodeId, to: NodeId) -> bool {
        let state = self.lock();
        state.cut.contains(&(from, to)) || state.closed.contains(&to)
    }

    /// Mends every link, and opens every port.
    pub fn mend_all(&self) {
        let mut state = self.lock();
        state.cut.clear();
        state.closed.clear();
    }

    /// Whether what `from` says to `to` is lost.
    pub fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.lock().cut.contains(&(from, to))
    }

    /// Whether no link is cut and no port is closed.
    pub fn is_whole(&self) -> bool {
        let state = self.lock();
        state.cut.is_empty() && state.closed.is_empty()
    }

    /// How many messages were sent, and how many met which fault.
    pub fn fault_counts(&self) -> FaultCounts {
        self.lock().counts
    }

    /// What answers at a node, if its process lives.
    pub(super) fn service(&self, node: NodeId) -> Option<(Arc<dyn Service>, Arc<SimHost>)> {
        self.lock().services.get(&node).filter(|(_, host)| host.is_alive()).cloned()
    }

    /// The way of a call, or of a message in a stream that `from` opened.
    pub(super) fn call_leg(&self, from: NodeId, to: NodeId) -> Leg {
        let mut state = self.lock();
        if state.closed.contains(&to) {
            state.counts.sent += 1;
            state.counts.cut += 1;
            return Leg::Lost;
        }
        drop(state);
        self.leg(from, to)
    }

    /// The way of an answer.
    pub(super) fn leg(&self, from: NodeId, to: NodeId) -> Leg {
        let mut state = self.lock();
        let State { cut, conditions, rng, counts, .. } = &mut *state;
        counts.sent += 1;
        if cut.contains(&(from, to)) {
            counts.cut += 1;
            return Leg::Lost;
        }
        if rng.chance(conditions.loss) {
            counts.lost += 1;
            return Leg::Lost;
        }
        let mut takes = rng.span(conditions.low, conditions.high);
        if rng.chance(conditions.late) {
            counts.late += 1;
            takes += rng.span(Duration::ZERO, conditions.late_by);
        }
        Leg::Takes(takes)
    }

    /// Whether a call that may come twice does.
    pub(super) fn comes_twice(&self) -> bool {
        let mut state = self.lock();
        let State { conditions, rng, counts, .. } = &mut *state;
        let twice = rng.chance(conditions.twice);
        counts.twice += u64::from(twice);
        twice
    }
}
