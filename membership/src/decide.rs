//! `decide`: what follows from a command. The rules of the cluster, each in one place.
//!
//! ```text
//!   decide(&state, revision, &command) ─▶ Ok(events)      the events are the whole answer; none = already so
//!                                      └▶ Err(rejection)  nothing changed, and it says what to do
//! ```
//!
//! The state comes in by shared reference, so "a rejection changes nothing" (I16) holds by type. Every command may be
//! repeated: networks repeat, and an outcome that was lost must be safe to ask for again.
//!
//! How lives are fenced is in `decide/fencing.rs`, how they end in `decide/ending.rs`; locks are in `decide/locks.rs`,
//! records, queues and sessions in `decide/writes.rs`.
//!
//! The `quorate_mutant` branches are seeded mistakes. No build has them but the one of `make mutants`, which checks
//! that a named test catches each.

mod ending;
mod fencing;
mod locks;
mod writes;

use crate::cluster::{ClusterState, Disk, Leadership, Life, MAX_ADDRESSES, MAX_NODES, Phase, Role};
use crate::command::Command;
use crate::contract::Contract;
use crate::event::Event;
use crate::fencing::FenceProof;
use crate::id::{Activation, BootId, Identity, Incarnation, NodeId, Nonce, Revision};
use crate::quorum::Configuration;
use crate::rejection::Rejection;
use crate::text::Address;

/// Answers `command`, which stands in the log at `revision`.
///
/// # Errors
/// A [`Rejection`], which changed nothing.
pub fn decide(state: &ClusterState, revision: Revision, command: &Command) -> Result<Vec<Event>, Rejection> {
    let mut events = answer(state, revision, command)?;
    locks::pass_on(state, revision, &mut events);
    Ok(events)
}

fn answer(state: &ClusterState, revision: Revision, command: &Command) -> Result<Vec<Event>, Rejection> {
    match command {
        Command::Found { cluster } => match state.id {
            None => Ok(vec![Event::Founded { cluster: *cluster }]),
            Some(known) if known == *cluster => Ok(vec![]),
            Some(known) => Err(Rejection::AlreadyFounded(known)),
        },
        Command::Configure { configuration } => {
            let same = state.configuration == *configuration;
            Ok(if same { vec![] } else { vec![Event::Configured { configuration: configuration.clone() }] })
        }
        _ if state.id.is_none() => Err(Rejection::NotFounded),
        Command::Join { node, role, addresses, disk, boot, nonce, contract } => {
            let (node, role, disk, boot, nonce, contract) = (*node, *role, *disk, *boot, *nonce, *contract);
            Arrival { node, role, addresses, disk, boot, nonce, contract }.join(state)
        }
        Command::Activate { who } => activate(state, *who),
        Command::OrderFence { target, cause, under } => fencing::order(state, revision, *target, cause, *under),
        Command::StartFence { order, by, attempt } => fencing::start(state, *order, *by, *attempt),
        Command::FailFence { order, attempt, reason } => fencing::fail(state, *order, *attempt, reason),
        Command::ConfirmFence { order, target, confirmation } => {
            ending::confirm(state, revision, *order, *target, confirmation)
        }
        Command::Vouch { target, name, reason } => ending::vouch(state, revision, *target, name, reason),
        Command::Leave { who } => ending::leave(state, revision, *who),
        Command::ActivateLeader { leader, nonce } => activate_leader(state, revision, *leader, *nonce),
        Command::Expire { target, under, waited } => ending::expire(state, revision, *target, *under, *waited),
        Command::SetRole { node, role } => set_role(state, *node, *role),
        Command::SetAddresses { node, addresses } => {
            let member = state.members.get(node).ok_or(unknown(state, *node))?;
            check_addresses(addresses)?;
            let same = member.addresses == *addresses;
            Ok(if same { vec![] } else { vec![Event::Readdressed { node: *node, addresses: addresses.clone() }] })
        }
        Command::Remove { node } => remove(state, *node),
        Command::DeclareProcessBound { who } => ending::declare_mortal(state, *who),
        Command::Inherit { who, former } => ending::inherit(state, revision, *who, *former),
        Command::Lock { request, name, holder, wait } => locks::lock(state, revision, *request, name, *holder, *wait),
        Command::Unlock { name, holder, token } => Ok(locks::unlock(state, revision, name, *holder, *token)),
        Command::Settle { request, lock } => locks::settle(state, revision, *request, lock.as_ref()),
        Command::Write { request, checks, changes } => writes::write(state, revision, *request, checks, changes),
        Command::Take { request, queue, token } => writes::take(state, revision, *request, queue, *token),
        Command::OpenSession { request, session } => writes::open(state, revision, *request, session),
        Command::CloseSession { session } => Ok(writes::close(state, *session)),
        Command::ExpireSession { session, under, waited } => writes::expire(state, *session, *under, *waited),
        Command::LiftDelay { name, token, under, waited } => {
            locks::lift(state, revision, name, *token, *under, *waited)
        }
    }
}

