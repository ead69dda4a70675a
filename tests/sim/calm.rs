//! Small worlds with one thing in them: what must not happen, and what must, where chance has no say in it.

use std::time::Duration;

use quorate::lease::ledger::Note;
use quorate::testing::sim::{Durable, End, Observation, Pace, Rate, Running, Setting, Stored, TraceEntry, World};
use quorate::{Config, Departure, Event, NodeId, Profile, lease::Stop};
use tokio::time::{Instant, sleep};

use crate::plan::Plan;
use crate::story::Story;

pub(crate) type Done = Result<(), String>;

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(crate) fn story(seed: u64, config: Config, stop: Option<Stop>) -> Story {
    story_with(seed, config, stop, stop.is_none())
}

pub(crate) fn device_story(seed: u64, config: Config, stop: Option<Stop>) -> Story {
    story_with(seed, config, stop, true)
}

fn story_with(seed: u64, config: Config, stop: Option<Stop>, device: bool) -> Story {
    let plan = Plan::draw(seed);
    let plan = Plan { nodes: 3, config, stop, device, kinds: vec![], locks: 1, ..plan };
    let setting =
        Setting { seed, config: plan.config.clone(), stop, device, aloud: std::env::var_os("ALOUD").is_some() };
    let mut story = Story::new(World::new(setting), plan);
    story.keep = true;
    story
}

pub(crate) fn standard() -> Config {
    Config { timing: Profile::Standard.timing(), propose_timeout: ms(5000), ..Config::default() }
}

pub(crate) fn leader(story: &Story) -> Option<NodeId> {
    story.world.running().find_map(|running| running.node.view().local.leader)
}

pub(crate) fn term(story: &Story) -> u64 {
    story.world.running().map(|running| running.node.view().local.term).max().unwrap_or_default()
}

/// A follower that was cut off for long comes back, and the leader is the same, in the same term: it had asked before it
/// stood, and was told no.
pub(crate) async fn who_was_cut_off_deposes_nobody(seed: u64) -> Done {
    let mut story = story(seed, standard(), Some(Stop::Deadman { lateness: ms(250) }));
    story.form().await?;
    let (before, led) = (leader(&story), term(&story));
    let cut = story.world.nodes().into_iter().find(|node| Some(*node) != before).unwrap_or_default();
    let others: Vec<NodeId> = story.world.nodes().into_iter().filter(|node| *node != cut).collect();
    // It hears nobody, and can be heard: the worst that a node can do to a cluster by standing for election.
    others.iter().for_each(|other| story.world.net.cut_one_way(*other, cut));
    story.run_for(ms(15_000)).await?;
    story.heal().await?;
    // Then it hears only that leader no more, and the other tells it each time that it does.
    let deaf_to = before.unwrap_or_default();
    for _ in 0..3 {
        story.world.net.cut_one_way(deaf_to, cut);
        story.run_for(ms(2000)).await?;
        story.world.net.mend(deaf_to, cut);
        story.run_for(ms(500)).await?;
    }
    story.heal().await?;
    match (leader(&story), term(&story)) {
        now if now == (before, led) => Ok(()),
        now => Err(format!("violated: {before:?} led term {led}, and now {now:?}: {cut} was cut off and deposed it")),
    }
}

/// Leadership changes: the leader makes way, is cut off, or its process is dead. Whoever is connected keeps its lease and is
/// not even warned (I15), and nobody but the former leader is fenced.
pub(crate) async fn a_change_of_leader_costs_no_lease(seed: u64) -> Done {
    let mut story = story(seed, standard(), Some(Stop::Deadman { lateness: ms(250) }));
    story.form().await?;
    let (led, before) = (leader(&story).unwrap_or_default(), term(&story));
    story.kept.clear();
    let by_plan = seed.is_multiple_of(3);
    match seed % 3 {
        0 => {
            let Some(Running { host, node }) = story.world.process(led).cloned() else { return Ok(()) };
            drop(host.spawn(async move { node.hand_over(None).await }));
        }
        1 => {
            let others: Vec<_> = story.world.nodes().into_iter().filter(|node| *node != led).collect();
            others.iter().for_each(|other| story.world.net.cut(led, *other));
        }
        _ => story.world.end(led, End::Killed),
    }
    story.run_for(ms(12_000)).await?;
    let spared = |node: NodeId| by_plan || node != led;
    let harms = |entry: &&TraceEntry| match &entry.seen {
        Observation::Fired | Observation::Noted(Note::Notice { .. } | Note::Lapsed { .. }) => spared(entry.node),
        Observation::Applied { answer: Ok(events), .. } => events
            .iter()
            .any(|event| if let Event::FenceOrdered { target, .. } = event { spared(target.node) } else { false }),
        _ => false,
    };
    if let Some(told) = story.kept.iter().find(harms) {
        return Err(format!("violated: one change of leader costs nobody who is connected its lease (I15): {told}"));
    }
    if term(&story) == before {
        return Err(format!("violated: somebody leads anew: {led} still leads term {before}"));
    }
    story.heal().await
}

