//! A process that ends is fenced at once, if a device can tell its lives apart; a firewall in its name gets nobody fenced.

use quorate::fencing::Cause;
use quorate::lease::Stop;
use quorate::testing::sim::{End, Observation};
use quorate::{Config, Event, NodeId};
use tokio::time::Instant;

use crate::calm::{Done, device_story, leader, ms, standard};
use crate::story::Story;

/// A cluster whose device does or does not tell lives apart, and one of its followers.
async fn formed(seed: u64, apart: bool) -> Result<(Story, NodeId), String> {
    let config = Config { fencer_tells_lives_apart: apart, ..standard() };
    let mut story = device_story(seed, config, Some(Stop::Deadman { lateness: ms(250) }));
    story.returns_after = Some(ms(60_000));
    story.form().await?;
    // Each has renewed its lease with the leader, so it holds a connection to it.
    story.run_for(ms(1000)).await?;
    story.kept.clear();
    let led = leader(&story);
    let follower = story.world.nodes().into_iter().find(|node| Some(*node) != led).unwrap_or_default();
    Ok((story, follower))
}

/// Why an order was committed against `node`, if one was.
fn ordered(story: &Story, node: NodeId) -> Option<Cause> {
    let applied = story.kept.iter().filter_map(|entry| match &entry.seen {
        Observation::Applied { answer: Ok(events), .. } => Some(events),
        _ => None,
    });
    applied.flatten().find_map(|event| match event {
        Event::FenceOrdered { target, cause, .. } if target.node == node => Some(cause.clone()),
        _ => None,
    })
}

/// The process of a follower, or of the leader, is killed. An order stands long before its silence would ask for one.
pub(crate) async fn a_process_that_ends_is_fenced_at_once(seed: u64) -> Done {
    let (mut story, follower) = formed(seed, true).await?;
    let hit = if seed.is_multiple_of(2) { follower } else { leader(&story).unwrap_or_default() };
    let bound = story.plan.config.fence_after() / 4;
    let began = Instant::now();
    story.world.end(hit, End::Killed);
    while ordered(&story, hit).is_none() {
        if began.elapsed() > bound {
            return Err(format!("violated: no order against {hit} {bound:?} after its process ended"));
        }
        story.run_for(ms(2)).await?;
    }
    println!("seed {seed}: an order against {hit} after {:?}", began.elapsed());
    match ordered(&story, hit) {
        Some(Cause::Refused) => story.heal().await,
        other => Err(format!("violated: the cause is that its machine refuses: {other:?}")),
    }
}

/// A firewall closes every connection to a follower and refuses new ones. Its own calls pass, so it runs: nobody fences it.
pub(crate) async fn a_firewall_in_the_name_of_a_node_gets_nobody_fenced(seed: u64) -> Done {
    let (mut story, behind) = formed(seed, true).await?;
    let others: Vec<NodeId> = story.world.nodes().into_iter().filter(|node| *node != behind).collect();
    others.into_iter().for_each(|other| story.world.net.reject(other, behind));
    story.run_for(ms(1200)).await?;
    match ordered(&story, behind) {
        Some(cause) => {
            Err(format!("violated: {behind} runs behind a firewall, and an order stands against it: {cause}"))
        }
        None => story.heal().await,
    }
}

/// A firewall between a follower and the leader closes all connections between the two, both ways. The other voter reaches the
/// follower: nobody fences it before its silence asks for that.
pub(crate) async fn a_firewall_between_a_node_and_its_leader_gets_nobody_fenced(seed: u64) -> Done {
    let (mut story, behind) = formed(seed, true).await?;
    let led = leader(&story).unwrap_or_default();
    story.world.net.reject(led, behind);
    story.world.net.reject(behind, led);
    story.run_for(ms(1200)).await?;
    match ordered(&story, behind) {
        Some(cause) => Err(format!("violated: the leader alone is refused by {behind}, and an order stands: {cause}")),
        None => story.heal().await,
    }
}

/// A process is killed and its service manager starts it again at once. A device that cannot tell its lives apart would power
/// the machine off under the new one: no order stands in that time.
pub(crate) async fn a_device_that_would_hit_the_next_life_waits_for_silence(seed: u64) -> Done {
    let (mut story, hit) = formed(seed, false).await?;
    let bound = story.plan.config.fence_after() / 2;
    story.world.end(hit, End::Killed);
    story.run_for(bound).await?;
    match ordered(&story, hit) {
        Some(cause) => {
            Err(format!("violated: {hit} may be starting again, and the device would power it off: {cause}"))
        }
        None => story.heal().await,
    }
}
