//! A small real world around the production `ClusterState`: machines, processes, work, fencers and a network, for `model.rs`.
//!
//! ```text
//!   what the cluster believes (the shipped types)      what is really so (tracked here, the rules never see it)
//!   ┌───────────────────────────────────────┐          ┌─────────────────────────────────────────────────────┐
//!   │ committed: decide, evolve, duties     │ ◀─────── │ network: confirmations, failures, goodbyes; any of  │
//!   └───────────────────────────────────────┘ commands │          them late, twice or never                  │
//!        │ Begin (StartFence is committed)             │ calls:   fencers that leaders have called, old ones │
//!        └───────────────────────────────────────────▶ │ running: which life really runs which job           │
//!                                                      └─────────────────────────────────────────────────────┘
//! ```
//!
//! Three machines run a job each; two more voters only vote, so that two orders can be open at once. A daemon that is
//! restarted leaves the work of its former life running. A fencer is as weak as it may be: it ends the life that it was
//! called for and spares all else, even another life on the same machine.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use quorate_membership::*;

/// What keeps the exploration finite.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// The machines to which anything may happen; the others only take work over.
    pub(crate) machines: u64,
    /// Processes of one machine, the first included.
    pub(crate) processes: u64,
    /// How many of each in all.
    pub(crate) restarts: u8,
    pub(crate) crashes: u8,
    pub(crate) orders: u8,
    pub(crate) goodbyes: u8,
    pub(crate) takeovers: u8,
    /// Attempts of one order.
    pub(crate) attempts: u32,
    /// Whether honest operators speak.
    pub(crate) operators: bool,
}

/// One fencer, called once: the order, whom to end, and which leader's attempt it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Call {
    pub(crate) order: FenceId,
    pub(crate) target: Identity,
    pub(crate) attempt: u32,
}

/// What is on its way. Never removed, so that it arrives late, twice, or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Message {
    Confirmed(Call),
    Failed(Call),
    Goodbye(Identity),
}

/// A step of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The machine loses power: its process and all work on it are gone.
    Crash(NodeId),
    /// The daemon starts; work of its former life survives, unless the machine crashed before.
    Restart(NodeId),
    /// The request of that process arrives, be the process long dead.
    Join(NodeId, u64),
    Activate(Identity),
    /// A leader takes a life for silent, rightly or not.
    Suspect(Identity),
    /// A leader commits that it begins, and calls the fencer.
    Begin(FenceId),
    /// The fencer ends the life, however late and whichever node leads by now.
    Shoot(Call),
    /// The fencer did not succeed.
    Miss(Call),
    Deliver(Message),
    /// The process stops its work, and the life leaves.
    Leave(NodeId),
    /// An operator looks, sees that nothing of that life is left, and vouches for it.
    Vouch(Identity),
    /// A consumer heard that the owner of a job has ended, and gives the job to another life.
    TakeOver(NodeId, Identity),
    /// The owner of a job starts it.
    Work(NodeId, Identity),
}

/// The production state. Hashed without what only ever grows and no rule reads: revisions, the epoch, history, texts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Committed(pub(crate) ClusterState);

impl Hash for Committed {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        for (node, member) in self.0.members() {
            (node, member.role, member.disk).hash(hasher);
            member.lives.iter().for_each(|(i, life)| (i, life.phase, life.nonce).hash(hasher));
        }
        for order in self.0.fences().open() {
            let state = std::mem::discriminant(&order.progress);
            (order.id, order.target, order.attempts, state).hash(hasher);
        }
    }
}

#[derive(Debug, Clone, PartialEq, Hash)]
pub(crate) struct World {
    pub(crate) committed: Arc<Committed>,
    /// How often each machine's daemon was started.
    pub(crate) started: BTreeMap<NodeId, u64>,
    /// The machines whose newest process lives.
    pub(crate) alive: BTreeSet<NodeId>,
    /// Which life each process was told that it is.
    pub(crate) names: BTreeMap<(NodeId, u64), Identity>,
    /// To which life each job was given.
    pub(crate) owners: BTreeMap<NodeId, Identity>,
    /// Which life really runs which job.
    pub(crate) running: BTreeSet<(Identity, NodeId)>,
    pub(crate) calls: BTreeSet<Call>,
    pub(crate) network: BTreeSet<Message>,
    /// What was seen that never may be.
    pub(crate) wrong: BTreeSet<&'static str>,
    restarts: u8,
    crashes: u8,
    orders: u8,
    goodbyes: u8,
    takeovers: u8,
}

pub(crate) const MINORITY: &str = "an order left a minority";
pub(crate) const UNPROVED: &str = "a life was fenced without its order and a proof of it";

