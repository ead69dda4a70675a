//! The reconcile loop: compares what the leader should be doing with what runs, and starts what is missing.
//!
//! ```text
//!   state, silent nodes, own disk and role ──agenda──▶ [Work] ──▶ one task a piece of work, each at most once at a time
//!                                                                   │ ──▶ commands, changes of voters, fence runner
//!                                                                   └ failed: wait, and try again if it is still due
//! ```
//!
//! [`agenda`], pure code in membership, decides *what* to do; this file does it. Between rounds it remembers only what
//! runs and what has to wait, so another leader that reads the same state does the same. A node's belief that it leads
//! only starts work. Each effect is a committed entry, or a change of voters that names the change it follows, so a
//! deposed leader has no effect.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_membership::detector::{Moment, Signal};
use quorate_membership::{
    Activation, Cause, ClusterState, Command, Duty, FenceId, FormerLives, Identity, Outlook, Revision, Work, agenda,
    fencers_for, proved_soon,
};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::engine::{ChangeError, Engine, VoterChange};
use crate::error::{HandOverError, ProposeError};
use crate::host;
use crate::host::clock;
use crate::leader::fence_runner::{AttemptError, attempt, backoff};
use crate::leader::reach::{self, Reach};
use crate::rpc::{CanFence, FencerReach};
use crate::view::{Sighting, View};

