//! The links of one transport: which connection a call takes.
//!
//! ```text
//!   call ──▶ lane ──▶ (n2, Control, any way)     whichever address works
//!                     (n2, Control, first)  ┐    two networks at once, for what leases and leadership depend on (both_ways.rs),
//!                     (n2, Control, rest)   ┘    where the node has two addresses
//! ```
//!
//! When the addresses of a node change, its links are replaced; calls in progress finish on the old ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use quorate_membership::{Address, NodeId};
use quorate_raft_core::{Lane, Peer};
use tokio::sync::broadcast;

use crate::links::{Link, Traffic};
use crate::paced::RoundTrip;
use crate::settings::ClientSettings;
use crate::tls::Tls;

/// How many closed connections a listener may be behind.
const CLOSED: usize = 64;

/// Which addresses of a node a link uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// Whichever works, beginning with the one that worked last.
    Any,
    /// The most preferred one alone.
    First,
    /// The others.
    Rest,
}

/// The links of one transport.
#[derive(Debug)]
pub(crate) struct Links {
    settings: ClientSettings,
    tls: Option<Tls>,
    table: Mutex<BTreeMap<(NodeId, Lane, Way), Arc<Link>>>,
    /// The round trip to each node, by the connections of all lanes.
    round_trips: Mutex<BTreeMap<NodeId, Arc<RoundTrip>>>,
    /// Whoever listens hears to which node a connection has closed.
    closed: broadcast::Sender<NodeId>,
}

impl Links {
    pub(crate) fn new(settings: ClientSettings, tls: Option<Tls>) -> Self {
        let closed = broadcast::Sender::new(CLOSED);
        Self { settings, tls, table: Mutex::default(), round_trips: Mutex::default(), closed }
    }

    /// The nodes to which a connection closes, from now on.
    pub(crate) fn closed(&self) -> broadcast::Receiver<NodeId> {
        self.closed.subscribe()
    }

    /// The link to `peer` for calls of one lane.
    pub(crate) fn link(&self, peer: &Peer, lane: Lane) -> Arc<Link> {
        self.to(peer, &peer.addresses, lane, Way::Any)
    }

    /// Two links to `peer` that share no address: by the most preferred one, and by the others. `None` if it has one only.
    pub(crate) fn both(&self, peer: &Peer, lane: Lane) -> Option<[Arc<Link>; 2]> {
        let (first, rest) = peer.addresses.split_at_checked(1).filter(|(_, rest)| !rest.is_empty())?;
        Some([self.to(peer, first, lane, Way::First), self.to(peer, rest, lane, Way::Rest)])
    }

    fn to(&self, peer: &Peer, addresses: &[Address], lane: Lane, way: Way) -> Arc<Link> {
        let mut table = self.table.lock();
        let mut settings = self.settings;
        let paced = matches!(lane, Lane::Snapshot | Lane::Log);
        if paced {
            // A ping waits behind the entries, or the piece of the snapshot, that are being sent. On a slow network that does
            // not mean that the peer is dead.
            settings.ping_timeout *= 10;
            settings.ping_every *= 4;
        }
        let round_trip = self.round_trips.lock().entry(peer.node).or_default().clone();
        let fresh = || {
            let closed = Some((peer.node, self.closed.clone()));
            let traffic = Traffic { paced, round_trip: round_trip.clone(), closed };
            Arc::new(Link::new(peer.node.to_string(), addresses.to_vec(), settings, self.tls.clone(), traffic))
        };
        let link = table.entry((peer.node, lane, way)).or_insert_with(fresh);
        if link.addresses() == addresses {
            return link.clone();
        }
        let link = fresh();
        if way == Way::Any {
            // Where one address is left, nothing asks for these any more. They close with their last call.
            table.retain(|(node, _, way), _| *node != peer.node || *way == Way::Any);
        }
        table.insert((peer.node, lane, way), link.clone());
        link
    }

    /// A link for one call to an address whose node is not known yet.
    pub(crate) fn to_address(&self, address: &Address) -> Arc<Link> {
        let traffic = Traffic::default();
        Arc::new(Link::new(address.to_string(), vec![address.clone()], self.settings, self.tls.clone(), traffic))
    }
}
