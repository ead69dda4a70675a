//! The rules for the end of a life: under which conditions each kind of proof is accepted.

use std::time::Duration;

use super::checks::{current_activation, known_life, majority_without, open_order};
use crate::bounded_text::Reason;
use crate::cluster::ClusterState;
use crate::event::Event;
use crate::fencing::Cause;
use crate::id::{Activation, BootId, FenceId, Identity, Revision};
use crate::member::Phase;
use crate::principal::Principal;
use crate::proof::{Confirmation, FenceProof};
use crate::rejection::Rejection;

/// A confirmation counts only for the order and target that it names, and for an attempt that was begun (I10).
pub(super) fn confirm(
    state: &ClusterState,
    token: Revision,
    order: FenceId,
    target: Identity,
    confirmation: &Confirmation,
) -> Result<Vec<Event>, Rejection> {
    let fenced = |order, who| vec![Event::Fenced { order, who, proof: confirmation.clone().into(), token }];
    if mutant!("stale_confirmation")
        && let Some(any) = state.fences.open().next()
    {
        return Ok(fenced(any.id, any.target));
    }
    if mutant!("fence_without_order") && state.fences.get(order).is_none() {
        known_life(state, target)?;
        return Ok(fenced(order, target));
    }
    if let Some(second) = corroboration(state, order, target, &confirmation.clone().into()) {
        return Ok(second);
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
        Confirmation::Operator { name, reason, by: _ } => {
            name.check().and(reason.check()).map_err(Rejection::Text)?;
        }
    }
    Ok(fenced(order, target))
}

/// What an operator says, and whose certificate said it.
pub(super) struct Word<'a> {
    pub(super) name: &'a Reason,
    pub(super) reason: &'a Reason,
    pub(super) by: Option<&'a Principal>,
}

/// An operator vouches for the end of a life, with or without an open order. This fences no node, so for a former life
/// no majority of the others is required; for the newest life of a node the rule of every order applies.
pub(super) fn vouch(
    state: &ClusterState,
    token: Revision,
    target: Identity,
    Word { name, reason, by }: Word<'_>,
) -> Result<Vec<Event>, Rejection> {
    name.check().and(reason.check()).map_err(Rejection::Text)?;
    let proof = FenceProof::Operator { name: name.clone(), reason: reason.clone(), by: by.cloned() };
    match known_life(state, target)?.phase {
        Phase::Fencing => {
            let order = state.fences.against(target).ok_or(Rejection::UnknownLife(target))?.id;
            Ok(vec![Event::Fenced { order, who: target, proof, token }])
        }
        Phase::Active => {
            if state.newest(target.node) == Some(target) {
                majority_without(state, target.node)?;
            }
            let (order, cause) =
                (state.fences.upcoming(), Cause::Requested { reason: reason.clone(), by: by.cloned() });
            let ordered = Event::FenceOrdered { order, target, cause };
            Ok(vec![ordered, Event::Fenced { order, who: target, proof, token }])
        }
        phase @ (Phase::Joining | Phase::Fenced | Phase::Left) => Err(Rejection::Phase { who: target, phase }),
    }
}

