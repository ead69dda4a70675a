//! One process of the run: a node, and clients that use it and write down what they do.
//!
//! ```text
//!   stdin   quiet ─▶ clients end, "! quiet"    look ─▶ each record once more, "! looked"    end of file ─▶ this process ends
//!   log     ! up n2#3   ! active n2#3   > … < …   ! event r40 …      one write(2) a line, so that a kill cuts none in two
//! ```
//!
//! A dead-man ends this process at the end of its lease while it holds a lock, and time proves that to the others: so a
//! lock of a process that was killed, or stopped for too long, passes on without anybody having reached it.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use quorate::{
    Cluster, Config, Deadman, EventsError, Filter, Identity, Key, NodeId, Revision, Timing,
    lease::{Drift, Stop},
    state::Topic,
    timing::Plan,
};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;

use crate::clients;
use crate::op::{Call, CallResult};

const PART: &str = "QUORATE_TEST_HISTORY";

/// How many clients of records a node has; each lock has one more.
const CLIENTS: u64 = 4;

/// What a process of the run is told.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) node: u64,
    /// `found`, `resume`, or the address of somebody to join.
    pub(crate) way: String,
    pub(crate) address: String,
    pub(crate) seed: u64,
    pub(crate) folder: String,
}

impl Part {
    /// For the environment of a process, and back.
    pub(crate) fn pack(&self) -> (&'static str, String) {
        let Self { node, way, address, seed, folder } = self;
        (PART, format!("{node}\n{way}\n{address}\n{seed}\n{folder}"))
    }

    /// The part of this process, if it was started for one.
    pub(crate) fn own() -> Result<Option<Self>> {
        let Ok(packed) = std::env::var(PART) else { return Ok(None) };
        let [node, way, address, seed, folder] = packed.split('\n').collect::<Vec<_>>()[..] else { bail!("{packed}") };
        let [way, address, folder] = [way, address, folder].map(String::from);
        Ok(Some(Self { node: node.parse()?, way, address, seed: seed.parse()?, folder }))
    }
}

/// Quick enough that several holders are proved to be over in one run, slow enough for two busy cores.
fn config() -> Result<Config> {
    let ms = Duration::from_millis;
    let plan = Plan {
        heartbeat: ms(50),
        election_min: ms(200),
        election_max: ms(400),
        renew: ms(150),
        lease: ms(1600),
        margin: ms(300),
        stop: Stop::Unbounded, // replaced by the dead-man
        in_flight: Duration::ZERO,
        drift: Drift::default(),
        round_trip: ms(10),
        fsync: ms(30),
    };
    Ok(Config {
        timing: Timing::new(plan)?,
        suspect_after: Some(ms(400)),
        fence_after: Some(ms(1000)),
        propose_timeout: ms(2000),
        // So that some come back from a snapshot.
        snapshot_every: 1000,
        keep_entries: 200,
        ..Config::default()
    })
}

/// What CLOCK_BOOTTIME shows: the same for all processes of a machine.
pub(crate) fn now() -> u64 {
    let shown = clock_gettime(ClockId::Boottime);
    shown.tv_sec.unsigned_abs() * 1_000_000_000 + shown.tv_nsec.unsigned_abs()
}

/// The file that outlives the process.
#[derive(Debug)]
pub(crate) struct Log {
    file: File,
    next: AtomicU64,
}

impl Log {
    fn open(path: &Path) -> Result<Self> {
        Ok(Self { file: OpenOptions::new().append(true).create(true).open(path)?, next: AtomicU64::new(0) })
    }

    /// From here on numbers are those of this life.
    fn of(&self, who: Identity) {
        self.next.store(who.node.get() * 10_000_000_000 + who.incarnation.get() * 1_000_000, Ordering::SeqCst);
    }

    pub(crate) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::SeqCst)
    }

    pub(crate) fn say(&self, line: &str) -> Result<()> {
        (&self.file).write_all(format!("{line}\n").as_bytes()).context("the log of a process")
    }

    /// Before the call.
    pub(crate) fn begin(&self, id: u64, client: &str, call: &Call) -> Result<()> {
        self.say(&format!("> {id} {} {client} {call}", now()))
    }

    /// After it.
    pub(crate) fn end(&self, id: u64, outcome: &CallResult) -> Result<()> {
        self.end_at(id, now(), outcome)
    }

    pub(crate) fn end_at(&self, id: u64, at: u64, outcome: &CallResult) -> Result<()> {
        self.say(&format!("< {id} {at} {}", outcome.to_string().replace('\n', " ")))
    }
}

