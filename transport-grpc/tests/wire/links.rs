//! Connections: kept, one a lane, found again when a peer comes back, never hammered.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use quorate_membership::Address;
use quorate_raft_core::rpc::{Append, InstallSnapshot, ReadIndex, SnapshotMeta};
use quorate_raft_core::{Peer, Transport, TransportError, TransportExt};
use quorate_transport_grpc::{ClientSettings, GrpcTransport};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

use crate::fake::*;
use crate::values::*;

/// A way to a server that counts connections and can stop passing bytes on, without closing anything.
pub(crate) struct Way {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Count,
    blocked: watch::Sender<u64>,
    closed: watch::Sender<u64>,
    dark: watch::Sender<bool>,
}

impl Way {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, connections, blocked) = (listener.local_addr().unwrap(), Count::default(), watch::Sender::new(0));
        let (count, told) = (connections.clone(), blocked.subscribe());
        let closed = watch::Sender::new(0);
        let ends = closed.subscribe();
        let dark = watch::Sender::new(false);
        let is_dark = dark.subscribe();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                count.one_more();
                let (mut told, mut ends) = (told.clone(), ends.clone());
                told.mark_unchanged();
                ends.mark_unchanged();
                let mut is_dark = is_dark.clone();
                tokio::spawn(async move {
                    is_dark.wait_for(|dark| !dark).await.map(drop).map_err(std::io::Error::other)?;
                    let mut far = TcpStream::connect(server).await?;
                    tokio::select! {
                        end = copy_bidirectional(&mut near, &mut far) => end.map(drop),
                        _ = ends.changed() => Ok(()),
                        // Both ends stay open, and nothing passes: a cable that was pulled.
                        _ = told.changed() => std::future::pending().await,
                    }
                });
            }
        });
        Self { address, connections, blocked, closed, dark }
    }

    /// Every connection of now is closed. New ones work.
    pub(crate) fn cut(&self) {
        self.closed.send_modify(|times| *times += 1);
    }

    /// Every connection of now goes dead, silently, and new ones are until it is lit again.
    pub(crate) fn darken(&self, dark: bool) {
        self.dark.send_replace(dark);
        if dark {
            self.pull_the_cable();
        }
    }

    /// Every connection of now goes dead, silently. New ones work.
    fn pull_the_cable(&self) {
        self.blocked.send_modify(|times| *times += 1);
    }
}

pub(crate) fn at_all(addresses: &[SocketAddr]) -> Peer {
    let addresses = addresses.iter().map(|address| Address::new(address.to_string()).unwrap()).collect();
    Peer { node: n(2), addresses }
}

/// A port at which nobody listens.
pub(crate) fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn reached(transport: &GrpcTransport, peer: &Peer) {
    let reaching = async {
        while transport.request(peer, caller(), vote_request(), Duration::from_secs(1)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIVENESS, reaching).await.expect("the peer is reached again");
}

#[tokio::test]
async fn each_lane_has_one_connection_and_keeps_it() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let way = Way::to(server.local_addr()).await;
    let (transport, peer) = (patient(), peer(way.address));
    for _ in 0..5 {
        let renewing = transport.request(&peer, caller(), renewal(1), LIVENESS);
        let reading = transport.request(&peer, caller(), ReadIndex, LIVENESS);
        let (a, b, c) = tokio::join!(vote(&transport, &peer), reading, renewing);
        assert!(a.is_ok() && b.is_ok() && c.is_ok());
    }
    assert_eq!(way.connections.get(), 2);
    // A heartbeat travels with the small calls, and not behind entries.
    let heartbeat = Append { entries: vec![], ..append(0, 0) };
    assert!(transport.request(&peer, caller(), heartbeat, LIVENESS).await.is_ok());
    assert_eq!(way.connections.get(), 2);
    for expected in [3, 3] {
        let appends = stream::iter([append(0, 10)]).boxed();
        let answers = transport.append_stream(&peer, caller(), appends, LIVENESS).await.unwrap();
        assert_eq!(answers.count().await, 1);
        assert_eq!(way.connections.get(), expected);
    }
    let data = envelope(10).as_bytes().into();
    let snapshot = InstallSnapshot { ballot: ballot(1, 1), meta: SnapshotMeta::default(), data };
    assert!(transport.request(&peer, caller(), snapshot, LIVENESS).await.is_ok());
    assert!(vote(&transport.clone(), &peer).await.is_ok());
    assert_eq!(way.connections.get(), 4);
}