/// Why a piece of work failed. It is tried again while it is still due.
#[derive(Debug, thiserror::Error)]
enum WorkError {
    #[error(transparent)]
    Propose(#[from] ProposeError),
    #[error(transparent)]
    Attempt(#[from] AttemptError),
    #[error(transparent)]
    HandOver(#[from] HandOverError),
    #[error(transparent)]
    Voters(#[from] ChangeError),
    #[error("the fencer of no other member says that it can carry out {0}")]
    NobodyReaches(FenceId),
    #[error("the task failed: {0}")]
    Task(#[from] JoinError),
}

/// The handles that the reconciler works with.
#[derive(Clone)]
pub(crate) struct Uses {
    pub(crate) engine: Engine,
    /// The observations of the monitor.
    pub(crate) views: watch::Receiver<View>,
    /// The activation under which this node acts as leader; `None` while it does not lead.
    pub(crate) activation: watch::Receiver<Option<Activation>>,
    /// The consumer's fencer, if the node was built with one.
    pub(crate) reach: Arc<Reach>,
    /// Notified when a node is to be fenced without waiting for the next round.
    pub(crate) urgent: Arc<Notify>,
}

/// Carries out the leader's duties, one task for each piece of work.
pub(crate) struct Reconciler {
    uses: Uses,
    running: BTreeMap<Work, JoinHandle<Result<(), WorkError>>>,
    /// Failed work: when it may be tried again, and how often it has failed.
    waits: BTreeMap<Work, (Moment, u32)>,
    /// The last leader whose end made this node stand for election. It stands once for each.
    succeeded: Option<Identity>,
    /// Since when former lives are awaited. Every node keeps it, so that a change of leader does not restart the waits.
    former_lives: FormerLives,
    /// The revision that had last changed more than records, queues and locks when former lives were looked for.
    observed: Option<Revision>,
}

impl Reconciler {
    pub(crate) fn new(uses: Uses) -> Self {
        let (running, waits, former_lives) = Default::default();
        Self { uses, running, waits, succeeded: None, former_lives, observed: None }
    }

    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let engine = self.uses.engine.clone();
        let mut pace = engine.beat().every(2);
        let (mut standing, urgent) = (engine.standing(), self.uses.urgent.clone());
        let mut activation = self.uses.activation.clone();
        loop {
            tokio::select! { biased;
                () = stop.cancelled() => break,
                _ = pace.tick() => {}
                changed = standing.changed() => if changed.is_err() { break },
                Ok(()) = activation.changed() => {
                    // A leader that has just begun is in no hurry: one that will hand over again must leave the others time to
                    // renew their leases. It is, if a process is known to have ended.
                    let refused = |sighting: &Sighting| sighting.signal == Signal::Refused;
                    if !self.uses.views.borrow().local.sightings.values().any(refused) {
                        continue;
                    }
                }
                () = urgent.notified() => {}
            }
            self.round(&engine).await;
        }
        for task in self.running.values() {
            task.abort();
        }
    }

    async fn round(&mut self, engine: &Engine) {
        self.collect(engine).await;
        let view = self.uses.views.borrow().clone();
        if view.local.stopped.is_some() {
            return;
        }
        if !engine.leading() {
            self.observe(engine);
            // The failures of an earlier leadership say little about the next.
            self.waits.clear();
            return self.succeed(engine).await;
        }
        // Not as of the view: a new leader has heard a quorum some milliseconds later, and its first round need not wait.
        if !engine.heard_by_quorum() {
            return;
        }
        let open = engine.look(|state| state.fences().open().map(|order| order.id).collect());
        let outlook = self.outlook(engine, &view, open);
        // The newest state, which may be newer than the view, so that finished work is not started again.
        let mut decide = |state: &ClusterState| {
            // In one look: what ends now is noted before anything is concluded from it.
            self.former_lives.observe(state, clock::now());
            agenda(state, &outlook, &self.former_lives)
        };
        // Who is idle shows only in all locks and records, and nothing is applied during a look.
        let due = if engine.config().spares_idle { decide(&engine.state()) } else { engine.look(decide) };
        self.waits.retain(|work, _| due.contains(work));
        if due.is_empty() {
            return;
        }
        let state = engine.state();
        for work in due {
            let waited = self.waits.get(&work).is_none_or(|(at, _)| clock::now() >= *at);
            if waited && !self.running.contains_key(&work) && !self.conflicts(work) {
                tracing::debug!(node = %engine.node(), ?work, "work started");
                let task = host::spawn(carry_out(self.uses.clone(), work, state.clone()));
                self.running.insert(work, task);
            }
        }
    }

    /// Takes note of former lives that close or end, as everybody does. Only changes of members and fence orders matter to them.
    fn observe(&mut self, engine: &Engine) {
        // Before the state is looked at, which is then as new or newer.
        let changed = *engine.standing().borrow();
        if self.observed.replace(changed) != Some(changed) {
            engine.look(|state| self.former_lives.observe(state, clock::now()));
        }
    }

    fn outlook(&self, engine: &Engine, view: &View, open: Vec<FenceId>) -> Outlook {
        let can_fence = self.uses.reach.fencer.is_some();
        let silent = view.local.sightings.iter().filter(|(_, sighting)| sighting.signal.asks_for_a_fence());
        Outlook {
            me: engine.node(),
            now: clock::now(),
            under: *self.uses.activation.borrow(),
            can_fence,
            given_up: open.into_iter().filter(|order| self.uses.reach.gives_up(*order)).collect(),
            proved_in: self.uses.reach.proved_in(clock::now()),
            spares_idle: engine.config().spares_idle,
            tells_lives_apart: can_fence && engine.config().fencer_tells_lives_apart,
            heard: engine.peers().contacts.all(),
            silent: silent.map(|(node, _)| *node).collect(),
            matched: engine.all_matched(),
            last: engine.last_entry(),
            should_make_way: engine.should_make_way() || (view.local.unreached.is_some() && !engine.has_made_way()),
            heartbeat: engine.config().heartbeat(),
            election_max: engine.config().election_max(),
            successor_timeout: engine.config().propose_timeout,
        }
    }

    /// Stands for election when the leader has provably ended, without waiting for its silence to trigger an election.
    async fn succeed(&mut self, engine: &Engine) {
        let Some(end) = engine.succession().filter(|end| self.succeeded != Some(end.who())) else { return };
        self.succeeded = Some(end.who());
        if let Err(error) = engine.succeed(&end).await {
            tracing::debug!(%error, "not standing as successor; an ordinary election follows");
        }
    }

    fn conflicts(&self, work: Work) -> bool {
        // An order does not move in the middle of an attempt.
        let one_order = |running: &Work| match (work, *running) {
            (Work::MoveOrder(a), Work::Duty(Duty::Fence(b))) | (Work::Duty(Duty::Fence(a)), Work::MoveOrder(b)) => {
                a == b
            }
            _ => false,
        };
        // One hand-over in a term: two successors would split the vote.
        let moves = |work: &Work| matches!(work, Work::MoveOrder(_) | Work::HandOver);
        let two_moves = |running: &Work| moves(&work) && moves(running);
        let made_way = matches!(work, Work::MoveOrder(_)) && self.uses.engine.has_made_way();
        let voters = |running: &Work| work.changes_voters() && running.changes_voters();
        made_way || self.running.keys().any(|running| one_order(running) || two_moves(running) || voters(running))
    }

    async fn collect(&mut self, engine: &Engine) {
        let done: Vec<Work> = self.running.iter().filter(|(_, t)| t.is_finished()).map(|(w, _)| *w).collect();
        for work in done {
            let Some(task) = self.running.remove(&work) else { continue };
            let error = match task.await {
                Ok(Ok(())) => {
                    self.waits.remove(&work);
                    continue;
                }
                Ok(Err(error)) => error,
                Err(panic) => panic.into(),
            };
            let (_, failures) = self.waits.get(&work).copied().unwrap_or_default();
            let wait = backoff(engine.config(), failures);
            let node = engine.node();
            match error {
                // Said once for the attempts themselves.
                WorkError::NobodyReaches(_) => tracing::debug!(%node, ?work, %error, ?wait, "it stays here for now"),
                _ => tracing::warn!(%node, ?work, %error, ?wait, "work failed; it will be tried again"),
            }
            self.waits.insert(work, (Moment::new(clock::now().since_origin() + wait), failures + 1));
        }
    }
}

/// Carries out one piece of work, as of `state`.
async fn carry_out(uses: Uses, work: Work, state: Arc<ClusterState>) -> Result<(), WorkError> {
    let Uses { engine, views, activation, reach, urgent: _ } = uses;
    let limit = engine.config().propose_timeout;
    // A leader's observation counts only under its own activation.
    let order = |target, cause| Command::OrderFence { target, cause, under: *activation.borrow() };
    match work {
        Work::Suspect(target) => {
            let sighting = views.borrow().local.sightings.get(&target.node).copied();
            let Some(sighting) = sighting.filter(|s| s.signal.asks_for_a_fence()) else { return Ok(()) };
            let for_ms = u64::try_from(sighting.silence.as_millis()).unwrap_or(u64::MAX);
            let cause = match sighting.signal {
                Signal::Refused => Cause::Refused,
                Signal::Healthy | Signal::Suspect | Signal::Silent => Cause::Silent { for_ms },
            };
            tracing::warn!(%target, %cause, "proposing a fence order");
            engine.propose_as_leader(order(target, cause)).await?;
        }
        Work::HandOver => {
            let successor = engine.hand_over(None).await?;
            tracing::info!(from = %engine.node(), to = %successor, "leadership handed over");
        }
        Work::Duty(Duty::Fence(order)) => {
            if let (Some(open), Some(fencer)) = (state.fences().get(order), reach.fencer.clone()) {
                let made = attempt(&engine, fencer, open, &state).await;
                if let Err(AttemptError::Failed(_)) = made {
                    reach.failed(order, &engine.state());
                }
                made?;
            }
        }
        Work::MoveOrder(order) => move_order(&engine, order, &state, &reach).await?,
        Work::Duty(Duty::Condemn { former, waiting }) => {
            engine.propose_as_leader(order(former, Cause::Returned { as_life: waiting })).await?;
        }
        Work::Duty(Duty::Activate(who)) => {
            engine.propose(Command::Activate { who }, limit).await?;
        }
        Work::Duty(Duty::FinishChange) => engine.change_voters(VoterChange::Finish).await?,
        Work::Duty(Duty::CatchUp(node)) => engine.change_voters(VoterChange::AddLearner(node)).await?,
        Work::Duty(Duty::Promote(node)) => engine.change_voters(VoterChange::AddVoter(node)).await?,
        Work::Duty(Duty::Demote(node)) => engine.change_voters(VoterChange::Demote(node)).await?,
        Work::Duty(Duty::Expel(node)) => engine.change_voters(VoterChange::Remove(node)).await?,
    }
    Ok(())
}

/// Hands leadership to a member whose fencer says that it can carry out `order`, and the order with it.
async fn move_order(engine: &Engine, order: FenceId, state: &ClusterState, reach: &Reach) -> Result<(), WorkError> {
    let limit = reach::limit(engine.config().fence_deadline) + engine.config().election_max();
    let asked = fencers_for(order, state, engine.node()).map(|node| async move {
        let said = engine.peers().call(node, CanFence(order), limit).await;
        matches!(said, Ok(FencerReach::Reaches)).then_some(node)
    });
    let able = futures_util::future::join_all(asked).await;
    let to = able.into_iter().flatten().next().ok_or(WorkError::NobodyReaches(order))?;
    // Time may have proved the end meanwhile, or be about to.
    let soon = proved_soon(order, &reach.proved_in(clock::now()), engine.config().election_max());
    if engine.state().fences().get(order).is_some() && !soon {
        engine.hand_over(Some(to)).await?;
        tracing::warn!(from = %engine.node(), %to, %order, "this node's fencer cannot carry out the order; leadership handed over");
    }
    Ok(())
}
