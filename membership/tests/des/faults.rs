//! What goes wrong, and when.
//!
//! ```text
//!   chaos   every 0.2 to 3 D one of: crash of a process, of a machine, of the leader · pause · cut in one direction or
//!           both · suspend · steered clock · slow disk · an order to fence · and, armed at named points: a pause between
//!           look and arming, look and feeding, look and effect; a crash right after an expiry was proposed
//! ```
//!
//! Each seed switches whole kinds off, so that rare combinations of the others get their time.

use std::time::Duration;

use quorate_membership::{Identity, Stop};

use crate::clocks::Nanos;
use crate::oracle::node;
use crate::setup::{MS, Weakness, Weather};
use crate::step::Step;
use crate::world::World;

/// The kinds that a seed may switch off.
#[derive(Clone, Copy)]
enum Kind {
    Process,
    Machine,
    Leader,
    Pause,
    Cut,
    Suspend,
    Steer,
    SlowDisk,
    Order,
    PauseAtArming,
    PauseAtFeeding,
    PauseAtEffect,
    CrashAtExpiry,
    LateTask,
}

const DRAWN: [Kind; 9] = [
    Kind::Process,
    Kind::Machine,
    Kind::Leader,
    Kind::Pause,
    Kind::Cut,
    Kind::Suspend,
    Kind::Steer,
    Kind::SlowDisk,
    Kind::Order,
];

/// The kinds that bring a lease to its very end with its work still running.
pub(crate) const HUNTING: u64 = 1 << Kind::Cut as u64
    | 1 << Kind::Steer as u64
    | 1 << Kind::Suspend as u64
    | 1 << Kind::PauseAtArming as u64
    | 1 << Kind::PauseAtFeeding as u64;

impl World {
    fn has(&self, kind: Kind) -> bool {
        self.swarm & (1 << kind as u64) != 0
    }

    /// In some runs a clock is steered as far as it may be, in one direction, for good.
    pub(crate) fn begin_weather(&mut self) {
        for i in 0..self.setup.nodes {
            if self.has(Kind::Steer) && self.rng.one_in(2) {
                let slew = if self.rng.one_in(3) { 1_100_000 } else { 900_000 };
                self.steer(i, slew);
                self.tally.count("clock steered");
            }
        }
    }

    pub(crate) fn fault(&mut self) {
        match self.setup.weather {
            Weather::Chaos => self.chaos(),
            Weather::Calm { .. } => self.calm(),
        }
    }

    /// The leader that is activated, if it is up and leads.
    pub(crate) fn leader(&self) -> Option<usize> {
        let current =
            self.machines.iter().filter_map(|machine| machine.disk.state.leadership()).max_by_key(|l| l.activation)?;
        let i = current.leader.get() as usize - 1;
        self.machines[i].process.as_ref().filter(|process| process.seat.leads()).map(|_| i)
    }

