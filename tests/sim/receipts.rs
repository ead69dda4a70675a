//! A new leader does not begin every wait anew: the voters say when they heard of each life last.

use quorate::lease::Stop;
use quorate::testing::sim::{End, Observation};
use quorate::{Config, Event, NodeId, Profile};
use tokio::time::Instant;

use crate::calm::{Done, leader, ms, standard, story};
use crate::story::Story;

/// A cluster whose lives are ended by time alone, and its leader. `fast` has the fast profile.
async fn formed(seed: u64, fast: bool) -> Result<(Story, NodeId), String> {
    let (profile, lateness) = if fast { (Profile::Fast, ms(50)) } else { (Profile::Standard, ms(250)) };
    let config = Config { timing: profile.timing(), ..standard() };
    let mut story = story(seed, config, Some(Stop::Deadman { lateness }));
    story.form().await?;
    story.run_for(ms(2000)).await?;
    story.kept.clear();
    let led = leader(&story).unwrap_or_default();
    Ok((story, led))
}

/// Whether the end of a life of `node` was committed.
fn is_fenced(story: &Story, node: NodeId) -> bool {
    let applied = story.kept.iter().filter_map(|entry| match &entry.seen {
        Observation::Applied { answer: Ok(events), .. } => Some(events),
        _ => None,
    });
    applied.flatten().any(|event| matches!(event, Event::Fenced { who, .. } if who.node == node))
}

fn cut_off(story: &Story, node: NodeId) {
    let others: Vec<NodeId> = story.world.nodes().into_iter().filter(|other| *other != node).collect();
    others.into_iter().for_each(|other| story.world.net.cut(node, other));
}

/// The leader is cut off. Its end is proved as soon as that of any other member would be: the voters noted its renewals.
pub(crate) async fn the_wait_for_a_leader_that_is_cut_off_is_not_begun_anew(seed: u64) -> Done {
    let fast = seed.is_multiple_of(2);
    let (mut story, led) = formed(seed, fast).await?;
    let bound = if fast { ms(700) } else { ms(3400) };
    let began = Instant::now();
    cut_off(&story, led);
    while !is_fenced(&story, led) && began.elapsed() < bound * 3 {
        story.run_for(ms(2)).await?;
    }
    let took = began.elapsed();
    println!("seed {seed}: {led} is proved ended {took:?} after it was cut off");
    match took <= bound {
        true => story.heal().await,
        false => Err(format!("violated: {led} led, was cut off, and its end was proved after {took:?}, not {bound:?}")),
    }
}

/// The two other voters lose their memory, one after the other, and then the leader is cut off. What they do not know is as
/// new as their processes: nobody is ended too early (the judge of every world sees to it), and the end comes all the same.
pub(crate) async fn voters_that_lost_their_notes_end_nobody_too_early(seed: u64) -> Done {
    let fast = seed.is_multiple_of(2);
    let (mut story, _) = formed(seed, fast).await?;
    for _ in 0..2 {
        let led = leader(&story).unwrap_or_default();
        let hit = story.world.nodes().into_iter().find(|node| *node != led).unwrap_or_default();
        story.world.end(hit, End::Killed);
        story.run_for(ms(50 + seed % 7 * 100)).await?;
    }
    story.heal().await?;
    let led = leader(&story).unwrap_or_default();
    story.kept.clear();
    cut_off(&story, led);
    story.run_for(ms(8000)).await?;
    match is_fenced(&story, led) {
        true => story.heal().await,
        false => Err(format!("violated: {led} was cut off, and is not proved ended after 8 s")),
    }
}
