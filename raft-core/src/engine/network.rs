//! From openraft's idea of a network to ours: finds the peer's address, names the caller, notes each sign of life.
//!
//! ```text
//!   openraft ──append, vote, …──▶ Network{to, lane} ──▶ Transport
//!                                    │  address: the committed state      contact: noted for the failure detector
//! ```

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::stream::BoxStream as AppendStream;
use futures_util::{FutureExt, Stream, StreamExt, stream};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{SnapshotResponse, TransferLeaderResponse};
use openraft::{OptionalSend, OptionalSync};
use quorate_membership::NodeId;

use crate::engine::commits::without_early_commits;
use crate::engine::heartbeats::Heartbeats;
use crate::engine::log_store::LogStore;
use crate::engine::peers::Peers;
use crate::engine::revocable::revocable;
use crate::engine::spared::{Spared, heartbeat};
use crate::engine::types::{
    OrAppend, OrAppended, OrSnapshot, OrStreamResult, OrTransfer, OrVote, OrVoteRequest, OrVoteResponse, Types,
    append_from, appended_to, log_id_from, log_id_to, snapshot_meta_from, stream_to, transferred_to, vote_from,
    vote_to,
};
use crate::error::TransportError;
use crate::rpc::{Append, InstallSnapshot, PreVote, Rpc, Transfer, VoteAnswer, VoteRequest};
use crate::transport::Lane;

/// Makes a [`Network`] for each purpose. Connections are the transport's affair: it keeps them.
#[derive(Clone)]
pub(crate) struct NetworkFactory {
    pub(crate) peers: Arc<Peers>,
    pub(crate) store: LogStore,
    /// How long the answer to a heartbeat may take, and still says that its sender is followed.
    pub(crate) answers_within: Duration,
    /// How lately a node without a vote must have called to need no heartbeat.
    pub(crate) spared_for: Duration,
}

impl RaftNetworkFactory<Types> for NetworkFactory {
    type Network = Network;

    async fn new_client(&mut self, target: u64, (): &()) -> Network {
        let Self { peers, store, answers_within, spared_for } = self.clone();
        let (to, heartbeats, spared) = (NodeId::new(target), Heartbeats::default(), Spared::new(spared_for));
        Network { peers, store, to, answers_within, heartbeats, spared, silences: Silences::default() }
    }
}

/// How long a stream of entries may at least be silent although an answer is due, and how many round trips of the last
/// heartbeat.
const LEAST_IDLE: Duration = Duration::from_millis(100);
const ROUND_TRIPS: u32 = 3;

/// How often that time may double for a member without a vote: to sixteen times as much.
const DOUBLINGS: u32 = 4;

const BEHIND: &str = "it is further behind than the log may reach back; a snapshot follows";

/// How long a stream that could not be opened is not tried again.
const OPEN_AGAIN: Duration = Duration::from_millis(20);

/// The lane that a stream of appends belongs on, and the stream as it was.
///
/// openraft sends a heartbeat as a stream of one append without entries. On the connection of the entries it would wait
/// behind megabytes of them on a thin link; then the leader hears no quorum in time, and all leases run out. So it becomes a
/// call of its own. A stream that goes on is never taken for a heartbeat: only one that has ended already is.
fn lane_of(mut requests: AppendStream<'static, Append>) -> (Lane, AppendStream<'static, Append>) {
    let mut begun = vec![];
    let ended = loop {
        match requests.next().now_or_never() {
            Some(Some(append)) if begun.is_empty() && append.entries.is_empty() => begun.push(append),
            Some(Some(append)) => {
                begun.push(append);
                break false;
            }
            Some(None) => break true,
            None => break false,
        }
    };
    // A stream that has ended is not polled again: openraft's panics then.
    match ended {
        true if begun.len() == 1 && !quorate_membership::mutant!("heartbeats_behind_entries") => {
            (Lane::Control, stream::iter(begun).boxed())
        }
        true => (Lane::Log, stream::iter(begun).boxed()),
        false => (Lane::Log, stream::iter(begun).chain(requests).boxed()),
    }
}

/// How many streams in a row were silent for too long.
#[derive(Debug, Default)]
struct Silences(AtomicU32);

