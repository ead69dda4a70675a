//! The story: what is done to the cluster, in order, and what is waited for.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use quorate::Identity;

use crate::director::{Report, Stage};
use crate::table::Takeover;
use crate::{Options, ledger};

/// What befalls an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Its whole process group is killed: daemon and worker.
    Crash,
    /// Its daemon alone is killed; the worker goes on writing until the fencer ends it.
    DaemonDies,
    /// Nothing: the work is handed over by plan.
    HandOver,
}

impl Fault {
    const fn name(self) -> &'static str {
        match self {
            Self::Crash => "kill -9 daemon and worker",
            Self::DaemonDies => "kill -9 daemon, worker left",
            Self::HandOver => "hand-over by plan",
        }
    }
}

/// What must never be seen.
#[derive(Debug)]
pub(crate) struct TwoOwners(String);

impl std::fmt::Display for TwoOwners {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "two owners at once: {}", self.0)
    }
}

impl std::error::Error for TwoOwners {}

pub(crate) async fn play(stage: &mut Stage, options: &Options, takeovers: &mut Vec<Takeover>) -> Result<()> {
    form(stage).await?;
    for round in 1..=options.rounds {
        let all = [Fault::Crash, Fault::DaemonDies, Fault::HandOver];
        for fault in all.into_iter().filter(|fault| !options.only_crashes || *fault != Fault::HandOver) {
            if options.rounds > 1 {
                stage.tell(&format!("round {round} of {}: {}", options.rounds, fault.name()));
            }
            takeovers.push(takeover(stage, fault).await?);
        }
    }
    if !options.only_crashes {
        exchange(stage).await?;
    }
    Ok(())
}

async fn form(stage: &mut Stage) -> Result<()> {
    stage.tell("three processes are started: n1 founds a cluster, n2 and n3 join it");
    stage.start(1, "found")?;
    stage.wait(0, "n1 founds the cluster", |r| r.is("joined") && r.node == 1).await?;
    for node in [2, 3] {
        let seeds = stage.addresses();
        stage.start(node, &seeds)?;
        let who = format!("n{node}#1");
        stage.wait(0, &format!("{who} is activated"), |r| r.is("activated") && r.text("who") == who).await?;
    }
    let worker = owner(stage).await?;
    stage.tell(&format!("all three vote; the worker runs on {worker} and writes to the ledger"));
    Ok(())
}

/// The life that started a worker last.
async fn owner(stage: &mut Stage) -> Result<Identity> {
    stage.wait(0, "a worker is started", |r| r.is("worker")).await?;
    let last = stage.heard.iter().rfind(|r| r.is("worker")).context("a worker was started")?;
    Ok(last.text("who").parse()?)
}

fn since(fault: u64, at: u64) -> f64 {
    (at as f64 - fault as f64) / 1e6
}

