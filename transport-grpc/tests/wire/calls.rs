//! The calls between nodes: every field arrives, every answer comes back, and a call that ends badly says how.

use std::sync::Arc;
use std::time::Duration;

use quorate_membership::{Address, Command, Rejection, Revision, codec};
use quorate_raft_core::rpc::{
    Append, Appended, Body, InstallSnapshot, LogEntry, Payload, PreVote, Proposed, ReadIndex, Renewed, SnapshotMeta,
    Transfer, Transferred, VoterSets,
};
use quorate_raft_core::transport::JoinRequest;
use quorate_raft_core::{Refusal, Transport, TransportError, TransportExt};
use quorate_transport_grpc::GrpcTransport;

use crate::fake::*;
use crate::values::*;

#[tokio::test]
async fn every_call_between_nodes_arrives_with_all_its_fields_and_so_does_its_answer() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let (transport, peer) = (patient(), peer(server.local_addr()));
    let voters =
        VoterSets { sets: vec![[n(1), n(2)].into(), [n(1), n(3)].into()], nodes: [n(1), n(2), n(3), n(9)].into() };
    let bodies = [Body::Blank, Body::Command(envelope(300)), Body::Configuration(voters.clone())];
    let entries = bodies.into_iter().zip(5..).map(|(body, index)| LogEntry { at: at(3, index), body }).collect();
    let append = Append { ballot: ballot(3, 1), prev: Some(at(2, 4)), entries, commit: Some(at(2, 3)), renewed: None };
    let heartbeat = Append {
        ballot: ballot(3, 1),
        prev: None,
        entries: Vec::new(),
        commit: None,
        renewed: Some([life(3, 1), life(2, 9)].into()),
    };
    let snapshot = InstallSnapshot {
        ballot: ballot(9, 1),
        meta: SnapshotMeta { last: Some(at(8, 100)), configured: None, voters },
        data: envelope(1000).as_bytes().into(),
    };
    let transfer = Transfer { from: ballot(4, 1), to: n(2), last: None };

    let appended = transport.request(&peer, caller(), append.clone(), LIVENESS).await;
    assert_eq!(appended.unwrap(), Appended::Success);
    assert!(transport.request(&peer, caller(), heartbeat.clone(), LIVENESS).await.is_ok());
    assert_eq!(transport.request(&peer, caller(), vote_request(), LIVENESS).await.unwrap(), vote_answer());
    let pre = transport.request(&peer, caller(), PreVote(vote_request()), LIVENESS).await.unwrap();
    assert!(!pre.granted);
    assert_eq!(transport.request(&peer, caller(), snapshot.clone(), LIVENESS).await.unwrap(), ballot(8, 2));
    let transferred = transport.request(&peer, caller(), transfer, LIVENESS).await;
    assert_eq!(transferred.unwrap(), Transferred::Accepted);
    let proposed = transport.request(&peer, caller(), envelope(10), LIVENESS).await;
    assert_eq!(proposed.unwrap(), Proposed::Applied { revision: Revision::new(42) });
    assert_eq!(transport.request(&peer, caller(), ReadIndex, LIVENESS).await.unwrap(), Revision::new(1042));

    let renewed = transport.request(&peer, caller(), renewal(9), LIVENESS).await;
    assert_eq!(renewed.unwrap(), Renewed::Granted(renewal(9)));

    let expected = [
        Call::Append(caller(), append),
        Call::Append(caller(), heartbeat),
        Call::Vote(caller(), vote_request()),
        Call::PreVote(caller(), vote_request()),
        Call::Snapshot(caller(), snapshot),
        Call::Transfer(caller(), transfer),
        Call::Propose(caller(), envelope(10)),
        Call::ReadIndex(caller()),
        Call::Renew(caller(), renewal(9)),
    ];
    assert_eq!(fake.calls(), expected);
}

#[tokio::test]
async fn every_kind_of_answer_comes_back() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let (transport, peer) = (patient(), peer(server.local_addr()));
    let appended = [
        Appended::Success,
        Appended::Partial(None),
        Appended::Partial(Some(at(1, 2))),
        Appended::Conflict,
        Appended::HigherBallot(ballot(9, 3)),
    ];
    for answer in appended {
        fake.set(|script| script.appended = answer);
        assert_eq!(transport.request(&peer, caller(), append(1, 0), LIVENESS).await.unwrap(), answer);
    }
    let transfer = Transfer { from: ballot(4, 1), to: n(2), last: Some(at(3, 9)) };
    let transferred = [
        Transferred::Accepted,
        Transferred::BallotChanged { expected: ballot(4, 1), actual: ballot(5, 3) },
        Transferred::NotFlushed { expected: Some(at(3, 9)), actual: None },
    ];
    for answer in transferred {
        fake.set(|script| script.transferred = answer);
        assert_eq!(transport.request(&peer, caller(), transfer, LIVENESS).await.unwrap(), answer);
    }
    let proposed = [
        Proposed::Applied { revision: Revision::new(1) },
        Proposed::Rejected { revision: Revision::new(2), rejection: Rejection::UnknownNode(n(7)) },
        Proposed::NotLeader { leader: Some(n(3)) },
        Proposed::NotLeader { leader: None },
        Proposed::Unknown { reason: "leadership was lost".into() },
    ];
    for answer in proposed {
        fake.set(|script| script.proposed = answer.clone());
        assert_eq!(transport.request(&peer, caller(), envelope(1), LIVENESS).await.unwrap(), answer);
    }
}