impl World {
    /// The machines at work, each on its own job.
    pub(crate) fn at_work(cluster: ClusterState, machines: u64) -> Self {
        let nodes = (1..=machines).map(NodeId::new);
        let first = |node| Identity::new(node, Incarnation::new(1));
        Self {
            committed: Arc::new(Committed(cluster)),
            started: nodes.clone().map(|node| (node, 1)).collect(),
            alive: nodes.clone().collect(),
            names: nodes.clone().map(|node| ((node, 1), first(node))).collect(),
            owners: nodes.clone().map(|node| (node, first(node))).collect(),
            running: nodes.map(|node| (first(node), node)).collect(),
            calls: BTreeSet::new(),
            network: BTreeSet::new(),
            wrong: BTreeSet::new(),
            restarts: 0,
            crashes: 0,
            orders: 0,
            goodbyes: 0,
            takeovers: 0,
        }
    }

    pub(crate) fn cluster(&self) -> &ClusterState {
        &self.committed.0
    }

    pub(crate) fn phase(&self, who: Identity) -> Option<Phase> {
        self.cluster().life(who).map(|life| life.phase)
    }

    /// The life that the newest process of a machine is, if it lives and was told.
    fn present(&self, node: NodeId) -> Option<Identity> {
        let process = (node, *self.started.get(&node)?);
        self.names.get(&process).copied().filter(|_| self.alive.contains(&node))
    }

    /// Every step that may come next; those that the rules refuse are left out later.
    pub(crate) fn steps(&self, bounds: &Bounds, steps: &mut Vec<Step>) {
        let within = |node: &NodeId| node.get() <= bounds.machines;
        for (node, started) in self.started.iter().filter(|(node, _)| within(node)) {
            if self.crashes < bounds.crashes && self.alive.contains(node) {
                steps.push(Step::Crash(*node));
            }
            if self.restarts < bounds.restarts && *started < bounds.processes {
                steps.push(Step::Restart(*node));
            }
            steps.extend((1..=*started).map(|process| Step::Join(*node, process)));
            if self.goodbyes < bounds.goodbyes && self.present(*node).is_some() {
                steps.push(Step::Leave(*node));
            }
        }
        for (who, life) in self.cluster().lives().filter(|(who, _)| within(&who.node)) {
            let nothing_left = self.running.iter().all(|(life, _)| *life != who) && self.present(who.node) != Some(who);
            match life.phase {
                Phase::Joining => steps.push(Step::Activate(who)),
                Phase::Active if self.orders < bounds.orders => steps.push(Step::Suspect(who)),
                _ => {}
            }
            if bounds.operators && nothing_left && life.phase.may_work() && self.orders < bounds.orders {
                steps.push(Step::Vouch(who));
            }
        }
        let again = self.cluster().fences().open().filter(|order| order.attempts < bounds.attempts);
        steps.extend(again.map(|order| Step::Begin(order.id)));
        steps.extend(self.calls.iter().flat_map(|call| [Step::Shoot(*call), Step::Miss(*call)]));
        steps.extend(self.network.iter().map(|message| Step::Deliver(*message)));
        for (job, owner) in &self.owners {
            let over = self.phase(*owner).is_none_or(Phase::has_ended);
            if over && self.takeovers < bounds.takeovers {
                steps.extend(
                    self.cluster().active().filter(|who| who.node.get() <= 3).map(|who| Step::TakeOver(*job, who)),
                );
            }
            // The owner was told once that it may; what has become of it since it may not have heard.
            if self.present(owner.node) == Some(*owner) && !self.running.contains(&(*owner, *job)) {
                steps.push(Step::Work(*job, *owner));
            }
        }
    }

    /// The world after a step; `None` if the rules refuse it, or nothing is different.
    pub(crate) fn after(&self, step: Step) -> Option<Self> {
        let command = self.command(step);
        let events = match &command {
            None => vec![],
            Some(command) => {
                let answer = decide(self.cluster(), self.cluster().revision().next(), command);
                answer.ok().filter(|events| !events.is_empty())?
            }
        };
        let mut next = self.clone();
        next.commit(&events);
        match step {
            Step::Crash(node) => {
                next.crashes += 1;
                next.alive.remove(&node);
                next.running.retain(|(who, _)| who.node != node);
            }
            Step::Restart(node) => {
                next.restarts += 1;
                *next.started.get_mut(&node)? += 1;
                next.alive.insert(node);
            }
            Step::Join(node, process) => {
                next.names.insert((node, process), next.cluster().newest(node)?);
            }
            Step::Suspect(_) | Step::Vouch(_) => next.orders += 1,
            Step::Begin(order) => {
                let open = next.cluster().fences().get(order)?;
                next.calls.insert(Call { order, target: open.target, attempt: open.attempts });
            }
            Step::Shoot(call) => {
                next.calls.remove(&call);
                next.end(call.target);
                next.network.insert(Message::Confirmed(call));
            }
            Step::Miss(call) => {
                next.calls.remove(&call);
                next.network.insert(Message::Failed(call));
            }
            Step::Leave(node) => {
                let who = self.present(node)?;
                next.goodbyes += 1;
                next.end(who);
                next.network.insert(Message::Goodbye(who));
            }
            Step::TakeOver(job, who) => {
                next.takeovers += 1;
                next.owners.insert(job, who);
            }
            Step::Work(job, who) => {
                next.running.insert((who, job));
            }
            Step::Activate(_) | Step::Deliver(_) => {}
        }
        Some(next)
    }

