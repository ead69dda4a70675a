//! The member's side of the leases: drives the shipped `MemberLease` as the keeper's thread and the renewer do.
//!
//! ```text
//!   turn: look at the clock ─▶ renewal noted ┆▶ sent        ┆ = a pause may fall here
//!                           ─▶ what is left  ┆▶ dead-man armed, watchdog fed
//!   answer: granted ─▶ E moves, next turn · refused, or another leader ─▶ asks again
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_membership::lease::{MemberLease, Reading, Stage};
use quorate_membership::{
    Address, BootId, Command, Disk as DiskSeen, DiskId, Identity, Nonce, Phase, Plan, Role, Stop,
};

use crate::clocks::Nanos;
use crate::oracle::node;
use crate::setup::{MS, Weakness};
use crate::step::{Act, Message};
use crate::world::World;

/// The keeper's longest sleep, and its shortest.
const NAP: Duration = Duration::from_millis(100);
const BLINK: Duration = Duration::from_millis(1);

pub(crate) struct Keeper {
    holder: Option<MemberLease>,
    pub(crate) who: Option<Identity>,
    over: bool,
    /// Whom the renewer took for the leader when it last looked.
    known: Option<usize>,
    turns: u64,
    asked: BTreeSet<u64>,
    pub(crate) work: Option<BTreeMap<usize, u64>>,
    pub(crate) works: u64,
    /// Jobs that are about to begin.
    pub(crate) beginning: BTreeSet<usize>,
    pub(crate) stopping: bool,
    /// Whether the work goes on until something stops it.
    pub(crate) stubborn: bool,
    pub(crate) fed: Option<Reading>,
    pub(crate) armed_from: Option<Reading>,
    /// By how much a mistake counts the lease from too late.
    too_late: Duration,
    lease: Duration,
    margin: Duration,
    pub(crate) held: bool,
    noticed: bool,
}

impl Keeper {
    pub(crate) fn new(plan: &Plan, stubborn: bool) -> Self {
        Self {
            lease: plan.lease,
            margin: plan.margin,
            holder: None,
            who: None,
            over: false,
            known: None,
            turns: 0,
            asked: BTreeSet::new(),
            work: None,
            works: 0,
            beginning: BTreeSet::new(),
            stopping: false,
            stubborn,
            fed: None,
            armed_from: None,
            too_late: Duration::ZERO,
            held: false,
            noticed: false,
        }
    }

    pub(crate) fn working(self) -> Option<(Identity, impl Iterator<Item = (usize, u64)>)> {
        Some((self.who?, self.work?.into_iter()))
    }

    /// Whether it holds its lease and works at all that is its own.
    pub(crate) fn is_well(&self) -> bool {
        self.held && self.beginning.is_empty() && !self.stopping
    }

    pub(crate) fn has_lapsed(&self, now: Reading) -> bool {
        self.left(now).is_zero()
    }

    pub(crate) fn needs_arming(&self) -> bool {
        self.work.is_some() || !self.beginning.is_empty()
    }

    /// What is left of the lease, a mistake in counting it included.
    fn left(&self, now: Reading) -> Duration {
        let Some(from) = self.holder.as_ref().and_then(MemberLease::held_from) else { return Duration::ZERO };
        (self.lease + self.too_late).saturating_sub(now.longest_since(from))
    }

    pub(crate) fn stage(&self, now: Reading) -> Stage {
        match &self.holder {
            Some(holder) if self.too_late.is_zero() => holder.stage(now),
            Some(_) if self.left(now) > self.margin => Stage::Held { left: self.left(now) },
            Some(_) if !self.left(now).is_zero() => Stage::Notice { left: self.left(now) },
            Some(_) | None => Stage::Lapsed,
        }
    }
}

impl World {
    pub(crate) fn keeper(&mut self, i: usize) -> Option<&mut Keeper> {
        self.process(i).map(|process| &mut process.keeper)
    }

