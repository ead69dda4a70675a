//! The calling side: [`Transport`] over gRPC.
//!
//! ```text
//!   call ──▶ size checked ──▶ connection of the lane, within the deadline ──▶ sent, with what is left of the deadline
//!                 │                     │                                         │
//!                 ▼                     ▼                                         ▼
//!          Refused(Malformed)      Unreachable                       answer │ Timeout │ Broken │ Refused
//! ```
//!
//! Every future may be dropped at any time: the call is reset on the connection, and the connection stays.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use http::Uri;
use prost::Message;
use quorate_membership::Address;
use quorate_raft_core::rpc::{Answer, Append, Call, Caller, InstallSnapshot};
use quorate_raft_core::transport::{AppendReplies, JoinAnswer, JoinRequest};
use quorate_raft_core::{Lane, Peer, Refusal, Transport, TransportError};
use tokio::time::{Instant, timeout};
use tonic::{Response, Status};

use crate::connection::{Connection, Tether};
use crate::convert::{self, FromWire, Malformed};
use crate::links::{Link, Links};
use crate::pb::cluster_client::ClusterClient;
use crate::pb::raft_client::RaftClient;
use crate::pipeline::Pipeline;
use crate::status::transport_error;
use crate::{APPEND_LIMIT, CHUNK_LIMIT, MESSAGE_LIMIT, SNAPSHOT_LIMIT, pb};

/// What a transport trades.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientSettings {
    /// How long one address may take to accept a connection before the next is tried. Shorter moves on sooner, and fails
    /// on long lines. 50 ms to 10 s, default 500 ms.
    pub connect_timeout: Duration,
    /// How often a silent connection is tested. 100 ms to 1 min, default 500 ms.
    pub ping_every: Duration,
    /// How long the test may take before the connection is given up for a new one. Shorter finds a healed line sooner,
    /// and gives up connections of a machine that only stutters. Tenfold for snapshots, behind whose bytes a test has to
    /// queue. 100 ms to 1 min, default 1 s.
    pub ping_timeout: Duration,
}

impl Default for ClientSettings {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self { connect_timeout: ms(500), ping_every: ms(500), ping_timeout: ms(1000) }
    }
}

impl ClientSettings {
    /// The same, each value moved into its bounds.
    fn bounded(self) -> Self {
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        Self {
            connect_timeout: self.connect_timeout.clamp(ms(50), s(10)),
            ping_every: self.ping_every.clamp(ms(100), s(60)),
            ping_timeout: self.ping_timeout.clamp(ms(100), s(60)),
        }
    }
}

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
        Self { links: Arc::new(Links::new(settings.bounded())) }
    }
}

/// What stands before every path. Nobody looks at it: the connection decides where a call goes.
fn origin() -> Uri {
    Uri::from_static("http://quorate")
}

fn raft(connection: Connection) -> RaftClient<Connection> {
    RaftClient::with_origin(connection, origin())
}

/// An answer that makes no sense: what was asked for may have happened.
pub(crate) fn unreadable(Malformed(why): Malformed) -> TransportError {
    TransportError::Broken(format!("the answer cannot be read: {why}; both nodes should run the same version"))
}

/// Refuses a message that the other side would refuse, before it is sent.
pub(crate) fn fits(length: usize, limit: usize, what: &str) -> Result<(), TransportError> {
    let why = || format!("{what} is {length} bytes, more than the {limit} that may be sent; nothing was sent");
    if length <= limit { Ok(()) } else { Err(Refusal::Malformed(why()).into()) }
}

/// A connection, and what is left of the deadline once it is there.
async fn connect(link: &Arc<Link>, deadline: Duration) -> Result<(Connection, Duration), TransportError> {
    let begun = Instant::now();
    let connection = link.connection(deadline).await?;
    Ok((connection, deadline.saturating_sub(begun.elapsed())))
}

fn timed<T>(message: T, left: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    // The header has no room for more than eight digits; nobody waits for longer than a day.
    request.set_timeout(left.min(Duration::from_secs(24 * 3600)));
    request
}

