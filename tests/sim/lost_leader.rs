//! A leader whose process ends is succeeded at once; who is only refused by it deposes nobody.

use quorate::NodeId;
use quorate::lease::Stop;
use quorate::testing::sim::End;
use tokio::time::Instant;

use crate::calm::{Done, leader, ms, standard, story, term};
use crate::story::Story;

/// The first node that says that another leads than before.
fn led_by_another(story: &Story, before: NodeId) -> Option<NodeId> {
    let mut said = story.world.running().filter_map(|running| running.node.view().local.leader);
    said.find(|leader| *leader != before)
}

/// The process of the leader is killed. Its kernel closes its connections and refuses new ones, and the others see it: another
/// leads in less than half of the shortest election timeout.
pub(crate) async fn a_leader_whose_process_ends_is_succeeded_at_once(seed: u64) -> Done {
    let mut story = story(seed, standard(), Some(Stop::Deadman { lateness: ms(250) }));
    story.form().await?;
    let former = leader(&story).unwrap_or_default();
    let bound = story.plan.config.election_min() / 2;
    story.world.end(former, End::Killed);
    let began = Instant::now();
    while led_by_another(&story, former).is_none() {
        if began.elapsed() > bound {
            return Err(format!("violated: nobody leads in place of {former}, {bound:?} after its process ended"));
        }
        story.run_for(ms(2)).await?;
    }
    println!("seed {seed}: another leads after {:?} of {bound:?}", began.elapsed());
    story.heal().await
}

/// The power of the leader is cut: nobody closes anything, and another leads after the election timeout, and not long after.
pub(crate) async fn a_leader_without_power_is_succeeded_by_its_timeout(seed: u64) -> Done {
    let mut story = story(seed, standard(), Some(Stop::Deadman { lateness: ms(250) }));
    story.form().await?;
    let former = leader(&story).unwrap_or_default();
    let (least, most) = (story.plan.config.election_min(), story.plan.config.election_max() * 2);
    // It stays away, or it might lead again.
    story.returns_after = Some(ms(600_000));
    story.world.end(former, End::PowerCut);
    let began = Instant::now();
    while led_by_another(&story, former).is_none() {
        if began.elapsed() > most {
            return Err(format!("violated: nobody leads in place of {former}, {most:?} after its power was cut"));
        }
        story.run_for(ms(5)).await?;
    }
    match began.elapsed() < least {
        true => Err(format!("violated: {former} was silent, and was succeeded as if it had refused")),
        false => Ok(()),
    }
}

/// A firewall between one follower and the leader closes its connections and refuses new ones. The other voter is not refused,
/// so the leader stays, in the same term, and nobody is fenced.
pub(crate) async fn a_firewall_that_refuses_one_follower_deposes_nobody(seed: u64) -> Done {
    let mut story = story(seed, standard(), Some(Stop::Deadman { lateness: ms(250) }));
    story.form().await?;
    let (led, before) = (leader(&story).unwrap_or_default(), term(&story));
    let refused = story.world.nodes().into_iter().find(|node| *node != led).unwrap_or_default();
    story.world.net.reject(refused, led);
    story.run_for(ms(15_000)).await?;
    match (leader(&story), term(&story)) {
        (Some(leader), now) if leader == led && now == before => story.heal().await,
        now => Err(format!("violated: {led} led term {before}, and now {now:?}: {refused} alone was refused by it")),
    }
}
