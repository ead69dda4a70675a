//! Refusals and rejections come back as the very values that were given.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use quorate_membership::{
    Activation, ClusterId, ContractError, ContractPart, DiskId, Drift, FenceId, Phase, Rejection, Revision, TextError,
    codec,
};
use quorate_raft_core::rpc::{Append, Body, LogEntry, Payload, Proposed, ReadIndex};
use quorate_raft_core::transport::JoinRequest;
use quorate_raft_core::{Refusal, Transport, TransportError, TransportExt};
use quorate_transport_grpc::{APPEND_LIMIT, MESSAGE_LIMIT};
use tonic::Code;

use crate::fake::*;
use crate::pb;
use crate::values::*;

fn contract_errors() -> Vec<ContractError> {
    let (ms, high) = (Duration::from_millis, Duration::from_secs(3600));
    let mut all = vec![
        ContractError::Drift { got: Drift::ppm(400_001) },
        ContractError::Watchdog { timeout: ms(3000), lease: ms(2999) },
    ];
    let parts = [ContractPart::Lease, ContractPart::Stop, ContractPart::InFlight];
    all.extend(parts.map(|what| ContractError::Bounds { what, got: Duration::from_nanos(1), low: ms(1), high }));
    all
}

fn rejections() -> Vec<Rejection> {
    let ms = Duration::from_millis;
    let phases = [Phase::Joining, Phase::Active, Phase::Fencing, Phase::Fenced, Phase::Left];
    let mut all = vec![
        Rejection::AlreadyFounded(ClusterId::new(1 << 127 | 5)),
        Rejection::NotFounded,
        Rejection::UnknownNode(n(1)),
        Rejection::RetiredNode(n(2)),
        Rejection::OtherDisk { node: n(3), known: DiskId::new(1), got: DiskId::new(2) },
        Rejection::ClonedDisk { node: n(4), known: disk(3, 4), got: disk(5, 6) },
        Rejection::TooManyNodes { limit: 4096 },
        Rejection::Addresses { got: 9, limit: 8 },
        Rejection::Text(TextError::Empty { what: "a reason".into() }),
        Rejection::Text(TextError::TooLong { what: "an address".into(), length: 256, limit: 255 }),
        Rejection::UnknownLife(life(5, 6)),
        Rejection::Replaced { who: life(6, 1), newest: life(6, 2) },
        Rejection::FormerLife { who: life(7, 4), former: life(7, 3) },
        Rejection::NotConfigured(n(8)),
        Rejection::Majority { without: n(9), standing: 1, voters: 3 },
        Rejection::UnknownOrder(FenceId::new(10)),
        Rejection::OtherTarget { order: FenceId::new(11), target: life(1, 2), got: life(3, 4) },
        Rejection::Attempt { order: FenceId::new(12), at: 3, got: 5 },
        Rejection::StillLives(life(13, 1)),
        Rejection::LastVoter(n(14)),
        Rejection::OtherActivation { under: Activation::new(57), current: Some(Activation::new(60)) },
        Rejection::OtherActivation { under: Activation::new(57), current: None },
        Rejection::WithoutActivation,
        Rejection::NeverExpires(life(16, 1)),
        Rejection::NotProcessBound(life(18, 1)),
        Rejection::NotItsSuccessor { who: life(19, 2), former: life(19, 1) },
        Rejection::NotOver(life(20, 1)),
        Rejection::TooEarly { who: life(17, 1), waited: Duration::from_nanos(3_312_999_999), need: ms(3313) },
    ];
    all.extend(crate::stored::rejections());
    all.extend(contract_errors().into_iter().map(Rejection::Contract));
    all.extend(phases.map(|phase| Rejection::Phase { who: life(15, 1), phase }));
    all
}

fn refusals() -> Vec<Refusal> {
    let mut all = vec![
        Refusal::OtherCluster { ours: ClusterId::new(1), theirs: ClusterId::new(u128::MAX) },
        Refusal::OtherNode { meant: n(2), here: n(3) },
        Refusal::Retired(n(4)),
        Refusal::OtherDisk { node: n(5), known: disk(1, 2), got: disk(3, 4) },
        Refusal::ClonedDisk { node: n(6), known: disk(5, 6), got: disk(7, 8) },
        Refusal::TwoProcesses(n(7)),
        Refusal::OtherTiming,
        Refusal::Embargo { remaining: Duration::from_nanos(816_161_616) },
        Refusal::NotReady,
        Refusal::Stopped("storage failed: ENOSPC".into()),
        Refusal::Malformed("no sense – at all".into()),
        Refusal::NotAllowed("for an operator".into()),
        Refusal::Unavailable("busy".into()),
    ];
    all.extend(rejections().into_iter().map(Refusal::Rejected));
    all
}

