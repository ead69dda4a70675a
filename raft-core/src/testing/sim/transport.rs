//! The transport of a simulated machine: calls that travel as messages.
//!
//! ```text
//!   call ──leg──▶ a task of the machine there ──leg──▶ answer        none within the deadline: `Timeout`
//! ```
//!
//! A call may arrive twice if [`Call::may_come_twice`] allows it, as after a repetition by the network. A join never does.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use quorate_membership::{Address, NodeId};
use tokio::sync::{broadcast, oneshot};
use tokio::time::{sleep, timeout};

use super::net::{Leg, Net, REFUSED};
use super::stream;
use super::thin_way::{FRAME, Load};
use crate::client_service::Service;
use crate::error::{Refusal, TransportError};
use crate::rpc::{Answer, Append, Call, Caller};
use crate::transport::{AppendReplies, JoinAnswer, JoinRequest, Lane, Peer, Transport};

pub(super) struct SimTransport {
    net: Net,
    from: NodeId,
}

type Carried<T> = Result<T, TransportError>;

impl SimTransport {
    pub(super) fn new(net: Net, from: NodeId) -> Self {
        Self { net, from }
    }

    fn carry<T: Send + 'static>(
        &self,
        to: NodeId,
        deadline: Duration,
        (repeatable, load): (bool, Load),
        call: impl Fn(Arc<dyn Service>) -> BoxFuture<'static, Result<T, Refusal>> + Send + Sync + 'static,
    ) -> BoxFuture<'static, Carried<T>> {
        let (net, from) = (self.net.clone(), self.from);
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            let call = Arc::new(call);
            let twice = repeatable && net.comes_twice();
            let mut answer = Some(answer);
            for _ in 0..=u64::from(twice) {
                deliver(&net, from, (to, load), call.clone(), answer.take());
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

/// How much a call carries, and on which lane.
fn load_of(call: &Call) -> Load {
    let carries = match call {
        Call::Snapshot(snapshot) => snapshot.data.len(),
        Call::Propose(command) => command.as_bytes().len(),
        _ => 0,
    };
    Load { size: FRAME + carries, bulk: matches!(call.lane(), Lane::Log | Lane::Snapshot) }
}

/// Sends one copy of a call on its way.
fn deliver<T: Send + 'static>(
    net: &Net,
    from: NodeId,
    (to, load): (NodeId, Load),
    call: Arc<impl Fn(Arc<dyn Service>) -> BoxFuture<'static, Result<T, Refusal>> + Send + Sync + 'static>,
    answer: Option<oneshot::Sender<Carried<T>>>,
) {
    let Leg::Takes(there) = net.call_leg(from, to, load) else { return };
    let net = net.clone();
    // A message on its way belongs to nobody: it arrives, whatever becomes of its sender.
    tokio::spawn(async move {
        sleep(there).await;
        if net.loses_call(from, to) {
            return;
        }
        let found = net.service(from, to);
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
            let Leg::Takes(back_takes) = back.leg(to, from, Load::SMALL) else { return };
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
    fn call(&self, peer: &Peer, caller: Caller, call: Call, deadline: Duration) -> BoxFuture<'static, Carried<Answer>> {
        let (twice, load) = (call.may_come_twice(), load_of(&call));
        self.carry(peer.node, deadline, (twice, load), move |service| service.call(caller, call.clone()))
    }

    fn append_stream(
        &self,
        peer: &Peer,
        caller: Caller,
        requests: BoxStream<'static, Append>,
        idle: Duration,
    ) -> BoxFuture<'static, Carried<AppendReplies>> {
        Box::pin(stream::open(self.net.clone(), self.from, peer.node, caller, requests, idle))
    }

    fn closed(&self) -> BoxStream<'static, NodeId> {
        let (net, from) = (self.net.clone(), self.from);
        let nodes = futures_util::stream::unfold(net.ended(), |mut ended| async move {
            loop {
                match ended.recv().await {
                    Ok(node) => {
                        sleep(REFUSED).await;
                        return Some((node, ended));
                    }
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        });
        // Who cannot reach it learns nothing of it; nor does anybody but the two learn of their firewall.
        nodes.filter(move |node| std::future::ready(net.refuses(from, *node))).boxed()
    }

    fn refuses(&self, peer: &Peer) -> BoxFuture<'static, bool> {
        let (net, from, to) = (self.net.clone(), self.from, peer.node);
        Box::pin(async move {
            sleep(REFUSED * 2).await;
            net.refuses(from, to)
        })
    }

    fn join(
        &self,
        address: &Address,
        request: JoinRequest,
        deadline: Duration,
    ) -> BoxFuture<'static, Carried<JoinAnswer>> {
        let Some(node) = Net::node_at(address) else {
            let why = format!("{address} is not an address of this network (sim:n3)");
            return Box::pin(std::future::ready(Err(TransportError::Unreachable(why))));
        };
        self.carry(node, deadline, (false, Load::SMALL), move |service| service.join(request.clone()))
    }
}