    /// The entry that a step commits, if it commits one.
    fn command(&self, step: Step) -> Option<Command> {
        Some(match step {
            Step::Join(node, process) => {
                let disk = Disk { id: DiskId::new(node.get().into()), opened: process };
                let (boot, nonce) = (BootId::new(process.into()), Nonce::new(process.into()));
                let addresses = vec![Address::new("host:1").ok()?];
                Command::Join {
                    node,
                    role: Role::Voter,
                    addresses,
                    disk,
                    boot,
                    nonce,
                    contract: Contract::default(),
                    left: None,
                    hint: None,
                }
            }
            Step::Activate(who) => Command::Activate { who },
            Step::Suspect(target) => {
                let under = self.cluster().leadership().map(|l| l.activation);
                Command::OrderFence { target, cause: Cause::Silent { for_ms: 1 }, under }
            }
            Step::Begin(order) => {
                let attempt = self.cluster().fences().get(order)?.attempts + 1;
                Command::StartFence { order, by: leader(attempt), attempt }
            }
            Step::Deliver(Message::Confirmed(Call { order, target, attempt })) => {
                let evidence = Evidence::new("off").ok()?;
                let confirmation = Confirmation::Device { by: leader(attempt), attempt, evidence };
                Command::ConfirmFence { order, target, confirmation }
            }
            Step::Deliver(Message::Failed(Call { order, attempt, .. })) => {
                Command::FailFence { order, attempt, reason: words()? }
            }
            Step::Deliver(Message::Goodbye(who)) => Command::Leave { who },
            Step::Vouch(target) => Command::Vouch { target, name: words()?, reason: words()?, by: None },
            Step::Crash(_) | Step::Restart(_) | Step::Leave(_) | Step::Shoot(_) | Step::Miss(_) => return None,
            Step::TakeOver(..) | Step::Work(..) => return None,
        })
    }

    /// All that a life runs stops, and so does its process if it is still there.
    fn end(&mut self, who: Identity) {
        self.running.retain(|(life, _)| *life != who);
        if self.present(who.node) == Some(who) {
            self.alive.remove(&who.node);
        }
    }

    /// Applies what the production rules answered, and looks at it.
    fn commit(&mut self, events: &[Event]) {
        if events.is_empty() {
            return;
        }
        let mut state = self.cluster().clone();
        let revision = state.revision().next();
        events.iter().for_each(|event| evolve(&mut state, revision, event));
        let ordered = events.iter().any(|event| matches!(event, Event::FenceOrdered { .. }));
        if ordered && !state.configuration().has_quorum(&state.standing()) {
            self.wrong.insert(MINORITY);
        }
        if !events.iter().all(|event| proved(self.cluster(), events, event)) {
            self.wrong.insert(UNPROVED);
        }
        self.committed = Arc::new(Committed(state));
    }
}

/// Whether an event fences nobody, or closes an order that was open against that very life, for a reason that fits.
fn proved(before: &ClusterState, events: &[Event], event: &Event) -> bool {
    let Event::Fenced { order, who, proof, .. } = event else { return true };
    let open = before.fences().get(*order).filter(|open| open.target == *who);
    match proof {
        FenceProof::Device { attempt, .. } => open.is_some_and(|open| (1..=open.attempts).contains(attempt)),
        FenceProof::CleanLeave | FenceProof::Expired { .. } | FenceProof::Succeeded { .. } => open.is_some(),
        FenceProof::Operator { .. } => {
            let here =
                |e: &Event| matches!(e, Event::FenceOrdered { order: o, target, .. } if o == order && target == who);
            open.is_some() || events.iter().any(here)
        }
    }
}

/// Each attempt is another leader's: the two nodes that only vote.
fn leader(attempt: u32) -> NodeId {
    NodeId::new(if attempt % 2 == 1 { 4 } else { 5 })
}

fn words() -> Option<Reason> {
    Reason::new("seen").ok()
}