async fn takeover(stage: &mut Stage, fault: Fault) -> Result<Takeover> {
    let old = owner(stage).await?;
    let (node, name, from) = (old.node.get(), old.to_string(), stage.heard.len());
    let group = stage.group_of(node)?;
    let about = |kind: &'static str| {
        let name = name.clone();
        move |r: &Report| r.is(kind) && r.text("who") == name
    };
    // The owner has really been at work.
    let before = ledger::read(&stage.ledger())?.len();
    wait_for_lines(stage, before + 3, old).await?;
    let (at, end) = match fault {
        Fault::Crash => {
            stage.tell(&format!("{name}: kill -9 to its whole process group"));
            (stage.kill_all_of(node)?, "fenced")
        }
        Fault::DaemonDies => {
            stage.tell(&format!("{name}: kill -9 to the daemon alone; its worker writes on, nobody watches it"));
            (stage.kill_daemon_of(node)?, "fenced")
        }
        Fault::HandOver => {
            stage.tell(&format!("{name}: is told to leave; it stops its worker, and only then says so"));
            let at = crate::process::monotonic_ns();
            stage.order(node, "leave").await?;
            (at, "left")
        }
    };
    let detected = match fault {
        Fault::Crash | Fault::DaemonDies => {
            let ordered = stage.wait(from, "the others notice", about("ordered")).await?;
            stage.tell(&format!("the majority has ordered: {}", ordered.text("text")));
            ordered.at()
        }
        Fault::HandOver => at,
    };
    let ended = stage.wait(from, &format!("{name} is proved to have ended"), about(end)).await?;
    stage.tell(ended.text("text"));
    let started = stage.wait(from, "another takes the worker over", |r| r.is("worker")).await?;
    let new: Identity = started.text("who").parse()?;
    ensure!(new != old, "{new} has taken over from itself");
    // Not by what anybody says: of the old owner's worker nothing may run any more. (A daemon that was told to leave may
    // still be saying goodbye.)
    if fault != Fault::HandOver {
        let left = crate::process::members(group)?;
        if !left.is_empty() {
            bail!(TwoOwners(format!("{new} has taken over while processes {left:?} of {name} still ran")));
        }
    }
    let (last, first) = wait_for_first_line(stage, old, new).await?;
    stage.tell(&format!("the worker runs on {new}, {:.0} ms after the fault", since(at, first)));
    // The lost node comes back, as another life.
    stage.wait(from, &format!("{name}'s process ends"), |r| r.is("ended") && r.node == node).await?;
    stage.start(node, "resume")?;
    let back = stage.wait(from, "it comes back", |r| r.is("joined") && r.node == node).await?;
    let life = back.text("who").to_string();
    stage.wait(from, &format!("{life} catches up"), |r| r.is("activated") && r.text("who") == life).await?;
    stage.tell(&format!("n{node} is back as {life} and has caught up"));
    Ok(Takeover {
        fault: fault.name(),
        from: name,
        to: new.to_string(),
        proof: ended.text("proof").into(),
        detected: since(at, detected),
        proved: since(at, ended.at()),
        running: since(at, first),
        gap: since(last, first),
    })
}

async fn wait_for_lines(stage: &Stage, count: usize, owner: Identity) -> Result<()> {
    for _ in 0..3000 {
        let lines = ledger::read(&stage.ledger())?;
        if lines.len() >= count && lines.last().is_some_and(|line| line.owner == owner) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    anyhow::bail!("the worker of {owner} writes nothing")
}

/// The last attempt of the old owner to write and the first of the new one.
async fn wait_for_first_line(stage: &Stage, old: Identity, new: Identity) -> Result<(u64, u64)> {
    let attempts = ledger::attempts(&stage.ledger());
    for _ in 0..3000 {
        let lines = ledger::read(&attempts)?;
        let last = lines.iter().rfind(|line| line.owner == old).map(|line| line.at);
        let first = lines.iter().find(|line| line.owner == new).map(|line| line.at);
        if let (Some(last), Some(first)) = (last, first) {
            return Ok((last, first));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    anyhow::bail!("the worker of {new} writes nothing")
}

async fn exchange(stage: &mut Stage) -> Result<()> {
    let (working, from) = (owner(stage).await?.node.get(), stage.heard.len());
    let out = working % 3 + 1;
    let other = out % 3 + 1;
    stage.tell(&format!("n{out} leaves for good, and n4 takes its place"));
    stage.order(out, "leave").await?;
    stage.wait(from, &format!("n{out} leaves"), |r| r.is("ended") && r.node == out).await?;
    stage.order(other, &format!("remove n{out}")).await?;
    let gone = format!("n{out}");
    stage.wait(from, &format!("{gone} is removed"), |r| r.is("out") && r.text("node") == gone).await?;
    let seeds = stage.addresses();
    stage.start(4, &seeds)?;
    stage.wait(from, "n4 has its vote", |r| r.is("activated") && r.text("who") == "n4#1").await?;
    let voters = stage.heard.iter().rfind(|r| r.is("configured")).map(|r| r.text("text").to_string());
    stage.tell(&format!("n4#1 votes: {}", voters.unwrap_or_default()));
    let before = ledger::read(&stage.ledger())?.len();
    let owner = owner(stage).await?;
    wait_for_lines(stage, before + 3, owner).await?;
    stage.tell(&format!("the worker on {owner} went on all the while"));
    Ok(())
}
