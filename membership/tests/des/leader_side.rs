//! The leader's side of the leases: drives the shipped `Grantor` as its task does.
//!
//! ```text
//!   every H/4: leadership gained or lost · a read if one is due · the activation · whose time is up · duties
//!   renewal ─▶ noted, waits ─▶ one read per H, begun after it ─▶ answered to the member
//! ```

use std::collections::{BTreeMap, BTreeSet};

use quorate_membership::lease::{Expiry, Grantor, NotRenewed, Reading, Round};
use quorate_membership::{Activation, Cause, Command, Drift, Duty, Identity, Nonce, Reason, duties};

use crate::clocks::Nanos;
use crate::oracle::node;
use crate::setup::Weakness;
use crate::step::{Act, Message};
use crate::world::World;

pub(crate) struct LeaderSide {
    pub(crate) grantor: Grantor,
    /// The term that this process leads in, as far as it has noticed.
    leading: Option<u64>,
    ticking: bool,
    ticked: Option<Reading>,
    activating: Option<u64>,
    waiting: BTreeSet<(Identity, u64)>,
    read: Option<(Round, u64)>,
    read_begun: Option<Nanos>,
    /// What was proposed: the index, and when by its own clock.
    expiring: BTreeMap<Identity, (u64, Nanos)>,
    owed: BTreeMap<Duty, (u64, Nanos)>,
}

impl LeaderSide {
    pub(crate) fn new(i: usize, drift: Drift) -> Self {
        Self {
            grantor: Grantor::new(node(i), drift),
            leading: None,
            ticking: false,
            ticked: None,
            activating: None,
            waiting: BTreeSet::new(),
            read: None,
            read_begun: None,
            expiring: BTreeMap::new(),
            owed: BTreeMap::new(),
        }
    }

    pub(crate) fn activation(&self) -> Option<Activation> {
        self.grantor.activation()
    }
}

impl World {
    fn leader_side(&mut self, i: usize) -> Option<&mut LeaderSide> {
        self.process(i).map(|process| &mut process.leader_side)
    }

    /// Leadership was gained: the leader_side looks at it within its pace.
    pub(crate) fn open_office(&mut self, i: usize) {
        if self.leader_side(i).is_some_and(|leader_side| !std::mem::replace(&mut leader_side.ticking, true)) {
            let wait = self.rng.below(self.times.heartbeat / 4);
            self.act(i, wait, Act::LeaderSide);
        }
    }

    pub(crate) fn office_tick(&mut self, i: usize) {
        let term = self.machines[i].disk.term;
        let leading = self.seat(i).filter(|seat| seat.leads()).map(|_| term);
        let (now, lease) = (self.reading(i), self.setup.plan.lease);
        let Some(leader_side) = self.leader_side(i) else { return };
        let changed = leading != leader_side.leading;
        let before = leader_side.ticked.replace(now).unwrap_or(now);
        if now.longest_since(before) > lease / 4 {
            leader_side.grantor.handle_pause(now);
            self.tally.count("a leader noticed that it had stood still");
        }
        if changed {
            self.leadership_changed(i, leading);
        }
        if leading.is_none() {
            if let Some(leader_side) = self.leader_side(i) {
                (leader_side.ticking, leader_side.ticked) = (false, None);
            }
            return;
        }
        let others = (0..self.setup.nodes).filter(|j| *j != i);
        if others.filter_map(|j| self.machines[j].process.as_ref()).any(|process| process.seat.leads()) {
            self.tally.count("two leaders at once");
        }
        self.read_if_due(i);
        self.give_up_reading(i);
        self.propose_activation(i);
        self.propose_expiries(i);
        self.propose_duties(i);
        self.act(i, self.times.heartbeat / 4, Act::LeaderSide);
    }

    fn leadership_changed(&mut self, i: usize, leading: Option<u64>) {
        self.nonces += 1;
        let nonce = Nonce::new(self.nonces);
        let Some(leader_side) = self.leader_side(i) else { return };
        match leading {
            Some(_) => leader_side.grantor.handle_gain(nonce),
            None => leader_side.grantor.handle_loss(),
        }
        leader_side.leading = leading;
        (leader_side.activating, leader_side.read) = (None, None);
        leader_side.expiring.clear();
        leader_side.owed.clear();
        for (who, seq) in std::mem::take(&mut leader_side.waiting) {
            self.answer(i, who, seq, false);
        }
    }

