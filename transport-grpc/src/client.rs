//! The client: [`Transport`] over gRPC.
//!
//! ```text
//!   call ──▶ size checked ──▶ connection of the lane, within the deadline ──▶ sent, with what is left of the deadline
//!                 │                     │                                         │
//!                 ▼                     ▼                                         ▼
//!          Refused(Malformed)      Unreachable                       answer │ Timeout │ Broken │ Refused
//! ```
//!
//! Every future may be dropped at any time. That resets the call and keeps the connection.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use prost::Message;
use quorate_membership::{Address, NodeId};
use quorate_raft_core::rpc::{Answer, Append, AskReceipts, Call, Caller};
use quorate_raft_core::transport::{AppendReplies, JoinAnswer, JoinRequest};
use quorate_raft_core::{Lane, NodeLinks, Peer, Refusal, Transport, TransportError};
use tokio::sync::broadcast;
use tokio::time::{Instant, timeout};
use tonic::{Response, Status};

use crate::append_stream;
use crate::both_ways;
use crate::call_stream::{self, CallStream};
use crate::connection::{Connection, origin};
use crate::convert::{self, FromWire};
use crate::grpc_errors::{check_size, transport_error, unreadable};
use crate::link_table::Links;
use crate::links::Link;
use crate::pb;
use crate::pb::cluster_client::ClusterClient;
use crate::progress::{Progress, snapshot_messages};
use crate::refusing;
use crate::settings::{APPEND_LIMIT, ClientSettings, MESSAGE_LIMIT};
use crate::tls::Tls;

/// A [`Transport`] over gRPC. Clones share their connections; the connections close with the last of them.
///
/// Its futures must run on a tokio runtime with I/O and time.
#[derive(Debug, Clone)]
pub struct GrpcTransport {
    links: Arc<Links>,
}

impl Default for GrpcTransport {
    fn default() -> Self {
        Self::new()
    }
}

impl GrpcTransport {
    /// A transport with the default settings. Nothing is connected yet.
    pub fn new() -> Self {
        Self::with_settings(ClientSettings::default())
    }

    /// A transport with other settings; values outside their bounds are moved to the nearest bound.
    pub fn with_settings(settings: ClientSettings) -> Self {
        Self { links: Arc::new(Links::new(settings.bounded(), None)) }
    }

    /// [`Self::with_settings`] over TLS: each node that is called has to show its own certificate, and is shown that of `tls`.
    pub fn over_tls(settings: ClientSettings, tls: Tls) -> Self {
        Self { links: Arc::new(Links::new(settings.bounded(), Some(tls))) }
    }
}

fn timed<T>(message: T, left: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    // The header has room for eight digits. No call takes longer than a day.
    request.set_timeout(left.min(Duration::from_secs(24 * 3600)));
    request
}

/// One call. `send` makes it on a connection; the answer may take the rest of the deadline.
async fn call<Q, F, P, A>(
    link: Arc<Link>,
    deadline: Duration,
    message: Q,
    send: impl FnOnce(Connection, tonic::Request<Q>) -> F,
) -> Result<A, TransportError>
where
    F: Future<Output = Result<Response<P>, Status>>,
    A: FromWire<P>,
{
    let (connection, left) = link.connect(deadline).await?;
    sent(&link, deadline, left, send(connection, timed(message, left))).await
}

/// The answer to a call that is being sent, within what is `left` of its deadline.
async fn sent<P, A: FromWire<P>>(
    link: &Link,
    deadline: Duration,
    left: Duration,
    call: impl Future<Output = Result<Response<P>, Status>>,
) -> Result<A, TransportError> {
    match timeout(left, call).await {
        Ok(Ok(answer)) => A::from_wire(answer.into_inner()).map_err(unreadable),
        Ok(Err(status)) => {
            let error = transport_error(&status, deadline);
            if let TransportError::Refused(Refusal::OtherNode { .. } | Refusal::OtherCluster { .. }) = error {
                link.reject_address();
            }
            Err(error)
        }
        Err(_) => Err(TransportError::Timeout(deadline)),
    }
}

