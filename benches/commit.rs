//! The cost of a durable commit: three nodes on loopback over gRPC, each with its log on a real disk, compared with one
//! thread that only writes and syncs on the same disk at the same time.
//!
//! ```text
//!   client 1 … k ──set_addresses──▶ leader ──gRPC──▶ two followers        applied on the leader ──▶ answer
//!                                    fsync             fsync   fsync      (all three on one disk here)
//!   one thread   ──append──────────▶ file ──fdatasync──▶                  the file grows, so the file system writes its journal
//!   one thread   ──overwrite───────▶ file ──fdatasync──▶                  it does not grow, as in quorate's log
//! ```
//!
//! The rate of commits depends on the disk of a machine. Its ratio to the plain rates depends on it less.
//!
//! Each command changes the state (it sets an address that is new) without making it larger.
//!
//! `cargo bench --bench commit` measures with criterion; `cargo bench --bench commit -- --table`, or QUORATE_TABLE=1,
//! prints only the table, which takes seconds on a fast disk.

#[path = "common/must.rs"]
mod must;

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use criterion::{BenchmarkId, Criterion, Throughput};
use hdrhistogram::Histogram;
use must::must;
use quorate::{Address, Cluster, Config, NodeId, Timing};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// The numbers of commands in flight.
const IN_FLIGHT: [u64; 3] = [1, 16, 64];

/// The size of a plain record in bytes, about that of a command in the log.
const RECORD: [u8; 200] = [0x5a; 200];

/// How long the cluster may take to form.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The number of operations, the time that they took together, and the latency of each in nanoseconds.
struct Run {
    operations: u64,
    elapsed: Duration,
    latency: Histogram<u64>,
}

impl Run {
    fn per_second(&self) -> f64 {
        self.operations as f64 / self.elapsed.as_secs_f64()
    }
}

/// Three nodes in this process.
struct Three {
    leader: Arc<Cluster>,
    followers: Vec<Arc<Cluster>>,
    address: Address,
    written: Arc<AtomicU64>,
}

/// Relaxed timing, so that a pause of a shared machine causes no election and no fence order. A commit waits for none
/// of these timers.
fn calm() -> Config {
    let s = Duration::from_secs;
    // Five times the standard timing.
    let timing = Timing::new(Timing::default().plan().scaled(5, 1)).unwrap_or_default();
    Config { timing, suspect_after: Some(s(10)), fence_after: Some(s(30)), ..Config::default() }
}

impl Three {
    async fn start(folder: &Path) -> Result<Self> {
        let mut nodes: Vec<Arc<Cluster>> = vec![];
        for number in 1..=3 {
            let described = Cluster::builder(NodeId::new(number))
                .data(folder.join(format!("n{number}")))
                .listen_plaintext("127.0.0.1:0".parse()?)
                .without_fencing()
                .config(calm())
                .timeout(TIMEOUT);
            let node = match nodes.first() {
                None => described.bootstrap().await?,
                Some(first) => described.join([first.local_addr().context("it listens")?.to_string()]).await?,
            };
            nodes.push(Arc::new(node));
        }
        for node in &nodes {
            timeout(TIMEOUT, node.active()).await??;
        }
        let began = Instant::now();
        let leads = |node: &Arc<Cluster>| {
            let local = node.view().local;
            local.quorate && local.leader == Some(local.node)
        };
        let leader = loop {
            match nodes.iter().position(leads) {
                Some(place) => break nodes.remove(place),
                None if began.elapsed() > TIMEOUT => bail!("no node leads after {TIMEOUT:?}"),
                None => sleep(Duration::from_millis(20)).await,
            }
        };
        let address = Address::new(leader.local_addr().context("it listens")?.to_string())?;
        Ok(Self { leader, followers: nodes, address, written: Arc::default() })
    }

    /// Commits `operations` commands, `in_flight` at a time.
    async fn commit(&self, in_flight: u64, operations: u64) -> Result<Run> {
        let before = self.leader.view().cluster.epoch().get();
        let began = Instant::now();
        let left = Arc::new(AtomicU64::new(operations));
        let mut clients = JoinSet::new();
        for _ in 0..in_flight {
            let (leader, address) = (self.leader.clone(), self.address.clone());
            clients.spawn(client(leader, address, self.written.clone(), left.clone()));
        }
        let mut latency = Histogram::new(3)?;
        while let Some(done) = clients.join_next().await {
            latency.add(done??)?;
        }
        let elapsed = began.elapsed();
        let changes = self.leader.view().cluster.epoch().get() - before;
        ensure!(changes >= operations, "{operations} commands made {changes} changes");
        Ok(Run { operations, elapsed, latency })
    }

    async fn stop(self) -> Result<()> {
        for node in self.followers.into_iter().chain([self.leader]) {
            let node = Arc::into_inner(node).context("every client has ended")?;
            node.shutdown().await;
        }
        Ok(())
    }
}

/// One client, which sends each command after the answer to the one before.
async fn client(
    leader: Arc<Cluster>,
    address: Address,
    written: Arc<AtomicU64>,
    left: Arc<AtomicU64>,
) -> Result<Histogram<u64>> {
    let node = leader.identity().node;
    let mut latency = Histogram::new(3)?;
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
        let number = written.fetch_add(1, Ordering::Relaxed);
        // The first address is the real one, so other nodes still reach this node.
        let second = Address::new(format!("benchmark-{number:012}.never-called.example.net:7400"))?;
        let began = Instant::now();
        leader.set_addresses(node, vec![address.clone(), second]).await?;
        latency.record(nanoseconds(began.elapsed()))?;
    }
    Ok(latency)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The disk without quorate: a file that grows, and one of fixed size that is overwritten.
