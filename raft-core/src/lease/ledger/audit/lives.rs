//! All lines of the ledgers, sorted by life.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use quorate_membership::lease::Reading;
use quorate_membership::{Activation, BootId, Contract, Identity, NodeId, Revision};

use crate::lease::ledger::note::Note;
use crate::lease::ledger::reader::{LedgerContent, LedgerLine};

/// A grant, as the leader noted it.
pub(super) struct Grant<'a> {
    pub(super) line: &'a LedgerLine,
    pub(super) seq: u64,
    pub(super) activation: Activation,
    pub(super) received: Reading,
}

/// A grant, as the member noted it.
pub(super) struct Hold<'a> {
    pub(super) line: &'a LedgerLine,
    pub(super) seq: u64,
    pub(super) from: Reading,
}

/// A wait for the end of a life, as the leader noted it.
pub(super) struct Wait<'a> {
    pub(super) line: &'a LedgerLine,
    pub(super) under: Activation,
    pub(super) waited: Duration,
}

/// Work that was protected.
pub(super) struct AuditedWork<'a> {
    pub(super) what: &'a str,
    pub(super) token: Revision,
    pub(super) from: &'a LedgerLine,
    pub(super) stopped: Option<&'a LedgerLine>,
}

/// Until when something could act, on the clock of the life's own boot.
#[derive(Clone, Copy)]
pub(super) enum Until<'a> {
    /// Until then, counted from that line.
    At(Duration, &'a LedgerLine),
    /// Nothing bounds it but a proof of its end.
    Open,
}

impl<'a> Until<'a> {
    pub(super) fn at(self) -> Option<Duration> {
        match self {
            Self::At(at, _) => Some(at),
            Self::Open => None,
        }
    }

    pub(super) fn later(self, other: Self) -> Self {
        match (self, other) {
            (Self::At(a, _), Self::At(b, _)) if a >= b => self,
            (Self::At(..), Self::At(..)) => other,
            _ => Self::Open,
        }
    }

    fn earlier(self, at: Duration, line: &'a LedgerLine) -> Self {
        match self {
            Self::At(until, _) if until <= at => self,
            _ => Self::At(at, line),
        }
    }
}

/// One life.
pub(super) struct AuditedLife<'a> {
    pub(super) who: Identity,
    /// What it promised, and the boot that it ran in.
    pub(super) contract: Option<(Contract, BootId)>,
    pub(super) holds: Vec<Hold<'a>>,
    pub(super) grants: Vec<Grant<'a>>,
    pub(super) waits: Vec<Wait<'a>>,
    pub(super) works: Vec<AuditedWork<'a>>,
    /// Every line that reports its end.
    pub(super) ended: Vec<&'a LedgerLine>,
    /// Its machine died, and may have lost the last lines.
    pub(super) machine_died: bool,
    /// All lines of its process; `None` if some may be missing.
    pub(super) process: Option<&'a [LedgerLine]>,
}

impl<'a> AuditedLife<'a> {
    fn new(who: Identity) -> Self {
        Self {
            who,
            contract: None,
            holds: vec![],
            grants: vec![],
            waits: vec![],
            works: vec![],
            ended: vec![],
            machine_died: false,
            process: None,
        }
    }

    pub(super) fn boot(&self) -> Option<BootId> {
        self.contract.map(|(_, boot)| boot)
    }

    /// The first line of its own boot that reports its end; the first of any boot if there is none.
    pub(super) fn first_end(&self) -> Option<&'a LedgerLine> {
        let own = self.boot();
        let of_own = self.ended.iter().filter(|line| Some(line.entry.boot) == own);
        of_own.min_by_key(|line| line.entry.at).or(self.ended.first()).copied()
    }

    /// Until when work could act that never stopped: from its last grant, as itself or a leader in the same boot has it,
    /// over the lease, the bound of what stops it, and what may be in flight. The times after the lease are real ones,
    /// shown by a clock that may run fast; the lease itself is counted on this very clock.
    pub(super) fn lease_end(&self) -> Until<'a> {
        let Some((contract, boot)) = self.contract else { return Until::Open };
        let Some(bound) = contract.stop.bound(contract.drift) else { return Until::Open };
        let after =
            contract.lease.saturating_add(contract.drift.on_a_fast_clock(bound.saturating_add(contract.in_flight)));
        let own = self.holds.iter().map(|hold| (hold.from.boottime(), hold.line));
        let theirs = self.grants.iter().filter(|grant| grant.line.entry.boot == boot);
        let theirs = theirs.map(|grant| (grant.received.boottime(), grant.line));
        // Work is protected under a lease only: should no line be left of it, it was held then at the latest.
        let implied = self.works.iter().map(|work| (work.from.entry.at, work.from));
        let last = own.chain(theirs).max_by_key(|(at, _)| *at).or(implied.max_by_key(|(at, _)| *at));
        last.map_or(Until::Open, |(at, line)| Until::At(at.saturating_add(after), line))
    }

    /// Until when this work could act.
    pub(super) fn work_end(&self, work: &AuditedWork<'a>) -> Until<'a> {
        match work.stopped {
            Some(line) => self.lease_end().earlier(line.entry.at, line),
            None => self.lease_end(),
        }
    }

    /// Until when this life could act; `None` if it never could. Where its machine died, lines that were not on the disk
    /// are gone, so that it is taken to have protected something to the end.
    pub(super) fn acts_until(&self) -> Option<Until<'a>> {
        let presumed = (self.machine_died && !self.holds.is_empty()).then(|| self.lease_end());
        let works = self.works.iter().map(|work| self.work_end(work));
        works.chain(presumed).reduce(Until::later)
    }
}

