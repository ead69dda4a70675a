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
//! The `quorate_mutant` branches are seeded mistakes. No build has them but the one of `make mutants`, which checks
//! that a named test catches each.

use crate::cluster::{Cluster, Disk, Life, MAX_ADDRESSES, MAX_NODES, Phase, Role};
use crate::command::Command;
use crate::event::Event;
use crate::fencing::{Cause, Confirmation, FenceOrder, FenceProof, Progress};
use crate::id::{BootId, FenceId, Identity, Incarnation, NodeId, Nonce, Revision};
use crate::quorum::Configuration;
use crate::rejection::Rejection;
use crate::text::{Address, Reason};

/// Answers `command`, which stands in the log at `revision`.
///
/// # Errors
/// A [`Rejection`], which changed nothing.
pub fn decide(state: &Cluster, revision: Revision, command: &Command) -> Result<Vec<Event>, Rejection> {
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
        Command::Join { node, role, addresses, disk, boot, nonce } => {
            Arrival { node: *node, role: *role, addresses, disk: *disk, boot: *boot, nonce: *nonce }.join(state)
        }
        Command::Activate { who } => activate(state, *who),
        Command::OrderFence { target, cause } => order_fence(state, *target, cause),
        Command::StartFence { order, by, attempt } => start_fence(state, *order, *by, *attempt),
        Command::FailFence { order, attempt, reason } => fail_fence(state, *order, *attempt, reason),
        Command::ConfirmFence { order, target, confirmation } => {
            confirm_fence(state, revision, *order, *target, confirmation)
        }
        Command::Vouch { target, name, reason } => vouch(state, revision, *target, name, reason),
        Command::Leave { who } => leave(state, revision, *who),
        Command::SetRole { node, role } => set_role(state, *node, *role),
        Command::SetAddresses { node, addresses } => {
            let member = state.members.get(node).ok_or(unknown(state, *node))?;
            check_addresses(addresses)?;
            let same = member.addresses == *addresses;
            Ok(if same { vec![] } else { vec![Event::Readdressed { node: *node, addresses: addresses.clone() }] })
        }
        Command::Remove { node } => remove(state, *node),
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
}

