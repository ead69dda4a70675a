//! What a node answers to the network: every call between nodes passes the gate first.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryFutureExt};
use openraft::Snapshot;
use quorate_membership::codec::{decode, inspect};
use quorate_membership::{ClusterState, Command, NodeId, Nonce, Request, Revision, SessionId};
use tokio::time::Instant;

pub(crate) use crate::node::rules::{fits, only_raft};
use crate::node::rules::{for_operators, proposable};

use crate::engine::types::{
    OrTransfer, OrVoteRequest, OrVoteResponse, append_to, appended_from, log_id_from, log_id_to, snapshot_meta_to,
    stream_from, transferred_from, vote_from, vote_to,
};
use crate::error::{HandOverError, ProposeError, ReadError, Refusal};
use crate::feed::{FeedItem, Filter};
use crate::host::clock;
use crate::inner::Inner;
use crate::member::gate::Here;
use crate::node::Committed;
use crate::rpc::{
    Answer, Append, Appended, Ballot, Call, Caller, InstallSnapshot, KeptAlive, Payload, Proposed, Renewal, Renewed,
    StreamAppended, Transfer, Transferred, VoteAnswer, VoteRequest,
};
use crate::transport::{ClientService, JoinAnswer, JoinRequest, MakeCommand, PeerService, RequestName};
use crate::view::View;

/// The node as the network sees it.
pub(crate) struct NodeService(pub(crate) Arc<Inner>);

fn engine(error: impl std::fmt::Display) -> Refusal {
    Refusal::Stopped(error.to_string())
}

impl NodeService {
    fn admit(&self, caller: &Caller) -> Result<(), Refusal> {
        if let Some(fatal) = self.0.stopped() {
            return Err(Refusal::Stopped(fatal.to_string()));
        }
        let peers = &self.0.peers;
        let here = Here { node: self.0.node, cluster: peers.cluster(), timing: peers.timing, disk: peers.disk };
        self.0.gate.check(here, &self.0.feed.state(), caller)?;
        self.0.peers.contacts.note(caller.from);
        Ok(())
    }

    /// As [`Self::admit`], for what the engine has to take in: who sends it sends it again.
    fn admit_entries(&self, caller: &Caller) -> Result<(), Refusal> {
        self.admit(caller)?;
        self.0.takes_nothing().map_or(Ok(()), |trouble| Err(Refusal::Unavailable(trouble)))
    }

    /// P22: no vote, no pre-vote and no candidacy so soon after a start.
    fn free_to_vote(&self) -> Result<(), Refusal> {
        let Some(ends) = self.0.embargo_ends else { return Ok(()) };
        let remaining = ends.since(clock::now());
        if remaining.is_zero() { Ok(()) } else { Err(Refusal::Embargo { remaining }) }
    }

    /// Who can make nothing durable can give no vote, and would have its engine wait for one instead of hearing the leader.
    fn able_to_vote(&self) -> Result<(), Refusal> {
        self.0.disk_trouble().map_or(Ok(()), |trouble| Err(Refusal::Unavailable(trouble)))
    }

    fn admit_vote(&self, caller: &Caller) -> Result<(), Refusal> {
        self.admit(caller)?;
        self.free_to_vote()?;
        self.able_to_vote()
    }
}

fn vote_request(request: VoteRequest) -> OrVoteRequest {
    let mut made = OrVoteRequest::new(vote_to(request.ballot), request.last.map(log_id_to));
    made.leadership_transfer = request.transfer;
    made
}

fn vote_answer(answer: &OrVoteResponse) -> VoteAnswer {
    let last = answer.last_log_id.as_ref().map(log_id_from);
    VoteAnswer { ballot: vote_from(&answer.vote), granted: answer.vote_granted, last }
}