#[tokio::test]
async fn a_process_joins_through_an_address_alone() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let address = Address::new(server.local_addr().to_string()).unwrap();
    let command = Payload::new(codec::encode(&join_command()).unwrap());
    let request = JoinRequest { cluster: Some(caller().cluster), command, timing: 99 };
    assert_eq!(patient().join(&address, request.clone(), LIVENESS).await.unwrap(), joined());
    let stranger = JoinRequest { cluster: None, ..request.clone() };
    assert_eq!(patient().join(&address, stranger.clone(), LIVENESS).await.unwrap(), joined());
    assert_eq!(fake.calls(), [Call::Join(request), Call::Join(stranger)]);
}

#[tokio::test]
async fn only_a_join_is_sent_as_a_join() {
    let remove = codec::encode(&Command::Remove { node: n(1), by: None }).unwrap();
    let request = JoinRequest { cluster: None, command: Payload::new(remove), timing: 0 };
    let nobody = Address::new("127.0.0.1:9").unwrap();
    let error = patient().join(&nobody, request, LIVENESS).await.unwrap_err();
    assert!(matches!(error, TransportError::Refused(Refusal::Malformed(_))), "{error}");
}

#[tokio::test]
async fn a_call_without_an_answer_ends_at_its_deadline() {
    let fake = Fake::new();
    fake.set(|script| script.hang = true);
    let server = serve(&fake).await;
    let peer = peer(server.local_addr());
    let deadline = Duration::from_secs(1);
    let error = patient().request(&peer, caller(), vote_request(), deadline).await.unwrap_err();
    // It may have arrived, or the machine was too slow to connect in time: either way it says so.
    assert!(matches!(error, TransportError::Timeout(given) if given == deadline), "{error}");
    fake.until(|calls| calls.contains(&Call::GivenUp)).await;
}

#[tokio::test]
async fn a_call_that_is_dropped_is_given_up_on_the_other_side_and_the_connection_stays() {
    let fake = Fake::new();
    fake.set(|script| script.hang = true);
    let server = serve(&fake).await;
    let (transport, peer) = (patient(), peer(server.local_addr()));
    let (asking, asked) = (transport.clone(), peer.clone());
    let call = tokio::spawn(async move { vote(&asking, &asked).await });
    fake.until(|calls| calls.len() == 1).await;
    call.abort();
    fake.until(|calls| calls.contains(&Call::GivenUp)).await;
    fake.set(|script| script.hang = false);
    assert!(vote(&transport, &peer).await.is_ok());
}

#[tokio::test]
async fn a_deadline_may_be_as_long_as_a_duration_can_be() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let (transport, peer) = (patient(), peer(server.local_addr()));
    assert!(transport.request(&peer, caller(), vote_request(), Duration::MAX).await.is_ok());
    let appends = futures_util::stream::iter([append(0, 1)]);
    let answers = transport.append_stream(&peer, caller(), Box::pin(appends), Duration::MAX).await.unwrap();
    assert_eq!(futures_util::StreamExt::count(answers).await, 1);
}

#[tokio::test]
async fn nobody_there_is_unreachable_with_the_address_and_the_reason() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = vote(&patient(), &peer(free)).await.unwrap_err();
    let TransportError::Unreachable(why) = error else { panic!("{error}") };
    assert!(why.contains("n2") && why.contains(&free.to_string()), "{why}");
}

#[tokio::test]
async fn a_server_that_vanishes_in_the_middle_leaves_the_end_open() {
    let fake = Fake::new();
    fake.set(|script| script.hang = true);
    let server = serve(&fake).await;
    let (transport, peer) = (patient(), peer(server.local_addr()));
    let call = tokio::spawn(async move { vote(&transport, &peer).await });
    fake.until(|calls| calls.len() == 1).await;
    drop(server);
    let error = call.await.unwrap().unwrap_err();
    assert!(matches!(error, TransportError::Broken(_)), "{error}");
}

#[test]
fn a_transport_can_be_shared_and_sent() {
    fn check<T: Transport + Clone + Send + Sync>(_: &T) {}
    check(&GrpcTransport::new());
    let _: Arc<dyn Transport> = Arc::new(GrpcTransport::default());
}
