//! The cluster as another language sees it: through the generated protocol, without our transport.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use quorate_membership::detector::Signal;
use quorate_membership::{Address, Cause, Command, Confirmation, FenceId, Rejection, Revision, Role, Stop, codec};
use quorate_raft_core::rpc::Payload;
use quorate_raft_core::transport::JoinRequest;
use quorate_raft_core::{
    Fatal, HandOverError, LeaseStage, LeaseView, LinkState, LinkView, Local, NodeLinks, ProposeError, Refusal,
    Sighting, View,
};
use quorate_transport_grpc::{Server, ServerSettings};
use tonic::{Code, Status};

use crate::fake::*;
use crate::pb;
use crate::stored::kept;
use crate::story::*;
use crate::values::*;

pub(crate) async fn started() -> (Arc<Fake>, Server) {
    let fake = Fake::new();
    let server = serve(&fake).await;
    (fake, server)
}

#[tokio::test]
async fn status_tells_what_is_committed_and_what_is_seen_apart() {
    let (fake, server) = started().await;
    let (state, _) = kept();
    let sighting = Sighting { signal: Signal::Suspect, silence: Duration::from_millis(650) };
    let mut lease = LeaseView::default();
    lease.stage = LeaseStage::Notice;
    lease.stop = Stop::Watchdog { timeout: Duration::from_secs(1), reset: Duration::from_millis(20) };
    lease.armed = true;
    lease.protecting = vec!["disk of vm 7".into()];
    lease.trouble = Some("the watchdog is open elsewhere".into());
    let mut local = Local::unknown(n(1));
    (local.identity, local.quorate, local.term) = (Some(life(1, 1)), true, 12);
    local.applied = Revision::new(19);
    local.sightings = BTreeMap::from([(n(2), sighting)]);
    local.lease = lease;
    local.disk = Some("the disk is full".into());
    let lost = LinkView { address: Address::new("10.0.0.2:7400").unwrap(), state: LinkState::SmallOnly, used: true };
    local.links = BTreeMap::from([(n(2), NodeLinks { links: vec![lost], reaches: BTreeSet::new() })]);
    local.unreached = Some("open its port".into());
    local.damped = Some("let others lead".into());
    local.stopped = Some(Fatal::Shutdown);
    fake.set(|script| script.view = View::new(Arc::new(state.clone()), local));
    let mut client = outside(server.local_addr()).await;
    let status = client.status(pb::StatusRequest { history_limit: 0 }).await.unwrap().into_inner();
    let committed = status.committed.unwrap();
    assert_eq!(committed.cluster, Some(id(7)));
    assert_eq!((committed.revision, committed.epoch), (state.revision().get(), state.epoch().get()));
    assert_eq!(committed.failure_tolerance, state.failure_tolerance().map(|spare| spare as u64));
    let configuration = committed.configuration.unwrap();
    assert_eq!(configuration.voters.unwrap().nodes, [1, 2, 4]);
    assert_eq!((configuration.outgoing, configuration.learners.unwrap().nodes), (None, vec![3, 5]));
    assert_eq!(committed.members.len(), 5);
    let third = &committed.members[2];
    assert_eq!((third.node, third.role()), (3, pb::Role::Learner));
    assert_eq!(third.addresses, ["10.0.0.3:7400"]);
    assert_eq!(third.disk, Some(pb::Disk { id: id(3), opened: 1 }));
    let ended = pb::Life {
        incarnation: 1,
        phase: pb::Phase::Fenced.into(),
        boot: id(103),
        nonce: id(203),
        since: 4,
        addresses: vec!["10.0.0.3:7400".into()],
        contract: Some(pb_contract()),
        process_bound: false,
        hint: Some("unit/3".into()),
        awaits: None,
    };
    assert_eq!(third.lives, [ended]);
    assert!(committed.members[0].lives[0].process_bound);
    let open = pb::FenceOrder {
        order: 2,
        target: Some(pb_life(2, 1)),
        cause: Some(pb::Cause {
            cause: Some(pb::cause::Cause::Requested("maintenance".into())),
            requested_by: Some("alice.operators".into()),
        }),
        ordered: 18,
        attempts: 0,
        progress: Some(pb::fence_order::Progress::Waiting(pb::Done {})),
    };
    assert_eq!(committed.open_orders, [open]);
    let proof = pb::DeviceProof { by: 1, attempt: 2, evidence: "read back: off".into() };
    let record = pb::FenceRecord {
        order: 1,
        target: Some(pb_life(3, 1)),
        cause: Some(pb::Cause { cause: Some(pb::cause::Cause::SilentMs(1500)), requested_by: None }),
        ordered: 12,
        attempts: 2,
        confirmed: 16,
        proof: Some(pb::FenceProof { proof: Some(pb::fence_proof::Proof::Device(proof)) }),
        second: Some(expired()),
    };
    assert_eq!(committed.history, [record]);
    let counts = pb::StoreCounts { locks: 2, records: 2, queues: 1, sessions: 2, bytes: 38 };
    assert_eq!(committed.store, Some(counts));
    assert_eq!(committed.leadership, Some(pb::Leadership { activation: 8, leader: 1, nonce: id(300) }));
    let sighting = pb::Sighting { node: 2, signal: pb::Signal::Suspect.into(), silence_ns: 650_000_000 };
    let expected = pb::LocalView {
        node: 1,
        identity: Some(pb_life(1, 1)),
        quorate: true,
        leader: None,
        term: 12,
        applied: 19,
        sightings: vec![sighting],
        stopped: Some("this node was shut down".into()),
        lease: Some(pb::Lease {
            stage: pb::LeaseStage::Notice.into(),
            stop: Some(pb::Stop {
                mechanism: Some(pb::stop::Mechanism::Watchdog(pb::Watchdog {
                    timeout_ns: 1_000_000_000,
                    reset_ns: 20_000_000,
                })),
            }),
            armed: true,
            protecting: vec!["disk of vm 7".into()],
            trouble: Some("the watchdog is open elsewhere".into()),
        }),
        disk: Some("the disk is full".into()),
        links: vec![pb::Link {
            node: 2,
            address: "10.0.0.2:7400".into(),
            state: pb::LinkState::SmallOnly.into(),
            used: true,
        }],
        unreached: Some("open its port".into()),
        damped: Some("let others lead".into()),
        connections: None,
        plaintext: true,
        certificate_left_s: None,
    };
    let open = pb::Connections { clients: 1, peers: 0, operators: 0, on_trial: 0 };
    assert_eq!(status.local, Some(pb::LocalView { connections: Some(open), ..expected }));

    let members = client.members(pb::MembersRequest {}).await.unwrap().into_inner();
    assert_eq!((members.members, members.revision), (committed.members, committed.revision));
}

