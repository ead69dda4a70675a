//! From openraft's idea of a network to ours: finds the peer's address, names the caller, notes each sign of life.
//!
//! ```text
//!   openraft ──append, vote, …──▶ Network{to, lane} ──▶ Transport
//!                                    │  address: the committed state      contact: noted for the failure detector
//! ```

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{SnapshotResponse, TransferLeaderResponse};
use openraft::{OptionalSend, OptionalSync};
use quorate_membership::cluster::MAX_ADDRESSES;
use quorate_membership::detector::Moment;
use quorate_membership::{Address, ClusterId, Disk, NodeId, Nonce};

use crate::clock;
use crate::error::TransportError;
use crate::feed::Feed;
use crate::rpc::{Caller, InstallSnapshot, Transfer, VoteAnswer, VoteRequest};
use crate::transport::{Peer, Transport};
use crate::types::{
    OrAppend, OrAppended, OrSnapshot, OrStreamResult, OrTransfer, OrVote, OrVoteRequest, OrVoteResponse, Types,
    append_from, appended_to, log_id_from, log_id_to, snapshot_meta_from, stream_to, transferred_to, vote_from,
    vote_to,
};

/// When each other node was last heard.
#[derive(Debug, Default)]
pub(crate) struct Contacts(Mutex<BTreeMap<NodeId, Moment>>);

impl Contacts {
    pub(crate) fn note(&self, node: NodeId) {
        let mut contacts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        contacts.insert(node, clock::now());
    }

    pub(crate) fn all(&self) -> BTreeMap<NodeId, Moment> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// How many nodes are remembered by what they said: bounded, for anybody may say something.
const MAX_HINTS: usize = 64;

/// How this node speaks to others.
pub(crate) struct Peers {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) node: NodeId,
    pub(crate) disk: Disk,
    pub(crate) session: Nonce,
    pub(crate) timing: u64,
    pub(crate) cluster: Mutex<Option<ClusterId>>,
    pub(crate) feed: Feed,
    pub(crate) contacts: Contacts,
    /// Where nodes that ask to be let in say that they are: a way to reach them before that is committed, no more.
    pub(crate) hints: Mutex<BTreeMap<NodeId, Vec<Address>>>,
}

impl Peers {
    pub(crate) fn cluster(&self) -> Option<ClusterId> {
        *self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_cluster(&self, cluster: ClusterId) {
        *self.cluster.lock().unwrap_or_else(PoisonError::into_inner) = Some(cluster);
    }

    /// Remembers where a node says that it is.
    pub(crate) fn hint(&self, node: NodeId, addresses: Vec<Address>) {
        let mut hints = self.hints.lock().unwrap_or_else(PoisonError::into_inner);
        if addresses.len() <= MAX_ADDRESSES && (hints.len() < MAX_HINTS || hints.contains_key(&node)) {
            hints.insert(node, addresses);
        }
    }

    /// The peer and the caller for a call to `to`.
    pub(crate) fn address(&self, to: NodeId) -> Result<(Peer, Caller), TransportError> {
        let cluster =
            self.cluster().ok_or_else(|| TransportError::Unreachable("this node has no cluster yet".into()))?;
        let state = self.feed.state();
        let known = state.member(to);
        let callee = known.map(|member| member.disk);
        let mut addresses = known.map(|member| member.addresses.clone()).unwrap_or_default();
        // Where it said last that it is, should the log not know yet.
        let said = self.hints.lock().unwrap_or_else(PoisonError::into_inner).get(&to).cloned().unwrap_or_default();
        addresses.splice(..0, said.into_iter().filter(|said| known.is_none_or(|m| !m.addresses.contains(said))));
        addresses.truncate(MAX_ADDRESSES);
        if addresses.is_empty() {
            return Err(TransportError::Unreachable(format!("no address of {to} is known here")));
        }
        let (from, disk, session, timing) = (self.node, self.disk, self.session, self.timing);
        Ok((Peer { node: to, addresses }, Caller { cluster, from, to, disk, session, callee, timing }))
    }

    fn heard<T>(&self, from: NodeId, answer: Result<T, TransportError>) -> Result<T, TransportError> {
        if answer.is_ok() {
            self.contacts.note(from);
        }
        answer
    }
}

/// Makes a [`Network`] for each purpose. Connections are the transport's affair: it keeps them.
#[derive(Clone)]
pub(crate) struct NetworkFactory(pub(crate) Arc<Peers>);

impl RaftNetworkFactory<Types> for NetworkFactory {
    type Network = Network;

    async fn new_client(&mut self, target: u64, (): &()) -> Network {
        Network { wire: self.0.clone(), to: NodeId::new(target) }
    }
}

/// How long a stream that could not be opened is not tried again.
const OPEN_AGAIN: Duration = Duration::from_millis(20);

/// The way to one peer.
pub(crate) struct Network {
    wire: Arc<Peers>,
    to: NodeId,
}

impl Network {
    fn failed(&self, action: RPCTypes, error: TransportError) -> RPCError<Types> {
        match error {
            TransportError::Unreachable(why) => RPCError::Unreachable(Unreachable::from_string(why)),
            TransportError::Timeout(timeout) => {
                RPCError::Timeout(Timeout { action, id: self.wire.node.get(), target: self.to.get(), timeout })
            }
            TransportError::Broken(why) => RPCError::Network(NetworkError::from_string(why)),
            // Refused again and again at full speed would help nobody: `Unreachable` backs off.
            TransportError::Refused(refusal) => {
                tracing::debug!(to = %self.to, %refusal, "call refused");
                RPCError::Unreachable(Unreachable::from_string(refusal))
            }
        }
    }

