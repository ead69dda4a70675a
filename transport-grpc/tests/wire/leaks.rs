//! Clients with valid certificates that leak connections and streams, or read nothing: nobody else is kept out.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::join_all;
use http::Uri;
use quorate_raft_core::{Local, TransportExt, View};
use quorate_transport_grpc::tls::{CallerRole, Issued};
use quorate_transport_grpc::{Server, ServerSettings};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::Streaming;

use crate::fake::*;
use crate::pb;
use crate::pb::cluster_client::ClusterClient;
use crate::pb::store_client::StoreClient;
use crate::pki::*;
use crate::values::*;
use crate::watch::large;

/// How many connections, and how many streams, are leaked.
const LEAKED: usize = 5000;

/// How many connections are opened at a time.
const AT_A_TIME: usize = 50;

fn named(name: &str) -> CallerRole {
    CallerRole::Client(name.into())
}

/// A connection with as many streams on it as are wanted, none of which is ever read or closed.
async fn leak(server: &Server, trust: &str, shown: &Issued, streams: usize) -> Option<Leaked> {
    let plain = dial(server.local_addr(), trust, Some(shown)).await.ok()?;
    let mut store = StoreClient::with_origin(plain, Uri::from_static("http://anybody"));
    let mut open = Vec::new();
    for _ in 0..streams {
        // In a connection that the server closes in this very moment, hyper's client may leave a call without an answer for ever.
        let asked = tokio::time::timeout(Duration::from_secs(10), store.watch(pb::WatchRequest::default()));
        open.push(asked.await.ok()?.ok()?.into_inner());
    }
    Some(Leaked { _store: store, streams: open })
}

struct Leaked {
    _store: StoreClient<Plain>,
    streams: Vec<Streaming<pb::WatchResponse>>,
}

/// Whether somebody new gets in: a node, an operator, another client. From the same address.
async fn everybody_else_gets_in(server: &Server, of: &quorate_transport_grpc::tls::Authority, when: &str) {
    let asked = transport(tls(of, node(1))).request(&peer(server.local_addr()), caller(), vote_request(), LIVENESS);
    assert_eq!(asked.await, Ok(vote_answer()), "a node, {when}");
    for role in [operator(), named("billing")] {
        let issued = of.issue(role.clone(), &[], DAY).unwrap();
        let plain = dial(server.local_addr(), of.certificate(), Some(&issued)).await;
        let plain = plain.unwrap_or_else(|error| panic!("{role}, {when}: {error}"));
        let mut client = ClusterClient::with_origin(plain, Uri::from_static("http://anybody"));
        let answered = tokio::time::timeout(LIVENESS, client.status(pb::StatusRequest::default())).await;
        let status = answered.expect("an answer").unwrap_or_else(|error| panic!("{role}, {when}: {error}"));
        let open = status.into_inner().local.unwrap().connections.unwrap();
        assert!(open.clients <= 128 + 8 + AT_A_TIME as u32, "{open:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaks_connections_and_streams_keeps_nobody_out() {
    let blue = blue();
    let fake = Fake::new();
    let server = serve_tls_with(&fake, &tls(&blue, node(2)), ServerSettings::default());
    let leaky = Arc::new(blue.issue(named("leaky"), &[], DAY).unwrap());
    let mut held = Vec::new();
    for begun in (0..LEAKED).step_by(AT_A_TIME) {
        // As many streams in all, on the connections that stay open.
        let streams = LEAKED / 128 + 1;
        let opening = (0..AT_A_TIME).map(|_| leak(&server, blue.certificate(), &leaky, streams));
        held.extend(join_all(opening).await.into_iter().flatten());
        if begun % 500 == 0 {
            everybody_else_gets_in(&server, &blue, &format!("after {begun} connections")).await;
        }
    }
    let streams: usize = held.iter().map(|leaked| leaked.streams.len()).sum();
    assert_eq!((held.len(), streams), (128, 128 * (LEAKED / 128 + 1)), "as many connections as one client may hold");
    assert!(streams >= LEAKED);
    everybody_else_gets_in(&server, &blue, "while all of them are held").await;
    // What it gives back it may take again.
    held.truncate(100);
    let again = async {
        while leak(&server, blue.certificate(), &leaky, 1).await.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIVENESS, again).await.expect("a place that was given back");
}

/// A connection of a client that at some time reads nothing any more, and keeps it open.
struct Deaf<T> {
    io: T,
    reads: Arc<AtomicBool>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Deaf<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.reads.load(Ordering::SeqCst) { Pin::new(&mut self.io).poll_read(cx, into) } else { Poll::Pending }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Deaf<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Clients that ask for much and read nothing of it are closed when they answer no ping, and others are served all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stops_reading_is_closed_and_keeps_nobody_waiting() {
    let blue = blue();
    let fake = Fake::new();
    fake.set(|script| script.view = View::new(Arc::new(large()), Local::unknown(n(2))));
    let (ping_every, ping_timeout) = (Duration::from_millis(200), Duration::from_secs(2));
    let settings = ServerSettings { ping_every, ping_timeout, ..ServerSettings::default() };
    let server = serve_tls_with(&fake, &tls(&blue, node(2)), settings);
    let mut deaf = Vec::new();
    for number in 0..8 {
        let issued = blue.issue(named(&format!("deaf{number}")), &[], DAY).unwrap();
        let stream = connect_as(server.local_addr(), blue.certificate(), Some(&issued), "blue.quorate.internal").await;
        let reads = Arc::new(AtomicBool::new(true));
        let plain = Plain::over(Deaf { io: stream.unwrap(), reads: reads.clone() }).await.unwrap();
        let mut store = StoreClient::with_origin(plain, Uri::from_static("http://anybody"));
        let get = pb::GetRequest { key: "large/001".into(), reading: None };
        store.get(get).await.unwrap();
        reads.store(false, Ordering::SeqCst);
        // Some 20 MB of answers, of which nothing is read.
        for _ in 0..20 {
            let mut store = store.clone();
            let list = pb::ListRequest { prefix: "large/".into(), ..pb::ListRequest::default() };
            deaf.push(tokio::spawn(async move { store.list(list).await.map(drop) }));
        }
    }
    everybody_else_gets_in(&server, &blue, "while eight clients read nothing").await;
    let mut alice = outside_with(&server, &blue, operator()).await;
    let closed = async {
        while alice
            .status(pb::StatusRequest::default())
            .await
            .unwrap()
            .into_inner()
            .local
            .unwrap()
            .connections
            .unwrap()
            .clients
            > 0
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIVENESS, closed).await.expect("they are closed");
    everybody_else_gets_in(&server, &blue, "after that").await;
    deaf.iter().for_each(tokio::task::JoinHandle::abort);
}
