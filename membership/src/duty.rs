//! `duties`: what the leader has yet to bring about, as a function of the committed state.
//!
//! ```text
//!   state ──duties──▶ [Fence f9, Condemn n2#1, CatchUp n4, Promote n4, Activate n4#1, …] ──reconcile loop──▶ commands
//! ```
//!
//! A duty is never a message, so none can be lost: if a leader dies in the middle of a join or a fence, the next leader
//! computes the same duties from the same state. Every duty is idempotent. Which of them a leader begins now, the
//! agenda decides ([`agenda`](crate::agenda())).

mod promotion;

use std::fmt;

use crate::cluster::ClusterState;
use crate::id::{FenceId, Identity, NodeId};
use crate::member::Phase;

/// A task that follows from the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Duty {
    /// Carry out an open fence order.
    Fence(FenceId),
    /// Order that a former life be fenced, because its node has come back as a new life.
    Condemn {
        /// The former life.
        former: Identity,
        /// The new life, which may not work before the former one has ended.
        waiting: Identity,
    },
    /// Finish a change of voters that was begun.
    FinishChange,
    /// Add a node as a learner, so that it receives the log.
    CatchUp(NodeId),
    /// Make a learner a voter, once it has caught up.
    Promote(NodeId),
    /// Make a voter a learner.
    Demote(NodeId),
    /// Take a removed node out of the configuration.
    Expel(NodeId),
    /// Activate a joining life, once it has caught up.
    Activate(Identity),
}

impl fmt::Display for Duty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fence(order) => write!(f, "fence {order}"),
            Self::Condemn { former, waiting } => write!(f, "condemn {former}, for which {waiting} waits"),
            Self::FinishChange => f.write_str("finish the change of voters"),
            Self::CatchUp(node) => write!(f, "catch up {node}"),
            Self::Promote(node) => write!(f, "promote {node}"),
            Self::Demote(node) => write!(f, "demote {node}"),
            Self::Expel(node) => write!(f, "expel {node}"),
            Self::Activate(who) => write!(f, "activate {who}"),
        }
    }
}

/// The duties of the leader in this state: fencing first, then the configuration, then activations. While a change of
/// voters is unfinished, finishing it is the only duty about the configuration.
pub fn duties(state: &ClusterState) -> Vec<Duty> {
    let mut owed: Vec<Duty> = state.fences.open().map(|order| Duty::Fence(order.id)).collect();
    owed.extend(condemned(state));
    if state.configuration.is_joint() {
        owed.push(Duty::FinishChange);
    } else {
        owed.extend(promotion::due(state));
    }
    owed.extend(activations(state));
    owed
}

fn condemned(state: &ClusterState) -> impl Iterator<Item = Duty> + '_ {
    state.lives().filter(|(_, life)| life.phase == Phase::Active).filter_map(|(former, _)| {
        let waiting = state.newest(former.node).filter(|newest| *newest != former)?;
        Some(Duty::Condemn { former, waiting })
    })
}

fn activations(state: &ClusterState) -> impl Iterator<Item = Duty> + '_ {
    state.members.iter().filter_map(|(node, member)| {
        let (incarnation, life) = member.newest()?;
        let alone = member.lives.iter().all(|(other, life)| *other == incarnation || life.phase.has_ended());
        let configured = match member.role.votes() {
            true => state.configuration.is_lasting_voter(*node),
            false => state.configuration.contains(*node),
        };
        let due = life.phase == Phase::Joining && alone && configured;
        due.then_some(Duty::Activate(Identity::new(*node, incarnation)))
    })
}