    async fn call<T, F>(
        &self,
        action: RPCTypes,
        call: impl FnOnce(&dyn Transport, Peer, Caller) -> F,
    ) -> Result<T, RPCError<Types>>
    where
        F: Future<Output = Result<T, TransportError>>,
    {
        let answer = match self.wire.address(self.to) {
            Ok((peer, caller)) => call(self.wire.transport.as_ref(), peer, caller).await,
            Err(error) => Err(error),
        };
        self.wire.heard(self.to, answer).map_err(|e| self.failed(action, e))
    }
}

fn vote_request(rpc: &OrVoteRequest) -> VoteRequest {
    let last = rpc.last_log_id.as_ref().map(log_id_from);
    VoteRequest { ballot: vote_from(&rpc.vote), last, transfer: rpc.leadership_transfer }
}

fn vote_response(answer: VoteAnswer) -> OrVoteResponse {
    OrVoteResponse {
        vote: vote_to(answer.ballot),
        vote_granted: answer.granted,
        last_log_id: answer.last.map(log_id_to),
    }
}

type Replies<'s> = BoxStream<'s, Result<OrStreamResult, RPCError<Types>>>;

impl RaftNetworkV2<Types> for Network
where
    Self: OptionalSend + OptionalSync,
{
    type SnapshotData = Arc<[u8]>;

    async fn append_entries(&mut self, rpc: OrAppend, option: RPCOption) -> Result<OrAppended, RPCError<Types>> {
        let request = append_from(&rpc);
        let deadline = option.hard_ttl();
        let answer = self.call(RPCTypes::AppendEntries, |t, peer, caller| t.append(&peer, caller, request, deadline));
        answer.await.map(appended_to)
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<Replies<'s>, RPCError<Types>>>
    where
        S: Stream<Item = OrAppend> + OptionalSend + Unpin + 'static,
    {
        let idle = option.hard_ttl().max(Duration::from_millis(100));
        Box::pin(async move {
            let requests = input.map(|rpc| append_from(&rpc)).boxed();
            let action = RPCTypes::AppendEntries;
            let link = &*self;
            // That a stream could be opened is no sign of life of what is behind it: only an answer is.
            let opened = match link.wire.address(link.to) {
                Ok((peer, caller)) => link.wire.transport.append_stream(&peer, caller, requests, idle).await,
                Err(error) => Err(error),
            };
            let replies = match opened {
                Ok(replies) => replies,
                Err(error) => {
                    // The engine's own backing off is in the stream of requests, which nobody has polled: without a pause
                    // here its core would spin for as long as the other is not there.
                    tokio::time::sleep(OPEN_AGAIN).await;
                    return Err(link.failed(action, error));
                }
            };
            let replies = replies.map(move |reply| {
                let reply = link.wire.heard(link.to, reply);
                reply.map(stream_to).map_err(|e| link.failed(action, e))
            });
            Ok(replies.boxed() as Replies<'s>)
        })
    }

    async fn vote(&mut self, rpc: OrVoteRequest, option: RPCOption) -> Result<OrVoteResponse, RPCError<Types>> {
        let (request, deadline) = (vote_request(&rpc), option.hard_ttl());
        let answer = self.call(RPCTypes::Vote, |t, peer, caller| t.vote(&peer, caller, request, deadline));
        answer.await.map(vote_response)
    }

    async fn pre_vote(&mut self, rpc: OrVoteRequest, option: RPCOption) -> Result<OrVoteResponse, RPCError<Types>> {
        let (request, deadline) = (vote_request(&rpc), option.hard_ttl());
        let answer = self.call(RPCTypes::Vote, |t, peer, caller| t.pre_vote(&peer, caller, request, deadline));
        answer.await.map(vote_response)
    }

    async fn full_snapshot(
        &mut self,
        vote: OrVote,
        snapshot: OrSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let meta = snapshot_meta_from(&snapshot.meta);
        let request = InstallSnapshot { ballot: vote_from(&vote), meta, data: snapshot.snapshot };
        let deadline = option.hard_ttl();
        let sending =
            self.call(RPCTypes::InstallSnapshot, |t, peer, caller| t.snapshot(&peer, caller, request, deadline));
        tokio::select! { biased;
            answer = sending => Ok(SnapshotResponse::new(vote_to(answer.map_err(StreamingError::from)?))),
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: OrTransfer,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let (from, to) = (vote_from(rpc.from_leader()), NodeId::new(*rpc.to_node_id()));
        let request = Transfer { from, to, last: rpc.last_log_id().map(log_id_from) };
        let deadline = option.hard_ttl();
        let action = RPCTypes::TransferLeader;
        let answer = self.call(action, |t, peer, caller| t.transfer(&peer, caller, request, deadline));
        answer.await.map(transferred_to)
    }
}