/// The lines of all ledgers together.
pub(super) struct History<'a> {
    pub(super) lives: BTreeMap<Identity, AuditedLife<'a>>,
    /// From when on each activation counted silence, with the line of it.
    pub(super) activations: BTreeMap<Activation, (&'a LedgerLine, Reading)>,
    /// The nodes whose ledger is there from its beginning.
    pub(super) whole: BTreeSet<NodeId>,
}

impl<'a> History<'a> {
    pub(super) fn of(ledgers: &'a [LedgerContent]) -> Self {
        let mut record = Self { lives: BTreeMap::new(), activations: BTreeMap::new(), whole: BTreeSet::new() };
        for kept in ledgers {
            let nodes = kept.lines.iter().map(|line| line.entry.node);
            record.whole.extend(nodes.filter(|_| !kept.begins_later));
            for line in &kept.lines {
                record.take(line);
            }
            record.take_processes(kept);
        }
        record
    }

    fn life(&mut self, who: Identity) -> &mut AuditedLife<'a> {
        self.lives.entry(who).or_insert_with(|| AuditedLife::new(who))
    }

    fn take(&mut self, line: &'a LedgerLine) {
        match &line.entry.note {
            Note::Registered { who, stop, lease, in_flight, drift } => {
                let contract = Contract { lease: *lease, stop: *stop, in_flight: *in_flight, drift: *drift };
                self.life(*who).contract = Some((contract, line.entry.boot));
            }
            Note::Held { who, seq, from } => self.life(*who).holds.push(Hold { line, seq: *seq, from: *from }),
            Note::Protects { who, what, token } => {
                self.life(*who).works.push(AuditedWork { what, token: *token, from: line, stopped: None });
            }
            Note::Stopped { who, what, token } => {
                let mut works = self.life(*who).works.iter_mut();
                let open = works.find(|work| work.stopped.is_none() && work.what == what && work.token == *token);
                if let Some(work) = open {
                    work.stopped = Some(line);
                }
            }
            Note::Activated { activation, since } | Note::Receipts { activation, since } => {
                self.activations.insert(*activation, (line, *since));
            }
            Note::Granted { who, seq, activation, received } => {
                let grant = Grant { line, seq: *seq, activation: *activation, received: *received };
                self.life(*who).grants.push(grant);
            }
            Note::Expiring { who, under, waited } => {
                self.life(*who).waits.push(Wait { line, under: *under, waited: *waited });
            }
            Note::Ended { who, .. } => self.life(*who).ended.push(line),
            Note::Notice { .. }
            | Note::Lapsed { .. }
            | Note::Started { .. }
            | Note::Closed
            | Note::Dropped { .. }
            | Note::Rotated => {}
        }
    }

    /// Sees which process each life was, and whether the machine may have taken its last lines with it.
    fn take_processes(&mut self, kept: &'a LedgerContent) {
        let all_there = kept.dropped() == 0 && kept.damaged.is_empty();
        let processes = processes(&kept.lines);
        for (number, range) in processes.iter().enumerate() {
            let lines = &kept.lines[range.clone()];
            let closed = lines.iter().any(|line| line.entry.note == Note::Closed);
            let boot = |lines: &[LedgerLine]| lines.first().map(|line| line.entry.boot);
            let next = processes.get(number + 1).and_then(|next| boot(&kept.lines[next.clone()]));
            let machine_died = !closed && next.is_some_and(|next| Some(next) != boot(lines));
            for line in lines {
                if let Note::Registered { who, .. } = line.entry.note {
                    let life = self.life(who);
                    life.machine_died |= machine_died;
                    life.process = Some(lines).filter(|_| all_there);
                }
            }
        }
    }
}

/// The lines of each process: from the note of its start to that of the next.
fn processes(lines: &[LedgerLine]) -> Vec<Range<usize>> {
    let started = |(at, line): (usize, &LedgerLine)| matches!(line.entry.note, Note::Started { .. }).then_some(at);
    let mut begins: Vec<usize> = lines.iter().enumerate().filter_map(started).collect();
    if begins.first() != Some(&0) {
        begins.insert(0, 0);
    }
    let ends = begins.iter().skip(1).copied().chain([lines.len()]);
    begins.iter().copied().zip(ends).map(|(begin, end)| begin..end).collect()
}
