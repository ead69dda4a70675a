//! etcd and quorate side by side: three real processes of each on loopback, one disk, the same clients, interleaved passes.
//!
//! ```text
//!   pass 1   etcd  quorate  quorate on a stream      pass 2   etcd  quorate  …      medians, and ratios pair by pair
//! ```
//!
//!   make peers                 speed: put, linearizable get, lock + unlock at 1, 16 and 64 clients      PASSES=5 SECS=5
//!   make peers WHAT=failover   the leader is killed, or silent: time to the next acknowledged write, default and tuned   TRIALS=20
//!   make peers WHAT=idle       processor, memory and writes to sockets of nodes that have nothing to do       SECS=30
//!   make peers WHAT=crowd      many members and watchers on one leader    MEMBERS=1000 WATCHERS=100 SECS=600 TIMING=patient
//!   make peers WHAT=writes     bytes, writes, syncs, system calls and switches of the leader for one put
//!
//! `ETCD` names the program of etcd. Without it there is only quorate. `BEFORE` names a daemon of an earlier build, which is
//! measured as well. `KINDS="put get"`, `CLIENTS="1 64"` and `WAYS=stream` choose rows and columns of the speeds; `WAYS="stream
//! tls"` shows what TLS costs. Run it on a quiet machine; the load is printed with each pass.

mod calls;
mod cluster;
mod crowd;
mod etcd;
mod failover;
mod load;
mod ours;
mod table;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use quorate::Profile;

use self::cluster::{Cluster, System};
use self::crowd::Crowd;
use self::failover::Loss;
use self::load::{Kind, Measured};
use self::ours::Way;

/// The rows of the table: what is done, and by how many clients.
fn rows() -> Result<Vec<(Kind, usize)>> {
    let chosen = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.into());
    let kinds = chosen("KINDS", "put get lock");
    let clients = chosen("CLIENTS", "1 16 64");
    let mut rows = vec![];
    for kind in kinds.split_whitespace() {
        let known = Kind::ALL.into_iter().find(|known| known.short() == kind);
        let kind = known.with_context(|| format!("KINDS has `{kind}`, which is not one of put, get, lock"))?;
        for clients in clients.split_whitespace() {
            rows.push((kind, clients.parse().with_context(|| format!("CLIENTS has `{clients}`"))?));
        }
    }
    Ok(rows)
}

fn number(name: &str, default: usize) -> Result<usize> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name} is `{text}`, and should be a number")),
        Err(_) => Ok(default),
    }
}

/// Where programs and folders are.
struct Places {
    daemon: PathBuf,
    before: Option<PathBuf>,
    etcd: Option<PathBuf>,
    data: PathBuf,
}

impl Places {
    fn find() -> Result<Self> {
        let path = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let daemon = path("DAEMON").context("DAEMON names the example daemon; `make peers` sets it")?;
        let data = path("DATA").unwrap_or_else(|| std::env::temp_dir().join("quorate-peers"));
        std::fs::create_dir_all(&data)?;
        Ok(Self { daemon, before: path("BEFORE"), etcd: path("ETCD"), data })
    }

