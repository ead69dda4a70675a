//! Faults after which the work stays where it is: the worker goes on, and whoever is fenced is not its owner.

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
use crate::takeover::{edges, since};

/// The leader is killed, or a link between two of the three is cut.
pub(crate) async fn kept(stage: &mut Stage, fault: Fault) -> Result<Kept> {
    at_work(stage).await?;
    let lives = queue(stage)?;
    let [owner, second, third] = lives[..] else {
        bail!(Disturbed(format!("{} lives instead of three", lives.len())));
    };
    let leads = if fault == Fault::Followers { owner } else { third };
    let_lead(stage, leads.node.get()).await?;
    if at_work(stage).await? != owner {
        bail!(Disturbed(format!("{owner} has lost the work while leadership was handed over")));
    }
    let from = stage.heard.len();
    let at = monotonic_ns();
    let fenced = match fault {
        Fault::Leader => {
            stage.tell(&format!("{third} leads and does not own the work: kill -9"));
            stage.signal_all_of(third.node.get(), Signal::KILL)?;
            Some(fenced(stage, from).await?)
        }
        Fault::Pair => {
            stage.tell(&format!(
                "the link between the leader {third} and {second} is cut; {owner} reaches both. Expected: {second} is \
                 fenced, for the leader cannot hear it; the worker goes on"
            ));
            for life in [second, third] {
                stage.doom(life.node.get())?;
            }
            stage.relays.darken(between(second.node.get(), third.node.get()));
            Some(fenced(stage, from).await?)
        }
        Fault::Followers => {
            stage.tell(&format!(
                "the link between {second} and {third} is cut; {owner} leads and reaches both. Expected: nothing happens"
            ));
            stage.relays.darken(between(second.node.get(), third.node.get()));
            tokio::time::sleep(stage.pace().timing()?.plan().lease).await;
            stage.listen()?;
            None
        }
        _ => bail!("{fault} does not leave the work where it is"),
    };
    let after = at_work(stage).await?;
    // A leader may have been changed meanwhile, and have been too busy to hear.
    let spared = |r: &Report| r.is("ordered") && (fault == Fault::Followers || r.text("who") == owner.to_string());
    if let Some(order) = stage.heard[from..].iter().find(|r| spared(r)) {
        bail!(Disturbed(format!("somebody whom the leader could reach was to be fenced: {}", order.text("text"))));
    }
    if after != owner {
        bail!(Disturbed(format!("{owner} has lost the work to {after}")));
    }
    let longest = longest_silence(stage, owner, at)?;
    stage.tell(&format!("the worker on {owner} went on all the while; its longest silence was {longest:.0} ms"));
    let (whom, proof) = fenced.as_ref().map_or(("", ""), |(end, _)| (end.text("who"), end.text("proof")));
    Ok(Kept {
        fault,
        owner: owner.to_string(),
        fenced: whom.into(),
        proof: proof.into(),
        detected: fenced.as_ref().map(|(_, ordered)| since(at, *ordered)),
        proved: fenced.as_ref().map(|(end, _)| since(at, end.at())),
        longest,
    })
}

/// The next life that is fenced, and when that was ordered.
async fn fenced(stage: &mut Stage, from: usize) -> Result<(Report, u64)> {
    let ordered = stage.wait(from, "somebody is ordered to be fenced", |r| r.is("ordered")).await?;
    stage.tell(&format!("the majority has ordered: {}", ordered.text("text")));
    let who: Identity = ordered.text("who").parse()?;
    let fenced = stage.wait(from, &format!("{who} is proved to have ended"), |r| r.tells("fenced", who)).await?;
    stage.tell(fenced.text("text"));
    Ok((fenced, ordered.at()))
}

/// Between two lines of the owner's worker from `at` on.
fn longest_silence(stage: &mut Stage, owner: Identity, at: u64) -> Result<f64> {
    let lines = stage.tried()?.iter().filter(|line| line.owner == owner && line.at >= at);
    let times: Vec<u64> = std::iter::once(at).chain(lines.map(|line| line.at)).collect();
    Ok(times.windows(2).map(|pair| since(pair[0], pair[1])).fold(0.0, f64::max))
}

/// The owner is stopped for so many percent of a lease, and continued.
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
        bail!(TwoOwners(format!("processes {left:?} of {owner} were left {longer:.0} ms after they had been stopped")));
    }
    // Whoever comes to work now: the same, or another after a proof.
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
