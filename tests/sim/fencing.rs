//! Small worlds with one lost node in them: who fences it, how soon, and what becomes of it when it comes back.

use std::collections::BTreeSet;

use quorate::testing::sim::{End, Observation, TraceEntry};
use quorate::{Config, Event, NodeId, lease::Stop};
use tokio::time::Instant;

use crate::calm::{Done, device_story, leader, ms, standard, story};
use crate::story::Story;

/// A process that is killed and started again at once, where only a device proves ends: the device takes the new process with
/// the former life, once, and then all is well.
pub(crate) async fn who_comes_back_is_not_shot_again_and_again(seed: u64) -> Done {
    let mut story = story(seed, standard(), None);
    story.returns_after = Some(ms(300));
    // Long enough for the new process to have the whole log: it waits for nothing but the end of the former one.
    story.world.device.set_pace(ms(600), ms(900));
    story.form().await?;
    story.kept.clear();
    let hit = story.world.nodes().into_iter().find(|node| Some(*node) != leader(&story)).unwrap_or_default();
    story.world.end(hit, End::Killed);
    story.run_for(ms(20_000)).await?;
    let shot = |entry: &TraceEntry| matches!(entry.seen, Observation::Ended { how: End::PowerCut });
    let shots = std::mem::take(&mut story.kept).iter().filter(|entry| shot(entry)).count();
    if shots > 2 {
        return Err(format!("violated: {hit} was powered off {shots} times in 20 s"));
    }
    story.heal().await
}

/// Forms a cluster, cuts its leader off from the device, and kills another node. Returns the two.
async fn kill_beside_a_leader_without_a_device(story: &mut Story) -> Result<(NodeId, NodeId), String> {
    story.form().await?;
    story.kept.clear();
    let from = leader(story).unwrap_or_default();
    let dead = story.world.nodes().into_iter().find(|node| *node != from).unwrap_or_default();
    story.world.device.cut_off([from]);
    story.world.end(dead, End::Killed);
    Ok((from, dead))
}

/// The device cannot be reached from the leader, and a node is dead. After three failed attempts another member leads, from
/// which it can be reached, and the dead one is fenced.
pub(crate) async fn an_order_moves_to_who_reaches_the_device(seed: u64) -> Done {
    let mut story = device_story(seed, standard(), None);
    story.returns_after = Some(ms(25_000));
    let (from, dead) = kill_beside_a_leader_without_a_device(&mut story).await?;
    story.run_for(ms(20_000)).await?;
    let (mut attempts, mut fenced) = (BTreeSet::new(), false);
    for entry in std::mem::take(&mut story.kept) {
        let Observation::Applied { answer: Ok(events), .. } = &entry.seen else { continue };
        for event in events {
            match event {
                Event::FenceStarted { by, attempt, .. } => drop(attempts.insert((*attempt, *by))),
                Event::Fenced { who, .. } => fenced |= who.node == dead,
                _ => {}
            }
        }
    }
    println!("seed {seed}: attempts {attempts:?}");
    let own = attempts.iter().filter(|(_, by)| *by == from).count();
    if !fenced || own != 3 {
        return Err(format!("violated: after three attempts of {from} another fences {dead}: {attempts:?}"));
    }
    story.heal().await
}

/// The device cannot be reached from the leader, and the third attempt fails shortly before time proves the end of a dead node. The
/// order stays where it is: under another leader that wait might begin anew.
pub(crate) async fn an_order_stays_where_time_is_about_to_prove_the_end(seed: u64) -> Done {
    let config = Config { fence_backoff: ms(350), ..standard() };
    let mut story = device_story(seed, config, Some(Stop::Deadman { lateness: ms(250) }));
    story.returns_after = Some(ms(25_000));
    story.world.device.set_pace(ms(20), ms(40));
    let (from, dead) = kill_beside_a_leader_without_a_device(&mut story).await?;
    story.run_for(ms(6_000)).await?;
    let (mut failures, mut activations, mut proofs) = (BTreeSet::new(), BTreeSet::new(), vec![]);
    for entry in std::mem::take(&mut story.kept) {
        let Observation::Applied { answer: Ok(events), .. } = entry.seen else { continue };
        for event in events {
            match event {
                Event::FenceFailed { attempt, .. } => drop(failures.insert(attempt)),
                Event::LeaderActivated { leadership } => drop(activations.insert(leadership.activation)),
                Event::Fenced { who, proof, .. } if who.node == dead => proofs.push(proof.to_string()),
                _ => {}
            }
        }
    }
    println!("seed {seed}: {} attempts failed, {:?}", failures.len(), proofs.first());
    let by_time = proofs.first().is_some_and(|proof| proof.starts_with("expired"));
    if !activations.is_empty() {
        return Err(format!("violated: {from} still leads when time has proved the end: {activations:?}, {proofs:?}"));
    }
    if failures.len() < 3 || !by_time {
        return Err(format!("the third attempt was to fail before time proved the end: {failures:?}, {proofs:?}"));
    }
    story.heal().await
}

/// A process is killed and started again at once, where time, too, would prove its end, but later. With a device that tells
/// lives apart, its former life is fenced before one that stays away would be, and the new one is left alone.
pub(crate) async fn who_comes_back_is_fenced_as_fast_as_who_stays_away(seed: u64) -> Done {
    let config = Config { fencer_tells_lives_apart: true, ..standard() };
    let bound = config.fence_after();
    let mut story = device_story(seed, config, Some(Stop::Deadman { lateness: ms(250) }));
    story.returns_after = Some(ms(300));
    story.form().await?;
    story.kept.clear();
    let hit = story.world.nodes().into_iter().find(|node| Some(*node) != leader(&story)).unwrap_or_default();
    let began = Instant::now();
    story.world.end(hit, End::Killed);
    let fenced = |story: &Story| {
        let applied = story.kept.iter().filter_map(|entry| match &entry.seen {
            Observation::Applied { answer: Ok(events), .. } => Some(events),
            _ => None,
        });
        applied.flatten().any(|event| matches!(event, Event::Fenced { who, .. } if who.node == hit))
    };
    while !fenced(&story) {
        if began.elapsed() > bound {
            return Err(format!("violated: the former life of {hit} is not fenced {bound:?} after it was killed"));
        }
        story.run_for(ms(10)).await?;
    }
    println!("seed {seed}: fenced after {:?}", began.elapsed());
    story.run_for(ms(10_000)).await?;
    let ends = story.kept.iter().filter(|entry| matches!(entry.seen, Observation::Ended { .. })).count();
    if ends > 1 {
        return Err(format!("violated: the life that came back is left alone: {ends} processes ended"));
    }
    story.heal().await
}