#[tokio::test]
async fn a_peer_that_restarts_on_the_same_port_is_reached_again() {
    let fake = Fake::new();
    let mut server = serve(&fake).await;
    let (transport, address) = (GrpcTransport::new(), server.local_addr());
    let peer = peer(address);
    for round in 0..3 {
        reached(&transport, &peer).await;
        match round % 2 {
            0 => drop(server),
            _ => server.shutdown().await,
        }
        // While it is down, calls fail, and say that they did not arrive as soon as the loss is known.
        let gone = async {
            loop {
                let answer = transport.request(&peer, caller(), vote_request(), Duration::from_secs(1)).await;
                if matches!(answer, Err(TransportError::Unreachable(_))) {
                    break;
                }
            }
        };
        tokio::time::timeout(LIVENESS, gone).await.expect("the loss is noticed");
        server = serve_at(&fake, address).await;
    }
    reached(&transport, &peer).await;
}

#[tokio::test]
async fn a_connection_that_dies_without_a_word_is_replaced() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let way = Way::to(server.local_addr()).await;
    let (transport, peer) = (GrpcTransport::new(), peer(way.address));
    reached(&transport, &peer).await;
    way.pull_the_cable();
    reached(&transport, &peer).await;
    assert!(way.connections.get() >= 2);
}

#[tokio::test]
async fn a_dead_peer_is_not_hammered_however_often_it_is_called() {
    // Accepts and hangs up at once: the worst of all, since every attempt seems to succeed.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, tried) = (listener.local_addr().unwrap(), Count::default());
    let count = tried.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.one_more();
            drop(stream);
        }
    });
    let (transport, peer) = (GrpcTransport::new(), peer(address));
    let until = tokio::time::Instant::now() + Duration::from_secs(3);
    let callers = (0..8).map(|_| async {
        while tokio::time::Instant::now() < until {
            let _ = transport.request(&peer, caller(), vote_request(), Duration::from_millis(200)).await;
        }
    });
    futures_util::future::join_all(callers).await;
    // 20 + 40 + 80 + 160 + 10 × 250 ms: sixteen attempts in three seconds; a slow machine makes fewer.
    assert!((2..=24).contains(&tried.get()), "{} attempts", tried.get());
}

#[tokio::test]
async fn the_next_address_is_tried_and_the_one_that_worked_is_remembered() {
    let (there, late) = (Fake::new(), Fake::new());
    let server = serve(&there).await;
    let (way, down) = (Way::to(server.local_addr()).await, free());
    let transport = GrpcTransport::new();
    let both = at_all(&[down, way.address]);
    reached(&transport, &both).await;
    assert_eq!(way.connections.get(), 1);
    // The first address comes up; still the one that worked is tried before it.
    let _first = serve_at(&late, down).await;
    way.pull_the_cable();
    reached(&transport, &both).await;
    assert_eq!((way.connections.get(), late.calls().len()), (2, 0));
}

#[tokio::test]
async fn when_one_address_goes_down_the_other_takes_over() {
    let fake = Fake::new();
    let (first, second) = (serve(&fake).await, serve(&fake).await);
    let transport = GrpcTransport::new();
    let both = at_all(&[first.local_addr(), second.local_addr()]);
    reached(&transport, &both).await;
    drop(first);
    reached(&transport, &both).await;
}

#[tokio::test]
async fn all_addresses_are_named_when_none_answers() {
    let (a, b) = (free(), free());
    let error = vote(&GrpcTransport::new(), &at_all(&[a, b])).await.unwrap_err();
    let TransportError::Unreachable(why) = error else { panic!("{error}") };
    assert!(why.contains(&a.to_string()) && why.contains(&b.to_string()), "{why}");
    let nowhere = Peer { node: n(2), addresses: vec![Address::new("no port here").unwrap()] };
    let error = vote(&GrpcTransport::new(), &nowhere).await.unwrap_err();
    assert!(matches!(&error, TransportError::Unreachable(why) if why.contains("cannot be resolved")), "{error}");
}

