//! The simulated world: machines with clocks, disks and processes, a network between them, and one queue of what is due.
//!
//! ```text
//!   real time ─▶ queue ─▶ step of a process     waits while the process is paused or the machine suspended, is void
//!                   │                           when the process is gone
//!                   ├───▶ message               may be lost, late, doubled, or stopped by a cut in one direction
//!                   └───▶ kernel and devices    timers, watchdogs, boots: no pause delays them
//! ```
//!
//! A process thinks on its machine's clocks only; real time is known to the queue and to the oracle.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use quorate_membership::lease::Reading;

use crate::clocks::{Clocks, Nanos};
use crate::faults::HUNTING;
use crate::keeper::Keeper;
use crate::leader_side::LeaderSide;
use crate::machine::Machine;
use crate::oracle::Oracle;
use crate::raft::{Seat, Talk};
use crate::rng::Rng;
use crate::setup::{SECOND, Setup, Times, Weather};
use crate::step::{Act, Message, Step};
use crate::tally::Tally;

struct Due {
    at: Nanos,
    order: u64,
    step: Step,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

pub(crate) struct World {
    pub(crate) setup: Setup,
    pub(crate) times: Times,
    pub(crate) now: Nanos,
    pub(crate) rng: Rng,
    pub(crate) machines: Vec<Machine>,
    /// How many cuts stop what goes from one to another.
    pub(crate) cuts: Vec<Vec<u32>>,
    pub(crate) oracle: Oracle,
    pub(crate) tally: Tally,
    /// Which kinds of faults this seed has: one bit each.
    pub(crate) swarm: u64,
    /// How many candidates asked for votes since the last crash.
    pub(crate) rounds: u64,
    /// Whose machine crashes when its next renewal has left.
    pub(crate) doomed: Option<usize>,
    pub(crate) nonces: u128,
    queue: BinaryHeap<Reverse<Due>>,
    order: u64,
    trace: u64,
}

/// One process of a node: everything that a crash takes.
pub(crate) struct Process {
    /// Which process of its node this is.
    pub(crate) number: u64,
    pub(crate) nonce: u128,
    pub(crate) paused_until: Nanos,
    pub(crate) seat: Seat,
    pub(crate) leader_side: LeaderSide,
    pub(crate) keeper: Keeper,
}

impl World {
    pub(crate) fn new(setup: Setup, seed: u64) -> Self {
        // Whole nanoseconds times parts per million fit 64 bits for five hours.
        assert!(setup.seconds <= 5 * 3600, "{}: no run is that long", setup.name);
        // Each setup draws other faults from one seed.
        let named = setup.name.bytes().fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let (mut rng, times) = (Rng::new(named), Times::of(&setup));
        let nodes = setup.nodes;
        let machines = (0..nodes).map(|_| Machine::new(clocks(&mut rng, &times), nodes)).collect();
        let swarm = if setup.calm() { 0 } else { rng.draw() | rng.draw() };
        let swarm = if setup.hunting { HUNTING } else { swarm };
        let mut world = Self {
            oracle: Oracle::new(&setup),
            times,
            now: 0,
            rng,
            machines,
            cuts: vec![vec![0; nodes]; nodes],
            tally: Tally::default(),
            swarm,
            rounds: 0,
            doomed: None,
            nonces: 0,
            queue: BinaryHeap::new(),
            order: 0,
            trace: 0xcbf2_9ce4_8422_2325,
            setup,
        };
        world.begin_weather();
        for node in 0..nodes {
            world.at(world.now, Step::Start { node });
        }
        let settled = 4 * times.election_max + 2 * times.heartbeat;
        world.at(settled, Step::Fault);
        world
    }

