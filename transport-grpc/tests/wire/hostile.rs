//! Whatever somebody sends to the port, or fails to send: the node is not harmed, and others are served.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use quorate_raft_core::TransportExt;
use quorate_transport_grpc::ServerSettings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::body::Body;

use crate::fake::*;
use crate::pb;
use crate::values::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Numbers that look random and are the same every time.
fn noise(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

async fn say(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The other side may hang up in the middle of it; that is its right.
    let _ = stream.write_all(bytes).await;
    stream
}

/// Waits until the other side has hung up.
async fn closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(LIVENESS, stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the connection stays open");
}

#[tokio::test]
async fn garbage_is_hung_up_on_and_others_are_served() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let (transport, peer, address) = (patient(), peer(server.local_addr()), server.local_addr());
    assert!(vote(&transport, &peer).await.is_ok());
    let http1 = b"GET /quorate.v1.Cluster/Status HTTP/1.1\r\nHost: n2\r\n\r\n";
    let tls = [&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03][..], &[0x5a; 64]].concat();
    for bytes in [&http1[..], &tls, &[0; 64], &[0xff; 4096], b"QRT1 is not a protocol of the wire"] {
        closed(&mut say(address, bytes).await).await;
    }
    for seed in 0..64 {
        let mut next = noise(seed);
        let frames: Vec<u8> = (0..next() % 600).map(|_| next() as u8).collect();
        // After a valid preface, frames of noise; after that, nothing more.
        let mut stream = say(address, &[PREFACE, &frames].concat()).await;
        let _ = stream.shutdown().await;
        closed(&mut stream).await;
    }
    assert!(vote(&transport, &peer).await.is_ok());
    assert!(vote(&patient(), &peer).await.is_ok());
    assert_eq!(fake.calls().len(), 3);
}

/// A call whose body is given byte by byte, as no client would.
async fn post(client: &mut Plain, path: &str, body: impl Into<Bytes>) -> Option<String> {
    let body = body.into();
    let frame = futures_util::stream::iter([Ok::<_, std::convert::Infallible>(http_body::Frame::data(body))]);
    let request = Request::builder().method(Method::POST).uri(format!("http://anybody{path}"));
    let request = request.header("content-type", "application/grpc").header("te", "trailers");
    let request = request.body(Body::new(http_body_util::StreamBody::new(frame))).unwrap();
    let response = tokio::time::timeout(LIVENESS, client.send(request)).await.expect("an answer, or a hang-up").ok()?;
    Some(response.headers().get("grpc-status")?.to_str().unwrap().to_owned())
}

#[tokio::test]
async fn messages_that_are_cut_short_or_overlong_are_refused_and_others_are_served() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let (transport, peer) = (patient(), peer(server.local_addr()));
    let mut client = Plain::connect(server.local_addr()).await;
    let invalid = Some("3".to_owned());
    let framed = |length: u32, message: &[u8]| [&[0][..], &length.to_be_bytes(), message].concat();
    for path in
        ["/quorate.v1.Raft/Vote", "/quorate.v1.Raft/Append", "/quorate.v1.Raft/Renew", "/quorate.v1.Cluster/Join"]
    {
        // Announces four gigabytes and sends three bytes.
        assert_eq!(post(&mut client, path, framed(u32::MAX, b"abc")).await, invalid, "{path}");
        // Not protobuf.
        assert_eq!(post(&mut client, path, framed(4, &[0xff; 4])).await, invalid, "{path}");
        // Protobuf in which everything is missing.
        assert_eq!(post(&mut client, path, framed(0, b"")).await, invalid, "{path}");
        // Compressed, which was never agreed on.
        let mut compressed = framed(4, b"abcd");
        compressed[0] = 1;
        assert!(post(&mut client, path, compressed).await.is_some(), "{path}");
        // Cut short: in the middle of the message, of the frame, before it.
        for cut in [&framed(100, b"abc")[..], &[0, 0], b""] {
            assert!(post(&mut client, path, cut.to_vec()).await.is_some(), "{path}");
        }
    }
    for path in ["/", "/quorate.v1.Raft/", "/quorate.v1.Raft/Fire", "/quorate.v2.Raft/Vote", "//", "/a/b/c"] {
        assert_eq!(post(&mut client, path, framed(0, b"")).await, invalid, "{path}");
    }
    let plain = Request::builder().method(Method::GET).uri("http://anybody/quorate.v1.Raft/Vote");
    assert!(client.send(plain.body(Body::empty()).unwrap()).await.is_ok());
    assert!(vote(&transport, &peer).await.is_ok());
    assert_eq!(fake.calls().len(), 1);
}

