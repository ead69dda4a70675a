//! What raft-core asks of a network, and what it offers to one.
//!
//! ```text
//!   Node ──Call──▶ Transport ~~~ network ~~~▶ server ──Call──▶ PeerService, implemented by the node
//!        ◀─Answer─                                   ◀─Answer─
//! ```
//!
//! Four kinds of call must not wait for each other: heartbeats, log entries, snapshots, renewals ([`Lane`]). A transport
//! keeps a connection for each, made lazily and kept, puts the given deadline on every call, and tells "never arrived"
//! ([`TransportError::Unreachable`]) from "may have arrived" ([`TransportError::Broken`]).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use quorate_membership::{Address, ClusterId, Identity, NodeId, Nonce, Revision};

use crate::error::{Refusal, TransportError};
use crate::rpc::{Answer, Append, Call, Caller, Payload, Rpc, StreamAppended};

pub use crate::rpc::Lane;

/// A node and where it can be reached, most preferred address first. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The node.
    pub node: NodeId,
    /// Where it can be reached.
    pub addresses: Vec<Address>,
}

/// What is known of a link: one address of another node, as it is reached from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// No probe has been answered or has failed yet.
    Unknown,
    /// The node answers, and large messages pass.
    Up,
    /// The node answers, and large messages are lost without a word: somewhere on the way is a smaller MTU (RFC 2923, section 2.1).
    SmallOnly,
    /// The node does not answer there.
    Down,
}

/// One link to another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkView {
    /// The address of the node.
    pub address: Address,
    /// What is known of it.
    pub state: LinkState,
    /// Whether entries, snapshots and commands go there.
    pub used: bool,
}

/// All links to another node, and what the node has said of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeLinks {
    /// One for each address, most preferred first.
    pub links: Vec<LinkView>,
    /// To whom large messages pass from that node, as it has said last. Empty if it does not answer.
    pub reaches: BTreeSet<NodeId>,
}

impl NodeLinks {
    /// Whether a large message passes over some link, or may: nothing else is known.
    pub fn may_pass(&self) -> bool {
        self.links.iter().any(|link| matches!(link.state, LinkState::Up | LinkState::Unknown))
    }

    /// Whether a large message has passed over some link.
    pub fn passes(&self) -> bool {
        self.links.iter().any(|link| link.state == LinkState::Up)
    }
}

/// The answers to a stream of appends, as its sender reads them.
pub type AppendReplies = BoxStream<'static, Result<StreamAppended, TransportError>>;

/// The client side of a network between nodes.
///
/// Every method may be called at any time and from any task. The engine calls some in its core loop, so nothing here may
/// block. Dropping a returned future abandons the call; it may still arrive.
pub trait Transport: Send + Sync + 'static {
    /// Makes one call on the connection of its [`Call::lane`] and waits at most `deadline` for the answer. An answer of
    /// another kind than the call is [`TransportError::Broken`]; [`TransportExt::request`] checks that.
    fn call(
        &self,
        peer: &Peer,
        caller: Caller,
        call: Call,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Answer, TransportError>>;

    /// Opens a stream of appends on the connection of [`Lane::Log`]. Answers come in the order of the requests. When a request waits
    /// and no answer comes for `idle`, and for as long as what waits takes on the thinnest link that the transport is meant
    /// for, the stream ends with [`TransportError::Timeout`].
    fn append_stream(
        &self,
        peer: &Peer,
        caller: Caller,
        requests: BoxStream<'static, Append>,
        idle: Duration,
    ) -> BoxFuture<'static, Result<AppendReplies, TransportError>>;

    /// Nodes whose side has closed a connection that was open, each as it happens. A sign that its process has ended, and no
    /// proof: a server that restarts, or a firewall, does the same. The default never sees one.
    fn closed(&self) -> BoxStream<'static, NodeId> {
        futures_util::stream::pending().boxed()
    }

    /// Whether every address of a peer refuses connections, twice within some milliseconds: no process listens there, or
    /// something answers in its place. Whatever else happens, silence included, is `false`. The default always is.
    fn refuses(&self, _peer: &Peer) -> BoxFuture<'static, bool> {
        Box::pin(std::future::ready(false))
    }

    /// Waits until there is a connection of `lane` to a peer, so that a call can be made at once. A future that is dropped has
    /// called nobody. The default is for a transport without connections.
    fn connected(
        &self,
        _peer: &Peer,
        _lane: Lane,
        _deadline: Duration,
    ) -> BoxFuture<'static, Result<(), TransportError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Tells which other nodes there are, and as whom this node calls each, so that their links are probed from now on, and those of
    /// all others no more. The default probes nothing.
    fn probe(&self, _peers: Vec<(Peer, Caller)>) {}

    /// What probes have found, of each node that is probed.
    fn links(&self) -> BTreeMap<NodeId, NodeLinks> {
        BTreeMap::new()
    }

    /// Asks any member, found by an address alone, to admit a process. The only call without a [`Caller`]: a process
    /// that has never joined does not know the cluster's id yet.
    fn join(
        &self,
        address: &Address,
        request: JoinRequest,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<JoinAnswer, TransportError>>;
}