    /// P2: asks to be let in until the log has it.
    pub(crate) fn join(&mut self, i: usize) {
        let contract = self.setup.contract();
        let machine = &self.machines[i];
        let Some(process) = &machine.process else { return };
        if machine.disk.state.life_of(node(i), Nonce::new(process.nonce)).is_some() {
            return;
        }
        if let (Some(leader), Ok(address)) = (process.seat.leader, Address::new("h:1")) {
            let command = Command::Join {
                node: node(i),
                role: Role::Voter,
                addresses: vec![address],
                disk: DiskSeen { id: DiskId::new(i as u128 + 1), opened: machine.processes },
                boot: BootId::new(u128::from(machine.boots) + 1),
                nonce: Nonce::new(process.nonce),
                contract,
                left: None,
                hint: None,
            };
            self.send(i, leader, Message::Ask(Box::new(command)));
        }
        let wait = self.rng.between(self.times.heartbeat, 2 * self.times.heartbeat);
        self.act(i, wait + 4 * self.times.hop, Act::Join);
    }

    /// What the log says of this process's own life.
    pub(crate) fn look_at_own_life(&mut self, i: usize) {
        let plan = self.setup.plan;
        let machine = &mut self.machines[i];
        let Some(process) = &mut machine.process else { return };
        let (state, keeper) = (&machine.disk.state, &mut process.keeper);
        if keeper.who.is_none() {
            keeper.who = state.life_of(node(i), Nonce::new(process.nonce));
        }
        let Some(who) = keeper.who else { return };
        if keeper.holder.is_none() && state.may_renew(who) {
            keeper.holder = Some(MemberLease::new(who, plan.lease, plan.margin, plan.renew));
            return self.turn_now(i);
        }
        let phase = state.life(who).map(|life| life.phase);
        let condemned = match phase {
            Some(Phase::Joining | Phase::Active) => state.newest(who.node) != Some(who),
            Some(Phase::Fencing | Phase::Fenced | Phase::Left) | None => true,
        };
        if !condemned {
            return;
        }
        let over = phase.is_none_or(Phase::has_ended) && !std::mem::replace(&mut keeper.over, true);
        let news = keeper.holder.as_mut().is_some_and(|holder| {
            let before = holder.is_condemned();
            holder.handle_condemned();
            !before
        });
        if news {
            self.turn_now(i);
        }
        if over {
            let wait = self.rng.between(MS, self.times.margin);
            self.act(i, wait, Act::Exit);
        }
    }

    pub(crate) fn turn_now(&mut self, i: usize) {
        if let Some(keeper) = self.keeper(i) {
            keeper.turns += 1;
            let number = keeper.turns;
            self.soon(i, Act::Turn { number });
        }
    }