/// [`call`] with a single message, whose size is checked first. It is sent once more if its connection closed before it was sent.
async fn bounded<Q, F, P, A>(
    link: Arc<Link>,
    deadline: Duration,
    (message, limit, what): (Q, usize, &str),
    send: impl Fn(Connection, tonic::Request<Q>) -> F,
) -> Result<A, TransportError>
where
    Q: Message + Clone,
    F: Future<Output = Result<Response<P>, Status>>,
    A: FromWire<P>,
{
    check_size(message.encoded_len(), limit, what)?;
    let begun = Instant::now();
    let (connection, left) = link.connect(deadline).await?;
    match sent(&link, deadline, left, send(connection, timed(message.clone(), left))).await {
        Err(TransportError::Unreachable(_)) => {
            call(link, deadline.saturating_sub(begun.elapsed()), message, send).await
        }
        answered => answered,
    }
}

/// One call between nodes: makes its message, checks the size, sends it on the link, and wraps the reply.
async fn request(link: Arc<Link>, caller: Caller, call: Call, deadline: Duration) -> Result<Answer, TransportError> {
    let caller = Some(caller.into());
    macro_rules! unary {
        ($method:ident($message:expr), $limit:expr, $what:literal) => {
            bounded(
                link,
                deadline,
                ($message, $limit, $what),
                |to, message| async move { to.raft().$method(message).await },
            )
            .await
        };
    }
    Ok(match call {
        Call::Append(append) => {
            let message = pb::AppendRequest { caller, append: Some(append.into()) };
            Answer::Append(unary!(append(message), APPEND_LIMIT, "the append")?)
        }
        Call::Vote(request) => {
            let message = pb::VoteRequest { caller, ..request.into() };
            Answer::Vote(unary!(vote(message), MESSAGE_LIMIT, "the vote request")?)
        }
        Call::PreVote(request) => {
            let message = pb::VoteRequest { caller, ..request.into() };
            Answer::PreVote(unary!(pre_vote(message), MESSAGE_LIMIT, "the vote request")?)
        }
        Call::Snapshot(request) => {
            let messages = snapshot_messages(caller, request)?;
            // Its deadline bounds each standstill, and not the whole.
            let progress = Progress::new(deadline);
            let messages = progress.noting(messages);
            let send = |to: Connection, messages| async move { to.raft().install_snapshot(messages).await };
            let over = link.clone();
            tokio::select! { biased;
                answer = self::call(link, SNAPSHOT_END, messages, send) => Answer::Snapshot(answer?),
                () = progress.stalled() => {
                    over.replace_current();
                    return Err(TransportError::Timeout(deadline));
                }
                () = over.lost() => {
                    return Err(TransportError::Broken("its link was lost; another one is used now".into()));
                }
            }
        }
        Call::Transfer(transfer) => {
            let message = pb::TransferRequest { caller, ..transfer.into() };
            Answer::Transfer(unary!(transfer(message), MESSAGE_LIMIT, "the transfer")?)
        }
        Call::Propose(command) => {
            let message = pb::ProposeRequest { caller, command: convert::bytes(command) };
            Answer::Propose(unary!(propose(message), MESSAGE_LIMIT, "the command")?)
        }
        Call::ReadIndex => {
            Answer::ReadIndex(unary!(read_index(pb::ReadIndexRequest { caller }), MESSAGE_LIMIT, "the request")?)
        }
        Call::Renew(renewal) => {
            let message = pb::RenewRequest { caller, renewal: Some(renewal.into()) };
            Answer::Renew(unary!(renew(message), MESSAGE_LIMIT, "the renewal")?)
        }
        Call::KeepAlive(session) => {
            let message = pb::RelayKeepAliveRequest { caller, session: session.get() };
            Answer::KeepAlive(unary!(keep_alive(message), MESSAGE_LIMIT, "the keep-alive")?)
        }
        Call::Refuses(node) => {
            let message = pb::RefusesRequest { caller, node: node.get() };
            Answer::Refuses(unary!(refuses(message), MESSAGE_LIMIT, "the question")?)
        }
        Call::Receipts(AskReceipts { ballot, upto }) => {
            let message = pb::ReceiptsRequest { caller, ballot: Some(ballot.into()), upto: Some(upto.into()) };
            Answer::Receipts(unary!(receipts(message), MESSAGE_LIMIT, "the question")?)
        }
        Call::CanFence(order) => {
            let message = pb::CanFenceRequest { caller, order: order.get() };
            Answer::CanFence(unary!(can_fence(message), MESSAGE_LIMIT, "the question")?)
        }
    })
}

