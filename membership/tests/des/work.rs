//! The work that a lease protects: begun when armed, guarded while it runs, stopped on notice, or late, or never.
//!
//! ```text
//!   guard: lease held? ┆▶ effect starts ─ in flight ─▶ lands        ┆ = a pause may fall here
//!   token ─▶ the resource's floor ─▶ confirmed ─▶ work              (with tokens alone)
//! ```

use std::collections::BTreeMap;

use quorate_membership::Stop;
use quorate_membership::lease::Stage;

use crate::oracle::Effect;
use crate::setup::{MS, Weakness};
use crate::step::{Act, Step};
use crate::world::World;

impl World {
    /// Begins one of the jobs that the log gives to this life and that it does not do yet.
    pub(crate) fn begin_what_is_owed(&mut self, i: usize) {
        let tokens = self.setup.plan.stop == Stop::Tokens;
        let machine = &mut self.machines[i];
        let Some(process) = &mut machine.process else { return };
        let keeper = &mut process.keeper;
        let (Some(who), false) = (keeper.who, keeper.stopping) else { return };
        let begun = |job: &usize| keeper.work.as_ref().is_some_and(|work| work.contains_key(job));
        let wanted: Vec<_> = machine.disk.jobs.of(who).filter(|(job, _)| !begun(job)).collect();
        for (job, token) in wanted {
            let number = process.number;
            if !process.keeper.beginning.insert(job) {
                continue;
            }
            if !tokens || self.setup.is(Weakness::WorkBeforeFloor) {
                self.soon(i, Act::Begin { job, token });
            }
            if tokens {
                // P17: the floor first, and work only when the resource has confirmed it.
                let delay = self.delay();
                self.at(self.now + delay, Step::Floor { node: i, process: number, job, token });
            }
            return;
        }
    }

    /// P14: only what is armed may begin, and only if the lease is held by a look after the arming.
    pub(crate) fn begin(&mut self, i: usize, job: usize, token: u64) {
        let (now, stop, looked) = (self.now, self.setup.plan.stop, self.reading(i));
        let weak = self.setup.is(Weakness::NoSecondLook);
        let machine = &mut self.machines[i];
        let armed = machine.is_armed(stop);
        let Some(keeper) = machine.process.as_mut().map(|process| &mut process.keeper) else { return };
        let Some(who) = keeper.who.filter(|_| keeper.beginning.contains(&job)) else { return };
        if !armed {
            let again = self.times.heartbeat / 8;
            return self.act(i, again, Act::Begin { job, token });
        }
        // The look came before the arming, and any pause may lie between: only a look after it says that the mechanism was
        // armed in time, so that it will act in time.
        let held = matches!(keeper.stage(looked), Stage::Held { .. });
        keeper.beginning.remove(&job);
        if !held && !weak {
            if !keeper.needs_arming() {
                self.disarm(i);
            }
            return self.tally.count("armed too late, and nothing begun");
        }
        if !machine.disk.jobs.of(who).any(|own| own == (job, token)) {
            return;
        }
        if keeper.work.is_none() {
            keeper.works += 1;
            keeper.stopping = false;
        }
        keeper.work.get_or_insert_default().insert(job, token);
        self.oracle.begins(now, Effect { who, job, token });
        self.tally.count("work began");
        self.turn_now(i);
    }

    /// P16: work that is told to stop does so within the margin, or late, or never.
    pub(crate) fn stop_work(&mut self, i: usize) {
        let margin = self.times.margin;
        let late = self.rng.percent(if self.setup.calm() { 0 } else { 15 });
        let takes = if late { self.rng.between(margin, 3 * margin) } else { self.rng.between(MS / 2, margin / 2) };
        let Some(keeper) = self.keeper(i).filter(|keeper| !keeper.stopping && !keeper.stubborn) else { return };
        keeper.beginning.clear();
        if keeper.work.is_some() {
            keeper.stopping = true;
            let work = keeper.works;
            self.act(i, takes, Act::Stopped { work });
        }
    }

    pub(crate) fn stopped(&mut self, i: usize, work: u64) {
        let Some(keeper) = self.keeper(i).filter(|keeper| keeper.works == work && keeper.work.is_some()) else {
            return;
        };
        (keeper.work, keeper.stopping, keeper.fed, keeper.armed_from) = (None, false, None, None);
        if let Some(who) = keeper.who {
            self.oracle.stops(who);
        }
        self.disarm(i);
        self.tally.count("work was stopped in time");
    }

    /// P15: the worker looks whether it may, and then writes.
    pub(crate) fn check_and_write(&mut self, i: usize) {
        let (now, draw) = (self.reading(i), self.rng.draw());
        self.act(i, self.times.lease / 60, Act::CheckAndWrite);
        let Some(keeper) = self.keeper(i) else { return };
        let (Some(who), Some(work)) = (keeper.who, &keeper.work) else { return };
        if !keeper.stubborn && !matches!(keeper.stage(now), Stage::Held { .. }) {
            return;
        }
        let turn = draw as usize % work.len().max(1);
        if let Some((job, token)) = work.iter().nth(turn).map(|(job, token)| (*job, *token)) {
            self.soon(i, Act::Write { effect: Effect { who, job, token } });
            self.pause_between_look_and_effect(i);
        }
    }

    pub(crate) fn write(&mut self, i: usize, effect: Effect) {
        let working = |work: &BTreeMap<usize, u64>| work.get(&effect.job) == Some(&effect.token);
        if self.keeper(i).is_some_and(|keeper| keeper.work.as_ref().is_some_and(working)) {
            self.starts_effect(effect);
        }
    }

    pub(crate) fn starts_effect(&mut self, effect: Effect) {
        self.tally.count("effects");
        let flight = match (self.setup.plan.stop, self.times.in_flight) {
            (Stop::Tokens, _) => self.delay(),
            (_, 0) => 0,
            (_, most) if self.rng.one_in(3) => most,
            (_, most) => self.rng.below(most + 1),
        };
        self.oracle.started(self.now, effect, self.now + flight);
        if flight == 0 {
            self.oracle.landed(self.now, effect, &mut self.tally);
        } else {
            self.at(self.now + flight, Step::Land { effect });
        }
    }
}
