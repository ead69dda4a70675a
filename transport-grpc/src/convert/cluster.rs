//! The state of the cluster, outgoing only: a node rebuilds its state from commands, never from a message.

use std::collections::BTreeSet;

use quorate_membership::detector::Signal;
use quorate_membership::{
    Address, Cause, ClusterState, Configuration, FenceOrder, FenceProof, FenceRecord, Identity, Leadership, Life,
    Member, NodeId, Progress, Role, Store, awaited,
};
use quorate_raft_core::{LeaseStage, LeaseView, LinkState, LinkView, Local, View};

use super::raft::numbers;
use super::{FromWire, Malformed, clip, id_to, nanos};
use crate::pb;

/// The committed state and this node's own view, with the newest `history_limit` ended orders (0: all).
pub(crate) fn status(view: &View, history_limit: u32) -> pb::StatusResponse {
    pb::StatusResponse { committed: Some(recent(&view.cluster, history_limit)), local: Some(local(&view.local)) }
}

/// The committed state, with the newest `history_limit` ended orders (0: all).
pub(crate) fn recent(cluster: &ClusterState, history_limit: u32) -> pb::ClusterState {
    let mut committed = state(cluster);
    let limit = usize::try_from(history_limit).unwrap_or(usize::MAX);
    if limit > 0 && committed.history.len() > limit {
        committed.history.drain(..committed.history.len() - limit);
    }
    committed
}

/// The members alone.
pub(crate) fn members(cluster: &ClusterState) -> pb::MembersResponse {
    pb::MembersResponse {
        cluster: cluster.id().map(|id| id_to(id.get())),
        revision: cluster.revision().get(),
        epoch: cluster.epoch().get(),
        members: cluster.members().map(|(node, known)| member(cluster, node, known)).collect(),
        configuration: Some(cluster.configuration().into()),
    }
}

/// The committed state.
pub(crate) fn state(cluster: &ClusterState) -> pb::ClusterState {
    pb::ClusterState {
        cluster: cluster.id().map(|id| id_to(id.get())),
        revision: cluster.revision().get(),
        epoch: cluster.epoch().get(),
        members: cluster.members().map(|(node, known)| member(cluster, node, known)).collect(),
        retired: numbers(cluster.retired()),
        configuration: Some(cluster.configuration().into()),
        open_orders: cluster.fences().open().map(order).collect(),
        history: cluster.fences().history().map(record).collect(),
        failure_tolerance: cluster.failure_tolerance().map(|spare| spare as u64),
        leadership: cluster.leadership().map(Into::into),
        store: Some(counts(cluster.store())),
    }
}

/// The number of locks, records, queues and sessions, without their contents.
fn counts(store: &Store) -> pb::StoreCounts {
    pb::StoreCounts {
        locks: store.locks().count() as u64,
        records: store.record_count() as u64,
        queues: store.queues().count() as u64,
        sessions: store.sessions().count() as u64,
        bytes: store.bytes(),
    }
}

fn local(local: &Local) -> pb::LocalView {
    let Local {
        node,
        identity,
        quorate,
        leader,
        term,
        applied,
        sightings,
        lease,
        disk,
        links,
        unreached,
        damped,
        stopped,
        ..
    } = local;
    let sighting = |(node, sighting): (&NodeId, &quorate_raft_core::Sighting)| pb::Sighting {
        node: node.get(),
        signal: pb::Signal::from(sighting.signal).into(),
        silence_ns: nanos(sighting.silence),
    };
    pb::LocalView {
        node: node.get(),
        identity: identity.map(Into::into),
        quorate: *quorate,
        leader: leader.map(NodeId::get),
        term: *term,
        applied: applied.get(),
        sightings: sightings.iter().map(sighting).collect(),
        stopped: stopped.as_ref().map(|fatal| clip(&fatal.to_string())),
        lease: Some(lease.into()),
        disk: disk.as_deref().map(clip),
        unreached: unreached.as_deref().map(clip),
        damped: damped.as_deref().map(clip),
        // The server knows the rest.
        connections: None,
        plaintext: false,
        certificate_left_s: None,
        links: links.iter().flat_map(|(node, of)| of.links.iter().map(|link| self::link(*node, link))).collect(),
    }
}

fn link(node: NodeId, LinkView { address, state, used }: &LinkView) -> pb::Link {
    let state = match state {
        LinkState::Unknown => pb::LinkState::Unknown,
        LinkState::Up => pb::LinkState::Up,
        LinkState::SmallOnly => pb::LinkState::SmallOnly,
        LinkState::Down => pb::LinkState::Down,
    };
    pb::Link { node: node.get(), address: address.to_string(), state: state.into(), used: *used }
}

impl From<&LeaseView> for pb::Lease {
    fn from(LeaseView { stage, stop, armed, protecting, trouble, .. }: &LeaseView) -> Self {
        Self {
            stage: pb::LeaseStage::from(*stage).into(),
            stop: Some((*stop).into()),
            armed: *armed,
            protecting: protecting.iter().map(|name| clip(name)).collect(),
            trouble: trouble.as_deref().map(clip),
        }
    }
}

impl From<LeaseStage> for pb::LeaseStage {
    fn from(stage: LeaseStage) -> Self {
        match stage {
            LeaseStage::Lapsed => Self::Lapsed,
            LeaseStage::Notice => Self::Notice,
            LeaseStage::Held => Self::Held,
        }
    }
}

impl From<Leadership> for pb::Leadership {
    fn from(Leadership { activation, leader, nonce }: Leadership) -> Self {
        Self { activation: activation.get(), leader: leader.get(), nonce: id_to(nonce.get()) }
    }
}

