//! The way out of a simulated machine: calls that travel as messages.
//!
//! ```text
//!   call ──leg──▶ a task of the machine there ──leg──▶ answer        none within the deadline: `Timeout`
//! ```
//!
//! Raft's own calls, renewals and signs of life may come twice, as after a sender's repetition; commands do not, because
//! no transport here sends one by itself again.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use quorate_membership::{Address, NodeId, Revision, SessionId};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::net::{Leg, Net};
use super::stream;
use crate::error::{Refusal, TransportError};
use crate::rpc::{
    Append, Appended, Ballot, Caller, InstallSnapshot, KeptAlive, Payload, Proposed, Renewal, Renewed, StreamAppended,
    Transfer, Transferred, VoteAnswer, VoteRequest,
};
use crate::transport::{JoinAnswer, JoinRequest, Peer, Service, Transport};

pub(super) struct SimTransport {
    net: Net,
    from: NodeId,
}

type Answer<T> = Result<T, TransportError>;

/// The time that it takes to hear that a port is closed, or a connection was.
pub(super) const REFUSED: Duration = Duration::from_micros(300);

impl SimTransport {
    pub(super) fn new(net: Net, from: NodeId) -> Self {
        Self { net, from }
    }

    fn call<T: Send + 'static>(
        &self,
        to: NodeId,
        deadline: Duration,
        repeatable: bool,
        call: impl Fn(Arc<dyn Service>) -> BoxFuture<'static, Result<T, Refusal>> + Send + Sync + 'static,
    ) -> BoxFuture<'static, Answer<T>> {
        let (net, from) = (self.net.clone(), self.from);
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            let call = Arc::new(call);
            let twice = repeatable && net.comes_twice();
            let mut answer = Some(answer);
            for _ in 0..=u64::from(twice) {
                deliver(&net, from, to, call.clone(), answer.take());
            }
            match timeout(deadline, answered).await {
                Ok(Ok(answer)) => answer,
                // The message or its answer was lost, or whoever had it is gone: nothing tells.
                Ok(Err(_lost)) => {
                    sleep(deadline).await;
                    Err(TransportError::Timeout(deadline))
                }
                Err(_) => Err(TransportError::Timeout(deadline)),
            }
        })
    }
}

/// Sends one copy of a call on its way.
fn deliver<T: Send + 'static>(
    net: &Net,
    from: NodeId,
    to: NodeId,
    call: Arc<impl Fn(Arc<dyn Service>) -> BoxFuture<'static, Result<T, Refusal>> + Send + Sync + 'static>,
    answer: Option<oneshot::Sender<Answer<T>>>,
) {
    let Leg::Takes(there) = net.leg(from, to) else { return };
    let net = net.clone();
    // A message on its way belongs to nobody: it arrives, whatever becomes of its sender.
    tokio::spawn(async move {
        sleep(there).await;
        if net.is_cut(from, to) {
            return;
        }
        let found = net.service(to);
        let Some((service, machine)) = found else {
            sleep(REFUSED).await;
            if let Some(answer) = answer.filter(|_| !net.is_cut(to, from)) {
                let _nobody_waits = answer.send(Err(TransportError::Unreachable(format!("{to} is down"))));
            }
            return;
        };
        let back = net.clone();
        drop(machine.spawn(async move {
            let done = call(service).await;
            let Some(answer) = answer else { return };
            let Leg::Takes(back_takes) = back.leg(to, from) else { return };
            tokio::spawn(async move {
                sleep(back_takes).await;
                if !back.is_cut(to, from) {
                    let _nobody_waits = answer.send(done.map_err(TransportError::from));
                }
            });
        }));
    });
}

impl Transport for SimTransport {
    fn append(
        &self,
        peer: &Peer,
        caller: Caller,
        request: Append,
        deadline: Duration,
    ) -> BoxFuture<'static, Answer<Appended>> {
        self.call(peer.node, deadline, true, move |service| service.append(caller, request.clone()))
    }

    fn append_stream(
        &self,
        peer: &Peer,
        caller: Caller,
        requests: BoxStream<'static, Append>,
        idle: Duration,
    ) -> BoxFuture<'static, Answer<BoxStream<'static, Answer<StreamAppended>>>> {
        Box::pin(stream::open(self.net.clone(), self.from, peer.node, caller, requests, idle))
    }

    fn vote(
        &self,
        peer: &Peer,
        caller: Caller,
        request: VoteRequest,
        deadline: Duration,
    ) -> BoxFuture<'static, Answer<VoteAnswer>> {
        self.call(peer.node, deadline, true, move |service| service.vote(caller, request))
    }

    fn pre_vote(
        &self,
        peer: &Peer,
        caller: Caller,
        request: VoteRequest,
        deadline: Duration,
    ) -> BoxFuture<'static, Answer<VoteAnswer>> {
        self.call(peer.node, deadline, true, move |service| service.pre_vote(caller, request))
    }

    fn snapshot(
        &self,
        peer: &Peer,
        caller: Caller,
        request: InstallSnapshot,
        deadline: Duration,
    ) -> BoxFuture<'static, Answer<Ballot>> {
        self.call(peer.node, deadline, true, move |service| service.snapshot(caller, request.clone()))
    }

    fn transfer(
        &self,
        peer: &Peer,
        caller: Caller,
        request: Transfer,
        deadline: Duration,
    ) -> BoxFuture<'static, Answer<Transferred>> {
        self.call(peer.node, deadline, true, move |service| service.transfer(caller, request))
    }

    fn propose(
        &self,
        peer: &Peer,
        caller: Caller,
        command: Payload,
        deadline: Duration,
    ) -> BoxFuture<'static, Answer<Proposed>> {
        self.call(peer.node, deadline, false, move |service| service.propose(caller, command.clone()))
    }

    fn read_index(&self, peer: &Peer, caller: Caller, deadline: Duration) -> BoxFuture<'static, Answer<Revision>> {
        self.call(peer.node, deadline, true, move |service| service.read_index(caller))
    }

    fn renew(
        &self,
        peer: &Peer,
        caller: Caller,
        renewal: Renewal,
        deadline: Duration,
    ) -> BoxFuture<'static, Answer<Renewed>> {
        self.call(peer.node, deadline, true, move |service| service.renew(caller, renewal))
    }

    fn keep_alive(
        &self,
        peer: &Peer,
        caller: Caller,
        session: SessionId,
        deadline: Duration,
    ) -> BoxFuture<'static, Answer<KeptAlive>> {
        self.call(peer.node, deadline, true, move |service| service.keep_alive(caller, session))
    }

    fn join(
        &self,
        address: &Address,
        request: JoinRequest,
        deadline: Duration,
    ) -> BoxFuture<'static, Answer<JoinAnswer>> {
        let Some(node) = Net::node_at(address) else {
            let why = format!("{address} is not an address of this network (sim:n3)");
            return Box::pin(std::future::ready(Err(TransportError::Unreachable(why))));
        };
        self.call(node, deadline, false, move |service| service.join(request.clone()))
    }
}
