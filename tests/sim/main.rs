//! Whole clusters in simulated worlds: many seeds, each in a process of its own, and every promise judged all the while.
//!
//! ```text
//!   SEEDS=1000 FIRST=1   which seeds (make sim)        WORLD=17 [UPTO=9] [ALOUD=1]   one of them, in this process
//! ```

mod calm;
mod coverage;
mod edges;
mod ended;
mod faults;
mod fencing;
mod judge;
mod lost_leader;
mod majority;
mod oracle;
mod plan;
mod receipts;
mod story;
mod sweep;
mod thin;
mod workers;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use quorate::testing::sim::World;

use crate::plan::Plan;
use crate::sweep::Swept;

/// One world, chosen by the environment: what the sweep starts once for each seed.
#[test]
#[ignore = "started by the sweep, once for each seed"]
fn one_world() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("WORLD").expect("WORLD names the seed");
    let mut plan = Plan::draw(seed);
    plan.upto = number("UPTO").unwrap_or(u64::MAX);
    let aloud = number("ALOUD").is_some();
    if aloud {
        println!("{plan:#?}");
        let _first = log_aloud();
    }
    let panics = count_panics();
    let told = World::run(seed, story::play(plan, aloud)).expect("a runtime");
    sweep::report(seed, &told);
    let panics = panics.load(Ordering::SeqCst);
    assert!(panics == 0, "seed {seed}: violated: no task panics: {panics} did, see above");
}

/// Counts panics from now on. One in a task of its own ends that task, and else nobody would know.
fn count_panics() -> Arc<AtomicUsize> {
    let (panics, before) = (Arc::new(AtomicUsize::new(0)), std::panic::take_hook());
    let counted = panics.clone();
    std::panic::set_hook(Box::new(move |panic| {
        counted.fetch_add(1, Ordering::SeqCst);
        before(panic);
    }));
    panics
}

/// The worlds of this run, played once for the two tests that look at them.
fn worlds() -> &'static Swept {
    static WORLDS: OnceLock<Swept> = OnceLock::new();
    WORLDS.get_or_init(|| sweep::run(sweep::seeds(4, 200), "one_world"))
}

#[test]
fn every_promise_holds_in_every_world() {
    let swept = worlds();
    swept.print();
    swept.must_hold();
}

/// Some of the cases of one number of nodes: every `of`th, from `part` on. Started by the test of the edge cuts.
#[test]
#[ignore = "started by the test of the edge cuts, once for each part"]
fn some_edges() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok()).expect(name);
    let (n, fixed, part, of) = (number("NODES"), number("FIXED"), number("PART"), number("OF"));
    let cases: Vec<_> = edges::cases(n, fixed).into_iter().skip(part as usize).step_by(of as usize).collect();
    let told = World::run(u64::from(part), edges::try_all(n, &cases, u64::from(part))).expect("a runtime");
    let edges = told.unwrap_or_else(|why| panic!("{why}"));
    println!(
        "\nedges {} {} {} {:?}",
        edges.cases,
        edges.stuck,
        edges.fenced,
        edges.waits.iter().map(|w| w.as_millis()).collect::<Vec<_>>()
    );
}

#[test]
fn every_cut_that_leaves_a_connected_majority() {
    let full = std::env::var_os("QUORATE_SIM").is_some_and(|wanted| wanted == "full");
    edges::sweep(3, 1, 1, 1);
    edges::sweep(4, 1, if full { 1 } else { 72 }, 2);
    if full {
        // All of them take twenty minutes: EVERY=1.
        let every = std::env::var("EVERY").ok().and_then(|text| text.parse().ok()).unwrap_or(40);
        edges::sweep(5, 0, every, 2);
    }
}

/// RUST_LOG chooses what the nodes themselves say; their times are of the machine that plays the world.
fn log_aloud() -> bool {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init().is_ok()
}

fn in_a_world<F: Future<Output = Result<(), String>>>(story: impl Fn(u64) -> F) {
    let full = std::env::var_os("QUORATE_SIM").is_some_and(|wanted| wanted == "full");
    let _first = std::env::var_os("ALOUD").is_some() && log_aloud();
    // Three seeds: the three ways in which a leader is lost.
    for seed in 1..=if full { 9 } else { 3 } {
        match World::run(seed, story(seed)) {
            Ok(Ok(())) => {}
            Ok(Err(why)) => assert!(why.is_empty(), "seed {seed}: {why}"),
            Err(error) => assert!(error.to_string().is_empty(), "{error}"),
        }
    }
}

#[test]
fn who_was_cut_off_deposes_nobody() {
    in_a_world(calm::who_was_cut_off_deposes_nobody);
}

