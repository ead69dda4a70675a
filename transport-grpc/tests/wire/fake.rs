//! A service that records every call, and what the tests say to it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use quorate_membership::{
    Address, BootId, Cluster, ClusterId, Command, Disk, DiskId, Identity, Incarnation, NodeId, Nonce, Revision, Role,
    codec,
};
use quorate_raft_core::node::Outcome;
use quorate_raft_core::rpc::{
    Append, Appended, Ballot, Body, Caller, InstallSnapshot, LogEntry, Payload, Position, Proposed, StreamAppended,
    Transfer, Transferred, VoteAnswer, VoteRequest,
};
use quorate_raft_core::transport::{JoinAnswer, JoinRequest};
use quorate_raft_core::{
    FeedItem, HandOverError, Local, Peer, ProposeError, Refusal, Service, Transport, TransportError, View,
};
use quorate_transport_grpc::{ClientSettings, GrpcTransport, Server, ServerSettings};
use tokio::net::TcpStream;
use tonic::body::Body as HttpBody;

use crate::pb::cluster_client::ClusterClient;
use crate::pb::raft_client::RaftClient;

/// Only ever waited for when something is broken.
pub(crate) const LIVENESS: Duration = Duration::from_secs(60);

/// A call as it arrived.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Call {
    Append(Caller, Append),
    StreamBegan(Caller),
    StreamAppend(Append),
    StreamEnded,
    Vote(Caller, VoteRequest),
    PreVote(Caller, VoteRequest),
    Snapshot(Caller, InstallSnapshot),
    Transfer(Caller, Transfer),
    Propose(Caller, Payload),
    ReadIndex(Caller),
    Join(JoinRequest),
    Command(Command),
    HandOver(Option<NodeId>),
    Events(Revision),
    /// A call was given up before it was answered.
    GivenUp,
}

/// How appends of a stream are answered.
#[derive(Debug, Clone)]
pub(crate) enum Streams {
    /// Each at once, with its last position.
    AtOnce,
    /// None before so many have come; then each.
    After(usize),
    /// Each after so long.
    Slowly(Duration),
    /// So many, then none.
    Only(usize),
    /// So many, then this.
    Then(usize, StreamAppended),
}

/// What is answered. Tests change it.
pub(crate) struct Script {
    pub(crate) refuse: Option<Refusal>,
    pub(crate) hang: bool,
    pub(crate) appended: Appended,
    pub(crate) transferred: Transferred,
    pub(crate) proposed: Proposed,
    pub(crate) streams: Streams,
    pub(crate) view: View,
    /// Always an error: only a node can say that it applied something (see `nodes.rs`).
    pub(crate) command: ProposeError,
    pub(crate) hand_over: Result<NodeId, HandOverError>,
    pub(crate) feed: Vec<FeedItem>,
}

pub(crate) struct Fake {
    pub(crate) script: Mutex<Script>,
    calls: Mutex<Vec<Call>>,
    changed: tokio::sync::Notify,
}

/// Notes when a call that hangs is dropped.
struct Hanging(Arc<Fake>);

impl Drop for Hanging {
    fn drop(&mut self) {
        self.0.note(Call::GivenUp);
    }
}

/// What the fake offers: an [`Arc`], so that calls may outlive the borrow.
#[derive(Clone)]
pub(crate) struct Door(pub(crate) Arc<Fake>);

impl Fake {
    pub(crate) fn new() -> Arc<Self> {
        let local = Local {
            node: n(2),
            identity: None,
            quorate: true,
            leader: Some(n(1)),
            term: 3,
            applied: Revision::new(9),
            sightings: BTreeMap::new(),
            stopped: None,
        };
        let script = Script {
            refuse: None,
            hang: false,
            appended: Appended::Success,
            transferred: Transferred::Accepted,
            proposed: Proposed::Applied { revision: Revision::new(42) },
            streams: Streams::AtOnce,
            view: View { cluster: Arc::new(Cluster::new()), local },
            command: ProposeError::OutcomeUnknown { reason: "never".into() },
            hand_over: Ok(n(3)),
            feed: Vec::new(),
        };
        Arc::new(Self { script: Mutex::new(script), calls: Mutex::default(), changed: tokio::sync::Notify::new() })
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().unwrap());
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    fn note(&self, call: Call) {
        self.calls.lock().unwrap().push(call);
        self.changed.notify_waiters();
    }