/// One small call between nodes, on the stream of the link.
async fn on_stream(
    link: Arc<Link>,
    caller: Caller,
    call: pb::numbered_call::Call,
    deadline: Duration,
) -> Result<Answer, TransportError> {
    let begun = Instant::now();
    let (connection, left) = link.connect(deadline).await?;
    let stream = |connection: &Connection| {
        link.call_stream(connection, || CallStream::open(connection.clone(), link.clone().lost_from(connection)))
    };
    let mut answer = stream(&connection).call(caller, call.clone(), left, deadline).await;
    if let Err(TransportError::Unreachable(_)) = answer {
        // The connection closed before it was sent.
        let (connection, left) = link.connect(deadline.saturating_sub(begun.elapsed())).await?;
        answer = stream(&connection).call(caller, call, left, deadline).await;
    }
    if let Err(TransportError::Refused(Refusal::OtherNode { .. } | Refusal::OtherCluster { .. })) = answer {
        link.reject_address();
    }
    answer
}

/// The end of a snapshot that never stands still.
const SNAPSHOT_END: Duration = Duration::from_secs(12 * 3600);

impl Transport for GrpcTransport {
    fn call(
        &self,
        peer: &Peer,
        caller: Caller,
        call: Call,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Answer, TransportError>> {
        let lane = call.lane();
        let twice = call.may_come_twice() || quorate_membership::mutant!("proposals_go_twice");
        match call_stream::small(&call) {
            // What leases and leadership depend on is small.
            Some(small) => match self.links.both(peer, lane).filter(|_| twice) {
                Some(links) => {
                    both_ways::call(links, move |link| Box::pin(on_stream(link, caller, small.clone(), deadline)))
                }
                None => Box::pin(on_stream(self.links.link(peer, lane), caller, small, deadline)),
            },
            None => Box::pin(request(self.links.link(peer, lane), caller, call, deadline)),
        }
    }

    fn append_stream(
        &self,
        peer: &Peer,
        caller: Caller,
        requests: BoxStream<'static, Append>,
        idle: Duration,
    ) -> BoxFuture<'static, Result<AppendReplies, TransportError>> {
        Box::pin(append_stream::open(self.links.link(peer, Lane::Log), caller, requests, idle))
    }

    fn closed(&self) -> BoxStream<'static, NodeId> {
        let nodes = stream::unfold(self.links.closed(), |mut closed| async move {
            loop {
                match closed.recv().await {
                    Ok(node) => return Some((node, closed)),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        });
        nodes.boxed()
    }

    fn probe(&self, peers: Vec<(Peer, Caller)>) {
        self.links.probe(&peers);
    }

    fn links(&self) -> BTreeMap<NodeId, NodeLinks> {
        self.links.view()
    }

    fn refuses(&self, peer: &Peer) -> BoxFuture<'static, bool> {
        let peer = peer.clone();
        Box::pin(async move { refusing::refuses(&peer).await })
    }

    fn connected(&self, peer: &Peer, lane: Lane, deadline: Duration) -> BoxFuture<'static, Result<(), TransportError>> {
        let link = self.links.link(peer, lane);
        Box::pin(async move { link.connection(deadline).await.map(drop) })
    }

    fn join(
        &self,
        address: &Address,
        request: JoinRequest,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<JoinAnswer, TransportError>> {
        let link = self.links.to_address(address);
        Box::pin(async move {
            let message = convert::join_request(&request).map_err(Refusal::from)?;
            let join = |to, message| async move { ClusterClient::with_origin(to, origin()).join(message).await };
            bounded(link, deadline, (message, MESSAGE_LIMIT, "the join"), join).await
        })
    }
}