/// A process of a node that asks to be let in.
struct Arrival<'a> {
    node: NodeId,
    role: Role,
    addresses: &'a [Address],
    disk: Disk,
    boot: BootId,
    nonce: Nonce,
    contract: Contract,
}

impl Arrival<'_> {
    fn join(self, state: &ClusterState) -> Result<Vec<Event>, Rejection> {
        let Self { node, role, addresses, disk, boot, nonce, contract } = self;
        if state.retired.contains(&node) {
            return Err(Rejection::RetiredNode(node));
        }
        check_addresses(addresses)?;
        contract.check().map_err(Rejection::Contract)?;
        let joined = |incarnation, role| {
            let (who, addresses) = (Identity::new(node, incarnation), addresses.to_vec());
            Event::Joined { who, role, addresses, disk, boot, nonce, contract }
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
        if let Some((incarnation, Life { phase: Phase::Joining, .. })) = newest {
            events.push(Event::Superseded { who: Identity::new(node, incarnation) });
        }
        let next = newest.map_or(Incarnation::new(1), |(incarnation, _)| incarnation.next());
        if cfg!(quorate_mutant = "join_is_proof") {
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

/// The vote comes before the work, and the end of the former lives comes before either is used.
fn activate(state: &ClusterState, who: Identity) -> Result<Vec<Event>, Rejection> {
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

/// P4. The number is the entry's own, so activations strictly grow (I20). Said twice with one nonce it is one.
fn activate_leader(
    state: &ClusterState,
    revision: Revision,
    leader: NodeId,
    nonce: Nonce,
) -> Result<Vec<Event>, Rejection> {
    if !state.members.contains_key(&leader) {
        return Err(unknown(state, leader));
    }
    if state.leadership.is_some_and(|current| current.leader == leader && current.nonce == nonce) {
        return Ok(vec![]);
    }
    let activation = Activation::new(revision.get());
    Ok(vec![Event::LeaderActivated { leadership: Leadership { activation, leader, nonce } }])
}

fn set_role(state: &ClusterState, node: NodeId, role: Role) -> Result<Vec<Event>, Rejection> {
    let member = state.members.get(&node).ok_or(unknown(state, node))?;
    if member.role == role {
        return Ok(vec![]);
    }
    if role != Role::Voter {
        another_voter(state, node)?;
    }
    if member.role.votes() && !role.votes() {
        // The node is there to agree to its own demotion, and must not be needed afterwards.
        let mut rest = state.standing();
        quorum_or(&state.configuration, &rest, node)?;
        rest.remove(&node);
        quorum_or(&state.configuration.without_voter(node), &rest, node)?;
    }
    Ok(vec![Event::RoleChanged { node, role }])
}

/// Only for a node with nothing left that could act, and only while the rest can agree to it.
fn remove(state: &ClusterState, node: NodeId) -> Result<Vec<Event>, Rejection> {
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
    Ok(dropped.into_iter().chain([Event::Removed { node }]).collect())
}

fn known_life(state: &ClusterState, who: Identity) -> Result<&Life, Rejection> {
    state.life(who).ok_or_else(|| match state.newest(who.node) {
        Some(newest) if newest > who => Rejection::Replaced { who, newest },
        Some(_) => Rejection::UnknownLife(who),
        None => unknown(state, who.node),
    })
}

fn unknown(state: &ClusterState, node: NodeId) -> Rejection {
    if state.retired.contains(&node) { Rejection::RetiredNode(node) } else { Rejection::UnknownNode(node) }
}

fn check_addresses(addresses: &[Address]) -> Result<(), Rejection> {
    if addresses.is_empty() || addresses.len() > MAX_ADDRESSES {
        return Err(Rejection::Addresses { got: addresses.len() as u64, limit: MAX_ADDRESSES as u64 });
    }
    addresses.iter().try_for_each(Address::check).map_err(Rejection::Text)
}

fn quorum_or(
    configuration: &Configuration,
    rest: &std::collections::BTreeSet<NodeId>,
    without: NodeId,
) -> Result<(), Rejection> {
    if configuration.has_quorum(rest) {
        return Ok(());
    }
    let voters = configuration.voters();
    let standing = voters.intersection(rest).count() as u64;
    Err(Rejection::Majority { without, standing, voters: voters.len() as u64 })
}

fn another_voter(state: &ClusterState, node: NodeId) -> Result<(), Rejection> {
    let others = state.members.iter().any(|(other, member)| *other != node && member.role == Role::Voter);
    if others { Ok(()) } else { Err(Rejection::LastVoter(node)) }
}
