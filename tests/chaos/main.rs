//! Chaos on real processes: hosts in network namespaces, real nodes on them, and everything that a kernel can do to them.
//!
//! ```text
//!   director ──┬── n1  process, namespace, disk ──┐
//!              ├── n2                             ├── switch      workers under locks ─▶ ledger ─┐
//!              ├── n3                             ┘               clients of records  ─▶ logs   ─┴─▶ audit ─▶ report
//!              └── faults, by seed: ways cut, cables pulled, kill -9, SIGSTOP, full disks, busy processors, …
//! ```
//!
//! `make chaos MINUTES=5 HOSTS=3 SEED=7`, as root. Without hosts it is three and then five, half the time each; without a
//! seed one is drawn. With `LOAD=8`, eight other processes want a processor all the time. Needs `ip` (iproute2), `mount` and `unshare` (util-linux). What it makes lies in namespaces of its
//! own, that of mounts included, so that nothing of it is left even after a kill -9.
//!
//! **What it cannot see:** power cuts (an fsync that was left out shows nothing), clocks that drift or are set (all
//! processes read one), a network that delays or doubles. For those there are the crash tests of the log, the model and
//! the simulation.

#[path = "../history/agreement.rs"]
#[expect(dead_code, unused_imports, reason = "its own tests run in the test that it belongs to")]
mod agreement;
mod audit;
mod clients;
mod director;
mod disk;
mod faults;
mod fleet;
mod harm;
mod health;
mod host;
#[path = "../../examples/three_nodes/keys.rs"]
mod keys;
mod ledger;
#[path = "../history/linear.rs"]
#[expect(dead_code, reason = "its own tests run in the test that it belongs to")]
mod linear;
#[path = "../history/locks.rs"]
#[expect(dead_code, reason = "only part of it is needed here")]
mod locks;
mod log;
mod net;
#[path = "../history/op.rs"]
#[expect(dead_code, reason = "only part of it is needed here")]
mod op;
#[path = "../history/records.rs"]
mod records;
#[path = "../history/report.rs"]
#[expect(dead_code, reason = "only part of it is needed here")]
mod report;
mod signs;
mod stall;
mod summary;
#[path = "../history/witness.rs"]
mod witness;
mod worker;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use quorate::testing::sim::Rng;
use rustix::process::{Signal, geteuid, set_parent_process_death_signal};

use director::Director;
use fleet::{Ending, Fleet};
use stall::Stalls;
use summary::Summary;

/// For how many milliseconds this process is to do nothing but want a processor.
pub(crate) const SPIN: &str = "QUORATE_CHAOS_SPIN";

/// Said to the process that has its mounts for itself.
const APART: &str = "QUORATE_CHAOS_APART";

fn main() -> ExitCode {
    match part() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What this process is for: a host, a spinner, or the run.
fn part() -> Result<bool> {
    if let Some(part) = host::Part::own()? {
        // Nothing that ends the director leaves a host behind, not even one that is stopped.
        set_parent_process_death_signal(Some(Signal::KILL))?;
        let filter = tracing_subscriber::EnvFilter::try_from_default_env();
        let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(signs::LOGGED));
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_timer(signs::Clock);
        log.with_writer(std::io::stderr).init();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let ended = runtime.block_on(host::play(part));
        // Not dropped: that would wait for whoever still waits for something.
        runtime.shutdown_background();
        return ended.map(|()| true);
    }
    if let Ok(millis) = std::env::var(SPIN) {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        let until = Instant::now() + Duration::from_millis(millis.parse()?);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        return Ok(true);
    }
    ensure!(
        geteuid().is_root(),
        "chaos makes network namespaces and mounts disks, which only root may: run it as root (sudo -E make chaos)"
    );
    for (program, package) in [("ip", "iproute2"), ("mount", "util-linux"), ("unshare", "util-linux")] {
        let there =
            Command::new(program).arg("--version").output().is_ok() || Command::new(program).arg("-V").output().is_ok();
        ensure!(there, "chaos needs `{program}`: install {package} (apt-get install {package})");
    }
    if std::env::var(APART).is_err() {
        fs::create_dir_all("/run/netns")?;
        let mut apart = Command::new("unshare");
        apart.args(["--mount", "--propagation", "private"]).arg(std::env::current_exe()?).env(APART, "yes");
        return Err(apart.exec()).context("unshare: may this container make namespaces? It needs CAP_SYS_ADMIN");
    }
    net::run("mount", &["-t", "tmpfs", "-o", "size=1m,mode=755", "quorate-chaos", "/run/netns"])?;
    let given = Given::read()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut well = true;
    for hosts in &given.hosts {
        let length = given.length / u32::try_from(given.hosts.len())?;
        well &= runtime.block_on(run(given.seed, *hosts, length))?;
    }
    Ok(well)
}

