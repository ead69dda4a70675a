//! The director: forms one cluster for each pace, runs the story on it, and audits what its processes wrote.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};

use crate::audit::{Audit, LeaseAudit};
use crate::stage::Stage;
use crate::table::Run;
use crate::{Options, ledger, story, table};

/// The result of a story.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Well,
    /// It did not finish.
    Unplayed,
    /// Two owners or two leases at once, or a token that decreased.
    Violated,
}

/// Runs the story at each pace, and audits what was written even if it failed. The exit code is 0 if all is well, 1 for
/// two owners or leases at once or a token that decreased, and 2 if the story did not finish.
pub(crate) fn main(options: &Options) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let (begun, mut runs, mut worst) = (Instant::now(), vec![], Verdict::Well);
        for pace in options.paces()? {
            let mut run = Run::new(pace);
            let verdict = play(options, &mut run, begun).await?;
            runs.push(run);
            worst = worst.max(verdict);
            if verdict != Verdict::Well {
                break;
            }
        }
        if options.rounds > 1 {
            table::print_rounds(&runs);
        }
        if let Some(file) = &options.json {
            table::write(file, &runs)?;
            println!("written to {}", file.display());
        }
        Ok(match worst {
            Verdict::Well => ExitCode::SUCCESS,
            Verdict::Violated => ExitCode::from(1),
            Verdict::Unplayed => ExitCode::from(2),
        })
    })
}

async fn play(options: &Options, run: &mut Run, begun: Instant) -> Result<Verdict> {
    let mut stage = Stage::new(run.pace, begun)?;
    let plan = *run.pace.timing()?.plan();
    let (name, lease, margin) = (run.pace.name(), plan.lease, plan.margin);
    stage.tell(&format!(
        "profile {name}: heartbeat {:.0?}, lease {lease:.0?}, notice {margin:.0?} before its end",
        plan.heartbeat
    ));
    let mut terminate = signal(SignalKind::terminate())?;
    let played = tokio::select! {
        played = story::play(&mut stage, options, run) => played,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow::anyhow!("terminated")),
    };
    let nodes = stage.nodes();
    // The audits come after the last process has ended, so no process can add to what they read.
    let folder = stage.end().await?;
    let ledger = folder.path().join("ledger");
    run.audit = Audit::of(&ledger::read(&ledger)?, &ledger::read(&ledger::attempts(&ledger))?);
    // A node that was killed before it opened its ledger never held or granted a lease.
    let folders = nodes.iter().map(|node| folder.path().join(format!("n{node}")));
    let folders: Vec<_> = folders.filter(|folder| folder.join("ledger").exists()).collect();
    run.leases = LeaseAudit::of(&folders)?;
    if options.rounds == 1 {
        table::print(run);
    }
    let Audit { lines, owners, overlaps, backwards } = run.audit;
    println!("ledger: {lines} lines of {owners} owners, {overlaps} overlaps, {backwards} tokens went backwards");
    println!("leases: {}", run.leases);
    let mut verdict = Verdict::Well;
    if !run.audit.clean() || !run.leases.clean() {
        verdict = Verdict::Violated;
    }
    for short in run.short() {
        println!("{short}");
        verdict = Verdict::Violated;
    }
    if let Err(error) = played {
        println!("the story ended early: {error:#}");
        verdict = verdict.max(if error.is::<story::TwoOwners>() { Verdict::Violated } else { Verdict::Unplayed });
    }
    Ok(verdict)
}
