//! Deliberate moves of leadership: a hand-over, giving way because of a full disk, and succession after a proved end.
//!
//! ```text
//!   hand_over ─▶ able voter, past its embargo (P22) ─▶ transfer ─▶ wait until another node leads
//!   succeed   ─▶ ProvedEnd of the leader ─▶ transfer to this node itself ─▶ election at once
//! ```
//!
//! After the *proved* end of a leader, the survivors need not wait for its silence to trigger an election. They use the
//! same transfer as a hand-over, which skips the wait that protects a living leader, and it requires a [`ProvedEnd`]. A
//! proof that is wrong costs one election and nothing else, because no read here relies on a leader's lease.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use parking_lot::Mutex;
use quorate_membership::detector::Moment;
use quorate_membership::{Identity, NodeId, Phase, ProvedEnd, Role};
use tokio::time::{Instant, sleep, timeout};

use crate::engine::Engine;
use crate::engine::types::OrTransfer;
use crate::error::{Fatal, HandOverError, SucceedError};
use crate::host::clock;

/// What hand-overs remember about the past.
#[derive(Default)]
pub(super) struct Arrivals {
    /// The newest life of each node, and when this node first noted it: of a voter when it joined or got its vote, of the others when
    /// this node began to lead.
    lives: Mutex<BTreeMap<NodeId, (Identity, Moment)>>,
    /// The last term in which this node handed leadership over or tried to; 0 before the first.
    handed_over: AtomicU64,
}

impl Engine {
    /// Hands leadership to `to`, or to the preferred voter: one that answers, carries work and has the longest log.
    /// Returns the new leader.
    ///
    /// # Errors
    /// [`HandOverError`]. After [`HandOverError::TimedOut`] it may still happen; after the others nothing was changed.
    pub(crate) async fn hand_over(&self, to: Option<NodeId>) -> Result<NodeId, HandOverError> {
        if let Some(fatal) = self.stopped() {
            return Err(fatal.into());
        }
        if !self.leading() {
            return Err(HandOverError::NotLeader { leader: self.leader() });
        }
        let state = self.state();
        let able = |node: NodeId| {
            let life = state.newest(node).and_then(|who| state.life(who));
            let well = life.is_some_and(|life| matches!(life.phase, Phase::Joining | Phase::Active));
            node != self.0.node && well && state.configuration().is_lasting_voter(node)
        };
        let to = match to {
            Some(node) if node == self.0.node => return Ok(node),
            Some(node) if able(node) => node,
            Some(node) => return Err(HandOverError::NotAVoter(node)),
            None => {
                let answering = self.answering();
                let preferred = |node: &NodeId| {
                    let voter = state.member(*node).is_some_and(|m| m.role == Role::Voter);
                    (answering.contains(node), voter, self.matched(*node))
                };
                let voters = state.configuration().voters().into_iter().filter(|node| able(*node));
                voters.max_by_key(preferred).ok_or(HandOverError::Nobody)?
            }
        };
        // P22: a voter that has just started would not stand, and openraft's leader sends nothing more in its term once
        // it has asked. So it waits until the voter may stand.
        let left = self.embargo_of(to);
        if !left.is_zero() {
            tracing::debug!(%to, ?left, "the successor has just started; waiting until it may stand for election");
            sleep(left).await;
        }
        let Some(term) = self.leading_term() else { return Err(HandOverError::NotLeader { leader: self.leader() }) };
        self.0.arrivals.handed_over.store(term, Ordering::Release);
        let waited = self.0.config.election_max() * 3;
        let asked = timeout(waited, self.0.raft.trigger().transfer_leader(to.get())).await;
        if let Ok(Err(fatal)) = asked {
            return Err(Fatal::Engine(fatal.to_string()).into());
        }
        let give_up = Instant::now() + waited;
        while Instant::now() < give_up {
            match self.leader() {
                Some(leader) if leader != self.0.node => return Ok(leader),
                Some(_) | None => sleep(self.0.config.heartbeat() / 8).await,
            }
        }
        Err(HandOverError::TimedOut { waited })
    }