    /// Waits until the calls satisfy `enough`.
    pub(crate) async fn until(&self, enough: impl Fn(&[Call]) -> bool) {
        let satisfied = async {
            loop {
                let changed = self.changed.notified();
                if enough(&self.calls()) {
                    return;
                }
                let _ = tokio::time::timeout(Duration::from_millis(20), changed).await;
            }
        };
        let waited = tokio::time::timeout(LIVENESS, satisfied).await;
        assert!(waited.is_ok(), "never satisfied by {:?}", self.calls());
    }

    fn read<T>(&self, read: impl FnOnce(&Script) -> T) -> T {
        read(&self.script.lock().unwrap())
    }
}

impl Door {
    fn answer<T: Send + 'static>(
        &self,
        call: Call,
        read: impl FnOnce(&Script) -> T,
    ) -> BoxFuture<'static, Result<T, Refusal>> {
        self.0.note(call);
        let answer = self.0.read(|script| match &script.refuse {
            Some(refusal) => Err(refusal.clone()),
            None => Ok(read(script)),
        });
        let hanging = self.0.read(|script| script.hang).then(|| Hanging(self.0.clone()));
        Box::pin(async move {
            if let Some(_hanging) = hanging {
                std::future::pending::<()>().await;
            }
            answer
        })
    }
}

/// The last place in an append, or the one before it.
pub(crate) fn end(append: &Append) -> Option<Position> {
    append.entries.last().map(|entry| entry.at).or(append.prev)
}

