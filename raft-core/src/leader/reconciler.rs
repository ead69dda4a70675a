//! The reconcile loop: turns what is owed into what is done, on whoever leads.
//!
//! ```text
//!   state ──duties──▶ ┐
//!   sightings (fence_after) ─▶ ├─▶ one task for each piece of work, at most one at a time ──▶ commands, changes of voters, Fencer
//!   own role (witness)▶┘        │ failed: wait, then try again if it is still owed
//! ```
//!
//! Nothing is remembered between rounds but what runs and what has to wait: another leader that reads the same state
//! owes the same. Believing to lead only starts work; each effect is a committed entry, or a change of voters that
//! names the one it follows on, so a leader that is none any more achieves nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use openraft::raft::Precondition;
use quorate_membership::codec::encode;
use quorate_membership::detector::{Moment, Signal};
use quorate_membership::{Cause, ClusterState, Command, Duty, Identity, NodeId, Phase, Role, decide, duties};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::engine::state_machine::revision;
use crate::host;
use crate::host::clock;
use crate::inner::Inner;
use crate::leader::fencer::attempt;
use crate::rpc::{Payload, Proposed};
use crate::view::View;

/// How many entries a learner may lag behind when it gets its vote.
const CLOSE_ENOUGH: u64 = 64;

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

