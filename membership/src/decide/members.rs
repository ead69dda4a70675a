//! The rules for members: how a life joins and is activated, and how a node changes its role and is removed.

use super::checks::{another_voter, check_addresses, known_life, quorum_or, unknown};
use super::ending::leave;
use crate::cluster::{ClusterState, MAX_NODES};
use crate::contract::Contract;
use crate::event::Event;
use crate::id::{BootId, Identity, Incarnation, NodeId, Nonce, Revision};
use crate::member::{Address, Disk, FenceHint, Life, Phase, Role};
use crate::principal::Principal;
use crate::proof::FenceProof;
use crate::rejection::Rejection;

/// The contents of a join.
pub(super) struct Arrival<'a> {
    pub(super) node: NodeId,
    pub(super) role: Role,
    pub(super) addresses: &'a [Address],
    pub(super) disk: Disk,
    pub(super) boot: BootId,
    pub(super) nonce: Nonce,
    pub(super) contract: Contract,
    pub(super) left: Option<Incarnation>,
    pub(super) hint: Option<&'a FenceHint>,
}

impl Arrival<'_> {
    pub(super) fn join(self, state: &ClusterState, token: Revision) -> Result<Vec<Event>, Rejection> {
        let Self { node, role, addresses, disk, boot, nonce, contract, left, hint } = self;
        if state.retired.contains(&node) {
            return Err(Rejection::RetiredNode(node));
        }
        check_addresses(addresses)?;
        contract.check().map_err(Rejection::Contract)?;
        hint.map_or(Ok(()), FenceHint::check).map_err(Rejection::Text)?;
        let joined = |incarnation, role| {
            let (who, addresses) = (Identity::new(node, incarnation), addresses.to_vec());
            Event::Joined { who, role, addresses, disk, boot, nonce, contract, hint: hint.cloned() }
        };
        let Some(member) = state.members.get(&node) else {
            if state.members.len() + state.retired.len() >= MAX_NODES {
                return Err(Rejection::TooManyNodes { limit: MAX_NODES as u64 });
            }
            return Ok(vec![joined(Incarnation::new(1), role)]);
        };
        if member.disk.id != disk.id {
            return Err(Rejection::OtherDisk { node, known: member.disk.id, got: disk.id });
        }
        let newest = member.newest();
        if member.disk == disk && newest.is_some_and(|(_, life)| life.nonce == nonce) {
            return Ok(vec![]);
        }
        if disk.opened <= member.disk.opened {
            return Err(Rejection::ClonedDisk { node, known: member.disk, got: disk });
        }
        let mut events = vec![];
        // Only a life that may be working has something to report. One that is unknown has ended long ago.
        let stopped = left.filter(|life| member.lives.get(life).is_some_and(|life| life.phase.may_work()));
        if let Some(incarnation) = stopped {
            events.extend(leave(state, token, Identity::new(node, incarnation))?);
        }
        if let Some((incarnation, Life { phase: Phase::Joining, .. })) = newest {
            events.push(Event::Superseded { who: Identity::new(node, incarnation) });
        }
        let next = newest.map_or(Incarnation::new(1), |(incarnation, _)| incarnation.next());
        if mutant!("join_is_proof") {
            let proof = FenceProof::CleanLeave;
            let former = member.lives.iter().filter(|(_, life)| life.phase.may_work());
            events.extend(former.map(|(incarnation, _)| {
                let (who, token) = (Identity::new(node, *incarnation), state.revision);
                Event::Fenced { order: state.fences.upcoming(), who, proof: proof.clone(), token }
            }));
        }
        events.push(joined(next, member.role));
        Ok(events)
    }
}

/// A life works only after its node has the vote of its role, and after the end of every former life is proved.
pub(super) fn activate(state: &ClusterState, who: Identity) -> Result<Vec<Event>, Rejection> {
    let life = known_life(state, who)?;
    match life.phase {
        Phase::Active => return Ok(vec![]),
        Phase::Joining => {}
        phase @ (Phase::Fencing | Phase::Fenced | Phase::Left) => return Err(Rejection::Phase { who, phase }),
    }
    let member = state.members.get(&who.node).ok_or(Rejection::UnknownNode(who.node))?;
    let former = member.lives.iter().find(|(i, life)| **i != who.incarnation && !life.phase.has_ended());
    if let Some((incarnation, _)) = former {
        return Err(Rejection::FormerLife { who, former: Identity::new(who.node, *incarnation) });
    }
    let configured = match member.role.votes() {
        true => state.configuration.is_lasting_voter(who.node),
        false => state.configuration.contains(who.node),
    };
    if !configured {
        return Err(Rejection::NotConfigured(who.node));
    }
    Ok(vec![Event::Activated { who }])
}

pub(super) fn set_role(
    state: &ClusterState,
    node: NodeId,
    role: Role,
    by: Option<&Principal>,
) -> Result<Vec<Event>, Rejection> {
    let member = state.members.get(&node).ok_or(unknown(state, node))?;
    if member.role == role {
        return Ok(vec![]);
    }
    if role != Role::Voter {
        another_voter(state, node)?;
    }
    if member.role.votes() && !role.votes() {
        // The node takes part in its own demotion, and must not be needed afterwards.
        let mut rest = state.standing();
        quorum_or(&state.configuration, &rest, node)?;
        rest.remove(&node);
        quorum_or(&state.configuration.without_voter(node), &rest, node)?;
    }
    Ok(vec![Event::RoleChanged { node, role, by: by.cloned() }])
}

pub(super) fn set_addresses(
    state: &ClusterState,
    node: NodeId,
    addresses: &[Address],
    by: Option<&Principal>,
) -> Result<Vec<Event>, Rejection> {
    let member = state.members.get(&node).ok_or(unknown(state, node))?;
    check_addresses(addresses)?;
    if member.addresses == addresses {
        return Ok(vec![]);
    }
    Ok(vec![Event::Readdressed { node, addresses: addresses.to_vec(), by: by.cloned() }])
}

/// Only if no life of the node may be working, and only if the others hold a majority with and without its vote.
pub(super) fn remove(state: &ClusterState, node: NodeId, by: Option<&Principal>) -> Result<Vec<Event>, Rejection> {
    if state.retired.contains(&node) {
        return Ok(vec![]);
    }
    let member = state.members.get(&node).ok_or(Rejection::UnknownNode(node))?;
    if let Some((incarnation, _)) = member.lives.iter().find(|(_, life)| life.phase.may_work()) {
        return Err(Rejection::StillLives(Identity::new(node, *incarnation)));
    }
    another_voter(state, node)?;
    let mut rest = state.standing();
    rest.remove(&node);
    if state.configuration.is_voter(node) {
        quorum_or(&state.configuration, &rest, node)?;
        quorum_or(&state.configuration.without_voter(node), &rest, node)?;
    }
    let waiting = member.newest().filter(|(_, life)| life.phase == Phase::Joining);
    let dropped = waiting.map(|(incarnation, _)| Event::Superseded { who: Identity::new(node, incarnation) });
    Ok(dropped.into_iter().chain([Event::Removed { node, by: by.cloned() }]).collect())
}
