//! Renewals of leases: granted, refused, too late, not understood, and never kept waiting by anything large.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::{HeaderMap, HeaderValue, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use quorate_membership::lease::Receipts;
use quorate_raft_core::rpc::{Append, AskReceipts, InstallSnapshot, RenewRefusal, Renewed, SnapshotMeta};
use quorate_raft_core::{Refusal, Transport, TransportError, TransportExt};
use quorate_transport_grpc::{ClientSettings, GrpcTransport, ServerSettings};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tonic::Code;

use crate::fake::*;
use crate::pb;
use crate::refusals::{name, pb_caller, variants};
use crate::values::*;

fn reasons() -> [RenewRefusal; 4] {
    [RenewRefusal::NotActivated, RenewRefusal::NotLive, RenewRefusal::Expiring, RenewRefusal::NotConfirmed]
}

/// A reason added elsewhere has to be added here and to the protocol.
#[test]
fn the_list_is_complete() {
    let listed: BTreeSet<_> = reasons().iter().map(name).collect();
    assert_eq!(listed, variants(include_str!("../../../raft-core/src/rpc.rs"), "pub enum RenewRefusal {"));
}

#[tokio::test]
async fn a_renewal_is_granted_or_it_is_said_why_not_and_who_leads() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let (transport, peer) = (patient(), peer(server.local_addr()));
    for seq in [0, 1, u64::MAX] {
        let answer = transport.request(&peer, caller(), renewal(seq), LIVENESS).await.unwrap();
        assert_eq!(answer, Renewed::Granted(renewal(seq)));
    }
    for refusal in reasons() {
        for leader in [None, Some(n(3))] {
            fake.set(|script| script.not_renewed = Some((refusal, leader)));
            let answer = transport.request(&peer, caller(), renewal(5), LIVENESS).await.unwrap();
            assert_eq!(answer, Renewed::Refused { refusal, leader });
        }
    }
    let asked = [0, 1, u64::MAX].into_iter().chain([5; 8]);
    assert_eq!(fake.calls(), asked.map(|seq| Call::Renew(caller(), renewal(seq))).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_caller_that_is_not_admitted_renews_nothing() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let (transport, peer) = (patient(), peer(server.local_addr()));
    for refusal in [Refusal::OtherTiming, Refusal::Retired(n(1)), Refusal::TwoProcesses(n(1)), Refusal::NotReady] {
        fake.set(|script| script.refuse = Some(refusal.clone()));
        let error = transport.request(&peer, caller(), renewal(1), LIVENESS).await.unwrap_err();
        assert_eq!(error, TransportError::Refused(refusal));
    }
}

#[tokio::test]
async fn a_renewal_without_an_answer_ends_at_its_deadline_on_both_sides() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let (transport, peer, deadline) = (patient(), peer(server.local_addr()), Duration::from_secs(2));
    assert!(transport.request(&peer, caller(), renewal(0), LIVENESS).await.is_ok());
    fake.set(|script| script.hang = true);
    let error = transport.request(&peer, caller(), renewal(1), deadline).await.unwrap_err();
    assert_eq!(error, TransportError::Timeout(deadline));
    fake.until(|calls| calls.contains(&Call::GivenUp)).await;
    // The connection is as good as before.
    fake.set(|script| script.hang = false);
    let answer = transport.request(&peer, caller(), renewal(2), LIVENESS).await.unwrap();
    assert_eq!(answer, Renewed::Granted(renewal(2)));
}

/// A server takes so many calls at once on one connection. Commands that wait for a leader that cannot commit use all of
/// them up, and a lease does not lapse for that.
#[tokio::test]
async fn a_renewal_does_not_wait_behind_commands_that_hang() {
    let (fake, limit) = (Fake::new(), ServerSettings::default().max_streams);
    let server = serve(&fake).await;
    let (transport, peer) = (patient(), peer(server.local_addr()));
    fake.set(|script| script.hang = true);
    let mut hanging = tokio::task::JoinSet::new();
    for _ in 0..limit + 10 {
        hanging.spawn(transport.request(&peer, caller(), envelope(10), 2 * LIVENESS));
    }
    fake.until(|calls| calls.iter().filter(|call| matches!(call, Call::Propose(..))).count() >= limit as usize).await;
    fake.set(|script| script.hang = false);
    let answer = transport.request(&peer, caller(), renewal(1), LIVENESS).await.unwrap();
    assert_eq!(answer, Renewed::Granted(renewal(1)));
}