    /// Lets the world run until its time is over or a promise is broken.
    pub(crate) fn run(&mut self) {
        let until = self.setup.seconds * SECOND;
        while let Some(Reverse(Due { at, step, .. })) = self.queue.pop() {
            if at > until || self.oracle.violation.is_some() {
                break;
            }
            (self.now, self.tally.now) = (at, at);
            for word in [at, step.kind()] {
                self.trace = (self.trace ^ word).wrapping_mul(0x0100_0000_01b3);
            }
            self.step(step);
        }
        self.tally.simulated += self.now;
    }

    /// A number that differs, in all likelihood, when anything about the run differs.
    pub(crate) fn trace(&mut self) -> u64 {
        self.trace ^ self.rng.draw()
    }

    pub(crate) fn at(&mut self, at: Nanos, step: Step) {
        self.order += 1;
        self.queue.push(Reverse(Due { at, order: self.order, step }));
    }

    /// Has the process of `i` do something after `local` nanoseconds of its own clock.
    pub(crate) fn act(&mut self, i: usize, local: Nanos, act: Act) {
        let machine = &self.machines[i];
        let Some(process) = &machine.process else { return };
        let at = self.now + machine.clocks.really(local);
        let (process, term) = (process.number, machine.disk.term);
        self.at(at, Step::Act { node: i, process, term, act });
    }

    /// The next instruction of a process: at once, but a pause may fall before it.
    pub(crate) fn soon(&mut self, i: usize, act: Act) {
        let wait = self.rng.between(1_000, 200_000).min(self.times.heartbeat / 8);
        self.act(i, wait, act);
    }

    pub(crate) fn reading(&self, i: usize) -> Reading {
        self.machines[i].clocks.look(self.now)
    }

    pub(crate) fn raw(&self, i: usize) -> Nanos {
        self.machines[i].clocks.raw_at(self.now)
    }

    pub(crate) fn process(&mut self, i: usize) -> Option<&mut Process> {
        self.machines[i].process.as_mut()
    }

    pub(crate) fn seat(&mut self, i: usize) -> Option<&mut Seat> {
        self.process(i).map(|process| &mut process.seat)
    }

    pub(crate) fn say(&mut self, from: usize, to: usize, talk: Talk) {
        self.send(from, to, Message::Raft(talk));
    }

    pub(crate) fn say_to_all(&mut self, from: usize, talk: &Talk) {
        for to in (0..self.setup.nodes).filter(|to| *to != from) {
            self.say(from, to, talk.clone());
        }
    }

    /// Says it once everything that was written before is flushed.
    pub(crate) fn say_after_flush(&mut self, i: usize, to: usize, talk: Talk) {
        let flush = self.flush(i);
        self.act(i, flush, Act::Say { to, message: Message::Raft(talk) });
    }

    pub(crate) fn flush(&mut self, i: usize) -> Nanos {
        let slow = self.machines[i].slow_until > self.now;
        let most = if slow { self.times.fsync * 12 } else { self.times.fsync };
        self.rng.between(most / 8, most)
    }

    /// Gives a message to the network, or to the own machine.
    pub(crate) fn send(&mut self, from: usize, to: usize, message: Message) {
        if from == to {
            return self.at(self.now + 2_000, Step::Arrive { to, from, message });
        }
        if self.cuts[from][to] > 0 {
            return self.tally.count("message stopped by a cut");
        }
        let loss = match self.setup.weather {
            Weather::Calm { loss } => loss,
            Weather::Chaos => 3,
        };
        if self.rng.below(1000) < loss {
            return self.tally.count("message lost");
        }
        if !self.setup.calm() && self.rng.one_in(100) {
            self.tally.count("message doubled");
            let late = self.delay();
            self.at(self.now + late, Step::Arrive { to, from, message: message.clone() });
        }
        let delay = self.delay();
        self.at(self.now + delay, Step::Arrive { to, from, message });
    }