/// What was asked for, in the environment.
#[derive(Debug)]
struct Given {
    seed: u64,
    hosts: Vec<u64>,
    length: Duration,
}

impl Given {
    fn read() -> Result<Self> {
        let asked = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let minutes: f64 = asked("MINUTES").map_or(Ok(5.0), |text| text.parse()).context("MINUTES is a number")?;
        ensure!((0.4..=10_000.0).contains(&minutes), "MINUTES lies between 0.4 and 10000");
        let seed = match asked("SEED") {
            Some(text) => text.parse().context("SEED is a whole number")?,
            None => Rng::new(log::now()).below(1_000_000),
        };
        let hosts = match asked("HOSTS").as_deref() {
            None => vec![3, 5],
            Some("3") => vec![3],
            Some("5") => vec![5],
            Some(other) => bail!("HOSTS is 3 or 5, not {other}"),
        };
        Ok(Self { seed, hosts, length: Duration::from_secs_f64(minutes * 60.0) })
    }
}

/// How many other processes want a processor all the time.
fn given_load() -> Result<u64> {
    let asked = std::env::var("LOAD").ok().filter(|text| !text.is_empty());
    let load = asked.map_or(Ok(0), |text| text.parse()).context("LOAD is a whole number")?;
    ensure!(load <= 64, "LOAD lies between 0 and 64");
    Ok(load)
}

/// Where reports, schedules, and the logs of a run that went wrong are kept.
fn kept() -> PathBuf {
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    temporary.parent().unwrap_or(temporary).join("chaos")
}

/// One run. `false` if anything was found that must not be.
async fn run(seed: u64, hosts: u64, length: Duration) -> Result<bool> {
    let (kept, name) = (kept(), format!("seed-{seed}-hosts-{hosts}"));
    let place = kept.join(format!("{name}-{}", std::process::id()));
    fs::create_dir_all(&place).with_context(|| place.display().to_string())?;
    println!("seed {seed}, {hosts} hosts, {:.1} minutes", length.as_secs_f64() / 60.0);
    let told = play(seed, hosts, length, &place, &kept.join(&name)).await;
    match &told {
        Ok(true) => fs::remove_dir_all(&place).context("tidying up")?,
        _ => println!("the logs are kept in {}", place.display()),
    }
    told
}

async fn play(seed: u64, hosts: u64, length: Duration, place: &Path, report: &Path) -> Result<bool> {
    let only = std::env::var("ONLY").ok().filter(|only| !only.is_empty());
    if let Some(kind) = &only {
        ensure!(faults::KNOWN.contains(&kind.as_str()), "ONLY is one of {:?}", faults::KNOWN);
    }
    let schedule = faults::schedule(seed, hosts, length, only.as_deref());
    let written: String = schedule.iter().map(|planned| format!("{planned}\n")).collect();
    fs::write(report.with_extension("schedule"), written)?;
    let stalls = Stalls::new(place)?;
    let mut director = Director::found(Fleet::new(place.into(), hosts, seed)?).await?;
    director.load(given_load()?, length)?;
    let begun = log::now();
    director.play(&schedule, length).await?;
    let (mended_after, missing) = director.mend().await?;
    let until = log::now();
    let endings = if missing.is_empty() { director.rest().await? } else { director.fleet.endings.clone() };
    director.health.stalls = stalls.noted();
    let judged = Duration::from_nanos(director.health.judged(until, audit::window()));
    let audit = audit::judge(place, hosts, &director.health, &endings)?;
    let starts_failed = endings.iter().filter(|(_, _, ending)| *ending == Ending::Failed).count();
    let met = director.met.clone();
    let stalls = director.health.stalls.len();
    drop(director);
    let summary =
        Summary { seed, hosts, length, only, met, audit, mended_after, stalls, judged, begun, missing, starts_failed };
    let mut text = summary.to_string();
    let violations = summary.violations();
    for violation in violations.iter().take(20) {
        text += &format!("VIOLATION {violation}\n");
    }
    if !violations.is_empty() {
        text += &format!("{} violations; the same faults again: {}\n", violations.len(), summary.replay());
    }
    print!("{text}");
    fs::write(report.with_extension("report"), text)?;
    Ok(violations.is_empty())
}
