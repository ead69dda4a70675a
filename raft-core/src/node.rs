//! One node: starts the engine, shows what it sees, stops. How it comes in is in `enter.rs`, how its commands find the
//! leader in `propose.rs`.
//!
//! ```text
//!   start ──▶ bootstrap │ join │ resume ──▶ (a life is known, `Joining`) ──reconcile──▶ `Active` ──▶ leave │ shutdown
//! ```

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::stream::BoxStream;
use openraft::async_runtime::WatchReceiver;
use openraft::{SnapshotPolicy, StepDownPolicy};
use quorate_membership::detector::Moment;
use quorate_membership::{Address, Command, Identity, NodeId, Nonce, Revision};
use tokio::sync::watch;

use crate::clock;
use crate::config::Config;
use crate::error::{Fatal, HandOverError, ProposeError, ReadError, StartError};
use crate::feed::{Feed, FeedItem};
use crate::fencer::Fencer;
use crate::folder::{Folder, random};
use crate::gate::Gate;
use crate::log_store::{LogStore, OpenError};
use crate::machine::Machine;
use crate::network::{Contacts, Links, Wire};
use crate::transport::{Service, Transport};
use crate::types::Raft;
use crate::view::{Local, View};
use crate::{monitor, reconcile, service};

/// What a node needs to start.
pub struct NodeSettings {
    /// Which node it is. At least 1; chosen once for a disk.
    pub node: NodeId,
    /// Its data folder, made if it is not there.
    pub data: PathBuf,
    /// Where the others can reach it: between 1 and 8 addresses. Committed with each join.
    pub addresses: Vec<Address>,
    /// How it behaves in time.
    pub config: Config,
    /// How it speaks.
    pub transport: Arc<dyn Transport>,
    /// How it fences. `None`: open orders wait for an operator's word or for a node that can.
    pub fencer: Option<Arc<dyn Fencer>>,
}

/// The end of a command that was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// Where it stands in the log. Its events are in the feed under this revision, and this node has applied it.
    pub revision: Revision,
}

/// A running node. Dropping it stops its work without waiting; [`Node::shutdown`] waits.
pub struct Node {
    pub(crate) inner: Arc<Inner>,
    stop: watch::Sender<bool>,
}

pub(crate) struct Inner {
    pub(crate) node: NodeId,
    pub(crate) session: Nonce,
    pub(crate) addresses: Vec<Address>,
    pub(crate) config: Config,
    pub(crate) raft: Raft,
    pub(crate) machine: Machine,
    pub(crate) store: LogStore,
    pub(crate) feed: Feed,
    pub(crate) wire: Arc<Wire>,
    pub(crate) gate: Gate,
    pub(crate) fencer: Option<Arc<dyn Fencer>>,
    pub(crate) view: watch::Sender<View>,
    pub(crate) embargo_ends: Option<Moment>,
    pub(crate) folder: Mutex<Option<Folder>>,
    identity: OnceLock<Identity>,
    shut: OnceLock<()>,
}

fn engine_config(config: &Config, stand: bool) -> Result<openraft::Config, StartError> {
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let made = openraft::Config {
        cluster_name: "quorate".into(),
        heartbeat_interval: ms(config.heartbeat),
        election_timeout_min: ms(config.election_min),
        election_timeout_max: ms(config.election_max),
        install_snapshot_timeout: 30_000,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_every),
        replication_lag_threshold: config.snapshot_every * 2,
        max_in_snapshot_log_to_keep: config.keep_entries,
        purge_batch_size: 64,
        backoff: "20ms 40ms 80ms ...200ms".into(),
        enable_elect: stand,
        enable_pre_vote: Some(true),
        // A restarted leader must be elected anew: what it believed before its restart proves nothing.
        enable_leader_restore: Some(false),
        // Without it a connected majority can stay without a leader under a bridge partition (openraft#2080).
        quorum_loss_probe_interval: Some(2 * ms(config.election_max)),
        broadcast_submitted_on_append: Some(true),
        removed_leader_step_down: StepDownPolicy::After(ms(config.election_min)),
        ..Default::default()
    };
    made.validate().map_err(|e| StartError::Engine(e.to_string()))
}

