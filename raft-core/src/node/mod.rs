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
use quorate_membership::detector::Moment;
use quorate_membership::{Address, Command, Identity, Name, NodeId, Nonce, ProvedEnd, Revision};
use tokio::sync::watch;

use crate::host::clock;
pub(crate) mod rules;
pub(crate) mod service;

use crate::config::Config;
use crate::engine::log_store::LogStore;
use crate::engine::network::NetworkFactory;
use crate::engine::open;
use crate::engine::peers::{Contacts, Peers};
use crate::engine::state_machine::StateMachine;
use crate::engine::types::Raft;
use crate::error::{Fatal, HandOverError, ProposeError, ReadError, Refusal, StartError, SucceedError};
use crate::feed::{Feed, FeedItem, Filter};
use crate::folder::Folder;
use crate::host::{self, random};
use crate::inner::Inner;
use crate::leader::fencer::Fencer;
use crate::leader::grantor::GrantorHandle;
use crate::leader::{grantor, monitor, reconciler, session_table};
use crate::lease::handle::Lease;
use crate::lease::keeper::Keeper;
use crate::lease::ledger::{LastEnd, Ledger, Note};
use crate::lease::stop;
use crate::lease::stop::{Nothing, StopMechanism};
use crate::member::gate::Gate;
use crate::member::locks::{LockError, LockGuard};
use crate::member::records::Records;
use crate::member::{releaser, renewer, succession};
use crate::probe;
use crate::transport::{Service, Transport};
use crate::view::{Local, View};

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
    /// What stops the work of this node at the end of its lease. `None`: nothing that could be relied on, so that time
    /// alone never proves the end of its lives.
    pub stop: Option<Box<dyn StopMechanism>>,
    /// Says that the clock of this virtual machine counts while the machine is frozen by its host. Without it a stop
    /// mechanism that rests on time is refused in a virtual machine.
    pub trust_vm_clock: bool,
}

/// The end of a command that was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Committed {
    /// Where it stands in the log. Its events are in the feed under this revision, and this node has applied it.
    pub revision: Revision,
}

