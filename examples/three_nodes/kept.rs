//! Faults after which the work stays with its owner: the worker continues, and a fenced node is never its owner.
//!
//! ```text
//!   kept    the leader is killed, or one link is cut ─▶ the owner's worker goes on writing
//!   pause   the owner is stopped and continued       ─▶ the worker runs here again, or elsewhere after a proof
//! ```

use anyhow::{Result, bail};
use quorate::Identity;
use rustix::process::Signal;

use crate::fault::Fault;
use crate::process::{self, monotonic_ns};
use crate::relay::between;
use crate::report::Report;
use crate::stage::Stage;
use crate::story::{Disturbed, TwoOwners, at_work, fencers, let_lead, queue};
use crate::table::{Kept, Pause};
use crate::takeover::{earliest, edges, since};

/// Kills the leader, or cuts the link between two of the three nodes. The work must stay with its owner.
pub(crate) async fn kept(stage: &mut Stage, fault: Fault) -> Result<Kept> {
    at_work(stage).await?;
    let lives = queue(stage)?;
    let [owner, second, third] = lives[..] else {
        bail!(Disturbed(format!("{} lives instead of three", lives.len())));
    };
    let leads = if fault == Fault::Followers { owner } else { third };
    let_lead(stage, leads.node.get()).await?;
    if at_work(stage).await? != owner {
        bail!(Disturbed(format!("{owner} lost the work while leadership was handed over")));
    }
    let from = stage.heard.len();
    let at = monotonic_ns();
    let fenced = strike(stage, fault, [owner, second, third], from).await?;
    let after = at_work(stage).await?;
    // The leader may have changed meanwhile, or have been too busy to hear a node.
    let spared = |r: &Report| r.is("ordered") && (fault == Fault::Followers || r.text("who") == owner.to_string());
    if let Some(order) = stage.heard[from..].iter().find(|r| spared(r)) {
        bail!(Disturbed(format!("a fence order against a node that the leader could reach: {}", order.text("text"))));
    }
    if after != owner {
        bail!(Disturbed(format!("{owner} lost the work to {after}")));
    }
    let longest = longest_silence(stage, owner, at)?;
    stage.tell(&format!("the worker on {owner} ran throughout; its longest silence was {longest:.0} ms"));
    let (target, proof) = fenced.as_ref().map_or(("", ""), |end| (end.text("who"), end.text("proof")));
    let first = |kind: &str| {
        earliest(stage, from, |r| r.is(kind) && r.text("who") == target).map(|reported| since(at, reported))
    };
    let (detected, proved) = (first("ordered"), first("fenced"));
    Ok(Kept { fault, owner: owner.to_string(), fenced: target.into(), proof: proof.into(), detected, proved, longest })
}

/// Inflicts the fault. Returns the end of the life that is fenced for it, if one is.
async fn strike(
    stage: &mut Stage,
    fault: Fault,
    [owner, second, third]: [Identity; 3],
    from: usize,
) -> Result<Option<Report>> {
    match fault {
        Fault::Leader => {
            stage.tell(&format!("{third} leads and does not own the work: kill -9"));
            stage.signal_all_of(third.node.get(), Signal::KILL)?;
            Ok(Some(fenced(stage, from).await?))
        }
        Fault::Pair => {
            stage.tell(&format!(
                "the link between the leader {third} and {second} is cut; {owner} reaches both. Expected: {second} is \
                 fenced, because the leader cannot hear it; the worker continues"
            ));
            for life in [second, third] {
                stage.doom(life.node.get())?;
            }
            stage.relays.darken(between(second.node.get(), third.node.get()));
            Ok(Some(fenced(stage, from).await?))
        }
        Fault::Followers => {
            stage.tell(&format!(
                "the link between {second} and {third} is cut; {owner} leads and reaches both. Expected: nothing happens"
            ));
            stage.relays.darken(between(second.node.get(), third.node.get()));
            tokio::time::sleep(stage.pace().timing()?.plan().lease).await;
            stage.listen()?;
            Ok(None)
        }
        _ => bail!("{fault} does not leave the work with its owner"),
    }
}

/// Waits for the next life that is fenced. Returns the report of its end that was heard first.
async fn fenced(stage: &mut Stage, from: usize) -> Result<Report> {
    let ordered = stage.wait(from, "a fence order is committed", |r| r.is("ordered")).await?;
    stage.tell(&format!("the majority has ordered: {}", ordered.text("text")));
    let who: Identity = ordered.text("who").parse()?;
    let fenced = stage.wait(from, &format!("the end of {who} is proved"), |r| r.tells("fenced", who)).await?;
    stage.tell(fenced.text("text"));
    Ok(fenced)
}

/// The longest time in milliseconds between two lines of the owner's worker, from `at` on.
fn longest_silence(stage: &mut Stage, owner: Identity, at: u64) -> Result<f64> {
    let lines = stage.tried()?.iter().filter(|line| line.owner == owner && line.at >= at);
    let times: Vec<u64> = std::iter::once(at).chain(lines.map(|line| line.at)).collect();
    Ok(times.windows(2).map(|pair| since(pair[0], pair[1])).fold(0.0, f64::max))
}

/// Stops the owner for `percent` percent of a lease, then continues it. No fencer reaches it meanwhile.
pub(crate) async fn pause(stage: &mut Stage, percent: u32) -> Result<Pause> {
    fencers(stage, "off").await?;
    let owner = at_work(stage).await?;
    let (node, lease) = (owner.node.get(), stage.pace().timing()?.plan().lease);
    let group = stage.doom(node)?;
    let length = lease * percent / 100;
    stage.tell(&format!("{owner}: SIGSTOP to daemon and worker for {length:?}, every fencer is switched off"));
    let stopped = stage.signal_all_of(node, Signal::STOP)?;
    tokio::time::sleep(length).await;
    let mut left = process::workers(group)?;
    left.extend(stage.groups.working(owner)?);
    let killed = left.is_empty();
    let continued = stage.signal_all_of(node, Signal::CONT)?;
    let longer = since(stopped, continued);
    if !killed && since(stopped, continued) >= 2.0 * lease.as_secs_f64() * 1e3 {
        bail!(TwoOwners(format!("processes {left:?} of {owner} still existed {longer:.0} ms after they were stopped")));
    }
    // The worker runs on the same owner, or on another one after a proof.
    let after = at_work(stage).await?;
    let gap = match after == owner {
        true => None,
        false => {
            let (last, first) = edges(stage, owner, after).await?;
            Some(since(last, first))
        }
    };
    let end = if killed { "dead before it was continued" } else { "continued" };
    stage.tell(&format!("{owner} was {end}; the worker runs on {after}"));
    let proof = stage.heard.iter().find(|r| r.tells("fenced", owner)).map(|r| r.text("proof").to_string());
    Ok(Pause { percent, from: owner.to_string(), to: after.to_string(), killed, proof, gap })
}
