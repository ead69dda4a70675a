//! The rules for one life: its own lines, those of the leaders that granted and waited, and those that report its end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_membership::{Activation, Contract, Stop};

use super::lives::{AuditedLife, History, Until};
use super::report::{Gap, Incomplete, Interval, Report, Rule};
use crate::lease::ledger::note::Note;
use crate::lease::ledger::reader::LedgerLine;

/// The kinds of proof, as [`quorate_membership::FenceProof::kind`] names them.
const EXPIRED: &str = "expired";
const CLEAN: &str = "clean leave";
const WORDS: [&str; 2] = ["device", "operator"];

/// The end of a life, as one line reports it.
struct End<'a> {
    line: &'a LedgerLine,
    proof: &'a str,
    by_time: Option<(Activation, Duration)>,
}

fn end_of<'a>(line: &'a LedgerLine) -> Option<End<'a>> {
    match &line.entry.note {
        Note::Ended { proof, under, waited, .. } => Some(End { line, proof, by_time: under.zip(*waited) }),
        _ => None,
    }
}

pub(super) fn check(record: &History<'_>, life: &AuditedLife<'_>, report: &mut Report) {
    let who = life.who;
    report.lives += 1;
    report.granted += life.grants.len();
    report.held += life.holds.len();
    let granted: BTreeSet<u64> = life.grants.iter().map(|grant| grant.seq).collect();
    report.unmatched += life.holds.iter().filter(|hold| !granted.contains(&hold.seq)).count();
    let end = life.first_end().and_then(end_of);
    if let Some(end) = &end {
        *report.proofs.entry(end.proof.into()).or_default() += 1;
    }
    one_history(life, report);
    let Some((contract, _)) = life.contract else {
        let silent = life.holds.is_empty() && life.grants.is_empty() && life.works.is_empty();
        if !silent {
            report.incomplete.push(Incomplete::NoContract { who });
        } else if !life.ended.is_empty() && !record.whole.contains(&who.node) {
            report.incomplete.push(Incomplete::NoLedger { who, node: who.node });
        }
        return;
    };
    counted_from_sending(life, report);
    mechanism_acts(life, contract, report);
    let acts = life.acts_until();
    if let Some(until) = acts {
        let from = life.works.iter().map(|work| work.from.entry.at).min();
        let proof = end.as_ref().map(|end| end.proof.to_string());
        report.intervals.push(Interval { who, from, until: until.at(), proof });
    }
    waits(record, life, contract, report);
    let Some(end) = end else { return };
    match end.proof {
        EXPIRED => {
            expired(life, contract, &end, report);
            if let Some(until) = acts {
                ended_before(life, &end, until, report);
            }
        }
        CLEAN => {
            let left = life.works.iter().filter(|work| work.stopped.is_none());
            left.for_each(|work| report.violated(Rule::LeftWithNothing, who, None, [work.from, end.line]));
            let stops = life.works.iter().filter_map(|work| Some(Until::At(work.stopped?.entry.at, work.stopped?)));
            if let Some(until) = stops.reduce(Until::later) {
                ended_before(life, &end, until, report);
            }
        }
        word if WORDS.contains(&word) => report.vouched += usize::from(acts.is_some()),
        _ => report.incomplete.push(Incomplete::UnknownProof { ended: end.line.clone() }),
    }
}

/// I17: all lines that report the end of a life agree.
fn one_history(life: &AuditedLife<'_>, report: &mut Report) {
    let Some(first) = life.ended.first() else { return };
    let other = life.ended.iter().find(|line| line.entry.note != first.entry.note);
    if let Some(other) = other {
        report.violated(Rule::OneHistory, life.who, None, [*first, *other]);
    }
}

/// I6, where the clocks compare; elsewhere the order of grants has to show it, so that all of them must be on record.
fn ended_before(life: &AuditedLife<'_>, end: &End<'_>, until: Until<'_>, report: &mut Report) {
    let who = life.who;
    let Until::At(until, last) = until else { return };
    if Some(end.line.entry.boot) == life.boot() {
        let told = end.line.entry.at;
        match told.checked_sub(until) {
            Some(gap) if !gap.is_zero() => {
                if report.smallest_gap.as_ref().is_none_or(|smallest| gap < smallest.gap) {
                    let (last, ended) = (last.clone(), end.line.clone());
                    report.smallest_gap = Some(Gap { gap, who, last, ended });
                }
            }
            _ => report.violated(Rule::EndedBeforeToldSo, who, Some(until - told), [last, end.line]),
        }
    } else if end.proof == EXPIRED {
        let granted: BTreeSet<u64> = life.grants.iter().map(|grant| grant.seq).collect();
        if let Some(hold) = life.holds.iter().find(|hold| !granted.contains(&hold.seq)) {
            report.incomplete.push(Incomplete::NoGrant { who, held: hold.line.clone() });
        }
        let under = end.by_time.map(|(under, _)| under);
        if !life.waits.iter().any(|wait| Some(wait.under) == under) {
            report.incomplete.push(Incomplete::NoWait { who });
        }
    }
}

