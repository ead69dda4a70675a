//! The rules for one work across all lives: one holder at a time, and tokens that grow (I1, I7).

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_membership::{BootId, Identity, Revision};

use super::lives::{AuditedLife, AuditedWork, History, Until};
use super::report::{Incomplete, Report, Rule};
use crate::lease::ledger::note::Note;
use crate::lease::ledger::reader::LedgerLine;

/// One time that a work was held.
#[derive(Clone, Copy)]
struct Tenure<'a> {
    who: Identity,
    token: Revision,
    boot: BootId,
    begins: &'a LedgerLine,
    until: Until<'a>,
    stopped: Option<&'a LedgerLine>,
    /// The token under which others take over from its life, if that has ended.
    successors: Option<Revision>,
}

pub(super) fn check(record: &History<'_>, report: &mut Report) {
    let mut works: BTreeMap<&str, Vec<Tenure<'_>>> = BTreeMap::new();
    for life in record.lives.values() {
        for work in &life.works {
            works.entry(work.what).or_default().push(tenure(life, work));
        }
    }
    for (what, mut tenures) in works {
        report.works.insert(what.into(), tenures.len());
        report.highest_token = report.highest_token.max(tenures.iter().map(|tenure| tenure.token).max());
        tenures.sort_by_key(|tenure| (tenure.token, tenure.boot, tenure.begins.entry.at));
        for (at, first) in tenures.iter().enumerate() {
            for second in &tenures[at + 1..] {
                pair(what, first, second, report);
            }
        }
    }
}

fn tenure<'a>(life: &AuditedLife<'a>, work: &AuditedWork<'a>) -> Tenure<'a> {
    let (who, token, boot) = (life.who, work.token, work.from.entry.boot);
    let end = life.first_end();
    let successors = end.and_then(|line| match line.entry.note {
        Note::Ended { token, .. } => Some(token),
        _ => None,
    });
    let mut until = life.work_end(work);
    // By the proof of a device or an operator the work has ended at the line of that proof, however long the lease runs.
    if let Some(line) = end.filter(|line| vouched(line) && line.entry.boot == boot)
        && until.at().is_none_or(|until| line.entry.at < until)
    {
        until = Until::At(line.entry.at, line);
    }
    Tenure { who, token, boot, begins: work.from, until, stopped: work.stopped, successors }
}

fn vouched(line: &LedgerLine) -> bool {
    matches!(&line.entry.note, Note::Ended { proof, .. } if proof == "device" || proof == "operator")
}

/// `first` has the lower token, or the same.
fn pair(what: &str, first: &Tenure<'_>, second: &Tenure<'_>, report: &mut Report) {
    if first.who == second.who && first.token == second.token {
        return; // one holder, noted twice
    }
    let lines = [first.begins, second.begins];
    if first.boot != second.boot {
        // The second took its token, that of the first one's end or a later one, from the log after that end. Whether the
        // end itself is sound is checked elsewhere.
        if first.token < second.token && first.successors.is_some_and(|token| token <= second.token) {
            return;
        }
        match first.stopped {
            Some(_) if first.token < second.token => report.by_word += 1,
            _ => {
                let lines = lines.into_iter().cloned().collect();
                report.incomplete.push(Incomplete::NotOrdered { what: what.into(), lines });
            }
        }
        return;
    }
    let (begins, ends) = (|t: &Tenure<'_>| t.begins.entry.at, |t: &Tenure<'_>| t.until.at().unwrap_or(Duration::MAX));
    let overlap = ends(first).min(ends(second)).saturating_sub(begins(first).max(begins(second)));
    if !overlap.is_zero() {
        let bounds = [first.until, second.until].into_iter().filter_map(|until| match until {
            Until::At(_, line) => Some(line),
            Until::Open => None,
        });
        let by = Some(overlap).filter(|_| first.until.at().is_some() || second.until.at().is_some());
        let lines: Vec<&LedgerLine> = lines.into_iter().chain(bounds).collect();
        report.violated(Rule::OneHolder, first.who, by, lines);
    } else if begins(second) < begins(first) || first.token == second.token {
        report.violated(Rule::TokensGrow, second.who, None, lines);
    }
}