/// The lists above hold one of each, by name: a variant added elsewhere has to be added here and to the protocol.
#[test]
fn the_lists_are_complete() {
    let rejections: BTreeSet<_> = rejections().iter().map(name).collect();
    let refusals: BTreeSet<_> = refusals().iter().map(name).collect();
    let source = include_str!("../../../membership/src/rejection.rs");
    assert_eq!(rejections, variants(source, "pub enum Rejection {"));
    let errors: BTreeSet<_> = contract_errors().iter().map(name).collect();
    let source = include_str!("../../../membership/src/contract.rs");
    assert_eq!(errors, variants(source, "pub enum ContractError {"));
    let source = include_str!("../../../raft-core/src/error.rs");
    assert_eq!(refusals, variants(source, "pub enum Refusal {"));
}

pub(crate) fn name(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").chars().take_while(char::is_ascii_alphanumeric).collect()
}

pub(crate) fn variants(source: &str, from: &str) -> BTreeSet<String> {
    let body = source.split_once(from).unwrap().1.split_once("\n}").unwrap().0;
    let variant = |line: &str| {
        let line = line.strip_prefix("    ").filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()))?;
        Some(line.chars().take_while(char::is_ascii_alphanumeric).collect())
    };
    body.lines().filter_map(variant).collect()
}

#[tokio::test]
async fn every_refusal_comes_back_from_every_kind_of_call() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let (transport, peer) = (patient(), peer(server.local_addr()));
    let join = JoinRequest { cluster: None, command: Payload::new(codec::encode(&join_command()).unwrap()), timing: 0 };
    for refusal in refusals() {
        fake.set(|script| script.refuse = Some(refusal.clone()));
        let expected = TransportError::Refused(refusal);
        assert_eq!(vote(&transport, &peer).await.unwrap_err(), expected);
        assert_eq!(transport.request(&peer, caller(), append(1, 5), LIVENESS).await.unwrap_err(), expected);
        assert_eq!(transport.request(&peer, caller(), ReadIndex, LIVENESS).await.unwrap_err(), expected);
        assert_eq!(transport.request(&peer, caller(), renewal(7), LIVENESS).await.unwrap_err(), expected);
        let joined = transport.join(&peer.addresses[0], join.clone(), LIVENESS).await;
        assert_eq!(joined.unwrap_err(), expected);
        let appends = stream::iter([append(0, 1)]).boxed();
        let answers = transport.append_stream(&peer, caller(), appends, LIVENESS).await.unwrap();
        assert_eq!(answers.collect::<Vec<_>>().await, [Err(expected)]);
    }
}

#[tokio::test]
async fn every_rejection_comes_back_from_a_proposal() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let (transport, peer) = (patient(), peer(server.local_addr()));
    for rejection in rejections() {
        let expected = Proposed::Rejected { revision: Revision::new(5), rejection };
        fake.set(|script| script.proposed = expected.clone());
        assert_eq!(transport.request(&peer, caller(), envelope(1), LIVENESS).await.unwrap(), expected);
    }
}

/// Errors travel in headers, which have a bound: a long text is cut, and the rest of the answer is not lost over it.
#[tokio::test]
async fn the_longest_texts_still_fit() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let (transport, peer) = (patient(), peer(server.local_addr()));
    let long = "é".repeat(5000);
    for (refusal, cut) in [
        (Refusal::Stopped(long.clone()), Refusal::Stopped("é".repeat(512))),
        (
            Refusal::Rejected(Rejection::Text(TextError::Empty { what: long.clone() })),
            Refusal::Rejected(Rejection::Text(TextError::Empty { what: "é".repeat(512) })),
        ),
    ] {
        fake.set(|script| script.refuse = Some(refusal));
        assert_eq!(vote(&transport, &peer).await.unwrap_err(), TransportError::Refused(cut));
    }
}

