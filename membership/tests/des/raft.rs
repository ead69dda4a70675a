//! A small Raft with a log, elections and linearizable reads: what the leases rest on (A7), no more.
//!
//! ```text
//!   silence of election_max + [min, max] ─▶ PreVote ─majority─▶ Vote ─majority─▶ leader: an empty entry, Append every H
//!                                                                    (who heard a leader within election_max refuses)
//!   propose ─▶ Append ─▶ flushed by a majority ─▶ committed ─▶ applied through the production rules, on every replica
//!   read    ─▶ Append to all, begun after the call; a majority answers, and the index is applied ─▶ confirmed
//! ```
//!
//! A leader that hears of no higher term goes on believing in itself, and one whose process restarts in its own term
//! leads on without an election: both are what the engine does. What was flushed survives; an answer waits for the
//! flush.

use std::sync::Arc;

use quorate_membership::{ClusterState, Command};

use crate::clocks::Nanos;
use crate::step::Act;
use crate::world::World;

/// One entry: empty, or a command.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) term: u64,
    pub(crate) command: Option<Arc<Command>>,
}

/// What survives a crash.
pub(crate) struct Disk {
    pub(crate) term: u64,
    pub(crate) vote: Option<usize>,
    /// Whether this node was elected in `term`.
    pub(crate) led: bool,
    pub(crate) log: Vec<Entry>,
    pub(crate) state: ClusterState,
    pub(crate) applied: u64,
    /// Who may do each job, by the log, and under which token.
    pub(crate) jobs: crate::oracle::Jobs,
}

impl Disk {
    pub(crate) fn last(&self) -> (u64, u64) {
        (self.log.last().map_or(0, |entry| entry.term), self.log.len() as u64)
    }

    fn term_at(&self, index: u64) -> u64 {
        if index == 0 { 0 } else { self.log[index as usize - 1].term }
    }
}

pub(crate) enum Role {
    Follower,
    Candidate { pre: bool, votes: u32 },
    Leader(Lead),
}

/// What only a leader keeps.
pub(crate) struct Lead {
    next: Vec<u64>,
    matched: Vec<u64>,
    /// The first entry of its own term: no read returns before it is applied.
    first: u64,
    /// The read under way: its number, the index to be applied, who has answered.
    read: Option<(u64, u64, u32)>,
    reads: u64,
}

/// The volatile part of one process.
pub(crate) struct Seat {
    pub(crate) role: Role,
    /// Whom this process takes for the leader.
    pub(crate) leader: Option<usize>,
    pub(crate) commit: u64,
    /// On CLOCK_MONOTONIC_RAW: since when it waits, for how long, and when a leader last spoke.
    pub(crate) heard: Nanos,
    pub(crate) timeout: Nanos,
    pub(crate) led: Option<Nanos>,
}

impl Seat {
    pub(crate) fn new(now: Nanos, timeout: Nanos, commit: u64) -> Self {
        Self { role: Role::Follower, leader: None, commit, heard: now, timeout, led: None }
    }

    pub(crate) fn leads(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }
}

/// What nodes say to each other about the log.
#[derive(Clone)]
pub(crate) enum Talk {
    PreVote {
        term: u64,
        last: (u64, u64),
    },
    PreVoted {
        term: u64,
    },
    Vote {
        term: u64,
        last: (u64, u64),
    },
    Voted {
        term: u64,
    },
    Append {
        term: u64,
        prev: (u64, u64),
        entries: Vec<Entry>,
        commit: u64,
        read: u64,
    },
    /// `Ok`: everything up to that index is there. `Err`: nothing beyond that index can be.
    Appended {
        term: u64,
        matched: Result<u64, u64>,
        read: u64,
    },
}

impl World {
    /// A process that starts takes its seat: it leads on if it was elected in the term that it finds on its disk.
    pub(crate) fn take_seat(&mut self, i: usize) {
        if self.machines[i].disk.led {
            self.tally.count("a leader restarted in its own term");
            let term = self.machines[i].disk.term;
            let first = self.machines[i].disk.log.iter().position(|entry| entry.term == term);
            self.lead(i, first.map_or(1, |at| at as u64 + 1));
        }
        let wait = self.rng.below(self.times.heartbeat);
        self.act(i, wait, Act::Election);
    }

