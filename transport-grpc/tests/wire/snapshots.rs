//! Snapshots arrive whole and equal, or not at all.

use bytes::Bytes;
use std::time::{Duration, Instant};

use quorate_raft_core::rpc::{InstallSnapshot, SnapshotMeta, VoterSets};
use quorate_raft_core::{Peer, Refusal, TransportError, TransportExt};
use quorate_transport_grpc::{CHUNK_LIMIT, GrpcTransport, SNAPSHOT_LIMIT, ServerSettings};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tonic::Code;

use crate::fake::*;
use crate::pb;
use crate::pb::snapshot_request::Message;
use crate::refusals::pb_caller;
use crate::values::*;

fn snapshot(size: usize) -> InstallSnapshot {
    let voters = VoterSets { sets: vec![[n(1), n(2), n(3)].into()], nodes: [n(1), n(2), n(3)].into() };
    let meta = SnapshotMeta { last: Some(at(5, 600)), configured: Some(at(1, 2)), voters };
    InstallSnapshot { ballot: ballot(5, 1), meta, data: envelope(size).as_bytes().into() }
}

#[tokio::test]
async fn five_megabytes_arrive_byte_for_byte() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let (transport, peer) = (patient(), peer(server.local_addr()));
    let sent = snapshot(5_000_000);
    assert_eq!(transport.request(&peer, caller(), sent.clone(), LIVENESS).await.unwrap(), ballot(8, 2));
    let calls = fake.calls();
    let [Call::Snapshot(from, arrived)] = calls.as_slice() else { panic!("{} calls", calls.len()) };
    assert_eq!(*from, caller());
    assert!(*arrived == sent, "the snapshot has changed on the way");
}

/// Given up in the middle it ends in the middle, and is not sent on once the line is free again.
#[tokio::test]
async fn a_snapshot_that_is_given_up_is_not_installed() {
    let fake = Fake::new();
    let server = serve_with(&fake, ServerSettings { max_snapshots: 1, ..ServerSettings::default() });
    // A line that passes so much on, and then nothing until it is freed.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (transport, peer, far) = (patient(), peer(listener.local_addr().unwrap()), server.local_addr());
    let (free, freed) = oneshot::channel::<()>();
    let (jam, jammed) = oneshot::channel();
    tokio::spawn(async move {
        let (near, far) = (listener.accept().await?.0, TcpStream::connect(far).await?);
        let ((near_read, mut near_write), (mut far_read, mut far_write)) = (near.into_split(), far.into_split());
        tokio::spawn(async move { tokio::io::copy(&mut far_read, &mut near_write).await });
        let mut some = near_read.take(100_000);
        tokio::io::copy(&mut some, &mut far_write).await?;
        let _ = (jam.send(()), freed.await);
        tokio::io::copy(&mut some.into_inner(), &mut far_write).await
    });
    let sending = tokio::spawn(transport.request(&peer, caller(), snapshot(5_000_000), LIVENESS));
    jammed.await.unwrap();
    sending.abort();
    assert!(sending.await.unwrap_err().is_cancelled());
    free.send(()).unwrap();
    until_installed(&transport, &peer, snapshot(10)).await;
    assert_eq!(fake.calls(), [Call::Snapshot(caller(), snapshot(10))]);
}

/// A line of 64 KiB in 150 ms: the whole takes twice the deadline, which is for a standstill.
#[tokio::test]
async fn a_snapshot_may_take_as_long_as_it_makes_progress() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (transport, peer, far) = (patient(), peer(listener.local_addr().unwrap()), server.local_addr());
    tokio::spawn(async move {
        let (near, far) = (listener.accept().await?.0, TcpStream::connect(far).await?);
        let ((mut near_read, mut near_write), (mut far_read, mut far_write)) = (near.into_split(), far.into_split());
        tokio::spawn(async move { tokio::io::copy(&mut far_read, &mut near_write).await });
        loop {
            let mut some = near_read.take(64 << 10);
            if tokio::io::copy(&mut some, &mut far_write).await? == 0 {
                return Ok::<_, std::io::Error>(());
            }
            near_read = some.into_inner();
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    });
    let (began, deadline) = (Instant::now(), Duration::from_secs(3));
    let sent = snapshot(2_700_000);
    transport.request(&peer, caller(), sent.clone(), deadline).await.unwrap();
    assert!(began.elapsed() > deadline, "the line is not thin enough to show anything");
    assert_eq!(fake.calls(), [Call::Snapshot(caller(), sent)]);
}

/// The place of another may not be free yet; then the server says "try again".
async fn until_installed(transport: &GrpcTransport, peer: &Peer, small: InstallSnapshot) {
    for _ in 0..600 {
        if transport.request(peer, caller(), small.clone(), LIVENESS).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the place is never free again");
}

#[tokio::test]
async fn a_snapshot_beyond_the_bound_is_not_sent() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let large = InstallSnapshot { data: vec![0; SNAPSHOT_LIMIT + 1].into(), ..snapshot(0) };
    let error = patient().request(&peer(server.local_addr()), caller(), large, LIVENESS).await.unwrap_err();
    assert!(
        matches!(&error, TransportError::Refused(Refusal::Malformed(why)) if why.contains("nothing was sent")),
        "{error}"
    );
    assert_eq!(fake.calls(), []);
}

