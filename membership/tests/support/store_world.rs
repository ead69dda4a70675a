//! A world of lives, clients, a fencing device and late commands around the production `ClusterState`, for `store_model.rs`.
//!
//! ```text
//!   what the cluster says (the shipped types)        what is really so (tracked here, the rules never see it)
//!   ┌──────────────────────────────────────┐         ┌───────────────────────────────────────────────────────────┐
//!   │ log: decide, evolve                  │ ──────▶ │ guards: each grant, until its holder itself releases it;   │
//!   │                                      │ grants  │         whether the lock has passed on it is never told    │
//!   │                                      │ ◀────── │ acts:   whether that life really may still do anything     │
//!   └──────────────────────────────────────┘ Append  │ calls:  a device acts first, and what it says comes later  │
//!                                                    └───────────────────────────────────────────────────────────┘
//! ```
//!
//! There is no list of messages on their way. What a client *could have sent* by now may be committed to the log at any
//! moment, in any order and any number of times; `store_moves.rs` lists it. So a command is as late as it can be, and
//! comes as often. A life that is silent, suspected or replaced on its node goes on acting until a device has really
//! ended it; a session goes on acting for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use quorate_membership::*;

use crate::checks::{self, Situation};
use crate::moves::Step;

/// Two locks; the queue belongs to the first.
pub(crate) const LOCKS: usize = 2;

/// n1#1, n2#1, n1#2 and two clients that are no members. n3 only votes.
pub(crate) const ACTORS: usize = 5;
pub(crate) const FIRST: usize = 0;
pub(crate) const OTHER: usize = 1;
pub(crate) const SECOND: usize = 2;
pub(crate) const CLIENTS: [usize; 2] = [3, 4];

/// What keeps the exploration finite, and what it must reach. Lists are by actor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) name: &'static str,
    /// Requests for each lock. Every second one does not wait in line.
    pub(crate) asks: [[u8; LOCKS]; ACTORS],
    /// Comparisons and sets of the one record.
    pub(crate) writes: [u8; ACTORS],
    /// Whether writes show the token that they are made under.
    pub(crate) guarded: bool,
    /// Whether the record is bound to the holder that writes it.
    pub(crate) bound: bool,
    /// Items of the queue, pushed by n2#1.
    pub(crate) pushes: u8,
    /// Items that are taken under one grant.
    pub(crate) takes: u8,
    pub(crate) settles: u8,
    pub(crate) orders: u8,
    /// Who is suspected.
    pub(crate) targets: &'static [usize],
    pub(crate) attempts: u32,
    /// Activations after the first.
    pub(crate) leads: u8,
    pub(crate) leaves: u8,
    /// How n1 may come back: its daemon alone, on the same boot, or the whole machine, on another.
    pub(crate) restarts: bool,
    pub(crate) reboots: bool,
    /// Whether the work of n1#1 dies with its process, so that it may say so.
    pub(crate) process_bound: bool,
    pub(crate) reaches: &'static [Situation],
}

/// What a holder believes that it holds: from the grant until it says itself that it lays it down.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WorkerGuard {
    pub(crate) lock: usize,
    pub(crate) token: Revision,
    pub(crate) request: Nonce,
    pub(crate) released: bool,
}

/// A comparison and set that was sent, with what its sender had read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) version: Option<Revision>,
    /// The lock and the token that it is made under.
    pub(crate) under: Option<(usize, Revision)>,
}

/// A life of a member, or a client.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Actor {
    /// Its name, once it has one.
    pub(crate) holder: Option<Holder>,
    /// Whether it really may still do anything.
    pub(crate) acts: bool,
    /// Whether it was told that it may begin. A life that only joins does nothing under what it took up, and on its way
    /// to being told it hears of whatever it lost.
    pub(crate) begun: bool,
    /// It has stopped everything, and leaves.
    pub(crate) left: bool,
    pub(crate) guards: Vec<WorkerGuard>,
    pub(crate) writes: Vec<Write>,
}

