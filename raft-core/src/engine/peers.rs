//! The other nodes as this one calls them: where each is reached, what each call shows of the caller.
//!
//! ```text
//!   Peers::renew(n1, …) ─▶ address: the committed state, or where it last said that it is ─▶ Transport
//!                          caller:  cluster, node, disk, process, timing
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use parking_lot::Mutex;
use quorate_membership::cluster::MAX_ADDRESSES;
use quorate_membership::detector::Moment;
use quorate_membership::{Address, ClusterId, Disk, NodeId, Nonce, Revision, Role, SessionId};
use tokio::sync::watch;

use crate::engine::contacts::Contacts;
use crate::engine::heartbeats::Answered;
use crate::engine::receipts::Noted;
use crate::error::TransportError;
use crate::feed::Feed;
use crate::host::clock;
use crate::rpc::{Append, Appended, Caller, KeepAlive, KeptAlive, Payload, Proposed, ReadIndex, Renewal, Renewed, Rpc};
use crate::transport::{JoinAnswer, JoinRequest, Lane, NodeLinks, Peer, Transport, TransportExt};

/// How many nodes are remembered by what they said: bounded, for anybody may say something.
const MAX_HINTS: usize = 64;

/// How long what a node said is remembered. One that still asks to join says it again.
const HINT_EXPIRES: Duration = Duration::from_secs(60);

/// Where a node said that it is, and when.
#[derive(Debug)]
struct Hint {
    addresses: Vec<Address>,
    said: Moment,
}

/// A snapshot that is being sent. Dropping it says that it is not any more.
pub(super) struct Sending {
    peers: Arc<Peers>,
    to: NodeId,
    last: u64,
}

impl Drop for Sending {
    fn drop(&mut self) {
        // A later one may have begun.
        let mut receiving = self.peers.receiving.lock();
        if receiving.get(&self.to) == Some(&self.last) {
            receiving.remove(&self.to);
        }
    }
}

/// How this node calls others.
pub(crate) struct Peers {
    pub(super) transport: Arc<dyn Transport>,
    node: NodeId,
    disk: Disk,
    process: Nonce,
    timing: u64,
    cluster: Mutex<Option<ClusterId>>,
    feed: Feed,
    pub(crate) contacts: Contacts,
    /// Which nodes follow this leader.
    pub(super) answered: Answered,
    /// When this voter heard of each life last, and which lives the calls of this leader name.
    pub(super) receipts: Arc<Noted>,
    /// The nodes that are being sent a snapshot, and the last entry that it covers.
    receiving: Mutex<BTreeMap<NodeId, u64>>,
    /// The nodes that are further behind than the log may reach back.
    behind: watch::Sender<BTreeSet<NodeId>>,
    /// Where nodes that ask to join say that they are: a way to reach them before it is committed, and no more.
    hints: Mutex<BTreeMap<NodeId, Hint>>,
}

impl Peers {
    pub(super) fn new(
        transport: Arc<dyn Transport>,
        node: NodeId,
        disk: Disk,
        process: Nonce,
        timing: u64,
        cluster: Option<ClusterId>,
        feed: Feed,
    ) -> Self {
        let (cluster, contacts, behind) = (Mutex::new(cluster), Contacts::default(), watch::Sender::default());
        let (receiving, hints, answered) = Default::default();
        let receipts = Arc::new(Noted::new());
        Self {
            transport,
            node,
            disk,
            process,
            timing,
            cluster,
            feed,
            contacts,
            answered,
            receipts,
            receiving,
            behind,
            hints,
        }
    }

    /// Notes that `to` is being sent a snapshot that ends at `last`, until the returned value is dropped.
    pub(super) fn sends_snapshot(self: &Arc<Self>, to: NodeId, last: u64) -> Sending {
        self.receiving.lock().insert(to, last);
        Sending { peers: self.clone(), to, last }
    }

    /// Sets which nodes are further behind than the log may reach back.
    pub(super) fn set_behind(&self, behind: BTreeSet<NodeId>) {
        self.behind.send_if_modified(|known| std::mem::replace(known, behind.clone()) != behind);
    }

    /// Waits until `node` is further behind than the log may reach back.
    pub(super) async fn is_behind(&self, node: NodeId) {
        let waited = self.behind.subscribe().wait_for(|behind| behind.contains(&node)).await.is_ok();
        if !waited {
            std::future::pending().await
        }
    }

    /// Where the snapshots end that are being sent.
    pub(super) fn receiving(&self) -> Vec<u64> {
        self.receiving.lock().values().copied().collect()
    }

    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    /// The disk of this node, as it is shown to the others.
    pub(crate) fn disk(&self) -> Disk {
        self.disk
    }

    /// The hash of this node's timing.
    pub(crate) fn timing(&self) -> u64 {
        self.timing
    }

    pub(crate) fn cluster(&self) -> Option<ClusterId> {
        *self.cluster.lock()
    }

    pub(crate) fn set_cluster(&self, cluster: ClusterId) {
        *self.cluster.lock() = Some(cluster);
    }

    /// Remembers where a node says that it is.
    pub(crate) fn hint(&self, node: NodeId, addresses: Vec<Address>) {
        let (mut hints, said) = (self.hints.lock(), clock::now());
        hints.retain(|_, hint| said.since(hint.said) < HINT_EXPIRES);
        if addresses.len() <= MAX_ADDRESSES && (hints.len() < MAX_HINTS || hints.contains_key(&node)) {
            hints.insert(node, Hint { addresses, said });
        }
    }

