//! The story: which faults happen in which order, and how the cluster recovers after each.
//!
//! ```text
//!   form ─▶ (show a fault ─▶ settle: heal links, fencers on, nodes back, worker runs)… ─▶ exchange a member
//! ```

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use quorate::Identity;

use crate::fault::Fault;
use crate::report::Report;
use crate::stage::{Actor, Stage};
use crate::table::Run;
use crate::{Options, kept, takeover};

/// How long the director waits for the worker to write, and for a node to return.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// How often a fault is tried when something else disturbs it.
const ATTEMPTS: u32 = 4;

/// The violation that must never happen.
#[derive(Debug)]
pub(crate) struct TwoOwners(pub(crate) String);

impl std::fmt::Display for TwoOwners {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "two owners at once: {}", self.0)
    }
}

impl std::error::Error for TwoOwners {}

pub(crate) async fn play(stage: &mut Stage, options: &Options, run: &mut Run) -> Result<()> {
    form(stage).await?;
    let faults = options.faults();
    for round in 1..=options.rounds {
        for fault in &faults {
            if options.rounds > 1 {
                stage.tell(&format!("round {round} of {}: {fault}", options.rounds));
            }
            show(stage, *fault, run).await?;
            settle(stage).await?;
        }
    }
    if options.exchanges() {
        exchange(stage).await?;
    }
    Ok(())
}

/// Something else happened during a fault, as it may on a busy machine, so the fault has to be shown again.
#[derive(Debug)]
pub(crate) struct Disturbed(pub(crate) String);

impl std::fmt::Display for Disturbed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Disturbed {}

/// Shows a fault, and shows it again if something else happened first.
async fn show(stage: &mut Stage, fault: Fault, run: &mut Run) -> Result<()> {
    for attempt in 1.. {
        let shown = match fault {
            Fault::Leader | Fault::Followers | Fault::Pair => {
                kept::kept(stage, fault).await.map(|kept| run.kept.push(kept))
            }
            Fault::Pause(percent) => kept::pause(stage, percent).await.map(|pause| run.pauses.push(pause)),
            _ => takeover::takeover(stage, fault).await.map(|takeover| run.takeovers.push(takeover)),
        };
        match shown {
            Err(error) if error.is::<Disturbed>() && attempt < ATTEMPTS => {
                stage.tell(&format!("{error}; trying again"))
            }
            done => return done,
        }
        settle(stage).await?;
    }
    Ok(())
}

async fn form(stage: &mut Stage) -> Result<()> {
    stage.tell("three processes are started: n1 founds a cluster, n2 and n3 join it, each behind a relay");
    stage.start(1, "found").await?;
    stage.wait(0, "n1 founds the cluster", |r| r.is("joined") && r.node == 1).await?;
    for node in [2, 3] {
        let seeds = stage.addresses();
        stage.start(node, &seeds).await?;
        let who = format!("n{node}#1");
        stage.wait(0, &format!("{who} is activated"), |r| r.is("activated") && r.text("who") == who).await?;
    }
    let worker = at_work(stage).await?;
    stage.tell(&format!("all three vote; the worker runs on {worker}, bound to its lease, and writes to the ledger"));
    Ok(())
}

/// The lives that may work, in the order of their activation. The first owns the work.
pub(crate) fn queue(stage: &Stage) -> Result<Vec<Identity>> {
    let mut queue: Vec<Identity> = vec![];
    for report in stage.heard.iter().filter(|r| r.is("activated")) {
        let who = report.text("who").parse()?;
        // A node that returns reports every event again.
        if !queue.contains(&who) {
            queue.push(who);
        }
    }
    queue.retain(|who| !has_ended(stage, *who));
    Ok(queue)
}

fn has_ended(stage: &Stage, who: Identity) -> bool {
    stage.heard.iter().any(|r| r.tells("fenced", who) || r.tells("left", who))
}

fn is_ordered(stage: &Stage, who: Identity) -> bool {
    stage.heard.iter().any(|r| r.tells("ordered", who))
}

/// The node that was activated as leader last.
pub(crate) fn leader(stage: &Stage) -> Option<u64> {
    let activation = |r: &Report| r.line["activation"].as_u64();
    let last = stage.heard.iter().filter(|r| r.is("leads")).max_by_key(|r| activation(r))?;
    last.text("node").strip_prefix('n')?.parse().ok()
}

