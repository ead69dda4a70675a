//! What a run comes to, in lines for a person.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use crate::audit::Audit;
use crate::director::Met;

/// All that is told of a run.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) seed: u64,
    pub(crate) hosts: u64,
    pub(crate) length: Duration,
    /// The one kind of faults that was asked for, if it was one.
    pub(crate) only: Option<String>,
    pub(crate) met: BTreeMap<&'static str, Met>,
    pub(crate) audit: Audit,
    pub(crate) mended_after: Duration,
    pub(crate) stalls: usize,
    /// For how long hosts were judged to have had no excuse, together.
    pub(crate) judged: Duration,
    /// Since the beginning of the clock: what times in the report are counted from.
    pub(crate) begun: u64,
    /// What did not come back.
    pub(crate) missing: Vec<String>,
    /// Starts that ended with an error: no room on the disk, or no majority in time.
    pub(crate) starts_failed: usize,
}

impl Summary {
    /// Everything that must not be.
    pub(crate) fn violations(&self) -> Vec<String> {
        let Audit { ledger, lost, wrong, .. } = &self.audit;
        let overlaps = ledger.overlaps.iter().map(|line| format!("overlap: {line}"));
        let lost = lost.iter().map(|line| format!("lost: {line}"));
        overlaps.chain(lost).chain(wrong.iter().cloned()).chain(self.missing.iter().cloned()).collect()
    }

    /// The command that does the same again.
    pub(crate) fn replay(&self) -> String {
        let only = self.only.as_ref().map_or(String::new(), |only| format!(" ONLY={only:?}"));
        let minutes = self.length.as_secs_f64() / 60.0;
        format!("make chaos MINUTES={minutes} HOSTS={} SEED={}{only}", self.hosts, self.seed)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Audit { ledger, lost, fences, elections, ends, .. } = &self.audit;
        let minutes = self.length.as_secs_f64() / 60.0;
        writeln!(f, "seed {}, {} hosts, {minutes:.1} minutes of faults", self.seed, self.hosts)?;
        writeln!(f, "  {:<24} {:>5} {:>5}", "fault", "times", "felt")?;
        for (kind, Met { times, bit }) in &self.met {
            writeln!(f, "  {kind:<24} {times:>5} {bit:>5}")?;
        }
        let (times, bit) = self.met.values().fold((0, 0), |(times, bit), met| (times + met.times, bit + met.bit));
        writeln!(f, "  {:<24} {times:>5} {bit:>5}", "all")?;
        for (lock, work) in &ledger.locks {
            let (gap, at) = (work.gap / 1_000_000, work.gap_at.saturating_sub(self.begun) as f64 / 1e9);
            writeln!(
                f,
                "  lock {lock}: {:>6} effects, {:>4} grants, {:>4} takeovers, longest gap {gap:>6} ms at {at:.1} s",
                work.effects, work.grants, work.takeovers
            )?;
        }
        let mut line = String::new();
        for (what, count) in [("fence orders", fences), ("elections", elections), ("ends of processes", ends)] {
            // A string takes everything.
            let _full = writeln!(
                line,
                "  {what}: {}, of these while the machine was busy {}, without any reason {}",
                count.all(),
                count.busy,
                count.unexplained
            );
        }
        f.write_str(&line)?;
        let signs = &self.audit.signs;
        writeln!(
            f,
            "  because a machine refused: {} orders, {} elections, of processes that ran {}",
            signs.orders,
            signs.elections,
            signs.wrong.len()
        )?;
        let Audit { deadman, stopped, .. } = self.audit;
        let failed = self.starts_failed;
        writeln!(
            f,
            "  ended by their dead-man: {deadman}, nodes that stopped: {stopped}, starts that failed: {failed}"
        )?;
        writeln!(f, "  locks that passed on by a proof: {}", self.audit.passed_on_by_proof)?;
        writeln!(f, "  stalls of the machine itself: {}", self.stalls)?;
        writeln!(f, "  hosts without an excuse: {:.0} s, together", self.judged.as_secs_f64())?;
        writeln!(f, "  all well again after {:.1} s", self.mended_after.as_secs_f64())?;
        let Audit { calls, acknowledged, unknown, .. } = self.audit;
        writeln!(f, "  {calls} calls: {acknowledged} writes acknowledged, {unknown} writes with an unknown outcome")?;
        let all = self.violations().len();
        writeln!(f, "  overlaps {}, lost writes {}, violations {all}", ledger.overlaps.len(), lost.len())
    }
}
