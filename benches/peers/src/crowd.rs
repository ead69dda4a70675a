//! Many members and watchers on one leader: what the leader uses, whether a lease lapses, and how long one more join takes.
//!
//! ```text
//!   three daemons: the voters, processes of their own    ◀── heartbeats, renewals ──▶   members: whole nodes, all in this process,
//!      leader ◀── streams `Watch` ── watchers, each with a connection of its own        learners with leases, on real sockets
//! ```
//!
//! The members share this machine with the leader, so what they use is printed beside it. Their folders are in `DATA`; where that
//! is memory (`/dev/shm`), a thousand logs do not wait for one disk.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use quorate::{Cluster as Node, Event, NodeId, Profile, Role, TokensOnly};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::cluster::{Client, Cluster, NODES, System, Usage};
use crate::ours::Way;

/// How often something is written, of which every member and every watcher hears.
const WRITES: Duration = Duration::from_secs(10);

/// Members that join at the same time.
const AT_ONCE: usize = 16;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Crowd {
    pub members: usize,
    pub watchers: usize,
    pub time: Duration,
    pub profile: Profile,
}

/// What happened to all members and watchers.
#[derive(Debug, Default)]
struct Counts {
    lapses: AtomicU64,
    fenced: AtomicU64,
    watched: AtomicU64,
}

pub async fn run(crowd: Crowd, daemon: &Path, data: &Path) -> Result<()> {
    let Crowd { members, watchers, time, profile } = crowd;
    let timing = profile.to_string();
    let system = System::Quorate { name: "quorate", daemon: daemon.to_owned(), timing, way: Way::Unary };
    let cluster = Cluster::start(system, data).await?;
    let (leader, counts) = (cluster.leader().await?, Arc::new(Counts::default()));
    let folder = data.join("members");
    let _there_before = std::fs::remove_dir_all(&folder);

    let began = Instant::now();
    let mut joined = vec![];
    let mut joining = JoinSet::new();
    let mut numbers = (NODES + 1) as u64..;
    while joined.len() < members {
        while joining.len() < AT_ONCE && joined.len() + joining.len() < members {
            let number = numbers.next().context("numbers")?;
            joining.spawn(join(number, folder.clone(), cluster.address(leader), profile));
        }
        joined.push(joining.join_next().await.context("nobody joins")???);
        if joined.len() % 100 == 0 {
            println!("{} members after {:.0} s", joined.len(), began.elapsed().as_secs_f64());
        }
    }
    for member in &joined {
        observe(member, counts.clone());
    }
    for _ in 0..watchers {
        watch(&cluster, leader, counts.clone()).await?;
    }
    sleep(Duration::from_secs(5)).await;

    let (before, own_before) = (Usage::of(cluster.pid(leader)?)?, Usage::of(std::process::id())?);
    let begun = Instant::now();
    let mut client = cluster.client(leader).await?;
    while begun.elapsed() < time {
        client.put("beat", b"v").await?;
        sleep(WRITES.min(time.saturating_sub(begun.elapsed()))).await;
    }
    let passed = begun.elapsed().as_secs_f64();
    let (after, own) = (Usage::of(cluster.pid(leader)?)?, Usage::of(std::process::id())?);
    let still = cluster.leader().await?;

    let one_more = Instant::now();
    let last = join(numbers.next().context("numbers")?, folder, cluster.address(leader), profile).await?;
    let one_more = one_more.elapsed();
    let share = |after: Usage, before: Usage| (after.cpu - before.cpu).as_secs_f64() / passed * 100.0;
    println!(
        "{members} members and {watchers} watchers, {profile}, {passed:.0} s: leader {:.1} % of a core, {:.0} switches a second, \
         {:.0} MB resident (all members together {:.0} % of a core); {} lapses, {} fenced, {} events watched; member {} active \
         {:.0} ms after it began",
        share(after, before),
        (after.switches - before.switches) as f64 / passed,
        after.resident as f64 / 1024.0,
        share(own, own_before),
        counts.lapses.load(Ordering::Relaxed),
        counts.fenced.load(Ordering::Relaxed),
        counts.watched.load(Ordering::Relaxed),
        last.identity(),
        one_more.as_secs_f64() * 1e3,
    );
    ensure!(still == leader, "leadership moved from node {leader} to {still}, so this is not of one leader");
    cluster.stop().await
}

/// A new member, once it is active.
async fn join(number: u64, folder: std::path::PathBuf, seed: String, profile: Profile) -> Result<Node> {
    let node = Node::builder(NodeId::new(number))
        .data(folder.join(number.to_string()))
        .listen_plaintext("127.0.0.1:0".parse()?)
        .without_fencing()
        .self_fencing(TokensOnly)
        .role(Role::Learner)
        .timing(profile)
        .timeout(Duration::from_secs(180))
        .join([seed])
        .await
        .with_context(|| format!("the join of n{number}"))?;
    node.active().await.with_context(|| format!("n{number} is not active"))?;
    Ok(node)
}

/// Counts how often the lease of a member is lost, and whether it is fenced.
fn observe(member: &Node, counts: Arc<Counts>) {
    let (lease, mut events, me) = (member.lease(), member.events(), member.identity());
    let fenced = counts.clone();
    tokio::spawn(async move {
        loop {
            lease.held().await;
            lease.lost().await;
            counts.lapses.fetch_add(1, Ordering::Relaxed);
        }
    });
    tokio::spawn(async move {
        while let Ok(event) = events.next().await {
            if matches!(event, Event::Fenced { who, .. } if who == me) {
                fenced.fenced.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
}

async fn watch(cluster: &Cluster, leader: usize, counts: Arc<Counts>) -> Result<()> {
    let Client::Quorate(mut client) = cluster.client(leader).await? else { return Ok(()) };
    let mut events = client.watch().await?;
    tokio::spawn(async move {
        while let Ok(Some(_)) = events.message().await {
            counts.watched.fetch_add(1, Ordering::Relaxed);
        }
    });
    Ok(())
}