#[tokio::test]
async fn every_command_arrives_as_what_it_says() {
    let (fake, server) = started().await;
    let mut client = outside(server.local_addr()).await;
    let word = || Some(pb::OperatorWord { name: "ada".into(), reason: "cable in my hand".into() });
    let target = || Some(pb_life(3, 2));
    let all = [
        client.set_role(pb::SetRoleRequest { node: 2, role: pb::Role::Witness.into() }).await,
        client.set_addresses(pb::SetAddressesRequest { node: 2, addresses: vec!["a:1".into(), "b:2".into()] }).await,
        client.remove(pb::RemoveRequest { node: 3 }).await,
        client.order_fence(pb::OrderFenceRequest { target: target(), reason: "smoke".into() }).await,
        client.confirm_fence(pb::ConfirmFenceRequest { order: 9, target: target(), word: word() }).await,
        client.vouch(pb::VouchRequest { target: target(), word: word() }).await,
    ];
    // The fake never applies anything; `nodes.rs` does.
    assert!(all.iter().all(|answer| answer.as_ref().is_err_and(|status| status.code() == Code::Unknown)));
    let (name, why) = (reason("ada"), reason("cable in my hand"));
    let expected = [
        Command::SetRole { node: n(2), role: Role::Witness, by: None },
        Command::SetAddresses {
            node: n(2),
            addresses: vec![Address::new("a:1").unwrap(), Address::new("b:2").unwrap()],
            by: None,
        },
        Command::Remove { node: n(3), by: None },
        Command::OrderFence {
            target: life(3, 2),
            cause: Cause::Requested { reason: reason("smoke"), by: None },
            under: None,
        },
        Command::ConfirmFence {
            order: FenceId::new(9),
            target: life(3, 2),
            confirmation: Confirmation::Operator { name: name.clone(), reason: why.clone(), by: None },
        },
        Command::Vouch { target: life(3, 2), name, reason: why, by: None },
    ];
    assert_eq!(fake.calls(), expected.map(Call::Command));
}

