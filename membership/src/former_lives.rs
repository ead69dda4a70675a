//! The former lives of nodes that have come back: how long their end is waited for, and what the next life declares
//! (P3).
//!
//! ```text
//!   n3#1 active ── n3#2 joins ──▶ n3#1 is closing ── its end is proved ──▶ ended: n3 has to be heard once more
//!                                 │ known for `wait · 2`                   before n3#2 is activated
//!                                 ▼
//!                     no proof without a device: the leader orders a fence
//! ```
//!
//! When n3#2 begins it declares what it knows:
//!
//! ```text
//!   n3#1 had declared it, same boot, its process is gone ─▶ Inherit(n3#2, n3#1): n3#1 is fenced, n3#2 holds its locks
//!   this life's work dies with its process ───────────────▶ DeclareProcessBound(n3#2)
//! ```
//!
//! A closing life is ended without a device if that is possible, because a device might hit the life that came back: it
//! runs on the same machine. Every node keeps this record, not only the leader, so that a change of leaders does not
//! start the wait again. Time is an argument.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cluster::ClusterState;
use crate::command::Command;
use crate::detector::Moment;
use crate::id::{Identity, NodeId};
use crate::member::Phase;

/// When this node saw former lives begin to close, and end.
#[derive(Debug, Clone, Default)]
pub struct FormerLives {
    /// The closing lives: not ended, and no longer the newest of their node.
    closing: BTreeMap<Identity, Moment>,
    /// The nodes whose closing life has ended. One entry a node: the latest end.
    ended: BTreeMap<NodeId, Moment>,
}

impl FormerLives {
    /// Follows the committed state. To be called as soon as members or fence orders have changed: an end counts from the call that
    /// notices it, so `now` is to be read after the state.
    pub fn observe(&mut self, state: &ClusterState, now: Moment) {
        let closing = |who: Identity| {
            let life = state.life(who).filter(|life| matches!(life.phase, Phase::Active | Phase::Fencing));
            life.is_some() && state.newest(who.node) != Some(who)
        };
        let ended: Vec<Identity> = self.closing.keys().copied().filter(|who| !closing(*who)).collect();
        for who in ended {
            self.closing.remove(&who);
            self.ended.insert(who.node, now);
        }
        // Of most nodes only the newest life is remembered.
        for (node, member) in state.members().filter(|(_, member)| member.lives.len() > 1) {
            for who in member.lives.keys().map(|life| Identity::new(node, *life)).filter(|who| closing(*who)) {
                self.closing.entry(who).or_insert(now);
            }
        }
        self.ended.retain(|node, _| state.member(*node).is_some());
    }

    /// Whether `node`, last heard at `heard`, was heard after its former life had ended.
    ///
    /// A device that ended the former life may have ended the new one with it. If the new one were activated without
    /// having been heard since, it would be fenced for its silence when the node comes back once more, and so on for
    /// ever.
    pub fn heard_since_end(&self, node: NodeId, heard: Option<Moment>, heartbeat: Duration) -> bool {
        let Some(ended) = self.ended.get(&node) else { return true };
        // A message that was under way when the life ended may arrive a little later.
        let settled = Moment::new(ended.since_origin() + heartbeat);
        heard.is_some_and(|heard| heard > settled) || mutant!("activated_unheard")
    }

    /// Whether the end of `former` can still be expected without a device: by time, within twice what its contract asks
    /// for, or by its successor's [`Inherit`](crate::Command::Inherit), within `successor_timeout`, if it had declared
    /// that its work dies with its process (P3).
    pub fn may_end_by_itself(
        &self,
        state: &ClusterState,
        former: Identity,
        now: Moment,
        successor_timeout: Duration,
    ) -> bool {
        let Some(life) = state.life(former) else { return false };
        let known_for = self.closing.get(&former).map(|since| now.since(*since)).unwrap_or_default();
        let successor = state.newest(former.node).and_then(|newest| state.life(newest));
        let inherits = life.process_bound
            && successor.is_some_and(|successor| successor.boot == life.boot && successor.phase == Phase::Joining);
        life.contract.own_wait().is_some_and(|wait| known_for < wait * 2) || (inherits && known_for < successor_timeout)
    }
}

/// What `who` has to declare next; `None` if nothing is left to declare. Predecessors come first, so that this machine
/// is not fenced because of them.
///
/// * `process_bound`: this node is configured so that its work dies with its process.
/// * `former_gone`: the process that had the data folder before is known to be gone. A free lock on the folder does not
///   prove that: the lock ends with the node, and the process may outlive the node.
pub fn due_declaration(state: &ClusterState, who: Identity, process_bound: bool, former_gone: bool) -> Option<Command> {
    let life = state.life(who)?;
    let former = state.lives().find(|(other, former)| {
        let waits = other.node == who.node && *other < who && former.phase.may_work();
        waits && former.process_bound && former.boot == life.boot
    });
    if let (Some((former, _)), Phase::Joining, true) = (former, life.phase, former_gone) {
        return Some(Command::Inherit { who, former });
    }
    let unsaid = process_bound && !life.process_bound && matches!(life.phase, Phase::Joining | Phase::Active);
    unsaid.then_some(Command::DeclareProcessBound { who })
}
