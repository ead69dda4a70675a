//! The service as one connection sees it: a node speaks as itself only, and what it asks is admitted before its place is a node's.
//!
//! ```text
//!   call ──▶ the node that it names, as caller and in a ballot, is the one in the certificate? ──▶ a member? ──▶ PeerService
//!                                                                                            answered: a place for nodes
//! ```

use std::future::ready;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use quorate_membership::{Command, NodeId, codec};
use quorate_raft_core::rpc::{Answer, Append, Call, Caller, StreamAppended};
use quorate_raft_core::transport::{JoinAnswer, JoinRequest};
use quorate_raft_core::{ClientService, ClientServiceExt, PeerService, Refusal};

use crate::places::Place;
use crate::tls::CallerRole;

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
        // The gate has a refusal of its own for one that was removed.
        self.state.looked(|state| state.member(node).is_some() || state.retired().contains(&node))
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
