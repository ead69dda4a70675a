//! The reconcile loop: turns what is owed into what is done, on whoever leads.
//!
//! ```text
//!   state ──duties──▶ ┐
//!   silent nodes ──────▶ ├─▶ one task for each piece of work, at most one at a time ──▶ commands, changes of voters, Fencer
//!   own role (witness)▶┘        │ failed: wait, then try again if it is still owed
//! ```
//!
//! Nothing is remembered between rounds but what runs and what has to wait: another leader that reads the same state
//! owes the same. Believing to lead only starts work; each effect is a committed entry, or a change of voters that
//! names the one it follows on, so a leader that is none any more achieves nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorate_membership::detector::{Moment, Signal};
use quorate_membership::{
    Activation, Cause, ClusterState, Command, Duty, Identity, NodeId, Phase, Role, decide, duties,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, VoterChange};
use crate::fencer::Fencer;
use crate::host;
use crate::host::clock;
use crate::leader::fence_runner::attempt;
use crate::view::View;

/// A piece of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    /// Something owed.
    Duty(Duty),
    /// A node has gone silent: ask for an order against its life.
    Suspect(Identity),
    /// This node should not lead: hand over.
    HandOver,
}

type Done = anyhow::Result<()>;

/// Keeps the duties of the leader, on whichever node leads.
pub(crate) struct Reconciler {
    engine: Engine,
    views: watch::Receiver<View>,
    activation: watch::Receiver<Option<Activation>>,
    fencer: Option<Arc<dyn Fencer>>,
    running: BTreeMap<Work, JoinHandle<Done>>,
    waits: BTreeMap<Work, (Moment, u32)>,
    /// The leader whose end this node has stood for election on: once each.
    succeeded: Option<Identity>,
    closing: Closing,
}

/// The former lives whose nodes have come back, and since when this node knows. Every node keeps it, so that a change of
/// leaders does not begin the time anew.
#[derive(Default)]
struct Closing {
    since: BTreeMap<Identity, Moment>,
    /// The nodes whose former life has ended after they had come back, and since when this node knows.
    ended: BTreeMap<NodeId, Moment>,
}

impl Closing {
    fn look(&mut self, state: &ClusterState) {
        let closing = |who: Identity| {
            let life = state.life(who).filter(|life| matches!(life.phase, Phase::Active | Phase::Fencing));
            life.is_some() && state.newest(who.node) != Some(who)
        };
        let over: Vec<Identity> = self.since.keys().copied().filter(|who| !closing(*who)).collect();
        for who in over {
            self.since.remove(&who);
            self.ended.insert(who.node, clock::now());
        }
        for (who, _) in state.lives().filter(|(who, _)| closing(*who)) {
            self.since.entry(who).or_insert_with(clock::now);
        }
        self.ended.retain(|node, _| state.member(*node).is_some());
    }

    /// Whether `node` was heard after its former life had ended. A device that ends a former life may have ended the one that
    /// came back with it, on the same machine: one that is given work without having been heard since would be shot for it
    /// when its node comes back again, and so on for ever.
    fn heard_since(&self, engine: &Engine, node: NodeId) -> bool {
        let Some(ended) = self.ended.get(&node).filter(|_| node != engine.node()) else { return true };
        // What was on its way may come a little later.
        let settled = Moment::new(ended.since_origin() + engine.config().heartbeat());
        engine.peers().contacts.all().get(&node).is_some_and(|heard| *heard > settled)
            || cfg!(quorate_mutant = "activated_unheard")
    }

    /// Whether its end will still be proved without a device: by time, within twice what its contract asks for, or by the
    /// word of its successor, within `timeout`, where it had declared that its work dies with its process (P3).
    fn soon(&self, state: &ClusterState, former: Identity, timeout: Duration) -> bool {
        let Some(life) = state.life(former) else { return false };
        let known = self.since.get(&former).map(|since| clock::now().since(*since)).unwrap_or_default();
        let successor = state.newest(former.node).and_then(|newest| state.life(newest));
        let says_so = life.process_bound
            && successor.is_some_and(|successor| successor.boot == life.boot && successor.phase == Phase::Joining);
        life.contract.own_wait().is_some_and(|wait| known < wait * 2) || (says_so && known < timeout)
    }
}

