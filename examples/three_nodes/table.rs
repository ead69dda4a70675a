//! The results of a run, printed as tables and written as JSON.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::audit::{Audit, LeaseAudit};
use crate::fault::Fault;
use crate::pace::Pace;

/// One takeover. Times in milliseconds from the moment of the fault.
#[derive(Debug, Clone)]
pub(crate) struct Takeover {
    pub(crate) fault: Fault,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) proof: String,
    pub(crate) detected: f64,
    /// When the old owner was notified that its lease runs out; `None` if it was not.
    pub(crate) lost: Option<f64>,
    /// The old owner's last line.
    pub(crate) last: f64,
    pub(crate) proved: f64,
    pub(crate) running: f64,
    /// From the old owner's last line to the new owner's first.
    pub(crate) gap: f64,
    /// Whether the old owner's daemon had ended by then.
    pub(crate) ended: bool,
}

/// A fault during which the work stayed with its owner. Times in milliseconds from the moment of the fault.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) fault: Fault,
    pub(crate) owner: String,
    /// The life that was fenced, and the kind of proof; empty if none was.
    pub(crate) fenced: String,
    pub(crate) proof: String,
    pub(crate) detected: Option<f64>,
    pub(crate) proved: Option<f64>,
    /// The longest time between two lines of the worker.
    pub(crate) longest: f64,
}

/// A pause of the owner, after which the work may be with it or with another node.
#[derive(Debug, Clone)]
pub(crate) struct Pause {
    pub(crate) percent: u32,
    pub(crate) from: String,
    pub(crate) to: String,
    /// Whether the owner's processes had ended before they could be continued.
    pub(crate) killed: bool,
    pub(crate) proof: Option<String>,
    pub(crate) gap: Option<f64>,
}

/// The results at one pace, and those of the audits.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) pace: Pace,
    pub(crate) takeovers: Vec<Takeover>,
    pub(crate) kept: Vec<Kept>,
    pub(crate) pauses: Vec<Pause>,
    pub(crate) audit: Audit,
    pub(crate) leases: LeaseAudit,
}

impl Run {
    pub(crate) fn new(pace: Pace) -> Self {
        let (audit, leases) = (Audit::default(), LeaseAudit::default());
        Self { pace, takeovers: vec![], kept: vec![], pauses: vec![], audit, leases }
    }

    /// Describes each gap between an old owner's last line and a new owner's first that is not positive.
    pub(crate) fn short(&self) -> impl Iterator<Item = String> {
        let takeovers = self.takeovers.iter().map(|t| (&t.from, &t.to, t.gap));
        let pauses = self.pauses.iter().filter_map(|p| Some((&p.from, &p.to, p.gap?)));
        let short = takeovers.chain(pauses).filter(|(_, _, gap)| *gap <= 0.0);
        short.map(|(from, to, gap)| format!("the gap between {from} and {to} is {gap:.3} ms: two owners at once"))
    }
}

const WIDTH: usize = 118;

fn or_blank(time: Option<f64>) -> String {
    time.map_or_else(|| "-".into(), |ms| format!("{ms:.0}"))
}

/// Prints the results of one round.
pub(crate) fn print(run: &Run) {
    let rule = "─".repeat(WIDTH);
    println!("\n{rule}");
    if !run.takeovers.is_empty() {
        println!(
            "{:<36} {:>6} {:>6}  {:<11} {:>9} {:>8} {:>9} {:>7} {:>8} {:>6}",
            "fault", "from", "to", "proof", "detected", "lost", "last line", "proved", "running", "gap"
        );
    }
    for t in &run.takeovers {
        println!(
            "{:<36} {:>6} {:>6}  {:<11} {:>9.0} {:>8} {:>9.0} {:>7.0} {:>8.0} {:>6.0}",
            t.fault.to_string(),
            t.from,
            t.to,
            t.proof,
            t.detected,
            or_blank(t.lost),
            t.last,
            t.proved,
            t.running,
            t.gap
        );
    }
    if !run.kept.is_empty() {
        println!(
            "{:<36} {:>6} {:>6}  {:<11} {:>9} {:>8} {:>9} {:>7} {:>15}",
            "the work stays", "owner", "fenced", "proof", "detected", "", "", "proved", "longest silence"
        );
    }
    for k in &run.kept {
        let fenced = if k.fenced.is_empty() { "-" } else { &k.fenced };
        let proof = if k.proof.is_empty() { "-" } else { &k.proof };
        println!(
            "{:<36} {:>6} {:>6}  {:<11} {:>9} {:>8} {:>9} {:>7} {:>15.0}",
            k.fault.to_string(),
            k.owner,
            fenced,
            proof,
            or_blank(k.detected),
            "",
            "",
            or_blank(k.proved),
            k.longest
        );
    }
    for p in &run.pauses {
        let end = if p.killed { "dead before it was continued" } else { "continued" };
        let proof = p.proof.as_deref().unwrap_or("-");
        let fault = Fault::Pause(p.percent).to_string();
        println!("{fault:<36} {:>6} {:>6}  {proof:<11} {end}, gap {}", p.from, p.to, or_blank(p.gap));
    }
    println!(
        "{:>WIDTH$}",
        "milliseconds from the fault; lost: notice to the old owner; gap: its last line to the new owner's first"
    );
    println!("{rule}");
}