#[tokio::test]
async fn a_stream_of_nonsense_is_refused_and_others_are_served() {
    use pb::append_stream_request::Message;
    let fake = Fake::new();
    let server = serve(&fake).await;
    let mut client = raft(server.local_addr()).await;
    let caller = || Some(Message::Caller(crate::refusals::pb_caller()));
    let cases = [
        ("nothing", vec![], "begins with its caller"),
        ("an empty message", vec![None], "begins with its caller"),
        ("an append first", vec![Some(Message::Append(pb::Append::default()))], "begins with its caller"),
        ("half a caller", vec![Some(Message::Caller(pb::Caller::default()))], "16 are needed"),
        ("two callers", vec![caller(), caller()], "only the first message"),
        ("an empty append", vec![caller(), Some(Message::Append(pb::Append::default()))], "the ballot is missing"),
        ("an unknown message", vec![caller(), None], "unknown kind"),
    ];
    for (case, messages, expected) in cases {
        let messages = messages.into_iter().map(|message| pb::AppendStreamRequest { message });
        let mut answers = client.append_stream(futures_util::stream::iter(messages)).await.unwrap().into_inner();
        let status = answers.message().await.unwrap_err();
        assert!(status.message().contains(expected), "{case}: {status}");
    }
    assert!(vote(&patient(), &peer(server.local_addr())).await.is_ok());
}

#[tokio::test]
async fn who_says_nothing_or_too_little_is_hung_up_on() {
    let fake = Fake::new();
    let settings = ServerSettings { handshake_timeout: Duration::from_secs(1), ..ServerSettings::default() };
    let server = serve_with(&fake, settings);
    let mut silent = TcpStream::connect(server.local_addr()).await.unwrap();
    let mut halting = say(server.local_addr(), &PREFACE[..10]).await;
    assert!(vote(&patient(), &peer(server.local_addr())).await.is_ok());
    closed(&mut silent).await;
    closed(&mut halting).await;
}

#[tokio::test]
async fn too_many_connections_are_turned_away_until_others_are_gone() {
    let fake = Fake::new();
    let long = Duration::from_secs(60);
    let settings =
        ServerSettings { max_connections: 16, peer_reserve: 4, handshake_timeout: long, ..ServerSettings::default() };
    let server = serve_with(&fake, settings);
    let (transport, to) = (patient(), peer(server.local_addr()));
    assert!(vote(&transport, &to).await.is_ok());
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(TcpStream::connect(server.local_addr()).await.unwrap());
    }
    let mut one_too_many = TcpStream::connect(server.local_addr()).await.unwrap();
    closed(&mut one_too_many).await;
    // Who is inside is served; who comes is turned away, and let in as soon as there is room.
    assert!(vote(&transport, &to).await.is_ok());
    let late = patient();
    assert!(late.request(&to, caller(), vote_request(), LIVENESS).await.is_err());
    held.clear();
    for _ in 0..600 {
        if vote(&late, &to).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the places are never free again");
}

/// A client that takes every place it can get: a peer that comes later is let in, stays, and frees its place in the reserve.
#[tokio::test]
async fn however_many_connections_clients_hold_peers_get_in() {
    let fake = Fake::new();
    let trial = Duration::from_secs(3);
    let settings =
        ServerSettings { max_connections: 16, peer_reserve: 4, handshake_timeout: trial, ..ServerSettings::default() };
    let server = serve_with(&fake, settings);
    let mut clients = vec![];
    for clients_before in 0..16 {
        let mut client = outside(server.local_addr()).await;
        let status = client.status(pb::StatusRequest::default()).await.unwrap().into_inner();
        let open = pb::Connections { clients: clients_before + 1, peers: 0, operators: 0, on_trial: 0 };
        assert_eq!(status.local.unwrap().connections, Some(open));
        clients.push(client);
    }
    let peers: Vec<_> = (0..8).map(|_| patient()).collect();
    for late in &peers {
        assert!(vote(late, &peer(server.local_addr())).await.is_ok(), "a peer is turned away");
    }
    tokio::time::sleep(trial * 2).await;
    for late in &peers {
        assert!(vote(late, &peer(server.local_addr())).await.is_ok());
    }
    let open = clients[0].status(pb::StatusRequest::default()).await.unwrap().into_inner().local.unwrap().connections;
    let pb::Connections { clients: of_clients, peers: of_peers, on_trial, .. } = open.unwrap();
    assert!(of_clients == 16 && of_peers >= 8 && on_trial == 0, "{open:?}");
}

#[tokio::test]
async fn a_call_that_stays_open_keeps_nobody_else_waiting() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    // Calls whose bodies never come, as many as one connection may have.
    let client = Plain::connect(server.local_addr()).await;
    let mut open = Vec::new();
    for _ in 0..128 {
        let never = futures_util::stream::pending::<Result<http_body::Frame<Bytes>, std::convert::Infallible>>();
        let request = Request::builder().method(Method::POST).uri("http://anybody/quorate.v1.Raft/Vote");
        let request = request.header("content-type", "application/grpc");
        let request = request.body(Body::new(http_body_util::StreamBody::new(never))).unwrap();
        let mut client = client.clone();
        open.push(tokio::spawn(async move { client.send(request).await.map(drop) }));
    }
    assert!(vote(&patient(), &peer(server.local_addr())).await.is_ok());
    for call in open {
        call.abort();
    }
    assert!(vote(&patient(), &peer(server.local_addr())).await.is_ok());
}
