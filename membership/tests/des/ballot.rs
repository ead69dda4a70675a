//! Elections of the small Raft: who stands when, and who is given a vote.
//!
//! ```text
//!   a leader spoke ├── election_max: nobody else is heard ──┤── [min, max] ──▶ PreVote ─▶ Vote ─▶ leader
//! ```
//!
//! A healthy leader is not deposed: a node that has heard it lately refuses, and a pre-vote changes nothing.

use crate::clocks::Nanos;
use crate::raft::{Role, Talk};
use crate::step::Act;
use crate::world::World;

impl World {
    /// Whether those bits are of a majority.
    pub(crate) fn majority(&self, votes: u32) -> bool {
        votes.count_ones() as usize > self.setup.nodes / 2
    }

    /// Between the shortest and the longest silence after which one stands.
    pub(crate) fn timeout(&mut self) -> Nanos {
        self.rng.between(self.times.election_min, self.times.election_max)
    }

    pub(crate) fn election_timer(&mut self, i: usize) {
        let raw = self.raw(i);
        let retry = self.timeout();
        let Some(seat) = self.seat(i) else { return };
        let due = seat.heard + seat.timeout;
        if seat.leads() || raw < due {
            let wait = if seat.leads() { seat.timeout } else { due - raw };
            return self.act(i, wait, Act::Election);
        }
        (seat.heard, seat.timeout) = (raw, retry);
        seat.role = Role::Candidate { pre: true, votes: 1 << i };
        let (term, last) = (self.machines[i].disk.term + 1, self.machines[i].disk.last());
        self.tally.count("stood for election");
        self.say_to_all(i, &Talk::PreVote { term, last });
        self.act(i, retry, Act::Election);
    }

    /// Whether a leader spoke so lately that nobody else should be heard.
    fn is_led(&mut self, i: usize) -> bool {
        let (raw, lease) = (self.raw(i), self.times.election_max);
        self.seat(i).is_some_and(|seat| seat.leads() || seat.led.is_some_and(|led| raw - led < lease))
    }

    pub(crate) fn adopt(&mut self, i: usize, term: u64) {
        let disk = &mut self.machines[i].disk;
        if term <= disk.term {
            return;
        }
        (disk.term, disk.vote, disk.led) = (term, None, false);
        let raw = self.raw(i);
        let timeout = self.timeout();
        let Some(seat) = self.seat(i) else { return };
        if seat.leads() {
            (seat.heard, seat.timeout) = (raw, timeout);
        }
        (seat.role, seat.leader) = (Role::Follower, None);
    }

    pub(crate) fn asked_beforehand(&mut self, i: usize, from: usize, term: u64, last: (u64, u64)) {
        if !self.is_led(i) && term > self.machines[i].disk.term && last >= self.machines[i].disk.last() {
            self.say(i, from, Talk::PreVoted { term });
        }
    }

    pub(crate) fn pre_voted(&mut self, i: usize, from: usize, term: u64) {
        if term != self.machines[i].disk.term + 1 {
            return;
        }
        let Some(Role::Candidate { pre: true, votes }) = self.seat(i).map(|seat| &mut seat.role) else { return };
        *votes |= 1 << from;
        let votes = *votes;
        if !self.majority(votes) {
            return;
        }
        self.adopt(i, term);
        self.rounds += 1;
        self.machines[i].disk.vote = Some(i);
        if let Some(seat) = self.seat(i) {
            seat.role = Role::Candidate { pre: false, votes: 1 << i };
        }
        let last = self.machines[i].disk.last();
        for to in (0..self.setup.nodes).filter(|to| *to != i) {
            self.say_after_flush(i, to, Talk::Vote { term, last });
        }
    }

    pub(crate) fn asked_for_vote(&mut self, i: usize, from: usize, term: u64, last: (u64, u64)) {
        let follows = self.seat(i).is_some_and(|seat| !seat.leads());
        if (follows && self.is_led(i)) || last < self.machines[i].disk.last() {
            return;
        }
        self.adopt(i, term);
        let disk = &mut self.machines[i].disk;
        if term < disk.term || disk.vote.is_some_and(|vote| vote != from) {
            return;
        }
        disk.vote = Some(from);
        let raw = self.raw(i);
        if let Some(seat) = self.seat(i) {
            seat.heard = raw;
        }
        self.say_after_flush(i, from, Talk::Voted { term });
    }

    pub(crate) fn voted(&mut self, i: usize, from: usize, term: u64) {
        if term != self.machines[i].disk.term {
            return;
        }
        let Some(Role::Candidate { pre: false, votes }) = self.seat(i).map(|seat| &mut seat.role) else { return };
        *votes |= 1 << from;
        let votes = *votes;
        if self.majority(votes) {
            let first = self.machines[i].disk.log.len() as u64 + 1;
            self.machines[i].disk.led = true;
            self.tally.count("leader elected");
            self.lead(i, first);
            self.append(i, None);
        }
    }
}