fn header(data: &[u8]) -> pb::SnapshotHeader {
    pb::SnapshotHeader {
        caller: Some(pb_caller()),
        ballot: Some(pb::Ballot { term: 1, node: 1, committed: true }),
        meta: Some(pb::SnapshotMeta { voters: Some(pb::VoterSets::default()), ..pb::SnapshotMeta::default() }),
        length: data.len() as u64,
        crc32c: crc32c::crc32c(data),
    }
}

fn chunks(data: &[u8]) -> Vec<Message> {
    data.chunks(1000).map(|chunk| Message::Chunk(Bytes::copy_from_slice(chunk))).collect()
}

#[tokio::test]
async fn what_is_cut_short_damaged_or_out_of_order_is_refused_and_never_seen() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let mut client = raft(server.local_addr()).await;
    let data = envelope(5_000).as_bytes().to_vec();
    let whole = || [vec![Message::Header(header(&data))], chunks(&data)].concat();
    let with_header = |change: &dyn Fn(&mut pb::SnapshotHeader)| {
        let mut header = header(&data);
        change(&mut header);
        [vec![Message::Header(header)], chunks(&data)].concat()
    };
    let edited = |edit: &dyn Fn(&mut Vec<Message>)| {
        let mut messages = whole();
        edit(&mut messages);
        messages
    };
    let flip = |messages: &mut Vec<Message>| {
        if let Message::Chunk(chunk) = &mut messages[3] {
            let mut bytes = chunk.to_vec();
            bytes[7] ^= 1;
            *chunk = bytes.into();
        }
    };
    let cases: Vec<(&str, Vec<Message>, &str)> = vec![
        ("nothing at all", vec![], "begins with its header"),
        ("no header", chunks(&data), "begins with its header"),
        ("the header alone", vec![Message::Header(header(&data))], "ended after 0 of"),
        ("the last chunk missing", edited(&|m| drop(m.pop())), "ended after"),
        ("one in the middle missing", edited(&|m| drop(m.remove(2))), "ended after"),
        ("two exchanged", edited(&|m| m.swap(2, 3)), "damaged"),
        ("one bit changed", edited(&flip), "damaged"),
        ("something behind it", edited(&|m| m.push(Message::Chunk(Bytes::from_static(b"x")))), "goes on after"),
        ("an empty chunk", edited(&|m| m.insert(1, Message::Chunk(Bytes::new()))), "a chunk of 0 bytes"),
        ("a second header", edited(&|m| m.push(Message::Header(header(&data)))), "no chunk"),
        ("a chunk too large", edited(&|m| m.insert(1, Message::Chunk(vec![0; CHUNK_LIMIT + 1].into()))), "a chunk of"),
        ("another checksum", with_header(&|h| h.crc32c ^= 1), "damaged"),
        ("too much announced", with_header(&|h| h.length = SNAPSHOT_LIMIT as u64 + 1), "announced as"),
        ("very much announced", with_header(&|h| h.length = u64::MAX), "announced as"),
        ("no caller", with_header(&|h| h.caller = None), "the caller is missing"),
        ("no ballot", with_header(&|h| h.ballot = None), "the ballot is missing"),
        ("no meta", with_header(&|h| h.meta = None), "is missing"),
    ];
    for (case, messages, expected) in cases {
        let messages =
            futures_util::stream::iter(messages.into_iter().map(|m| pb::SnapshotRequest { message: Some(m) }));
        let status = client.install_snapshot(messages).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{case}: {status}");
        assert!(status.message().contains(expected), "{case}: {status}");
    }
    assert_eq!(fake.calls(), []);
    let sound = futures_util::stream::iter(whole().into_iter().map(|m| pb::SnapshotRequest { message: Some(m) }));
    assert!(client.install_snapshot(sound).await.is_ok());
    assert_eq!(fake.calls().len(), 1);
}

#[tokio::test]
async fn bytes_that_are_no_record_are_refused() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let (transport, peer) = (patient(), peer(server.local_addr()));
    for data in [Vec::new(), vec![7; 100]] {
        let foreign = InstallSnapshot { data: data.into(), ..snapshot(0) };
        let error = transport.request(&peer, caller(), foreign, LIVENESS).await.unwrap_err();
        assert!(matches!(error, TransportError::Refused(Refusal::Malformed(_))), "{error}");
    }
    assert_eq!(fake.calls(), []);
}

#[tokio::test]
async fn no_more_snapshots_arrive_at_a_time_than_there_is_room_for() {
    let fake = Fake::new();
    fake.set(|script| script.hang = true);
    let server = serve_with(&fake, ServerSettings { max_snapshots: 1, ..ServerSettings::default() });
    let (transport, peer) = (patient(), peer(server.local_addr()));
    let first = transport.request(&peer, caller(), snapshot(10), LIVENESS);
    let first = tokio::spawn(first);
    fake.until(|calls| calls.len() == 1).await;
    let error = transport.request(&peer, caller(), snapshot(10), LIVENESS).await.unwrap_err();
    assert!(matches!(error, TransportError::Refused(Refusal::Unavailable(_))), "{error}");
    first.abort();
    fake.until(|calls| calls.contains(&Call::GivenUp)).await;
    fake.set(|script| script.hang = false);
    until_installed(&transport, &peer, snapshot(10)).await;
}
