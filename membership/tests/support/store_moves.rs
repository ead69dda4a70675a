//! What may come next in the world of `store_world.rs`: whatever anybody may do, and whatever could have been sent.
//!
//! ```text
//!   really happens             Release, Prepare, LayDown, Shoot, Restart, Reboot
//!   comes to stand in the log  Append: a request whose sender exists, a release once its guard was laid down, a
//!                              confirmation once the device has acted …
//! ```
//!
//! A request is named by who sends it, what for and its number: so a copy is the same request, and nothing else is.
//! Of what one sender asks for alike, the second comes after the first has taken effect or was settled: another order
//! would only exchange their names.

use std::time::Duration;

use quorate_membership::*;

use crate::world::{ACTORS, Bounds, CLIENTS, FIRST, LOCKS, OTHER, SECOND, WorkerGuard, World};

/// A step of the world.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// It comes to stand in the log: for the first time or again, at once or late.
    Append(Command),
    /// A holder stops acting under a grant, and releases it.
    Release(usize, usize),
    /// A client reads the record, and sends a comparison and set; the grant under which it does so, if any.
    Prepare(usize, Option<usize>),
    /// A life stops everything, and leaves.
    LayDown(usize),
    /// The device ends the life that it was called for. However late.
    Shoot(usize),
    /// The daemon of n1 is begun anew; what n1#1 runs goes on, unless it dies with its process.
    Restart(Command),
    /// The machine n1 loses power, and comes back.
    Reboot(Command),
}

/// What a request is for; twenty-four names for each actor.
#[derive(Clone, Copy)]
enum For {
    /// A lock, and the number of the request for it.
    Lock(usize, u8),
    Open,
    Write(u8),
    Push(u8),
    /// The number of the guard of the queue's lock, and of the take under it.
    Take(usize, u8),
    /// The number of the guard of the queue's lock, and which item.
    Acknowledge(usize, ItemId),
}

const NAMES: u128 = 24;

fn request(actor: usize, what: For) -> Request {
    let small = |number: u64, limit: u64| {
        assert!(number < limit, "too many requests of one kind for their names");
        u128::from(number)
    };
    let name = match what {
        For::Lock(lock, nth) => small(lock as u64, 2) * 2 + small(nth.into(), 2),
        For::Open => 4,
        For::Write(nth) => 5 + small(nth.into(), 3),
        For::Push(nth) => 8 + small(nth.into(), 3),
        For::Take(guard, nth) => 11 + small(guard as u64, 3) * 2 + small(nth.into(), 2),
        For::Acknowledge(guard, item) => 17 + small(guard as u64, 3) * 2 + small(item.get() - 1, 2),
    };
    // How far its sender had come, no rule reads but for the window, and that has tests of its own.
    Request { nonce: Nonce::new(1 + actor as u128 * NAMES + name), since: Revision::default() }
}

/// Who sent a request.
pub(crate) fn sender(command: &Command) -> Option<usize> {
    let actor = (request_of(command)?.nonce.get().checked_sub(1)?) / NAMES;
    usize::try_from(actor).ok().filter(|actor| *actor < ACTORS)
}

/// The request that would take effect; a settlement is about one and is none.
pub(crate) fn request_of(command: &Command) -> Option<Request> {
    match command {
        Command::Lock { request, .. }
        | Command::Write { request, .. }
        | Command::Take { request, .. }
        | Command::OpenSession { request, .. } => Some(*request),
        _ => None,
    }
}

pub(crate) fn name(lock: usize) -> Name {
    Name::new(["vm", "ip"][lock]).unwrap()
}

pub(crate) fn lock_of(name: &Name) -> usize {
    usize::from(name.as_str() == "ip")
}

pub(crate) fn key() -> Key {
    Key::new("k").unwrap()
}

pub(crate) fn session() -> Session {
    let times = |ms| Duration::from_millis(ms);
    Session { ttl: times(5000), lock_delay: times(1000), label: Reason::new("tool").unwrap(), owner: None }
}