impl Node {
    /// Opens the data folder and starts the engine. The node belongs to a cluster only after [`Node::bootstrap`],
    /// [`Node::join`] or [`Node::resume`]; its [`Node::service`] may be served from now on.
    ///
    /// # Errors
    /// [`StartError`]; the opening of the folder is counted even if a later step fails, nothing else is changed.
    pub async fn start(settings: NodeSettings) -> Result<Self, StartError> {
        settings.config.check()?;
        let (node, data) = (settings.node, settings.data.clone());
        if node.get() == 0 {
            let why = "nodes are numbered from 1".into();
            return Err(StartError::Config { what: "the node", value: node.to_string(), why });
        }
        let (folder, store) = tokio::task::spawn_blocking(move || open(&data, node))
            .await
            .map_err(|e| StartError::Engine(e.to_string()))??;
        Self::run(settings, folder, store).await
    }

    /// Starts the engine on an open folder and an open log.
    pub(crate) async fn run(settings: NodeSettings, folder: Folder, store: LogStore) -> Result<Self, StartError> {
        let NodeSettings { node, data: _, addresses, config, transport, fencer } = settings;
        let session = Nonce::new(random().map_err(|source| StartError::Folder { path: folder.path().into(), source })?);
        let feed = Feed::new(config.event_history);
        let machine = Machine::new(store.clone(), feed.clone());
        let wire = Arc::new(Wire {
            transport,
            node,
            disk: folder.disk(),
            session,
            timing: config.timing_hash(),
            cluster: Mutex::new(folder.cluster()),
            feed: feed.clone(),
            contacts: Contacts::default(),
            hints: Mutex::default(),
        });
        // P22: who voted before may still be bound by a promise that it has forgotten.
        let voted = store.vote().is_some();
        let embargo_ends = voted.then(|| Moment::new(clock::now().since_origin() + config.embargo()));
        let engine = Arc::new(engine_config(&config, !voted)?);
        let raft = Raft::new(node.get(), engine, Links(wire.clone()), store.clone(), machine.clone())
            .await
            .map_err(|e| StartError::Engine(e.to_string()))?;
        let view = watch::Sender::new(View { cluster: feed.state(), local: Local::unknown(node) });
        let (folder, gate) = (Mutex::new(Some(folder)), Gate::default());
        let (identity, shut) = (OnceLock::new(), OnceLock::new());
        let inner = Arc::new(Inner {
            node,
            session,
            addresses,
            config,
            raft,
            machine,
            store,
            feed,
            wire,
            gate,
            fencer,
            view,
            embargo_ends,
            folder,
            identity,
            shut,
        });
        let stop = watch::Sender::new(false);
        tokio::spawn(monitor::run(inner.clone(), stop.subscribe()));
        tokio::spawn(reconcile::run(inner.clone(), stop.subscribe()));
        Ok(Self { inner, stop })
    }

    /// What a server offers on behalf of this node.
    pub fn service(&self) -> Arc<dyn Service> {
        Arc::new(service::Door(self.inner.clone()))
    }

    pub(crate) fn path(&self) -> PathBuf {
        let folder = self.inner.folder.lock().unwrap_or_else(PoisonError::into_inner);
        folder.as_ref().map(|f| f.path().to_path_buf()).unwrap_or_default()
    }

    /// This life's name; `None` until its join is applied here.
    pub fn identity(&self) -> Option<Identity> {
        self.inner.identity()
    }

    /// The latest picture.
    pub fn view(&self) -> View {
        self.inner.latest()
    }

    /// The latest picture, and a wake-up with each new one.
    pub fn watch(&self) -> watch::Receiver<View> {
        self.inner.view.subscribe()
    }

