//! A cluster to which much has happened, and what its protocol looks like from outside.

use std::time::Duration;

use quorate_membership::{
    Activation, Address, BootId, Cause, ClusterId, ClusterState, Command, Configuration, Confirmation, Event, Evidence,
    FenceHint, FenceId, Nonce, Principal, Reason, Revision, Role, apply,
};

use crate::pb;
use crate::values::*;

pub(crate) fn reason(text: &str) -> Reason {
    Reason::new(text).unwrap()
}

pub(crate) fn id(bits: u128) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(&bits.to_be_bytes())
}

pub(crate) fn pb_life(node: u64, incarnation: u64) -> pb::Identity {
    pb::Identity { node, incarnation }
}

/// Five nodes, led by n1: n3 was fenced by a device, and its lease ran out as well; n5 left; n2 is being fenced;
/// the work of n1 dies with its process.
pub(crate) fn eventful() -> (ClusterState, Vec<(Revision, Event)>) {
    let mut state = ClusterState::new();
    let mut events = Vec::new();
    let join = |node: u64| Command::Join {
        node: n(node),
        role: if node % 2 == 1 && node > 1 { Role::Learner } else { Role::Voter },
        addresses: vec![Address::new(format!("10.0.0.{node}:7400")).unwrap()],
        disk: disk(node.into(), 1),
        boot: BootId::new(100 + u128::from(node)),
        nonce: Nonce::new(200 + u128::from(node)),
        contract: contract(),
        left: None,
        hint: FenceHint::new(format!("unit/{node}")).ok(),
    };
    let device = Confirmation::Device { by: n(1), attempt: 2, evidence: Evidence::new("read back: off").unwrap() };
    let (order, target) = (FenceId::new(1), life(3, 1));
    let under = Activation::new(8);
    let requested =
        Cause::Requested { reason: reason("maintenance"), by: Some(Principal::new("alice.operators").unwrap()) };
    let commands = [
        Command::Found { cluster: ClusterId::new(7) },
        join(1),
        join(2),
        join(3),
        join(4),
        join(5),
        Command::Configure { configuration: Configuration::uniform([n(1), n(2), n(4)], [n(3), n(5)]) },
        Command::ActivateLeader { leader: n(1), nonce: Nonce::new(300) },
        Command::Activate { who: life(1, 1) },
        Command::Activate { who: life(2, 1) },
        Command::Activate { who: life(3, 1) },
        Command::OrderFence { target, cause: Cause::Silent { for_ms: 1500 }, under: Some(under) },
        Command::StartFence { order, by: n(1), attempt: 1 },
        Command::FailFence { order, attempt: 1, reason: reason("no power to the device") },
        Command::StartFence { order, by: n(1), attempt: 2 },
        Command::ConfirmFence { order, target, confirmation: device },
        Command::Leave { who: life(5, 1) },
        Command::OrderFence { target: life(2, 1), cause: requested, under: None },
        Command::Expire { target, under, waited: Duration::from_millis(700) },
        Command::DeclareProcessBound { who: life(1, 1) },
    ];
    for (command, revision) in commands.iter().zip(1..) {
        let revision = Revision::new(revision);
        let applied = apply(&mut state, revision, command).unwrap_or_else(|error| panic!("{command:?}: {error}"));
        events.extend(applied.into_iter().map(|event| (revision, event)));
    }
    (state, events)
}

/// [`contract`] on the wire.
pub(crate) fn pb_contract() -> pb::Contract {
    let stop = pb::Stop { mechanism: Some(pb::stop::Mechanism::DeadmanLatenessNs(50_000_000)) };
    pb::Contract { lease_ns: 600_000_000, stop: Some(stop), in_flight_ns: 7, drift_ppm: 20_000 }
}

/// The proof by time of the story, on the wire.
pub(crate) fn expired() -> pb::FenceProof {
    let expiry = pb::Expiry { under: 8, waited_ns: 700_000_000 };
    pb::FenceProof { proof: Some(pb::fence_proof::Proof::Expired(expiry)) }
}
