//! The audits, which read only files: what the workers wrote and tried to write, and what the nodes noted of their
//! leases.
//!
//! ```text
//!   r7   n1#1  ├──────────────┤                    from its first attempt to its last
//!   r19  n2#1                    ├───────────┤     begins after the one before has ended: no overlap
//!   r24  n3#1              ├──────…                begins before: each attempt of r7 from there on is an overlap
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use anyhow::Result;
use quorate::lease::ledger::audit::{Report, Verdict, audit};
use quorate::{Identity, Revision};

use crate::ledger::Line;

/// What the worker's ledger shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Audit {
    pub(crate) lines: usize,
    pub(crate) owners: usize,
    /// Attempts of one owner at or after the first attempt of a later one, and attempts of two owners under one token.
    pub(crate) overlaps: usize,
    /// Lines with a smaller token than one before them.
    pub(crate) backwards: usize,
}

impl Audit {
    pub(crate) fn of(lines: &[Line], attempts: &[Line]) -> Self {
        let mut audit = Self { lines: lines.len(), ..Self::default() };
        let mut work: BTreeMap<Revision, (Identity, Vec<u64>)> = BTreeMap::new();
        for Line { token, owner, at } in attempts {
            let (first_owner, times) = work.entry(*token).or_insert((*owner, vec![]));
            // One token belongs to one owner.
            audit.overlaps += usize::from(first_owner != owner);
            times.push(*at);
        }
        audit.owners = work.len();
        for (token, (_, times)) in &work {
            let later = work.range(token.next()..).filter_map(|(_, (_, times))| times.iter().min()).min();
            audit.overlaps += times.iter().filter(|at| later.is_some_and(|first| *at >= first)).count();
        }
        let mut largest = None;
        for line in lines {
            audit.backwards += usize::from(largest > Some(line.token));
            largest = largest.max(Some(line.token));
        }
        audit
    }

    pub(crate) fn clean(&self) -> bool {
        self.overlaps == 0 && self.backwards == 0
    }
}

/// What the ledgers of the nodes show of their leases: quorate's audit of every data folder of the run.
#[derive(Debug, Clone, Default)]
pub(crate) struct LeaseAudit {
    report: Report,
}

impl LeaseAudit {
    pub(crate) fn of(folders: &[PathBuf]) -> Result<Self> {
        Ok(Self { report: audit(folders)? })
    }

    /// Whether no overlap was found. Missing lines are no overlap, because a killed process may not have written its
    /// last ones.
    pub(crate) fn clean(&self) -> bool {
        self.report.verdict() != Verdict::Overlap
    }

    /// The number of violations.
    pub(crate) fn violations(&self) -> usize {
        self.report.violations.len()
    }

    /// The number of facts that are missing from the ledgers.
    pub(crate) fn incomplete(&self) -> usize {
        self.report.incomplete.len()
    }

    /// The smallest time in milliseconds between the moment until which a life could act and the first record of its
    /// end.
    pub(crate) fn smallest_gap(&self) -> Option<f64> {
        self.report.smallest_gap.as_ref().map(|gap| gap.gap.as_secs_f64() * 1e3)
    }
}

impl fmt::Display for LeaseAudit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { ledgers, lives, granted, intervals, .. } = &self.report;
        let proofs = self.report.proofs.iter().map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>();
        write!(
            f,
            "{ledgers} ledgers of {lives} lives, {} of which could act; {granted} grants; ends: {}; {} violations",
            intervals.len(),
            proofs.join(", "),
            self.violations()
        )?;
        if let Some(gap) = self.smallest_gap() {
            write!(f, "; smallest gap before the record of an end {gap:.1} ms")?;
        }
        match self.report.verdict() {
            Verdict::Clean => Ok(()),
            Verdict::Overlap | Verdict::Incomplete => write!(f, "\n{}", self.report),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(token: u64, owner: &str, at: u64) -> Line {
        Line { token: Revision::new(token), owner: owner.parse().unwrap(), at }
    }

    #[test]
    fn the_audit_sees_two_at_work_even_if_the_ledger_refused_one() {
        let apart = [line(7, "n1#1", 10), line(7, "n1#1", 20), line(19, "n2#1", 30)];
        assert!(Audit::of(&apart, &apart).clean());
        let both = [line(7, "n1#1", 10), line(19, "n2#1", 15), line(7, "n1#1", 20)];
        let seen = Audit::of(&apart, &both);
        assert_eq!((seen.overlaps, seen.backwards), (1, 0));
        assert_eq!(Audit::of(&both, &apart).backwards, 1);
        assert_eq!(Audit::of(&[], &[line(7, "n1#1", 1), line(7, "n2#1", 2)]).overlaps, 1);
    }
}
