//! The auditor: proves from the ledgers of all nodes that no life acted after others had heard of its end.
//!
//! ```text
//!   n3#2   protects ├───────── may act ──────────┤ E + T_stop + T_io   (or `stopped`, if that was earlier)
//!                         held  held  held       │
//!   n1     granted ─────────────────────────     │  ◀─ the gap ─▶  ended n3#2   (the earliest line of any node)
//!   works  db r7   ├─────────────────────────────┤                    ├── db r9 on n1#1 …
//! ```
//!
//! Times are compared only within one boot of one machine. Between machines the order of the log has to do: for an end that
//! was concluded from time, the leader waited long enough on its own clock, since a moment after its activation and after
//! each grant that it made, and no grant was made under a later activation.
//!
//! Lines may be missing. A life therefore counts as having held what its own lines *or* the leaders' grants show, whichever
//! is longer. A proof by a device or an operator is accepted, and counted. The auditor errs on the side of an alarm: what
//! it cannot prove sound is incomplete.

mod lives;
mod report;
mod rules;
mod works;

use std::path::PathBuf;

pub use report::{Gap, Incomplete, Interval, Report, Rule, Verdict, Violation};

use super::reader::{LedgerContent, Unreadable, read};
use lives::History;

/// Reads the ledgers in these data folders, both files of each, and judges them together. They must be the folders of all
/// nodes of one cluster: the notes of a node that is left out are missing in the proof.
///
/// # Errors
/// [`Unreadable`]: nothing was judged.
pub fn audit(folders: &[PathBuf]) -> Result<Report, Unreadable> {
    let kept: Vec<LedgerContent> = folders.iter().map(|folder| read(folder)).collect::<Result<_, _>>()?;
    Ok(judge(&kept))
}

/// Judges the ledgers that were read from the data folders of all nodes of one cluster.
pub fn judge(ledgers: &[LedgerContent]) -> Report {
    let record = History::of(ledgers);
    let mut report = Report { ledgers: ledgers.len(), ..Report::default() };
    for kept in ledgers {
        report.lines += kept.lines.len();
        report.torn += kept.torn;
        let damaged =
            kept.damaged.iter().map(|(place, why)| Incomplete::Damaged { place: place.clone(), why: why.clone() });
        report.incomplete.extend(damaged);
        let file = kept.lines.first().map(|line| line.place.file.to_path_buf());
        if let (notes @ 1.., Some(file)) = (kept.dropped(), file) {
            report.incomplete.push(Incomplete::Dropped { file, notes });
        }
    }
    for life in record.lives.values() {
        rules::check(&record, life, &mut report);
    }
    works::check(&record, &mut report);
    report
}
