//! One takeover: a fault of the owner, and what both sides observe until the worker runs elsewhere.
//!
//! ```text
//!   old owner   ──lines──┤ last line   ▲ lease lost: it stops the worker itself, if it can
//!                        ├──────────────── gap ─────────────────┤   must be positive
//!   the others      fault        ordered         proof          first line   ──lines──▶
//!                     ├─ detected ──┤               │               │
//!                     ├─ proved ────────────────────┤               │
//!                     └─ running ───────────────────────────────────┘
//! ```

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use quorate::Identity;
use rustix::process::Signal;

use crate::fault::Fault;
use crate::process::{self, monotonic_ns};
use crate::relay::between;
use crate::report::Report;
use crate::stage::Stage;
use crate::story::{TIMEOUT, TwoOwners, at_work, fencers, let_lead, queue};
use crate::table::Takeover;

/// Milliseconds from one instant to another.
pub(crate) fn since(earlier: u64, later: u64) -> f64 {
    (later as f64 - earlier as f64) / 1e6
}

/// When the first process reported what `wanted` accepts. The reports of several processes are heard in any order.
pub(crate) fn earliest(stage: &Stage, from: usize, wanted: impl Fn(&Report) -> bool) -> Option<u64> {
    stage.heard.get(from..)?.iter().filter(|report| wanted(report)).map(Report::at).min()
}

/// Every node but `node`.
pub(crate) fn others(stage: &Stage, node: u64) -> Vec<u64> {
    stage.actors.keys().copied().filter(|other| *other != node).collect()
}

pub(crate) async fn takeover(stage: &mut Stage, fault: Fault) -> Result<Takeover> {
    at_work(stage).await?;
    // For a fault that must not hit the leader, the last in the queue leads. The next owner is then another node.
    let first = *queue(stage)?.first().context("a life owns the work")?;
    match fault {
        Fault::CutLeadingAlone => let_lead(stage, first.node.get()).await?,
        Fault::Both | Fault::CutAlone | Fault::FreezeAlone | Fault::Block | Fault::Spin => {
            let last = *queue(stage)?.last().context("the queue has three lives")?;
            let_lead(stage, last.node.get()).await?;
        }
        _ => {}
    }
    if fault.is_alone() {
        fencers(stage, "off").await?;
    }
    let old = at_work(stage).await?;
    let from = stage.heard.len();
    let at = strike(stage, fault, old).await?;
    if fault != Fault::HandOver {
        let ordered = stage.wait(from, "a fence order is committed", |r| r.tells("ordered", old)).await?;
        stage.tell(&format!("the majority has ordered: {}", ordered.text("text")));
    }
    let ended = |r: &Report| r.tells("fenced", old) || r.tells("left", old);
    let end = stage.wait(from, &format!("the end of {old} is proved"), ended).await?;
    stage.tell(end.text("text"));
    let started = stage
        .wait(from, "another node starts the worker", |r| r.is("worker") && r.text("who") != old.to_string())
        .await?;
    let new: Identity = started.text("who").parse()?;
    check_nothing_left(stage, old, new, end.text("proof") == "device")?;
    let detected =
        earliest(stage, from, |r| r.tells("ordered", old)).filter(|_| fault != Fault::HandOver).unwrap_or(at);
    let proved = earliest(stage, from, ended).unwrap_or(end.at());
    let (last, first) = edges(stage, old, new).await?;
    let lost = stage.heard[from..].iter().find(|r| r.tells("lost", old)).map(|r| r.at());
    let ended = match stage.actors.get(&old.node.get()).filter(|actor| actor.who == Some(old)) {
        Some(actor) => process::workers(actor.group)?.is_empty(),
        None => true,
    };
    after(stage, fault, old, &Times { at, lost, last, first, detected, ended })?;
    stage.tell(&format!("the worker runs on {new}, {:.0} ms after the fault", since(at, first)));
    Ok(Takeover {
        fault,
        from: old.to_string(),
        to: new.to_string(),
        proof: end.text("proof").into(),
        detected: since(at, detected),
        lost: lost.map(|lost| since(at, lost)),
        last: since(at, last),
        proved: since(at, proved),
        running: since(at, first),
        gap: since(last, first),
        ended,
    })
}