/// Typed calls over any [`Transport`].
pub trait TransportExt: Transport {
    /// [`Transport::call`] with a request whose reply has a type.
    fn request<R: Rpc>(
        &self,
        peer: &Peer,
        caller: Caller,
        request: R,
        deadline: Duration,
    ) -> impl Future<Output = Result<R::Reply, TransportError>> + Send + use<Self, R> {
        let answer = self.call(peer, caller, request.into_call(), deadline);
        async move { R::reply(answer.await?).ok_or_else(|| TransportError::Broken(OTHER_KIND.into())) }
    }
}

impl<T: Transport + ?Sized> TransportExt for T {}

const OTHER_KIND: &str = "the answer belongs to another kind of call; both nodes should run the same version";

/// A process that asks to be admitted as a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRequest {
    /// The cluster that it belongs to, if it knows.
    pub cluster: Option<ClusterId>,
    /// A `Join` in its envelope.
    pub command: Payload,
    /// Its timing, as in [`Caller::timing`].
    pub timing: u64,
}

/// The answer to a process that was admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinAnswer {
    /// The cluster that it belongs to now.
    pub cluster: ClusterId,
    /// Its node number and incarnation.
    pub who: Identity,
    /// The revision of its join in the log.
    pub revision: Revision,
}

/// The name that a client gives to a request, so that a repetition, here or at another node, takes effect only once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestName {
    /// Drawn at random for this request, and never used for another.
    pub nonce: Nonce,
    /// The revision that the client knew before it drew the nonce; `None`: as far as this node has applied the log. Only
    /// with it is a copy recognised that comes more than [`WINDOW`](quorate_membership::request::WINDOW) entries later.
    pub since: Option<Revision>,
}

/// What the nodes of a cluster ask of each other. Each call checks the caller first. A [`Refusal`] tells what is wrong
/// and what to do.
pub trait PeerService: Send + Sync + 'static {
    /// Answers [`Transport::call`] with the [`Answer`] that has the name of the [`Call`]. A renewal is answered within a
    /// heartbeat and a round trip to a quorum, and refused to a caller that asks for the life of another node.
    fn call(&self, caller: Caller, call: Call) -> BoxFuture<'static, Result<Answer, Refusal>>;

    /// Answers [`Transport::append_stream`]. Ends after the first answer that is not `Flushed`.
    fn append_stream(
        &self,
        caller: Caller,
        requests: BoxStream<'static, Append>,
    ) -> BoxStream<'static, Result<StreamAppended, Refusal>>;

    /// The last connection to this server has closed on which a call of `node` was admitted. Its process has ended, or the
    /// connections were cut off. The default does not care.
    fn disconnected(&self, _node: NodeId) {}

    /// Answers [`Transport::join`]. Any node forwards it to the leader.
    fn join(&self, request: JoinRequest) -> BoxFuture<'static, Result<JoinAnswer, Refusal>>;
}

/// Typed calls to any [`PeerService`].
pub trait PeerServiceExt: PeerService {
    /// [`PeerService::call`] with a request whose reply has a type.
    fn request<R: Rpc>(
        &self,
        caller: Caller,
        request: R,
    ) -> impl Future<Output = Result<R::Reply, Refusal>> + Send + use<Self, R> {
        let answer = self.call(caller, request.into_call());
        async move { R::reply(answer.await?).ok_or_else(|| Refusal::Malformed(OTHER_KIND.into())) }
    }
}

impl<T: PeerService + ?Sized> PeerServiceExt for T {}