impl Reconciler {
    /// `views`: what the monitor sees. `activation`: under which this node acts as leader. `fencer`: the consumer's, if it
    /// has one.
    pub(crate) fn new(
        engine: Engine,
        views: watch::Receiver<View>,
        activation: watch::Receiver<Option<Activation>>,
        fencer: Option<Arc<dyn Fencer>>,
    ) -> Self {
        let (running, waits, closing) = Default::default();
        Self { engine, views, activation, fencer, running, waits, succeeded: None, closing }
    }

    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut pace = interval(self.engine.config().heartbeat());
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut progress = self.engine.progress();
        loop {
            tokio::select! { biased;
                () = stop.cancelled() => break,
                _ = pace.tick() => {}
                changed = progress.changed() => if changed.is_err() { break },
            }
            self.round().await;
        }
        for task in self.running.values() {
            task.abort();
        }
    }

    async fn round(&mut self) {
        self.collect().await;
        let view = self.views.borrow().clone();
        if view.local.stopped.is_some() {
            return;
        }
        self.closing.look(&self.engine.state());
        if !self.engine.leading() {
            return self.succeed().await;
        }
        if !view.local.quorate {
            return;
        }
        // The freshest state, not the view's: a duty that was just done is not begun again.
        let state = self.engine.state();
        let owed = owed(self, &view, &state);
        self.waits.retain(|work, _| owed.contains(work));
        for work in owed {
            let due = self.waits.get(&work).is_none_or(|(at, _)| clock::now() >= *at);
            if due && !self.running.contains_key(&work) && !self.conflicts(work) {
                tracing::debug!(node = %self.engine.node(), ?work, "begun");
                let task = host::spawn(self.hands().carry_out(work, state.clone()));
                self.running.insert(work, task);
            }
        }
    }

    /// Takes over from a leader that is proved to have ended, without waiting for its silence.
    async fn succeed(&mut self) {
        let Some(end) = self.engine.succession().filter(|end| self.succeeded != Some(end.who())) else { return };
        self.succeeded = Some(end.who());
        if let Err(error) = self.engine.succeed(&end).await {
            tracing::debug!(%error, "no succession; the ordinary election comes");
        }
    }

    fn hands(&self) -> Hands {
        let (views, fencer) = (self.views.clone(), self.fencer.clone());
        Hands { engine: self.engine.clone(), views, under: *self.activation.borrow(), fencer }
    }

    /// Raft changes its voters one step at a time, so only one such piece of work runs.
    fn conflicts(&self, work: Work) -> bool {
        changes_voters(work) && self.running.keys().any(|running| changes_voters(*running))
    }

    async fn collect(&mut self) {
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
            let wait = self.engine.config().fence_backoff * (1 << failures.min(4));
            tracing::warn!(node = %self.engine.node(), ?work, error = %format!("{error:#}"), ?wait, "failed; will be tried again");
            self.waits.insert(work, (Moment::new(clock::now().since_origin() + wait), failures + 1));
        }
    }
}

fn changes_voters(work: Work) -> bool {
    matches!(
        work,
        Work::Duty(Duty::FinishChange | Duty::CatchUp(_) | Duty::Promote(_) | Duty::Demote(_) | Duty::Expel(_))
    )
}

/// Whether the rules would take the command now: what they would refuse is not put into the log again and again.
fn would_pass(state: &ClusterState, command: &Command) -> bool {
    decide(state, state.revision().next(), command).is_ok()
}

/// This leader's opinion, which counts under its activation only.
fn order(under: Option<Activation>, target: Identity, cause: Cause) -> Command {
    Command::OrderFence { target, cause, under }
}

