//! Probes of links: what is lost shows, entries go over another link, and come back only after a while.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use quorate_raft_core::rpc::{Caller, StreamAppended};
use quorate_raft_core::{LinkState, LinkView, Peer, Transport};
use quorate_transport_grpc::GrpcTransport;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::fake::*;
use crate::links::{Way, at_all};
use crate::stored::kept;
use crate::values::*;

/// A node that serves a cluster of which n1 is a member, and as whom n1 probes it.
fn member(number: u64) -> (Arc<Fake>, Caller) {
    let fake = Fake::new();
    let (state, _) = kept();
    let cluster = state.id().unwrap();
    fake.set(|script| (script.view.cluster, script.view.local.node) = (Arc::new(state), n(number)));
    (fake, Caller { cluster, ..caller() })
}

fn states(transport: &GrpcTransport) -> Vec<(LinkState, bool)> {
    let links = transport.links().remove(&n(2)).map(|node| node.links).unwrap_or_default();
    links.iter().map(|LinkView { state, used, .. }| (*state, *used)).collect()
}

async fn until(transport: &GrpcTransport, expected: &[(LinkState, bool)]) -> Duration {
    let began = Instant::now();
    let found = timeout(LIVENESS, async {
        while states(transport) != expected {
            sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(found.await.is_ok(), "{expected:?} was awaited, and it is {:?}", states(transport));
    began.elapsed()
}

/// Appends once. Returns whether it was flushed.
async fn appends(transport: &GrpcTransport, peer: &Peer) -> bool {
    let one = stream::iter([append(0, 10)]).boxed();
    match transport.append_stream(peer, caller(), one, LIVENESS).await {
        Ok(answers) => answers.all(|answer| async move { matches!(answer, Ok(StreamAppended::Flushed(_))) }).await,
        Err(_) => false,
    }
}

#[tokio::test]
async fn a_lost_link_shows_and_entries_come_back_to_it_only_after_it_was_steady() {
    use LinkState::{Down, Up};
    let (fake, caller) = member(2);
    let server = serve(&fake).await;
    let ways = [Way::to(server.local_addr()).await, Way::to(server.local_addr()).await];
    let (transport, peer) = (GrpcTransport::new(), at_all(&ways.each_ref().map(|way| way.address)));
    transport.probe(vec![(peer.clone(), caller)]);
    until(&transport, &[(Up, true), (Up, false)]).await;
    assert!(appends(&transport, &peer).await);
    ways[0].darken(true);
    until(&transport, &[(Down, false), (Up, true)]).await;
    let before = ways[1].connections.get();
    let (more, mut waiting) = mpsc::channel(4);
    let requests = stream::poll_fn(move |cx| waiting.poll_recv(cx)).boxed();
    more.send(append(0, 10)).await.unwrap();
    let mut answers = transport.append_stream(&peer, caller, requests, LIVENESS).await.unwrap();
    assert!(matches!(answers.next().await, Some(Ok(StreamAppended::Flushed(_)))));
    assert_eq!(ways[1].connections.get(), before + 1, "entries go over the other link");
    ways[0].darken(false);
    until(&transport, &[(Up, false), (Up, true)]).await;
    let steady = until(&transport, &[(Up, true), (Up, false)]).await;
    assert!(steady > Duration::from_secs(8), "taken again after {steady:?}");
    // The open stream ends without an error, so that the next one goes over the preferred link.
    assert!(timeout(LIVENESS, answers.next()).await.expect("it ends").is_none());
    assert!(appends(&transport, &peer).await);
    // Nobody is probed that is no member any more.
    transport.probe(vec![]);
    assert!(transport.links().is_empty());
}

/// A way on which a large packet is lost without a word, and so is what follows it on the same connection.
async fn losing_large(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (from, to) = (near, TcpStream::connect(server).await?);
                let ((a, b), (c, d)) = (from.into_split(), to.into_split());
                tokio::try_join!(small_only(a, d), small_only(c, b))
            });
        }
    });
    address
}

async fn small_only(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
) -> std::io::Result<()> {
    let mut bytes = vec![0; 16 << 10];
    loop {
        match from.read(&mut bytes).await? {
            0 => return to.shutdown().await,
            large if large > 1400 => std::future::pending().await,
            small => to.write_all(&bytes[..small]).await?,
        }
    }
}

#[tokio::test]
async fn a_link_that_loses_large_messages_shows_and_another_one_is_used() {
    let (fake, caller) = member(2);
    let server = serve(&fake).await;
    let losing = losing_large(server.local_addr()).await;
    let (transport, both) = (GrpcTransport::new(), at_all(&[losing, server.local_addr()]));
    transport.probe(vec![(both.clone(), caller)]);
    until(&transport, &[(LinkState::SmallOnly, false), (LinkState::Up, true)]).await;
    assert!(appends(&transport, &both).await);
    // Where there is no other, it is used all the same.
    let (alone, only) = (GrpcTransport::new(), at_all(&[losing]));
    alone.probe(vec![(only.clone(), caller)]);
    until(&alone, &[(LinkState::SmallOnly, true)]).await;
    assert!(appends(&alone, &only).await, "a small one passes");
}

#[tokio::test]
async fn a_link_to_another_node_is_not_up() {
    let ((fake, caller), (other, _)) = (member(2), member(3));
    let (server, wrong) = (serve(&fake).await, serve(&other).await);
    let (transport, peer) = (GrpcTransport::new(), at_all(&[wrong.local_addr(), server.local_addr()]));
    transport.probe(vec![(peer, caller)]);
    let told = timeout(LIVENESS, async {
        loop {
            match states(&transport).first() {
                None | Some((LinkState::Unknown, _)) => sleep(Duration::from_millis(10)).await,
                Some((told, _)) => return *told,
            }
        }
    });
    assert_eq!(told.await.unwrap(), LinkState::Down, "another node answers there");
    until(&transport, &[(LinkState::Down, false), (LinkState::Up, true)]).await;
}

/// Without a certificate a probe has to name the cluster and a member. Else any program could make its connections count as a node's.
#[tokio::test]
async fn a_probe_by_a_stranger_is_refused() {
    let (fake, caller) = member(2);
    let server = serve(&fake).await;
    for stranger in [Caller { from: n(77), ..caller }, Caller { cluster: joined().cluster, ..caller }] {
        let transport = GrpcTransport::new();
        transport.probe(vec![(at_all(&[server.local_addr()]), stranger)]);
        until(&transport, &[(LinkState::Down, true)]).await;
    }
}