/// What the log itself shows about an end by time.
fn expired(life: &AuditedLife<'_>, contract: Contract, end: &End<'_>, report: &mut Report) {
    let who = life.who;
    let Some(need) = contract.own_wait() else {
        return report.violated(Rule::BoundedByTime, who, None, [end.line]);
    };
    let Some((under, waited)) = end.by_time else {
        return report.incomplete.push(Incomplete::NoWait { who });
    };
    if waited < need {
        report.violated(Rule::WaitedLongEnough, who, Some(need - waited), [end.line]);
    }
    if let Some(wait) = life.waits.iter().find(|wait| wait.under == under) {
        let found = &wait.line.entry;
        let holds = life.holds.iter().filter(|hold| hold.line.entry.boot == found.boot);
        if let Some(hold) = holds.max_by_key(|hold| hold.from.boottime())
            && let Some(by) = hold.from.boottime().saturating_add(wait.waited).checked_sub(found.at)
            && !by.is_zero()
        {
            report.violated(Rule::WaitedSinceSending, who, Some(by), [hold.line, wait.line]);
        }
    }
    // Its read saw that activation, so it lies after the one before had ended the life: it should have seen that, too.
    if let Some(later) = life.grants.iter().find(|grant| grant.activation > under) {
        report.violated(Rule::NoLaterGrant, who, None, [end.line, later.line]);
    }
}

/// What the leaders' own clocks show: each wait began after the activation, and after the receipt of each granted renewal.
fn waits(record: &History<'_>, life: &AuditedLife<'_>, contract: Contract, report: &mut Report) {
    let who = life.who;
    for wait in &life.waits {
        let found = &wait.line.entry;
        match contract.own_wait() {
            None => report.violated(Rule::BoundedByTime, who, None, [wait.line]),
            Some(need) if wait.waited < need => {
                report.violated(Rule::WaitedLongEnough, who, Some(need - wait.waited), [wait.line]);
            }
            Some(_) => {}
        }
        // At the most this long after `at` the wait would be over, had it begun at `from`.
        let short = |from: Duration| from.saturating_add(wait.waited).checked_sub(found.at).filter(|by| !by.is_zero());
        if let Some((activated, since)) = record.activations.get(&wait.under)
            && activated.entry.boot == found.boot
            && let Some(by) = short(since.boottime())
        {
            report.violated(Rule::WaitedSinceActivation, who, Some(by), [*activated, wait.line]);
        }
        let same = life.grants.iter().filter(|grant| grant.activation == wait.under);
        let last =
            same.filter(|grant| grant.line.entry.boot == found.boot).max_by_key(|grant| grant.received.boottime());
        if let Some(grant) = last
            && let Some(by) = short(grant.received.boottime())
        {
            report.violated(Rule::NothingGrantedAfter, who, Some(by), [grant.line, wait.line]);
        }
    }
}

/// P9, where the leader's clock is the member's: what was received was sent before.
fn counted_from_sending(life: &AuditedLife<'_>, report: &mut Report) {
    let mut received: BTreeMap<u64, (Duration, &LedgerLine)> = BTreeMap::new();
    for grant in life.grants.iter().filter(|grant| Some(grant.line.entry.boot) == life.boot()) {
        let at = grant.received.boottime();
        let known = received.entry(grant.seq).or_insert((at, grant.line));
        if at > known.0 {
            *known = (at, grant.line);
        }
    }
    for hold in &life.holds {
        if let Some((at, line)) = received.get(&hold.seq)
            && hold.from.boottime() > *at
        {
            report.violated(Rule::CountedFromSending, life.who, Some(hold.from.boottime() - *at), [*line, hold.line]);
        }
    }
}

/// A6, for mechanisms that end the process itself: with protected work it writes nothing after the bound.
fn mechanism_acts(life: &AuditedLife<'_>, contract: Contract, report: &mut Report) {
    let (Some(process), Stop::Deadman { .. } | Stop::Watchdog { .. }) = (life.process, contract.stop) else { return };
    let Some(bound) = contract.stop.bound(contract.drift) else { return };
    let mut lines: Vec<&LedgerLine> = process.iter().filter(|line| Some(line.entry.boot) == life.boot()).collect();
    lines.sort_by_key(|line| line.entry.at);
    let (mut armed, mut held): (usize, Option<(Duration, &LedgerLine)>) = (0, None);
    for line in lines {
        if let Some((from, last)) = held
            && armed > 0
        {
            let until = from.saturating_add(contract.lease).saturating_add(contract.drift.on_a_fast_clock(bound));
            if line.entry.at > until {
                return report.violated(Rule::MechanismActs, life.who, Some(line.entry.at - until), [last, line]);
            }
        }
        match &line.entry.note {
            Note::Held { who, from, .. } if *who == life.who => held = Some((from.boottime(), line)),
            Note::Protects { who, .. } if *who == life.who => armed += 1,
            Note::Stopped { who, .. } if *who == life.who => armed = armed.saturating_sub(1),
            _ => {}
        }
    }
}
