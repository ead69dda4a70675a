//! The links of one transport: which connection a call takes.
//!
//! ```text
//!   call ──▶ lane ──▶ (n2, Control)                      the chosen address (addresses.rs)
//!                     (n2, Control, 10.0.0.2:7400) ┐    two networks at once, for what leases and leadership depend on
//!                     (n2, Control, 10.1.0.2:7400) ┘    (both_ways.rs), where the node has two addresses
//! ```
//!
//! When the addresses of a node change, its links are replaced; calls in progress finish on the old ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use quorate_membership::{Address, NodeId};
use quorate_raft_core::rpc::Caller;
use quorate_raft_core::{Lane, NodeLinks, Peer};
use tokio::sync::broadcast;

use crate::addresses::Addresses;
use crate::dial::Traffic;
use crate::links::Link;
use crate::paced::RoundTrip;
use crate::probes::{Probed, Probes};
use crate::settings::ClientSettings;
use crate::tls::Tls;

/// How many closed connections a listener may be behind.
const CLOSED: usize = 64;

/// By node, lane and, for a link that uses one address only, that address.
type Table = BTreeMap<(NodeId, Lane, Option<Address>), Arc<Link>>;

/// The links of one transport.
#[derive(Debug)]
pub(crate) struct Links {
    settings: ClientSettings,
    tls: Option<Tls>,
    table: Mutex<Table>,
    /// The addresses of each node, and what is known of them.
    addresses: Mutex<BTreeMap<NodeId, Arc<Addresses>>>,
    probes: Mutex<Probes>,
    /// The round trip to each node, by the connections of all lanes.
    round_trips: Mutex<BTreeMap<NodeId, Arc<RoundTrip>>>,
    /// Whoever listens hears to which node a connection has closed.
    closed: broadcast::Sender<NodeId>,
}

impl Links {
    pub(crate) fn new(settings: ClientSettings, tls: Option<Tls>) -> Self {
        let closed = broadcast::Sender::new(CLOSED);
        let (table, addresses, probes, round_trips) = Default::default();
        Self { settings, tls, table, addresses, probes, round_trips, closed }
    }

    /// The nodes to which a connection closes, from now on.
    pub(crate) fn closed(&self) -> broadcast::Receiver<NodeId> {
        self.closed.subscribe()
    }

    /// The link to `peer` for calls of one lane.
    pub(crate) fn link(&self, peer: &Peer, lane: Lane) -> Arc<Link> {
        self.to(peer.node, &self.addresses(peer), lane, None)
    }

    /// Two links to `peer` that share no address: by the chosen one, and by the best of the others. `None` if it has one only.
    pub(crate) fn both(&self, peer: &Peer, lane: Lane) -> Option<[Arc<Link>; 2]> {
        let addresses = self.addresses(peer);
        let best = addresses.best_two()?;
        Some(best.map(|at| self.to(peer.node, &addresses, lane, Some(at))))
    }

    /// Probes the links to these nodes from now on, and to no others.
    pub(crate) fn probe(&self, peers: &[(Peer, Caller)]) {
        let all = peers.iter().map(|(peer, caller)| (*caller, self.addresses(peer)));
        self.probes.lock().set(all, |caller, addresses, at| Probed {
            caller,
            small: self.to(caller.to, addresses, Lane::Control, Some(at)),
            large: Arc::new(self.fresh(caller.to, addresses.clone(), Some(at), false)),
            at,
            settings: self.settings,
        });
    }

    /// What is known of the links to each node that is probed.
    pub(crate) fn view(&self) -> BTreeMap<NodeId, NodeLinks> {
        self.probes.lock().view()
    }

    /// The addresses of a node, with what is known of them.
    fn addresses(&self, peer: &Peer) -> Arc<Addresses> {
        let mut all = self.addresses.lock();
        let known = all.get(&peer.node);
        if let Some(known) = known.filter(|known| known.all() == peer.addresses) {
            return known.clone();
        }
        let now = Arc::new(Addresses::new(peer.node.to_string(), peer.addresses.clone(), known.map(Arc::as_ref)));
        all.insert(peer.node, now.clone());
        // Nothing asks for those of former addresses any more. They close with their last call.
        self.table.lock().retain(|(node, _, only), _| {
            *node != peer.node || only.as_ref().is_none_or(|only| peer.addresses.contains(only))
        });
        now
    }

    fn to(&self, node: NodeId, addresses: &Arc<Addresses>, lane: Lane, only: Option<usize>) -> Arc<Link> {
        let mut table = self.table.lock();
        let paced = matches!(lane, Lane::Snapshot | Lane::Log);
        let key = (node, lane, only.and_then(|at| addresses.all().get(at).cloned()));
        let link = table.entry(key).or_insert_with(|| Arc::new(self.fresh(node, addresses.clone(), only, paced)));
        if !Arc::ptr_eq(link.addresses(), addresses) {
            *link = Arc::new(self.fresh(node, addresses.clone(), only, paced));
        }
        link.clone()
    }

    fn fresh(&self, node: NodeId, addresses: Arc<Addresses>, only: Option<usize>, paced: bool) -> Link {
        let mut settings = self.settings;
        if paced {
            // A ping waits behind the entries, or the piece of the snapshot, that are being sent. On a slow network that does
            // not mean that the peer is dead.
            settings.ping_timeout *= 10;
            settings.ping_every *= 4;
        }
        let round_trip = self.round_trips.lock().entry(node).or_default().clone();
        let traffic = Traffic { paced, round_trip, closed: Some((node, self.closed.clone())) };
        Link::new(node.to_string(), addresses, only, settings, self.tls.clone(), traffic)
    }

    /// A link for one call to an address whose node is not known yet.
    pub(crate) fn to_address(&self, address: &Address) -> Arc<Link> {
        let traffic = Traffic::default();
        let addresses = Arc::new(Addresses::new(address.to_string(), vec![address.clone()], None));
        Arc::new(Link::new(address.to_string(), addresses, None, self.settings, self.tls.clone(), traffic))
    }
}