#[tokio::test]
async fn a_command_that_says_too_little_is_refused_with_the_reason_and_never_seen() {
    let (fake, server) = started().await;
    let mut client = outside(server.local_addr()).await;
    let target = || Some(pb_life(3, 2));
    let blank = Some(pb::OperatorWord { name: " ".into(), reason: "because".into() });
    let cases = [
        (client.set_role(pb::SetRoleRequest { node: 2, role: 0 }).await, "the role is missing"),
        (client.set_role(pb::SetRoleRequest { node: 2, role: 77 }).await, "the role is missing"),
        (
            client.set_addresses(pb::SetAddressesRequest { node: 2, addresses: vec!["".into()] }).await,
            "an address must not be empty",
        ),
        (client.order_fence(pb::OrderFenceRequest { target: target(), reason: "".into() }).await, "must not be empty"),
        (
            client.confirm_fence(pb::ConfirmFenceRequest { order: 9, target: target(), word: None }).await,
            "operator's word",
        ),
        (client.vouch(pb::VouchRequest { target: target(), word: blank }).await, "operator's name"),
    ];
    for (answer, expected) in cases {
        let status = answer.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(expected), "{status}");
    }
    assert_eq!(fake.calls(), []);
}

/// The failure in the details of a status.
pub(crate) fn failure(status: &Status) -> pb::Failure {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Rich {
        #[prost(int32, tag = "1")]
        code: i32,
        #[prost(message, repeated, tag = "3")]
        details: Vec<Any>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Any {
        #[prost(string, tag = "1")]
        type_url: String,
        #[prost(bytes = "vec", tag = "2")]
        value: Vec<u8>,
    }
    let rich: Rich = prost::Message::decode(status.details()).unwrap();
    assert_eq!(rich.code, status.code() as i32);
    assert_eq!(rich.details[0].type_url, "type.googleapis.com/quorate.v1.Failure");
    prost::Message::decode(rich.details[0].value.as_slice()).unwrap()
}

#[tokio::test]
async fn a_failed_command_says_in_its_details_what_it_did_and_did_not_do() {
    use pb::failure::Kind;
    let (fake, server) = started().await;
    let mut client = outside(server.local_addr()).await;
    let reason = || "n1 lost leadership".to_owned();
    let cases = [
        (ProposeError::NoLeader { waited: Duration::from_secs(10) }, Code::Unavailable, Kind::NoLeaderMs(10_000)),
        (
            ProposeError::OutcomeUnknown { reason: reason() },
            Code::Unknown,
            Kind::OutcomeUnknown(pb::OutcomeUnknown { reason: reason() }),
        ),
        (
            ProposeError::Encoding(codec::CodecError::TooLarge(9)),
            Code::InvalidArgument,
            Kind::Encoding(codec::CodecError::TooLarge(9).to_string()),
        ),
        (ProposeError::Stopped(Fatal::Shutdown), Code::Unavailable, Kind::Stopped("this node was shut down".into())),
    ];
    for (error, code, kind) in cases {
        fake.set(|script| script.command = error.clone());
        let status = client.remove(pb::RemoveRequest { node: 3 }).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (code, error.to_string().as_str()));
        let failure = failure(&status);
        assert_eq!((failure.kind, failure.message), (Some(kind), error.to_string()));
    }
    fake.set(|script| script.command = ProposeError::Rejected(Rejection::StillLives(life(3, 1))));
    let status = client.remove(pb::RemoveRequest { node: 3 }).await.unwrap_err();
    let Some(Kind::Rejected(rejection)) = failure(&status).kind else { panic!("{status}") };
    assert_eq!(
        (rejection.code.as_str(), rejection.kind),
        ("still_lives", Some(pb::rejection::Kind::StillLives(pb_life(3, 1))))
    );
    fake.set(|script| script.command = ProposeError::Refused(Refusal::NotReady));
    let status = client.remove(pb::RemoveRequest { node: 3 }).await.unwrap_err();
    let Some(Kind::Refused(refusal)) = failure(&status).kind else { panic!("{status}") };
    assert_eq!(refusal.code, "not_ready");
}

