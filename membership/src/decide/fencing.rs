//! The rules for fence orders, and for the attempts at them.

use super::checks::{current_activation, known_life, majority_without, open_order, unknown};
use crate::bounded_text::Reason;
use crate::cluster::ClusterState;
use crate::event::Event;
use crate::fencing::{Cause, Progress};
use crate::id::{Activation, FenceId, Identity, NodeId, Revision};
use crate::member::Phase;
use crate::rejection::Rejection;

/// Rejected unless the others hold a majority (I18): a minority never fences the majority, and a cluster never fences
/// itself below what it needs to decide anything.
///
/// The order of a leader counts only under the current activation (P5). One that is committed after its leader was
/// replaced is void. An order that an operator or a consumer requests needs no activation.
pub(super) fn order(
    state: &ClusterState,
    revision: Revision,
    target: Identity,
    cause: &Cause,
    under: Option<Activation>,
) -> Result<Vec<Event>, Rejection> {
    let life = known_life(state, target)?;
    match life.phase {
        Phase::Active => {}
        Phase::Fencing => return Ok(vec![]), // merged with the open order
        // It has never acted. It only forfeits the locks that it took over from its former life, and no proof is
        // needed.
        Phase::Joining if state.store.held_by(target.into()).next().is_some() => {}
        phase @ (Phase::Joining | Phase::Fenced | Phase::Left) => return Err(Rejection::Phase { who: target, phase }),
    }
    match cause {
        Cause::Requested { reason, by: _ } => reason.check().map_err(Rejection::Text)?,
        Cause::Silent { .. } | Cause::Returned { .. } | Cause::Lapsed | Cause::Refused => {
            current_activation(state, under.ok_or(Rejection::WithoutActivation)?)?;
        }
    }
    if life.phase == Phase::Joining {
        return Ok(super::locks::forfeit(state, revision, target));
    }
    majority_without(state, target.node)?;
    Ok(vec![Event::FenceOrdered { order: state.fences.upcoming(), target, cause: cause.clone() }])
}

pub(super) fn start(state: &ClusterState, order: FenceId, by: NodeId, attempt: u32) -> Result<Vec<Event>, Rejection> {
    let open = open_order(state, order)?;
    if !state.members.contains_key(&by) {
        return Err(unknown(state, by));
    }
    if open.attempts.checked_add(1) != Some(attempt) {
        return Err(Rejection::Attempt { order, at: open.attempts, got: attempt });
    }
    Ok(vec![Event::FenceStarted { order, target: open.target, by, attempt }])
}

pub(super) fn fail(
    state: &ClusterState,
    order: FenceId,
    attempt: u32,
    reason: &Reason,
) -> Result<Vec<Event>, Rejection> {
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