struct Reconciler {
    inner: Arc<Inner>,
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
    fn heard_since(&self, inner: &Inner, node: NodeId) -> bool {
        let Some(ended) = self.ended.get(&node).filter(|_| node != inner.node) else { return true };
        // What was on its way may come a little later.
        let settled = Moment::new(ended.since_origin() + inner.config.heartbeat());
        inner.peers.contacts.all().get(&node).is_some_and(|heard| *heard > settled)
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

/// Runs until `stop`.
pub(crate) async fn run(inner: Arc<Inner>, mut stop: watch::Receiver<bool>) {
    let mut pace = interval(inner.config.heartbeat());
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut progress = inner.machine.progress();
    let mut reconciler = Reconciler {
        inner,
        running: BTreeMap::new(),
        waits: BTreeMap::new(),
        succeeded: None,
        closing: Closing::default(),
    };
    loop {
        tokio::select! { biased;
            _ = stop.wait_for(|stop| *stop) => break,
            _ = pace.tick() => {}
            changed = progress.changed() => if changed.is_err() { break },
        }
        reconciler.round().await;
    }
    for task in reconciler.running.values() {
        task.abort();
    }
}

impl Reconciler {
    async fn round(&mut self) {
        self.collect().await;
        let view = self.inner.view.borrow().clone();
        if view.local.stopped.is_some() {
            return;
        }
        self.closing.look(&self.inner.feed.state());
        if !self.inner.leading() {
            return self.succeed().await;
        }
        if !view.local.quorate {
            return;
        }
        // The freshest state, not the view's: a duty that was just done is not begun again.
        let state = self.inner.feed.state();
        let owed = owed(&self.inner, &view, &state, &self.closing);
        self.waits.retain(|work, _| owed.contains(work));
        for work in owed {
            let due = self.waits.get(&work).is_none_or(|(at, _)| clock::now() >= *at);
            if due && !self.running.contains_key(&work) && !self.conflicts(work) {
                tracing::debug!(node = %self.inner.node, ?work, "begun");
                let task = host::spawn(carry_out(self.inner.clone(), work, state.clone()));
                self.running.insert(work, task);
            }
        }
    }

    /// Takes over from a leader that is proved to have ended, without waiting for its silence.
    async fn succeed(&mut self) {
        let Some(end) = self.inner.succession().filter(|end| self.succeeded != Some(end.who())) else { return };
        self.succeeded = Some(end.who());
        if let Err(error) = self.inner.succeed(&end).await {
            tracing::debug!(%error, "no succession; the ordinary election comes");
        }
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
            let wait = self.inner.config.fence_backoff * (1 << failures.min(4));
            tracing::warn!(node = %self.inner.node, ?work, error = %format!("{error:#}"), ?wait, "failed; will be tried again");
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
fn order(inner: &Inner, target: Identity, cause: Cause) -> Command {
    Command::OrderFence { target, cause, under: inner.grantor.activation() }
}

/// Everything that this leader should be doing.
fn owed(inner: &Inner, view: &View, state: &ClusterState, closing: &Closing) -> Vec<Work> {
    let me = inner.node;
    let all = duties(state);
    // Own former life last: who ends it should not be who may be hit by that.
    let others = all.iter().any(|duty| matches!(duty, Duty::Condemn { former, .. } if former.node != me));
    let mut owed = vec![];
    for duty in all {
        match duty {
            Duty::Fence(order) => match state.fences().get(order) {
                Some(open) if open.target.node == me => owed.push(Work::HandOver),
                Some(_) if inner.fencer.is_none() => {} // an operator's word is awaited
                Some(_) => owed.push(Work::Duty(duty)),
                None => {}
            },
            Duty::Condemn { former, .. } if former.node == me && others => {}
            // Time alone will prove its end, and shoots nobody: a device might hit the life that came back. It gets as long
            // as it needs, twice over, and no longer: leaders that change begin the wait anew.
            Duty::Condemn { former, .. } if closing.soon(state, former, inner.config.propose_timeout) => {}
            Duty::Condemn { former, waiting }
                if !would_pass(state, &order(inner, former, Cause::Returned { as_life: waiting })) => {}
            Duty::Promote(node) | Duty::Activate(Identity { node, .. }) if !caught_up(inner, state, node) => {}
            Duty::Activate(who) if !closing.heard_since(inner, who.node) => {}
            // A change of voters that is begun and cannot be committed blocks everything: both sets must be there.
            Duty::Promote(node) if !heard_quorum(inner, state, node) => {}
            // The change of its own vote is somebody else's to lead.
            Duty::Demote(node) if node == me => owed.push(Work::HandOver),
            Duty::Demote(node) | Duty::Expel(node) if !heard_quorum(inner, state, node) => {}
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
        suspects.filter(|who| would_pass(state, &order(inner, *who, Cause::Silent { for_ms }))).map(Work::Suspect),
    );
    if inner.should_make_way() {
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
fn heard_quorum(inner: &Inner, state: &ClusterState, node: NodeId) -> bool {
    let mut heard = inner.heard_lately();
    heard.insert(inner.node);
    let configuration = state.configuration();
    if !configuration.is_voter(node) {
        return configuration.has_quorum(&heard);
    }
    let before = configuration.has_quorum(&heard);
    heard.remove(&node);
    before && configuration.without_voter(node).has_quorum(&heard)
}

/// Whether `node` has the log up to its own join, and nearly all of it.
fn caught_up(inner: &Inner, state: &ClusterState, node: NodeId) -> bool {
    if node == inner.node {
        return true;
    }
    let joined = state.newest(node).and_then(|who| state.life(who)).map(|life| life.since);
    let metrics = inner.raft.metrics().borrow_watched().clone();
    let matched = metrics.replication.and_then(|all| all.get(&node.get()).cloned().flatten());
    let Some(matched) = matched.map(|id| id.index) else { return false };
    let close = metrics.last_log_index.is_none_or(|last| last <= matched.saturating_add(CLOSE_ENOUGH));
    close && joined.is_none_or(|joined| revision(matched) >= joined)
}

async fn carry_out(inner: Arc<Inner>, work: Work, state: Arc<ClusterState>) -> Done {
    match work {
        Work::Suspect(target) => {
            let sighting = inner.view.borrow().local.sightings.get(&target.node).copied();
            let Some(sighting) = sighting.filter(|s| s.signal == Signal::Silent) else { return Ok(()) };
            let for_ms = u64::try_from(sighting.silence.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(%target, for_ms, "silent; asking for a fence order");
            propose_as_leader(&inner, order(&inner, target, Cause::Silent { for_ms })).await
        }
        Work::HandOver => {
            let successor = inner.hand_over(None).await?;
            tracing::info!(from = %inner.node, to = %successor, "leadership handed over");
            Ok(())
        }
        Work::Duty(Duty::Fence(order)) => match state.fences().get(order) {
            Some(open) => attempt(&inner, open, &state).await,
            None => Ok(()),
        },
        Work::Duty(Duty::Condemn { former, waiting }) => {
            propose_as_leader(&inner, order(&inner, former, Cause::Returned { as_life: waiting })).await
        }
        Work::Duty(Duty::Activate(who)) => propose(&inner, Command::Activate { who }).await,
        Work::Duty(Duty::FinishChange) => change(&inner, ChangeMembers::AddVoterIds(Default::default()), true).await,
        Work::Duty(Duty::CatchUp(node)) => {
            change(&inner, ChangeMembers::AddNodes([(node.get(), ())].into()), true).await
        }
        Work::Duty(Duty::Promote(node)) => change(&inner, ChangeMembers::AddVoterIds([node.get()].into()), true).await,
        Work::Duty(Duty::Demote(node)) => change(&inner, ChangeMembers::RemoveVoters([node.get()].into()), true).await,
        Work::Duty(Duty::Expel(node)) => {
            let ids = || [node.get()].into();
            match state.configuration().is_voter(node) {
                true => change(&inner, ChangeMembers::RemoveVoters(ids()), false).await,
                false => change(&inner, ChangeMembers::RemoveNodes(ids()), true).await,
            }
        }
    }
}

/// For opinions: one try, on this node's own engine. An opinion that outlived its leadership is not handed to another
/// leader, who may hear well what this one could not.
pub(crate) async fn propose_as_leader(inner: &Inner, command: Command) -> Done {
    let payload = Payload::new(encode(&command)?);
    match inner.propose_here(payload, Instant::now() + inner.config.election_max() * 2).await {
        Proposed::Applied { .. } | Proposed::NotLeader { .. } => Ok(()),
        Proposed::Rejected { rejection, .. } => Err(rejection.into()),
        Proposed::Unknown { reason } => anyhow::bail!("{reason}"),
    }
}

pub(crate) async fn propose(inner: &Inner, command: Command) -> Done {
    inner.propose(command, inner.config.propose_timeout).await?;
    Ok(())
}

/// One change of the voters, only if nobody changed them since: two steps when votes move, and whoever leads next
/// finishes them if this one cannot.
async fn change(inner: &Inner, members: ChangeMembers<u64, ()>, retain: bool) -> Done {
    let last_membership_log_id = *inner.raft.metrics().borrow_watched().membership_config.log_id();
    let unchanged = Precondition::LastMembershipLogId { last_membership_log_id };
    let limit = inner.config.propose_timeout;
    let changing = inner.raft.change_membership_if(members, retain, [unchanged]);
    timeout(limit, changing).await.map_err(|_| anyhow::anyhow!("the change was not committed within {limit:?}"))??;
    Ok(())
}
