//! The cost of a snapshot: to build it, to read it, to save it, and to bring a follower up to date with it.
//!
//! ```text
//!   build     encode 1000 members and a full history of orders          (a node does it every 4096 entries)
//!   read      check and decode the same bytes                           (a follower does it with a received snapshot)
//!   save      write and fsync as many bytes to a file: the least that either waits for then
//!   return    n3 leaves, the others continue, n3 starts: from its start until it is active again
//!               by snapshot   the log no longer has the entries that n3 lacks
//!               by log        it still has them
//! ```
//!
//! The returns run on real logs in a network in memory. For more than half of the time, n3 waits for a message of its
//! leader, which sends one every 50 ms here. `cargo bench --bench snapshot`.

#[path = "common/must.rs"]
mod must;
#[path = "common/state.rs"]
mod state;

use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use criterion::{Criterion, Throughput};
use futures_util::{StreamExt, TryStreamExt, stream};
use must::must;
use quorate::testing::{MemoryNetwork, TestCluster, fast};
use quorate::{Address, Config, Revision, state::Phase};
use quorate_membership::codec::{decode, encode};
use quorate_membership::fencing::HISTORY;
use quorate_membership::{ClusterState, Command};
use quorate_raft_core::FeedItem;
use tokio::runtime::Runtime;

/// The number of entries that n3 misses while it is away.
const MISSED: u64 = 200;

/// Writes the file anew, and syncs it.
fn save(folder: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create(folder.join("snapshot"))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(())
}

fn pieces(criterion: &mut Criterion) -> Result<()> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let state = state::full()?;
    let bytes = encode(&state)?;
    ensure!(decode::<ClusterState>(&bytes)? == state);
    println!("a snapshot of 1000 members and {HISTORY} ended orders has {} bytes", bytes.len());

    let mut group = criterion.benchmark_group("snapshot");
    group.sample_size(20).throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("build/1000", |bencher| bencher.iter_with_large_drop(|| encode(black_box(&state))));
    group.bench_function("read/1000", |bencher| {
        bencher.iter_with_large_drop(|| decode::<ClusterState>(black_box(&bytes)));
    });
    group.bench_function("save/1000", |bencher| bencher.iter(|| must(save(folder.path(), black_box(&bytes)))));
    group.finish();
    Ok(())
}

/// A cluster whose third node leaves and returns.
struct Coming {
    cluster: TestCluster,
    written: u64,
    /// The number of returns, and how many of them used a snapshot.
    returns: (u64, u64),
}

impl Coming {
    async fn start(config: Config) -> Result<Self> {
        Ok(Self { cluster: TestCluster::start_with(3, config).await?, written: 0, returns: (0, 0) })
    }

    /// Lets n3 leave, commits [`MISSED`] entries, and measures from the start of n3 until it is active again.
    async fn once(&mut self) -> Result<Duration> {
        self.cluster.node(3)?.leave().await?;
        let (left, now) = self.go_on().await?;
        ensure!(now.get() >= left.get() + MISSED, "fewer entries were committed than n3 should miss");

        let began = Instant::now();
        let place = self.cluster.node(3)?;
        let who = place.start().await?;
        let node = place.handle()?;
        let active = |view: &quorate::View| view.cluster.life(who).is_some_and(|life| life.phase == Phase::Active);
        node.watch().wait_for(active).await?;
        let took = began.elapsed();

        // A node that received a snapshot lacks the events before it.
        let missing = node.events_since(left).next().await.context("the node has stopped")?;
        self.returns.0 += 1;
        self.returns.1 += u64::from(matches!(missing, FeedItem::Gap { .. }));
        Ok(took)
    }

    /// Commits the entries that n3 misses. Returns the revisions before and after them.
    async fn go_on(&mut self) -> Result<(Revision, Revision)> {
        let leader = self.cluster.leader().await?;
        let numbers = self.written..self.written + MISSED;
        self.written = numbers.end;
        let node = self.cluster.node(leader.get())?.handle()?;
        let before = node.view().cluster.revision();
        let commands = stream::iter(numbers).map(|number| async move {
            let second = Address::new(format!("never-called-{number}.example.net:7400"))?;
            let addresses = vec![MemoryNetwork::address(leader)?, second];
            node.propose(Command::SetAddresses { node: leader, addresses, by: None }).await?;
            anyhow::Ok(())
        });
        commands.buffer_unordered(32).try_collect::<Vec<()>>().await?;
        Ok((before, node.view().cluster.revision()))
    }
}

fn returns(criterion: &mut Criterion) -> Result<()> {
    let runtime = Runtime::new()?;
    let by_snapshot = Config { snapshot_every: 16, keep_entries: 0, ..fast() };
    let mut group = criterion.benchmark_group("return");
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(10));
    for (name, config) in [("by snapshot", by_snapshot), ("by log", fast())] {
        let mut coming = runtime.block_on(Coming::start(config))?;
        group.bench_function(name, |bencher| {
            let mut once = || must(runtime.block_on(coming.once()));
            bencher.iter_custom(|times| (0..times).map(|_| once()).sum());
        });
        let (all, snapshots) = coming.returns;
        println!("{name}: {snapshots} of {all} returns used a snapshot; each node had missed {MISSED} entries");
        for number in 1..=3 {
            runtime.block_on(coming.cluster.node(number)?.stop());
        }
    }
    group.finish();
    Ok(())
}

fn main() -> Result<()> {
    let mut criterion = Criterion::default().configure_from_args();
    pieces(&mut criterion)?;
    returns(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}