/// The answer to each kind of call between nodes.
impl NodeService {
    fn append(&self, caller: Caller, request: Append) -> BoxFuture<'static, Result<Appended, Refusal>> {
        let (admitted, raft) = (self.admit_entries(&caller), self.0.raft.clone());
        Box::pin(async move {
            admitted?;
            let request = append_to(request).map_err(|e| Refusal::Malformed(e.to_string()))?;
            let answer = raft.append_entries(request).await.map_err(engine)?;
            Ok(appended_from(&answer))
        })
    }

    fn vote(&self, caller: Caller, request: VoteRequest) -> BoxFuture<'static, Result<VoteAnswer, Refusal>> {
        let (admitted, raft) = (self.admit_vote(&caller), self.0.raft.clone());
        Box::pin(async move {
            admitted?;
            raft.vote(vote_request(request)).await.map(|a| vote_answer(&a)).map_err(engine)
        })
    }

    fn pre_vote(&self, caller: Caller, request: VoteRequest) -> BoxFuture<'static, Result<VoteAnswer, Refusal>> {
        let (admitted, raft) = (self.admit_vote(&caller), self.0.raft.clone());
        Box::pin(async move {
            admitted?;
            let last = request.last;
            let answer = raft.pre_vote(vote_request(request)).await.map(|a| vote_answer(&a)).map_err(engine)?;
            if cfg!(quorate_mutant = "pre_vote_always") {
                return Ok(VoteAnswer { granted: true, last, ..answer });
            }
            Ok(answer)
        })
    }

    fn snapshot(&self, caller: Caller, request: InstallSnapshot) -> BoxFuture<'static, Result<Ballot, Refusal>> {
        let (admitted, raft) = (self.admit_entries(&caller), self.0.raft.clone());
        Box::pin(async move {
            admitted?;
            // Read before the engine sees it: an unreadable snapshot is the sender's trouble and must not stop this node.
            decode::<ClusterState>(&request.data).map_err(|e| Refusal::Malformed(e.to_string()))?;
            let meta = snapshot_meta_to(&request.meta).map_err(|e| Refusal::Malformed(e.to_string()))?;
            let snapshot = Snapshot { meta, snapshot: request.data };
            let answer = raft.install_full_snapshot(vote_to(request.ballot), snapshot).await.map_err(engine)?;
            Ok(vote_from(&answer.vote))
        })
    }

    fn transfer(&self, caller: Caller, request: Transfer) -> BoxFuture<'static, Result<Transferred, Refusal>> {
        let (admitted, raft) = (self.admit_vote(&caller), self.0.raft.clone());
        Box::pin(async move {
            admitted?;
            let request = OrTransfer::new(vote_to(request.from), request.to.get(), request.last.map(log_id_to));
            raft.handle_transfer_leader(request).await.map(transferred_from).map_err(engine)
        })
    }

    fn propose(&self, caller: Caller, command: Payload) -> BoxFuture<'static, Result<Proposed, Refusal>> {
        let (admitted, inner) = (self.admit(&caller), self.0.clone());
        Box::pin(async move {
            admitted?;
            proposable(&command, &caller, &inner)?;
            let give_up = Instant::now() + inner.config.propose_timeout;
            Ok(inner.propose_here(command, give_up).await)
        })
    }

    fn read_index(&self, caller: Caller) -> BoxFuture<'static, Result<Revision, Refusal>> {
        let (admitted, inner) = (self.admit(&caller), self.0.clone());
        Box::pin(async move {
            admitted?;
            let found = inner.read_index_here(inner.config.election_max()).await;
            found.ok_or_else(|| Refusal::Unavailable("this node does not lead a quorum".into()))
        })
    }

    fn renew(&self, caller: Caller, renewal: Renewal) -> BoxFuture<'static, Result<Renewed, Refusal>> {
        let (admitted, inner) = (self.admit(&caller), self.0.clone());
        Box::pin(async move {
            admitted?;
            if renewal.who.node != caller.from {
                return Err(Refusal::Malformed(format!("{} may not renew the lease of {}", caller.from, renewal.who)));
            }
            Ok(inner.grantor.renew(renewal).await)
        })
    }

    fn keep_alive(&self, caller: Caller, session: SessionId) -> BoxFuture<'static, Result<KeptAlive, Refusal>> {
        let (admitted, inner) = (self.admit(&caller), self.0.clone());
        Box::pin(async move {
            admitted?;
            Ok(inner.sessions.keep_alive(session).await)
        })
    }
}

/// Names the answer after the call that it belongs to.
fn answered<T: 'static>(
    reply: BoxFuture<'static, Result<T, Refusal>>,
    kind: impl FnOnce(T) -> Answer + Send + 'static,
) -> BoxFuture<'static, Result<Answer, Refusal>> {
    Box::pin(reply.map_ok(kind))
}

