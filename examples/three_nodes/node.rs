//! One node of the demo: a quorate node, its manager (manager.rs), and the orders of the director.
//!
//! ```text
//!   events ──────▶ Manager ──▶ lease.spawn(worker), stop          stdin: leave │ remove n3 │ lead n2 │ fencer off
//!   lease.lost() ─▶   │                                                  block │ spin      (faults inside the process)
//!                     └──▶ stdout: one line of JSON for each event that the director times
//! ```

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use quorate::{Cluster, Deadman, Event, NodeId, ProposeError, Revision, lease::Stop};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::fencer::{self, Fencer, ProcessGroups};
use crate::keys;
use crate::manager::Manager;
use crate::pace::Pace;
use crate::process;

/// The number of threads of a node's runtime.
const THREADS: usize = 2;

/// The arguments of a node's process.
#[derive(Debug)]
pub(crate) struct Place {
    number: u64,
    pub(crate) folder: PathBuf,
    pub(crate) guardian: (i32, u64),
    /// The address of the relay in front of it. The node advertises this instead of its own address.
    relay: String,
    pace: Pace,
    /// `found`, `resume`, or the addresses to join through.
    way: String,
}

/// `node NUMBER FOLDER GUARDIAN SINCE RELAY PACE found|resume|ADDRESS,ADDRESS…`
pub(crate) fn main(mut args: impl Iterator<Item = String>) -> Result<()> {
    let mut next = |what: &'static str| args.next().with_context(|| format!("the node needs {what}"));
    let place = Place {
        number: next("a number")?.parse()?,
        folder: next("a folder")?.into(),
        guardian: (next("a guardian")?.parse()?, next("its start")?.parse()?),
        relay: next("a relay")?,
        pace: next("a pace")?.parse()?,
        way: next("a way in")?,
    };
    // openraft logs errors when a node leaves. Lost leases are expected here. RUST_LOG shows everything.
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error,openraft=off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    process::end_with(place.guardian.0, place.guardian.1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?;
    let ended = runtime.block_on(run(&place));
    // Dropping the runtime would wait for the next order on stdin.
    runtime.shutdown_background();
    if let Err(error) = &ended {
        say(json!({ "error": format!("{error:#}") }));
    }
    ended
}

/// Writes one line to the director.
pub(crate) fn say(mut line: Value) {
    line["at"] = process::monotonic_ns().into();
    // If the director is gone, this process ends by itself; see `process::end_with`.
    let _unheard = writeln!(std::io::stdout(), "{line}");
}

async fn run(place: &Place) -> Result<()> {
    let groups = ProcessGroups { folder: place.folder.join("groups") };
    let off = Arc::new(AtomicBool::new(false));
    let cluster = enter(place, Fencer { groups, off: off.clone() }).await?;
    let me = cluster.identity();
    say(json!({ "kind": "joined", "who": me.to_string() }));

    let mut events = cluster.events_since(Revision::default());
    let mut manager = Manager::new(me, cluster.lease(), place);
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    let cluster = Arc::new(cluster);
    let leaves = loop {
        tokio::select! {
            event = events.next() => {
                let event = event.context("this demo cannot continue after a gap in its events")?;
                report(&event);
                manager.handle(&event, events.revision()).await?;
                if let Event::Fenced { who, .. } = event && who == me {
                    // This life has ended, so the process exits. The director starts the node again as a new life.
                    say(json!({ "kind": "over", "who": me.to_string() }));
                    break false;
                }
            }
            order = orders.next_line() => {
                let order = order?.context("the director is gone")?;
                if order == "leave" {
                    break true;
                }
                obey(&order, &cluster, &off);
            }
            turn = manager.turn() => manager.follow(turn).await?,
        }
    };
    // Stop the work first, then leave.
    manager.stop().await?;
    // An order that still runs keeps a handle, and ends with this process.
    if let Some(cluster) = Arc::into_inner(cluster) {
        match leaves {
            true => {
                cluster.leave().await?;
            }
            false => cluster.shutdown().await,
        }
    }
    say(json!({ "kind": "gone", "who": me.to_string() }));
    Ok(())
}

/// Starts the node and enters the cluster by the way that the director chose.
async fn enter(place: &Place, fencer: Fencer) -> Result<Cluster> {
    let config = place.pace.config()?;
    let Stop::Deadman { lateness } = config.timing.plan().stop else {
        anyhow::bail!("the timings of this demo must be for a dead-man");
    };
    let number = NodeId::new(place.number);
    let node = Cluster::builder(number)
        .data(place.folder.join(format!("n{}", place.number)))
        .listen_tls("127.0.0.1:0".parse()?, keys::of(number, &place.folder)?)
        .fencing(move |request| fencer.clone().fence(request))
        .fence_hint(fencer::hint()?)
        .fencer_tells_lives_apart()
        .self_fencing(Deadman::within(lateness))
        // Safe in this demo, because all nodes and the worker run on one machine. A host that freezes it freezes them
        // all, so no other node can take over meanwhile. On a real cluster, declare this only for a host that you know.
        .trust_vm_clock()
        .config(config)
        .advertise([place.relay.as_str()]);
    Ok(match place.way.as_str() {
        "found" => node.bootstrap().await?,
        "resume" => node.resume().await?,
        seeds => node.join(seeds.split(',')).await?,
    })
}

/// Carries out an order of the director, or starts to.
fn obey(order: &str, cluster: &Arc<Cluster>, off: &AtomicBool) {
    let words: Vec<&str> = order.split(' ').collect();
    match words[..] {
        ["fencer", state @ ("on" | "off")] => {
            off.store(state == "off", Ordering::SeqCst);
            say(json!({ "kind": "fencer", "state": state }));
        }
        ["remove", node] => {
            let (cluster, node) = (cluster.clone(), node.to_owned());
            tokio::spawn(async move {
                match remove(&cluster, &node).await {
                    Ok(revision) => say(json!({ "kind": "removed", "node": node, "revision": revision.get() })),
                    Err(error) => say(json!({ "error": format!("removing {node}: {error:#}") })),
                }
            });
        }
        ["lead", node] => {
            let (cluster, node) = (cluster.clone(), node.to_owned());
            tokio::spawn(async move {
                // A failure is reported, not fatal: the director observes which node leads.
                let said = match node.parse() {
                    Ok(to) => cluster.hand_over(Some(to)).await.map_or_else(|e| e.to_string(), |to| to.to_string()),
                    Err(_) => format!("`{node}` is not a node"),
                };
                say(json!({ "kind": "handed over", "text": said }));
            });
        }
        ["block"] => {
            say(json!({ "kind": "sick" }));
            for _ in 0..THREADS * 2 {
                tokio::spawn(async { never_yields() });
            }
            never_yields();
        }
        ["spin"] => {
            let cores = std::thread::available_parallelism().map_or(2, usize::from);
            for _ in 0..cores * 4 {
                std::thread::spawn(|| {
                    loop {
                        std::hint::spin_loop();
                    }
                });
            }
            say(json!({ "kind": "sick" }));
        }
        _ => say(json!({ "error": format!("`{order}` is not an order") })),
    }
}

/// Blocks the calling thread of the runtime without an end, which an async task must never do.
fn never_yields() {
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Removes a node. It tries again while the outcome is unknown, because the leader that got the command may be the node
/// that is leaving.
async fn remove(cluster: &Cluster, node: &str) -> Result<Revision> {
    let node = node.parse()?;
    let mut removed = cluster.remove(node).await;
    for _ in 0..5 {
        match removed {
            Err(ProposeError::OutcomeUnknown { .. }) => removed = cluster.remove(node).await,
            other => return Ok(other?.revision),
        }
    }
    Ok(removed?.revision)
}

/// Reports an event to the director, which times it.
fn report(event: &Event) {
    let kind = match event {
        Event::Activated { .. } => "activated",
        Event::FenceOrdered { .. } => "ordered",
        Event::Fenced { .. } => "fenced",
        Event::Left { .. } => "left",
        Event::Removed { .. } => "out",
        Event::Configured { .. } => "configured",
        Event::LeaderActivated { .. } => "leads",
        Event::Corroborated { .. } => "corroborated",
        _ => return,
    };
    let mut line = json!({ "kind": kind, "text": event.to_string() });
    if let Some(who) = event.who() {
        line["who"] = who.to_string().into();
    }
    match event {
        Event::Fenced { proof, .. } | Event::Corroborated { proof, .. } => line["proof"] = proof.kind().into(),
        Event::Left { .. } => line["proof"] = "clean leave".into(),
        Event::Removed { node, .. } => line["node"] = node.to_string().into(),
        Event::LeaderActivated { leadership } => {
            line["node"] = leadership.leader.to_string().into();
            line["activation"] = leadership.activation.get().into();
        }
        _ => {}
    }
    say(line);
}