/// What the parent says, line by line.
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

/// Plays a part to its end: a kill, the end of this life, or the end of the run.
pub(crate) async fn play(part: Part) -> Result<()> {
    let folder = Path::new(&part.folder);
    let log = Arc::new(Log::open(&folder.join(format!("n{}.log", part.node)))?);
    let builder = Cluster::builder(NodeId::new(part.node))
        .data(folder.join(format!("n{}", part.node)))
        .listen_plaintext(part.address.parse()?)
        .without_fencing()
        .self_fencing(Deadman::new())
        .trust_vm_clock()
        .config(config()?)
        .timeout(Duration::from_secs(30));
    let mut orders = orders();
    let entering = async {
        match part.way.as_str() {
            "found" => builder.bootstrap().await,
            "resume" => builder.resume().await,
            seed => builder.join([seed]).await,
        }
    };
    tokio::pin!(entering);
    // What was said before it was in.
    let mut early = VecDeque::new();
    let cluster = loop {
        tokio::select! {
            entered = &mut entering => break Arc::new(entered?),
            order = orders.recv() => match order {
                Some(order) => early.push_back(order),
                None => return Ok(()),
            },
        }
    };
    let mut next = async || match early.pop_front() {
        Some(order) => Some(order),
        None => orders.recv().await,
    };
    let who = cluster.identity();
    log.of(who);
    log.say(&format!("! up {who}"))?;
    let stop = Arc::new(AtomicBool::new(false));
    let shared = clients::Shared { cluster: cluster.clone(), log: log.clone(), stop: stop.clone(), who };
    let mut tasks = JoinSet::new();
    for client in 1..=CLIENTS {
        tasks.spawn(clients::records(shared.clone(), format!("{who}/c{client}"), part.seed ^ client));
    }
    let resource = Arc::new(OpenOptions::new().append(true).create(true).open(folder.join("resource"))?);
    for (name, salt) in clients::LOCKS.iter().zip(100..) {
        tasks.spawn(clients::holder(shared.clone(), name, resource.clone(), part.seed ^ salt));
    }
    tokio::spawn(events(cluster.clone(), log.clone()));
    tokio::spawn(active(cluster.clone(), log.clone()));
    let mut watch = cluster.watch();
    tokio::select! {
        order = next() => if order.is_none() { return Ok(()) },
        over = watch.until(|view| view.cluster.has_ended(who) || view.local.stopped.is_some()) => {
            if let Some(why) = over.and_then(|view| view.local.stopped) {
                bail!("{who} has stopped by itself: {why}");
            }
            // Others were told that this life can do no more: the next one begins with another process.
            return log.say(&format!("! over {who}"));
        }
        ended = tasks.join_next() => match ended {
            Some(ended) => return ended?.context("a client ended by itself"),
            None => bail!("there are no clients"),
        },
    }
    stop.store(true, Ordering::SeqCst);
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    log.say(&format!("! quiet {who}"))?;
    if next().await.is_some() {
        clients::look(&shared).await?;
        log.say(&format!("! looked {who}"))?;
        while next().await.is_some() {}
    }
    Ok(())
}

async fn active(cluster: Arc<Cluster>, log: Arc<Log>) -> Result<()> {
    cluster.active().await?;
    log.say(&format!("! active {}", cluster.identity()))
}

/// Writes down what this replica says of locks and ends.
async fn events(cluster: Arc<Cluster>, log: Arc<Log>) -> Result<()> {
    let filter = Filter::all().topics([Topic::Locks, Topic::Fencing]);
    let mut events = cluster.watch_events(Revision::default(), filter);
    loop {
        match events.next().await {
            Ok(event) => log.say(&format!("! event {} {event}", events.revision()))?,
            Err(EventsError::Gap { state }) => log.say(&format!("! gap until {}", state.revision()))?,
            // Stopped, and no more will come.
            Err(_) => return Ok(()),
        }
    }
}

/// A key of a record that clients fight for.
pub(crate) fn key(text: &str) -> Result<Key> {
    Ok(Key::new(text)?)
}