struct Plain {
    growing: File,
    whole: File,
}

/// The size in bytes of the file that does not grow.
const WHOLE: u64 = 4 << 20;

/// The distance in bytes between its records, so that each has a page of its own.
const PAGE: u64 = 4096;

impl Plain {
    fn make(folder: &Path) -> Result<Self> {
        let growing = File::options().create_new(true).append(true).open(folder.join("growing"))?;
        let mut whole = File::options().create_new(true).write(true).open(folder.join("whole"))?;
        whole.write_all(&vec![0; WHOLE as usize])?;
        whole.sync_all()?;
        Ok(Self { growing, whole })
    }

    /// Appends `operations` records, and syncs each before the next.
    fn append(&mut self, operations: u64) -> Result<Run> {
        alone(operations, |_| {
            self.growing.write_all(&RECORD)?;
            self.growing.sync_data()
        })
    }

    /// Overwrites `operations` records, and syncs each before the next.
    fn overwrite(&mut self, operations: u64) -> Result<Run> {
        alone(operations, |number| {
            self.whole.write_all_at(&RECORD, number * PAGE % WHOLE)?;
            self.whole.sync_data()
        })
    }
}

/// Runs the operations one after the other in this thread.
fn alone(operations: u64, mut operation: impl FnMut(u64) -> std::io::Result<()>) -> Result<Run> {
    let mut latency = Histogram::new(3)?;
    let began = Instant::now();
    for number in 0..operations {
        let start = Instant::now();
        operation(number)?;
        latency.record(nanoseconds(start.elapsed()))?;
    }
    Ok(Run { operations, elapsed: began.elapsed(), latency })
}

fn measure(criterion: &mut Criterion, runtime: &Runtime, three: &Three, plain: &mut Plain) {
    let mut group = criterion.benchmark_group("commit");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    let several = |one: &mut dyn FnMut() -> Result<Run>, times: u64| -> Duration {
        (0..times).map(|_| must(one()).elapsed).sum()
    };
    group.throughput(Throughput::Elements(64));
    group.bench_function("plain/append and fdatasync", |bencher| {
        bencher.iter_custom(|times| several(&mut || plain.append(64), times));
    });
    group.bench_function("plain/overwrite and fdatasync", |bencher| {
        bencher.iter_custom(|times| several(&mut || plain.overwrite(64), times));
    });
    for in_flight in IN_FLIGHT {
        let operations = 64 * in_flight;
        group.throughput(Throughput::Elements(operations));
        group.bench_function(BenchmarkId::new("in flight", in_flight), |bencher| {
            let mut one = || runtime.block_on(three.commit(in_flight, operations));
            bencher.iter_custom(|times| several(&mut one, times));
        });
    }
    group.finish();
}

/// Measures everything in five rounds, so that a disturbance of a shared machine affects every row, and prints the
/// median round of each row.
fn table(runtime: &Runtime, three: &Three, plain: &mut Plain) -> Result<()> {
    runtime.block_on(three.commit(16, 1000))?; // warms up: the first commits pay for growing files and cold code
    let mut rounds: [Vec<Run>; 5] = Default::default();
    for _ in 0..5 {
        rounds[0].push(plain.append(1000)?);
        rounds[1].push(plain.overwrite(1000)?);
        for (place, in_flight) in IN_FLIGHT.into_iter().enumerate() {
            rounds[place + 2].push(runtime.block_on(three.commit(in_flight, 500 * in_flight))?);
        }
    }
    let medians = rounds.map(|mut runs| {
        runs.sort_by(|a, b| a.per_second().total_cmp(&b.per_second()));
        runs.swap_remove(runs.len() / 2)
    });
    println!("\nthree nodes in one process, gRPC on loopback, one disk; the median of five rounds");
    println!("{:<24}{:>10}{:>12}{:>14}{:>11}{:>11}", "", "a second", "of append", "of overwrite", "p50 ms", "p99 ms");
    let (append, overwrite) = (medians[0].per_second(), medians[1].per_second());
    let plain = ["append + fdatasync", "overwrite + fdatasync"].map(String::from);
    let commits = IN_FLIGHT.map(|in_flight| format!("commit, {in_flight} in flight"));
    for (name, run) in plain.into_iter().chain(commits).zip(&medians) {
        let ms = |quantile| run.latency.value_at_quantile(quantile) as f64 / 1e6;
        let (rate, p50, p99) = (run.per_second(), ms(0.5), ms(0.99));
        let (of_append, of_overwrite) = (rate / append, rate / overwrite);
        println!("{name:<24}{rate:>10.0}{of_append:>12.2}{of_overwrite:>14.2}{p50:>11.2}{p99:>11.2}");
    }
    Ok(())
}

fn main() -> Result<()> {
    let only_table = std::env::args().any(|word| word == "--table") || std::env::var_os("QUORATE_TABLE").is_some();
    // Under `target`, which is on a disk. The folder for temporary files may be in memory.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let mut plain = Plain::make(folder.path())?;
    let runtime = Runtime::new()?;
    let three = runtime.block_on(Three::start(folder.path()))?;
    if !only_table {
        let mut criterion = Criterion::default().configure_from_args();
        measure(&mut criterion, &runtime, &three, &mut plain);
        criterion.final_summary();
    }
    table(&runtime, &three, &mut plain)?;
    runtime.block_on(three.stop())
}