/// Prints the median and the worst of each fault at each pace.
pub(crate) fn print_rounds(runs: &[Run]) {
    let rule = "─".repeat(WIDTH);
    println!("\n{rule}");
    println!(
        "{:<36} {:>9} {:>6} {:>15} {:>15} {:>15} {:>15}",
        "fault (median / worst, ms)", "profile", "rounds", "detected", "proved", "running", "gap (smallest)"
    );
    for run in runs {
        let mut faults: Vec<Fault> = vec![];
        for takeover in &run.takeovers {
            if !faults.contains(&takeover.fault) {
                faults.push(takeover.fault);
            }
        }
        for fault in faults {
            let of = |time: fn(&Takeover) -> f64| {
                let mut times: Vec<f64> = run.takeovers.iter().filter(|t| t.fault == fault).map(time).collect();
                times.sort_by(f64::total_cmp);
                times
            };
            let both = |times: Vec<f64>| format!("{:.0} / {:.0}", times[times.len() / 2], times[times.len() - 1]);
            let gaps = of(|t| t.gap);
            println!(
                "{:<36} {:>9} {:>6} {:>15} {:>15} {:>15} {:>15}",
                fault.to_string(),
                run.pace.name(),
                gaps.len(),
                both(of(|t| t.detected)),
                both(of(|t| t.proved)),
                both(of(|t| t.running)),
                format!("{:.0} ({:.1})", gaps[gaps.len() / 2], gaps[0])
            );
        }
    }
    println!("{rule}");
}

/// Writes the results as JSON.
pub(crate) fn write(file: &Path, runs: &[Run]) -> Result<()> {
    let rows = |of: fn(&Run) -> Vec<Value>| {
        let with_profile = |run: &Run| {
            let name = run.pace.name();
            of(run).into_iter().map(move |mut row| {
                row["profile"] = name.clone().into();
                row
            })
        };
        runs.iter().flat_map(with_profile).collect::<Vec<_>>()
    };
    let sum = |of: fn(&Run) -> usize| runs.iter().map(of).sum::<usize>();
    let all = json!({
        "takeovers": rows(|run| run.takeovers.iter().map(takeover).collect()),
        "kept": rows(|run| run.kept.iter().map(kept).collect()),
        "pauses": rows(|run| run.pauses.iter().map(pause).collect()),
        "overlaps": sum(|run| run.audit.overlaps),
        "tokens_backwards": sum(|run| run.audit.backwards),
        "lease_violations": sum(|run| run.leases.violations()),
        "lease_audit_incomplete": sum(|run| run.leases.incomplete()),
        "lease_smallest_gap_ms": runs.iter().filter_map(|run| run.leases.smallest_gap()).reduce(f64::min).map(rounded),
    });
    std::fs::write(file, format!("{all:#}\n")).with_context(|| format!("writing {}", file.display()))
}

fn rounded(ms: f64) -> f64 {
    (ms * 1000.0).round() / 1000.0
}

fn takeover(t: &Takeover) -> Value {
    json!({
        "fault": t.fault.to_string(), "key": t.fault.key(), "from": t.from, "to": t.to, "proof": t.proof,
        "detected_ms": rounded(t.detected), "proved_ms": rounded(t.proved), "running_ms": rounded(t.running),
        "loss_ms": rounded(t.lost.unwrap_or(t.last)), "notice_ms": t.lost.map(rounded),
        "last_line_ms": rounded(t.last), "gap_ms": rounded(t.gap),
        "daemon_ended": t.ended,
    })
}

fn kept(k: &Kept) -> Value {
    json!({
        "fault": k.fault.to_string(), "key": k.fault.key(), "owner": k.owner, "fenced": k.fenced, "proof": k.proof,
        "detected_ms": k.detected.map(rounded), "proved_ms": k.proved.map(rounded),
        "longest_silence_ms": rounded(k.longest),
    })
}

fn pause(p: &Pause) -> Value {
    json!({
        "leases": f64::from(p.percent) / 100.0, "from": p.from, "to": p.to, "killed": p.killed, "proof": p.proof,
        "gap_ms": p.gap.map(rounded),
    })
}