    pub(crate) fn talk(&mut self, i: usize, from: usize, talk: Talk) {
        match talk {
            Talk::PreVote { term, last } => self.asked_beforehand(i, from, term, last),
            Talk::PreVoted { term } => self.pre_voted(i, from, term),
            Talk::Vote { term, last } => self.asked_for_vote(i, from, term, last),
            Talk::Voted { term } => self.voted(i, from, term),
            Talk::Append { term, prev, entries, commit, read } => {
                self.appends(i, from, term, prev, entries, commit, read)
            }
            Talk::Appended { term, matched, read } => self.appended(i, from, term, matched, read),
        }
    }

    /// This process leads from here on; the first entry of its term is, or will be, `first`.
    pub(crate) fn lead(&mut self, i: usize, first: u64) {
        let (nodes, last) = (self.setup.nodes, self.machines[i].disk.log.len() as u64);
        let mut matched = vec![0; nodes];
        matched[i] = last;
        if let Some(seat) = self.seat(i) {
            seat.role = Role::Leader(Lead { next: vec![last + 1; nodes], matched, first, read: None, reads: 0 });
            seat.leader = Some(i);
        }
        self.act(i, 0, Act::Heartbeat);
        self.open_office(i);
    }

    fn lead_of(&mut self, i: usize) -> Option<&mut Lead> {
        match &mut self.seat(i)?.role {
            Role::Leader(lead) => Some(lead),
            Role::Follower | Role::Candidate { .. } => None,
        }
    }

    /// Says to `to` what it lacks, as far as this leader knows; from what it has confirmed if `again`.
    fn replicate(&mut self, i: usize, to: usize, again: bool) {
        let Some(seat) = self.seat(i) else { return };
        let commit = seat.commit;
        let Role::Leader(lead) = &mut seat.role else { return };
        let (known, read) = (lead.matched[to], lead.read.map_or(0, |(number, ..)| number));
        let from = if again && known > 0 { known + 1 } else { lead.next[to] };
        let disk = &self.machines[i].disk;
        let entries = disk.log[from as usize - 1..].to_vec();
        let (term, prev, next) = (disk.term, (from - 1, disk.term_at(from - 1)), disk.log.len() as u64 + 1);
        if let Some(lead) = self.lead_of(i) {
            lead.next[to] = next;
        }
        self.say(i, to, Talk::Append { term, prev, entries, commit, read });
    }

    pub(crate) fn heartbeat(&mut self, i: usize, term: u64) {
        if self.machines[i].disk.term != term || !self.seat(i).is_some_and(|seat| seat.leads()) {
            return;
        }
        for to in (0..self.setup.nodes).filter(|to| *to != i) {
            self.replicate(i, to, true);
        }
        self.act(i, self.times.heartbeat, Act::Heartbeat);
    }

    /// Puts a command into the log of a leader; its index, if this process believes that it leads.
    pub(crate) fn propose(&mut self, i: usize, command: Command) -> Option<u64> {
        self.lead_of(i)?;
        Some(self.append(i, Some(Arc::new(command))))
    }

    pub(crate) fn append(&mut self, i: usize, command: Option<Arc<Command>>) -> u64 {
        let disk = &mut self.machines[i].disk;
        disk.log.push(Entry { term: disk.term, command });
        let index = disk.log.len() as u64;
        let flush = self.flush(i);
        self.act(i, flush, Act::Flushed { index });
        for to in (0..self.setup.nodes).filter(|to| *to != i) {
            self.replicate(i, to, false);
        }
        index
    }

