//! Who may hold a connection to this server: clients up to a bound, each address up to a bound, and peers beside them.
//!
//! ```text
//!   accept ─┬─ room for a client ──────────────▶ client ──── a call of a peer was admitted ───┐
//!           ├─ none, but in the reserve ───────▶ on trial ── a call of a peer was admitted ───┴─▶ peer
//!           └─ none                                 └─ none within the handshake timeout ─▶ closed
//! ```
//!
//! A connection shows who it is only by what it calls. However many places clients hold, a peer gets in by the reserve, and
//! then frees its place there. With TLS the certificate shows whose a connection is, before any call. Without it a client can
//! pretend to be a peer, so this protects from clients that are many and not from those that lie.

use std::collections::BTreeMap;
use std::future::ready;
use std::net::IpAddr;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use parking_lot::Mutex;
use quorate_membership::{Command, NodeId, codec};
use quorate_raft_core::rpc::{Answer, Append, Call, Caller, StreamAppended};
use quorate_raft_core::transport::{JoinAnswer, JoinRequest};
use quorate_raft_core::{ClientService, PeerService, Refusal};

use crate::settings::ServerSettings;
use crate::tls::CallerRole;

/// The open connections of a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct OpenConnections {
    /// Those of clients, and those that have not shown yet who they are.
    pub(crate) clients: usize,
    /// Those of other nodes.
    pub(crate) peers: usize,
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
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    Client,
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
        Some(Arc::new(Place { places: self.clone(), from, holder: Mutex::new(holder), node }))
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
        self.places.taken.lock().free(self.from, holder);
        // Closed before, unless the server was dropped with all its connections.
        let _nobody_to_tell = self.close();
    }
}

/// The service as one connection sees it: refuses calls of another than its certificate names, and notes which node calls
/// there, once a call of it was admitted.
pub(crate) struct OfConnection {
    pub(crate) service: Arc<dyn PeerService>,
    /// Whose committed state says who is a member.
    pub(crate) state: Arc<dyn ClientService>,
    pub(crate) place: Arc<Place>,
    /// Whom its certificate names; `None` without TLS.
    pub(crate) role: Option<CallerRole>,
}

impl OfConnection {
    fn is_member(&self, node: NodeId) -> bool {
        let mut member = false;
        self.state.look(&mut |state| member = state.member(node).is_some() || state.retired().contains(&node));
        // The gate has a refusal of its own for one that was removed.
        member
    }

    /// Whether this connection may speak for `node`.
    fn may_be(&self, node: NodeId) -> Result<(), Refusal> {
        match &self.role {
            None => Ok(()),
            Some(CallerRole::Node(own)) if *own == node || quorate_membership::mutant!("speaks_for_another") => Ok(()),
            Some(other) => Err(Refusal::NotAllowed(format!(
                "the call is one of {node}, and the certificate is that of {other}; each node needs its own"
            ))),
        }
    }
}

/// Whether only members make this call. The others are answers of a voter or entries of a leader, which Raft judges itself.
fn is_of_members(call: &Call) -> bool {
    matches!(call, Call::Propose(_) | Call::ReadIndex | Call::Renew(_) | Call::KeepAlive(_))
}

/// The node as whose leader or candidate a call speaks, if it does.
fn ballot_of(call: &Call) -> Option<NodeId> {
    let ballot = match call {
        Call::Append(append) => append.ballot,
        Call::Vote(request) => request.ballot,
        Call::PreVote(request) => request.ballot,
        Call::Snapshot(snapshot) => snapshot.ballot,
        Call::Transfer(transfer) => transfer.from,
        Call::Receipts(asked) => asked.ballot,
        Call::Propose(_)
        | Call::ReadIndex
        | Call::Renew(_)
        | Call::KeepAlive(_)
        | Call::CanFence(_)
        | Call::Refuses(_) => return None,
    };
    Some(ballot.node)
}

/// The node that asks to be let in, if that is what is asked for.
fn joining(request: &JoinRequest) -> Option<NodeId> {
    match codec::decode(request.command.as_bytes()) {
        Ok(Command::Join { node, .. }) => Some(node),
        _ => None,
    }
}

impl PeerService for OfConnection {
    fn call(&self, caller: Caller, call: Call) -> BoxFuture<'static, Result<Answer, Refusal>> {
        let spoken_for =
            self.may_be(caller.from).and_then(|()| ballot_of(&call).map_or(Ok(()), |node| self.may_be(node)));
        if let Err(refusal) = spoken_for {
            return Box::pin(ready(Err(refusal)));
        }
        if self.role.is_some() && is_of_members(&call) && !self.is_member(caller.from) {
            // It may be one that this node has not heard of yet.
            return Box::pin(ready(Err(Refusal::NotReady)));
        }
        let (answer, place) = (self.service.call(caller, call), self.place.clone());
        Box::pin(async move {
            let answer = answer.await;
            if answer.is_ok() {
                place.is_of(caller.from);
            }
            answer
        })
    }

    fn append_stream(
        &self,
        caller: Caller,
        requests: BoxStream<'static, Append>,
    ) -> BoxStream<'static, Result<StreamAppended, Refusal>> {
        if let Err(refusal) = self.may_be(caller.from) {
            return stream::iter([Err(refusal)]).boxed();
        }
        let place = self.place.clone();
        // Only a leader sends entries, and in its own name.
        let own = self.role.as_ref().map(|_| caller.from);
        let requests = requests.take_while(move |append| ready(own.is_none_or(|own| append.ballot.node == own)));
        let answers = self.service.append_stream(caller, requests.boxed());
        let noted = answers.inspect(move |answer| {
            if answer.is_ok() {
                place.is_of(caller.from);
            }
        });
        noted.boxed()
    }

    fn join(&self, request: JoinRequest) -> BoxFuture<'static, Result<JoinAnswer, Refusal>> {
        match joining(&request).map_or(Ok(()), |node| self.may_be(node)) {
            Ok(()) => self.service.join(request),
            Err(refusal) => Box::pin(ready(Err(refusal))),
        }
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
        assert_eq!(places.open(), OpenConnections { clients: 3, peers: 1, on_trial: 0 });
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
        assert_eq!(places.open(), OpenConnections { clients: 0, peers: 1, on_trial: 0 });
    }
}