/// Everything that this leader should be doing.
fn owed(reconciler: &Reconciler, view: &View, state: &ClusterState) -> Vec<Work> {
    let Reconciler { engine, fencer, closing, .. } = reconciler;
    let (me, under) = (engine.node(), *reconciler.activation.borrow());
    let all = duties(state);
    // Own former life last: who ends it should not be who may be hit by that.
    let others = all.iter().any(|duty| matches!(duty, Duty::Condemn { former, .. } if former.node != me));
    let mut owed = vec![];
    for duty in all {
        match duty {
            Duty::Fence(order) => match state.fences().get(order) {
                Some(open) if open.target.node == me => owed.push(Work::HandOver),
                Some(_) if fencer.is_none() => {} // an operator's word is awaited
                Some(_) => owed.push(Work::Duty(duty)),
                None => {}
            },
            Duty::Condemn { former, .. } if former.node == me && others => {}
            // Time alone will prove its end, and shoots nobody: a device might hit the life that came back. It gets as long
            // as it needs, twice over, and no longer: leaders that change begin the wait anew.
            Duty::Condemn { former, .. } if closing.soon(state, former, engine.config().propose_timeout) => {}
            Duty::Condemn { former, waiting }
                if !would_pass(state, &order(under, former, Cause::Returned { as_life: waiting })) => {}
            Duty::Promote(node) | Duty::Activate(Identity { node, .. }) if !engine.caught_up(state, node) => {}
            Duty::Activate(who) if !closing.heard_since(engine, who.node) => {}
            // A change of voters that is begun and cannot be committed blocks everything: both sets must be there.
            Duty::Promote(node) if !heard_quorum(engine, state, node) => {}
            // The change of its own vote is somebody else's to lead.
            Duty::Demote(node) if node == me => owed.push(Work::HandOver),
            Duty::Demote(node) | Duty::Expel(node) if !heard_quorum(engine, state, node) => {}
            Duty::FinishChange if cfg!(quorate_mutant = "joint_left_half_done") => {}
            Duty::Condemn { .. }
            | Duty::FinishChange
            | Duty::CatchUp(_)
            | Duty::Promote(_)
            | Duty::Demote(_)
            | Duty::Expel(_)
            | Duty::Activate(_) => owed.push(Work::Duty(duty)),
        }
    }
    let fence_after = view.local.sightings.iter().filter(|(_, sighting)| sighting.signal == Signal::Silent);
    let stands = |node: NodeId| {
        let holds = |who: Identity| state.store().held_by(who.into()).next().is_some();
        let phase = |who: Identity| state.life(who).map(|life| life.phase);
        // One that only joins has nothing that could be fenced; but what it took up from its former life, it forfeits.
        state.newest(node).filter(|who| match phase(*who) {
            Some(Phase::Active) => true,
            Some(Phase::Joining) => holds(*who),
            Some(Phase::Fencing | Phase::Fenced | Phase::Left) | None => false,
        })
    };
    let suspects = fence_after.filter_map(|(node, _)| stands(*node));
    let for_ms = 0; // how long does not matter to the rules
    owed.extend(
        suspects.filter(|who| would_pass(state, &order(under, *who, Cause::Silent { for_ms }))).map(Work::Suspect),
    );
    if engine.should_make_way() {
        owed.push(Work::HandOver);
    }
    let witness = state.member(me).is_some_and(|member| member.role == Role::Witness);
    let standing = state.standing();
    let mut successors = state.members().iter().filter(|(node, m)| m.role == Role::Voter && standing.contains(node));
    if witness && successors.any(|(node, _)| state.configuration().is_lasting_voter(*node)) {
        owed.push(Work::HandOver);
    }
    owed
}

/// Whether those who were heard just now could commit a change of the voters that adds or takes the vote of `node`.
fn heard_quorum(engine: &Engine, state: &ClusterState, node: NodeId) -> bool {
    let mut heard = engine.heard_lately();
    heard.insert(engine.node());
    let configuration = state.configuration();
    if !configuration.is_voter(node) {
        return configuration.has_quorum(&heard);
    }
    let before = configuration.has_quorum(&heard);
    heard.remove(&node);
    before && configuration.without_voter(node).has_quorum(&heard)
}

/// What carries out one piece of work.
struct Hands {
    engine: Engine,
    views: watch::Receiver<View>,
    under: Option<Activation>,
    fencer: Option<Arc<dyn Fencer>>,
}

impl Hands {
    async fn carry_out(self, work: Work, state: Arc<ClusterState>) -> Done {
        let Self { engine, views, under, fencer } = self;
        match work {
            Work::Suspect(target) => {
                let sighting = views.borrow().local.sightings.get(&target.node).copied();
                let Some(sighting) = sighting.filter(|s| s.signal == Signal::Silent) else { return Ok(()) };
                let for_ms = u64::try_from(sighting.silence.as_millis()).unwrap_or(u64::MAX);
                tracing::warn!(%target, for_ms, "silent; asking for a fence order");
                engine.propose_as_leader(order(under, target, Cause::Silent { for_ms })).await?;
            }
            Work::HandOver => {
                let successor = engine.hand_over(None).await?;
                tracing::info!(from = %engine.node(), to = %successor, "leadership handed over");
            }
            Work::Duty(Duty::Fence(order)) => {
                if let (Some(open), Some(fencer)) = (state.fences().get(order), fencer) {
                    attempt(&engine, fencer, open, &state).await?;
                }
            }
            Work::Duty(Duty::Condemn { former, waiting }) => {
                engine.propose_as_leader(order(under, former, Cause::Returned { as_life: waiting })).await?;
            }
            Work::Duty(Duty::Activate(who)) => {
                engine.propose(Command::Activate { who }, engine.config().propose_timeout).await?;
            }
            Work::Duty(Duty::FinishChange) => engine.change_voters(VoterChange::Finish).await?,
            Work::Duty(Duty::CatchUp(node)) => engine.change_voters(VoterChange::AddLearner(node)).await?,
            Work::Duty(Duty::Promote(node)) => engine.change_voters(VoterChange::AddVoter(node)).await?,
            Work::Duty(Duty::Demote(node)) => engine.change_voters(VoterChange::Demote(node)).await?,
            Work::Duty(Duty::Expel(node)) => engine.change_voters(VoterChange::Remove(node)).await?,
        }
        Ok(())
    }
}
