//! The gRPC service Raft: decodes calls between nodes, and passes them to the [`PeerService`].
//!
//! ```text
//!   pb::…Request ──FromWire──▶ request: impl Rpc ──▶ PeerService ──▶ reply ──From──▶ pb::…Response
//!                    └─ Malformed ─▶ refused                └─ Refusal ─▶ refused
//! ```

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use quorate_membership::{FenceId, NodeId, SessionId, codec};
use quorate_raft_core::rpc::{
    Append, AskReceipts, Caller, CanFence, InstallSnapshot, KeepAlive, PreVote, ReadIndex, Refuses, Renewal, Rpc,
    SnapshotMeta, Transfer, VoteRequest,
};
use quorate_raft_core::{ClientService, PeerService, PeerServiceExt, Refusal, Service, View};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::call_service;
use crate::convert::{FromWire, Malformed, ballot, need, payload};
use crate::grpc_errors::{malformed, refused};
use crate::pb;
use crate::pb::raft_server::Raft;
use crate::rights;
use crate::settings::{CHUNK_LIMIT, SNAPSHOT_LIMIT, ServerSettings};

/// The longest wait for the next message of a snapshot, and for the first of a stream of appends.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The largest padding of a probe, in bytes.
const PADDING_LIMIT: usize = 64 << 10;

#[derive(Clone)]
pub(crate) struct RaftService {
    service: Arc<dyn PeerService>,
    /// What it says of itself to a probe.
    own: Arc<dyn ClientService>,
    /// One permit for each snapshot that may arrive at a time.
    snapshots: Arc<Semaphore>,
    /// How many calls of one stream may be in progress.
    max_calls: usize,
    stop: CancellationToken,
}

impl RaftService {
    pub(crate) fn new(service: Arc<dyn Service>, settings: ServerSettings, stop: CancellationToken) -> Self {
        let max_calls = usize::try_from(settings.max_streams).unwrap_or(usize::MAX);
        Self {
            own: service.clone(),
            service,
            snapshots: Arc::new(Semaphore::new(settings.max_snapshots)),
            max_calls,
            stop,
        }
    }

    /// The service of one connection, which passes its calls to `service`.
    pub(crate) fn passing_to(&self, service: Arc<dyn PeerService>) -> Self {
        Self { service, ..self.clone() }
    }

    /// One call whose answer is one message.
    async fn unary<R: Rpc, P: From<R::Reply>>(&self, caller: Caller, request: R) -> Result<Response<P>, Status> {
        let reply = self.service.request(caller, request).await.map_err(|refusal| refused(&refusal))?;
        Ok(Response::new(reply.into()))
    }
}

/// A request that cannot be understood.
fn invalid(malformed: Malformed) -> Status {
    refused(&malformed.into())
}

fn caller(field: Option<pb::Caller>) -> Result<Caller, Status> {
    need(field, "the caller").and_then(Caller::from_wire).map_err(invalid)
}

fn vote_request(request: pb::VoteRequest) -> Result<(Caller, VoteRequest), Status> {
    let pb::VoteRequest { caller: from, ballot: asked, last, transfer } = request;
    let ballot = ballot(asked).map_err(invalid)?;
    Ok((caller(from)?, VoteRequest { ballot, last: last.map(Into::into), transfer }))
}

#[tonic::async_trait]
impl Raft for RaftService {
    type AppendStreamStream = BoxStream<'static, Result<pb::AppendStreamResponse, Status>>;

    async fn append(&self, request: Request<pb::AppendRequest>) -> Result<Response<pb::AppendResponse>, Status> {
        let pb::AppendRequest { caller: from, append } = request.into_inner();
        let append = need(append, "the append").and_then(Append::from_wire).map_err(invalid)?;
        self.unary(caller(from)?, append).await
    }

    async fn append_stream(
        &self,
        request: Request<Streaming<pb::AppendStreamRequest>>,
    ) -> Result<Response<Self::AppendStreamStream>, Status> {
        // Answers at once, so that the caller knows the stream to be open. Its identity is checked inside the stream.
        let answers = stream::once(appends(self.service.clone(), request.into_inner())).flatten();
        Ok(Response::new(answers.take_until(self.stop.clone().cancelled_owned()).boxed()))
    }

    type CallStreamStream = BoxStream<'static, Result<pb::CallStreamResponse, Status>>;

    async fn call_stream(
        &self,
        request: Request<Streaming<pb::CallStreamRequest>>,
    ) -> Result<Response<Self::CallStreamStream>, Status> {
        let (service, stop) = (self.service.clone(), self.stop.clone());
        Ok(Response::new(call_service::answers(service, request.into_inner(), self.max_calls, stop)))
    }

    async fn vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteResponse>, Status> {
        let (caller, request) = vote_request(request.into_inner())?;
        self.unary(caller, request).await
    }