impl Service for Door {
    fn append(&self, caller: Caller, request: Append) -> BoxFuture<'static, Result<Appended, Refusal>> {
        self.answer(Call::Append(caller, request), |script| script.appended)
    }

    fn append_stream(
        &self,
        caller: Caller,
        requests: BoxStream<'static, Append>,
    ) -> BoxStream<'static, Result<StreamAppended, Refusal>> {
        self.0.note(Call::StreamBegan(caller));
        let (fake, at_end) = (self.0.clone(), Ended(self.0.clone()));
        if let Some(refusal) = fake.read(|script| script.refuse.clone()) {
            return stream::iter([Err(refusal)]).boxed();
        }
        let ends = requests.map(move |append| {
            let _ = &at_end;
            let end = end(&append);
            fake.note(Call::StreamAppend(append));
            end
        });
        let flushed = |end| Ok(StreamAppended::Flushed(end));
        match self.0.read(|script| script.streams.clone()) {
            Streams::AtOnce => ends.map(flushed).boxed(),
            Streams::After(count) => ends
                .ready_chunks(1)
                .scan((Vec::new(), count), move |(held, count), mut one| {
                    held.append(&mut one);
                    let release = held.len() >= *count;
                    if release {
                        *count = 0;
                    }
                    std::future::ready(Some(stream::iter(if release { std::mem::take(held) } else { Vec::new() })))
                })
                .flatten()
                .map(flushed)
                .boxed(),
            Streams::Slowly(pause) => ends
                .then(move |end| async move {
                    tokio::time::sleep(pause).await;
                    flushed(end)
                })
                .boxed(),
            Streams::Only(count) => ends
                .enumerate()
                .filter_map(move |(at, end)| std::future::ready((at < count).then(|| flushed(end))))
                .boxed(),
            Streams::Then(count, last) => ends
                .enumerate()
                .take(count + 1)
                .map(move |(at, end)| if at < count { flushed(end) } else { Ok(last) })
                .boxed(),
        }
    }

    fn vote(&self, caller: Caller, request: VoteRequest) -> BoxFuture<'static, Result<VoteAnswer, Refusal>> {
        self.answer(Call::Vote(caller, request), |_| vote_answer())
    }

    fn pre_vote(&self, caller: Caller, request: VoteRequest) -> BoxFuture<'static, Result<VoteAnswer, Refusal>> {
        self.answer(Call::PreVote(caller, request), |_| VoteAnswer { granted: false, ..vote_answer() })
    }

    fn snapshot(&self, caller: Caller, request: InstallSnapshot) -> BoxFuture<'static, Result<Ballot, Refusal>> {
        self.answer(Call::Snapshot(caller, request), |_| ballot(8, 2))
    }

    fn transfer(&self, caller: Caller, request: Transfer) -> BoxFuture<'static, Result<Transferred, Refusal>> {
        self.answer(Call::Transfer(caller, request), |script| script.transferred)
    }

    fn propose(&self, caller: Caller, command: Payload) -> BoxFuture<'static, Result<Proposed, Refusal>> {
        self.answer(Call::Propose(caller, command), |script| script.proposed.clone())
    }

    fn read_index(&self, caller: Caller) -> BoxFuture<'static, Result<Revision, Refusal>> {
        self.answer(Call::ReadIndex(caller), |_| Revision::new(1042))
    }

    fn join(&self, request: JoinRequest) -> BoxFuture<'static, Result<JoinAnswer, Refusal>> {
        self.answer(Call::Join(request), |_| joined())
    }

    fn view(&self) -> View {
        self.0.read(|script| script.view.clone())
    }

    fn command(&self, command: Command) -> BoxFuture<'static, Result<Outcome, ProposeError>> {
        self.0.note(Call::Command(command));
        let error = self.0.read(|script| script.command.clone());
        Box::pin(async move { Err(error) })
    }

    fn hand_over(&self, to: Option<NodeId>) -> BoxFuture<'static, Result<NodeId, HandOverError>> {
        self.0.note(Call::HandOver(to));
        let answer = self.0.read(|script| script.hand_over.clone());
        Box::pin(async move { answer })
    }

    /// What the script has, and then nothing more, without an end.
    fn events_since(&self, revision: Revision) -> BoxStream<'static, FeedItem> {
        self.0.note(Call::Events(revision));
        stream::iter(self.0.read(|script| script.feed.clone())).chain(stream::pending()).boxed()
    }
}

/// Notes when the requests of a stream are over.
struct Ended(Arc<Fake>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.note(Call::StreamEnded);
    }
}

pub(crate) fn n(number: u64) -> NodeId {
    NodeId::new(number)
}

pub(crate) fn at(term: u64, index: u64) -> Position {
    Position { term, index }
}

pub(crate) fn ballot(term: u64, node: u64) -> Ballot {
    Ballot { term, node: n(node), committed: true }
}

pub(crate) fn life(node: u64, incarnation: u64) -> Identity {
    Identity::new(n(node), Incarnation::new(incarnation))
}

pub(crate) fn disk(id: u128, opened: u64) -> Disk {
    Disk { id: DiskId::new(id), opened }
}

pub(crate) fn vote_answer() -> VoteAnswer {
    VoteAnswer { ballot: ballot(7, 1), granted: true, last: Some(at(6, 41)) }
}

pub(crate) fn joined() -> JoinAnswer {
    JoinAnswer { cluster: ClusterId::new(u128::MAX - 7), who: life(4, 2), revision: Revision::new(77) }
}

pub(crate) fn caller() -> Caller {
    Caller {
        cluster: ClusterId::new(0xabcd << 64 | 1),
        from: n(1),
        to: n(2),
        disk: disk(0xd15c << 100, 4),
        session: Nonce::new(u128::MAX),
        timing: 0xfeed_face_dead_beef,
    }
}