    pub(crate) fn delay(&mut self) -> Nanos {
        let hop = self.times.hop;
        if self.setup.calm() || !self.rng.one_in(50) {
            return self.rng.between(hop / 10, hop);
        }
        self.tally.count("message late");
        let most = if self.rng.one_in(20) { 3 * self.times.wait } else { self.times.lease / 2 };
        self.rng.between(hop, most)
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Act { node, process, term, act } => {
                let alive = self.machines[node].process.as_ref().filter(|p| p.number == process);
                match alive.map(|p| p.paused_until) {
                    None => {}
                    Some(paused) if paused > self.now => {
                        let at = paused + self.rng.below(300_000);
                        self.at(at, Step::Act { node, process, term, act });
                    }
                    Some(_) => self.do_act(node, term, act),
                }
            }
            Step::Arrive { to, from, message } => match self.machines[to].process.as_ref().map(|p| p.paused_until) {
                None => {}
                Some(paused) if paused > self.now => {
                    let at = paused + self.rng.below(300_000);
                    self.at(at, Step::Arrive { to, from, message });
                }
                Some(_) => self.arrived(to, from, message),
            },
            Step::Floor { node, process, job, token } => {
                self.oracle.floor(job, token);
                let back = self.delay();
                let (term, act) = (0, Act::Begin { job, token });
                self.at(self.now + back, Step::Act { node, process, term, act });
            }
            Step::Land { effect } => self.oracle.landed(self.now, effect, &mut self.tally),
            Step::Orphan { node, boot } => self.orphan_writes(node, boot),
            Step::TimerDue { node, number } => self.timer_due(node, number),
            Step::Kill { node, process } => self.killed(node, process),
            Step::Bite { node, number } => self.bitten(node, number),
            Step::Start { node } => self.starts(node),
            Step::Fault => self.fault(),
            Step::PauseLeader => self.pause_leader(),
            Step::Heal { cuts } => cuts.into_iter().for_each(|(from, to)| self.cuts[from][to] -= 1),
            Step::Resume { node } => self.resumes(node),
        }
    }

    fn do_act(&mut self, i: usize, term: u64, act: Act) {
        match act {
            Act::Election => self.election_timer(i),
            Act::Heartbeat => self.heartbeat(i, term),
            Act::Flushed { index } => self.flushed(i, term, index),
            Act::Say { to, message } => self.send(i, to, message),
            Act::LeaderSide => self.office_tick(i),
            Act::Propose { expiry } => self.propose_expiry(i, expiry),
            Act::Join => self.join(i),
            Act::Renewer => self.renewer_tick(i),
            Act::Turn { number } => self.turn(i, number),
            Act::SendRenewal { seq } => self.send_renewal(i, seq),
            Act::NoAnswer { seq } => self.no_answer(i, seq),
            Act::AskAgain => self.ask_again(i),
            Act::Arm { until, left } => self.arm(i, until, left),
            Act::Feed => self.feed(i),
            Act::Begin { job, token } => self.begin(i, job, token),
            Act::CheckAndWrite => self.check_and_write(i),
            Act::Write { effect } => self.write(i, effect),
            Act::Stopped { work } => self.stopped(i, work),
            Act::Exit => self.exits(i),
        }
    }

    fn arrived(&mut self, i: usize, from: usize, message: Message) {
        match message {
            Message::Raft(talk) => self.talk(i, from, talk),
            Message::Ask(command) => {
                let _not_leader = self.propose(i, *command);
            }
            Message::Renew { who, seq } => self.renewal_received(i, who, seq),
            Message::Renewed { who, seq, granted } => self.renewal_answered(i, who, seq, granted),
        }
    }
}

/// Two thirds of the oscillators are as wrong as they may be, for that is where bounds break.
fn clocks(rng: &mut Rng, times: &Times) -> Clocks {
    let (slow, fast) = (1_000_000 - times.drift, 1_000_000 + times.drift);
    let rate = match rng.below(3) {
        0 => slow,
        1 => fast,
        _ => rng.between(slow, fast),
    };
    Clocks::new(0, rate, rng.between(1, 1000) * SECOND)
}
