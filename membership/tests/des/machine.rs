//! One machine: its disk, its process, and what stops the work on it whatever the process does.
//!
//! ```text
//!   dead-man   armed for an instant of CLOCK_BOOTTIME ─▶ due ─▶ killed, up to ε later; a suspended machine: at resume,
//!              before any of its processes runs
//!   watchdog   fed ─▶ bites W later by its own oscillator ─▶ the machine is reset, with all that ran on it
//! ```
//!
//! A process that crashes takes its work with it under a dead-man. Under a watchdog, and where only tokens count, the
//! work is another process and goes on without its keeper.

use quorate_membership::{ClusterId, ClusterState, Command, Configuration, Revision, Stop, apply};

use crate::clocks::{Clocks, Nanos};
use crate::keeper::Keeper;
use crate::leader_side::LeaderSide;
use crate::oracle::{Effect, Jobs, node};
use crate::raft::{Disk, Entry, Seat};
use crate::setup::{MS, Weakness};
use crate::step::{Act, Step};
use crate::world::{Process, World};

pub(crate) struct Machine {
    pub(crate) clocks: Clocks,
    pub(crate) disk: Disk,
    pub(crate) process: Option<Process>,
    /// How many processes were started here.
    pub(crate) processes: u64,
    pub(crate) up: bool,
    pub(crate) boots: u64,
    /// Work whose keeper is gone.
    pub(crate) orphans: Vec<Effect>,
    timer: Option<(u64, Nanos)>,
    /// The number of the last feeding, while the watchdog is armed.
    dog: Option<u64>,
    numbers: u64,
    pub(crate) slow_until: Nanos,
    pub(crate) resumes_at: Nanos,
}

impl Machine {
    pub(crate) fn new(clocks: Clocks, nodes: usize) -> Self {
        let set_up = [
            Command::Found { cluster: ClusterId::new(7) },
            Command::Configure { configuration: Configuration::uniform((0..nodes).map(node), []) },
        ];
        let (mut state, mut log) = (ClusterState::new(), vec![]);
        for (command, index) in set_up.into_iter().zip(1..) {
            assert!(apply(&mut state, Revision::new(index), &command).is_ok(), "{command:?}");
            log.push(Entry { term: 0, command: Some(command.into()) });
        }
        let applied = log.len() as u64;
        let disk = Disk { term: 0, vote: None, led: false, log, state, applied, jobs: Jobs::new(nodes) };
        Self {
            clocks,
            disk,
            process: None,
            processes: 0,
            up: true,
            boots: 0,
            orphans: vec![],
            timer: None,
            dog: None,
            numbers: 0,
            slow_until: 0,
            resumes_at: 0,
        }
    }

    pub(crate) fn is_armed(&self, stop: Stop) -> bool {
        match stop {
            Stop::Deadman { .. } => self.timer.is_some(),
            Stop::Watchdog { .. } => self.dog.is_some(),
            Stop::Tokens | Stop::Own { .. } | Stop::Unbounded => true,
        }
    }
}

impl World {
    /// The machine boots if it was down, and its process starts.
    pub(crate) fn starts(&mut self, i: usize) {
        if self.machines[i].process.is_some() {
            return;
        }
        if self.machines[i].resumes_at > self.now {
            return self.at(self.machines[i].resumes_at + MS, Step::Start { node: i });
        }
        self.nonces += 1;
        let timeout = self.times.election_max + self.rng.between(self.times.election_min, self.times.election_max);
        let (raw, drift, nonce) = (self.raw(i), self.setup.drift_of_leaders(), self.nonces);
        let stubborn = match (self.setup.calm(), self.setup.hunting) {
            (true, _) => false,
            (false, hunting) => self.rng.percent(if hunting { 80 } else { 40 }),
        };
        let machine = &mut self.machines[i];
        if !machine.up {
            machine.up = true;
            machine.boots += 1;
        }
        machine.processes += 1;
        machine.process = Some(Process {
            number: machine.processes,
            nonce,
            paused_until: 0,
            seat: Seat::new(raw, timeout, machine.disk.applied),
            leader_side: LeaderSide::new(i, drift),
            keeper: Keeper::new(&self.setup.plan, stubborn),
        });
        self.take_seat(i);
        for act in [Act::Join, Act::Renewer, Act::CheckAndWrite] {
            let wait = self.rng.between(MS, self.times.heartbeat);
            self.act(i, wait, act);
        }
    }

