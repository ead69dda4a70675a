//! Who may hold a connection to this server: clients up to a bound, each address up to a bound, and peers beside them.
//!
//! ```text
//!   accept ─┬─ room for a client ──────────────▶ client ──── a call of a peer was admitted ───┐
//!           ├─ none, but in the reserve ───────▶ on trial ── a call of a peer was admitted ───┴─▶ peer
//!           └─ none                                 └─ none within the handshake timeout ─▶ closed
//!
//!   with TLS, the certificate says it before any call:   a node ─▶ peer     an operator ─▶ beside the clients
//!                                                        a client ─▶ client, and its address counts no more
//! ```
//!
//! Without TLS a connection shows who it is only by what it calls. However many places clients hold, a peer gets in by the reserve,
//! and then frees its place there. A client can pretend to be a peer, so this protects from clients that are many and not from
//! those that lie. With TLS each client and each operator has a bound of its own, so one that leaks connections keeps out nobody
//! else, not even from the same address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use quorate_membership::NodeId;

use crate::settings::ServerSettings;
use crate::tls::CallerRole;

/// The open connections of a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct OpenConnections {
    /// Those of clients, and those that have not shown yet who they are.
    pub(crate) clients: usize,
    /// Those of other nodes.
    pub(crate) peers: usize,
    /// Those of operators, with TLS.
    pub(crate) operators: usize,
    /// Those in the reserve.
    pub(crate) on_trial: usize,
}

/// The places of a server. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    taken: Arc<Mutex<Taken>>,
    settings: ServerSettings,
}

#[derive(Debug, Default)]
struct Taken {
    open: OpenConnections,
    of_address: BTreeMap<IpAddr, usize>,
    /// How many connections each node holds.
    of_node: BTreeMap<NodeId, usize>,
    /// How many connections each client and each operator holds that has shown a certificate.
    of_caller: BTreeMap<String, usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    /// A client, or nobody knows yet. Its address counts.
    Client,
    /// A client by its certificate.
    KnownClient,
    Operator,
    OnTrial,
    Peer,
}

/// The place of one connection. Dropping it frees it.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    from: IpAddr,
    holder: Mutex<Holder>,
    /// The node that calls on this connection, once a call of it was admitted.
    node: Mutex<CalledBy>,
    /// The client or operator that has shown its certificate.
    caller: OnceLock<String>,
}

/// Who calls on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CalledBy {
    Unknown,
    Node(NodeId),
    /// The connection has closed.
    Gone,
}

impl Places {
    pub(crate) fn new(settings: ServerSettings) -> Self {
        Self { taken: Arc::default(), settings }
    }

    /// A place for a connection from this address; `None` if there is none.
    pub(crate) fn take(&self, from: IpAddr) -> Option<Arc<Place>> {
        let mut taken = self.taken.lock();
        let ServerSettings { max_connections, max_per_address, peer_reserve, .. } = self.settings;
        let of_address = taken.of_address.get(&from).copied().unwrap_or_default();
        let holder = if taken.open.clients < max_connections && of_address < max_per_address {
            *taken.of_address.entry(from).or_default() += 1;
            taken.open.clients += 1;
            Holder::Client
        } else if taken.open.on_trial < peer_reserve {
            taken.open.on_trial += 1;
            Holder::OnTrial
        } else {
            return None;
        };
        drop(taken);
        let node = Mutex::new(CalledBy::Unknown);
        let caller = OnceLock::new();
        Some(Arc::new(Place { places: self.clone(), from, holder: Mutex::new(holder), node, caller }))
    }

    pub(crate) fn open(&self) -> OpenConnections {
        self.taken.lock().open
    }
}

impl Taken {
    fn free(&mut self, from: IpAddr, holder: Holder) {
        match holder {
            Holder::Client => {
                self.open.clients -= 1;
                if let Some(count) = self.of_address.get_mut(&from) {
                    *count -= 1;
                }
                self.of_address.retain(|_, count| *count > 0);
            }
            Holder::KnownClient => self.open.clients -= 1,
            Holder::Operator => self.open.operators -= 1,
            Holder::OnTrial => self.open.on_trial -= 1,
            Holder::Peer => self.open.peers -= 1,
        }
    }
}

impl Place {
    /// A call of a peer was admitted on this connection.
    pub(crate) fn is_of_a_peer(&self) {
        let mut holder = self.holder.lock();
        let mut taken = self.places.taken.lock();
        // As many peers as clients: without TLS, who claims to be a peer may not be one.
        if *holder != Holder::Peer && taken.open.peers < self.places.settings.max_connections {
            taken.free(self.from, *holder);
            taken.open.peers += 1;
            *holder = Holder::Peer;
        }
    }

    /// A client or an operator has shown its certificate. Returns whether there is a place for it: each has a bound, and so have
    /// all clients, and all operators, together.
    pub(crate) fn is_of_caller(&self, role: &CallerRole) -> bool {
        let mut holder = self.holder.lock();
        let mut taken = self.places.taken.lock();
        let ServerSettings { max_connections, max_per_caller, peer_reserve, .. } = self.places.settings;
        // One that counts as a client already gives that place up.
        let clients = taken.open.clients - usize::from(*holder == Holder::Client);
        let (next, room) = match role {
            CallerRole::Client(_) => (Holder::KnownClient, clients < max_connections),
            CallerRole::Operator(_) => (Holder::Operator, taken.open.operators < peer_reserve),
            CallerRole::Node(_) => return true,
            // It has to be done within the time of a handshake.
            CallerRole::Joiner => {
                let on_trial = *holder == Holder::OnTrial;
                let room = on_trial || taken.open.on_trial < peer_reserve;
                if room && !on_trial {
                    taken.free(self.from, *holder);
                    taken.open.on_trial += 1;
                    *holder = Holder::OnTrial;
                }
                return room;
            }
        };
        let caller = role.principal();
        let own = taken.of_caller.get(&caller).copied().unwrap_or_default();
        if !room || own >= max_per_caller || self.caller.set(caller.clone()).is_err() {
            return false;
        }
        *taken.of_caller.entry(caller).or_default() += 1;
        taken.free(self.from, *holder);
        match next {
            Holder::Operator => taken.open.operators += 1,
            _ => taken.open.clients += 1,
        }
        *holder = next;
        true
    }

