//! Leadership: what the engine believes, and how it is handed over.
//!
//! An isolated leader believes in itself for ever (its state does not change when time passes), so nothing rests on what
//! is said here: it starts work and it finds the way to the leader, no more.
//!
//! After the *proved* death of a leader the survivors could skip the rest of their election wait, by the same door that
//! a hand-over uses. That is unsafe without the proof, so the door will take a proof by type; it comes with the leases.

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use quorate_membership::{NodeId, Phase, Role};
use tokio::time::{Instant, sleep, timeout};

use crate::error::{Fatal, HandOverError};
use crate::node::Inner;

impl Inner {
    /// Whether the engine believes that it leads. Triggers work; proves nothing.
    pub(crate) fn leading(&self) -> bool {
        self.raft.metrics().borrow_watched().state == ServerState::Leader
    }

    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.raft.metrics().borrow_watched().current_leader.map(NodeId::new)
    }

    pub(crate) async fn hand_over(&self, to: Option<NodeId>) -> Result<NodeId, HandOverError> {
        if let Some(fatal) = self.stopped() {
            return Err(fatal.into());
        }
        if !self.leading() {
            return Err(HandOverError::NotLeader { leader: self.leader() });
        }
        let state = self.feed.state();
        let able = |node: NodeId| {
            let life = state.newest(node).and_then(|who| state.life(who));
            let well = life.is_some_and(|life| matches!(life.phase, Phase::Joining | Phase::Active));
            node != self.node && well && state.configuration().is_lasting_voter(node)
        };
        let to = match to {
            Some(node) if node == self.node => return Ok(node),
            Some(node) if able(node) => node,
            Some(node) => return Err(HandOverError::NotAVoter(node)),
            None => {
                let matched = self.raft.metrics().borrow_watched().replication.clone().unwrap_or_default();
                let preferred = |node: &NodeId| {
                    let voter = state.member(*node).is_some_and(|m| m.role == Role::Voter);
                    (voter, matched.get(&node.get()).cloned().flatten().map(|id| id.index))
                };
                let voters = state.configuration().voters().into_iter().filter(|node| able(*node));
                voters.max_by_key(preferred).ok_or(HandOverError::Nobody)?
            }
        };
        let waited = self.config.election_max * 3;
        let asked = timeout(waited, self.raft.trigger().transfer_leader(to.get())).await;
        if let Ok(Err(fatal)) = asked {
            return Err(Fatal::Engine(fatal.to_string()).into());
        }
        let give_up = Instant::now() + waited;
        while Instant::now() < give_up {
            match self.leader() {
                Some(leader) if leader != self.node => return Ok(leader),
                Some(_) | None => sleep(self.config.heartbeat / 8).await,
            }
        }
        Err(HandOverError::TimedOut { waited })
    }
}