fn member(state: &ClusterState, node: NodeId, member: &Member) -> pb::Member {
    let Member { role, addresses, disk, lives } = member;
    let life = |(incarnation, life): (&quorate_membership::Incarnation, &Life)| {
        let who = Identity::new(node, *incarnation);
        let Life { phase, boot, nonce, since, addresses, contract, process_bound, hint } = life;
        pb::Life {
            incarnation: incarnation.get(),
            phase: pb::Phase::from(*phase).into(),
            boot: id_to(boot.get()),
            nonce: id_to(nonce.get()),
            since: since.get(),
            addresses: texts(addresses),
            contract: Some((*contract).into()),
            process_bound: *process_bound,
            hint: hint.as_ref().map(ToString::to_string),
            awaits: awaited(state, who).map(|awaited| awaited.to_string()),
        }
    };
    pb::Member {
        node: node.get(),
        role: pb::Role::from(*role).into(),
        addresses: texts(addresses),
        disk: Some((*disk).into()),
        lives: lives.iter().map(life).collect(),
    }
}

/// Addresses as bare texts.
pub(super) fn texts(addresses: &[Address]) -> Vec<String> {
    addresses.iter().map(|address| address.as_str().to_owned()).collect()
}

fn order(order: &FenceOrder) -> pb::FenceOrder {
    use pb::fence_order::Progress as Out;
    let FenceOrder { id, target, cause, ordered, attempts, progress } = order;
    let progress = match progress {
        Progress::Ordered => Out::Waiting(pb::Done {}),
        Progress::Executing { by } => Out::ExecutingBy(by.get()),
        Progress::Failed { reason } => Out::Failed(reason.to_string()),
    };
    pb::FenceOrder {
        order: id.get(),
        target: Some((*target).into()),
        cause: Some(cause.into()),
        ordered: ordered.get(),
        attempts: *attempts,
        progress: Some(progress),
    }
}

fn record(record: &FenceRecord) -> pb::FenceRecord {
    let FenceRecord { id, target, cause, ordered, attempts, confirmed, proof, second } = record;
    pb::FenceRecord {
        order: id.get(),
        target: Some((*target).into()),
        cause: Some(cause.into()),
        ordered: ordered.get(),
        attempts: *attempts,
        confirmed: confirmed.get(),
        proof: Some(proof.into()),
        second: second.as_ref().map(Into::into),
    }
}

impl From<&Cause> for pb::Cause {
    fn from(cause: &Cause) -> Self {
        use pb::cause::Cause as Out;
        let cause_by = match cause {
            Cause::Requested { by, .. } => by.as_ref().map(ToString::to_string),
            _ => None,
        };
        let cause = match cause {
            Cause::Silent { for_ms } => Out::SilentMs(*for_ms),
            Cause::Returned { as_life } => Out::ReturnedAs((*as_life).into()),
            Cause::Requested { reason, by: _ } => Out::Requested(reason.to_string()),
            Cause::Lapsed => Out::Lapsed(pb::Done {}),
            Cause::Refused => Out::Refused(pb::Done {}),
        };
        Self { cause: Some(cause), requested_by: cause_by }
    }
}

impl From<&FenceProof> for pb::FenceProof {
    fn from(proof: &FenceProof) -> Self {
        use pb::fence_proof::Proof as Out;
        let proof = match proof {
            FenceProof::Device { by, attempt, evidence } => {
                Out::Device(pb::DeviceProof { by: by.get(), attempt: *attempt, evidence: evidence.to_string() })
            }
            FenceProof::CleanLeave => Out::CleanLeave(pb::Done {}),
            FenceProof::Operator { name, reason, by } => Out::Operator(pb::OperatorProof {
                name: name.to_string(),
                reason: reason.to_string(),
                given_by: by.as_ref().map(ToString::to_string),
            }),
            FenceProof::Expired { under, waited } => {
                Out::Expired(pb::Expiry { under: under.get(), waited_ns: nanos(*waited) })
            }
            FenceProof::Succeeded { by } => Out::SucceededBy((*by).into()),
        };
        Self { proof: Some(proof) }
    }
}

impl From<&Configuration> for pb::Configuration {
    fn from(configuration: &Configuration) -> Self {
        let set = |nodes: &BTreeSet<NodeId>| pb::NodeSet { nodes: numbers(nodes) };
        let (mut sets, nodes) = (configuration.sets(), configuration.nodes());
        let (voters, outgoing) = (sets.next().map(set), sets.next().map(set));
        let learners = nodes.iter().filter(|node| configuration.is_learner(**node));
        Self { voters, outgoing, learners: Some(pb::NodeSet { nodes: numbers(learners) }) }
    }
}

impl From<Role> for pb::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Voter => Self::Voter,
            Role::Learner => Self::Learner,
            Role::Witness => Self::Witness,
        }
    }
}

impl FromWire<pb::Role> for Role {
    fn from_wire(role: pb::Role) -> Result<Self, Malformed> {
        Ok(match role {
            pb::Role::Unspecified => {
                return Err(Malformed("the role is missing; give voter, learner or witness".into()));
            }
            pb::Role::Voter => Self::Voter,
            pb::Role::Learner => Self::Learner,
            pb::Role::Witness => Self::Witness,
        })
    }
}

impl From<Signal> for pb::Signal {
    fn from(signal: Signal) -> Self {
        match signal {
            Signal::Healthy => Self::Healthy,
            Signal::Suspect => Self::Suspect,
            Signal::Silent => Self::Silent,
            Signal::Refused => Self::Refused,
        }
    }
}