    /// Where a node said lately that it is.
    fn hinted(&self, node: NodeId) -> Vec<Address> {
        let hints = self.hints.lock();
        let lately = hints.get(&node).filter(|hint| clock::now().since(hint.said) < HINT_EXPIRES);
        lately.map(|hint| hint.addresses.clone()).unwrap_or_default()
    }

    /// The peer and the caller for a call to `to`.
    pub(super) fn address(&self, to: NodeId) -> Result<(Peer, Caller), TransportError> {
        let cluster =
            self.cluster().ok_or_else(|| TransportError::Unreachable("this node has no cluster yet".into()))?;
        let known = self.feed.look(|state| state.member(to).map(|member| (member.disk, member.addresses.clone())));
        let (callee, mut addresses) = known.map_or((None, vec![]), |(disk, addresses)| (Some(disk), addresses));
        // Where it said last that it is, should the log not know yet. It displaces nothing that is committed.
        let mut said = self.hinted(to);
        said.retain(|said| !addresses.contains(said));
        addresses.extend(said);
        if addresses.is_empty() {
            return Err(TransportError::Unreachable(format!("no address of {to} is known here")));
        }
        let (from, disk, process, timing) = (self.node, self.disk, self.process, self.timing);
        Ok((Peer { node: to, addresses }, Caller { cluster, from, to, disk, process, callee, timing }))
    }

    /// Whether `node` votes or is to vote, according to what is applied here. A node that is unknown here counts as one that does.
    pub(crate) fn has_a_vote(&self, node: NodeId) -> bool {
        self.feed.look(|state| {
            let learner = state.member(node).is_some_and(|member| member.role == Role::Learner);
            state.configuration().is_voter(node) || !learner
        })
    }

    pub(super) fn heard<T>(&self, from: NodeId, answer: Result<T, TransportError>) -> Result<T, TransportError> {
        if answer.is_ok() {
            self.contacts.note_answer(from);
        }
        answer
    }

    /// Makes one call to a node, whose reply has a type.
    pub(crate) async fn call<R: Rpc>(
        &self,
        to: NodeId,
        request: R,
        deadline: Duration,
    ) -> Result<R::Reply, TransportError> {
        let (peer, caller) = self.address(to)?;
        self.transport.request(&peer, caller, request, deadline).await
    }

    /// Nodes whose side closes a connection, each as it happens.
    pub(crate) fn closed(&self) -> BoxStream<'static, NodeId> {
        self.transport.closed()
    }

    /// Whether every address of a node refuses connections.
    pub(super) async fn refuses(&self, node: NodeId) -> bool {
        match self.address(node) {
            Ok((peer, _)) => self.transport.refuses(&peer).await,
            Err(_) => false,
        }
    }

    /// Has the links to these nodes probed.
    pub(crate) fn probe(&self, nodes: &BTreeSet<NodeId>) {
        let others = nodes.iter().filter(|node| **node != self.node);
        self.transport.probe(others.filter_map(|node| self.address(*node).ok()).collect());
    }

    /// What probes have found.
    pub(crate) fn links(&self) -> BTreeMap<NodeId, NodeLinks> {
        self.transport.links()
    }

    /// Waits until a call of `lane` to a node can be made at once. Dropped, it has called nobody.
    pub(super) async fn connected(&self, to: NodeId, lane: Lane, deadline: Duration) -> Result<(), TransportError> {
        let (peer, _) = self.address(to)?;
        self.transport.connected(&peer, lane, deadline).await
    }

    /// Sends one batch of entries, outside of the engine's own streams.
    pub(crate) async fn append(
        &self,
        to: NodeId,
        request: Append,
        deadline: Duration,
    ) -> Result<Appended, TransportError> {
        self.call(to, request, deadline).await
    }

    /// Hands a command to the node that leads.
    pub(crate) async fn propose(
        &self,
        to: NodeId,
        command: Payload,
        deadline: Duration,
    ) -> Result<Proposed, TransportError> {
        self.call(to, command, deadline).await
    }

    /// Asks the leader for a read index.
    pub(crate) async fn read_index(&self, to: NodeId, deadline: Duration) -> Result<Revision, TransportError> {
        self.call(to, ReadIndex, deadline).await
    }

    /// Asks the leader to extend a lease of this node.
    pub(crate) async fn renew(
        &self,
        to: NodeId,
        renewal: Renewal,
        deadline: Duration,
    ) -> Result<Renewed, TransportError> {
        self.call(to, renewal, deadline).await
    }

    /// Asks the leader to keep a client's session alive.
    pub(crate) async fn keep_alive(
        &self,
        to: NodeId,
        session: SessionId,
        deadline: Duration,
    ) -> Result<KeptAlive, TransportError> {
        self.call(to, KeepAlive(session), deadline).await
    }

    /// Asks the member at `address` to let this node in.
    pub(crate) async fn join(
        &self,
        address: &Address,
        command: Payload,
        deadline: Duration,
    ) -> Result<JoinAnswer, TransportError> {
        let request = JoinRequest { cluster: self.cluster(), command, timing: self.timing };
        self.transport.join(address, request, deadline).await
    }
}
