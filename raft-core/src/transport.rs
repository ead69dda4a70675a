//! What raft-core asks of a network, and what it offers to one.
//!
//! ```text
//!   Node ──calls──▶ Transport (client side)  ~~~ network ~~~  server ──calls──▶ Service (implemented by Node)
//! ```
//!
//! Four kinds of call must not wait for each other: heartbeats, log entries, snapshots, renewals ([`Lane`]). A transport keeps a
//! connection for each, made lazily and kept, puts the given deadline on every call, and tells "never arrived"
//! ([`TransportError::Unreachable`]) from "may have arrived" ([`TransportError::Broken`]).

use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use quorate_membership::{Address, Command, Identity, NodeId, Nonce, Request, Revision, SessionId};

use crate::error::{Refusal, TransportError};
use crate::feed::{FeedItem, Filter};
use crate::rpc::{
    Append, Appended, Caller, InstallSnapshot, KeptAlive, Payload, Proposed, Renewal, Renewed, StreamAppended,
    Transfer, Transferred, VoteAnswer, VoteRequest,
};
use crate::view::View;

/// Which connection a call belongs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Heartbeats, votes, reads: small, and late ones cost an election.
    Control,
    /// Log entries.
    Log,
    /// Snapshots: large.
    Snapshot,
    /// Renewals: small, and late ones cost a lease. Commands that hang on the control lane must not hold them up.
    Lease,
}

/// A node and where it can be reached, most preferred address first. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The node.
    pub node: NodeId,
    /// Where it can be reached.
    pub addresses: Vec<Address>,
}

