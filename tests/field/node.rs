//! The process on a host: a node as a program would run it, which does what it is told on its standard input.
//!
//! ```text
//!   write N SIZE │ parallel K SIZE │ small SECONDS │ paced SECONDS │ fill N SIZE │ lock NAME │ crowd ADDRESS N │ active │
//!   who │ life │ ended LIFE │ links │ renew │ leave
//!   ──▶ one line of answer each
//! ```

use std::io::BufRead;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use quorate::builder::Ready;
use quorate::fencing::FenceHint;
use quorate::state::LinkView;
use quorate::{Cluster, Config, Deadman, Evidence, FenceRequest, LockGuard, NodeId, Profile};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::task::JoinSet;

use crate::keys;
use crate::net::PORT;

/// `NUMBER FOLDER ADDRESS found|resume|SEED`.
pub(crate) fn run(part: &str) -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,openraft=off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr).init();
    let [number, folder, address, way] = part.split(' ').collect::<Vec<_>>()[..] else { bail!("{part}") };
    tokio::runtime::Runtime::new()?.block_on(async {
        let hint = FenceHint::new(format!("pid {}", std::process::id()))?;
        let describe = || {
            // In every network that it has an address in.
            let listen = std::net::SocketAddr::from(([0, 0, 0, 0], PORT));
            let number = NodeId::new(number.parse()?);
            let keys = keys::of(number, std::env::var_os("KEYS").context("KEYS")?.as_ref())?;
            let node = Cluster::builder(number).data(folder).listen_tls(listen, keys);
            let profile = match std::env::var("PROFILE").as_deref() {
                Ok("patient") => Profile::Patient,
                _ => Profile::Standard,
            };
            let timing = profile.timing();
            let spares_idle = std::env::var_os("SPARES_IDLE").is_some_and(|wanted| wanted == "true");
            let config = Config { timing, spares_idle, propose_timeout: Duration::from_secs(60), ..Config::default() };
            let node = node
                .fencing(end_process)
                .advertise(address.split(','))
                .self_fencing(Deadman::new())
                .trust_vm_clock()
                .config(config);
            anyhow::Ok(node.fence_hint(hint.clone()).fencer_tells_lives_apart().timeout(Duration::from_secs(300)))
        };
        let began = Instant::now();
        let ready = describe()?;
        let cluster = match way {
            "found" => ready.bootstrap().await?,
            "resume" => ready.resume().await?,
            seed => ready.join([seed]).await?,
        };
        println!("in {} {:.2}", cluster.identity(), began.elapsed().as_secs_f64());
        serve(cluster, &describe).await
    })
}