/// The disk of the leader stands still in the middle of its work: another leads within two election time-outs, and nobody is
/// fenced.
pub(crate) async fn a_disk_that_hangs_moves_leadership(seed: u64) -> Done {
    let mut story = story(seed, standard(), Some(Stop::Deadman { lateness: ms(250) }));
    story.form().await?;
    let hung = leader(&story).unwrap_or_default();
    story.kept.clear();
    story.world.set_pace(hung, Pace::Hung);
    let began = Instant::now();
    let bound = story.plan.config.election_max() * 2;
    let another = |story: &Story| story.world.running().any(|r| r.node.view().local.leader.is_some_and(|l| l != hung));
    while !another(&story) {
        if began.elapsed() > bound {
            return Err(format!("violated: {hung} leads still, {bound:?} after its disk stood still"));
        }
        story.run_for(ms(10)).await?;
    }
    println!("seed {seed}: another leads after {:?} of {bound:?}", began.elapsed());
    story.heal().await?;
    let fenced = |entry: &&TraceEntry| {
        let Observation::Applied { answer: Ok(events), .. } = &entry.seen else { return false };
        events.iter().any(|event| matches!(event, Event::FenceOrdered { .. }))
    };
    match story.kept.iter().find(fenced) {
        Some(told) => Err(format!("violated: nobody is fenced for a disk that hung: {told}")),
        None => Ok(()),
    }
}

/// A firewall drops what comes in to the leader, whose own calls are answered: it makes way within two election timeouts, and
/// does not lead again while it is unreached. No lease lapses, nobody is fenced, and writes go on.
pub(crate) async fn a_leader_that_cannot_be_reached_makes_way(seed: u64) -> Done {
    let mut story = story(seed, standard(), Some(Stop::Deadman { lateness: ms(250) }));
    story.form().await?;
    let unreached = leader(&story).unwrap_or_default();
    story.kept.clear();
    story.world.net.close_port(unreached);
    let began = Instant::now();
    let bound = story.plan.config.election_max() * 2;
    let another =
        |story: &Story| story.world.running().any(|r| r.node.view().local.leader.is_some_and(|l| l != unreached));
    while !another(&story) {
        if began.elapsed() > bound {
            return Err(format!("violated: {unreached} leads still, {bound:?} after nobody could reach it"));
        }
        story.run_for(ms(10)).await?;
    }
    println!("seed {seed}: another leads after {:?} of {bound:?}", began.elapsed());
    story.run_for(ms(20_000)).await?;
    let (mut written, mut again) = (0, false);
    for entry in std::mem::take(&mut story.kept) {
        match &entry.seen {
            Observation::Fired | Observation::Noted(Note::Notice { .. } | Note::Lapsed { .. }) => {
                return Err(format!("violated: no lease is lost for a port that is closed: {entry}"));
            }
            Observation::Noted(Note::Activated { .. }) => again |= entry.node == unreached,
            Observation::Applied { answer: Ok(events), .. } => {
                if events.iter().any(|event| matches!(event, Event::FenceOrdered { .. })) {
                    return Err(format!("violated: nobody is fenced for a port that is closed: {entry}"));
                }
                written += u64::from(events.iter().any(|event| matches!(event, Event::Put { .. })));
            }
            _ => {}
        }
    }
    if again || written < 10 {
        return Err(format!("violated: {unreached} leads again ({again}), or nothing is written ({written} writes)"));
    }
    story.heal().await
}