impl Arrival<'_> {
    fn join(self, state: &Cluster) -> Result<Vec<Event>, Rejection> {
        let Self { node, role, addresses, disk, boot, nonce } = self;
        if state.retired.contains(&node) {
            return Err(Rejection::RetiredNode(node));
        }
        check_addresses(addresses)?;
        let joined = |incarnation, role| {
            let (who, addresses) = (Identity::new(node, incarnation), addresses.to_vec());
            Event::Joined { who, role, addresses, disk, boot, nonce }
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
fn activate(state: &Cluster, who: Identity) -> Result<Vec<Event>, Rejection> {
    let life = known_life(state, who)?;
    match life.phase {
        Phase::Active => return Ok(vec![]),
        Phase::Joining => {}
        phase @ (Phase::Fencing | Phase::Fenced | Phase::Left) => return Err(Rejection::Phase { who, phase }),
    }
    let member = state.members.get(&who.node).ok_or(Rejection::UnknownNode(who.node))?;
    let former = member.lives.iter().find(|(i, life)| **i != who.incarnation && !life.phase.is_over());
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

/// Refused unless the others still hold a majority (I18): a partition of the few never shoots the many, and a cluster
/// never shoots itself below what it needs to decide anything.
fn order_fence(state: &Cluster, target: Identity, cause: &Cause) -> Result<Vec<Event>, Rejection> {
    let life = known_life(state, target)?;
    match life.phase {
        Phase::Active => {}
        Phase::Fencing => return Ok(vec![]), // merged with the open order
        phase @ (Phase::Joining | Phase::Fenced | Phase::Left) => return Err(Rejection::Phase { who: target, phase }),
    }
    if let Cause::Requested { reason } = cause {
        reason.check().map_err(Rejection::Text)?;
    }
    majority_without(state, target.node)?;
    Ok(vec![Event::FenceOrdered { order: state.fences.upcoming(), target, cause: cause.clone() }])
}

fn start_fence(state: &Cluster, order: FenceId, by: NodeId, attempt: u32) -> Result<Vec<Event>, Rejection> {
    let open = open_order(state, order)?;
    if !state.members.contains_key(&by) {
        return Err(unknown(state, by));
    }
    if open.attempts.checked_add(1) != Some(attempt) {
        return Err(Rejection::Attempt { order, at: open.attempts, got: attempt });
    }
    Ok(vec![Event::FenceStarted { order, target: open.target, by, attempt }])
}

fn fail_fence(state: &Cluster, order: FenceId, attempt: u32, reason: &Reason) -> Result<Vec<Event>, Rejection> {
    let open = open_order(state, order)?;
    reason.check().map_err(Rejection::Text)?;
    match open.progress {
        Progress::Executing { .. } if open.attempts == attempt => {
            Ok(vec![Event::FenceFailed { order, target: open.target, attempt, reason: reason.clone() }])
        }
        Progress::Failed { .. } if open.attempts == attempt => Ok(vec![]),
        Progress::Ordered | Progress::Executing { .. } | Progress::Failed { .. } => {
            Err(Rejection::Attempt { order, at: open.attempts, got: attempt })
        }
    }
}

/// A confirmation counts only for its own order number, for that order's target, and for an attempt that was begun (I10).
fn confirm_fence(
    state: &Cluster,
    token: Revision,
    order: FenceId,
    target: Identity,
    confirmation: &Confirmation,
) -> Result<Vec<Event>, Rejection> {
    let fenced = |order, who| vec![Event::Fenced { order, who, proof: confirmation.clone().into(), token }];
    if cfg!(quorate_mutant = "stale_confirmation")
        && let Some(any) = state.fences.open().next()
    {
        return Ok(fenced(any.id, any.target));
    }
    if cfg!(quorate_mutant = "fence_without_order") && state.fences.get(order).is_none() {
        known_life(state, target)?;
        return Ok(fenced(order, target));
    }
    let open = open_order(state, order)?;
    if open.target != target {
        return Err(Rejection::OtherTarget { order, target: open.target, got: target });
    }
    match confirmation {
        Confirmation::Device { by: _, attempt, evidence } => {
            evidence.check().map_err(Rejection::Text)?;
            if *attempt == 0 || *attempt > open.attempts {
                return Err(Rejection::Attempt { order, at: open.attempts, got: *attempt });
            }
        }
        Confirmation::Operator { name, reason } => {
            name.check().and(reason.check()).map_err(Rejection::Text)?;
        }
    }
    Ok(fenced(order, target))
}

/// An operator's word for a life, whether or not an order is open. It shoots nobody, so a former life of a node that
/// stands may be vouched for without a spare majority; for a newest life the rule of every order holds.
fn vouch(
    state: &Cluster,
    token: Revision,
    target: Identity,
    name: &Reason,
    reason: &Reason,
) -> Result<Vec<Event>, Rejection> {
    name.check().and(reason.check()).map_err(Rejection::Text)?;
    let proof = FenceProof::Operator { name: name.clone(), reason: reason.clone() };
    match known_life(state, target)?.phase {
        Phase::Fencing => {
            let order = state.fences.against(target).ok_or(Rejection::UnknownLife(target))?.id;
            Ok(vec![Event::Fenced { order, who: target, proof, token }])
        }
        Phase::Active => {
            if state.newest(target.node) == Some(target) {
                majority_without(state, target.node)?;
            }
            let (order, cause) = (state.fences.upcoming(), Cause::Requested { reason: reason.clone() });
            let ordered = Event::FenceOrdered { order, target, cause };
            Ok(vec![ordered, Event::Fenced { order, who: target, proof, token }])
        }
        phase @ (Phase::Joining | Phase::Fenced | Phase::Left) => Err(Rejection::Phase { who: target, phase }),
    }
}

/// Only the life itself may say that it has stopped. Said while an order is open, it is the proof that the order needed.
fn leave(state: &Cluster, token: Revision, who: Identity) -> Result<Vec<Event>, Rejection> {
    match known_life(state, who)?.phase {
        Phase::Joining | Phase::Active => Ok(vec![Event::Left { who, token }]),
        Phase::Fencing => {
            let order = state.fences.against(who).ok_or(Rejection::UnknownLife(who))?.id;
            Ok(vec![Event::Fenced { order, who, proof: FenceProof::CleanLeave, token }])
        }
        Phase::Left => Ok(vec![]),
        Phase::Fenced => Err(Rejection::Phase { who, phase: Phase::Fenced }),
    }
}

fn set_role(state: &Cluster, node: NodeId, role: Role) -> Result<Vec<Event>, Rejection> {
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
fn remove(state: &Cluster, node: NodeId) -> Result<Vec<Event>, Rejection> {
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

fn known_life(state: &Cluster, who: Identity) -> Result<&Life, Rejection> {
    state.life(who).ok_or_else(|| match state.newest(who.node) {
        Some(newest) if newest > who => Rejection::Replaced { who, newest },
        Some(_) => Rejection::UnknownLife(who),
        None => unknown(state, who.node),
    })
}

fn unknown(state: &Cluster, node: NodeId) -> Rejection {
    if state.retired.contains(&node) { Rejection::RetiredNode(node) } else { Rejection::UnknownNode(node) }
}

fn open_order(state: &Cluster, order: FenceId) -> Result<&FenceOrder, Rejection> {
    state.fences.get(order).ok_or(Rejection::UnknownOrder(order))
}

fn check_addresses(addresses: &[Address]) -> Result<(), Rejection> {
    if addresses.is_empty() || addresses.len() > MAX_ADDRESSES {
        return Err(Rejection::Addresses { got: addresses.len() as u64, limit: MAX_ADDRESSES as u64 });
    }
    addresses.iter().try_for_each(Address::check).map_err(Rejection::Text)
}

fn majority_without(state: &Cluster, node: NodeId) -> Result<(), Rejection> {
    let mut rest = state.standing();
    rest.remove(&node);
    if cfg!(quorate_mutant = "no_majority_check") {
        return Ok(());
    }
    quorum_or(&state.configuration, &rest, node)
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

fn another_voter(state: &Cluster, node: NodeId) -> Result<(), Rejection> {
    let others = state.members.iter().any(|(other, member)| *other != node && member.role == Role::Voter);
    if others { Ok(()) } else { Err(Rejection::LastVoter(node)) }
}
