//! How leadership moves on purpose: handed over, given up for a full disk, or taken after a proved end.
//!
//! After the *proved* end of a leader the survivors need not wait until it has been silent for long enough. They take over
//! by the same door that a hand-over uses, which skips the wait that protects a living leader. That door takes a
//! [`ProvedEnd`]. A wrong word there costs an election and no more, because no read here relies on a leader's lease.

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

/// What hand-overs have to know of the past.
#[derive(Default)]
pub(super) struct Arrivals {
    /// The newest life of each node, and when this node first heard of it.
    lives: Mutex<BTreeMap<NodeId, (Identity, Moment)>>,
    /// The term in which this node handed leadership over, or tried to; 0 before the first.
    handed_over: AtomicU64,
}

impl Engine {
    /// Hands leadership to `to`, or to the voter with the longest log. Returns who leads then.
    ///
    /// # Errors
    /// [`HandOverError`].
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
        // P22: a voter that has just been started would not stand, and the engine's leader, once it has asked, never speaks
        // again in its term. So it is asked when it may.
        let left = self.embargo_of(to);
        if !left.is_zero() {
            tracing::debug!(%to, ?left, "started lately; leadership is handed over when it may stand");
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

    /// Whether this leader should make way because its disk does not do its work. Only if the others are enough to elect
    /// one without it, and answer: otherwise nothing could be committed either way, and as long as it speaks it can at least
    /// confirm that nobody else leads, on which the leases of all rest. Asked once in a term: after that the engine's leader is
    /// silent, and if nobody took over at its word the others elect when they have heard nothing for long enough.
    pub(crate) fn should_make_way(&self) -> bool {
        !self.has_made_way()
            && self.disk_trouble().is_some()
            && self.state().configuration().has_quorum(&self.answering())
    }

    /// Whether this node has asked another to lead in its place, in the present term as far as its engine knows.
    pub(crate) fn has_made_way(&self) -> bool {
        self.gave_up(self.term())
    }

    /// Whether this node has asked another to lead in its place in `term`.
    pub(super) fn gave_up(&self, term: u64) -> bool {
        self.0.arrivals.handed_over.load(Ordering::Acquire) == term
    }

    /// Notes that `who` is the newest life of its node. Whether that is news.
    pub(crate) fn note_arrival(&self, who: Identity, now: Moment) -> bool {
        let mut lives = self.0.arrivals.lives.lock();
        let known = lives.get(&who.node).is_some_and(|(life, _)| *life == who);
        if !known {
            lives.insert(who.node, (who, now));
        }
        !known
    }

    /// How long `node` may still be bound by a promise of its former life, as far as this node knows when it came.
    fn embargo_of(&self, node: NodeId) -> Duration {
        let arrivals = self.0.arrivals.lives.lock();
        let known = arrivals.get(&node).map(|(_, at)| clock::now().since(*at)).unwrap_or_default();
        // And a heartbeat more, for it counts from its own start.
        (self.0.config.embargo() + self.0.config.heartbeat()).saturating_sub(known)
    }

    /// Stands for election at once, in place of a leader that is proved to have ended.
    pub(crate) async fn succeed(&self, end: &ProvedEnd) -> Result<(), SucceedError> {
        if let Some(fatal) = self.stopped() {
            return Err(fatal.into());
        }
        if let Some(trouble) = self.disk_trouble() {
            return Err(SucceedError::Disk(trouble));
        }
        let (who, state, leader) = (end.who(), self.state(), self.leader());
        // A later life of its node may lead by now: its end is not what was proved.
        let current = leader == Some(who.node) && state.newest(who.node).is_none_or(|newest| newest == who);
        if who.node == self.0.node || !current {
            return Err(SucceedError::NotTheLeader { who, leader });
        }
        if !state.configuration().is_lasting_voter(self.0.node) {
            return Err(SucceedError::NoVoter(self.0.node));
        }
        // P22: what it promised before its restart binds it in standing, too.
        if let Some(remaining) = self.0.embargo_ends.map(|ends| ends.since(clock::now())).filter(|left| !left.is_zero())
        {
            return Err(SucceedError::Embargo { remaining });
        }
        let (vote, last) = {
            let metrics = self.0.raft.metrics();
            let metrics = metrics.borrow_watched();
            (metrics.vote, metrics.last_applied)
        };
        tracing::info!(%who, proof = %end.proof(), "the leader is proved to have ended; standing for election at once");
        let asked = self.0.raft.handle_transfer_leader(OrTransfer::new(vote, self.0.node.get(), last)).await;
        match asked {
            Ok(Ok(())) => Ok(()),
            Ok(Err(changed)) => {
                tracing::debug!(%changed, "another vote was cast meanwhile");
                Err(SucceedError::NotTheLeader { who, leader: self.leader() })
            }
            Err(fatal) => Err(Fatal::Engine(fatal.to_string()).into()),
        }
    }

    /// The end of the leader that this node follows, if the log has it and this node is the one to take over: of the
    /// voters that stand, the first.
    pub(crate) fn succession(&self) -> Option<ProvedEnd> {
        let leader = self.leader().filter(|leader| *leader != self.0.node)?;
        let state = self.state();
        let end = ProvedEnd::committed(&state, state.newest(leader)?)?;
        let standing = state.standing();
        let mut successors = standing.iter().filter(|node| state.configuration().is_lasting_voter(**node));
        (successors.next() == Some(&self.0.node)).then_some(end)
    }
}