    /// The process is gone; its work goes on without it if `orphaned`.
    fn process_ends(&mut self, i: usize, orphaned: bool) {
        let Some(process) = self.machines[i].process.take() else { return };
        self.machines[i].timer = None;
        let Some((who, jobs)) = process.keeper.working() else { return };
        if orphaned {
            let effects: Vec<_> = jobs.map(|(job, token)| Effect { who, job, token }).collect();
            self.machines[i].orphans.extend(effects);
            let boot = self.machines[i].boots;
            self.at(self.now + MS, Step::Orphan { node: i, boot });
        } else {
            self.oracle.stops(who);
        }
    }

    pub(crate) fn process_crashes(&mut self, i: usize, restarts_after: Nanos) {
        let orphaned = match self.setup.plan.stop {
            Stop::Watchdog { .. } | Stop::Tokens => true,
            Stop::Deadman { .. } | Stop::Own { .. } | Stop::Unbounded => false,
        };
        self.process_ends(i, orphaned);
        self.at(self.now + restarts_after, Step::Start { node: i });
    }

    /// The process ends its work and itself, and starts again as a new life.
    pub(crate) fn exits(&mut self, i: usize) {
        self.tally.count("a process found its life over and started again");
        self.process_ends(i, false);
        self.machines[i].dog = None;
        let restart = self.rng.between(20 * MS, self.times.lease);
        self.at(self.now + restart, Step::Start { node: i });
    }

    pub(crate) fn machine_goes_down(&mut self, i: usize, boots_after: Nanos) {
        self.process_ends(i, false);
        for effect in std::mem::take(&mut self.machines[i].orphans) {
            self.oracle.stops(effect.who);
        }
        self.machines[i].dog = None;
        self.machines[i].up = false;
        self.at(self.now + boots_after, Step::Start { node: i });
    }

    /// The dead-man is armed for an instant of CLOCK_BOOTTIME that was computed from the look at which `left` was left.
    pub(crate) fn arm(&mut self, i: usize, until: Nanos, left: Nanos) {
        let later_look = self.setup.is(Weakness::ArmedByALaterLook);
        let from_here = self.machines[i].clocks.boot_at(self.now) + left * self.setup.armed_percent() / 100;
        self.set_timer(i, if later_look { from_here } else { until });
    }

    fn set_timer(&mut self, i: usize, until: Nanos) {
        let now = self.now;
        let machine = &mut self.machines[i];
        machine.numbers += 1;
        machine.timer = Some((machine.numbers, until));
        let (at, number) = (machine.clocks.when_boot_shows(until, now), machine.numbers);
        self.at(at, Step::TimerDue { node: i, number });
    }

    pub(crate) fn timer_due(&mut self, i: usize, number: u64) {
        let (Stop::Deadman { lateness }, machine) = (self.setup.plan.stop, &self.machines[i]) else { return };
        let (Some((current, _)), Some(process)) = (machine.timer, &machine.process) else { return };
        if current != number || self.setup.is(Weakness::NoStop) {
            return;
        }
        if machine.clocks.is_suspended() {
            // The signal is there before the first process of a resumed machine runs: it never acts again.
            let process = process.number;
            self.tally.count("the dead-man was due while suspended");
            return self.killed(i, process);
        }
        let (process, most) = (process.number, lateness.as_nanos() as Nanos);
        let late = match self.rng.below(3) {
            0 => most,
            1 => self.rng.below(most + 1),
            _ => self.rng.below(most / 100 + 1),
        };
        self.at(self.now + late, Step::Kill { node: i, process });
    }