/// The leader is stopped for 0.45 s and runs for 0.3 s, again and again, while another node is dead. It stays behind after its
/// second loss, so that the third leads, and the dead one is fenced.
pub(crate) async fn a_leader_that_stutters_stays_behind(seed: u64) -> Done {
    let mut story = story(seed, standard(), Some(Stop::Deadman { lateness: ms(250) }));
    story.form().await?;
    let stutters = leader(&story).unwrap_or_default();
    let dead = story.world.nodes().into_iter().find(|node| *node != stutters).unwrap_or_default();
    story.kept.clear();
    story.returns_after = Some(ms(600_000));
    story.world.end(dead, End::Killed);
    let (began, mut leads, mut fenced) = (Instant::now(), 0, None);
    while began.elapsed() < ms(40_000) {
        let Some(host) = story.world.process(stutters).map(|running| running.host.clone()) else { break };
        host.pause(false);
        story.run_for(ms(450)).await?;
        host.resume();
        story.run_for(ms(300)).await?;
        for entry in std::mem::take(&mut story.kept) {
            match &entry.seen {
                Observation::Noted(Note::Activated { .. }) => leads += 1,
                Observation::Applied { answer: Ok(events), .. } => {
                    let ends = |event: &Event| matches!(event, Event::Fenced { who, .. } if who.node == dead);
                    fenced = fenced.or(events.iter().any(ends).then(|| began.elapsed()));
                }
                _ => {}
            }
        }
    }
    println!("seed {seed}: {leads} changes of leader, {dead} fenced after {fenced:?}");
    match fenced {
        Some(after) if leads <= 5 && after < ms(20_000) => Ok(()),
        _ => Err(format!("violated: {leads} changes of leader in 40 s, {dead} is fenced after {fenced:?}")),
    }
}

/// The leader dies as soon as a joint configuration is on another's disk: whoever leads next finishes the change.
pub(crate) async fn a_change_of_voters_that_was_begun_is_finished(seed: u64) -> Done {
    let mut story = story(seed, standard(), Some(Stop::Deadman { lateness: ms(250) }));
    story.form().await?;
    let next = NodeId::new(4);
    story.world.add_machine(next, Rate::default());
    story.begin(next).await?;
    story.kept.clear();
    let give_up = Instant::now() + ms(20_000);
    loop {
        if Instant::now() > give_up {
            return Err("violated: no joint configuration was ever begun".into());
        }
        sleep(Duration::from_micros(200)).await;
        story.look().await?;
        let led = leader(&story);
        // On the disk of a voter that stays, and not committed yet: the leader has not begun the second half.
        let joint = |stored: &Stored| stored.voters.as_ref().is_some_and(|voters| voters.sets.len() > 1);
        let begun = std::mem::take(&mut story.kept).into_iter().any(|entry| {
            let stays = Some(entry.node) != led && entry.node != next;
            stays && matches!(&entry.seen, Observation::Durable(Durable::Entries(entries)) if entries.iter().any(joint))
        });
        if begun && let Some(leader) = led {
            story.world.end(leader, End::Killed);
            break;
        }
    }
    story.heal().await
}

/// A leader that is cut off both ways for about a second hears neither calls nor answers. It does not conclude that the others
/// cannot reach it, and does not hand over to nobody: when it is back, it may lead on.
pub(crate) async fn a_leader_that_is_cut_off_does_not_give_up_its_term(seed: u64) -> Done {
    let mut story = story(seed, standard(), Some(Stop::Deadman { lateness: ms(250) }));
    story.form().await?;
    for cut in (700..1000).step_by(20) {
        let led = leader(&story).unwrap_or_default();
        let others: Vec<NodeId> = story.world.nodes().into_iter().filter(|node| *node != led).collect();
        others.iter().for_each(|other| story.world.net.cut(led, *other));
        for _ in 0..cut / 20 {
            story.run_for(ms(20)).await?;
            let unreached = |running: &Running| running.node.view().local.unreached;
            if let Some(since) = story.world.process(led).and_then(unreached) {
                return Err(format!("violated: {led} is cut off both ways, and says that it is unreached: {since:?}"));
            }
        }
        story.world.net.mend_all();
        story.run_for(ms(4000)).await?;
    }
    Ok(())
}

/// All nodes are told to stop within two seconds. Those that have left vote on for a moment, so that each leave is committed.
pub(crate) async fn a_cluster_that_stops_as_a_whole_leaves_as_a_whole(seed: u64) -> Done {
    let mut story = story(seed, standard(), Some(Stop::Deadman { lateness: ms(250) }));
    story.form().await?;
    let mut leaving = vec![];
    for (late, node) in story.world.nodes().into_iter().enumerate() {
        story.stop_work(node);
        let Some(Running { host, node }) = story.world.process(node).cloned() else { continue };
        leaving.push(host.spawn(async move {
            sleep(ms(300 + 900 * late as u64)).await;
            node.leave().await
        }));
    }
    let began = Instant::now();
    for ended in leaving {
        match ended.await {
            Ok(Ok(Departure::Committed)) => {}
            other => return Err(format!("violated: every leave is committed: {other:?}")),
        }
    }
    println!("seed {seed}: all have left after {:?}", began.elapsed());
    for node in story.world.nodes() {
        story.world.end(node, End::Killed);
    }
    story.heal().await
}
