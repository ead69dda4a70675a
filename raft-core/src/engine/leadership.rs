//! Leadership: what the engine believes, and how it is handed over.
//!
//! An isolated leader believes in itself for ever (its state does not change when time passes), so nothing rests on what
//! is said here: it starts work and it finds the way to the leader, no more.
//!
//! After the *proved* death of a leader the survivors need not wait for its silence: they take over by the same door
//! that a hand-over uses, which skips the wait that protects a living leader. The door takes a [`ProvedEnd`]; a wrong
//! word there costs an election and no more, because nothing here reads on the strength of a leader's lease.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::{Instant as _, ServerState};
use quorate_membership::{NodeId, Phase, ProvedEnd, Role};
use tokio::time::{Instant, sleep, timeout};

use crate::engine::types::OrTransfer;
use crate::error::{Fatal, HandOverError, SucceedError};
use crate::host::clock;
use crate::inner::Inner;
use crate::rpc::Ballot;

impl Inner {
    /// The later vote that the engine waits for its disk to keep, if it does. Until then the engine shows itself as it was
    /// before, a leader that was deposed as one that leads, for as long as the disk is full or stands still.
    fn overtaken_by(&self) -> Option<Ballot> {
        let term = self.raft.metrics().borrow_watched().current_term;
        let later = self.store.vote_under_way().filter(|vote| vote.term > term && vote.node != self.node);
        later.filter(|_| !cfg!(quorate_mutant = "deposed_unnoticed"))
    }

    /// Whether this node leads, as far as it knows. Triggers work; proves nothing.
    pub(crate) fn leading(&self) -> bool {
        // Never two looks at once: the second would wait for the engine, and the engine for the first.
        let state = self.raft.metrics().borrow_watched().state;
        state == ServerState::Leader && self.overtaken_by().is_none()
    }

    /// Who leads, as far as this node knows.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        match self.overtaken_by() {
            Some(vote) => vote.committed.then_some(vote.node),
            None => self.raft.metrics().borrow_watched().current_leader.map(NodeId::new),
        }
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
                let answering = self.answering();
                let preferred = |node: &NodeId| {
                    let voter = state.member(*node).is_some_and(|m| m.role == Role::Voter);
                    (answering.contains(node), voter, matched.get(&node.get()).cloned().flatten().map(|id| id.index))
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
        let term = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            (metrics.state == ServerState::Leader).then_some(metrics.current_term)
        };
        let Some(term) = term else { return Err(HandOverError::NotLeader { leader: self.leader() }) };
        self.handed_over.store(term, Ordering::Release);
        let waited = self.config.election_max() * 3;
        let asked = timeout(waited, self.raft.trigger().transfer_leader(to.get())).await;
        if let Ok(Err(fatal)) = asked {
            return Err(Fatal::Engine(fatal.to_string()).into());
        }
        let give_up = Instant::now() + waited;
        while Instant::now() < give_up {
            match self.leader() {
                Some(leader) if leader != self.node => return Ok(leader),
                Some(_) | None => sleep(self.config.heartbeat() / 8).await,
            }
        }
        Err(HandOverError::TimedOut { waited })
    }

    /// The others that gave a sign of life within the last few heartbeats.
    pub(crate) fn heard_lately(&self) -> BTreeSet<NodeId> {
        let (now, limit) = (clock::now(), self.config.heartbeat() * 3);
        let all = self.peers.contacts.all().into_iter();
        all.filter(|(node, at)| *node != self.node && now.since(*at) < limit).map(|(node, _)| node).collect()
    }

    /// The others whose engines have answered this leader lately. One that waits for its disk does not, though it is heard.
    fn answering(&self) -> BTreeSet<NodeId> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let all = metrics.heartbeat.iter().flatten().filter_map(|(node, at)| Some((NodeId::new(*node), at.as_ref()?)));
        let lately = all.filter(|(node, at)| *node != self.node && at.elapsed() < self.config.election_max());
        lately.map(|(node, _)| node).collect()
    }

    /// Whether this leader should make way because its disk does not do its work. Only if the others are enough to elect
    /// one without it, and answer: otherwise nothing could be committed either way, and as long as it speaks it can at least
    /// confirm that nobody else leads, on which the leases of all rest. Asked once in a term: after that the engine's leader is
    /// silent, and if nobody took over at its word the others elect when they have heard nothing for long enough.
    pub(crate) fn should_make_way(&self) -> bool {
        !self.has_made_way()
            && self.disk_trouble().is_some()
            && self.feed.state().configuration().has_quorum(&self.answering())
    }

    /// Whether this node has asked another to lead in its place, in the present term as far as its engine knows.
    pub(crate) fn has_made_way(&self) -> bool {
        self.handed_over.load(Ordering::Acquire) == self.raft.metrics().borrow_watched().current_term
    }

    /// How long `node` may still be bound by a promise of its former life, as far as this node knows when it came.
    fn embargo_of(&self, node: NodeId) -> Duration {
        let arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        let known = arrivals.get(&node).map(|(_, at)| clock::now().since(*at)).unwrap_or_default();
        // And a heartbeat more, for it counts from its own start.
        (self.config.embargo() + self.config.heartbeat()).saturating_sub(known)
    }

    /// Stands for election at once, in place of a leader that is proved to have ended.
    pub(crate) async fn succeed(&self, end: &ProvedEnd) -> Result<(), SucceedError> {
        if let Some(fatal) = self.stopped() {
            return Err(fatal.into());
        }
        if let Some(trouble) = self.disk_trouble() {
            return Err(SucceedError::Disk(trouble));
        }
        let (who, state, leader) = (end.who(), self.feed.state(), self.leader());
        // A later life of its node may lead by now: its end is not what was proved.
        let current = leader == Some(who.node) && state.newest(who.node).is_none_or(|newest| newest == who);
        if who.node == self.node || !current {
            return Err(SucceedError::NotTheLeader { who, leader });
        }
        if !state.configuration().is_lasting_voter(self.node) {
            return Err(SucceedError::NoVoter(self.node));
        }
        // P22: what it promised before its restart binds it in standing, too.
        if let Some(remaining) = self.embargo_ends.map(|ends| ends.since(clock::now())).filter(|left| !left.is_zero()) {
            return Err(SucceedError::Embargo { remaining });
        }
        let (vote, last) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            (metrics.vote, metrics.last_applied)
        };
        tracing::info!(%who, proof = %end.proof(), "the leader is proved to have ended; standing for election at once");
        let asked = self.raft.handle_transfer_leader(OrTransfer::new(vote, self.node.get(), last)).await;
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
        let leader = self.leader().filter(|leader| *leader != self.node)?;
        let state = self.feed.state();
        let end = ProvedEnd::committed(&state, state.newest(leader)?)?;
        let standing = state.standing();
        let mut successors = standing.iter().filter(|node| state.configuration().is_lasting_voter(**node));
        (successors.next() == Some(&self.node)).then_some(end)
    }
}
