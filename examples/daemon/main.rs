//! A node as a process of its own, for a program in another language to run beside itself.
//!
//! ```text
//!   daemon 1 /tmp/n1 127.0.0.1:7401 found                      once, on the first node
//!   daemon 2 /tmp/n2 127.0.0.1:7402 join 127.0.0.1:7401        once, on every other node
//!   daemon 2 /tmp/n2 127.0.0.1:7402 resume                     every later start
//!      │
//!      └─▶ prints `ready n2#1 127.0.0.1:7402` ─▶ serves the services of proto/quorate/v1 at that address
//! ```
//!
//! It runs no work of its own, so nothing has to be stopped or fenced when it is lost: the sessions of clients hold the
//! locks. `client.py` is such a client, and `.ci/python` tests it against three daemons.
//!
//! `QUORATE_TIMING` chooses its timing, the same for every daemon of a cluster: `standard` (as without it), `fast`, `patient`, or
//! `HEARTBEAT,MIN,MAX` in milliseconds, where MIN and MAX are the shortest and the longest election timeout. The lease is then
//! the shortest that these allow.
//!
//! `QUORATE_TLS` names a folder with `authority.pem`, `node.pem` and `node.key`; the daemon then listens with mutual TLS, and shows
//! what it finds there at each start of a life. Without it, anybody who reaches the port may command it.
//!
//! On SIGTERM and SIGINT it leaves, so that the next start of the node need not wait for the end of a former life.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use quorate::builder::Ready;
use quorate::lease::Stop;
use quorate::timing::Plan;
use quorate::tls::Credentials;
use quorate::{Cluster, NodeId, Profile, Timing, TokensOnly};
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "usage: daemon NUMBER FOLDER ADDRESS found|join ADDRESS...|resume";

/// How long a leave may take. Without a majority it cannot be committed, and the next start reports it instead.
const LEAVE_LIMIT: Duration = Duration::from_secs(6);

/// The timing that `QUORATE_TIMING` names.
fn timing(named: &str) -> Result<Timing> {
    if let Some(profile) = Profile::ALL.into_iter().find(|profile| profile.to_string() == named) {
        return Ok(profile.timing());
    }
    let wanted =
        || format!("QUORATE_TIMING is `{named}`; set it to standard, fast, patient, or HEARTBEAT,MIN,MAX in ms");
    let times = named.split(',').map(|part| part.trim().parse().map(Duration::from_millis));
    let times: Vec<Duration> = times.collect::<Result<_, _>>().with_context(wanted)?;
    let [heartbeat, election_min, election_max] = times.try_into().ok().with_context(wanted)?;
    let with = |lease: Duration| {
        let renew = (heartbeat * 2).min(lease / 8);
        let (round_trip, fsync) = (heartbeat / 5, heartbeat / 2);
        let stop = Stop::Tokens;
        let base = Plan { heartbeat, election_min, election_max, ..*Profile::Standard.timing().plan() };
        Timing::new(Plan { renew, lease, margin: lease / 5, stop, round_trip, fsync, ..base })
    };
    // From four election timeouts on, in steps of an eighth.
    let leases = (32..256).map(|eighths| election_max * eighths / 8);
    leases.map(with).reduce(|found, next| found.or(next)).context("no lease")?.with_context(wanted)
}

/// The node that a daemon is, listening on an address.
fn describe(number: u64, folder: &str, timing: Timing, listen: SocketAddr) -> Result<Ready> {
    let node = Cluster::builder(NodeId::new(number)).data(folder);
    let node = match std::env::var_os("QUORATE_TLS").map(PathBuf::from) {
        Some(keys) => {
            let shown = Credentials::read(keys.join("authority.pem"), keys.join("node.pem"), keys.join("node.key"));
            node.listen_tls(listen, shown.context("QUORATE_TLS")?)
        }
        None => node.listen_plaintext(listen),
    };
    let node = node
        // This process runs no work, so there is nothing to fence …
        .without_fencing()
        // … and nothing to stop: the resources that clients use check the clients' tokens. So elapsed time proves the
        // end of a daemon that was killed, and its next start only waits for that.
        .self_fencing(TokensOnly)
        .timing(timing);
    Ok(node)
}

/// Threads for its tasks. A command passes through many small tasks that wait for each other, so more threads mostly wake each
/// other: one serves thousands of commands a second. Reads gain from more on a larger machine.
fn workers() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / 4).clamp(1, 4)
}

fn main() -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(workers()).enable_all().build()?.block_on(run())
}

async fn run() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().context(USAGE);
    let number: u64 = next()?.parse().context("the number of the node")?;
    let folder = next()?;
    let mut listen: SocketAddr =
        next()?.parse().context("the address to listen on, such as 127.0.0.1:7401; port 0 takes a free one")?;
    let way = next()?;
    let seeds: Vec<String> = args.collect();

    // The engine below tells its own story at `info` and `warn`, of which operators need nothing.
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,openraft=off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr).init();

    // First of all, so that a signal during the start ends the process cleanly.
    let (mut terminated, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let timing = timing(&std::env::var("QUORATE_TIMING").unwrap_or_else(|_| "standard".into()))?;
    let describe = |listen| describe(number, &folder, timing, listen);
    let node = describe(listen)?;
    let coming_in = async {
        let cluster = match way.as_str() {
            "join" => {
                ensure!(!seeds.is_empty(), "the address of a member to join is missing; {USAGE}");
                node.join(seeds).await?
            }
            _ if !seeds.is_empty() => bail!("`{}`: too many arguments; {USAGE}", seeds.join(" ")),
            "found" => node.bootstrap().await?,
            "resume" => node.resume().await?,
            other => bail!("`{other}` is not one of found, join, resume; {USAGE}"),
        };
        cluster.active().await?;
        Ok(cluster)
    };
    let mut cluster = tokio::select! {
        come_in = coming_in => come_in?,
        _ = terminated.recv() => return Ok(()),
        _ = interrupted.recv() => return Ok(()),
    };
    loop {
        println!("ready {} {}", cluster.identity(), cluster.local_addr().context("it listens")?);
        tokio::select! {
            _ = terminated.recv() => break,
            _ = interrupted.recv() => break,
            // Such as after a pause of this process, in which the others gave it up.
            () = cluster.over() => {}
        }
        // At the same address, which others may know.
        listen = cluster.local_addr().unwrap_or(listen);
        tokio::select! {
            renewed = cluster.renew_life(describe(listen)?) => renewed?,
            _ = terminated.recv() => return Ok(()),
            _ = interrupted.recv() => return Ok(()),
        }
    }
    cluster.leave_within(LEAVE_LIMIT).await?;
    Ok(())
}
