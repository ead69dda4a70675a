//! What the run found: a table for people, JSON for machines.

use anyhow::{Context, Result};
use serde_json::json;

use crate::audit::Audit;

/// One takeover. Times in milliseconds from the moment of the fault.
#[derive(Debug, Clone)]
pub(crate) struct Takeover {
    pub(crate) fault: &'static str,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) proof: String,
    pub(crate) detected: f64,
    pub(crate) proved: f64,
    pub(crate) running: f64,
    /// From the old owner's last line to the new owner's first.
    pub(crate) gap: f64,
}

/// Prints the takeovers; of many rounds, median and worst for each kind of fault.
pub(crate) fn print(takeovers: &[Takeover], rounds: u32) {
    let rule = "─".repeat(96);
    println!("\n{rule}");
    if rounds == 1 {
        println!(
            "{:<30} {:>6} {:>6}  {:<12} {:>9} {:>8} {:>9} {:>8}",
            "fault", "from", "to", "proof", "detected", "proved", "running", "gap"
        );
        for t in takeovers {
            println!(
                "{:<30} {:>6} {:>6}  {:<12} {:>9.0} {:>8.0} {:>9.0} {:>8.0}",
                t.fault, t.from, t.to, t.proof, t.detected, t.proved, t.running, t.gap
            );
        }
        println!("{:>96}", "milliseconds from the fault; gap: old owner's last line to new owner's first");
    } else {
        println!(
            "{:<30} {:>6} {:>18} {:>18} {:>18}",
            "fault (median / worst, ms)", "rounds", "detected", "proved", "running"
        );
        let mut faults: Vec<&str> = takeovers.iter().map(|t| t.fault).collect();
        faults.sort_unstable();
        faults.dedup();
        for fault in faults {
            let of = |time: fn(&Takeover) -> f64| {
                let mut times: Vec<f64> = takeovers.iter().filter(|t| t.fault == fault).map(time).collect();
                times.sort_by(f64::total_cmp);
                let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
                format!("{median:.0} / {worst:.0}")
            };
            let count = takeovers.iter().filter(|t| t.fault == fault).count();
            println!(
                "{fault:<30} {count:>6} {:>18} {:>18} {:>18}",
                of(|t| t.detected),
                of(|t| t.proved),
                of(|t| t.running)
            );
        }
    }
    println!("{rule}");
}

/// Writes the run for machines.
pub(crate) fn write(file: &std::path::Path, takeovers: &[Takeover], audit: &Audit) -> Result<()> {
    let rounded = |ms: f64| (ms * 1000.0).round() / 1000.0;
    let rows: Vec<_> = takeovers
        .iter()
        .map(|t| {
            json!({
                "fault": t.fault, "from": t.from, "to": t.to, "proof": t.proof,
                "detected_ms": rounded(t.detected), "proved_ms": rounded(t.proved),
                "running_ms": rounded(t.running), "gap_ms": rounded(t.gap),
            })
        })
        .collect();
    let all = json!({ "takeovers": rows, "overlaps": audit.overlaps, "tokens_backwards": audit.backwards });
    std::fs::write(file, format!("{all:#}\n")).with_context(|| format!("writing {}", file.display()))
}