#[tokio::test]
async fn a_renewal_that_says_too_little_is_refused_and_never_seen() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let mut client = raft(server.local_addr()).await;
    let whole = || pb::Renewal { who: Some(pb::Identity { node: 1, incarnation: 3 }), seq: 4 };
    let cases = [
        (pb::RenewRequest { caller: None, renewal: Some(whole()) }, "the caller is missing"),
        (pb::RenewRequest { caller: Some(pb_caller()), renewal: None }, "the renewal is missing"),
        (
            pb::RenewRequest { caller: Some(pb_caller()), renewal: Some(pb::Renewal { who: None, seq: 4 }) },
            "the life of a renewal is missing",
        ),
    ];
    for (request, expected) in cases {
        let status = client.renew(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(expected), "{status}");
    }
    assert_eq!(fake.calls(), []);
    let request = pb::RenewRequest { caller: Some(pb_caller()), renewal: Some(whole()) };
    assert!(client.renew(request).await.is_ok());
}

/// The answer to the first call of a stream, with this message in this field of `NumberedAnswer`.
pub(crate) fn first_of_a_stream(field: u8, message: &[u8]) -> Vec<u8> {
    let sized = |field: u8, bytes: &[u8]| [&[field << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat();
    sized(1, &[&[1 << 3, 1][..], &sized(field, message)].concat())
}

/// A node that answers every call with this message, whatever it was asked.
pub(crate) async fn answering(message: Vec<u8>) -> SocketAddr {
    let length = u32::try_from(message.len()).unwrap();
    let framed = Bytes::from([&[0][..], &length.to_be_bytes(), &message].concat());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let framed = framed.clone();
            let answer = service_fn(move |_| {
                let ended = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
                let frames = [Ok::<_, Infallible>(Frame::data(framed.clone())), Ok(Frame::trailers(ended))];
                let response = Response::builder().header("content-type", "application/grpc");
                std::future::ready(response.body(StreamBody::new(stream::iter(frames))))
            });
            let serving = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer);
            tokio::spawn(serving);
        }
    });
    address
}

/// A newer node may refuse for reasons, or answer in ways, that this build has no name for. None of them is a grant, and
/// none is taken for one of the reasons that it does know.
#[tokio::test]
async fn an_answer_of_a_newer_node_that_is_not_understood_is_not_taken_for_a_grant() {
    use pb::renewed::Result as Answer;
    let said = |result| pb::RenewResponse { result: Some(pb::Renewed { result }) }.encode_to_vec();
    let refused = |refusal| said(Some(Answer::Refused(pb::RenewRefused { refusal, leader: Some(3) })));
    let cases = [
        ("a reason of number 77", refused(77), "number 77"),
        ("a negative reason", refused(-5), "number -5"),
        ("no reason", refused(0), "number 0"),
        ("neither granted nor refused", said(None), "the result of a renewal"),
        // Field 9 of `Renewed`, an empty message: a third case.
        ("a third case", vec![0x0a, 2, 0x4a, 0], "the result of a renewal"),
        ("nothing", vec![], "the result of a renewal"),
        ("a grant for nobody", said(Some(Answer::Granted(pb::Renewal { who: None, seq: 1 }))), "the life of a renewal"),
    ];
    for (case, message, expected) in cases {
        let newer = peer(answering(first_of_a_stream(4, &message)).await);
        let error = patient().request(&newer, caller(), renewal(1), LIVENESS).await.unwrap_err();
        let TransportError::Broken(why) = error else { panic!("{case}: {error}") };
        assert!(why.contains(expected) && why.contains("the same version"), "{case}: {why}");
    }
    // The same node, saying what is known, is understood: with a receipt of a witness beside it in field 2.
    let granted =
        said(Some(Answer::Granted(pb::Renewal { who: Some(pb::Identity { node: 1, incarnation: 3 }), seq: 1 })));
    let newer = peer(answering(first_of_a_stream(4, &[granted, vec![0x12, 1, 7]].concat())).await);
    let answer = patient().request(&newer, caller(), renewal(1), LIVENESS).await.unwrap();
    assert_eq!(answer, Renewed::Granted(renewal(1)));
}