#[tokio::test]
async fn a_name_is_resolved() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let name = Address::new(format!("localhost:{}", server.local_addr().port())).unwrap();
    let peer = Peer { node: n(2), addresses: vec![name] };
    reached(&GrpcTransport::new(), &peer).await;
}

#[tokio::test]
async fn new_addresses_replace_the_old_connection() {
    let (old, new) = (Fake::new(), Fake::new());
    let (at_old, at_new) = (serve(&old).await, serve(&new).await);
    let transport = patient();
    assert!(vote(&transport, &peer(at_old.local_addr())).await.is_ok());
    assert!(vote(&transport, &peer(at_new.local_addr())).await.is_ok());
    assert_eq!((old.calls().len(), new.calls().len()), (1, 1));
    // Nothing of ours is left at the old one: it has nobody to wait for.
    at_old.shutdown().await;
    assert!(vote(&transport, &peer(at_new.local_addr())).await.is_ok());
}

/// Short deadlines, given up again and again, do not keep the second address from being reached: the attempt goes on.
#[tokio::test]
async fn an_attempt_outlives_the_call_that_began_it() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    // Listens, and never accepts; once its short queue is full, connecting to it takes until the timeout.
    let full = TcpSocket::new_v4().unwrap();
    full.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = full.listen(4).unwrap();
    let address = full.local_addr().unwrap();
    let mut queued = Vec::new();
    while queued.len() < 64 {
        match tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(address)).await {
            Ok(stream) => queued.push(stream.unwrap()),
            Err(_) => break,
        }
    }
    let settings = ClientSettings { connect_timeout: Duration::from_millis(300), ..ClientSettings::default() };
    let transport = GrpcTransport::with_settings(settings);
    let both = at_all(&[address, server.local_addr()]);
    let reaching = async {
        loop {
            let short = Duration::from_millis(20);
            match transport.request(&both, caller(), vote_request(), short).await {
                Ok(_) => break,
                Err(TransportError::Unreachable(_) | TransportError::Timeout(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    // Where the system takes every connection into the queue there is nothing to show.
    if queued.len() < 64 {
        tokio::time::timeout(LIVENESS, reaching).await.expect("the second address is reached");
    }
}

/// What leases and leadership depend on comes by both addresses, and the answer of one is enough. What could take effect twice comes
/// by one.
#[tokio::test]
async fn a_renewal_goes_both_ways_and_a_command_goes_one() {
    let bytes = quorate_membership::codec::encode(&join_command()).unwrap();
    let proposed = |calls: &[Call]| calls.iter().filter(|call| matches!(call, Call::Propose(..))).count();
    let renewed = |calls: &[Call]| calls.iter().filter(|call| matches!(call, Call::Renew(..))).count();
    for dead in 0..2 {
        let fake = Fake::new();
        let server = serve(&fake).await;
        let ways = [Way::to(server.local_addr()).await, Way::to(server.local_addr()).await];
        // It would notice a dead connection only after the test.
        let (transport, peer) = (patient(), at_all(&[ways[0].address, ways[1].address]));
        let command = quorate_raft_core::rpc::Payload::new(bytes.clone());
        transport.request(&peer, caller(), command, LIVENESS).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(proposed(&fake.calls()), 1, "a command came twice");
        transport.request(&peer, caller(), renewal(1), LIVENESS).await.unwrap();
        fake.until(|calls| renewed(calls) == 2).await;
        ways[dead].pull_the_cable();
        let answer = transport.request(&peer, caller(), renewal(2), LIVENESS).await;
        assert!(answer.is_ok(), "way {dead} is dead: {answer:?}");
        fake.until(|calls| renewed(calls) == 3).await;
        // With one address left there is one way.
        transport.request(&at_all(&[ways[1 - dead].address]), caller(), renewal(3), LIVENESS).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(renewed(&fake.calls()), 4);
    }
}