impl Actor {
    /// Whether it really may act under that lock now.
    pub(crate) fn may_act_under(&self, lock: usize) -> bool {
        self.acts && self.begun && self.guards.iter().any(|guard| guard.lock == lock && !guard.released)
    }
}

/// A call of the fencing device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Call {
    pub(crate) order: FenceId,
    pub(crate) target: Identity,
    pub(crate) attempt: u32,
    /// It has ended that life.
    pub(crate) acted: bool,
}

/// What has happened so often already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Used {
    pub(crate) settles: u8,
    pub(crate) orders: u8,
    pub(crate) leads: u8,
    pub(crate) leaves: u8,
}

#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) cluster: Arc<ClusterState>,
    pub(crate) actors: [Arc<Actor>; ACTORS],
    pub(crate) calls: Vec<Call>,
    /// Every activation so far: what was concluded under an earlier one may still come.
    pub(crate) activations: Vec<Activation>,
    /// What became of each request, as its events said: at which revision it took effect, or `None` if it was voided.
    pub(crate) fates: BTreeMap<Nonce, Option<Revision>>,
    /// Requests that were taken out of a line.
    pub(crate) withdrawn: BTreeSet<Nonce>,
    /// The newest token of each lock.
    pub(crate) newest: [Revision; LOCKS],
    /// The items that were pushed and not acknowledged by who had taken them.
    pub(crate) owed: BTreeSet<ItemId>,
    /// Which item was given out under which token.
    pub(crate) given: BTreeSet<(ItemId, Revision)>,
    pub(crate) used: Used,
    /// What was seen that never may be: bits of `checks::Wrong`.
    pub(crate) wrong: u16,
}

/// One world is another if nothing tells them apart: the fingerprint (`store_view.rs`) leaves out what no rule reads.
impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        self.cluster == other.cluster && self.actors == other.actors && self.calls == other.calls
    }
}

impl World {
    /// All three nodes at work, led by n2.
    pub(crate) fn at_work(cluster: ClusterState) -> Self {
        let life = |node, incarnation| Identity::new(NodeId::new(node), Incarnation::new(incarnation));
        let at_work =
            |who: Identity| Arc::new(Actor { holder: Some(who.into()), acts: true, begun: true, ..Actor::default() });
        let unborn = Arc::new(Actor::default());
        let activations = cluster.leadership().map(|leadership| leadership.activation).into_iter().collect();
        Self {
            cluster: Arc::new(cluster),
            actors: [at_work(life(1, 1)), at_work(life(2, 1)), unborn.clone(), unborn.clone(), unborn],
            calls: vec![],
            activations,
            fates: BTreeMap::new(),
            withdrawn: BTreeSet::new(),
            newest: [Revision::default(); LOCKS],
            owed: BTreeSet::new(),
            given: BTreeSet::new(),
            used: Used::default(),
            wrong: 0,
        }
    }

    pub(crate) fn actor_of(&self, holder: Holder) -> Option<usize> {
        self.actors.iter().position(|actor| actor.holder == Some(holder))
    }

    pub(crate) fn phase(&self, actor: usize) -> Option<Phase> {
        let Holder::Life(who) = self.actors[actor].holder? else { return None };
        self.cluster.life(who).map(|life| life.phase)
    }

    pub(crate) fn actor(&mut self, actor: usize) -> &mut Actor {
        Arc::make_mut(&mut self.actors[actor])
    }