    fn chaos(&mut self) {
        let (wait, lease) = (self.times.wait, self.times.lease);
        let least = if self.setup.hunting { 3 * wait / 2 } else { wait / 5 };
        let next = self.rng.between(least, 3 * wait);
        self.at(self.now + next, Step::Fault);
        let dog = matches!(self.setup.plan.stop, Stop::Watchdog { .. });
        let kinds = match (self.setup.hunting, dog) {
            (false, _) => DRAWN.as_slice(),
            (true, false) => &[Kind::Cut, Kind::Cut, Kind::Suspend, Kind::Steer],
            (true, true) if self.setup.is(Weakness::SuspendedWatchdog) => &[Kind::Suspend],
            (true, true) => &[Kind::Cut],
        };
        let kind = kinds[self.rng.pick(kinds.len())];
        if !self.has(kind) {
            return;
        }
        let any = self.rng.pick(self.setup.nodes);
        match kind {
            Kind::Process => self.crash_process(any),
            Kind::Machine => self.crash_machine(any, "machine crashed"),
            Kind::Leader => {
                let Some(leader) = self.leader() else { return };
                match self.rng.below(3) {
                    0 => self.crash_machine(leader, "leader's machine crashed"),
                    1 => self.crash_process(leader),
                    _ => self.pause_for_a_while(leader),
                }
            }
            Kind::Pause => self.pause_for_a_while(any),
            Kind::Cut => self.cut(any),
            Kind::Suspend => {
                if !dog || self.setup.is(Weakness::SuspendedWatchdog) {
                    let lasting = self.rng.between(lease / 20, 2 * wait);
                    self.tally.count("machine suspended");
                    self.suspend(any, lasting);
                }
            }
            Kind::Steer => {
                let slew = match self.rng.below(4) {
                    0 => 1_000_000,
                    1 => 1_100_000,
                    2 => 900_000,
                    _ => self.rng.between(900_000, 1_100_000),
                };
                self.tally.count("clock steered");
                self.steer(any, slew);
            }
            Kind::SlowDisk => {
                self.tally.count("slow disk");
                self.machines[any].slow_until = self.now + self.rng.between(wait / 4, wait);
            }
            Kind::Order => {
                let (leader, target) = (self.leader(), self.life_of(any));
                if let (Some(leader), Some(target)) = (leader, target) {
                    self.order_fence(leader, target);
                }
            }
            Kind::PauseAtArming | Kind::PauseAtFeeding | Kind::PauseAtEffect | Kind::CrashAtExpiry | Kind::LateTask => {
            }
        }
    }

    pub(crate) fn life_of(&self, i: usize) -> Option<Identity> {
        self.machines[i].process.as_ref().and_then(|process| process.keeper.who)
    }

    fn crash_process(&mut self, i: usize) {
        if self.machines[i].process.is_none() {
            return;
        }
        self.tally.count("process crashed");
        // Half of them are back before anybody has noticed.
        let most = if self.rng.one_in(2) { self.times.election_max } else { 2 * self.times.wait };
        let restart = self.rng.between(20 * MS, most);
        self.process_crashes(i, restart);
    }

    fn crash_machine(&mut self, i: usize, what: &'static str) {
        if !self.machines[i].up {
            return;
        }
        self.tally.count(what);
        let boot = self.rng.between(50 * MS, 2 * self.times.wait);
        self.machine_goes_down(i, boot);
    }

    fn pause_for_a_while(&mut self, i: usize) {
        let lasting = match self.rng.below(3) {
            0 => self.rng.between(MS, self.times.lease / 4),
            1 => self.rng.between(self.times.lease / 4, self.times.wait),
            _ => self.rng.between(self.times.wait, 3 * self.times.wait),
        };
        self.pause(i, lasting);
    }

    fn pause(&mut self, i: usize, lasting: Nanos) {
        self.tally.note(|| format!("{} is paused for {:.1} ms", node(i), lasting as f64 / 1e6));
        let (until, lease) = (self.now + lasting, self.times.lease);
        if let Some(process) = self.process(i) {
            process.paused_until = process.paused_until.max(until);
            self.tally.count(if lasting > lease { "pause longer than the lease" } else { "pause" });
        }
    }

    fn cut(&mut self, i: usize) {
        let (wait, election) = (self.times.wait, self.times.election_max);
        let (outwards, inwards) = match self.rng.below(4) {
            0 => (true, false),
            1 => (false, true),
            _ => (true, true),
        };
        let (outwards, inwards) = if self.setup.hunting { (true, true) } else { (outwards, inwards) };
        let spared =
            if !self.setup.hunting && self.rng.one_in(3) { Some(self.rng.pick(self.setup.nodes)) } else { None };
        let others: Vec<usize> = (0..self.setup.nodes).filter(|j| *j != i && Some(*j) != spared).collect();
        let out = others.iter().filter(|_| outwards).map(|j| (i, *j));
        let cuts: Vec<_> = out.chain(others.iter().filter(|_| inwards).map(|j| (*j, i))).collect();
        for (from, to) in &cuts {
            self.cuts[*from][*to] += 1;
        }
        self.tally.count(if outwards && inwards { "cut in both directions" } else { "cut in one direction" });
        self.tally.note(|| format!("cut off: {cuts:?}"));
        let length = if self.setup.hunting { 2 } else { self.rng.below(3) };
        let lasting = match length {
            // Healed about when its time is up.
            0 => self.rng.between(wait - wait / 20, wait + wait / 20 + self.times.heartbeat),
            1 => self.rng.between(election / 2, wait),
            _ => self.rng.between(wait, 2 * wait),
        };
        self.at(self.now + lasting, Step::Heal { cuts });
    }