/// Ends the process that the life named, and sees that it is gone. It tells lives apart: a later process has another number.
async fn end_process(request: FenceRequest) -> Result<Evidence> {
    let hint = request.hint.context("a life without a hint")?;
    ensure!(std::env::var_os("FENCER").is_none_or(|fencer| fencer != "fails"), "this fencer reaches nothing");
    let pid = hint.as_str().strip_prefix("pid ").context("a hint of another kind")?.parse()?;
    let pid = Pid::from_raw(pid).context("a process id")?;
    while test_kill_process(pid).is_ok() {
        let _gone_meanwhile = kill_process(pid, Signal::KILL);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(Evidence::new(format!("{hint} is gone"))?)
}

async fn serve(cluster: Cluster, describe: &dyn Fn() -> Result<Ready>) -> Result<()> {
    let mut cluster = Arc::new(cluster);
    let (told, mut orders) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if told.send(line).is_err() {
                return;
            }
        }
    });
    let mut held: Vec<LockGuard> = vec![];
    let mut crowd = vec![];
    while let Some(order) = orders.recv().await {
        let words: Vec<&str> = order.split(' ').collect();
        let answer = match words.as_slice() {
            ["write", count, size] => said(write(&cluster, count.parse()?, size.parse()?).await),
            ["parallel", count, size] => said(parallel(&cluster, count.parse()?, size.parse()?).await),
            ["small", seconds] => small(&cluster, Duration::from_secs(seconds.parse()?), 16, Duration::ZERO).await,
            // Some hundred a second: what is under way for a second is not more than the log remembers requests for.
            ["paced", seconds] => small(&cluster, Duration::from_secs(seconds.parse()?), 4, PACE).await,
            ["fill", count, size] => said(fill(&cluster, count.parse()?, size.parse()?).await),
            ["active"] => said(cluster.active().await.map_err(Into::into)),
            ["lock", name] => match cluster.lock(*name).await {
                Ok(guard) => {
                    held.push(guard);
                    "ok".into()
                }
                Err(error) => format!("error {error}"),
            },
            ["crowd", address, count] => {
                for _ in 0..count.parse()? {
                    crowd.extend(tokio::net::TcpStream::connect(address).await.ok());
                }
                crowd.len().to_string()
            }
            ["who"] => {
                let local = cluster.view().local;
                let leader = local.leader.map_or("nobody".into(), |leader| leader.to_string());
                format!("{leader} term {} quorate {}", local.term, local.quorate)
            }
            ["links"] => {
                let links = cluster.view().local.links;
                let told = links.iter().flat_map(|(node, of)| of.links.iter().map(move |link| (node, link)));
                let told = told.map(|(node, LinkView { address, state, used, .. })| {
                    format!("{node} {address} {state:?}{}", if *used { " used" } else { "" })
                });
                told.collect::<Vec<_>>().join(", ")
            }
            ["life"] => cluster.identity().to_string(),
            ["ended", life] => {
                let who = life.parse()?;
                format!("{}", cluster.view().cluster.has_ended(who))
            }
            ["renew"] => {
                let mut over = Arc::into_inner(cluster).context("nobody else has it")?;
                over.over().await;
                let began = Instant::now();
                over.renew_life(describe()?).await?;
                over.active().await?;
                cluster = Arc::new(over);
                format!("{} active after {:.2} s", cluster.identity(), began.elapsed().as_secs_f64())
            }
            ["leave"] => {
                held.clear();
                break;
            }
            _ => bail!("{order}"),
        };
        println!("{answer}");
    }
    let cluster = Arc::into_inner(cluster).context("nobody else has it")?;
    println!("{:?}", cluster.leave().await?);
    Ok(())
}

fn said(result: Result<()>) -> String {
    result.map_or_else(|error| format!("error {error:#}"), |()| "ok".into())
}

fn value(size: usize, seed: u64) -> Vec<u8> {
    (0..size as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(seed) >> 32) as u8).collect()
}

async fn write(cluster: &Cluster, count: u64, size: usize) -> Result<()> {
    let mut write = cluster.records().write();
    for place in 0..count {
        write = write.put(format!("k{place}"), value(size, place));
    }
    write.commit().await?;
    Ok(())
}

async fn parallel(cluster: &Arc<Cluster>, count: u64, size: usize) -> Result<()> {
    let mut writes = JoinSet::new();
    for place in 0..count {
        let cluster = cluster.clone();
        writes.spawn(async move { cluster.records().put(format!("p{place}"), value(size, place)).await });
    }
    for written in writes.join_all().await {
        written?;
    }
    Ok(())
}

/// How long a paced writer pauses.
const PACE: Duration = Duration::from_millis(10);

/// Small writes by so many writers for a while: how many, and the longest time between two of them.
async fn small(cluster: &Arc<Cluster>, length: Duration, writers: u64, pause: Duration) -> String {
    let (began, mut writes) = (Instant::now(), JoinSet::new());
    let (mut done, mut failed, mut last, mut longest) = (0_u64, 0_u64, Instant::now(), Duration::ZERO);
    let put = |writes: &mut JoinSet<_>, turn: u64| {
        let cluster = cluster.clone();
        writes.spawn(async move {
            tokio::time::sleep(pause).await;
            let put = cluster.records().put(format!("s{}", turn % 100), value(100, turn)).await;
            put.inspect_err(|error| eprintln!("a write failed: {error}")).is_ok()
        });
    };
    (0..writers).for_each(|turn| put(&mut writes, turn));
    while let Some(written) = writes.join_next().await {
        match written {
            Ok(true) => {
                (longest, last) = (longest.max(last.elapsed()), Instant::now());
                done += 1;
            }
            Ok(false) | Err(_) => failed += 1,
        }
        if began.elapsed() < length {
            put(&mut writes, done);
        }
    }
    format!("{done} done {failed} failed, longest gap {:.3} s", longest.as_secs_f64())
}

/// Records that stay.
async fn fill(cluster: &Cluster, count: u64, size: usize) -> Result<()> {
    for place in 0..count {
        cluster.records().put(format!("f{place}"), value(size, place)).await?;
    }
    Ok(())
}
