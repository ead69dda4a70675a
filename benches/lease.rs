//! The cost of leases: one renewal and a thousand for a leader, one check for a consumer.
//!
//! ```text
//!   grantor     one renewal: received, one read begun, granted         1, 32 and 1000 members
//!   round       the renewals of all members in one read                1000 members
//!   holder      one renewal sent and granted
//!   check       `Lease::check` on a running node: two clocks, no lock; beside it, one clock_gettime
//!   detector    the signals of 1000 members
//! ```
//!
//! `cargo bench --bench lease`. With `-- --share` it prints the share of one core that a thousand renewing members cost
//! a leader: the rules alone, and a node that another process calls over real sockets.

#[path = "common/must.rs"]
mod must;
#[path = "common/share.rs"]
mod share;
#[path = "common/state.rs"]
mod state;

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Context, Result};
use criterion::{BatchSize, BenchmarkId, Criterion};
use quorate::testing::MemoryNetwork;
use quorate::{Cluster, NodeId};
use quorate_membership::detector::{Detector, Moment, Thresholds};
use quorate_membership::lease::{Grantor, MemberLease, Reading};
use quorate_membership::{ClusterState, Drift, Identity, Timing};
use rustix::time::{ClockId, clock_gettime};
use state::Maker;

const SIZES: [u64; 3] = [1, 32, 1000];

fn at(ms: u64) -> Reading {
    Reading::steady(Duration::from_millis(ms))
}

/// An activated leader, its state, and the lives in the state.
fn leader(members: u64) -> Result<(Grantor, ClusterState, Vec<Identity>)> {
    let state = Maker::cluster(members)?.state;
    let lives: Vec<_> = state.active().collect();
    anyhow::ensure!(lives.len() as u64 == members, "a life is not active");
    Ok((grantor(&state)?, state, lives))
}

/// The grantor of the leader in `state`.
fn grantor(state: &ClusterState) -> Result<Grantor> {
    let leadership = state.leadership().context("the state has a leader")?;
    let mut grantor = Grantor::new(leadership.leader, Drift::default());
    grantor.handle_gain(leadership.nonce);
    grantor.handle_applied(state, at(0));
    anyhow::ensure!(grantor.activation().is_some(), "the leader was not activated");
    Ok(grantor)
}

/// Receives one renewal from each of `lives`, confirms one read, and grants them all.
fn round(grantor: &mut Grantor, state: &ClusterState, lives: &[Identity], seq: u64) -> usize {
    for who in lives {
        must::must(grantor.handle_renewal(*who, seq, state, at(seq)).context("a renewal was not accepted"));
    }
    let granted = grantor.poll_read().map(|read| grantor.handle_read(read, state)).unwrap_or_default();
    let count = granted.iter().filter(|(_, _, granted)| *granted).count();
    must::must((count == lives.len()).then_some(count).context("not every renewal was granted"))
}

fn grants(criterion: &mut Criterion) -> Result<()> {
    let mut group = criterion.benchmark_group("grantor");
    for members in SIZES {
        let (mut grantor, state, lives) = leader(members)?;
        let mut seq = 0;
        group.bench_function(BenchmarkId::new("one renewal", members), |bencher| {
            bencher.iter(|| {
                seq += 1;
                round(&mut grantor, black_box(&state), &lives[lives.len() - 1..], seq)
            });
        });
    }
    let (mut leading, state, lives) = leader(1000)?;
    let mut seq = 0;
    group.bench_function("round/1000", |bencher| {
        bencher.iter(|| {
            seq += 1;
            round(&mut leading, black_box(&state), &lives, seq)
        });
    });
    group.bench_function("expiries/1000", |bencher| bencher.iter(|| leading.poll_expiries(black_box(at(seq)))));
    let full = state::full()?;
    let fresh = grantor(&full)?;
    group.bench_function("applied/1000", |bencher| {
        bencher.iter_batched_ref(
            || fresh.clone(),
            |grantor| grantor.handle_applied(black_box(&full), at(seq)),
            BatchSize::SmallInput,
        );
    });
    group.finish();
    Ok(())
}

fn holds(criterion: &mut Criterion) -> Result<()> {
    let plan = *Timing::default().plan();
    let who: Identity = "n3#1".parse()?;
    let mut holder = MemberLease::new(who, plan.lease, plan.margin, plan.renew);
    let mut now = 0;
    criterion.bench_function("holder/renewed", |bencher| {
        bencher.iter(|| {
            now += 300;
            let seq = must::must(holder.poll_renewal(at(now)).context("no renewal is due"));
            must::must(holder.handle_grant(who, seq, at(now + 1)).then_some(()).context("the grant was not accepted"));
            black_box(holder.stage(at(now + 2)))
        });
    });
    Ok(())
}

fn checks(criterion: &mut Criterion) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let folder = tempfile::tempdir()?;
    let node = Cluster::builder(NodeId::new(1)).data(folder.path()).in_memory(&MemoryNetwork::new()).without_fencing();
    let cluster = runtime.block_on(node.bootstrap())?;
    let lease = cluster.lease();
    runtime.block_on(lease.held());
    let mut group = criterion.benchmark_group("check");
    group.bench_function("lease.check", |bencher| bencher.iter(|| black_box(lease.check())));
    group.bench_function("one clock_gettime", |bencher| bencher.iter(|| black_box(clock_gettime(ClockId::Boottime))));
    group.finish();
    runtime.block_on(cluster.leave())?;
    Ok(())
}

fn detects(criterion: &mut Criterion) {
    let ms = Duration::from_millis;
    let mut detector = Detector::new(Thresholds { suspect_after: ms(600), fence_after: ms(1500), own_pause: ms(750) });
    for node in 1..=1000 {
        detector.handle_contact(NodeId::new(node), Moment::new(ms(node)));
    }
    criterion.bench_function("detector/look at 1000", |bencher| {
        bencher.iter(|| {
            detector.poll(black_box(Moment::new(ms(1100))));
            (1..=1000).map(|node| detector.signal(NodeId::new(node), Moment::new(ms(1100)))).max()
        });
    });
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    match args.iter().position(|arg| arg == "--share" || arg == "--caller") {
        Some(at) if args[at] == "--share" => return share::print(),
        Some(at) => return share::call(&args[at + 1..]),
        None => {}
    }
    let seconds = Duration::from_secs;
    let criterion = Criterion::default().sample_size(30).warm_up_time(seconds(1)).measurement_time(seconds(2));
    let mut criterion = criterion.configure_from_args();
    grants(&mut criterion)?;
    holds(&mut criterion)?;
    checks(&mut criterion)?;
    detects(&mut criterion);
    criterion.final_summary();
    Ok(())
}
