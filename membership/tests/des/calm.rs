//! Calm weather, where bounds are measured: one crash at a time, and what becomes known of its end.
//!
//! ```text
//!   all is well ─▶ one machine crashes, at once or right after its next renewal left ─▶ Fenced: that took so long
//!       ▲                                                                                  │
//!       └─────────────────── it boots, joins, holds a lease and works ◀────────────────────┘
//! ```

use quorate_membership::{Command, Event};

use crate::oracle::node;
use crate::step::Step;
use crate::world::World;

impl World {
    /// When all is well: one machine crashes, half of the time the leader's.
    pub(crate) fn calm(&mut self) {
        let well = |i: usize| self.machines[i].process.as_ref().is_some_and(|process| process.keeper.is_well());
        let all_well = (0..self.setup.nodes).all(well);
        let next = self.rng.between(self.times.heartbeat, self.times.lease);
        self.at(self.now + next, Step::Fault);
        let Some(leader) = self.leader().filter(|_| all_well && self.doomed.is_none()) else { return };
        let victim = if self.rng.one_in(2) { leader } else { self.rng.pick(self.setup.nodes) };
        if self.rng.one_in(2) { self.doomed = Some(victim) } else { self.crash(victim) }
    }

    /// Half of the crashes of calm weather: the bytes have just left.
    pub(crate) fn crash_after_renewal(&mut self, i: usize) {
        if self.doomed == Some(i) {
            self.crash(i);
        }
    }

    fn crash(&mut self, i: usize) {
        self.doomed = None;
        let led = self.leader() == Some(i);
        let (Some(who), now) = (self.life_of(i), self.now) else { return };
        self.oracle.crashed.insert(who, (now, led));
        self.rounds = 0;
        self.tally.count(if led { "leader's machine crashed" } else { "machine crashed" });
        self.tally
            .add("members that a change of leaders had to spare", if led { self.setup.nodes as u64 - 1 } else { 0 });
        let boot = 2 * self.times.wait + 8 * self.times.election_max;
        self.machine_goes_down(i, boot);
    }

    /// What became known by applying a command anywhere: the oracle judges it, the first time.
    pub(crate) fn witness(&mut self, command: &Command, events: &[Event]) {
        for event in events {
            let Event::Fenced { who, .. } = event else { continue };
            if !self.oracle.fenced(self.now, *who) {
                continue;
            }
            self.tally.add("fenced", 1);
            self.tally.note(|| format!("{event}"));
            let i = (0..self.setup.nodes).find(|i| node(*i) == who.node);
            if i.and_then(|i| self.life_of(i)) == Some(*who) {
                self.tally.count("fenced while its process lived");
            }
            let Command::Expire { under, .. } = command else { continue };
            let since = i.and_then(|i| self.machines[i].disk.state.life(*who)).map(|life| life.since.get());
            if since.is_some_and(|since| since < under.get()) {
                self.tally.count("expired by a leader that was activated after it joined");
            }
            let Some((at, led)) = self.oracle.crashed.remove(who) else { continue };
            let took = self.now - at;
            match (led, self.rounds) {
                (false, _) => self.tally.member.push(took),
                (true, 0 | 1) => self.tally.leader.push(took),
                (true, _) => self.tally.leader_later.push(took),
            }
        }
    }
}