/// Another language sees the code, the text, and the details where its own library looks for them.
#[tokio::test]
async fn a_refusal_reads_well_without_our_transport() {
    let fake = Fake::new();
    fake.set(|script| script.refuse = Some(Refusal::Embargo { remaining: Duration::from_millis(816) }));
    let server = serve(&fake).await;
    let mut client = raft(server.local_addr()).await;
    let full = pb::ReadIndexRequest { caller: Some(pb_caller()) };
    let status = client.read_index(full).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().starts_with("no vote before 816ms"), "{status}");
    let details = String::from_utf8_lossy(status.details()).into_owned();
    assert!(details.contains("type.googleapis.com/quorate.v1.Refusal"), "{details}");
    fake.set(|script| script.refuse = None);
    for half in [pb::ReadIndexRequest { caller: None }, pb::ReadIndexRequest { caller: Some(pb::Caller::default()) }] {
        let status = client.read_index(half).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
    }
}

pub(crate) fn pb_caller() -> pb::Caller {
    let id = || bytes::Bytes::from(vec![1; 16]);
    let disk = Some(pb::Disk { id: id(), opened: 1 });
    pb::Caller { cluster: id(), from: 1, to: 2, disk, timing: 3, process: id(), callee: None }
}

#[tokio::test]
async fn a_damaged_command_is_refused_before_the_service_sees_it() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let (transport, peer) = (patient(), peer(server.local_addr()));
    let sound = envelope(64);
    for at in 0..sound.as_bytes().len() {
        let mut bytes = sound.as_bytes().to_vec();
        bytes[at] ^= 0x10;
        let damaged = Payload::new(bytes);
        let entries = vec![LogEntry { at: crate::values::at(3, 1), body: Body::Command(damaged.clone()) }];
        let append = transport.request(&peer, caller(), Append { entries, ..append(1, 0) }, LIVENESS).await;
        let propose = transport.request(&peer, caller(), damaged, LIVENESS).await;
        for error in [append.unwrap_err(), propose.unwrap_err()] {
            assert!(matches!(error, TransportError::Refused(Refusal::Malformed(_))), "byte {at}: {error}");
        }
    }
    assert_eq!(fake.calls(), []);
}

#[tokio::test]
async fn what_is_too_large_is_refused_on_this_side_before_it_is_sent() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let (transport, peer) = (patient(), peer(server.local_addr()));
    let append = transport.request(&peer, caller(), append(1, APPEND_LIMIT), LIVENESS).await.unwrap_err();
    let propose = transport.request(&peer, caller(), envelope(MESSAGE_LIMIT), LIVENESS).await.unwrap_err();
    for (error, what, limit) in [(append, "the append", APPEND_LIMIT), (propose, "the command", MESSAGE_LIMIT)] {
        let TransportError::Refused(Refusal::Malformed(why)) = error else { panic!("{error}") };
        assert!(
            why.starts_with(what) && why.contains(&limit.to_string()) && why.ends_with("nothing was sent"),
            "{why}"
        );
    }
    assert_eq!(fake.calls(), []);
}

#[tokio::test]
async fn what_is_too_large_is_refused_on_the_other_side_as_well() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let mut client = raft(server.local_addr()).await;
    let command = bytes::Bytes::from(vec![0; MESSAGE_LIMIT + 1]);
    let status = client.propose(pb::ProposeRequest { caller: Some(pb_caller()), command }).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().contains("too large") && status.message().contains("send less"), "{status}");
    let body = Some(pb::entry::Body::Command(vec![0; APPEND_LIMIT].into()));
    let entries = vec![pb::Entry { at: Some(pb::Position::default()), body }];
    let append = pb::Append { ballot: Some(pb::Ballot::default()), entries, ..pb::Append::default() };
    let request = pb::AppendRequest { caller: Some(pb_caller()), append: Some(append) };
    let status = client.append(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert_eq!(fake.calls(), []);
    // Four mebibytes are the bound of everything else: an append may be larger.
    let transport = patient();
    let (to, large) = (peer(server.local_addr()), append_of(8 << 20));
    assert!(transport.request(&to, caller(), large, LIVENESS).await.is_ok());
}

fn append_of(size: usize) -> Append {
    append(1, size)
}