    /// Right before the lease ends, for nearly as long as the watchdog still waits since it was `fed`.
    pub(crate) fn pause_between_look_and_feeding(&mut self, i: usize, left: Duration, fed: Duration) {
        let Stop::Watchdog { timeout, .. } = self.setup.plan.stop else { return };
        let once_in = if self.setup.hunting { 1 } else { 2 };
        if self.has(Kind::PauseAtFeeding) && left < timeout / 4 && self.rng.one_in(once_in) {
            let most = (timeout * 97 / 100).saturating_sub(fed).as_nanos() as Nanos;
            let lasting = self.rng.between(most * 9 / 10, most);
            self.tally.count("paused between look and feeding");
            self.pause(i, lasting);
        }
    }

    /// The feeding after the end of the lease, and then nothing but the watchdog is left.
    pub(crate) fn pause_at_the_worst(&mut self, i: usize) {
        let Stop::Watchdog { timeout, .. } = self.setup.plan.stop else { return };
        let (now, held) = (self.reading(i), self.setup.calm());
        let lapsed = self.process(i).is_some_and(|process| process.keeper.has_lapsed(now));
        if !held && lapsed && self.rng.one_in(2) {
            self.tally.count("fed after the end of the lease");
            let lasting = self.rng.between(0, 2 * timeout.as_nanos() as Nanos);
            self.pause(i, lasting);
        }
    }

    /// The first arming more often: before it, nothing would stop what a late process begins.
    pub(crate) fn pause_between_look_and_arming(&mut self, i: usize, first: bool) {
        let rarely = if first { 10 } else { 200 };
        if self.has(Kind::PauseAtArming) && self.rng.one_in(if self.setup.hunting { rarely / 5 } else { rarely }) {
            self.tally.count("paused between look and arming");
            let lasting = self.rng.between(MS, self.times.wait * 5 / 4);
            self.pause(i, lasting);
        }
    }

    pub(crate) fn pause_between_look_and_effect(&mut self, i: usize) {
        if self.has(Kind::PauseAtEffect) && self.rng.one_in(2000) {
            self.tally.count("paused between look and effect");
            let lasting = self.rng.between(MS, 2 * self.times.wait);
            self.pause(i, lasting);
        }
    }

    /// Tasks of one process do not wait for each other: one may be late while the others go on, even for so long that
    /// another node leads in between and then this one again.
    pub(crate) fn lateness_of_a_task(&mut self, i: usize) -> Nanos {
        if !self.has(Kind::LateTask) || !self.rng.one_in(4) {
            return self.rng.below(self.times.hop);
        }
        self.tally.count("a proposal was late");
        let election = self.times.election_max;
        if self.rng.one_in(2) {
            return self.rng.between(election, 3 * self.times.wait);
        }
        self.pause(i, 3 * election);
        self.at(self.now + 5 * election, Step::PauseLeader);
        self.rng.between(8 * election, 10 * election)
    }

    pub(crate) fn pause_leader(&mut self) {
        if let Some(leader) = self.leader() {
            self.pause(leader, 3 * self.times.election_max);
        }
    }

    pub(crate) fn crash_after_expiry(&mut self, i: usize) {
        if self.has(Kind::CrashAtExpiry) && self.rng.one_in(10) {
            self.tally.count("process crashed right after it proposed an expiry");
            let restart = self.rng.between(MS, self.times.election_max / 2);
            self.process_crashes(i, restart);
        }
    }
}
