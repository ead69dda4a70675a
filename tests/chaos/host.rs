//! The process of a host: a node as a program would run it, workers under locks, and clients of records.
//!
//! ```text
//!   stdin    leave · lead n2 · large · small · quiet · look · its end     what the director asks
//!   stdout   = n2#3 leader n1 term 4 quorate held active calm settled     ten times a second: how it stands
//!   n2.log   what its clients were told, what its replica says            for the audit
//! ```
//!
//! It ends when its life is over, has left, or the node has stopped by itself: whoever supervises it starts it again.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use quorate::{
    Cluster, Config, Deadman, Event, EventsError, Filter, Identity, NodeId, Revision, View,
    lease::LeaseStage,
    state::{Signal, Topic, duties},
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;

use crate::log::{self, Log, now};
use crate::{clients, keys, worker};

const PART: &str = "QUORATE_CHAOS_HOST";

/// How often a host says how it stands.
const SAYS: Duration = Duration::from_millis(100);

/// What a process is told.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) node: u64,
    /// `found`, `resume`, or the address of somebody to join.
    pub(crate) way: String,
    pub(crate) address: String,
    pub(crate) seed: u64,
    pub(crate) data: PathBuf,
    /// Where logs and the ledger are.
    pub(crate) run: PathBuf,
}

impl Part {
    /// For the environment of a process, and back.
    pub(crate) fn pack(&self) -> (&'static str, String) {
        let Self { node, way, address, seed, data, run } = self;
        (PART, format!("{node}\n{way}\n{address}\n{seed}\n{}\n{}", data.display(), run.display()))
    }

    /// The part of this process, if it was started for one.
    pub(crate) fn own() -> Result<Option<Self>> {
        let Ok(packed) = std::env::var(PART) else { return Ok(None) };
        let [node, way, address, seed, data, run] = packed.split('\n').collect::<Vec<_>>()[..] else {
            bail!("{packed}")
        };
        let (way, address) = (way.into(), address.into());
        Ok(Some(Self { node: node.parse()?, way, address, seed: seed.parse()?, data: data.into(), run: run.into() }))
    }
}

/// The standard profile, as shipped; folded more often, so that some come back from a snapshot. There is no device here, so what
/// is ordered is proved by time; orders because a machine refuses come as soon as with one that tells lives apart.
pub(crate) fn config() -> Config {
    Config {
        propose_timeout: Duration::from_secs(4),
        fence_refused_after: Some(Duration::from_millis(40)),
        snapshot_every: 800,
        keep_entries: 200,
        ..Config::default()
    }
}

/// What everybody in this process shares.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) who: Identity,
    pub(crate) log: Arc<Log>,
    pub(crate) run: Arc<Path>,
    stop: Arc<AtomicBool>,
    large: Arc<AtomicBool>,
}

impl Shared {
    /// Whether everybody is to come to an end.
    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Whether clients are to write much, so that every disk needs more room than it has.
    pub(crate) fn large(&self) -> bool {
        self.large.load(Ordering::SeqCst)
    }
}

/// What the director says, line by line.
fn orders() -> UnboundedReceiver<String> {
    let (said, orders) = unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if said.send(line).is_err() {
                return;
            }
        }
    });
    orders
}

/// Plays a part to its end.
pub(crate) async fn play(part: Part) -> Result<()> {
    let log = Arc::new(Log::open(&log::of(&part.run, part.node))?);
    let ended = live(&part, &log).await;
    if let Err(error) = &ended {
        log.say(&format!("! failed n{} {} {error:#}", part.node, now()))?;
    }
    ended
}

