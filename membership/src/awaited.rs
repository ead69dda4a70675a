//! What a joining life waits for before it may be activated, in words for the status and the log.
//!
//! ```text
//!   state, n1#2 ──▶ the end of n1#1 ─┬▶ by an order: not begun, under way, failed and why
//!                                    ├▶ by time: its lease has to run out
//!                                    └▶ by nothing: an order would leave no majority (I18)
//!               ──▶ its vote │ its place │ the log
//! ```

use std::fmt;
use std::time::Duration;

use crate::cluster::ClusterState;
use crate::command::Command;
use crate::decide::decide;
use crate::fencing::{Cause, FenceOrder, Progress};
use crate::id::Identity;
use crate::member::Phase;
use crate::rejection::Rejection;

/// What a joining life waits for: the first thing that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Awaited {
    /// A proof that a former life of its node has ended.
    EndOf {
        /// The former life.
        former: Identity,
        /// How that end may be proved.
        next: NextProof,
    },
    /// The vote of its role.
    Vote,
    /// That its node receives the log as a learner.
    Place,
    /// That its node has nearly all of the log, and was heard since its former life ended.
    Log,
}

/// How the end of a former life may be proved next.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NextProof {
    /// An order against it is open.
    Order(FenceOrder),
    /// No order is given yet, because time proves the end so long after its last renewal.
    Time(Duration),
    /// The leader orders its end.
    Leader,
    /// No order may be given, for this reason, and no time proves the end.
    Blocked(Rejection),
}

/// What `who` waits for before it may be activated. `None` unless it is joining.
pub fn awaited(state: &ClusterState, who: Identity) -> Option<Awaited> {
    state.life(who).filter(|life| life.phase == Phase::Joining)?;
    let former = state.lives().find(|(other, life)| other.node == who.node && *other < who && !life.phase.has_ended());
    if let Some((former, life)) = former {
        let next = match (state.fences().against(former), life.contract.own_wait()) {
            (Some(order), _) => NextProof::Order(order.clone()),
            (None, Some(wait)) => NextProof::Time(wait),
            (None, None) => by_order(state, former, who),
        };
        return Some(Awaited::EndOf { former, next });
    }
    let votes = state.member(who.node).is_some_and(|member| member.role.votes());
    let (configuration, node) = (state.configuration(), who.node);
    Some(match votes {
        true if !configuration.is_lasting_voter(node) => Awaited::Vote,
        false if !configuration.contains(node) => Awaited::Place,
        true | false => Awaited::Log,
    })
}

fn by_order(state: &ClusterState, former: Identity, as_life: Identity) -> NextProof {
    let under = state.leadership().map(|leadership| leadership.activation);
    let order = Command::OrderFence { target: former, cause: Cause::Returned { as_life }, under };
    match decide(state, state.revision().next(), &order) {
        Err(blocked @ Rejection::Majority { .. }) => NextProof::Blocked(blocked),
        Ok(_) | Err(_) => NextProof::Leader,
    }
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EndOf { former, next } => write!(f, "a proof that {former} has ended: {next}"),
            Self::Vote => f.write_str("its vote"),
            Self::Place => f.write_str("a place among those who receive the log"),
            Self::Log => f.write_str("the log: the leader activates it once it has nearly all of it"),
        }
    }
}

impl fmt::Display for NextProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Order(FenceOrder { id, attempts, progress, .. }) => match progress {
                Progress::Ordered => write!(f, "order {id} waits for a leader with a fencer, or for an operator"),
                Progress::Executing { by } => write!(f, "{by} carries out order {id}, attempt {attempts}"),
                Progress::Failed { reason } => write!(f, "attempt {attempts} at order {id} failed: {reason}"),
            },
            Self::Time(wait) => write!(f, "time proves it, at the latest {wait:?} after a leader last heard of it"),
            Self::Leader => f.write_str("the leader orders it"),
            Self::Blocked(why) => {
                write!(f, "no order can be given ({why}); bring another voter back, or vouch for it as an operator")
            }
        }
    }
}
