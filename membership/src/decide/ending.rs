//! How a life ends: each of the four proofs, and what it takes for one to count.

use std::time::Duration;

use super::checks::{current_activation, known_life, majority_without, open_order};
use crate::cluster::ClusterState;
use crate::event::Event;
use crate::fencing::Cause;
use crate::id::{Activation, BootId, FenceId, Identity, Revision};
use crate::member::Phase;
use crate::proof::{Confirmation, FenceProof};
use crate::rejection::Rejection;
use crate::text::Reason;

/// A confirmation counts only for its own order number, for that order's target, and for an attempt that was begun (I10).
pub(super) fn confirm(
    state: &ClusterState,
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
        Confirmation::Operator { name, reason } => {
            name.check().and(reason.check()).map_err(Rejection::Text)?;
        }
    }
    Ok(fenced(order, target))
}

/// An operator's word for a life, whether or not an order is open. It shoots nobody, so a former life of a node that
/// stands may be vouched for without a spare majority; for a newest life the rule of every order holds.
pub(super) fn vouch(
    state: &ClusterState,
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

/// P10, P11: time alone proves the end of a life whose contract has a bound, once a leader has received nothing of it for
/// as long as the contract asks for (E1). The wait is the leader's word; that it is long enough, and that the leader was
/// the one whose word counts, is checked here.
pub(super) fn expire(
    state: &ClusterState,
    token: Revision,
    named: Identity,
    under: Activation,
    waited: Duration,
) -> Result<Vec<Event>, Rejection> {
    // The mistake: whichever life the node has now.
    let newest = state.newest(named.node).filter(|_| cfg!(quorate_mutant = "expiry_names_the_node"));
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

/// That its work dies with its process, only the life itself may say, and not once it is to be ended: then it is too late
/// for anybody to count on.
pub(super) fn declare_mortal(state: &ClusterState, who: Identity) -> Result<Vec<Event>, Rejection> {
    let life = known_life(state, who)?;
    match life.phase {
        Phase::Joining | Phase::Active if life.process_bound => Ok(vec![]),
        Phase::Joining | Phase::Active => Ok(vec![Event::DeclaredProcessBound { who }]),
        phase @ (Phase::Fencing | Phase::Fenced | Phase::Left) => Err(Rejection::Phase { who, phase }),
    }
}

/// P3: the next life of the same node, on the same disk and the same boot, says that the process of the former one is
/// gone, and that was all there was to it. It shoots nobody, so no spare majority is needed.
pub(super) fn inherit(
    state: &ClusterState,
    token: Revision,
    who: Identity,
    former: Identity,
) -> Result<Vec<Event>, Rejection> {
    let (successor, gone) = (known_life(state, who)?, known_life(state, former)?);
    let next = who.node == former.node && who > former && state.newest(who.node) == Some(who);
    // A boot that could not be told is not the same as another that could not.
    let same_boot = successor.boot == gone.boot && successor.boot != BootId::default();
    if !next || !same_boot || successor.phase != Phase::Joining {
        return Err(Rejection::NotItsSuccessor { who, former });
    }
    if !gone.process_bound {
        return Err(Rejection::NotMortal(former));
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
        // What has ended has passed on what it held.
        Phase::Fenced | Phase::Left => Ok(vec![]),
        phase @ Phase::Joining => Err(Rejection::Phase { who: former, phase }),
    }
}

/// The second proof of an end that another kind of proof came first for. `None` if the order has not ended so.
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