async fn live(part: &Part, log: &Arc<Log>) -> Result<()> {
    let mut orders = orders();
    let Some((cluster, mut early)) = enter(part, &mut orders).await? else { return Ok(()) };
    let who = cluster.identity();
    log.belongs_to(who);
    log.say(&format!("! up {who}"))?;
    let (cluster, stop, large) = (Arc::new(cluster), Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let run: Arc<Path> = part.run.as_path().into();
    let shared =
        Shared { cluster: cluster.clone(), who, log: log.clone(), run, stop: stop.clone(), large: large.clone() };
    let mut watching = JoinSet::new();
    watching.spawn(standing(cluster.clone()));
    watching.spawn(events(cluster.clone(), log.clone()));
    let mut busy = JoinSet::new();
    clients::spawn(&shared, part.seed, &mut busy);
    worker::spawn(&shared, part.seed, &mut busy);
    let mut watch = cluster.watch();
    let leaves = loop {
        let next = async {
            match early.pop_front() {
                Some(order) => Some(order),
                None => orders.recv().await,
            }
        };
        tokio::select! {
            over = watch.until(|view| view.cluster.has_ended(who) || view.local.stopped.is_some()) => {
                match over.and_then(|view| view.local.stopped) {
                    Some(why) => log.say(&format!("! stopped {who} {} {why}", now()))?,
                    None => log.say(&format!("! over {who}"))?,
                }
                return Ok(());
            }
            ended = busy.join_next() => ended.context("nobody is busy")??.context("somebody ended by itself")?,
            ended = watching.join_next() => ended.context("nobody watches")??.context("nobody watches any more")?,
            order = next => match order.as_deref().map(|line| line.split_once(' ').unwrap_or((line, ""))) {
                None => return Ok(()),
                Some((size @ ("large" | "small"), _)) => large.store(size == "large", Ordering::SeqCst),
                Some(("lead", to)) => lead(&shared, to.parse()?),
                Some(("leave", _)) => break true,
                Some(("quiet", _)) => break false,
                Some((other, _)) => bail!("no order: {other}"),
            },
        }
    };
    stop.store(true, Ordering::SeqCst);
    while let Some(ended) = busy.join_next().await {
        ended??;
    }
    if leaves {
        watching.shutdown().await;
        drop((shared, watch));
        let cluster = Arc::into_inner(cluster).context("somebody still uses the node")?;
        return match cluster.leave().await {
            Ok(_) => log.say(&format!("! left {who}")),
            Err(why) => log.say(&format!("! may have left {who}: {why}")),
        };
    }
    log.say(&format!("! quiet {who}"))?;
    while let Some(order) = orders.recv().await {
        ensure!(order == "look", "no order: {order}");
        clients::look(&shared).await?;
        log.say(&format!("! looked {who}"))?;
    }
    Ok(())
}

/// Comes in, and keeps what was said meanwhile. `None` if the director has gone.
async fn enter(part: &Part, orders: &mut UnboundedReceiver<String>) -> Result<Option<(Cluster, VecDeque<String>)>> {
    let builder = Cluster::builder(NodeId::new(part.node))
        .data(&part.data)
        .listen_tls(part.address.parse()?, keys::of(NodeId::new(part.node), &part.run)?)
        .without_fencing()
        .self_fencing(Deadman::new())
        .trust_vm_clock()
        .config(config())
        .timeout(Duration::from_secs(30));
    let entering = async {
        match part.way.as_str() {
            "found" => builder.bootstrap().await,
            "resume" => builder.resume().await,
            seed => builder.join([seed]).await,
        }
    };
    tokio::pin!(entering);
    let mut early = VecDeque::new();
    loop {
        tokio::select! {
            entered = &mut entering => return Ok(Some((entered?, early))),
            order = orders.recv() => match order {
                Some(order) => early.push_back(order),
                None => return Ok(None),
            },
        }
    }
}

/// Hands leadership over, if it is here; whether it moves is for the others to tell.
fn lead(shared: &Shared, to: u64) {
    let shared = shared.clone();
    tokio::spawn(async move {
        let told = match shared.cluster.hand_over(Some(NodeId::new(to))).await {
            Ok(leads) => format!("! handed over to {leads}"),
            Err(why) => format!("! not handed over: {why}"),
        };
        shared.log.say(&told)
    });
}

/// Says how this node stands, again and again.
async fn standing(cluster: Arc<Cluster>) -> Result<()> {
    loop {
        let view = cluster.view();
        std::io::stdout().write_all(line(cluster.identity(), &view).as_bytes()).context("the director")?;
        tokio::time::sleep(SAYS).await;
    }
}

fn line(who: Identity, view: &View) -> String {
    let View { cluster, local, .. } = view;
    let leader = local.leader.map_or(0, NodeId::get);
    let mut line = format!("= {who} leader {leader} term {}", local.term);
    let life_is_active = cluster.active().any(|active| active == who);
    let settled = duties(cluster).is_empty() && cluster.fences().open().next().is_none();
    for (word, holds) in [
        ("quorate", local.quorate),
        ("held", local.lease.stage == LeaseStage::Held && local.lease.trouble.is_none()),
        ("active", life_is_active),
        ("calm", local.sightings.values().all(|sighting| sighting.signal == Signal::Healthy)),
        ("settled", settled),
    ] {
        if holds {
            // A string takes everything.
            let _full = write!(line, " {word}");
        }
    }
    line.push('\n');
    line
}

/// Writes down what this replica says of the log, and when it heard of what the audit asks for.
async fn events(cluster: Arc<Cluster>, log: Arc<Log>) -> Result<()> {
    let topics = [Topic::Locks, Topic::Fencing, Topic::Leadership, Topic::Membership];
    let mut events = cluster.watch_events(Revision::default(), Filter::all().topics(topics));
    loop {
        match events.next().await {
            Ok(event) => {
                log.say(&format!("! event {} {event}", events.revision()))?;
                if matches!(
                    event,
                    Event::FenceOrdered { .. }
                        | Event::Fenced { .. }
                        | Event::Left { .. }
                        | Event::Activated { .. }
                        | Event::LeaderActivated { .. }
                ) {
                    log.say(&format!("@ {} {} {event}", now(), events.revision()))?;
                }
            }
            Err(EventsError::Gap { state }) => log.say(&format!("! gap until {}", state.revision()))?,
            // It has stopped: the end of this process is for others to see to.
            Err(_) => std::future::pending().await,
        }
    }
}
