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
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use http::Uri;
use prost::Message;
use quorate_membership::{Address, Revision, SessionId};
use quorate_raft_core::rpc::{
    Append, Appended, Ballot, Caller, InstallSnapshot, KeptAlive, Payload, Proposed, Renewal, Renewed, StreamAppended,
    Transfer, Transferred, VoteAnswer, VoteRequest,
};
use quorate_raft_core::transport::{JoinAnswer, JoinRequest};
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

impl Transport for GrpcTransport {
    fn append(
        &self,
        peer: &Peer,
        caller: Caller,
        request: Append,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Appended, TransportError>> {
        let link = self.links.link(peer, Lane::Control);
        let message = pb::AppendRequest { caller: Some(caller.into()), append: Some(request.into()) };
        let message = (message, APPEND_LIMIT, "the append");
        Box::pin(bounded(link, deadline, message, |to, message| async move { raft(to).append(message).await }))
    }

    fn append_stream(
        &self,
        peer: &Peer,
        caller: Caller,
        requests: BoxStream<'static, Append>,
        idle: Duration,
    ) -> BoxFuture<'static, Result<BoxStream<'static, Result<StreamAppended, TransportError>>, TransportError>> {
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

    fn vote(
        &self,
        peer: &Peer,
        caller: Caller,
        request: VoteRequest,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<VoteAnswer, TransportError>> {
        let link = self.links.link(peer, Lane::Control);
        let message = (vote_request(caller, request), MESSAGE_LIMIT, "the vote request");
        Box::pin(bounded(link, deadline, message, |to, message| async move { raft(to).vote(message).await }))
    }

    fn pre_vote(
        &self,
        peer: &Peer,
        caller: Caller,
        request: VoteRequest,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<VoteAnswer, TransportError>> {
        let link = self.links.link(peer, Lane::Control);
        let message = (vote_request(caller, request), MESSAGE_LIMIT, "the vote request");
        Box::pin(bounded(link, deadline, message, |to, message| async move { raft(to).pre_vote(message).await }))
    }

    fn snapshot(
        &self,
        peer: &Peer,
        caller: Caller,
        request: InstallSnapshot,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Ballot, TransportError>> {
        let link = self.links.link(peer, Lane::Snapshot);
        Box::pin(async move {
            let InstallSnapshot { ballot, meta, data } = request;
            fits(data.len(), SNAPSHOT_LIMIT, "the snapshot")?;
            let header = pb::SnapshotHeader {
                caller: Some(caller.into()),
                ballot: Some(ballot.into()),
                meta: Some(meta.into()),
                length: data.len() as u64,
                crc32c: crc32c::crc32c(&data),
            };
            fits(header.encoded_len(), MESSAGE_LIMIT, "the header of the snapshot")?;
            let header = pb::snapshot_request::Message::Header(header);
            let data = Bytes::from_owner(data);
            let chunks = (0..data.len()).step_by(CHUNK_LIMIT).map(move |from| {
                let to = data.len().min(from + CHUNK_LIMIT);
                pb::snapshot_request::Message::Chunk(data.slice(from..to))
            });
            let messages = std::iter::once(header).chain(chunks);
            let messages = stream::iter(messages).map(|message| pb::SnapshotRequest { message: Some(message) });
            call(link, deadline, messages, |to, messages| async move { raft(to).install_snapshot(messages).await })
                .await
        })
    }

    fn transfer(
        &self,
        peer: &Peer,
        caller: Caller,
        request: Transfer,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Transferred, TransportError>> {
        let link = self.links.link(peer, Lane::Control);
        let Transfer { from, to, last } = request;
        let message = pb::TransferRequest {
            caller: Some(caller.into()),
            ballot: Some(from.into()),
            to: to.get(),
            last: last.map(Into::into),
        };
        let message = (message, MESSAGE_LIMIT, "the transfer");
        Box::pin(bounded(link, deadline, message, |to, message| async move { raft(to).transfer(message).await }))
    }

    fn propose(
        &self,
        peer: &Peer,
        caller: Caller,
        command: Payload,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Proposed, TransportError>> {
        let link = self.links.link(peer, Lane::Control);
        let message = pb::ProposeRequest { caller: Some(caller.into()), command: convert::bytes(command) };
        let message = (message, MESSAGE_LIMIT, "the command");
        Box::pin(bounded(link, deadline, message, |to, message| async move { raft(to).propose(message).await }))
    }

    fn read_index(
        &self,
        peer: &Peer,
        caller: Caller,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Revision, TransportError>> {
        let link = self.links.link(peer, Lane::Control);
        let message = (pb::ReadIndexRequest { caller: Some(caller.into()) }, MESSAGE_LIMIT, "the request");
        Box::pin(bounded(link, deadline, message, |to, message| async move { raft(to).read_index(message).await }))
    }

    fn renew(
        &self,
        peer: &Peer,
        caller: Caller,
        renewal: Renewal,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Renewed, TransportError>> {
        let link = self.links.link(peer, Lane::Lease);
        let message = pb::RenewRequest { caller: Some(caller.into()), renewal: Some(renewal.into()) };
        let message = (message, MESSAGE_LIMIT, "the renewal");
        Box::pin(bounded(link, deadline, message, |to, message| async move { raft(to).renew(message).await }))
    }

    fn keep_alive(
        &self,
        peer: &Peer,
        caller: Caller,
        session: SessionId,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<KeptAlive, TransportError>> {
        let link = self.links.link(peer, Lane::Lease);
        let message = pb::RelayKeepAliveRequest { caller: Some(caller.into()), session: session.get() };
        let message = (message, MESSAGE_LIMIT, "the keep-alive");
        Box::pin(bounded(link, deadline, message, |to, message| async move { raft(to).keep_alive(message).await }))
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

fn vote_request(caller: Caller, request: VoteRequest) -> pb::VoteRequest {
    let VoteRequest { ballot, last, transfer } = request;
    pb::VoteRequest { caller: Some(caller.into()), ballot: Some(ballot.into()), last: last.map(Into::into), transfer }
}
