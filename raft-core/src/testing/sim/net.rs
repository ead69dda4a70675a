//! The simulated network: each message takes its time, or is lost, or comes twice; links are cut one way or both.
//!
//! ```text
//!   n1 ── leg ──▶ n2      a leg: cut? lost? else: how long it takes (so that messages overtake each other)
//!   n1 ◀── leg ── n2      judged when it is sent, and again when it arrives
//!
//!   a thin way out of n1:  ▒▒▒▒▒▒▒▒▒▒▒▒ entries, snapshots: one after the other      a heartbeat waits behind what the
//!                          ░ heartbeats, renewals, answers                          transport leaves in the queue
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use quorate_membership::{Address, NodeId};
use tokio::sync::broadcast;

use super::host::SimHost;
use super::observation::End;
use super::refusals::Refusals;
use super::rng::Rng;
use super::thin_way::{Load, ThinWay};
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
    /// Messages that took longer on a thin way than the rest of their way.
    pub waited: u64,
}

pub(super) struct State {
    services: BTreeMap<NodeId, (Arc<dyn Service>, Arc<SimHost>)>,
    /// The newest process on each machine, on the network or not yet.
    pub(super) hosts: BTreeMap<NodeId, Arc<SimHost>>,
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Nodes that nothing comes in to, although what they call is answered.
    closed: BTreeSet<NodeId>,
    /// Nodes whose way out is thin.
    thin: BTreeMap<NodeId, ThinWay>,
    conditions: NetConditions,
    rng: Rng,
    counts: FaultCounts,
    /// What machines and firewalls say of processes that have ended.
    refusals: Refusals,
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
            thin: BTreeMap::new(),
            conditions: NetConditions::default(),
            rng,
            counts: FaultCounts::default(),
            refusals: Refusals::default(),
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
        let mut state = self.lock();
        state.refusals.runs(host.node());
        state.services.insert(host.node(), (service, host.clone()));
        drop(state);
        let net = self.clone();
        *host.told.lock() = Some(Box::new(move |node, how| {
            net.lock().refusals.note_end(node, how);
            // A machine without power closes nothing.
            if how == End::Killed {
                net.disconnect_from_all(node);
            }
        }));
    }

    /// The machine of `node` closes its connections to all others.
    fn disconnect_from_all(&self, node: NodeId) {
        let others: Vec<NodeId> = self.lock().services.keys().copied().filter(|other| *other != node).collect();
        others.into_iter().for_each(|other| self.close_connections(node, other));
    }

    /// The connections from `from` to `to` are closed. The process at `to` hears of it, once it is awake.
    fn close_connections(&self, from: NodeId, to: NodeId) {
        let net = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(REFUSED).await;
            let (cut, found) = (net.is_cut(from, to), net.lock().services.get(&to).cloned());
            if let Some((service, host)) = found.filter(|(_, host)| !cut && host.is_alive()) {
                drop(host.spawn(async move { service.disconnected(from) }));
            }
        });
    }

    /// Which nodes' side closes its connections, whoever has one.
    pub(super) fn ended(&self) -> broadcast::Receiver<NodeId> {
        self.lock().refusals.ended()
    }

    /// Whether what `from` sends to `to` is answered by a machine, or a firewall, on which no process listens.
    pub(super) fn refuses(&self, from: NodeId, to: NodeId) -> bool {
        let state = self.lock();
        let whole = !state.cut.contains(&(from, to)) && !state.cut.contains(&(to, from)) && !state.closed.contains(&to);
        whole && state.refusals.refuses(from, to)
    }

    /// Puts a firewall in the way that closes the connections from `from` to `to`, and refuses new ones in the name of `to`.
    pub fn reject(&self, from: NodeId, to: NodeId) {
        self.lock().refusals.reject(from, to);
        self.close_connections(from, to);
    }

    /// Whether a firewall refuses what `from` says in the name of `to`.
    pub fn is_rejected(&self, from: NodeId, to: NodeId) -> bool {
        self.lock().refusals.rejects(from, to)
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

    /// Lets no more than `rate` bytes a second out of `node`, at least 1.
    pub fn make_thin(&self, node: NodeId, rate: u64) {
        self.lock().thin.insert(node, ThinWay::new(rate));
    }

    /// Whether the way out of a node is thin.
    pub fn is_thin(&self) -> bool {
        !self.lock().thin.is_empty()
    }

    /// Lets everything out of all nodes at once again.
    pub fn widen_all(&self) {
        self.lock().thin.clear();
    }

    /// Whether a call from `from` to `to` is lost on its way.
    pub(super) fn loses_call(&self, from: NodeId, to: NodeId) -> bool {
        let state = self.lock();
        state.cut.contains(&(from, to)) || state.closed.contains(&to)
    }

    /// Mends every link, opens every port, and widens every way.
    pub fn mend_all(&self) {
        let mut state = self.lock();
        state.thin.clear();
        state.cut.clear();
        state.closed.clear();
        state.refusals.mend();
    }

    /// Whether what `from` says to `to` is lost.
    pub fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.lock().cut.contains(&(from, to))
    }

    /// Whether no link is cut and no port is closed.
    pub fn is_whole(&self) -> bool {
        let state = self.lock();
        state.cut.is_empty() && state.closed.is_empty() && state.refusals.is_whole()
    }

    /// How many messages were sent, and how many met which fault.
    pub fn fault_counts(&self) -> FaultCounts {
        self.lock().counts
    }

    /// What answers at a node, if its process lives.
    pub(super) fn service(&self, from: NodeId, node: NodeId) -> Option<(Arc<dyn Service>, Arc<SimHost>)> {
        let state = self.lock();
        let reached = !state.refusals.rejects(from, node);
        state.services.get(&node).filter(|(_, host)| reached && host.is_alive()).cloned()
    }

    /// The way of a call, or of a message in a stream that `from` opened.
    pub(super) fn call_leg(&self, from: NodeId, to: NodeId, load: Load) -> Leg {
        let mut state = self.lock();
        if state.closed.contains(&to) {
            state.counts.sent += 1;
            state.counts.cut += 1;
            return Leg::Lost;
        }
        drop(state);
        self.leg(from, to, load)
    }

    /// The way of an answer.
    pub(super) fn leg(&self, from: NodeId, to: NodeId, load: Load) -> Leg {
        let mut state = self.lock();
        let State { cut, thin, conditions, rng, counts, .. } = &mut *state;
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
        if let Some(way) = thin.get_mut(&from) {
            let sent = way.send(to, load);
            counts.waited += u64::from(sent > takes);
            takes += sent;
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