/// A running node. Dropping it stops its work without waiting; [`Node::shutdown`] waits.
pub struct Node {
    pub(crate) inner: Arc<Inner>,
    stop: watch::Sender<bool>,
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
        // Whose end time alone proves must not be declared dead for a slow disk.
        let by_time = settings.stop.is_some().then_some(settings.config.timing);
        let opened = move || {
            let opened = open::open(&data, node)?;
            by_time.map_or(Ok(()), |timing| probe::admit(&data, timing))?;
            Ok::<_, StartError>(opened)
        };
        let (folder, store) =
            tokio::task::spawn_blocking(opened).await.map_err(|e| StartError::Engine(e.to_string()))??;
        let ledger = Ledger::open(folder.path(), node)
            .map_err(|source| StartError::Folder { path: folder.path().into(), source })?;
        Self::run(settings, folder, store, ledger).await
    }

    /// Starts the engine on an open folder, an open log and an open ledger.
    pub(crate) async fn run(
        settings: NodeSettings,
        folder: Folder,
        store: LogStore,
        ledger: Ledger,
    ) -> Result<Self, StartError> {
        let NodeSettings { node, data: _, addresses, mut config, transport, fencer, stop, trust_vm_clock } = settings;
        let mut mechanism: Box<dyn StopMechanism> = stop.unwrap_or_else(|| Box::new(Nothing));
        config.timing = stop::admit(mechanism.as_mut(), config.timing, trust_vm_clock)?;
        let process = Nonce::new(random().map_err(|source| StartError::Folder { path: folder.path().into(), source })?);
        let feed = Feed::new(config.event_history);
        ledger.note(Note::Started { session: process });
        let machine = StateMachine::new(store.clone(), feed.clone(), ledger.clone());
        let peers = Arc::new(Peers {
            transport,
            node,
            disk: folder.disk(),
            process,
            timing: config.timing.hash(),
            cluster: Mutex::new(folder.cluster()),
            feed: feed.clone(),
            contacts: Contacts::default(),
            hints: Mutex::default(),
        });
        // P22: who voted before may still be bound by a promise that it has forgotten.
        let voted = store.vote().is_some();
        let embargo_ends = voted.then(|| Moment::new(clock::now().since_origin() + config.embargo()));
        let engine = Arc::new(open::config(&config, !voted)?);
        let raft = Raft::new(node.get(), engine, NetworkFactory(peers.clone()), store.clone(), machine.clone())
            .await
            .map_err(|e| StartError::Engine(e.to_string()))?;
        let view = watch::Sender::new(View { cluster: feed.state(), local: Local::unknown(node) });
        let (folder, gate) = (Mutex::new(Some(folder)), Gate::default());
        let (identity, shut) = (OnceLock::new(), OnceLock::new());
        let (sent, outbox) = tokio::sync::mpsc::unbounded_channel();
        let mut keeper = Keeper::start(*config.timing.plan(), mechanism, sent, ledger.clone())
            .map_err(|e| StartError::Engine(format!("the keeper's thread: {e}")))?;
        keeper.process_bound = config.work_dies_with_process;
        let (grantor, outbox) = (GrantorHandle::new(), Mutex::new(Some(outbox)));
        let inner = Arc::new(Inner {
            node,
            process,
            addresses,
            config,
            raft,
            machine,
            store,
            feed,
            peers,
            gate,
            fencer,
            grantor,
            keeper,
            outbox,
            ledger,
            rounds: Default::default(),
            arrivals: Mutex::default(),
            handed_over: Default::default(),
            releaser: Default::default(),
            sessions: Default::default(),
            view,
            embargo_ends,
            folder,
            identity,
            shut,
        });
        let stop = watch::Sender::new(false);
        host::spawn(monitor::run(inner.clone(), stop.subscribe()));
        host::spawn(reconciler::run(inner.clone(), stop.subscribe()));
        host::spawn(grantor::run(inner.clone(), stop.subscribe()));
        host::spawn(renewer::run(inner.clone(), stop.subscribe()));
        host::spawn(releaser::run(inner.clone(), stop.subscribe()));
        host::spawn(succession::run(inner.clone(), stop.subscribe()));
        host::spawn(session_table::run(inner.clone(), stop.subscribe()));
        Ok(Self { inner, stop })
    }

    /// What a server offers on behalf of this node.
    pub fn service(&self) -> Arc<dyn Service> {
        Arc::new(service::NodeService(self.inner.clone()))
    }

    pub(crate) fn path(&self) -> PathBuf {
        let folder = self.inner.folder.lock().unwrap_or_else(PoisonError::into_inner);
        folder.as_ref().map(|f| f.path().to_path_buf()).unwrap_or_default()
    }

    /// This life's name; `None` until its join is applied here.
    pub fn identity(&self) -> Option<Identity> {
        self.inner.identity()
    }

    /// How the process before this one ended, as the ledger in the data folder has it: why was I reset?
    pub fn last_end(&self) -> &LastEnd {
        self.inner.ledger.last_end()
    }

    /// The lease of `who`, which must be this life.
    pub fn lease_of(&self, who: Identity) -> Lease {
        self.inner.keeper.lease(who)
    }

    /// This life's lease; `None` until its join is applied here.
    pub fn lease(&self) -> Option<Lease> {
        self.inner.identity().map(|who| self.inner.keeper.lease(who))
    }

    /// The records of the cluster.
    pub fn records(&self) -> Records {
        Records { inner: self.inner.clone() }
    }

    /// Asks for a lock for `who`, which must be this life, and waits in line: at most for `wait`, for ever with
    /// `Some(Duration::MAX)`, not at all with `None`.
    ///
    /// # Errors
    /// [`LockError`]; the log has nothing of the request then, or the releaser sees to it.
    pub async fn lock_for(&self, who: Identity, name: Name, wait: Option<Duration>) -> Result<LockGuard, LockError> {
        self.inner.lock(who, name, wait).await
    }

    /// The locks that a former life left to this one and that nobody has asked for yet; see
    /// [`Config::work_dies_with_process`]. They are kept until they are asked for, or [given up](Self::disown).
    pub fn inherited(&self) -> Vec<(Name, Revision)> {
        let (state, who) = (self.inner.feed.state(), self.identity());
        who.map(|who| self.inner.releaser.inherited(&state, who)).unwrap_or_default()
    }

    /// Gives up what a former life left and nobody has asked for.
    pub fn disown(&self) {
        self.inner.releaser.disown();
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
        self.inner.feed.since(revision, Filter::all())
    }

    /// As [`Self::events_since`], of what the filter wants.
    pub fn events_matching(&self, revision: Revision, filter: Filter) -> BoxStream<'static, FeedItem> {
        self.inner.feed.since(revision, filter)
    }

    /// Proposes a command, through whoever leads, and waits until it is applied here.
    ///
    /// # Errors
    /// [`ProposeError`] tells "nothing changed" from "unknown".
    pub async fn propose(&self, command: Command) -> Result<Committed, ProposeError> {
        self.inner.propose(command, self.inner.config.propose_timeout).await
    }

    /// Waits until this node has applied everything that was committed when the call began (Raft's ReadIndex), so that
    /// a look at [`Node::view`] afterwards is linearizable. Returns how far.
    ///
    /// # Errors
    /// [`ReadError::MaybeStale`] rather than waiting longer than `timeout`.
    pub async fn read_barrier(&self, timeout: Duration) -> Result<Revision, ReadError> {
        self.inner.read_barrier(timeout).await
    }

    /// Hands leadership to `to`, or to the voter that has most of the log. Returns who leads now.
    ///
    /// # Errors
    /// [`HandOverError`]; after [`HandOverError::TimedOut`] it may still happen.
    pub async fn hand_over(&self, to: Option<NodeId>) -> Result<NodeId, HandOverError> {
        self.inner.hand_over(to).await
    }

    /// Stands for election at once in place of a leader that is proved to have ended, instead of waiting until it has
    /// been silent for long enough. Every node does so by itself for an end that is committed; this is for who knows
    /// it from elsewhere.
    ///
    /// # Errors
    /// [`SucceedError`]; nothing was changed.
    pub async fn succeed(&self, end: &ProvedEnd) -> Result<(), SucceedError> {
        self.inner.succeed(end).await
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
            // P19: the lease first. Who still protects something has not stopped, and must not say so.
            match self.inner.keeper.surrender(self.inner.config.timing.plan().lease).await {
                Some(protected) if protected.is_empty() => {}
                Some(protected) => break Err(still_protected(&protected.join(", "))),
                None => break Err(still_protected("what its keeper does not tell")),
            }
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
        if tokio::runtime::Handle::try_current().is_ok() {
            let inner = self.inner.clone();
            drop(host::spawn(async move { inner.shut_down(Fatal::Shutdown).await }));
        }
    }
}

fn still_protected(what: &str) -> ProposeError {
    let why = format!("this life still protects {what}: say that it has stopped before it leaves; nobody was told");
    ProposeError::Refused(Refusal::Malformed(why))
}