/// One call. `send` makes it on a connection; the answer is awaited for as long as the deadline leaves.
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
    let (connection, left) = connect(&link, deadline).await?;
    match timeout(left, send(connection, timed(message, left))).await {
        Ok(Ok(answer)) => A::from_wire(answer.into_inner()).map_err(unreadable),
        Ok(Err(status)) => {
            let error = transport_error(&status, deadline);
            if let TransportError::Refused(Refusal::OtherNode { .. } | Refusal::OtherCluster { .. }) = error {
                link.wrong_number();
            }
            Err(error)
        }
        Err(_) => Err(TransportError::Timeout(deadline)),
    }
}

/// [`call`] with a message that is whole, and bounded.
async fn bounded<Q, F, P, A>(
    link: Arc<Link>,
    deadline: Duration,
    (message, limit, what): (Q, usize, &str),
    send: impl FnOnce(Connection, tonic::Request<Q>) -> F,
) -> Result<A, TransportError>
where
    Q: Message,
    F: Future<Output = Result<Response<P>, Status>>,
    A: FromWire<P>,
{
    fits(message.encoded_len(), limit, what)?;
    call(link, deadline, message, send).await
}

/// One call between nodes: makes its message, checks the size, sends it on the link, and names the answer after it.
async fn request(link: Arc<Link>, caller: Caller, call: Call, deadline: Duration) -> Result<Answer, TransportError> {
    let caller = Some(caller.into());
    macro_rules! unary {
        ($method:ident($message:expr), $limit:expr, $what:literal) => {
            bounded(
                link,
                deadline,
                ($message, $limit, $what),
                |to, message| async move { raft(to).$method(message).await },
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
            let send = |to, messages| async move { raft(to).install_snapshot(messages).await };
            Answer::Snapshot(self::call(link, deadline, messages, send).await?)
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
    })
}

/// A snapshot as the messages of its stream: a header, then pieces of at most [`CHUNK_LIMIT`].
fn snapshot_messages(
    caller: Option<pb::Caller>,
    request: InstallSnapshot,
) -> Result<impl Stream<Item = pb::SnapshotRequest> + Send + 'static, TransportError> {
    use pb::snapshot_request::Message;
    let InstallSnapshot { ballot, meta, data } = request;
    fits(data.len(), SNAPSHOT_LIMIT, "the snapshot")?;
    let header = pb::SnapshotHeader {
        caller,
        ballot: Some(ballot.into()),
        meta: Some(meta.into()),
        length: data.len() as u64,
        crc32c: crc32c::crc32c(&data),
    };
    fits(header.encoded_len(), MESSAGE_LIMIT, "the header of the snapshot")?;
    let data = Bytes::from_owner(data);
    let chunks = (0..data.len()).step_by(CHUNK_LIMIT).map(move |from| {
        let to = data.len().min(from + CHUNK_LIMIT);
        Message::Chunk(data.slice(from..to))
    });
    let messages = std::iter::once(Message::Header(header)).chain(chunks);
    Ok(stream::iter(messages).map(|message| pb::SnapshotRequest { message: Some(message) }))
}

impl Transport for GrpcTransport {
    fn call(
        &self,
        peer: &Peer,
        caller: Caller,
        call: Call,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Answer, TransportError>> {
        let link = self.links.link(peer, call.lane());
        Box::pin(request(link, caller, call, deadline))
    }

    fn append_stream(
        &self,
        peer: &Peer,
        caller: Caller,
        requests: BoxStream<'static, Append>,
        idle: Duration,
    ) -> BoxFuture<'static, Result<AppendReplies, TransportError>> {
        let link = self.links.link(peer, Lane::Log);
        Box::pin(async move {
            let (connection, left) = connect(&link, idle).await?;
            let pipeline = Pipeline::new(idle);
            let (tether, outgoing) = Tether::tie(pipeline.outgoing(caller, requests));
            match timeout(left, raft(connection).append_stream(outgoing)).await {
                Ok(Ok(answers)) => Ok(pipeline.answers(answers.into_inner(), tether)),
                Ok(Err(status)) => Err(transport_error(&status, idle)),
                Err(_) => Err(TransportError::Timeout(idle)),
            }
        })
    }

    fn join(
        &self,
        address: &Address,
        request: JoinRequest,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<JoinAnswer, TransportError>> {
        let link = self.links.stranger(address);
        Box::pin(async move {
            let message = convert::join_request(&request).map_err(Refusal::from)?;
            let join = |to, message| async move { ClusterClient::with_origin(to, origin()).join(message).await };
            bounded(link, deadline, (message, MESSAGE_LIMIT, "the join"), join).await
        })
    }
}