    async fn pre_vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteResponse>, Status> {
        let (caller, request) = vote_request(request.into_inner())?;
        self.unary(caller, PreVote(request)).await
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<pb::SnapshotRequest>>,
    ) -> Result<Response<pb::SnapshotResponse>, Status> {
        let busy = |_| Refusal::Unavailable("too many snapshots are arriving at this node; send it again later".into());
        let _place = self.snapshots.try_acquire().map_err(busy).map_err(|refusal| refused(&refusal))?;
        let (caller, snapshot) = receive(request.into_inner()).await.map_err(|refusal| refused(&refusal))?;
        self.unary(caller, snapshot).await
    }

    async fn probe(&self, request: Request<pb::ProbeRequest>) -> Result<Response<pb::ProbeResponse>, Status> {
        let pb::ProbeRequest { caller: from, padding } = request.into_inner();
        if padding.len() > PADDING_LIMIT {
            return Err(malformed(format!("a probe of {} bytes; at most {PADDING_LIMIT} are allowed", padding.len())));
        }
        let Caller { cluster, from, to, .. } = caller(from)?;
        let View { cluster: state, local, .. } = self.own.view();
        let ours = state.id().ok_or_else(|| refused(&Refusal::NotReady))?;
        if ours != cluster {
            return Err(refused(&Refusal::OtherCluster { ours, theirs: cluster }));
        }
        if to != local.node && !quorate_membership::mutant!("any_node_answers_a_probe") {
            return Err(refused(&Refusal::OtherNode { meant: to, here: local.node }));
        }
        rights::of_member(&state, from).map_err(|refusal| refused(&refusal))?;
        let reaches = local.links.iter().filter(|(_, links)| links.passes()).map(|(node, _)| node.get()).collect();
        Ok(Response::new(pb::ProbeResponse { node: local.node.get(), reaches, padding }))
    }

    async fn transfer(&self, request: Request<pb::TransferRequest>) -> Result<Response<pb::TransferResponse>, Status> {
        let pb::TransferRequest { caller: from, ballot: held, to, last } = request.into_inner();
        let from_ballot = ballot(held).map_err(invalid)?;
        let request = Transfer { from: from_ballot, to: NodeId::new(to), last: last.map(Into::into) };
        self.unary(caller(from)?, request).await
    }

    async fn propose(&self, request: Request<pb::ProposeRequest>) -> Result<Response<pb::ProposeResponse>, Status> {
        let pb::ProposeRequest { caller: from, command } = request.into_inner();
        let command = payload(&command, "the command").map_err(invalid)?;
        self.unary(caller(from)?, command).await
    }

    async fn read_index(
        &self,
        request: Request<pb::ReadIndexRequest>,
    ) -> Result<Response<pb::ReadIndexResponse>, Status> {
        self.unary(caller(request.into_inner().caller)?, ReadIndex).await
    }

    async fn renew(&self, request: Request<pb::RenewRequest>) -> Result<Response<pb::RenewResponse>, Status> {
        let pb::RenewRequest { caller: from, renewal } = request.into_inner();
        let renewal = need(renewal, "the renewal").and_then(Renewal::from_wire).map_err(invalid)?;
        self.unary(caller(from)?, renewal).await
    }

    async fn keep_alive(
        &self,
        request: Request<pb::RelayKeepAliveRequest>,
    ) -> Result<Response<pb::RelayKeepAliveResponse>, Status> {
        let pb::RelayKeepAliveRequest { caller: from, session } = request.into_inner();
        self.unary(caller(from)?, KeepAlive(SessionId::new(session))).await
    }

    async fn receipts(&self, request: Request<pb::ReceiptsRequest>) -> Result<Response<pb::ReceiptsResponse>, Status> {
        let request = request.into_inner();
        let from = request.caller.clone();
        let request = AskReceipts::from_wire(request).map_err(invalid)?;
        self.unary(caller(from)?, request).await
    }

    async fn refuses(&self, request: Request<pb::RefusesRequest>) -> Result<Response<pb::RefusesResponse>, Status> {
        let pb::RefusesRequest { caller: from, node } = request.into_inner();
        self.unary(caller(from)?, Refuses(NodeId::new(node))).await
    }

    async fn can_fence(&self, request: Request<pb::CanFenceRequest>) -> Result<Response<pb::CanFenceResponse>, Status> {
        let pb::CanFenceRequest { caller: from, order } = request.into_inner();
        self.unary(caller(from)?, CanFence(FenceId::new(order))).await
    }
}

/// The next message of a stream; `None` at its regular end.
async fn next<T>(messages: &mut Streaming<T>) -> Result<Option<T>, Refusal> {
    messages.message().await.map_err(|status| Refusal::Malformed(status.message().to_owned()))
}

