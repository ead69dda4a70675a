//! A leader's question whether a member's fencer could carry out an order.

use quorate_membership::FenceId;
use quorate_raft_core::rpc::{CanFence, FencerReach};
use quorate_raft_core::{Refusal, TransportError, TransportExt};
use tonic::Code;

use crate::fake::*;
use crate::pb;
use crate::renewals::answering;
use crate::values::*;

const ORDER: FenceId = FenceId::new(u64::MAX - 3);

#[tokio::test]
async fn a_member_says_whether_its_fencer_reaches_the_device() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let (transport, peer) = (patient(), peer(server.local_addr()));
    for reach in [FencerReach::Reaches, FencerReach::Fails] {
        fake.set(|script| script.reach = reach);
        assert_eq!(transport.request(&peer, caller(), CanFence(ORDER), LIVENESS).await.unwrap(), reach);
    }
    assert_eq!(fake.calls(), [Call::CanFence(caller(), ORDER), Call::CanFence(caller(), ORDER)]);
}

#[tokio::test]
async fn a_caller_that_is_not_admitted_is_told_nothing() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let (transport, peer) = (patient(), peer(server.local_addr()));
    fake.set(|script| script.refuse = Some(Refusal::Retired(n(1))));
    let error = transport.request(&peer, caller(), CanFence(ORDER), LIVENESS).await.unwrap_err();
    assert_eq!(error, TransportError::Refused(Refusal::Retired(n(1))));
    let nobody = pb::CanFenceRequest { caller: None, order: 1 };
    let status = raft(server.local_addr()).await.can_fence(nobody).await.unwrap_err();
    assert!(status.code() == Code::InvalidArgument && status.message().contains("the caller is missing"), "{status}");
}

/// Only a yes is a yes.
#[tokio::test]
async fn an_empty_answer_says_no() {
    let empty = peer(answering(vec![]).await);
    let said = patient().request(&empty, caller(), CanFence(ORDER), LIVENESS).await;
    assert_eq!(said.unwrap(), FencerReach::Fails);
}