/// Waits until the worker has written three new lines. Returns its owner.
pub(crate) async fn at_work(stage: &mut Stage) -> Result<Identity> {
    let (begun, before) = (Instant::now(), stage.written()?.len());
    loop {
        stage.listen()?;
        let owner = queue(stage)?.first().copied();
        let ordered = owner.is_some_and(|owner| is_ordered(stage, owner));
        let fresh = stage.written()?.get(before..).unwrap_or_default();
        if let Some(owner) = owner
            && !ordered
            && fresh.iter().rev().take_while(|line| line.owner == owner).count() >= 3
        {
            return Ok(owner);
        }
        ensure!(begun.elapsed() < TIMEOUT, "the worker of {owner:?} writes nothing");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Makes `node` the leader.
pub(crate) async fn let_lead(stage: &mut Stage, node: u64) -> Result<()> {
    let (begun, mut said) = (Instant::now(), String::new());
    let config = stage.pace().config()?;
    loop {
        stage.listen()?;
        let leader = leader(stage).context("a node leads")?;
        if leader == node {
            return Ok(());
        }
        let actor = stage.actors.get(&node).context("it was started")?;
        let (age, who) = (actor.started.elapsed(), actor.who.filter(|_| !actor.ended));
        if who.is_none_or(|who| has_ended(stage, who) || is_ordered(stage, who)) {
            bail!(Disturbed(format!("n{node} should lead, but has ended")));
        }
        ensure!(begun.elapsed() < TIMEOUT, "n{node} does not become leader; the last answer of n{leader} was `{said}`");
        // During its embargo after a start, a node neither votes nor takes leadership over.
        let embargo = config.embargo() + config.heartbeat() * 2;
        tokio::time::sleep(embargo.saturating_sub(age)).await;
        let from = stage.heard.len();
        stage.order(leader, &format!("lead n{node}")).await?;
        let handed = |r: &Report| r.is("handed over") || r.is("leads") || r.is("ended");
        said = stage.wait(from, "leadership is handed over", handed).await?.text("text").into();
        tokio::time::sleep(config.heartbeat()).await;
    }
}

/// Switches the fencers of all nodes off or on. Waits until they are off.
pub(crate) async fn fencers(stage: &mut Stage, state: &str) -> Result<()> {
    stage.listen()?;
    let running: Vec<u64> = stage.actors.iter().filter(|(_, a)| !a.ended).map(|(node, _)| *node).collect();
    let from = stage.heard.len();
    for node in &running {
        let told = stage.order(*node, &format!("fencer {state}")).await;
        if state == "off" {
            told?;
            let node = *node;
            stage.wait(from, "the fencers are switched off", |r| r.is("fencer") && r.node == node).await?;
        }
    }
    Ok(())
}

/// Heals every link, switches the fencers on, and restarts lost nodes, until every node is active and the worker runs.
async fn settle(stage: &mut Stage) -> Result<()> {
    stage.relays.lighten();
    fencers(stage, "on").await?;
    loop {
        for node in stage.actors.keys().copied().collect::<Vec<_>>() {
            bring_back(stage, node).await?;
        }
        at_work(stage).await?;
        // Leave time for conclusions about the nodes that returned, and until each may vote again.
        let config = stage.pace().config()?;
        let youngest = stage.actors.values().map(|actor| actor.started.elapsed()).min().unwrap_or_default();
        let embargo = (config.embargo() + config.heartbeat() * 2).saturating_sub(youngest);
        tokio::time::sleep(embargo.max(config.heartbeat() * 2)).await;
        stage.listen()?;
        let well = |actor: &Actor| !actor.ended && actor.who.is_some_and(|who| !is_ordered(stage, who));
        if stage.actors.values().all(well) {
            stage.expect_nothing();
            return Ok(());
        }
    }
}

async fn bring_back(stage: &mut Stage, node: u64) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < TIMEOUT {
        stage.listen()?;
        let actor = stage.actors.get(&node).context("it was started")?;
        let (group, ended) = (i64::from(actor.group), actor.ended);
        match actor.who {
            _ if ended => {
                let from = stage.heard.len();
                stage.start(node, "resume").await?;
                let joined = |r: &Report| (r.is("joined") || r.is("ended")) && r.node == node;
                stage.wait(from, &format!("n{node} returns"), joined).await?;
            }
            Some(who) if has_ended(stage, who) => {
                let ends = |r: &Report| r.is("ended") && r.line["group"].as_i64() == Some(group);
                stage.wait(0, &format!("{who}'s process ends"), ends).await?;
            }
            Some(who) if is_ordered(stage, who) => {
                let ends = |r: &Report| r.tells("fenced", who) || r.tells("left", who);
                stage.wait(0, &format!("the end of {who} is proved"), ends).await?;
            }
            Some(who) => {
                let settled = |r: &Report| r.tells("activated", who) || r.tells("ordered", who);
                stage.wait(0, &format!("{who} catches up"), settled).await?;
                if !is_ordered(stage, who) {
                    return Ok(());
                }
            }
            None => {
                let joined = |r: &Report| (r.is("joined") || r.is("ended")) && r.node == node;
                let from = stage.heard.len();
                stage.wait(from, &format!("n{node} joins"), joined).await?;
            }
        }
    }
    bail!("n{node} does not return")
}

async fn exchange(stage: &mut Stage) -> Result<()> {
    let (working, from) = (at_work(stage).await?, stage.heard.len());
    let out = working.node.get() % 3 + 1;
    let other = out % 3 + 1;
    stage.tell(&format!("n{out} leaves the cluster, and n4 takes its place"));
    stage.order(out, "leave").await?;
    stage.wait(from, &format!("n{out} leaves"), |r| r.is("ended") && r.node == out).await?;
    stage.order(other, &format!("remove n{out}")).await?;
    let gone = format!("n{out}");
    stage.wait(from, &format!("{gone} is removed"), |r| r.is("out") && r.text("node") == gone).await?;
    let seeds = stage.addresses();
    stage.start(4, &seeds).await?;
    stage.wait(from, "n4 has its vote", |r| r.is("activated") && r.text("who") == "n4#1").await?;
    let voters = stage.heard.iter().rfind(|r| r.is("configured")).map(|r| r.text("text").to_string());
    stage.tell(&format!("n4#1 votes: {}", voters.unwrap_or_default()));
    let owner = at_work(stage).await?;
    stage.tell(&format!("the worker on {owner} ran throughout"));
    Ok(())
}