impl PeerService for NodeService {
    fn call(&self, caller: Caller, call: Call) -> BoxFuture<'static, Result<Answer, Refusal>> {
        match call {
            Call::Append(request) => answered(self.append(caller, request), Answer::Append),
            Call::Vote(request) => answered(self.vote(caller, request), Answer::Vote),
            Call::PreVote(request) => answered(self.pre_vote(caller, request), Answer::PreVote),
            Call::Snapshot(request) => answered(self.snapshot(caller, request), Answer::Snapshot),
            Call::Transfer(request) => answered(self.transfer(caller, request), Answer::Transfer),
            Call::Propose(command) => answered(self.propose(caller, command), Answer::Propose),
            Call::ReadIndex => answered(self.read_index(caller), Answer::ReadIndex),
            Call::Renew(renewal) => answered(self.renew(caller, renewal), Answer::Renew),
            Call::KeepAlive(session) => answered(self.keep_alive(caller, session), Answer::KeepAlive),
        }
    }

    fn append_stream(
        &self,
        caller: Caller,
        requests: BoxStream<'static, Append>,
    ) -> BoxStream<'static, Result<StreamAppended, Refusal>> {
        if let Err(refusal) = self.admit_entries(&caller) {
            return futures_util::stream::iter([Err(refusal)]).boxed();
        }
        let (peers, from) = (self.0.peers.clone(), caller.from);
        let requests = requests.map(append_to).take_while(move |request| {
            peers.contacts.note(from);
            let sound = request.is_ok();
            if let Err(error) = request {
                tracing::warn!(%from, %error, "ending a stream that does not make sense");
            }
            std::future::ready(sound)
        });
        let requests = requests.filter_map(|request| std::future::ready(request.ok()));
        let answers = self.0.raft.stream_append(requests);
        answers.map(|answer| answer.map(|a| stream_from(&a)).map_err(engine)).boxed()
    }

    fn join(&self, request: JoinRequest) -> BoxFuture<'static, Result<JoinAnswer, Refusal>> {
        let inner = self.0.clone();
        Box::pin(async move {
            let ours = inner.peers.cluster().ok_or(Refusal::NotReady)?;
            if let Some(theirs) = request.cluster.filter(|theirs| *theirs != ours) {
                return Err(Refusal::OtherCluster { ours, theirs });
            }
            if request.timing != inner.peers.timing {
                return Err(Refusal::OtherTiming);
            }
            inspect(request.command.as_bytes()).map_err(|e| Refusal::Malformed(e.to_string()))?;
            let command: Command = decode(request.command.as_bytes()).map_err(|e| Refusal::Malformed(e.to_string()))?;
            let Command::Join { node, nonce, ref addresses, .. } = command else {
                return Err(Refusal::Malformed("only a join may be asked for without being a member".into()));
            };
            // Whoever moved while a majority was away can be reached again only where it says that it is now.
            inner.peers.hint(node, addresses.clone());
            let outcome = inner.propose(command, inner.config.propose_timeout).await.map_err(|error| match error {
                ProposeError::Rejected(rejection) => Refusal::Rejected(rejection),
                other => Refusal::Unavailable(other.to_string()),
            })?;
            let known = inner.feed.state().life_of(node, nonce);
            let who = known.ok_or_else(|| Refusal::Unavailable(format!("a newer process of {node} has joined")))?;
            Ok(JoinAnswer { cluster: ours, who, revision: outcome.revision })
        })
    }
}

impl ClientService for NodeService {
    fn view(&self) -> View {
        self.0.latest()
    }

    fn command(&self, command: Command) -> BoxFuture<'static, Result<Committed, ProposeError>> {
        let inner = self.0.clone();
        Box::pin(async move {
            for_operators(&command, &inner.feed.state()).map_err(ProposeError::Refused)?;
            inner.propose(command, inner.config.propose_timeout).await
        })
    }

    fn once(
        &self,
        named: Option<RequestName>,
        make: MakeCommand,
    ) -> BoxFuture<'static, Result<(Request, Revision), ProposeError>> {
        let inner = self.0.clone();
        Box::pin(async move {
            // What is asked for does not depend on the name under which it is.
            let looked_at = make(Request { nonce: Nonce::default(), since: Revision::default() });
            for_operators(&looked_at, &inner.feed.state()).map_err(ProposeError::Refused)?;
            let timeout = inner.config.propose_timeout;
            match named {
                Some(named) => inner.ask_named(named, timeout, make).await,
                None => inner.ask_once(timeout, make).await,
            }
        })
    }

    fn hand_over(&self, to: Option<NodeId>) -> BoxFuture<'static, Result<NodeId, HandOverError>> {
        let inner = self.0.clone();
        Box::pin(async move { inner.hand_over(to).await })
    }

    fn events_since(&self, revision: Revision, filter: Filter) -> BoxStream<'static, FeedItem> {
        self.0.feed.since(revision, filter)
    }

    fn keep_session(&self, session: SessionId, timeout: Duration) -> BoxFuture<'static, KeptAlive> {
        let inner = self.0.clone();
        Box::pin(async move { inner.keep_session(session, timeout).await })
    }

    fn read_barrier(&self, timeout: Duration) -> BoxFuture<'static, Result<Revision, ReadError>> {
        let inner = self.0.clone();
        Box::pin(async move { inner.read_barrier(timeout).await })
    }

    fn applied(&self) -> tokio::sync::watch::Receiver<Revision> {
        self.0.machine.progress()
    }
}