    /// P8: one read a heartbeat at the most, begun after the receipts that it serves.
    fn read_if_due(&mut self, i: usize) {
        let (raw, heartbeat) = (self.raw(i), self.times.heartbeat);
        #[cfg(quorate_mutants)]
        if quorate_membership::mutant!("grant_without_read") {
            let unread = self.leader_side(i).map(|leader_side| leader_side.grantor.poll_unread());
            for (who, seq, granted) in unread.unwrap_or_default() {
                self.answered(i, who, seq, granted);
            }
        }
        let Some(leader_side) = self.leader_side(i) else { return };
        if leader_side.read_begun.is_some_and(|begun| raw - begun < heartbeat) {
            return;
        }
        let Some(round) = leader_side.grantor.poll_read() else { return };
        leader_side.read_begun = Some(raw);
        match self.begin_read(i) {
            Some(number) => {
                if let Some(leader_side) = self.leader_side(i) {
                    leader_side.read = Some((round, number));
                }
            }
            None => self.read_failed(i, round),
        }
    }

    fn give_up_reading(&mut self, i: usize) {
        let (raw, timeout) = (self.raw(i), self.times.lease);
        let Some(leader_side) = self.leader_side(i) else { return };
        if leader_side.read_begun.is_some_and(|begun| raw - begun >= timeout)
            && let Some((round, _)) = leader_side.read.take()
        {
            self.read_failed(i, round);
        }
    }

    fn read_failed(&mut self, i: usize, round: Round) {
        self.tally.count("a read failed");
        let failed =
            self.leader_side(i).map(|leader_side| leader_side.grantor.handle_read_failed(round)).unwrap_or_default();
        for (who, seq) in failed {
            self.answered(i, who, seq, false);
        }
    }

    pub(crate) fn read_confirmed(&mut self, i: usize, number: u64) {
        let machine = &mut self.machines[i];
        let Some(leader_side) = machine.process.as_mut().map(|process| &mut process.leader_side) else { return };
        let Some((round, _)) = leader_side.read.take_if(|(_, of)| *of == number) else { return };
        for (who, seq, granted) in leader_side.grantor.handle_read(round, &machine.disk.state) {
            self.answered(i, who, seq, granted);
        }
        self.read_if_due(i);
    }

    fn propose_activation(&mut self, i: usize) {
        let (leader, applied) = (node(i), self.machines[i].disk.applied);
        let known = self.machines[i].disk.state.member(leader).is_some();
        let Some(leader_side) = self.leader_side(i) else { return };
        let under_way = leader_side.activating.is_some_and(|index| index > applied);
        if let Some(nonce) = leader_side.grantor.poll_activation().filter(|_| known && !under_way) {
            let index = self.propose(i, Command::ActivateLeader { leader, nonce });
            if let Some(leader_side) = self.leader_side(i) {
                leader_side.activating = index;
            }
        }
    }

    /// P10: marked in the very step of the look, only then proposed, by a task that may be late; proposed again if it came
    /// to nothing.
    fn propose_expiries(&mut self, i: usize) {
        let (now, raw, heartbeat) = (self.reading(i), self.raw(i), self.times.heartbeat);
        let applied = self.machines[i].disk.applied;
        let Some(leader_side) = self.leader_side(i) else { return };
        let expiries = leader_side.grantor.poll_expiries(now);
        for expiry in expiries {
            let Some(leader_side) = self.leader_side(i) else { return };
            let under_way = |(index, at): &(u64, Nanos)| *index > applied || raw - at < heartbeat;
            if leader_side.expiring.get(&expiry.target).is_some_and(under_way) {
                continue;
            }
            // Until it is proposed it counts as under way.
            leader_side.expiring.insert(expiry.target, (applied, raw));
            let wait = self.lateness_of_a_task(i);
            self.act(i, wait, Act::Propose { expiry });
        }
    }