/// The next message of a stream, which must arrive within [`TIMEOUT`].
async fn next_in_time<T>(messages: &mut Streaming<T>, what: &str) -> Result<Option<T>, Refusal> {
    let late = |_| Refusal::Malformed(format!("{what} did not arrive within {TIMEOUT:?}"));
    timeout(TIMEOUT, next(messages)).await.map_err(late)?
}

/// The answers to a stream of appends. A malformed message ends the stream: the appends before it are answered first,
/// then it is refused.
async fn appends(
    service: Arc<dyn PeerService>,
    mut messages: Streaming<pb::AppendStreamRequest>,
) -> BoxStream<'static, Result<pb::AppendStreamResponse, Status>> {
    use pb::append_stream_request::Message;
    let first =
        next_in_time(&mut messages, "the caller").await.and_then(|message| match message.and_then(|m| m.message) {
            Some(Message::Caller(caller)) => Ok(Caller::from_wire(caller)?),
            Some(Message::Append(_)) | None => {
                Err(Refusal::Malformed("a stream of appends begins with its caller".into()))
            }
        });
    let caller = match first {
        Ok(caller) => caller,
        Err(refusal) => return stream::iter([Err(refused(&refusal))]).boxed(),
    };
    let fault = Arc::new(Mutex::new(None::<Refusal>));
    let noted = fault.clone();
    let requests = stream::unfold((messages, noted), |(mut messages, noted)| async move {
        let read = next(&mut messages).await.and_then(|message| match message.map(|m| m.message) {
            Some(Some(Message::Append(append))) => Ok(Some(Append::from_wire(append)?)),
            Some(Some(Message::Caller(_))) => Err(Refusal::Malformed("only the first message names the caller".into())),
            Some(None) => Err(Refusal::Malformed("a message of the stream is of an unknown kind".into())),
            None => Ok(None),
        });
        match read {
            Ok(append) => append.map(|append| (append, (messages, noted))),
            Err(refusal) => {
                *noted.lock() = Some(refusal);
                None
            }
        }
    });
    let answers = service.append_stream(caller, requests.fuse().boxed());
    let answers = answers.map(|answer| answer.map(Into::into).map_err(|refusal| refused(&refusal)));
    let last = stream::iter([()]).filter_map(move |()| {
        let fault = fault.lock().take();
        std::future::ready(fault.map(|refusal| Err(refused(&refusal))))
    });
    answers.chain(last).boxed()
}

/// Receives a whole snapshot. Allocates only what has arrived, whatever length the header announces.
async fn receive(mut messages: Streaming<pb::SnapshotRequest>) -> Result<(Caller, InstallSnapshot), Refusal> {
    use pb::snapshot_request::Message;
    let malformed = |why: String| Refusal::Malformed(format!("{why}; nothing was installed"));
    let header = match next_in_time(&mut messages, "the header of the snapshot").await?.and_then(|m| m.message) {
        Some(Message::Header(header)) => header,
        Some(Message::Chunk(_)) | None => return Err(malformed("a snapshot begins with its header".into())),
    };
    let pb::SnapshotHeader { caller, ballot: held, meta, length, crc32c } = header;
    let caller = Caller::from_wire(need(caller, "the caller")?)?;
    let (ballot, meta) = (ballot(held)?, SnapshotMeta::from_wire(need(meta, "what the snapshot covers")?)?);
    let length = usize::try_from(length).ok().filter(|length| *length <= SNAPSHOT_LIMIT).ok_or_else(|| {
        malformed(format!("the snapshot is announced as {length} bytes, more than the {SNAPSHOT_LIMIT} allowed"))
    })?;
    let mut data = Vec::new();
    while let Some(message) = next_in_time(&mut messages, "the next part of the snapshot").await? {
        let chunk: Bytes = match message.message {
            Some(Message::Chunk(chunk)) => chunk,
            Some(Message::Header(_)) | None => return Err(malformed("a message after the header is no chunk".into())),
        };
        if chunk.is_empty() || chunk.len() > CHUNK_LIMIT {
            let why = format!("a chunk of {} bytes, where 1 to {CHUNK_LIMIT} are allowed", chunk.len());
            return Err(malformed(why));
        }
        if chunk.len() > length - data.len() {
            return Err(malformed(format!("the snapshot goes on after the {length} bytes that were announced")));
        }
        data.extend_from_slice(&chunk);
    }
    if data.len() != length {
        return Err(malformed(format!("the snapshot ended after {} of {length} bytes", data.len())));
    }
    let computed = crc32c::crc32c(&data);
    if computed != crc32c {
        return Err(malformed(format!(
            "the snapshot is damaged: its checksum is {crc32c:08x}, its bytes give {computed:08x}"
        )));
    }
    codec::inspect(&data).map_err(|error| malformed(format!("the snapshot is not a record: {error}")))?;
    Ok((caller, InstallSnapshot { ballot, meta, data: data.into() }))
}