/// A life reports that it has stopped. If an order against it is open, this is the proof that the order waits for.
pub(super) fn leave(state: &ClusterState, token: Revision, who: Identity) -> Result<Vec<Event>, Rejection> {
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

/// P10, P11: time proves the end of a life whose contract has a bound, once a leader has received nothing of it for as
/// long as the contract requires (E1). The leader reports the wait. Checked here is that the wait was long enough, and
/// that the leader waited under the current activation.
pub(super) fn expire(
    state: &ClusterState,
    token: Revision,
    named: Identity,
    under: Activation,
    waited: Duration,
) -> Result<Vec<Event>, Rejection> {
    // The mistake: the newest life of the node, whichever was named.
    let newest = state.newest(named.node).filter(|_| mutant!("expiry_names_the_node"));
    let who = newest.unwrap_or(named);
    current_activation(state, under)?;
    let life = known_life(state, who)?;
    let proof = FenceProof::Expired { under, waited };
    let need = life.contract.own_wait().ok_or(Rejection::NeverExpires(who))?;
    if waited < need {
        return Err(Rejection::TooEarly { who, waited, need });
    }
    match life.phase {
        Phase::Fencing => {
            let order = state.fences.against(who).ok_or(Rejection::UnknownLife(who))?.id;
            Ok(vec![Event::Fenced { order, who, proof, token }])
        }
        Phase::Active => {
            if state.newest(who.node) == Some(who) {
                majority_without(state, who.node)?;
            }
            let (order, cause) = (state.fences.upcoming(), Cause::Lapsed);
            let ordered = Event::FenceOrdered { order, target: who, cause };
            Ok(vec![ordered, Event::Fenced { order, who, proof, token }])
        }
        Phase::Fenced => match state.fences.ended(who).and_then(|e| corroboration(state, e.id, who, &proof)) {
            Some(second) => Ok(second),
            None => Ok(vec![]),
        },
        phase @ (Phase::Joining | Phase::Left) => Err(Rejection::Phase { who, phase }),
    }
}

/// A life declares that its work dies with its process. Too late once it is being fenced or has ended.
pub(super) fn declare_process_bound(state: &ClusterState, who: Identity) -> Result<Vec<Event>, Rejection> {
    let life = known_life(state, who)?;
    match life.phase {
        Phase::Joining | Phase::Active if life.process_bound => Ok(vec![]),
        Phase::Joining | Phase::Active => Ok(vec![Event::DeclaredProcessBound { who }]),
        phase @ (Phase::Fencing | Phase::Fenced | Phase::Left) => Err(Rejection::Phase { who, phase }),
    }
}

/// P3: the next life of the same node, on the same disk and the same boot, reports that the process of the former life
/// is gone. The work of that life died with it. This fences no node, so no majority of the others is required.
pub(super) fn inherit(
    state: &ClusterState,
    token: Revision,
    who: Identity,
    former: Identity,
) -> Result<Vec<Event>, Rejection> {
    let (successor, gone) = (known_life(state, who)?, known_life(state, former)?);
    let next = who.node == former.node && who > former && state.newest(who.node) == Some(who);
    // A boot id of zero means "unknown", and two unknown boots may differ.
    let same_boot = successor.boot == gone.boot && successor.boot != BootId::default();
    if !next || !same_boot || successor.phase != Phase::Joining {
        return Err(Rejection::NotItsSuccessor { who, former });
    }
    if !gone.process_bound {
        return Err(Rejection::NotProcessBound(former));
    }
    let fenced = |order| Event::Fenced { order, who: former, proof: FenceProof::Succeeded { by: who }, token };
    match gone.phase {
        Phase::Active => {
            let (order, cause) = (state.fences.upcoming(), Cause::Returned { as_life: who });
            Ok(vec![Event::FenceOrdered { order, target: former, cause }, fenced(order)])
        }
        Phase::Fencing => {
            let order = state.fences.against(former).ok_or(Rejection::UnknownLife(former))?.id;
            Ok(vec![fenced(order)])
        }
        // It has ended, and its locks have passed on.
        Phase::Fenced | Phase::Left => Ok(vec![]),
        phase @ Phase::Joining => Err(Rejection::Phase { who: former, phase }),
    }
}

/// The event for a second proof of an end, if it is of another kind than the first. `None` if the order has not ended,
/// or the proof adds nothing.
fn corroboration(state: &ClusterState, order: FenceId, who: Identity, proof: &FenceProof) -> Option<Vec<Event>> {
    let ended = state.fences.ended(who).filter(|ended| ended.id == order && state.fences.get(order).is_none())?;
    let fresh = ended.second.is_none() && ended.proof.kind() != proof.kind();
    let sound = match proof {
        FenceProof::Device { attempt, evidence, .. } => {
            (1..=ended.attempts).contains(attempt) && evidence.check().is_ok()
        }
        FenceProof::Expired { .. } => true,
        FenceProof::CleanLeave | FenceProof::Operator { .. } | FenceProof::Succeeded { .. } => false,
    };
    (fresh && sound).then(|| vec![Event::Corroborated { order, who, proof: proof.clone() }])
}