    /// A call of `node` was admitted on this connection. Only the first one counts: a process is one node.
    pub(crate) fn is_of(&self, node: NodeId) {
        let mut caller = self.node.lock();
        if *caller == CalledBy::Unknown {
            *caller = CalledBy::Node(node);
            *self.places.taken.lock().of_node.entry(node).or_default() += 1;
        }
    }

    /// The connection has closed. Returns the node that called on it, if it holds no other one.
    pub(crate) fn close(&self) -> Option<NodeId> {
        let CalledBy::Node(node) = std::mem::replace(&mut *self.node.lock(), CalledBy::Gone) else { return None };
        let mut taken = self.places.taken.lock();
        let left = taken.of_node.get_mut(&node)?;
        *left -= 1;
        let last = *left == 0;
        taken.of_node.retain(|_, count| *count > 0);
        last.then_some(node)
    }

    /// Whether the connection is in the reserve, and has not shown that it is a peer's.
    pub(crate) fn is_on_trial(&self) -> bool {
        *self.holder.lock() == Holder::OnTrial
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let holder = *self.holder.get_mut();
        let mut taken = self.places.taken.lock();
        taken.free(self.from, holder);
        if let Some(count) = self.caller.get().and_then(|caller| taken.of_caller.get_mut(caller)) {
            *count -= 1;
            taken.of_caller.retain(|_, count| *count > 0);
        }
        drop(taken);
        // Closed before, unless the server was dropped with all its connections.
        let _nobody_to_tell = self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Places {
        Places::new(ServerSettings { max_connections: 3, max_per_address: 2, peer_reserve: 1, ..Default::default() })
    }

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn clients_have_a_bound_each_address_has_one_and_a_peer_gets_in_by_the_reserve() {
        let places = places();
        let clients = [places.take(address(1)), places.take(address(1)), places.take(address(2))];
        assert!(clients.iter().flatten().all(|place| !place.is_on_trial()));
        let peer = places.take(address(3)).unwrap();
        assert!(peer.is_on_trial(), "clients have all places");
        assert!(places.take(address(4)).is_none(), "the reserve is taken");
        peer.is_of_a_peer();
        assert_eq!(places.open(), OpenConnections { clients: 3, peers: 1, ..OpenConnections::default() });
        let next = places.take(address(4)).unwrap();
        assert!(!peer.is_on_trial() && next.is_on_trial());
        drop((clients, peer, next));
        assert_eq!(places.open(), OpenConnections::default());
    }

    #[test]
    fn a_node_is_gone_with_its_last_connection() {
        let (places, node) = (places(), NodeId::new(2));
        let [first, second, client] = [1, 2, 3].map(|last| places.take(address(last)).unwrap());
        for _ in 0..2 {
            first.is_of(node);
            second.is_of(node);
        }
        assert_eq!((first.close(), first.close(), client.close()), (None, None, None));
        assert_eq!(second.close(), Some(node));
        first.is_of(node);
        assert_eq!(first.close(), None, "it had closed before the call was answered");
    }

    #[test]
    fn one_address_leaves_places_for_others_and_a_peer_frees_the_place_of_a_client() {
        let places = places();
        let [first, second] = [places.take(address(1)).unwrap(), places.take(address(1)).unwrap()];
        assert!(places.take(address(1)).unwrap().is_on_trial(), "two of one address are enough");
        assert!(!places.take(address(2)).unwrap().is_on_trial());
        second.is_of_a_peer();
        assert!(!places.take(address(1)).unwrap().is_on_trial());
        drop(first);
        assert_eq!(places.open(), OpenConnections { peers: 1, ..OpenConnections::default() });
    }

    #[test]
    fn one_that_shows_its_certificate_has_a_bound_of_its_own_and_its_address_counts_no_more() {
        let settings = ServerSettings {
            max_connections: 4,
            max_per_address: 1,
            max_per_caller: 2,
            peer_reserve: 1,
            ..Default::default()
        };
        let places = Places::new(settings);
        let named = |name: &str| CallerRole::Client(name.into());
        let one = |role: &CallerRole| places.take(address(1)).filter(|place| place.is_of_caller(role));
        let leaked = [0; 5].map(|_| one(&named("leaky")));
        assert_eq!(leaked.iter().flatten().count(), 2, "and the others gave their places back");
        let others = ["billing", "cron"].map(|name| one(&named(name)).unwrap());
        assert!(one(&named("fifth")).is_none(), "all places of clients are taken");
        let operator = one(&CallerRole::Operator("alice".into())).unwrap();
        assert!(one(&CallerRole::Operator("bob".into())).is_none(), "operators have a bound as well");
        assert_eq!(places.open(), OpenConnections { clients: 4, operators: 1, ..OpenConnections::default() });
        drop(leaked);
        let again = one(&named("leaky")).unwrap();
        drop((others, operator, again));
        assert_eq!(places.open(), OpenConnections::default());
        assert!(places.taken.lock().of_caller.is_empty() && places.taken.lock().of_address.is_empty());
    }
}
