//! What the tests send and expect, and the ways to send it.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use quorate_membership::{
    Address, BootId, ClusterId, Command, Contract, Disk, DiskId, Drift, FenceHint, Identity, Incarnation, NodeId,
    Nonce, Revision, Role, Stop, codec,
};
use quorate_raft_core::rpc::{
    Append, Ballot, Body, Caller, LogEntry, Payload, Position, Renewal, VoteAnswer, VoteRequest,
};
use quorate_raft_core::transport::JoinAnswer;
use quorate_raft_core::{Peer, TransportError, TransportExt};
use quorate_transport_grpc::{ClientSettings, GrpcTransport, Server, ServerSettings};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tonic::body::Body as HttpBody;

use crate::fake::{Fake, FakeService};
use crate::pb::cluster_client::ClusterClient;
use crate::pb::raft_client::RaftClient;
use crate::pb::store_client::StoreClient;

/// Only ever waited for when something is broken.
pub(crate) const LIVENESS: Duration = Duration::from_secs(60);

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
        process: Nonce::new(u128::MAX),
        callee: Some(disk(0xca11 << 90, 7)),
        timing: 0xfeed_face_dead_beef,
    }
}

pub(crate) fn vote_request() -> VoteRequest {
    VoteRequest { ballot: Ballot { term: 7, node: n(1), committed: false }, last: Some(at(6, 40)), transfer: true }
}

/// No value of it is the default.
pub(crate) fn contract() -> Contract {
    let ms = Duration::from_millis;
    let stop = Stop::Deadman { lateness: ms(50) };
    Contract { lease: ms(600), stop, in_flight: Duration::from_nanos(7), drift: Drift::ppm(20_000) }
}

pub(crate) fn join_command() -> Command {
    Command::Join {
        node: n(4),
        role: Role::Witness,
        addresses: vec![Address::new("10.0.0.4:7400").unwrap(), Address::new("four.example:7400").unwrap()],
        disk: disk(44, 3),
        boot: BootId::new(45),
        nonce: Nonce::new(46),
        contract: contract(),
        left: Some(Incarnation::new(1)),
        hint: Some(FenceHint::new("unit/4").unwrap()),
    }
}

/// The `seq`th renewal of the caller's own life.
pub(crate) fn renewal(seq: u64) -> Renewal {
    Renewal { who: life(1, 3), seq }
}

/// A command in its envelope, padded to about `size` bytes where that is more than it takes.
pub(crate) fn envelope(size: usize) -> Payload {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Padded(Vec<u8>);
    impl codec::Enveloped for Padded {
        const KIND: codec::Kind = codec::Kind::Command;
    }
    Payload::new(codec::encode(&Padded((0..size).map(|i| (i * 31 % 251) as u8).collect())).unwrap())
}

/// The `index`th append of a stream: one command of `size` bytes.
pub(crate) fn append(index: u64, size: usize) -> Append {
    let entry = LogEntry { at: at(3, index), body: Body::Command(envelope(size)) };
    let prev = index.checked_sub(1).map(|before| at(3, before));
    Append { ballot: ballot(3, 1), prev, entries: vec![entry], commit: prev, renewed: None }
}

pub(crate) fn peer(address: SocketAddr) -> Peer {
    Peer { node: n(2), addresses: vec![Address::new(address.to_string()).unwrap()] }
}

pub(crate) async fn serve(fake: &Arc<Fake>) -> Server {
    Server::bind("127.0.0.1:0".parse().unwrap(), Arc::new(FakeService(fake.clone()))).await.unwrap()
}

pub(crate) fn serve_with(fake: &Arc<Fake>, settings: ServerSettings) -> Server {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    Server::start_with(listener, Arc::new(FakeService(fake.clone())), settings, None).unwrap()
}

/// Keeps trying to bind a port that was in use a moment ago.
pub(crate) async fn serve_at(fake: &Arc<Fake>, address: SocketAddr) -> Server {
    for _ in 0..200 {
        if let Ok(server) = Server::bind(address, Arc::new(FakeService(fake.clone()))).await {
            return server;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{address} stays in use");
}

/// The settings of who is in no hurry to give a connection up, whatever else the machine is doing.
pub(crate) fn unhurried() -> ClientSettings {
    let s = Duration::from_secs;
    ClientSettings { connect_timeout: s(10), ping_every: s(10), ping_timeout: s(30), ..ClientSettings::default() }
}

pub(crate) fn patient() -> GrpcTransport {
    GrpcTransport::with_settings(unhurried())
}

pub(crate) async fn vote(transport: &GrpcTransport, peer: &Peer) -> Result<VoteAnswer, TransportError> {
    transport.request(peer, caller(), vote_request(), LIVENESS).await
}

/// A connection without any of the transport's care, to say what a transport never would.
#[derive(Clone)]
pub(crate) struct Plain(hyper::client::conn::http2::SendRequest<HttpBody>);

impl Plain {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap()).await.unwrap()
    }

    pub(crate) async fn over(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> std::io::Result<Self> {
        let connecting = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io));
        let (sender, driver) = connecting.await.map_err(std::io::Error::other)?;
        tokio::spawn(driver);
        Ok(Self(sender))
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

pub(crate) async fn store(address: SocketAddr) -> StoreClient<Plain> {
    StoreClient::with_origin(Plain::connect(address).await, Uri::from_static("http://anybody"))
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