/// The client side of a network between nodes.
///
/// Every method may be called at any time and from any task; `new_client` of the engine runs in its core loop, so
/// nothing here may block. Dropping a returned future gives the call up; it may still arrive.
pub trait Transport: Send + Sync + 'static {
    /// Sends one heartbeat or one batch and waits at most `deadline` for the answer.
    fn append(
        &self,
        peer: &Peer,
        caller: Caller,
        request: Append,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Appended, TransportError>>;

    /// Opens a stream of batches. Answers come in the order of the requests; when none comes for `idle` although a
    /// request waits for one, the stream ends with [`TransportError::Timeout`].
    fn append_stream(
        &self,
        peer: &Peer,
        caller: Caller,
        requests: BoxStream<'static, Append>,
        idle: Duration,
    ) -> BoxFuture<'static, Result<BoxStream<'static, Result<StreamAppended, TransportError>>, TransportError>>;

    /// Asks for a vote.
    fn vote(
        &self,
        peer: &Peer,
        caller: Caller,
        request: VoteRequest,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<VoteAnswer, TransportError>>;

    /// Asks whether a vote would be given.
    fn pre_vote(
        &self,
        peer: &Peer,
        caller: Caller,
        request: VoteRequest,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<VoteAnswer, TransportError>>;

    /// Sends a whole snapshot. Answers with the vote that the receiver holds. `deadline` covers the transfer.
    fn snapshot(
        &self,
        peer: &Peer,
        caller: Caller,
        request: InstallSnapshot,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<crate::rpc::Ballot, TransportError>>;

    /// Asks a node to take leadership over.
    fn transfer(
        &self,
        peer: &Peer,
        caller: Caller,
        request: Transfer,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Transferred, TransportError>>;

    /// Hands a command to the node that leads.
    fn propose(
        &self,
        peer: &Peer,
        caller: Caller,
        command: Payload,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Proposed, TransportError>>;

    /// Asks the leader for a read index: a revision up to which a node must have applied to read linearizably.
    fn read_index(
        &self,
        peer: &Peer,
        caller: Caller,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Revision, TransportError>>;

    /// Asks the leader to prolong the lease of a life of this node. Small, frequent, and of no use late: on a
    /// lane of its own.
    fn renew(
        &self,
        peer: &Peer,
        caller: Caller,
        renewal: Renewal,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Renewed, TransportError>>;

    /// Asks the leader to keep a session alive. Small, frequent, and of no use late: on the lane of renewals.
    fn keep_alive(
        &self,
        peer: &Peer,
        caller: Caller,
        session: SessionId,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<KeptAlive, TransportError>>;

    /// Asks any member, found by an address alone, to let a process in. The one call without a [`Caller`]: who has
    /// never joined does not know the cluster's name yet.
    fn join(
        &self,
        address: &Address,
        request: JoinRequest,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<JoinAnswer, TransportError>>;
}

/// A process that asks to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRequest {
    /// The cluster that it belongs to, if it knows.
    pub cluster: Option<quorate_membership::ClusterId>,
    /// A `Join` in its envelope.
    pub command: Payload,
    /// Its timing, as in [`Caller::timing`].
    pub timing: u64,
}

/// What it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinAnswer {
    /// The cluster that it belongs to now.
    pub cluster: quorate_membership::ClusterId,
    /// Its name.
    pub who: Identity,
    /// Where its join stands.
    pub revision: Revision,
}

/// How somebody outside names a request, so that asking again, here or at another node, is not asking twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestName {
    /// Drawn for this request, and never used for another.
    pub nonce: Nonce,
    /// What its asker knew of the log before it drew the nonce; `None`: as far as this node has applied it. Only with it
    /// is a copy that comes after [`WINDOW`](quorate_membership::request::WINDOW) entries known as one.
    pub since: Option<Revision>,
}

/// Makes the command of a request. Called before each time that it is asked under another name, and before all of them
/// with a request of zeros, only to look at what is asked for.
pub type MakeCommand = Box<dyn Fn(Request) -> Command + Send + Sync>;

/// What a server offers to the network on behalf of a node. Each call checks the caller first; a [`Refusal`] says what
/// is wrong and what to do.
pub trait Service: Send + Sync + 'static {
    /// Answers [`Transport::append`].
    fn append(&self, caller: Caller, request: Append) -> BoxFuture<'static, Result<Appended, Refusal>>;

    /// Answers [`Transport::append_stream`]. Ends after the first answer that is not `Flushed`.
    fn append_stream(
        &self,
        caller: Caller,
        requests: BoxStream<'static, Append>,
    ) -> BoxStream<'static, Result<StreamAppended, Refusal>>;

    /// Answers [`Transport::vote`].
    fn vote(&self, caller: Caller, request: VoteRequest) -> BoxFuture<'static, Result<VoteAnswer, Refusal>>;

    /// Answers [`Transport::pre_vote`].
    fn pre_vote(&self, caller: Caller, request: VoteRequest) -> BoxFuture<'static, Result<VoteAnswer, Refusal>>;

    /// Answers [`Transport::snapshot`].
    fn snapshot(
        &self,
        caller: Caller,
        request: InstallSnapshot,
    ) -> BoxFuture<'static, Result<crate::rpc::Ballot, Refusal>>;

    /// Answers [`Transport::transfer`].
    fn transfer(&self, caller: Caller, request: Transfer) -> BoxFuture<'static, Result<Transferred, Refusal>>;

    /// Answers [`Transport::propose`]. Not forwarded further.
    fn propose(&self, caller: Caller, command: Payload) -> BoxFuture<'static, Result<Proposed, Refusal>>;

    /// Answers [`Transport::read_index`].
    fn read_index(&self, caller: Caller) -> BoxFuture<'static, Result<Revision, Refusal>>;

    /// Answers [`Transport::renew`], within a heartbeat and a round trip to a quorum. Refused to callers that ask for
    /// another node's life.
    fn renew(&self, caller: Caller, renewal: Renewal) -> BoxFuture<'static, Result<Renewed, Refusal>>;

    /// Answers [`Transport::join`]; forwarded to the leader from any node.
    fn join(&self, request: JoinRequest) -> BoxFuture<'static, Result<JoinAnswer, Refusal>>;

    /// The latest picture, for whoever asks from outside.
    fn view(&self) -> View;

    /// Proposes a command on behalf of somebody outside; forwarded to the leader from any node.
    fn command(
        &self,
        command: quorate_membership::Command,
    ) -> BoxFuture<'static, Result<crate::rpc::Committed, crate::error::ProposeError>>;

    /// Has a command of somebody outside take effect once. Without a name it is asked anew until it has, or certainly has
    /// not; with one, this is one of its copies. Returns the request, and where it took effect: for a copy of one that had
    /// already, there.
    fn once(
        &self,
        named: Option<RequestName>,
        make: MakeCommand,
    ) -> BoxFuture<'static, Result<(Request, Revision), crate::error::ProposeError>>;

    /// Hands leadership over, to `to` or to the node with the longest log.
    fn hand_over(&self, to: Option<NodeId>) -> BoxFuture<'static, Result<NodeId, crate::error::HandOverError>>;

    /// Every event after `revision` that the filter wants, and then as they happen.
    fn events_since(&self, revision: Revision, filter: Filter) -> BoxStream<'static, FeedItem>;

    /// Answers [`Transport::keep_alive`].
    fn keep_alive(&self, caller: Caller, session: SessionId) -> BoxFuture<'static, Result<KeptAlive, Refusal>>;

    /// Keeps a session of somebody outside alive, through whoever leads, within `timeout`.
    fn keep_session(&self, session: SessionId, timeout: Duration) -> BoxFuture<'static, KeptAlive>;

    /// Waits until this node has applied what was committed before the call, for whoever asks from outside.
    fn read_barrier(&self, timeout: Duration) -> BoxFuture<'static, Result<Revision, crate::error::ReadError>>;

    /// How far the log is applied here, as it goes.
    fn applied(&self) -> tokio::sync::watch::Receiver<Revision>;
}
