//! One node: starts the engine, carries commands to the leader, reads linearizably, stops.
//!
//! ```text
//!   start ──▶ bootstrap │ join │ resume ──▶ (a life is known, `Joining`) ──reconcile──▶ `Active` ──▶ leave │ shutdown
//! ```
//!
//! A command goes to the log through whoever leads. Three ends are told apart: refused by the rules (nothing changed),
//! not proposed (nothing changed), and unknown (proposed, then leadership or the connection was lost).

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::stream::BoxStream;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, ForwardReason, RaftError};
use openraft::{ReadPolicy, ServerState, SnapshotPolicy, StepDownPolicy};
use quorate_membership::codec::encode;
use quorate_membership::detector::Moment;
use quorate_membership::{Address, Command, Identity, NodeId, Nonce, Phase, Revision};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::clock;
use crate::config::Config;
use crate::error::{Fatal, HandOverError, ProposeError, ReadError, Refusal, StartError, TransportError};
use crate::feed::{Feed, FeedItem};
use crate::fencer::Fencer;
use crate::folder::{Folder, random};
use crate::gate::Gate;
use crate::log_store::{LogStore, OpenError};
use crate::machine::{Machine, revision};
use crate::network::{Contacts, Links, Wire};
use crate::rpc::{Payload, Proposed};
use crate::transport::{JoinRequest, Service, Transport};
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
    inner: Arc<Inner>,
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
    folder: Mutex<Option<Folder>>,
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
        let NodeSettings { node, data, addresses, config, transport, fencer } = settings;
        config.check()?;
        if node.get() == 0 {
            let why = "nodes are numbered from 1".into();
            return Err(StartError::Config { what: "the node", value: node.to_string(), why });
        }
        let (folder, store) = tokio::task::spawn_blocking(move || open(&data, node))
            .await
            .map_err(|e| StartError::Engine(e.to_string()))??;
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

    /// Founds a cluster with this node as its only voter. Repeated after a crash in the middle it goes on.
    ///
    /// # Errors
    /// [`StartError::Occupied`] when the folder belongs to a cluster already: nothing is changed.
    pub async fn bootstrap(&self, role: quorate_membership::Role, patience: Duration) -> Result<Identity, StartError> {
        let inner = &self.inner;
        self.vacant()?;
        let engine = |e: &dyn std::fmt::Display| StartError::Engine(e.to_string());
        if !inner.raft.is_initialized().await.map_err(|e| engine(&e))? {
            let me = std::collections::BTreeSet::from([inner.node.get()]);
            inner.raft.initialize(me).await.map_err(|e| engine(&e))?;
        }
        inner.raft.wait(Some(patience)).state(ServerState::Leader, "founder leads").await.map_err(|e| engine(&e))?;
        let cluster = match inner.feed.state().id() {
            Some(begun) => begun,
            None => {
                let cluster = quorate_membership::ClusterId::new(random().map_err(|e| engine(&e))?);
                inner.propose(Command::Found { cluster }, patience).await?;
                cluster
            }
        };
        inner.belong_to(cluster)?;
        self.announce(role, patience).await
    }

    /// Asks the members at `seeds`, one after the other, to let this node in, until one does or `patience` is over.
    ///
    /// # Errors
    /// [`StartError::Occupied`] when the folder belongs to a cluster; [`StartError::Join`] when nobody let it in.
    /// Neither changes anything here. Rejections by the rules end the search at once.
    pub async fn join(
        &self,
        seeds: &[Address],
        role: quorate_membership::Role,
        patience: Duration,
    ) -> Result<Identity, StartError> {
        self.vacant()?;
        let inner = &self.inner;
        let command = Payload::new(encode(&inner.arrival(role)).map_err(ProposeError::from)?);
        let give_up = Instant::now() + patience;
        let mut last = "no address was given".to_string();
        while !seeds.is_empty() && Instant::now() < give_up {
            for seed in seeds {
                let (cluster, timing) = (inner.wire.cluster(), inner.wire.timing);
                let request = JoinRequest { cluster, command: command.clone(), timing };
                let deadline = inner.config.propose_timeout;
                match inner.wire.transport.join(seed, request, deadline).await {
                    Ok(answer) => {
                        inner.belong_to(answer.cluster)?;
                        self.wait_for_identity(give_up, patience).await?;
                        return Ok(answer.who);
                    }
                    Err(TransportError::Refused(Refusal::Unavailable(why))) => last = format!("{seed}: {why}"),
                    Err(TransportError::Refused(Refusal::NotReady)) => last = format!("{seed}: {}", Refusal::NotReady),
                    Err(TransportError::Refused(refusal)) => {
                        let tried = seed.to_string();
                        return Err(StartError::Join { tried, last: refusal.to_string() });
                    }
                    Err(error) => last = format!("{seed}: {error}"),
                }
            }
            sleep(inner.config.heartbeat).await;
        }
        let tried = seeds.iter().map(Address::as_str).collect::<Vec<_>>().join(", ");
        Err(StartError::Join { tried, last })
    }

    /// Takes up membership after a stop: announces a new life of this node once a majority is up.
    ///
    /// # Errors
    /// [`StartError::Vacant`] when the folder belongs to no cluster; [`StartError::Propose`] when the join was refused
    /// or no leader was found within `patience`.
    pub async fn resume(&self, patience: Duration) -> Result<Identity, StartError> {
        if self.inner.wire.cluster().is_none() {
            return Err(StartError::Vacant(self.path()));
        }
        // The role of a member is the log's; the one given here only counts at a first join.
        self.announce(quorate_membership::Role::Voter, patience).await
    }

    async fn announce(&self, role: quorate_membership::Role, patience: Duration) -> Result<Identity, StartError> {
        let give_up = Instant::now() + patience;
        let inner = &self.inner;
        let arrival = inner.arrival(role);
        loop {
            let left = give_up.saturating_duration_since(Instant::now());
            // While nobody is heard, the others may not know where this node is now: they are asked at the addresses
            // that it knows of them. A join may be repeated, it carries its nonce.
            let said = match inner.leader() {
                None if inner.ask_members(&arrival, left).await? => break,
                None | Some(_) => inner.propose(arrival.clone(), left.min(inner.config.election_max * 2)).await,
            };
            match said {
                Ok(_) => break,
                Err(ProposeError::OutcomeUnknown { .. } | ProposeError::NoLeader { .. })
                    if Instant::now() < give_up => {}
                Err(ProposeError::NoLeader { .. }) => return Err(ProposeError::NoLeader { waited: patience }.into()),
                Err(error) => return Err(error.into()),
            }
        }
        self.wait_for_identity(give_up, patience).await
    }

    async fn wait_for_identity(&self, give_up: Instant, waited: Duration) -> Result<Identity, StartError> {
        let mut view = self.watch();
        let known = async {
            loop {
                if let Some(who) = self.inner.identity() {
                    return Some(who);
                }
                view.changed().await.ok()?;
            }
        };
        let why = "its join is not applied here yet".to_string();
        let missing = || StartError::NotActive { who: self.inner.node, waited, why };
        timeout_at(give_up, known).await.ok().flatten().ok_or_else(missing)
    }

    fn vacant(&self) -> Result<(), StartError> {
        match self.inner.wire.cluster() {
            Some(cluster) => Err(StartError::Occupied { path: self.path(), cluster }),
            None => Ok(()),
        }
    }

    fn path(&self) -> PathBuf {
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
    /// # Errors
    /// [`ProposeError`]; the node goes on running then.
    pub async fn leave(&self) -> Result<(), ProposeError> {
        if let Some(who) = self.identity() {
            self.propose(Command::Leave { who }).await?;
        }
        if self.inner.leading()
            && let Err(error) = self.hand_over(None).await
        {
            tracing::info!(%error, "leaving as leader; the others will elect");
        }
        self.shutdown().await;
        Ok(())
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

    /// Asks each known member, once, to take the join of this node to the leader. Whether one did.
    async fn ask_members(&self, arrival: &Command, patience: Duration) -> Result<bool, ProposeError> {
        let command = Payload::new(encode(arrival)?);
        let state = self.feed.state();
        let others = state.members().iter().filter(|(node, _)| **node != self.node);
        for address in others.flat_map(|(_, member)| &member.addresses) {
            let (cluster, timing) = (self.wire.cluster(), self.wire.timing);
            let request = JoinRequest { cluster, command: command.clone(), timing };
            match self.wire.transport.join(address, request, patience.min(self.config.election_max * 2)).await {
                Ok(_) => return Ok(true),
                Err(TransportError::Refused(Refusal::Rejected(rejection))) => return Err(rejection.into()),
                Err(error) => tracing::debug!(%address, %error, "no help there"),
            }
        }
        Ok(false)
    }

    fn arrival(&self, role: quorate_membership::Role) -> Command {
        Command::Join {
            node: self.node,
            role,
            addresses: self.addresses.clone(),
            disk: self.wire.disk,
            boot: clock::boot_id(),
            nonce: self.session,
        }
    }

    fn belong_to(&self, cluster: quorate_membership::ClusterId) -> Result<(), StartError> {
        let mut folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = folder.as_mut() {
            let path = folder.path().to_path_buf();
            folder.set_cluster(cluster).map_err(|source| StartError::Folder { path, source })?;
        }
        self.wire.set_cluster(cluster);
        Ok(())
    }

    /// Whether the engine believes that it leads. Triggers work; proves nothing.
    pub(crate) fn leading(&self) -> bool {
        self.raft.metrics().borrow_watched().state == ServerState::Leader
    }

    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.raft.metrics().borrow_watched().current_leader.map(NodeId::new)
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
        if matches!(why, Fatal::Shutdown) {
            let _first = self.shut.set(());
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

    pub(crate) async fn propose(&self, command: Command, patience: Duration) -> Result<Outcome, ProposeError> {
        if let Command::Configure { .. } = command {
            return Err(ProposeError::Refused(service::only_raft()));
        }
        let payload = Payload::new(encode(&command)?);
        let give_up = Instant::now() + patience;
        loop {
            if let Some(fatal) = self.stopped() {
                return Err(fatal.into());
            }
            let (proposed, hint) = match self.leader() {
                Some(leader) if leader != self.node => (self.forward(leader, &payload, give_up).await?, Some(leader)),
                Some(_) | None if self.leading() => (self.propose_here(payload.clone(), give_up).await?, None),
                Some(_) | None => (Proposed::NotLeader { leader: None }, None),
            };
            match proposed {
                Proposed::Applied { revision } => return self.applied(revision, give_up).await,
                Proposed::Rejected { rejection, .. } => return Err(rejection.into()),
                Proposed::Unknown { reason } => return Err(ProposeError::OutcomeUnknown { reason }),
                Proposed::NotLeader { leader } => {
                    if Instant::now() >= give_up {
                        return Err(ProposeError::NoLeader { waited: patience });
                    }
                    tracing::trace!(?leader, ?hint, "no leader took the command yet");
                    sleep(self.config.heartbeat / 4).await;
                }
            }
        }
    }

    async fn forward(&self, leader: NodeId, payload: &Payload, give_up: Instant) -> Result<Proposed, ProposeError> {
        let (peer, caller) = match self.wire.address(leader) {
            Ok(found) => found,
            Err(_) => return Ok(Proposed::NotLeader { leader: None }),
        };
        let left = give_up.saturating_duration_since(Instant::now()).max(self.config.heartbeat);
        match self.wire.transport.propose(&peer, caller, payload.clone(), left).await {
            Ok(proposed) => Ok(proposed),
            Err(TransportError::Unreachable(_)) => Ok(Proposed::NotLeader { leader: None }),
            Err(TransportError::Refused(Refusal::NotReady | Refusal::Unavailable(_) | Refusal::Stopped(_))) => {
                Ok(Proposed::NotLeader { leader: None })
            }
            Err(TransportError::Refused(refusal)) => Err(ProposeError::Refused(refusal)),
            Err(error @ (TransportError::Timeout(_) | TransportError::Broken(_))) => {
                Err(ProposeError::OutcomeUnknown { reason: format!("{leader}: {error}") })
            }
        }
    }

    /// Proposes on this node's own engine, which has to lead for that.
    pub(crate) async fn propose_here(&self, payload: Payload, give_up: Instant) -> Result<Proposed, ProposeError> {
        let Ok(written) = timeout_at(give_up, self.raft.client_write(payload)).await else {
            return Ok(Proposed::Unknown { reason: "it was not committed in time".into() });
        };
        match written {
            Ok(response) => {
                let revision = revision(response.log_id.index);
                Ok(match response.data {
                    Ok(()) => Proposed::Applied { revision },
                    Err(rejection) => Proposed::Rejected { revision, rejection },
                })
            }
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => Ok(match to.reason {
                // A fresh leader refuses until its first quorum ack: nothing was proposed, ask again.
                ForwardReason::LeaseExpired | ForwardReason::LeadershipTransfer | ForwardReason::NotLeader => {
                    Proposed::NotLeader { leader: to.leader_id.map(NodeId::new) }
                }
            }),
            Err(RaftError::APIError(other)) => Ok(Proposed::Unknown { reason: other.to_string() }),
            Err(RaftError::Fatal(fatal)) => {
                Err(self.stopped().unwrap_or_else(|| Fatal::Engine(fatal.to_string())).into())
            }
        }
    }

    async fn applied(&self, revision: Revision, give_up: Instant) -> Result<Outcome, ProposeError> {
        let mut progress = self.machine.progress();
        let reached = timeout_at(give_up, progress.wait_for(|at| *at >= revision)).await;
        match reached {
            Ok(Ok(_)) => Ok(Outcome { revision }),
            Ok(Err(_)) | Err(_) => {
                let reason = format!("it is committed as {revision}, but this node has not applied it in time");
                Err(ProposeError::OutcomeUnknown { reason })
            }
        }
    }

    /// A read index from this node's own engine; `None` when it does not lead or finds no quorum.
    pub(crate) async fn read_index_here(&self, patience: Duration) -> Option<Revision> {
        // Never `LeaseRead`: with one restarted voter and one partition it read stale in 97 of 100 runs.
        let reading = self.raft.get_read_linearizer(ReadPolicy::ReadIndex);
        let linearizer = timeout(patience, reading).await.ok()?.ok()?;
        Some(revision(linearizer.read_log_id().index()))
    }

    pub(crate) async fn read_barrier(&self, patience: Duration) -> Result<Revision, ReadError> {
        let give_up = Instant::now() + patience;
        let stale = ReadError::MaybeStale { waited: patience };
        let index = loop {
            if let Some(fatal) = self.stopped() {
                return Err(fatal.into());
            }
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(stale);
            }
            let found = match self.leader() {
                Some(leader) if leader != self.node => match self.wire.address(leader) {
                    Ok((peer, caller)) => self.wire.transport.read_index(&peer, caller, left).await.ok(),
                    Err(_) => None,
                },
                Some(_) => self.read_index_here(left).await,
                None => None,
            };
            if let Some(index) = found {
                break index;
            }
            sleep(self.config.heartbeat / 4).await;
        };
        let mut progress = self.machine.progress();
        let reached = timeout_at(give_up, progress.wait_for(|at| *at >= index)).await;
        if matches!(reached, Ok(Ok(_))) { Ok(index) } else { Err(stale) }
    }

    pub(crate) async fn hand_over(&self, to: Option<NodeId>) -> Result<NodeId, HandOverError> {
        if let Some(fatal) = self.stopped() {
            return Err(fatal.into());
        }
        if !self.leading() {
            return Err(HandOverError::NotLeader { leader: self.leader() });
        }
        let state = self.feed.state();
        let able = |node: NodeId| {
            let life = state.newest(node).and_then(|who| state.life(who));
            let well = life.is_some_and(|life| matches!(life.phase, Phase::Joining | Phase::Active));
            node != self.node && well && state.configuration().is_lasting_voter(node)
        };
        let to = match to {
            Some(node) if node == self.node => return Ok(node),
            Some(node) if able(node) => node,
            Some(node) => return Err(HandOverError::NotAVoter(node)),
            None => {
                let matched = self.raft.metrics().borrow_watched().replication.clone().unwrap_or_default();
                let preferred = |node: &NodeId| {
                    let voter = state.member(*node).is_some_and(|m| m.role == quorate_membership::Role::Voter);
                    (voter, matched.get(&node.get()).cloned().flatten().map(|id| id.index))
                };
                let voters = state.configuration().voters().into_iter().filter(|node| able(*node));
                voters.max_by_key(preferred).ok_or(HandOverError::Nobody)?
            }
        };
        let waited = self.config.election_max * 3;
        let asked = timeout(waited, self.raft.trigger().transfer_leader(to.get())).await;
        if let Ok(Err(fatal)) = asked {
            return Err(Fatal::Engine(fatal.to_string()).into());
        }
        let give_up = Instant::now() + waited;
        while Instant::now() < give_up {
            match self.leader() {
                Some(leader) if leader != self.node => return Ok(leader),
                Some(_) | None => sleep(self.config.heartbeat / 8).await,
            }
        }
        Err(HandOverError::TimedOut { waited })
    }
}