impl Silences {
    fn note<T>(&self, reply: &Result<T, TransportError>) {
        match reply {
            Ok(_) => self.0.store(0, Ordering::Relaxed),
            Err(TransportError::Timeout(_)) => drop(self.0.fetch_add(1, Ordering::Relaxed)),
            Err(_) => {}
        }
    }

    /// How many times as long the next one may be silent.
    fn times(&self) -> u32 {
        1 << self.0.load(Ordering::Relaxed).min(DOUBLINGS)
    }
}

/// The way to one peer.
pub(crate) struct Network {
    peers: Arc<Peers>,
    /// The log, whose end says whether a later commit is to come.
    store: LogStore,
    to: NodeId,
    answers_within: Duration,
    heartbeats: Heartbeats,
    spared: Spared,
    silences: Silences,
}

impl Network {
    /// How long a stream of entries may be silent although an answer is due. Soon, because TCP may wait long before it sends
    /// again what was lost; and never before an answer can have come.
    fn idle(&self, ttl: Duration) -> Duration {
        let round_trips = self.peers.answered.round_trip(self.to) * ROUND_TRIPS;
        ttl.max(LEAST_IDLE).max(round_trips.min(self.answers_within))
    }

    /// How many times as long the next stream may be silent. No majority waits for who has no vote, and new connections cost time.
    fn times_as_long(&self) -> u32 {
        if self.peers.has_a_vote(self.to) { 1 } else { self.silences.times() }
    }

    fn ended(&self, why: &str) -> RPCError<Types> {
        self.failed(RPCTypes::AppendEntries, TransportError::Unreachable(why.into()))
    }

    fn failed(&self, action: RPCTypes, error: TransportError) -> RPCError<Types> {
        match error {
            TransportError::Unreachable(why) => RPCError::Unreachable(Unreachable::from_string(why)),
            TransportError::Timeout(timeout) => {
                RPCError::Timeout(Timeout { action, id: self.peers.node().get(), target: self.to.get(), timeout })
            }
            TransportError::Broken(why) => RPCError::Network(NetworkError::from_string(why)),
            // Refused again and again at full speed would help nobody: `Unreachable` backs off.
            TransportError::Refused(refusal) => {
                tracing::debug!(to = %self.to, %refusal, "call refused");
                RPCError::Unreachable(Unreachable::from_string(refusal))
            }
        }
    }