    pub(crate) fn propose_expiry(&mut self, i: usize, expiry: Expiry) {
        let Expiry { target, under, waited } = expiry;
        let raw = self.raw(i);
        let Some(index) = self.propose(i, Command::Expire { target, under, waited }) else { return };
        self.tally.count("expiry proposed");
        if let Some(leader_side) = self.leader_side(i) {
            leader_side.expiring.insert(target, (index, raw));
        }
        self.crash_after_expiry(i);
    }

    /// Lets lives work, and condemns former lives of nodes that came back.
    fn propose_duties(&mut self, i: usize) {
        let machine = &self.machines[i];
        let Some(leader_side) = machine.process.as_ref().map(|process| &process.leader_side) else { return };
        let (Some(under), applied) = (leader_side.activation(), machine.disk.applied) else { return };
        let (raw, heartbeat) = (self.raw(i), self.times.heartbeat);
        let under_way = |(index, at): &(u64, Nanos)| *index > applied || raw - at < heartbeat;
        let fresh = |duty: &Duty| !leader_side.owed.get(duty).is_some_and(under_way);
        for duty in duties(&machine.disk.state).into_iter().filter(fresh).collect::<Vec<_>>() {
            let command = match duty {
                Duty::Activate(who) => Command::Activate { who },
                Duty::Condemn { former, waiting } => {
                    let cause = Cause::Returned { as_life: waiting };
                    Command::OrderFence { target: former, cause, under: Some(under) }
                }
                // There is no device here: open orders end by time.
                Duty::Fence(_) => continue,
                Duty::FinishChange | Duty::CatchUp(_) | Duty::Promote(_) | Duty::Demote(_) | Duty::Expel(_) => continue,
            };
            if let (Some(index), Some(leader_side)) = (self.propose(i, command), self.leader_side(i)) {
                leader_side.owed.insert(duty, (index, raw));
            }
        }
    }

    /// An operator asks this leader to fence a life, rightly or not.
    pub(crate) fn order_fence(&mut self, i: usize, target: Identity) {
        if let Ok(reason) = Reason::new("suspected") {
            let command = Command::OrderFence { target, cause: Cause::Requested { reason, by: None }, under: None };
            if self.propose(i, command).is_some() {
                self.tally.count("a life was ordered fenced without a device");
            }
        }
    }

    pub(crate) fn renewal_received(&mut self, i: usize, who: Identity, seq: u64) {
        let now = self.reading(i);
        let machine = &mut self.machines[i];
        let Some(leader_side) = machine.process.as_mut().map(|process| &mut process.leader_side) else { return };
        // P7: noted after the receipt.
        match leader_side.grantor.handle_renewal(who, seq, &machine.disk.state, now) {
            Ok(()) => {
                leader_side.waiting.insert((who, seq));
                if self.setup.is(Weakness::NoRead) {
                    self.answered(i, who, seq, true);
                }
                self.read_if_due(i);
            }
            Err(why) => {
                self.tally.count(match why {
                    NotRenewed::NotLive(_) => "refused: a newer life, or an order",
                    NotRenewed::Expiring(_) => "refused: its time was up, and it returned",
                    _ => "refused: not activated",
                });
                self.answer(i, who, seq, false);
            }
        }
    }

    /// Answers a renewal, and those of the same life before it, which no read was begun for.
    fn answered(&mut self, i: usize, who: Identity, seq: u64, granted: bool) {
        let Some(leader_side) = self.leader_side(i) else { return };
        let earlier: Vec<_> = leader_side.waiting.range((who, 0)..(who, seq)).copied().collect();
        let waits = leader_side.waiting.remove(&(who, seq));
        leader_side.waiting.retain(|ask| !earlier.contains(ask));
        for (who, seq) in earlier {
            self.answer(i, who, seq, false);
        }
        if waits {
            self.answer(i, who, seq, granted);
        }
    }

    fn answer(&mut self, i: usize, who: Identity, seq: u64, granted: bool) {
        let to = who.node.get() as usize - 1;
        self.send(i, to, Message::Renewed { who, seq, granted });
    }
}