/// A way to a server on which each connection passes so many bytes to it, and then never another one.
async fn narrow(server: SocketAddr, room: u64) -> (SocketAddr, watch::Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, (jams, jammed)) = (listener.local_addr().unwrap(), watch::channel(0));
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let jams = jams.clone();
            tokio::spawn(async move {
                let far = TcpStream::connect(server).await?;
                let ((near_read, mut near_write), (mut far_read, mut far_write)) =
                    (near.into_split(), far.into_split());
                let back = tokio::spawn(async move { tokio::io::copy(&mut far_read, &mut near_write).await });
                let mut some = near_read.take(room);
                let passed = tokio::io::copy(&mut some, &mut far_write).await?;
                if passed == room {
                    jams.send_modify(|count| *count += 1);
                    // Both ends stay open.
                    return std::future::pending().await;
                }
                back.abort();
                Ok::<_, std::io::Error>(())
            });
        }
    });
    (address, jammed)
}

/// Renewals go by themselves, not among the bytes of a snapshot or of a batch, however slowly those get through.
#[tokio::test]
async fn a_renewal_does_not_wait_behind_a_snapshot_or_a_batch() {
    let (fake, s) = (Fake::new(), Duration::from_secs);
    // Neither side is to give the connections up that are stuck.
    let (ping_every, ping_timeout) = (s(60), s(60));
    let server = serve_with(&fake, ServerSettings { ping_every, ping_timeout, ..ServerSettings::default() });
    let (address, mut jammed) = narrow(server.local_addr(), 100_000).await;
    let settings = ClientSettings { connect_timeout: s(10), ping_every, ping_timeout, ..ClientSettings::default() };
    let (transport, peer) = (GrpcTransport::with_settings(settings), peer(address));
    let large = envelope(5_000_000);
    let data = large.as_bytes().into();
    let snapshot = InstallSnapshot { ballot: ballot(1, 1), meta: SnapshotMeta::default(), data };
    let snapshot = tokio::spawn(transport.request(&peer, caller(), snapshot, 2 * LIVENESS));
    let batch: Append = append(0, 5_000_000);
    let appends = stream::iter([batch]).chain(stream::pending()).boxed();
    let mut answers = transport.append_stream(&peer, caller(), appends, 2 * LIVENESS).await.unwrap();
    let batch = tokio::spawn(async move { answers.next().await });
    tokio::time::timeout(LIVENESS, jammed.wait_for(|count| *count == 2)).await.expect("both are stuck").unwrap();
    for seq in 1..=20 {
        let answer = transport.request(&peer, caller(), renewal(seq), LIVENESS).await.unwrap();
        assert_eq!(answer, Renewed::Granted(renewal(seq)));
    }
    assert!(!snapshot.is_finished() && !batch.is_finished(), "they were to be under way all the time");
    snapshot.abort();
    batch.abort();
}

#[tokio::test]
async fn a_voter_tells_what_it_has_noted_of_each_life() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let (transport, voter) = (patient(), peer(server.local_addr()));
    let asked = AskReceipts { ballot: ballot(3, 1), upto: at(3, 40) };
    let age = Duration::from_nanos;
    for said in [
        Receipts { since: age(5_000_000_001), of: [(life(1, 4), age(7)), (life(2, 1), age(80_000_000))].into() },
        Receipts::default(),
    ] {
        fake.set(|script| script.receipts = said.clone());
        assert_eq!(transport.request(&voter, caller(), asked, LIVENESS).await.unwrap(), said);
    }
    assert_eq!(fake.calls(), [Call::Receipts(caller(), asked), Call::Receipts(caller(), asked)]);
}
