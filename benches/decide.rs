//! The cost of the pure core: what a replica computes for one committed command, and a leader to find its duties.
//!
//! ```text
//!   decide    the answer alone, state untouched          3, 32 and 1000 members
//!   apply     decide, and apply each event to the state
//!   clone     the copy that a reader of the feed gets
//!   duties    at rest, and with a fence order open
//!   codec     one command; a snapshot of 1000 members with a full history of orders
//! ```
//!
//! It uses no disk and no task. The core is so fast that a commit never waits for it. `cargo bench --bench decide`.

#[path = "common/state.rs"]
mod state;

use std::hint::black_box;
use std::time::Duration;

use anyhow::Result;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use quorate_membership::codec::{decode, encode};
use quorate_membership::{ClusterState, Command, Revision, apply, decide, duties};
use state::Maker;

/// The sizes of the clusters, in members.
const SIZES: [u64; 3] = [3, 32, 1000];

/// A state, and a command that it accepts.
struct Scene {
    verb: &'static str,
    members: u64,
    state: ClusterState,
    next: Revision,
    command: Command,
}

/// For each size: a node joins, an order is given, an order is confirmed.
fn scenes() -> Result<Vec<Scene>> {
    let mut scenes = vec![];
    for members in SIZES {
        let mut maker = Maker::cluster(members)?;
        let target = maker.newest(members)?;
        let scene = |verb, maker: &Maker, command| Scene {
            verb,
            members,
            state: maker.state.clone(),
            next: maker.next(),
            command,
        };
        scenes.push(scene("join", &maker, state::join(members + 1, 1)?));
        scenes.push(scene("order_fence", &maker, state::order(target)?));
        let (order, target) = maker.begin_fence(members)?;
        scenes.push(scene("confirm_fence", &maker, state::confirm(order, target)?));
    }
    for Scene { verb, members, state, next, command } in &scenes {
        let events = decide(state, *next, command)?;
        anyhow::ensure!(!events.is_empty(), "{verb} at {members} members changes nothing");
    }
    Ok(scenes)
}

fn rules(criterion: &mut Criterion, scenes: &[Scene]) {
    let mut group = criterion.benchmark_group("decide");
    for scene in scenes {
        group.bench_with_input(BenchmarkId::new(scene.verb, scene.members), scene, |bencher, scene| {
            bencher.iter(|| decide(black_box(&scene.state), scene.next, black_box(&scene.command)));
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("apply");
    for scene in scenes {
        group.bench_with_input(BenchmarkId::new(scene.verb, scene.members), scene, |bencher, scene| {
            let fresh = || scene.state.clone();
            // Small batches, so that the result measures the work and not the cache misses of many copies of the state.
            let few = BatchSize::NumIterations(4);
            bencher.iter_batched_ref(fresh, |state| apply(state, scene.next, black_box(&scene.command)), few);
        });
    }
    group.finish();
}

/// A copy of the state, which publishing an entry costs in addition to applying it.
fn copies(criterion: &mut Criterion) -> Result<()> {
    let mut group = criterion.benchmark_group("clone");
    for members in SIZES {
        let Maker { state, .. } = Maker::cluster(members)?;
        group.bench_with_input(BenchmarkId::new("at rest", members), &state, |bencher, state| {
            bencher.iter_with_large_drop(|| black_box(state).clone());
        });
    }
    let full = state::full()?;
    group.bench_function("full history/1000", |bencher| bencher.iter_with_large_drop(|| black_box(&full).clone()));
    group.finish();
    Ok(())
}

fn owed(criterion: &mut Criterion) -> Result<()> {
    let mut group = criterion.benchmark_group("duties");
    for members in SIZES {
        let mut maker = Maker::cluster(members)?;
        anyhow::ensure!(duties(&maker.state).is_empty(), "a duty is due at rest");
        group.bench_with_input(BenchmarkId::new("at rest", members), &maker.state, |bencher, state| {
            bencher.iter(|| duties(black_box(state)));
        });
        maker.begin_fence(members)?;
        anyhow::ensure!(duties(&maker.state).len() == 1, "the open order is not the only duty");
        group.bench_with_input(BenchmarkId::new("one order open", members), &maker.state, |bencher, state| {
            bencher.iter(|| duties(black_box(state)));
        });
    }
    group.finish();
    Ok(())
}

fn codec(criterion: &mut Criterion) -> Result<()> {
    let (command, snapshot) = (state::join(3, 1)?, state::full()?);
    let (small, large) = (encode(&command)?, encode(&snapshot)?);
    anyhow::ensure!(decode::<Command>(&small)? == command && decode::<ClusterState>(&large)? == snapshot);

    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Bytes(small.len() as u64));
    group.bench_function("encode/command", |bencher| bencher.iter(|| encode(black_box(&command))));
    group.bench_function("decode/command", |bencher| bencher.iter(|| decode::<Command>(black_box(&small))));
    group.throughput(Throughput::Bytes(large.len() as u64));
    group.bench_function("encode/snapshot of 1000", |bencher| {
        bencher.iter_with_large_drop(|| encode(black_box(&snapshot)));
    });
    group.bench_function("decode/snapshot of 1000", |bencher| {
        bencher.iter_with_large_drop(|| decode::<ClusterState>(black_box(&large)));
    });
    group.finish();
    Ok(())
}

fn main() -> Result<()> {
    let seconds = Duration::from_secs;
    let criterion = Criterion::default().sample_size(30).warm_up_time(seconds(1)).measurement_time(seconds(2));
    let mut criterion = criterion.configure_from_args();
    rules(&mut criterion, &scenes()?);
    copies(&mut criterion)?;
    owed(&mut criterion)?;
    codec(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}