    /// Whether this leader should give way because its disk does not work. It should only if the other voters form a
    /// quorum without it and answer. Otherwise nothing could be committed either way, and a leader that keeps sending
    /// can at least confirm that no other node leads, which all leases rely on. It gives way once per term: after that
    /// openraft's leader stays silent, and if the chosen successor does not take over, the others elect after their
    /// timeout.
    pub(crate) fn should_make_way(&self) -> bool {
        if self.has_made_way() || self.disk_trouble().is_none() {
            return false;
        }
        let answering = self.answering();
        self.look(|state| state.configuration().has_quorum(&answering))
    }

    /// Whether this node has asked another to lead in its place in the current term.
    pub(crate) fn has_made_way(&self) -> bool {
        self.gave_up(self.term())
    }

    /// Whether this node has asked another to lead in its place in `term`.
    pub(crate) fn gave_up(&self, term: u64) -> bool {
        self.0.arrivals.handed_over.load(Ordering::Acquire) == term
    }

    /// Notes that `who` is the newest life of its node. Returns whether it was not known before.
    pub(crate) fn note_arrival(&self, who: Identity, now: Moment) -> bool {
        let mut lives = self.0.arrivals.lives.lock();
        let known = lives.get(&who.node).is_some_and(|(life, _)| *life == who);
        if !known {
            lives.insert(who.node, (who, now));
        }
        !known
    }

    /// How long a promise of its former life may still bind `node`, given when this node learnt of its newest life.
    fn embargo_of(&self, node: NodeId) -> Duration {
        let arrivals = self.0.arrivals.lives.lock();
        let known = arrivals.get(&node).map(|(_, at)| clock::now().since(*at)).unwrap_or_default();
        // One heartbeat more, because the node counts from its own start.
        (self.0.config.embargo() + self.0.config.heartbeat()).saturating_sub(known)
    }

    /// Stands for election at once, in place of a leader that is proved to have ended.
    ///
    /// # Errors
    /// [`SucceedError`]; nothing was changed.
    pub(crate) async fn succeed(&self, end: &ProvedEnd) -> Result<(), SucceedError> {
        if let Some(fatal) = self.stopped() {
            return Err(fatal.into());
        }
        if let Some(trouble) = self.disk_trouble() {
            return Err(SucceedError::Disk(trouble));
        }
        let (who, state, leader) = (end.who(), self.state(), self.leader());
        // A later life of the same node may lead by now, and its end is not proved.
        let current = leader == Some(who.node) && state.newest(who.node).is_none_or(|newest| newest == who);
        if who.node == self.0.node || !current {
            return Err(SucceedError::NotTheLeader { who, leader });
        }
        if !state.configuration().is_lasting_voter(self.0.node) {
            return Err(SucceedError::NoVoter(self.0.node));
        }
        // P22: a promise from before its restart also forbids it to stand.
        if let Some(remaining) = self.0.embargo_ends.map(|ends| ends.since(clock::now())).filter(|left| !left.is_zero())
        {
            return Err(SucceedError::Embargo { remaining });
        }
        let (vote, last) = {
            let metrics = self.0.raft.metrics();
            let metrics = metrics.borrow_watched();
            (metrics.vote, metrics.last_applied)
        };
        tracing::info!(%who, proof = %end.proof(), "the leader has provably ended; standing for election");
        let asked = self.0.raft.handle_transfer_leader(OrTransfer::new(vote, self.0.node.get(), last)).await;
        match asked {
            Ok(Ok(())) => Ok(()),
            Ok(Err(changed)) => {
                tracing::debug!(%changed, "not standing: another vote was cast meanwhile");
                Err(SucceedError::NotTheLeader { who, leader: self.leader() })
            }
            Err(fatal) => Err(Fatal::Engine(fatal.to_string()).into()),
        }
    }

    /// The committed end of the leader that this node follows, if this node should succeed it. The successor is the
    /// first of the voters that stand.
    pub(crate) fn succession(&self) -> Option<ProvedEnd> {
        let leader = self.leader().filter(|leader| *leader != self.0.node)?;
        let state = self.state();
        let end = ProvedEnd::committed(&state, state.newest(leader)?)?;
        let standing = state.standing();
        let mut successors = standing.iter().filter(|node| state.configuration().is_lasting_voter(**node));
        (successors.next() == Some(&self.0.node)).then_some(end)
    }
}