#[tokio::test]
async fn leadership_is_handed_over_or_it_is_said_why_not() {
    use pb::failure::Kind;
    let (fake, server) = started().await;
    let mut client = outside(server.local_addr()).await;
    assert_eq!(client.hand_over(pb::HandOverRequest { to: Some(3) }).await.unwrap().into_inner().leader, 3);
    assert!(client.hand_over(pb::HandOverRequest { to: None }).await.is_ok());
    assert_eq!(fake.calls(), [Call::HandOver(Some(n(3))), Call::HandOver(None)]);
    let cases = [
        (
            HandOverError::NotLeader { leader: Some(n(1)) },
            Code::FailedPrecondition,
            Kind::NotLeader(pb::NotLeader { leader: Some(1) }),
        ),
        (HandOverError::NotAVoter(n(4)), Code::FailedPrecondition, Kind::NotAVoter(4)),
        (HandOverError::Nobody, Code::FailedPrecondition, Kind::Nobody(pb::Done {})),
        (
            HandOverError::TimedOut { waited: Duration::from_secs(2) },
            Code::DeadlineExceeded,
            Kind::HandOverTimedOutMs(2000),
        ),
        (HandOverError::Stopped(Fatal::Shutdown), Code::Unavailable, Kind::Stopped("this node was shut down".into())),
    ];
    for (error, code, kind) in cases {
        fake.set(|script| script.hand_over = Err(error));
        let status = client.hand_over(pb::HandOverRequest { to: None }).await.unwrap_err();
        assert_eq!((status.code(), failure(&status).kind), (code, Some(kind)));
    }
}

#[tokio::test]
async fn any_language_can_let_a_node_join() {
    let (fake, server) = started().await;
    let mut client = outside(server.local_addr()).await;
    let request = pb::JoinRequest {
        cluster: None,
        timing: 5,
        node: 4,
        role: pb::Role::Witness.into(),
        addresses: vec!["10.0.0.4:7400".into(), "four.example:7400".into()],
        disk: Some(pb::Disk { id: id(44), opened: 3 }),
        boot: id(45),
        nonce: id(46),
        contract: Some(pb_contract()),
        left: Some(1),
        hint: Some("unit/4".into()),
    };
    let silent = client.join(pb::JoinRequest { contract: None, ..request.clone() }).await.unwrap_err();
    assert!(silent.code() == Code::InvalidArgument && silent.message().contains("the contract is missing"), "{silent}");
    let long = pb::JoinRequest { hint: Some("x".repeat(256)), ..request.clone() };
    let refused = client.join(long).await.unwrap_err();
    assert!(refused.message().contains("a fence hint has 256 bytes"), "{refused}");
    let answer = client.join(request).await.unwrap().into_inner();
    let expected = pb::JoinResponse { cluster: id(u128::MAX - 7), who: Some(pb_life(4, 2)), revision: 77 };
    assert_eq!(answer, expected);
    let command = Payload::new(codec::encode(&join_command()).unwrap());
    assert_eq!(fake.calls(), [Call::Join(JoinRequest { cluster: None, command, timing: 5 })]);
}

/// Whoever has nothing but a deadline of its own is told before it what is known, and not left with a bare code.
#[tokio::test]
async fn a_client_is_told_before_its_deadline_why_it_waits() {
    let fake = Fake::new();
    fake.set(|script| {
        script.hang = true;
        script.view.local.leader = None;
    });
    let server = serve(&fake).await;
    let mut request = tonic::Request::new(pb::WriteRequest { name: None, checks: vec![], changes: vec![] });
    request.set_timeout(Duration::from_secs(4));
    let status = store(server.local_addr()).await.write(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let said = status.message();
    assert!(
        said.contains("within 3.5s; it may still take effect") && said.contains("no leader is known here"),
        "{said}"
    );
}

#[tokio::test]
async fn shutting_down_does_not_wait_for_ever() {
    let fake = Fake::new();
    fake.set(|script| script.hang = true);
    let settings = ServerSettings { shutdown_grace: Duration::from_millis(200), ..ServerSettings::default() };
    let server = serve_with(&fake, settings);
    let (transport, to) = (patient(), peer(server.local_addr()));
    let call = tokio::spawn(async move { vote(&transport, &to).await });
    fake.until(|calls| calls.len() == 1).await;
    tokio::time::timeout(LIVENESS, server.shutdown()).await.expect("it ends");
    assert!(call.await.unwrap().is_err());
    fake.until(|calls| calls.contains(&Call::GivenUp)).await;
}