pub(crate) fn vote_request() -> VoteRequest {
    VoteRequest { ballot: Ballot { term: 7, node: n(1), committed: false }, last: Some(at(6, 40)), transfer: true }
}

pub(crate) fn join_command() -> Command {
    Command::Join {
        node: n(4),
        role: Role::Witness,
        addresses: vec![Address::new("10.0.0.4:7400").unwrap(), Address::new("four.example:7400").unwrap()],
        disk: disk(44, 3),
        boot: BootId::new(45),
        nonce: Nonce::new(46),
    }
}

/// A command in its envelope, padded to about `size` bytes where that is more than it takes.
pub(crate) fn envelope(size: usize) -> Payload {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Padded(Vec<u8>);
    impl codec::Record for Padded {
        const KIND: codec::Kind = codec::Kind::Command;
    }
    Payload::new(codec::encode(&Padded((0..size).map(|i| (i * 31 % 251) as u8).collect())).unwrap())
}

/// The `index`th append of a stream: one command of `size` bytes.
pub(crate) fn append(index: u64, size: usize) -> Append {
    let entry = LogEntry { at: at(3, index), body: Body::Command(envelope(size)) };
    let prev = index.checked_sub(1).map(|before| at(3, before));
    Append { ballot: ballot(3, 1), prev, entries: vec![entry], commit: prev }
}

pub(crate) fn peer(address: SocketAddr) -> Peer {
    Peer { node: n(2), addresses: vec![Address::new(address.to_string()).unwrap()] }
}

pub(crate) async fn serve(fake: &Arc<Fake>) -> Server {
    Server::bind("127.0.0.1:0".parse().unwrap(), Arc::new(Door(fake.clone()))).await.unwrap()
}

pub(crate) fn serve_with(fake: &Arc<Fake>, settings: ServerSettings) -> Server {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    Server::start_with(listener, Arc::new(Door(fake.clone())), settings).unwrap()
}

/// Keeps trying to bind a port that was in use a moment ago.
pub(crate) async fn serve_at(fake: &Arc<Fake>, address: SocketAddr) -> Server {
    for _ in 0..200 {
        if let Ok(server) = Server::bind(address, Arc::new(Door(fake.clone()))).await {
            return server;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{address} stays in use");
}

/// A transport that is in no hurry to give a connection up, whatever else the machine is doing.
pub(crate) fn patient() -> GrpcTransport {
    let s = Duration::from_secs;
    GrpcTransport::with_settings(ClientSettings { connect_timeout: s(10), ping_every: s(10), ping_timeout: s(30) })
}

pub(crate) async fn vote(transport: &GrpcTransport, peer: &Peer) -> Result<VoteAnswer, TransportError> {
    transport.vote(peer, caller(), vote_request(), LIVENESS).await
}

/// A connection without any of the transport's care, to say what a transport never would.
#[derive(Clone)]
pub(crate) struct Plain(hyper::client::conn::http2::SendRequest<HttpBody>);

impl Plain {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let connecting = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, driver) = connecting.await.unwrap();
        tokio::spawn(driver);
        Self(sender)
    }

    pub(crate) async fn send(&mut self, request: Request<HttpBody>) -> Result<Response<Incoming>, hyper::Error> {
        self.0.send_request(request).await
    }
}

impl tower_service::Service<Request<HttpBody>> for Plain {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<HttpBody>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

pub(crate) async fn raft(address: SocketAddr) -> RaftClient<Plain> {
    RaftClient::with_origin(Plain::connect(address).await, Uri::from_static("http://anybody"))
        .max_encoding_message_size(usize::MAX)
}

pub(crate) async fn outside(address: SocketAddr) -> ClusterClient<Plain> {
    ClusterClient::with_origin(Plain::connect(address).await, Uri::from_static("http://anybody"))
}

/// Numbers that only grow.
#[derive(Clone, Default)]
pub(crate) struct Count(Arc<AtomicUsize>);

impl Count {
    pub(crate) fn one_more(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}