    /// The leader's own log is flushed up to `index`.
    pub(crate) fn flushed(&mut self, i: usize, term: u64, index: u64) {
        if self.machines[i].disk.term == term {
            if let Some(lead) = self.lead_of(i) {
                lead.matched[i] = lead.matched[i].max(index);
            }
            self.advance(i);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    fn appends(
        &mut self,
        i: usize,
        from: usize,
        term: u64,
        prev: (u64, u64),
        entries: Vec<Entry>,
        commit: u64,
        read: u64,
    ) {
        if term < self.machines[i].disk.term {
            let term = self.machines[i].disk.term;
            return self.say(i, from, Talk::Appended { term, matched: Err(0), read: 0 });
        }
        self.adopt(i, term);
        let raw = self.raw(i);
        let timeout = self.times.election_max + self.timeout();
        if self.seat(i).is_some_and(|seat| seat.leads()) {
            return self.oracle.violated(self.now, format!("two leaders in term {term}"));
        }
        let Some(seat) = self.seat(i) else { return };
        (seat.role, seat.leader, seat.heard, seat.led, seat.timeout) =
            (Role::Follower, Some(from), raw, Some(raw), timeout);
        let disk = &mut self.machines[i].disk;
        let length = disk.log.len() as u64;
        if length < prev.0 || disk.term_at(prev.0) != prev.1 {
            let matched = Err(length.min(prev.0 - 1));
            return self.say(i, from, Talk::Appended { term, matched, read });
        }
        let (matched, news) = (prev.0 + entries.len() as u64, !entries.is_empty());
        let mut overwritten = None;
        for (entry, index) in entries.into_iter().zip(prev.0 + 1..) {
            if index <= disk.log.len() as u64 && disk.term_at(index) != entry.term {
                overwritten = Some(index);
                disk.log.truncate(index as usize - 1);
            }
            if index > disk.log.len() as u64 {
                disk.log.push(entry);
            }
        }
        if let Some(index) = overwritten {
            self.tally.count("an entry of a deposed leader was overwritten");
            if index <= self.machines[i].disk.applied {
                self.oracle.violated(self.now, format!("the log went back below what was applied, at {index}"));
            }
        }
        if let Some(seat) = self.seat(i) {
            seat.commit = seat.commit.max(commit.min(matched));
        }
        self.apply_committed(i);
        let answer = Talk::Appended { term, matched: Ok(matched), read };
        if news { self.say_after_flush(i, from, answer) } else { self.say(i, from, answer) }
    }

    fn appended(&mut self, i: usize, from: usize, term: u64, matched: Result<u64, u64>, read: u64) {
        self.adopt(i, term);
        if term != self.machines[i].disk.term {
            return;
        }
        let Some(lead) = self.lead_of(i) else { return };
        if let Some((number, _, answered)) = &mut lead.read
            && *number == read
        {
            *answered |= 1 << from;
        }
        match matched {
            Ok(index) => lead.matched[from] = lead.matched[from].max(index),
            Err(hint) => {
                lead.next[from] = hint + 1;
                self.replicate(i, from, false);
            }
        }
        self.advance(i);
    }

    /// Commits what a majority has flushed, and ends the read if it is confirmed.
    fn advance(&mut self, i: usize) {
        let majority = self.setup.nodes / 2;
        let Some(lead) = self.lead_of(i) else { return };
        let mut matched = lead.matched.clone();
        matched.sort_unstable_by(|a, b| b.cmp(a));
        let (index, term) = (matched[majority], self.machines[i].disk.term);
        if index > self.seat(i).map_or(u64::MAX, |seat| seat.commit) && self.machines[i].disk.term_at(index) == term {
            if let Some(seat) = self.seat(i) {
                seat.commit = index;
            }
            self.apply_committed(i);
        }
        let applied = self.machines[i].disk.applied;
        let read = self.lead_of(i).and_then(|lead| lead.read);
        if let Some((number, index, answered)) = read
            && applied >= index
            && self.majority(answered)
        {
            if let Some(lead) = self.lead_of(i) {
                lead.read = None;
            }
            self.read_confirmed(i, number);
        }
    }

    /// Begins a linearizable read; its number, if this process believes that it leads.
    pub(crate) fn begin_read(&mut self, i: usize) -> Option<u64> {
        let commit = self.seat(i)?.commit;
        let lead = self.lead_of(i)?;
        lead.reads += 1;
        let number = lead.reads;
        lead.read = Some((number, commit.max(lead.first), 1 << i));
        for to in (0..self.setup.nodes).filter(|to| *to != i) {
            self.replicate(i, to, false);
        }
        Some(number)
    }
}
