//! The calls that a node answers. Every call between nodes passes the gate first.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use quorate_membership::codec::{decode, inspect};
use quorate_membership::{ClusterState, Command, NodeId, Nonce, Request, Revision, SessionId};
use tokio::time::Instant;

use crate::client_service::{ClientService, MakeCommand};
use crate::error::{HandOverError, ProposeError, ReadError, Refusal};
use crate::feed::{FeedItem, Filter};
use crate::host::clock;
use crate::member::gate::Here;
use crate::node::parts::Parts;
use crate::node::rules::{for_operators, proposable};
use crate::rpc::{Answer, Append, Call, Caller, Committed, KeptAlive, StreamAppended};
use crate::transport::{JoinAnswer, JoinRequest, PeerService, RequestName};
use crate::view::View;

/// The node, as a server passes calls to it.
pub(crate) struct NodeService(pub(crate) Arc<Parts>);

impl NodeService {
    /// Checks the caller, and notes the contact.
    fn admit(&self, caller: &Caller) -> Result<(), Refusal> {
        if let Some(fatal) = self.0.engine.stopped() {
            return Err(Refusal::Stopped(fatal.to_string()));
        }
        let (engine, peers) = (&self.0.engine, self.0.engine.peers());
        let here = Here { node: engine.node(), cluster: peers.cluster(), timing: peers.timing(), disk: peers.disk() };
        engine.look(|state| self.0.gate.check(here, state, caller))?;
        peers.contacts.note_call(caller.from);
        Ok(())
    }

    /// As [`Self::admit`], and refuses entries while the engine accepts no input. The sender sends them again.
    fn admit_entries(&self, caller: &Caller) -> Result<(), Refusal> {
        self.admit(caller)?;
        self.0.engine.takes_nothing().map_or(Ok(()), |trouble| Err(Refusal::Unavailable(trouble)))
    }

    /// P22: a voter gives no vote or pre-vote and does not stand until the embargo after its start has passed.
    fn free_to_vote(&self) -> Result<(), Refusal> {
        let Some(ends) = self.0.engine.embargo_ends() else { return Ok(()) };
        let remaining = ends.since(clock::now());
        if remaining.is_zero() { Ok(()) } else { Err(Refusal::Embargo { remaining }) }
    }

    /// Refuses a vote while the disk does not work. The vote could not become durable, and the engine would wait for it
    /// instead of listening to the leader.
    fn able_to_vote(&self) -> Result<(), Refusal> {
        self.0.engine.disk_trouble().map_or(Ok(()), |trouble| Err(Refusal::Unavailable(trouble)))
    }

    fn admit_vote(&self, caller: &Caller) -> Result<(), Refusal> {
        self.admit(caller)?;
        self.free_to_vote()?;
        self.able_to_vote()
    }
}