/// Inflicts the fault. Returns when, in nanoseconds of CLOCK_MONOTONIC.
async fn strike(stage: &mut Stage, fault: Fault, old: Identity) -> Result<u64> {
    let node = old.node.get();
    match fault {
        Fault::Crash => {
            stage.tell(&format!("{old}: kill -9 to the process groups of its daemon and its worker"));
            stage.signal_all_of(node, Signal::KILL)
        }
        Fault::Daemon => {
            stage.tell(&format!("{old}: kill -9 to the daemon alone; its worker is bound to it"));
            stage.kill_daemon_of(node)
        }
        Fault::HandOver => {
            stage.tell(&format!("{old}: is told to leave; it stops its worker first, then commits that it has left"));
            let at = monotonic_ns();
            stage.order(node, "leave").await?;
            Ok(at)
        }
        Fault::Freeze => {
            stage.tell(&format!("{old}: SIGSTOP to daemon and worker"));
            stage.signal_all_of(node, Signal::STOP)
        }
        Fault::FreezeAlone => {
            stage.tell(&format!("{old}: SIGSTOP to daemon and worker, and every fencer is switched off"));
            stage.signal_all_of(node, Signal::STOP)
        }
        Fault::Cut => {
            stage.tell(&format!("{old}: cut off from both others; daemon and worker run on"));
            cut_off(stage, node)
        }
        Fault::CutAlone | Fault::CutLeadingAlone => {
            let leads = if fault == Fault::CutLeadingAlone { ", which leads" } else { "" };
            stage.tell(&format!("{old}{leads}: cut off from both others, and every fencer is switched off"));
            cut_off(stage, node)
        }
        Fault::Spin => {
            stage.tell(&format!("{old}: cut off, and spinning on all cores; every fencer is switched off"));
            let from = stage.heard.len();
            stage.order(node, "spin").await?;
            stage.wait(from, "it spins on all cores", |r| r.is("sick") && r.node == node).await?;
            cut_off(stage, node)
        }
        Fault::Block => {
            stage.tell(&format!("{old}: every thread of its runtime is blocked; every fencer is switched off"));
            let from = stage.heard.len();
            stage.doom(node)?;
            stage.order(node, "block").await?;
            Ok(stage.wait(from, "its runtime is blocked", |r| r.is("sick") && r.node == node).await?.at())
        }
        Fault::Both => {
            let led = queue(stage)?.last().context("a node leads")?.node.get();
            ensure!(led != node, "the owner is also the leader");
            stage.tell(&format!("{old} and the leader n{led}: kill -9 to both at once; no majority is left"));
            let at = stage.signal_all_of(node, Signal::KILL)?;
            stage.signal_all_of(led, Signal::KILL)?;
            let from = stage.heard.len();
            stage.wait(from, "the leader's process ends", |r| r.is("ended") && r.node == led).await?;
            stage.start(led, "resume").await?;
            stage.tell(&format!("n{led} is started again; with the third node there are two of three"));
            Ok(at)
        }
        Fault::Leader | Fault::Followers | Fault::Pair | Fault::Pause(_) => {
            bail!("{fault} does not take the work from its owner")
        }
    }
}

pub(crate) fn cut_off(stage: &mut Stage, node: u64) -> Result<u64> {
    stage.doom(node)?;
    let at = monotonic_ns();
    stage.relays.darken(others(stage, node).into_iter().flat_map(|other| between(node, other)));
    Ok(at)
}

/// Checks in `/proc`, not from reports: no process of the old owner's worker may run any more, and if a device has
/// proved its end, none of its daemon either.
fn check_nothing_left(stage: &Stage, old: Identity, new: Identity, device: bool) -> Result<()> {
    let mut left = stage.groups.working(old)?;
    if let Some(actor) = stage.actors.get(&old.node.get()).filter(|actor| device && actor.who == Some(old)) {
        left.extend(process::members(actor.group)?);
    }
    if !left.is_empty() {
        bail!(TwoOwners(format!("{new} has taken over while processes {left:?} of {old} still ran")));
    }
    Ok(())
}

/// When each thing was observed, in nanoseconds of CLOCK_MONOTONIC.
struct Times {
    at: u64,
    lost: Option<u64>,
    last: u64,
    first: u64,
    detected: u64,
    /// Whether the old owner's daemon had ended.
    ended: bool,
}

/// Reports what happened to the old owner.
fn after(stage: &mut Stage, fault: Fault, old: Identity, seen: &Times) -> Result<()> {
    let Times { at, lost, last, first, detected, ended } = *seen;
    let node = old.node.get();
    let (last_line, before) = (since(at, last), since(last, first));
    match fault {
        Fault::Daemon => {
            let (early, side) = (since(last, detected), if last_line < 0.0 { "before" } else { "after" });
            stage.tell(&format!(
                "its worker died with its daemon: last line {:.1} ms {side} the kill, {early:.0} ms before the fault was detected",
                last_line.abs()
            ));
        }
        Fault::Freeze | Fault::FreezeAlone => {
            stage.signal_all_of(node, Signal::CONT)?;
            stage.tell(&match (ended, fault) {
                (true, Fault::FreezeAlone) => {
                    format!("{old} was dead before it could be continued; its dead-man killed it while it was stopped")
                }
                (true, _) => format!("{old} was dead before it could be continued"),
                (false, _) => format!("{old} is continued"),
            });
        }
        Fault::CutAlone | Fault::CutLeadingAlone | Fault::Spin => {
            let lost = lost.map_or_else(
                || "it did not notice the end of its lease".into(),
                |lost| format!("its lease was lost after {:.0} ms", since(at, lost)),
            );
            let end = if ended { "its process was ended by its dead-man" } else { "its process still lives" };
            stage.tell(&format!(
                "{old}, without a device: {lost}, its worker stopped after {last_line:.0} ms, {before:.0} ms before the next one started; {end}"
            ));
        }
        Fault::Block => {
            let end = if ended { "was killed by its dead-man" } else { "still runs" };
            stage.tell(&format!("{old}, blocked: {end}; the worker's last line {last_line:.0} ms after the block"));
        }
        _ => {}
    }
    Ok(())
}

/// The times of the old owner's last attempt to write and of the new owner's first.
pub(crate) async fn edges(stage: &mut Stage, old: Identity, new: Identity) -> Result<(u64, u64)> {
    let begun = Instant::now();
    loop {
        let lines = stage.tried()?;
        let last = lines.iter().rfind(|line| line.owner == old).map(|line| line.at);
        let first = lines.iter().find(|line| line.owner == new).map(|line| line.at);
        if let (Some(last), Some(first)) = (last, first) {
            return Ok((last, first));
        }
        ensure!(begun.elapsed() < TIMEOUT, "the worker of {new} writes nothing");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
