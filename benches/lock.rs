//! The cost of locks, records and watches: three nodes on loopback over gRPC, each with its log on a real disk,
//! compared with one thread that only writes and syncs on the same disk at the same time.
//!
//! ```text
//!   lock + unlock      two commits by one client            compared with: write + fdatasync, one thread
//!   compare-and-set    one commit                           linearizable read   one round to a quorum, no disk
//!   hand-over          unlock on one node ──▶ guard on another; order to fence ──▶ guard on another (instant device)
//!   fan-out            one put ──▶ 1 000 watchers of one node have its event
//! ```
//!
//! `cargo bench --bench lock` measures `guard.check` with criterion and prints the table; `-- --table` only the table.

#[path = "common/must.rs"]
mod must;
#[path = "common/three.rs"]
mod three;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use criterion::Criterion;
use hdrhistogram::Histogram;
use must::must;
use quorate::{Cluster, Event, Filter, Key, Name, NodeId, Reason, state::Topic};
use three::TIMEOUT;
use tokio::task::JoinSet;

/// The numbers of operations in flight.
const IN_FLIGHT: [u64; 3] = [1, 16, 64];

/// How long each row is measured.
const SPAN: Duration = Duration::from_secs(3);

const WATCHERS: usize = 1000;

fn name(number: u64) -> Result<Name> {
    Ok(Name::new(format!("vm/{number}"))?)
}

fn key(number: u64) -> Result<Key> {
    Ok(Key::new(format!("services/{number}"))?)
}

/// Writes and syncs records of 200 bytes one after the other. Returns the rate per second that this disk gives one
/// thread.
fn plain(folder: &Path) -> Result<f64> {
    let (mut file, begun, mut done) = (File::create(folder.join("plain"))?, Instant::now(), 0);
    while begun.elapsed() < SPAN {
        file.write_all(&[0x5a; 200])?;
        file.sync_data()?;
        done += 1;
    }
    Ok(f64::from(done) / begun.elapsed().as_secs_f64())
}