    pub(crate) fn killed(&mut self, i: usize, process: u64) {
        if self.machines[i].process.as_ref().is_none_or(|p| p.number != process) {
            return;
        }
        self.tally.count("the dead-man killed a process");
        self.process_ends(i, false);
        let restart = self.rng.between(20 * MS, 2 * self.times.lease);
        self.at(self.now + restart, Step::Start { node: i });
    }

    /// The watchdog is fed, and bites later by an oscillator of its own.
    pub(crate) fn feed(&mut self, i: usize) {
        let Stop::Watchdog { timeout, reset } = self.setup.plan.stop else { return };
        if !self.process(i).is_some_and(|process| process.keeper.needs_arming()) {
            return;
        }
        let rate = match self.rng.below(3) {
            0 => 1_000_000 + self.times.drift,
            _ => 1_000_000 - self.times.drift,
        };
        let bites = timeout.as_nanos() as Nanos * 1_000_000 / rate + reset.as_nanos() as Nanos;
        let machine = &mut self.machines[i];
        machine.numbers += 1;
        let number = machine.numbers;
        machine.dog = Some(number);
        self.at(self.now + bites, Step::Bite { node: i, number });
        self.pause_at_the_worst(i);
    }

    pub(crate) fn bitten(&mut self, i: usize, number: u64) {
        if self.machines[i].dog != Some(number) || !self.machines[i].up || self.setup.is(Weakness::NoStop) {
            return;
        }
        if self.machines[i].clocks.is_suspended() {
            // Drivers stop the device with the machine: it goes on counting after the resume.
            let Stop::Watchdog { timeout, .. } = self.setup.plan.stop else { return };
            let at = self.machines[i].resumes_at + timeout.as_nanos() as Nanos / 2;
            return self.at(at, Step::Bite { node: i, number });
        }
        self.tally.count("a watchdog reset a machine");
        let boot = self.rng.between(50 * MS, 2 * self.times.lease);
        self.machine_goes_down(i, boot);
    }

    pub(crate) fn disarm(&mut self, i: usize) {
        (self.machines[i].timer, self.machines[i].dog) = (None, None);
    }

    /// The clocks of a machine have changed their rate: what is armed is due at another time.
    fn clocks_changed(&mut self, i: usize) {
        if let Some((_, until)) = self.machines[i].timer {
            self.set_timer(i, until);
        }
    }

    pub(crate) fn steer(&mut self, i: usize, slew: u64) {
        self.machines[i].clocks.steer(self.now, slew);
        self.clocks_changed(i);
    }

    pub(crate) fn suspend(&mut self, i: usize, lasting: Nanos) {
        let now = self.now;
        let machine = &mut self.machines[i];
        if machine.clocks.is_suspended() {
            return;
        }
        machine.clocks.suspend(now, true);
        machine.resumes_at = now + lasting;
        if let Some(process) = &mut machine.process {
            process.paused_until = process.paused_until.max(now + lasting);
        }
        self.at(now + lasting, Step::Resume { node: i });
        self.clocks_changed(i);
    }

    pub(crate) fn resumes(&mut self, i: usize) {
        self.machines[i].clocks.suspend(self.now, false);
        self.clocks_changed(i);
    }

    pub(crate) fn orphan_writes(&mut self, i: usize, boot: u64) {
        let machine = &self.machines[i];
        if machine.boots != boot || !machine.up || machine.orphans.is_empty() {
            return;
        }
        if !machine.clocks.is_suspended() {
            self.tally.count("work went on without its keeper");
            for effect in machine.orphans.clone() {
                self.starts_effect(effect);
            }
        }
        self.at(self.now + self.times.lease / 60, Step::Orphan { node: i, boot });
    }
}