pub(crate) fn join(node: u64, life: u64, boot: u64) -> Command {
    Command::Join {
        node: NodeId::new(node),
        role: if node == 3 { Role::Witness } else { Role::Voter },
        addresses: vec![Address::new("a:1").unwrap()],
        disk: Disk { id: DiskId::new(node.into()), opened: life },
        boot: BootId::new(boot.into()),
        nonce: Nonce::new(life.into()),
        contract: Contract::default(),
        left: None,
        hint: None,
    }
}

pub(crate) fn life(actor: usize) -> Identity {
    let (node, incarnation) = if actor == SECOND { (1, 2) } else { (actor as u64 + 1, 1) };
    Identity::new(NodeId::new(node), Incarnation::new(incarnation))
}

impl World {
    /// Every step that may come next; those that change nothing are left out later.
    pub(crate) fn steps(&self, bounds: &Bounds, steps: &mut Vec<Step>) {
        for actor in 0..ACTORS {
            self.real(actor, bounds, steps);
            self.requests(actor, bounds, steps);
        }
        self.lives(bounds, steps);
        self.sessions(bounds, steps);
        if self.used.leads < bounds.leads {
            let nonce = Nonce::new(u128::from(self.used.leads) + 100);
            steps.push(Step::Append(Command::ActivateLeader { leader: NodeId::new(3), nonce }));
        }
    }

    /// What an actor really does.
    fn real(&self, which: usize, bounds: &Bounds, steps: &mut Vec<Step>) {
        let actor = &self.actors[which];
        if !actor.acts {
            return;
        }
        let held = || actor.guards.iter().enumerate().filter(|(_, guard)| !guard.released);
        steps.extend(held().map(|(index, _)| Step::Release(which, index)));
        if actor.writes.len() < bounds.writes[which].into() {
            match bounds.guarded {
                true => steps.extend(held().map(|(index, _)| Step::Prepare(which, Some(index)))),
                false => steps.push(Step::Prepare(which, None)),
            }
        }
        if which <= SECOND && self.used.leaves < bounds.leaves {
            steps.push(Step::LayDown(which));
        }
    }

    /// What an actor may have sent by now.
    fn requests(&self, which: usize, bounds: &Bounds, steps: &mut Vec<Step>) {
        let actor = &self.actors[which];
        let append = |command| Step::Append(command);
        if CLIENTS.contains(&which) && bounds.asks[which] != [0; LOCKS] {
            steps.push(append(Command::OpenSession { request: request(which, For::Open), session: session() }));
        }
        let Some(holder) = actor.holder else { return };
        for (lock, asks) in bounds.asks[which].iter().enumerate() {
            for (nth, request) in (0..).zip(self.in_turn(*asks, |nth| request(which, For::Lock(lock, nth)))) {
                let wait = nth % 2 == 0;
                steps.push(append(Command::Lock { request, name: name(lock), holder, wait }));
                if self.used.settles < bounds.settles {
                    steps.push(append(Command::Settle { request, lock: Some(name(lock)) }));
                }
            }
        }
        for guard in actor.guards.iter().filter(|guard| guard.released) {
            steps.push(append(Command::Unlock { name: name(guard.lock), holder, token: guard.token }));
        }
        for (nth, write) in (0..).zip(&actor.writes) {
            let (request, key) = (request(which, For::Write(nth)), key());
            let holds = write.under.map(|(lock, token)| Check::Holds { lock: name(lock), token });
            let version = Check::Version { key: key.clone(), version: write.version };
            let checks = holds.into_iter().chain([version]).collect();
            let bound = bounds.bound.then_some(holder);
            let changes = vec![Change::Put { key, value: "v".into(), bound }];
            steps.push(append(Command::Write { request, checks, changes }));
            if self.used.settles < bounds.settles {
                steps.push(append(Command::Settle { request, lock: None }));
            }
        }
        if which == OTHER {
            for request in self.in_turn(bounds.pushes, |nth| request(which, For::Push(nth))) {
                let changes = vec![Change::Push { queue: name(0), value: "go".into() }];
                steps.push(append(Command::Write { request, checks: vec![], changes }));
            }
        }
        for (nth, guard) in actor.guards.iter().filter(|guard| guard.lock == 0).enumerate() {
            self.consume(which, nth, guard, bounds, steps);
        }
    }