    /// One turn of the keeper's thread: everything in it follows from one look at the clock.
    pub(crate) fn turn(&mut self, i: usize, number: u64) {
        let (now, calm, percent) = (self.reading(i), self.setup.calm(), self.setup.armed_percent());
        let (plan, stop) = (self.setup.plan, self.setup.plan.stop);
        let Some(keeper) = self.keeper(i).filter(|keeper| keeper.turns == number) else { return };
        let Some(holder) = &mut keeper.holder else { return };
        let due = holder.poll_renewal(now);
        let (condemned, until_renewal, from) = (holder.is_condemned(), holder.until_renewal(now), holder.held_from());
        let (left, stage) = (keeper.left(now), keeper.stage(now));
        let lapsed = keeper.held && !condemned && !matches!(stage, Stage::Held { .. });
        keeper.held = matches!(stage, Stage::Held { .. });
        keeper.noticed = !keeper.held && (keeper.noticed || lapsed);
        let over = stage == Stage::Lapsed && std::mem::take(&mut keeper.noticed);
        if let Some(seq) = due {
            self.soon(i, Act::SendRenewal { seq });
        }
        if lapsed {
            let what = if self.rounds > 1 { "notice in a longer election" } else { "notice to a healthy member" };
            self.tally.count(if calm { what } else { "notice" });
        }
        if over {
            self.tally.count("lapsed");
        }
        match stage {
            Stage::Held { .. } => self.begin_what_is_owed(i),
            Stage::Notice { .. } | Stage::Lapsed => self.stop_work(i),
        }
        let Some(keeper) = self.keeper(i) else { return };
        let pace = match stop {
            Stop::Watchdog { timeout, .. } => timeout / 4,
            Stop::Deadman { .. } | Stop::Tokens | Stop::Own { .. } | Stop::Unbounded => NAP,
        };
        let first = keeper.work.is_none();
        if keeper.needs_arming() && !left.is_zero() {
            match stop {
                Stop::Deadman { .. } if keeper.armed_from != from || keeper.work.is_none() => {
                    keeper.armed_from = from;
                    let left = left.as_nanos() as Nanos;
                    let until = now.boottime().as_nanos() as Nanos + left * percent / 100;
                    self.soon(i, Act::Arm { until, left });
                    self.pause_between_look_and_arming(i, first);
                }
                Stop::Watchdog { .. } if keeper.fed.is_none_or(|fed| now.longest_since(fed) >= pace) => {
                    let fed = keeper.fed.replace(now).map_or(Duration::ZERO, |fed| now.longest_since(fed));
                    self.soon(i, Act::Feed);
                    match first {
                        true => self.pause_between_look_and_arming(i, true),
                        false => self.pause_between_look_and_feeding(i, left, fed),
                    }
                }
                _ => {}
            }
        }
        let next_stage = match stage {
            Stage::Held { .. } => left.saturating_sub(plan.margin),
            Stage::Notice { .. } => left,
            Stage::Lapsed => NAP,
        };
        let until_renewal = if condemned { NAP } else { until_renewal };
        let sleep = until_renewal.min(next_stage).min(pace).clamp(BLINK, NAP);
        let Some(keeper) = self.keeper(i) else { return };
        if keeper.turns == number {
            keeper.turns += 1;
            let number = keeper.turns;
            self.act(i, sleep.as_nanos() as Nanos, Act::Turn { number });
        }
    }

    pub(crate) fn send_renewal(&mut self, i: usize, seq: u64) {
        let leader = self.seat(i).and_then(|seat| seat.leader);
        let Some(keeper) = self.keeper(i) else { return };
        let Some(who) = keeper.who else { return };
        match leader {
            Some(leader) => {
                keeper.asked.insert(seq);
                self.send(i, leader, Message::Renew { who, seq });
                self.act(i, self.times.lease / 2, Act::NoAnswer { seq });
                self.crash_after_renewal(i);
            }
            None => self.act(i, self.times.heartbeat / 2, Act::AskAgain),
        }
    }

    pub(crate) fn renewal_answered(&mut self, i: usize, who: Identity, seq: u64, granted: bool) {
        let (now, late) = (self.reading(i), self.setup.is(Weakness::LeaseFromReceipt));
        let Some(keeper) = self.keeper(i) else { return };
        let asked = keeper.who == Some(who) && keeper.asked.remove(&seq);
        if granted {
            let Some(holder) = &mut keeper.holder else { return };
            if !holder.handle_grant(who, seq, now) {
                return self.tally.count("a grant was late, doubled or another's");
            }
            if late && let Some(sent) = holder.held_from() {
                keeper.too_late = now.longest_since(sent);
            }
            self.turn_now(i);
        } else if asked {
            self.act(i, self.times.heartbeat / 2, Act::AskAgain);
        }
    }

    pub(crate) fn no_answer(&mut self, i: usize, seq: u64) {
        if self.keeper(i).is_some_and(|keeper| keeper.asked.remove(&seq)) {
            self.act(i, self.times.heartbeat / 2, Act::AskAgain);
        }
    }

    pub(crate) fn ask_again(&mut self, i: usize) {
        if let Some(holder) = self.keeper(i).and_then(|keeper| keeper.holder.as_mut()) {
            holder.handle_refusal();
            self.turn_now(i);
        }
    }

    /// The renewer looks who leads; another leader than the last is asked at once.
    pub(crate) fn renewer_tick(&mut self, i: usize) {
        let known = self.seat(i).and_then(|seat| seat.leader);
        let Some(keeper) = self.keeper(i) else { return };
        let before = std::mem::replace(&mut keeper.known, known);
        if known.is_some() && before.is_some() && known != before {
            self.ask_again(i);
        }
        self.look_at_own_life(i);
        self.act(i, self.times.heartbeat / 2, Act::Renewer);
    }
}