    /// The world after a step, with what was to be seen of it; no world if nothing is different.
    pub(crate) fn after(&self, step: &Step, bounds: &Bounds) -> (Option<Self>, u32) {
        let mut next = self.clone();
        match step {
            Step::Append(command) => return self.append(command),
            Step::Release(actor, guard) => next.actor(*actor).guards[*guard].released = true,
            Step::Prepare(actor, guard) => {
                let version = self.cluster.store().record(crate::moves::key()).map(|record| record.version);
                let under = guard.map(|guard| &self.actors[*actor].guards[guard]);
                let write = Write { version, under: under.map(|guard| (guard.lock, guard.token)) };
                next.actor(*actor).writes.push(write);
            }
            Step::LayDown(actor) => {
                next.used.leaves += 1;
                let actor = next.actor(*actor);
                (actor.acts, actor.left) = (false, true);
            }
            Step::Shoot(call) => {
                next.calls[*call].acted = true;
                if let Some(actor) = self.actor_of(self.calls[*call].target.into()) {
                    next.actor(actor).acts = false;
                }
            }
            Step::Restart(command) | Step::Reboot(command) => {
                let gone = bounds.process_bound || matches!(step, Step::Reboot(_));
                let (joined, seen) = next.append(command);
                let Some(mut next) = joined else { return (None, seen) };
                next.actor(FIRST).acts &= !gone;
                return (Some(next), seen);
            }
        }
        (Some(next), 0)
    }

    /// The command comes to stand in the log.
    fn append(&self, command: &Command) -> (Option<Self>, u32) {
        let revision = self.cluster.revision().next();
        let answer = decide(&self.cluster, revision, command);
        let mut seen = checks::seen(self, command, &answer);
        let Some(events) = answer.ok().filter(|events| !events.is_empty()) else { return (None, seen) };
        let mut next = self.clone();
        let mut cluster = (*self.cluster).clone();
        events.iter().for_each(|event| evolve(&mut cluster, revision, event));
        next.wrong |= checks::wrong(self, revision, command, &events, &cluster);
        next.cluster = Arc::new(cluster);
        events.iter().for_each(|event| next.note(revision, command, event));
        next.wrong |= checks::lost(&next);
        seen |= checks::reached(self, &events, &next);
        (Some(next), seen)
    }

    /// Who learns what from an event.
    fn note(&mut self, revision: Revision, command: &Command, event: &Event) {
        match event {
            Event::Answered { request } => _ = self.fates.insert(*request, Some(revision)),
            Event::Voided { request } => {
                self.used.settles += 1;
                self.fates.insert(*request, None);
            }
            Event::LockWithdrawn { request, .. } => {
                self.used.settles += 1;
                self.withdrawn.insert(*request);
            }
            Event::LockGranted { name, holder, token, request } => {
                let lock = crate::moves::lock_of(name);
                self.newest[lock] = self.newest[lock].max(*token);
                if let Some(actor) = self.actor_of(*holder) {
                    let guard = WorkerGuard { lock, token: *token, request: *request, released: false };
                    self.actor(actor).guards.push(guard);
                }
            }
            Event::Pushed { item, .. } => _ = self.owed.insert(*item),
            Event::Taken { item, token, .. } => _ = self.given.insert((*item, *token)),
            Event::Acknowledged { item, .. } => _ = self.owed.remove(item),
            Event::SessionOpened { id, .. } => {
                if let Some(actor) = crate::moves::sender(command) {
                    let actor = self.actor(actor);
                    (actor.holder, actor.acts, actor.begun) = (Some((*id).into()), true, true);
                }
            }
            Event::Joined { who, .. } => {
                let actor = self.actor(SECOND);
                (actor.holder, actor.acts) = (Some((*who).into()), true);
            }
            Event::Activated { .. } => self.actor(SECOND).begun = true,
            Event::LockReleased { holder, token, .. } => {
                let waits = self.actor_of(*holder).filter(|actor| !self.actors[*actor].begun);
                if let Some(actor) = waits {
                    let lost = |guard: &&mut WorkerGuard| guard.token == *token;
                    self.actor(actor).guards.iter_mut().filter(lost).for_each(|guard| guard.released = true);
                }
            }
            Event::FenceOrdered { .. } => {
                self.used.orders += u8::from(matches!(command, Command::OrderFence { .. }));
            }
            Event::FenceStarted { order, target, attempt, .. } => {
                self.calls.push(Call { order: *order, target: *target, attempt: *attempt, acted: false });
            }
            Event::LeaderActivated { leadership } => {
                self.used.leads += 1;
                self.activations.push(leadership.activation);
            }
            _ => {}
        }
    }
}
