//! The director: one cluster for each pace, the story played on it, and the audits of what is left of it.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};

use crate::audit::{Audit, LeaseAudit};
use crate::stage::Stage;
use crate::table::Run;
use crate::{Options, ledger, story, table};

/// How a story came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Well,
    /// It could not be played to its end.
    Unplayed,
    /// Two owners, two leases at once, or a token that went back.
    Violated,
}

/// Plays the story at each pace, audits what was written whatever came of it, and says by the exit code what was found:
/// 0 all well, 1 two at once or a token that went back, 2 the story could not be played to its end.
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
        _ = terminate.recv() => Err(anyhow::anyhow!("asked to end")),
    };
    let nodes = stage.nodes();
    // The audits come after the last process has ended: nobody can add to what they read behind their back.
    let folder = stage.end().await?;
    let ledger = folder.path().join("ledger");
    run.audit = Audit::of(&ledger::read(&ledger)?, &ledger::read(&ledger::attempts(&ledger))?);
    // A node that was killed before it had opened its ledger never held or granted anything.
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