    /// What may have been sent under a guard of the queue's lock.
    fn consume(&self, which: usize, nth: usize, guard: &WorkerGuard, bounds: &Bounds, steps: &mut Vec<Step>) {
        let (queue, token) = (name(0), guard.token);
        for request in self.in_turn(bounds.takes, |take| request(which, For::Take(nth, take))) {
            steps.push(Step::Append(Command::Take { request, queue: queue.clone(), token }));
        }
        // Whether it has taken the item, or another has, or it is not there yet, is for the rules to know.
        for item in (1..=bounds.pushes.into()).map(ItemId::new) {
            let request = request(which, For::Acknowledge(nth, item));
            let changes = vec![Change::Acknowledge { queue: queue.clone(), item, token }];
            steps.push(Step::Append(Command::Write { request, checks: vec![], changes }));
        }
    }

    /// The first requests of a kind, up to one of which it is not known what became of it.
    fn in_turn(&self, limit: u8, request: impl Fn(u8) -> Request) -> impl Iterator<Item = Request> {
        let known = |request: &Request| self.fates.contains_key(&request.nonce);
        let settled = (0..limit).take_while(|nth| known(&request(*nth))).count();
        (0..limit).take(settled + 1).map(request)
    }

    /// Suspicion, fencing, leaving, coming back.
    fn lives(&self, bounds: &Bounds, steps: &mut Vec<Step>) {
        let append = |command| Step::Append(command);
        if self.used.orders < bounds.orders {
            let suspected = |target: &usize| self.actors[*target].holder.is_some();
            for target in bounds.targets.iter().copied().filter(suspected) {
                steps.extend(self.activations.iter().map(|under| {
                    let cause = Cause::Silent { for_ms: 1 };
                    append(Command::OrderFence { target: life(target), cause, under: Some(*under) })
                }));
            }
        }
        for open in self.cluster.fences().open().filter(|open| open.attempts < bounds.attempts) {
            let (order, by, attempt) = (open.id, NodeId::new(2), open.attempts + 1);
            steps.push(append(Command::StartFence { order, by, attempt }));
        }
        for (index, call) in self.calls.iter().enumerate() {
            if !call.acted {
                steps.push(Step::Shoot(index));
                continue;
            }
            let evidence = Evidence::new("off").unwrap();
            let confirmation = Confirmation::Device { by: NodeId::new(2), attempt: call.attempt, evidence };
            steps.push(append(Command::ConfirmFence { order: call.order, target: call.target, confirmation }));
        }
        let left = (0..=SECOND).filter(|actor| self.actors[*actor].left);
        steps.extend(left.map(|actor| append(Command::Leave { who: life(actor) })));
        if bounds.process_bound {
            steps.push(append(Command::DeclareProcessBound { who: life(FIRST) }));
        }
        match self.actors[SECOND].holder {
            None => {
                if bounds.restarts {
                    steps.push(Step::Restart(join(1, 2, 1)));
                }
                if bounds.reboots {
                    steps.push(Step::Reboot(join(1, 2, 2)));
                }
            }
            Some(_) => {
                steps.push(append(Command::Inherit { who: life(SECOND), former: life(FIRST) }));
                steps.push(append(Command::Activate { who: life(SECOND) }));
            }
        }
    }

    /// What is said of sessions: that one is closed, by its client; that one was silent for long enough, by a leader.
    fn sessions(&self, bounds: &Bounds, steps: &mut Vec<Step>) {
        let waited = Duration::from_secs(60);
        for which in CLIENTS.into_iter().filter(|which| bounds.asks[*which] != [0; LOCKS]) {
            let actor = &self.actors[which];
            let Some(Holder::Session(session)) = actor.holder else { continue };
            steps.push(Step::Append(Command::CloseSession { session }));
            for under in &self.activations {
                steps.push(Step::Append(Command::ExpireSession { session, under: *under, waited }));
                for guard in &actor.guards {
                    let (name, token) = (name(guard.lock), guard.token);
                    steps.push(Step::Append(Command::LiftDelay { name, token, under: *under, waited }));
                }
            }
        }
    }
}