/// Runs `work` in `in_flight` clients for a fixed time. Returns the operations per second, and the latency of each.
async fn closed_loop<F, Fut>(in_flight: u64, work: F) -> Result<(f64, Histogram<u64>)>
where
    F: Fn(u64) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<()>> + Send,
{
    let (work, done, begun) = (Arc::new(work), Arc::new(AtomicU64::new(0)), Instant::now());
    let mut clients = JoinSet::new();
    for client in 0..in_flight {
        let (work, done) = (work.clone(), done.clone());
        clients.spawn(async move {
            let mut latency = Histogram::<u64>::new(3)?;
            while begun.elapsed() < SPAN {
                let sent = Instant::now();
                work(client).await?;
                latency.record(sent.elapsed().as_nanos() as u64)?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(latency)
        });
    }
    let mut latency = Histogram::new(3)?;
    while let Some(ended) = clients.join_next().await {
        latency.add(ended??)?;
    }
    Ok((done.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64(), latency))
}

fn ms(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

fn row(what: &str, in_flight: u64, (rate, latency): &(f64, Histogram<u64>), plain: f64) {
    let (half, most) = (latency.value_at_quantile(0.5), latency.value_at_quantile(0.99));
    println!("{what:<24} {in_flight:>9} {rate:>9.0} {:>9.2} {:>9.2} {:>12.2}", ms(half), ms(most), rate / plain);
}

async fn rates(leader: &Arc<Cluster>, plain: f64) -> Result<()> {
    println!("{:<24} {:>9} {:>9} {:>9} {:>9} {:>12}", "", "in flight", "a second", "p50 ms", "p99 ms", "x one thread");
    for in_flight in IN_FLIGHT {
        let node = leader.clone();
        let pairs = closed_loop(in_flight, move |client| {
            let node = node.clone();
            async move { Ok(node.lock(name(client)?).await?.release().await?) }
        });
        row("lock + unlock", in_flight, &pairs.await?, plain);
    }
    for in_flight in IN_FLIGHT {
        let node = leader.clone();
        let sets = closed_loop(in_flight, move |client| {
            let records = node.records();
            async move {
                let version = records.get(&key(client)?).value.map(|record| record.version);
                records.put_if(key(client)?, version, vec![0x5a; 128]).await?;
                Ok(())
            }
        });
        row("compare-and-set, 128 B", in_flight, &sets.await?, plain);
    }
    for in_flight in IN_FLIGHT {
        let node = leader.clone();
        let reads = closed_loop(in_flight, move |client| {
            let records = node.records();
            async move {
                let seen = records.get_latest(&key(client)?, TIMEOUT).await?;
                ensure!(seen.value.is_some(), "the record is missing");
                Ok(())
            }
        });
        row("linearizable read", in_flight, &reads.await?, plain);
    }
    Ok(())
}

fn spread(what: &str, times: &[Duration]) {
    let mut sorted = times.to_vec();
    sorted.sort();
    let at = |place: usize| sorted.get(place).map_or(0.0, |time| time.as_secs_f64() * 1e3);
    let (least, half, most) = (at(0), at(sorted.len() / 2), at(sorted.len().saturating_sub(1)));
    println!("{what:<44} {:>3} times   min {least:>8.2}   median {half:>8.2}   max {most:>8.2} ms", sorted.len());
}

/// Measures from the unlock on one node to the guard on another node that waited for the lock.
async fn after_release(nodes: &[Arc<Cluster>]) -> Result<()> {
    let mut times = vec![];
    for turn in 0..30 {
        let (from, to) = (&nodes[turn % 3], nodes[(turn + 1) % 3].clone());
        let guard = from.lock(name(7)?).await?;
        let waiting = tokio::spawn(async move {
            to.lock(name(7)?).await.map(|guard| (guard, Instant::now())).map_err(anyhow::Error::from)
        });
        let seen = nodes[turn % 3].clone();
        let wanted = name(7)?;
        let in_line = async {
            while seen.view().cluster.store().lock(&wanted).is_none_or(|lock| lock.waiters().len() == 0) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(TIMEOUT, in_line).await?;
        let begun = Instant::now();
        drop(guard);
        let (next, had) = waiting.await??;
        times.push(had - begun);
        next.release().await?;
    }
    spread("hand-over after release", &times);
    Ok(())
}

/// Measures from the order to fence the holder to the guard on another node, with a device that answers at once.
async fn after_fencing(folder: &Path, mut nodes: Vec<Arc<Cluster>>) -> Result<()> {
    let mut times = vec![];
    for _ in 0..5 {
        let victim = nodes.pop().context("three nodes")?;
        let guard = victim.lock(name(8)?).await?;
        let successor = nodes[1].clone();
        let waiting = tokio::spawn(async move {
            successor.lock(name(8)?).await.map(|guard| (guard, Instant::now())).map_err(anyhow::Error::from)
        });
        tokio::time::sleep(Duration::from_millis(200)).await;
        let begun = Instant::now();
        nodes[0].fence(guard.who(), Reason::new("measured")?).await?;
        let (next, had) = waiting.await??;
        times.push(had - begun);
        drop(guard);
        next.release().await?;
        let number = victim.identity().node.get();
        let victim = Arc::into_inner(victim).context("another handle of the node is in use")?;
        victim.shutdown().await;
        nodes.push(Arc::new(three::start(folder, number, None, true).await?));
    }
    spread("hand-over after fencing (instant device)", &times);
    Ok(())
}

/// Measures from one put until the last of a thousand watchers has its event.
async fn fan_out(node: &Arc<Cluster>) -> Result<()> {
    let (heard, mut arrived) = tokio::sync::mpsc::unbounded_channel();
    let after = node.view().cluster.revision();
    let mut watchers = JoinSet::new();
    for _ in 0..WATCHERS {
        let (mut events, heard) =
            (node.watch_events(after, Filter::all().topics([Topic::Records]).prefix("fan/")), heard.clone());
        watchers.spawn(async move {
            while let Ok(Event::Put { .. }) = events.next().await {
                if heard.send(Instant::now()).is_err() {
                    return;
                }
            }
        });
    }
    let (mut put, mut told) = (vec![], vec![]);
    for turn in 0..30 {
        let begun = Instant::now();
        node.records().put(Key::new(format!("fan/{turn}"))?, "x").await?;
        put.push(begun.elapsed());
        let mut last = begun;
        for _ in 0..WATCHERS {
            last = last.max(arrived.recv().await.context("a watcher has ended")?);
        }
        told.push(last - begun);
    }
    spread("a put, alone", &put);
    spread(&format!("a put, until {WATCHERS} watchers have it"), &told);
    Ok(())
}

async fn table() -> Result<()> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let plain = plain(folder.path())?;
    println!("one thread that writes 200 bytes and syncs: {plain:.0} a second\n");
    let nodes: Vec<_> = three::three(folder.path()).await?.into_iter().map(Arc::new).collect();
    ensure!(nodes.iter().map(|n| n.identity().node).collect::<std::collections::BTreeSet<NodeId>>().len() == 3);
    rates(&nodes[0], plain).await?;
    println!();
    after_release(&nodes).await?;
    fan_out(&nodes[0]).await?;
    after_fencing(folder.path(), nodes).await
}

/// The check of a guard, which precedes every step that has an effect.
fn check(criterion: &mut Criterion) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let (_node, guard) = runtime.block_on(async {
        let node = three::start(folder.path(), 1, None, false).await?;
        let guard = node.lock(name(1)?).await?;
        anyhow::Ok((node, guard))
    })?;
    guard.check()?;
    criterion.bench_function("guard.check", |bencher| bencher.iter(|| guard.check()));
    Ok(())
}

fn main() {
    let table_only = std::env::args().any(|arg| arg == "--table") || std::env::var_os("QUORATE_TABLE").is_some();
    if !table_only {
        let mut criterion = Criterion::default().configure_from_args();
        must(check(&mut criterion));
        criterion.final_summary();
    }
    let runtime =
        must(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(Into::into));
    must(runtime.block_on(table()));
}