    /// One call, with a note that the peer was heard if it answers.
    async fn call<R: Rpc>(
        &self,
        action: RPCTypes,
        request: R,
        option: &RPCOption,
    ) -> Result<R::Reply, RPCError<Types>> {
        let answer = self.peers.call(self.to, request, option.hard_ttl()).await;
        self.peers.heard(self.to, answer).map_err(|e| self.failed(action, e))
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
        self.call(RPCTypes::AppendEntries, append_from(&rpc), &option).await.map(appended_to)
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<Replies<'s>, RPCError<Types>>>
    where
        S: Stream<Item = OrAppend> + OptionalSend + Unpin + 'static,
    {
        let times = self.times_as_long();
        let idle = self.idle(option.hard_ttl()) * times;
        Box::pin(async move {
            let (lane, mut requests) = lane_of(input.map(|rpc| append_from(&rpc)).boxed());
            let action = RPCTypes::AppendEntries;
            if lane == Lane::Control
                && let Some(append) = requests.next().await
            {
                if let Some(answer) = self.spared.answer(&append, &self.peers, self.to) {
                    self.heartbeats.look();
                    return Ok(stream::iter([Ok(stream_to(answer))]).boxed() as Replies<'s>);
                }
                let (peers, told) = (self.peers.clone(), self.spared.told());
                let asking = heartbeat(peers, self.to, append, self.answers_within, told);
                let answer = self.heartbeats.send(asking).await.map_err(|e| self.failed(action, e))?;
                return Ok(stream::iter([Ok(stream_to(answer))]).boxed() as Replies<'s>);
            }
            let (link, store) = (&*self, self.store.clone());
            let requests = without_early_commits(requests, move || store.last().map(|last| last.index)).boxed();
            let (requests, hold) = revocable(requests);
            // That a stream could be opened is no sign of life of what is behind it: only an answer is.
            let opened = match link.peers.address(link.to) {
                Ok((peer, caller)) => link.peers.transport.append_stream(&peer, caller, requests.boxed(), idle).await,
                Err(error) => Err(error),
            };
            let replies = match opened {
                Ok(replies) => replies,
                Err(error) => {
                    drop(hold);
                    // The engine's own backing off is in the stream of requests, which nobody has polled: without a pause
                    // here its core would spin for as long as the other is not there.
                    tokio::time::sleep(OPEN_AGAIN).await;
                    return Err(link.failed(action, error));
                }
            };
            let replies = stream::unfold(Some((replies, hold)), move |replies| async move {
                let (mut replies, hold) = replies?;
                if times > 1 && link.peers.has_a_vote(link.to) {
                    return Some((Err(link.ended("it has a vote now, and no more time than others")), None));
                }
                let reply = tokio::select! { biased;
                    () = link.peers.is_behind(link.to) => return Some((Err(link.ended(BEHIND)), None)),
                    reply = replies.next() => reply?,
                };
                link.silences.note(&reply);
                let reply = link.peers.heard(link.to, reply);
                let reply = reply.map(stream_to).map_err(|e| link.failed(RPCTypes::AppendEntries, e));
                Some((reply, Some((replies, hold))))
            });
            Ok(replies.boxed() as Replies<'s>)
        })
    }

    async fn vote(&mut self, rpc: OrVoteRequest, option: RPCOption) -> Result<OrVoteResponse, RPCError<Types>> {
        self.call(RPCTypes::Vote, vote_request(&rpc), &option).await.map(vote_response)
    }

    async fn pre_vote(&mut self, rpc: OrVoteRequest, option: RPCOption) -> Result<OrVoteResponse, RPCError<Types>> {
        self.call(RPCTypes::Vote, PreVote(vote_request(&rpc)), &option).await.map(vote_response)
    }

    async fn full_snapshot(
        &mut self,
        vote: OrVote,
        snapshot: OrSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let meta = snapshot_meta_from(&snapshot.meta);
        let _sending = meta.last.map(|last| self.peers.sends_snapshot(self.to, last.index));
        let request = InstallSnapshot { ballot: vote_from(&vote), meta, data: snapshot.snapshot };
        let sending = self.call(RPCTypes::InstallSnapshot, request, &option);
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
        self.call(RPCTypes::TransferLeader, request, &option).await.map(transferred_to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::{Ballot, Body, LogEntry, Position};

    fn append(entries: usize) -> Append {
        let at = Position { term: 1, index: 7 };
        let ballot = Ballot { term: 1, node: NodeId::new(1), committed: true };
        Append {
            ballot,
            prev: None,
            entries: vec![LogEntry { at, body: Body::Blank }; entries],
            commit: None,
            renewed: None,
        }
    }

    #[tokio::test]
    async fn only_a_stream_of_one_empty_append_is_a_heartbeat_and_nothing_is_lost() {
        let open = || stream::pending().boxed();
        // Like openraft's: it panics when it is polled after its end.
        let ended = || stream::unfold((), |()| async { None }).boxed();
        for (sizes, rest, lane) in [
            (vec![0], ended(), Lane::Control),
            (vec![0], open(), Lane::Log),
            (vec![1], ended(), Lane::Log),
            (vec![0, 0], ended(), Lane::Log),
            (vec![0, 1], ended(), Lane::Log),
            (vec![], ended(), Lane::Log),
            (vec![], open(), Lane::Log),
        ] {
            let all: Vec<Append> = sizes.iter().map(|entries| append(*entries)).collect();
            let (found, mut requests) = lane_of(stream::iter(all.clone()).chain(rest).boxed());
            let mut passed = vec![];
            while let Some(Some(append)) = requests.next().now_or_never() {
                passed.push(append);
            }
            assert_eq!((found, passed), (lane, all), "{sizes:?}");
        }
    }

    #[test]
    fn who_is_silent_again_gets_twice_the_time_and_who_answers_gets_the_usual_time() {
        let (silences, silent) = (Silences::default(), || Err::<(), _>(TransportError::Timeout(Duration::ZERO)));
        let mut times = vec![];
        for _ in 0..6 {
            times.push(silences.times());
            silences.note(&silent());
        }
        silences.note::<()>(&Err(TransportError::Unreachable("no connection".into())));
        assert_eq!((times, silences.times()), (vec![1, 2, 4, 8, 16, 16], 16));
        silences.note(&Ok(()));
        assert_eq!(silences.times(), 1);
    }
}