impl PeerService for NodeService {
    fn call(&self, caller: Caller, call: Call) -> BoxFuture<'static, Result<Answer, Refusal>> {
        let admitted = match &call {
            Call::Append(_) | Call::Snapshot(_) | Call::Receipts(_) => self.admit_entries(&caller),
            Call::Vote(_) | Call::PreVote(_) | Call::Transfer(_) => self.admit_vote(&caller),
            Call::Propose(_)
            | Call::ReadIndex
            | Call::Renew(_)
            | Call::KeepAlive(_)
            | Call::CanFence(_)
            | Call::Refuses(_) => self.admit(&caller),
        };
        let parts = self.0.clone();
        Box::pin(async move {
            admitted?;
            let engine = &parts.engine;
            Ok(match call {
                Call::Append(request) => Answer::Append(engine.append(request).await?),
                Call::Vote(request) => Answer::Vote(engine.vote(request).await?),
                Call::PreVote(request) => Answer::PreVote(engine.pre_vote(request).await?),
                Call::Snapshot(request) => Answer::Snapshot(engine.install_snapshot(request).await?),
                Call::Transfer(request) => Answer::Transfer(engine.take_over(request).await?),
                Call::Propose(command) => {
                    proposable(&command, &caller, engine)?;
                    let give_up = Instant::now() + engine.config().propose_timeout;
                    Answer::Propose(engine.propose_here(command, give_up).await)
                }
                Call::ReadIndex => {
                    let found = engine.read_index_here(engine.config().election_max()).await;
                    let refused = || Refusal::Unavailable("this node does not lead a quorum".into());
                    Answer::ReadIndex(found.ok_or_else(refused)?)
                }
                Call::Renew(renewal) if renewal.who.node != caller.from => {
                    let why = format!("{} may not renew the lease of {}", caller.from, renewal.who);
                    return Err(Refusal::Malformed(why));
                }
                Call::Renew(renewal) => Answer::Renew(parts.grantor.renew(renewal).await),
                Call::KeepAlive(session) => Answer::KeepAlive(parts.sessions.keep_alive(session).await),
                Call::Receipts(asked) => Answer::Receipts(engine.tell_receipts(asked).await?),
                Call::Refuses(node) => Answer::Refuses(engine.sees_refusal(node).await),
                Call::CanFence(order) => Answer::CanFence(parts.reach.can_fence(engine, order).await),
            })
        })
    }

    fn append_stream(
        &self,
        caller: Caller,
        requests: BoxStream<'static, Append>,
    ) -> BoxStream<'static, Result<StreamAppended, Refusal>> {
        match self.admit_entries(&caller) {
            Ok(()) => self.0.engine.append_stream(caller.from, requests),
            Err(refusal) => futures_util::stream::iter([Err(refusal)]).boxed(),
        }
    }

    fn disconnected(&self, node: NodeId) {
        self.0.engine.peers().contacts.note_disconnected(node);
    }

    fn join(&self, request: JoinRequest) -> BoxFuture<'static, Result<JoinAnswer, Refusal>> {
        let parts = self.0.clone();
        Box::pin(async move {
            let ours = parts.engine.peers().cluster().ok_or(Refusal::NotReady)?;
            if let Some(theirs) = request.cluster.filter(|theirs| *theirs != ours) {
                return Err(Refusal::OtherCluster { ours, theirs });
            }
            if request.timing != parts.engine.peers().timing() {
                return Err(Refusal::OtherTiming);
            }
            inspect(request.command.as_bytes()).map_err(|e| Refusal::Malformed(e.to_string()))?;
            let command: Command = decode(request.command.as_bytes()).map_err(|e| Refusal::Malformed(e.to_string()))?;
            let Command::Join { node, nonce, ref addresses, .. } = command else {
                return Err(Refusal::Malformed("a node that is not a member may propose only its join".into()));
            };
            // A node that moved while no majority was up is reachable only at the addresses in its new join.
            parts.engine.peers().hint(node, addresses.clone());
            let outcome = parts.engine.propose(command, parts.engine.config().propose_timeout).await.map_err(
                |error| match error {
                    ProposeError::Rejected(rejection) => Refusal::Rejected(rejection),
                    other => Refusal::Unavailable(other.to_string()),
                },
            )?;
            let known = parts.engine.look(|state| state.life_of(node, nonce));
            let who = known.ok_or_else(|| Refusal::Unavailable(format!("a newer process of {node} has joined")))?;
            Ok(JoinAnswer { cluster: ours, who, revision: outcome.revision })
        })
    }
}

impl ClientService for NodeService {
    fn view(&self) -> View {
        self.0.latest()
    }

    fn look(&self, look: &mut dyn FnMut(&ClusterState)) {
        self.0.engine.look(look);
    }

    fn command(&self, command: Command) -> BoxFuture<'static, Result<Committed, ProposeError>> {
        let parts = self.0.clone();
        Box::pin(async move {
            parts.engine.look(|state| for_operators(&command, state)).map_err(ProposeError::Refused)?;
            parts.engine.propose(command, parts.engine.config().propose_timeout).await
        })
    }

    fn once(
        &self,
        named: Option<RequestName>,
        make: MakeCommand,
    ) -> BoxFuture<'static, Result<(Request, Revision), ProposeError>> {
        let parts = self.0.clone();
        Box::pin(async move {
            // What the command does is independent of the request's name, so a placeholder is enough for the check.
            let sample = make(Request { nonce: Nonce::default(), since: Revision::default() });
            parts.engine.look(|state| for_operators(&sample, state)).map_err(ProposeError::Refused)?;
            let timeout = parts.engine.config().propose_timeout;
            match named {
                Some(named) => parts.engine.ask_named(named, timeout, make).await,
                None => parts.engine.ask_once(timeout, make).await,
            }
        })
    }

    fn hand_over(&self, to: Option<NodeId>) -> BoxFuture<'static, Result<NodeId, HandOverError>> {
        let parts = self.0.clone();
        Box::pin(async move { parts.engine.hand_over(to).await })
    }

    fn events_since(&self, revision: Revision, filter: Filter) -> BoxStream<'static, FeedItem> {
        self.0.engine.events_since(revision, filter)
    }

    fn keep_session(&self, session: SessionId, timeout: Duration) -> BoxFuture<'static, KeptAlive> {
        let parts = self.0.clone();
        Box::pin(async move { parts.sessions.keep_session(&parts.engine, session, timeout).await })
    }

    fn read_barrier(&self, timeout: Duration) -> BoxFuture<'static, Result<Revision, ReadError>> {
        let parts = self.0.clone();
        Box::pin(async move { parts.engine.read_barrier(timeout).await })
    }

    fn applied(&self) -> tokio::sync::watch::Receiver<Revision> {
        self.0.engine.progress()
    }
}