    /// Every event after `revision`, then each as it is committed; see [`FeedItem`].
    pub fn events_since(&self, revision: Revision) -> BoxStream<'static, FeedItem> {
        self.inner.feed.since(revision)
    }

    /// Proposes a command, through whoever leads, and waits until it is applied here.
    ///
    /// # Errors
    /// [`ProposeError`] tells "nothing changed" from "unknown".
    pub async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        self.inner.propose(command, self.inner.config.propose_timeout).await
    }

    /// Waits until this node has applied everything that was committed when the call began (Raft's ReadIndex), so that
    /// a look at [`Node::view`] afterwards is linearizable. Returns how far.
    ///
    /// # Errors
    /// [`ReadError::MaybeStale`] rather than waiting longer than `patience`.
    pub async fn read_barrier(&self, patience: Duration) -> Result<Revision, ReadError> {
        self.inner.read_barrier(patience).await
    }

    /// Hands leadership to `to`, or to the voter that has most of the log. Returns who leads now.
    ///
    /// # Errors
    /// [`HandOverError`]; after [`HandOverError::TimedOut`] it may still happen.
    pub async fn hand_over(&self, to: Option<NodeId>) -> Result<NodeId, HandOverError> {
        self.inner.hand_over(to).await
    }

    /// Ends this life cleanly: says in the log that it has stopped everything, hands leadership over if it has it, and
    /// shuts down. Call it only when nothing that this node was given still runs. The node stays a member.
    ///
    /// It shuts down whatever comes of it: a leave whose end is not known may still take effect, and a life that others
    /// may hear to have left must never work again.
    ///
    /// # Errors
    /// [`ProposeError`] when it is not known that the others were told: they will have this life fenced then.
    pub async fn leave(&self) -> Result<(), ProposeError> {
        let give_up = tokio::time::Instant::now() + self.inner.config.propose_timeout * 2;
        let told = loop {
            let Some(who) = self.identity() else { break Ok(()) };
            match self.propose(Command::Leave { who }).await {
                Ok(_) => break Ok(()),
                // It may be repeated: said twice it ends the life once.
                Err(ProposeError::OutcomeUnknown { .. } | ProposeError::NoLeader { .. })
                    if tokio::time::Instant::now() < give_up => {}
                Err(error) => break Err(error),
            }
        };
        if self.inner.leading()
            && let Err(error) = self.hand_over(None).await
        {
            tracing::info!(%error, "leaving as leader; the others will elect");
        }
        self.shutdown().await;
        told
    }

    /// Stops the engine and closes the data folder. The life that ran here is not ended by this: only a leave or a
    /// proof ends a life.
    pub async fn shutdown(&self) {
        self.stop.send_replace(true);
        self.inner.shut_down(Fatal::Shutdown).await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        // A node that nobody holds must fall silent, or its heartbeats would keep a life looking well for ever. Without
        // a runtime its tasks have ended already.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let inner = self.inner.clone();
            runtime.spawn(async move { inner.shut_down(Fatal::Shutdown).await });
        }
    }
}

fn open(data: &std::path::Path, node: NodeId) -> Result<(Folder, LogStore), StartError> {
    let folder = Folder::open(data, node)?;
    let path = folder.log_path();
    // Who belongs to a cluster has a log, with votes in it: if it is gone it must not begin anew under the same number.
    let opened = match folder.cluster() {
        Some(_) => LogStore::open_existing(&path),
        None => LogStore::open(&path),
    };
    let store = opened.map_err(|error| match error {
        OpenError::InUse => StartError::InUse(data.into()),
        OpenError::Damaged(why) => StartError::Damaged { path: path.clone(), why },
        OpenError::Io(source) => StartError::Folder { path: path.clone(), source },
    })?;
    Ok((folder, store))
}

impl Inner {
    pub(crate) fn identity(&self) -> Option<Identity> {
        if let Some(known) = self.identity.get() {
            return Some(*known);
        }
        let found = self.feed.state().life_of(self.node, self.session)?;
        Some(*self.identity.get_or_init(|| found))
    }

    /// Why this node has stopped, if it has.
    pub(crate) fn stopped(&self) -> Option<Fatal> {
        if let Some(why) = self.store.poisoned() {
            return Some(Fatal::Storage(why));
        }
        if let Some(fatal) = self.machine.unreadable() {
            return Some(fatal);
        }
        if self.shut.get().is_some() {
            return Some(Fatal::Shutdown);
        }
        let running = self.raft.metrics().borrow_watched().running_state.clone();
        running.err().map(|e| Fatal::Engine(e.to_string()))
    }

    pub(crate) async fn shut_down(&self, why: Fatal) {
        if matches!(why, Fatal::Shutdown) && self.shut.set(()).is_err() {
            return;
        }
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(node = %self.node, %error, "the engine did not end cleanly");
        }
        self.view.send_modify(|view| view.local.stopped = Some(why));
        self.feed.close();
        self.store.close();
        self.folder.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// The picture as of now: what the monitor saw last, with everything that is applied since.
    pub(crate) fn latest(&self) -> View {
        let local = self.view.borrow().local.clone();
        let applied = (*self.machine.progress().borrow()).max(local.applied);
        View { cluster: self.feed.state(), local: Local { identity: self.identity(), applied, ..local } }
    }
}
