//! Thin and slow networks: what is large takes its time, and nobody loses a lease or the lead by it.

use quorate::testing::sim::{NetConditions, Observation, Running};
use quorate::{Key, NodeId, lease::Stop, lease::ledger::Note, records::Value};
use tokio::time::{Duration, Instant};

use crate::calm::{Done, leader, ms, standard, story};
use crate::story::Story;

/// A cluster whose leader leads and whose nodes hold their leases, and what was seen from then on.
async fn formed(seed: u64) -> Result<(Story, NodeId), String> {
    let mut story = story(seed, standard(), Some(Stop::Deadman { lateness: ms(250) }));
    story.form().await?;
    let led = leader(&story).unwrap_or_default();
    story.kept.clear();
    Ok((story, led))
}

/// Nobody was told to stop, and the same node leads.
fn undisturbed(story: &Story, led: NodeId) -> Done {
    let harms = |entry: &Observation| {
        matches!(entry, Observation::Fired | Observation::Noted(Note::Notice { .. } | Note::Lapsed { .. }))
    };
    if let Some(told) = story.kept.iter().find(|entry| harms(&entry.seen)) {
        return Err(format!("violated: a thin or slow network costs no lease: {told}"));
    }
    match leader(story) {
        now if now == Some(led) => Ok(()),
        now => Err(format!("violated: a thin or slow network deposes nobody: {led} led, and now {now:?}")),
    }
}

/// At 1 Mbit/s one legal write of nearly 1 MB commits in about the time that it takes to send, from the leader and from another
/// node, and a small one right after it.
pub(crate) async fn a_large_write_takes_its_time_on_thin_ways(seed: u64) -> Done {
    const RATE: u64 = 125_000;
    let (mut story, led) = formed(seed).await?;
    story.world.nodes().into_iter().for_each(|node| story.world.net.make_thin(node, RATE));
    let other = story.world.nodes().into_iter().find(|node| *node != led).unwrap_or_default();
    // From another node it is sent to the leader first.
    for (by, ways) in [(led, 2), (other, 3)] {
        let Some(Running { host, node }) = story.world.process(by).cloned() else { return Ok(()) };
        let writing = host.spawn(async move {
            let records = node.records();
            let (began, mut write) = (Instant::now(), records.write());
            for piece in 0..15 {
                let key = Key::new(format!("large/{piece}")).map_err(|e| e.to_string())?;
                write = write.put(key, Value::new(vec![0; 64 << 10]));
            }
            let large = write.within(ms(60_000)).commit().await.map_err(|e| e.to_string());
            let small = records.put(Key::new("small").map_err(|e| e.to_string())?, Value::new(vec![1])).await;
            large.and(small.map_err(|e| e.to_string())).map(|_| began.elapsed())
        });
        let transfer = Duration::from_secs(15 * (64 << 10) * ways / RATE);
        story.run_for(transfer + ms(4000)).await?;
        if !writing.is_finished() {
            return Err(format!("violated: {by}'s write commits in about the {transfer:?} that it takes to send"));
        }
        let took = writing.await.map_err(|e| e.to_string())?.map_err(|e| format!("violated: {by}'s write: {e}"))?;
        story.world.say(format!("{by}'s write took {took:?}"));
    }
    undisturbed(&story, led)
}

/// A round trip of up to 180 ms, more than twice the heartbeat interval, in which openraft counts no answer.
pub(crate) async fn answers_may_take_longer_than_a_heartbeat(seed: u64) -> Done {
    let (mut story, led) = formed(seed).await?;
    story.world.net.set_conditions(NetConditions { low: ms(60), high: ms(90), ..NetConditions::default() });
    story.run_for(ms(20_000)).await?;
    let Some(Running { host, node }) = story.world.process(led).cloned() else { return Ok(()) };
    let key = Key::new("a").map_err(|e| e.to_string())?;
    let writing = host.spawn(async move { node.records().put(key, Value::new(vec![1])).await });
    story.run_for(ms(2000)).await?;
    if !writing.is_finished() {
        return Err("violated: a write commits on a slow network".into());
    }
    writing.await.map_err(|e| e.to_string())?.map_err(|e| format!("violated: a write on a slow network: {e}"))?;
    undisturbed(&story, led)
}
