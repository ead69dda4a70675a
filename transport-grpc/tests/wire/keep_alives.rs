//! Keep-alives of sessions on their way to the leader: answered, refused, too late, not understood.

use std::time::Duration;

use prost::Message;
use quorate_membership::SessionId;
use quorate_raft_core::rpc::{KeepAlive, KeptAlive};
use quorate_raft_core::{Refusal, TransportError, TransportExt};
use quorate_transport_grpc::ServerSettings;
use tonic::Code;

use crate::fake::*;
use crate::pb;
use crate::renewals::{answering, first_of_a_stream};
use crate::values::*;

const SESSION: SessionId = SessionId::new(u64::MAX - 3);

#[tokio::test]
async fn a_session_is_alive_or_has_ended_or_another_node_has_to_be_asked() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let (transport, peer) = (patient(), peer(server.local_addr()));
    let answers = [
        KeptAlive::Alive { ttl: Duration::from_nanos(1_500_000_001) },
        KeptAlive::Ended,
        KeptAlive::NotLeader { leader: None },
        KeptAlive::NotLeader { leader: Some(n(3)) },
    ];
    for kept in answers {
        fake.set(|script| script.kept_alive = kept);
        assert_eq!(transport.request(&peer, caller(), KeepAlive(SESSION), LIVENESS).await.unwrap(), kept);
    }
    assert_eq!(fake.calls(), answers.map(|_| Call::KeepAlive(caller(), SESSION)));
}

#[tokio::test]
async fn a_caller_that_is_not_admitted_keeps_nothing_alive() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let (transport, peer) = (patient(), peer(server.local_addr()));
    for refusal in [Refusal::OtherTiming, Refusal::Retired(n(1)), Refusal::NotReady] {
        fake.set(|script| script.refuse = Some(refusal.clone()));
        let error = transport.request(&peer, caller(), KeepAlive(SESSION), LIVENESS).await.unwrap_err();
        assert_eq!(error, TransportError::Refused(refusal));
    }
    let nobody = pb::RelayKeepAliveRequest { caller: None, session: 1 };
    let status = raft(server.local_addr()).await.keep_alive(nobody).await.unwrap_err();
    assert!(status.code() == Code::InvalidArgument && status.message().contains("the caller is missing"), "{status}");
}

/// Like a renewal, it does not wait behind commands that hang, and ends at its own deadline.
#[tokio::test]
async fn a_keep_alive_waits_for_nothing_but_its_deadline() {
    let (fake, limit) = (Fake::new(), ServerSettings::default().max_streams);
    let server = serve(&fake).await;
    let (transport, peer, deadline) = (patient(), peer(server.local_addr()), Duration::from_millis(300));
    fake.set(|script| script.hang = true);
    let mut hanging = tokio::task::JoinSet::new();
    for _ in 0..limit + 10 {
        hanging.spawn(transport.request(&peer, caller(), envelope(10), 2 * LIVENESS));
    }
    fake.until(|calls| calls.len() >= limit as usize).await;
    let late = transport.request(&peer, caller(), KeepAlive(SESSION), deadline).await.unwrap_err();
    assert_eq!(late, TransportError::Timeout(deadline));
    fake.set(|script| script.hang = false);
    assert_eq!(transport.request(&peer, caller(), KeepAlive(SESSION), LIVENESS).await.unwrap(), KeptAlive::Ended);
}

/// What a newer node says in words that are not known here keeps nothing alive, and ends nothing.
#[tokio::test]
async fn an_answer_that_is_not_understood_says_nothing() {
    let unknown = pb::RelayKeepAliveResponse { result: Some(pb::KeptAlive { result: None }) }.encode_to_vec();
    // Field 9 of `KeptAlive`, an empty message: a fourth case.
    for message in [unknown, vec![0x0a, 2, 0x4a, 0], vec![]] {
        let newer = peer(answering(first_of_a_stream(5, &message)).await);
        let error = patient().request(&newer, caller(), KeepAlive(SESSION), LIVENESS).await.unwrap_err();
        let TransportError::Broken(why) = error else { panic!("{error}") };
        assert!(why.contains("the result of a keep-alive"), "{why}");
    }
}