    /// etcd, an earlier build, and this one.
    fn systems(&self, tuned: bool, ways: &[(&'static str, Way)]) -> Vec<System> {
        let (heartbeat, election) = if tuned { (10, 100) } else { (100, 1000) };
        let etcd = self.etcd.iter().map(|program| System::Etcd { program: program.clone(), heartbeat, election });
        let timing = if tuned { "fast" } else { "standard" };
        let before = self.before.iter().map(|daemon| ("before", daemon, Way::Unary));
        let now = ways.iter().map(|(name, way)| (*name, &self.daemon, *way));
        let quorate = before.chain(now).map(|(name, daemon, way)| System::Quorate {
            name,
            daemon: daemon.clone(),
            timing: timing.into(),
            way,
        });
        etcd.chain(quorate).collect()
    }
}

const UNARY: (&str, Way) = ("quorate", Way::Unary);
const STREAM: (&str, Way) = ("on a stream", Way::Stream);
const TLS: (&str, Way) = ("with TLS", Way::Tls);

/// How our clients call.
fn ways() -> Result<Vec<(&'static str, Way)>> {
    let chosen = std::env::var("WAYS").unwrap_or_else(|_| "unary stream".into());
    let way = |name: &str| match name {
        "unary" => Ok(UNARY),
        "stream" => Ok(STREAM),
        "tls" => Ok(TLS),
        other => bail!("WAYS has `{other}`, which is not one of unary, stream, tls"),
    };
    chosen.split_whitespace().map(way).collect()
}

#[tokio::main]
async fn main() -> Result<()> {
    let places = Places::find()?;
    match std::env::args().nth(1).as_deref() {
        None | Some("speed") => speed(&places).await,
        Some("failover") => failover(&places).await,
        Some("idle") => idle(&places).await,
        Some("writes") => writes(&places).await,
        Some("crowd") => crowd(&places).await,
        Some(other) => bail!("`{other}` is not one of speed, failover, idle, writes, crowd"),
    }
}

fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("?").into()
}

async fn speed(places: &Places) -> Result<()> {
    let (passes, time) = (number("PASSES", 5)?, Duration::from_secs(number("SECS", 5)? as u64));
    let systems = places.systems(false, &ways()?);
    // By system, kind and clients: the outcome of each pass.
    let rows = rows()?;
    let mut found = vec![vec![Vec::<Measured>::new(); rows.len()]; systems.len()];
    for pass in 1..=passes {
        println!("pass {pass} of {passes}, load {}", load_average());
        for (system, found) in systems.iter().zip(&mut found) {
            let cluster = Cluster::start(system.clone(), &places.data).await?;
            for ((kind, clients), row) in rows.iter().zip(found) {
                row.push(load::run(&cluster, *kind, *clients, time).await?);
            }
            cluster.stop().await?;
        }
    }
    let names: Vec<&str> = systems.iter().map(System::name).collect();
    table::speed(&names, &rows, &found);
    Ok(())
}

async fn failover(places: &Places) -> Result<()> {
    let trials = number("TRIALS", 20)?;
    let rounds = [(Loss::Killed, false), (Loss::Killed, true), (Loss::Silent, false), (Loss::Silent, true)];
    for (how, tuned) in rounds {
        let times = if tuned { "tuned for speed" } else { "default times" };
        let how_said = if how == Loss::Killed { "killed" } else { "silent" };
        println!("leader {how_said}, {times}, load {}", load_average());
        for system in places.systems(tuned, &[UNARY]) {
            let (name, mut times) = (system.name(), vec![]);
            while times.len() < trials {
                // A node that keeps losing leadership is held back on purpose, so silences are tried on fresh clusters.
                let of_one = if how == Loss::Silent { 2 } else { trials };
                let mut cluster = Cluster::start(system.clone(), &places.data).await?;
                times.extend(failover::run(&mut cluster, of_one.min(trials - times.len()), how).await?);
                cluster.stop().await?;
            }
            times.sort_by(f64::total_cmp);
            table::times(name, &times);
        }
    }
    Ok(())
}

async fn idle(places: &Places) -> Result<()> {
    let time = Duration::from_secs(number("SECS", 30)? as u64);
    for system in places.systems(false, &[UNARY]) {
        let cluster = Cluster::start(system, &places.data).await?;
        let leader = cluster.leader().await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let before = cluster.usage()?;
        tokio::time::sleep(time).await;
        let after = cluster.usage()?;
        for (role, node) in [("leader", leader), ("follower", (leader + 1) % cluster::NODES)] {
            let calls = calls::trace(cluster.pid(node)?, time / 3, &places.data).await?;
            table::idle(cluster.system.name(), role, (&before[node], &after[node]), time, calls.as_ref(), time / 3);
        }
        cluster.stop().await?;
    }
    Ok(())
}

async fn crowd(places: &Places) -> Result<()> {
    let named = std::env::var("TIMING").unwrap_or_else(|_| "patient".into());
    let profile = Profile::ALL.into_iter().find(|profile| profile.to_string() == named);
    let profile = profile.with_context(|| format!("TIMING is `{named}`, which is no profile"))?;
    let (members, watchers) = (number("MEMBERS", 1000)?, number("WATCHERS", 100)?);
    let time = Duration::from_secs(number("SECS", 600)? as u64);
    crowd::run(Crowd { members, watchers, time, profile }, &places.daemon, &places.data).await
}

async fn writes(places: &Places) -> Result<()> {
    let time = Duration::from_secs(number("SECS", 5)? as u64);
    println!("of the leader, for one put of 128 bytes, traced (which makes everything slower)");
    for system in places.systems(false, &ways()?) {
        let cluster = Cluster::start(system, &places.data).await?;
        for (_, clients) in rows()?.into_iter().filter(|(kind, _)| *kind == Kind::Put) {
            let leader = cluster.leader().await?;
            let pid = cluster.pid(leader)?;
            let (outcome, calls) = traced(&cluster, clients, pid, time, &places.data).await?;
            table::writes(cluster.system.name(), clients, &outcome, calls.as_ref());
        }
        cluster.stop().await?;
    }
    Ok(())
}

/// A load, and the calls of one process during it. The trace covers the load and a moment before.
async fn traced(
    cluster: &Cluster,
    clients: usize,
    pid: u32,
    time: Duration,
    data: &Path,
) -> Result<(Traced, Option<calls::Calls>)> {
    let before = cluster::Usage::of(pid)?;
    let trace = calls::trace(pid, time + Duration::from_millis(1500), data);
    let load = load::run(cluster, Kind::Put, clients, time);
    let (calls, outcome) = tokio::join!(trace, load);
    let after = cluster::Usage::of(pid)?;
    let puts = outcome?.per_second * time.as_secs_f64();
    Ok((Traced { puts, switches: after.switches - before.switches }, calls?))
}

/// How many puts there were while a process was traced, and how often it was switched.
pub struct Traced {
    pub puts: f64,
    pub switches: u64,
}