#[test]
fn a_leader_whose_process_ends_is_succeeded_at_once() {
    in_a_world(lost_leader::a_leader_whose_process_ends_is_succeeded_at_once);
}

#[test]
fn a_leader_without_power_is_succeeded_by_its_timeout() {
    in_a_world(lost_leader::a_leader_without_power_is_succeeded_by_its_timeout);
}

#[test]
fn a_firewall_that_refuses_one_follower_deposes_nobody() {
    in_a_world(lost_leader::a_firewall_that_refuses_one_follower_deposes_nobody);
}

/// The process of a node ends, and its machine says so.
#[test]
fn a_process_that_ends_is_fenced_at_once() {
    in_a_world(ended::a_process_that_ends_is_fenced_at_once);
}

/// What a firewall says in the name of a node is not believed while the node itself calls.
#[test]
fn a_firewall_in_the_name_of_a_node_gets_nobody_fenced() {
    in_a_world(ended::a_firewall_in_the_name_of_a_node_gets_nobody_fenced);
}

/// What the leader alone is refused is not enough.
#[test]
fn a_firewall_between_a_node_and_its_leader_gets_nobody_fenced() {
    in_a_world(ended::a_firewall_between_a_node_and_its_leader_gets_nobody_fenced);
}

/// A process that is started again at once is not powered off.
#[test]
fn a_device_that_would_hit_the_next_life_waits_for_silence() {
    in_a_world(ended::a_device_that_would_hit_the_next_life_waits_for_silence);
}

/// The voters know when they heard of a leader last.
#[test]
fn the_wait_for_a_leader_that_is_cut_off_is_not_begun_anew() {
    in_a_world(receipts::the_wait_for_a_leader_that_is_cut_off_is_not_begun_anew);
}

/// What a voter does not know any more may have been.
#[test]
fn voters_that_lost_their_notes_end_nobody_too_early() {
    in_a_world(receipts::voters_that_lost_their_notes_end_nobody_too_early);
}

#[test]
fn a_change_of_leader_costs_no_lease() {
    in_a_world(calm::a_change_of_leader_costs_no_lease);
}

#[test]
fn a_disk_that_hangs_moves_leadership() {
    in_a_world(calm::a_disk_that_hangs_moves_leadership);
}

#[test]
fn a_leader_that_cannot_be_reached_makes_way() {
    in_a_world(calm::a_leader_that_cannot_be_reached_makes_way);
}

#[test]
fn a_leader_that_is_cut_off_does_not_give_up_its_term() {
    in_a_world(calm::a_leader_that_is_cut_off_does_not_give_up_its_term);
}

#[test]
fn a_large_write_takes_its_time_on_thin_ways() {
    in_a_world(thin::a_large_write_takes_its_time_on_thin_ways);
}

#[test]
fn answers_may_take_longer_than_a_heartbeat() {
    in_a_world(thin::answers_may_take_longer_than_a_heartbeat);
}

#[test]
fn an_order_moves_to_who_reaches_the_device() {
    in_a_world(fencing::an_order_moves_to_who_reaches_the_device);
}

#[test]
fn an_order_stays_where_time_is_about_to_prove_the_end() {
    in_a_world(fencing::an_order_stays_where_time_is_about_to_prove_the_end);
}

#[test]
fn who_comes_back_is_not_shot_again_and_again() {
    in_a_world(fencing::who_comes_back_is_not_shot_again_and_again);
}

#[test]
fn a_leader_that_stutters_stays_behind() {
    in_a_world(calm::a_leader_that_stutters_stays_behind);
}

#[test]
fn who_comes_back_is_fenced_as_fast_as_who_stays_away() {
    in_a_world(fencing::who_comes_back_is_fenced_as_fast_as_who_stays_away);
}

#[test]
fn a_cluster_that_stops_as_a_whole_leaves_as_a_whole() {
    in_a_world(calm::a_cluster_that_stops_as_a_whole_leaves_as_a_whole);
}

#[test]
fn a_change_of_voters_that_was_begun_is_finished() {
    in_a_world(calm::a_change_of_voters_that_was_begun_is_finished);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    if !World::IS_DETERMINISTIC {
        println!("built without `--cfg tokio_unstable` (RUSTFLAGS hides .cargo/config.toml): nothing to compare");
        return;
    }
    // However many the sweep has: twenty show it.
    let seeds = sweep::seeds(2, 20);
    let again = sweep::run(seeds.start..seeds.end.min(seeds.start + 20), "one_world");
    assert!(!again.traces.is_empty(), "no world told its trace");
    for (seed, trace) in &again.traces {
        assert_eq!(worlds().traces.get(seed), Some(trace), "world {seed} is decided by its seed");
    }
    println!("{} seeds twice: the same traces", again.traces.len());
}
