//! One node: starts the engine, shows what it sees, stops. How it comes in is in `enter.rs`, how its commands find the
//! leader in `propose.rs`.
//!
//! ```text
//!   start ──▶ bootstrap │ join │ resume ──▶ (a life is known, `Joining`) ──reconcile──▶ `Active` ──▶ leave │ shutdown
//! ```

mod parts;
mod rules;
pub(crate) mod service;

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use quorate_membership::{Address, Command, Identity, Name, NodeId, ProvedEnd, Revision, Role, TextError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::client_service::Service;
use crate::engine::log_store::LogStore;
use crate::engine::open;
use crate::error::{Fatal, HandOverError, ProposeError, ReadError, Refusal, StartError, SucceedError};
use crate::feed::{FeedItem, Filter};
use crate::folder::Folder;
use crate::host;
use crate::lease::Lease;
use crate::lease::ledger::{LastEnd, Ledger};
use crate::member::locks::{LockError, LockGuard};
use crate::member::records::Records;
pub use crate::node::parts::NodeSettings;
use crate::node::parts::Parts;
use crate::probe;
use crate::rpc::Committed;
use crate::view::View;

/// A running node. Dropping it stops its work without waiting; [`Node::shutdown`] waits.
pub struct Node {
    pub(crate) parts: Arc<Parts>,
    stop: CancellationToken,
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
        let stop = CancellationToken::new();
        let parts = Parts::start(settings, folder, store, ledger, &stop).await?;
        Ok(Self { parts, stop })
    }

    /// What a server offers on behalf of this node.
    pub fn service(&self) -> Arc<dyn Service> {
        Arc::new(service::NodeService(self.parts.clone()))
    }

    /// This life's name; `None` until its join is applied here.
    pub fn identity(&self) -> Option<Identity> {
        self.parts.engine.identity()
    }

    /// How the process before this one ended, as the ledger in the data folder has it: why was I reset?
    pub fn last_end(&self) -> &LastEnd {
        self.parts.ledger.last_end()
    }

    /// The lease of `who`, which must be this life.
    pub fn lease_of(&self, who: Identity) -> Lease {
        self.parts.keeper.lease(who)
    }

    /// This life's lease; `None` until its join is applied here.
    pub fn lease(&self) -> Option<Lease> {
        self.parts.engine.identity().map(|who| self.parts.keeper.lease(who))
    }

    /// The records of the cluster.
    pub fn records(&self) -> Records {
        Records { engine: self.parts.engine.clone() }
    }

    /// Asks for a lock for `who`, which must be this life, and waits in line: at most for `wait`, for ever with
    /// `Some(Duration::MAX)`, not at all with `None`.
    ///
    /// # Errors
    /// [`LockError`]; the log has nothing of the request then, or the releaser sees to it.
    pub async fn lock_for(
        &self,
        who: Identity,
        name: impl TryInto<Name, Error: Into<TextError>>,
        wait: Option<Duration>,
    ) -> Result<LockGuard, LockError> {
        let name = name.try_into().map_err(Into::into)?;
        self.parts.locks().lock(who, name, wait).await
    }

    /// The locks that a former life left to this one and that nobody has asked for yet; see
    /// [`Config::work_dies_with_process`]. They are kept until they are asked for, or [given up](Self::disown).
    pub fn inherited(&self) -> Vec<(Name, Revision)> {
        let (state, who) = (self.parts.engine.state(), self.identity());
        who.map(|who| self.parts.releaser.inherited(&state, who)).unwrap_or_default()
    }

    /// Gives up what a former life left and nobody has asked for.
    pub fn disown(&self) {
        self.parts.releaser.disown();
    }

    /// Founds a cluster with this node as its only voter. Repeated after a crash in the middle it goes on.
    ///
    /// # Errors
    /// [`StartError::Occupied`] when the folder belongs to a cluster already: `resume` goes on from there.
    /// [`StartError::Config`] for any role but voter. Neither changes anything.
    pub async fn bootstrap(&self, role: Role, timeout: Duration) -> Result<Identity, StartError> {
        self.parts.entrance().bootstrap(role, timeout).await
    }

    /// Asks the members at `seeds`, one after the other, to let this node in, for at most `timeout`.
    ///
    /// # Errors
    /// [`StartError::Occupied`] when the folder belongs to a cluster; [`StartError::Join`] when no member let it in;
    /// [`StartError::Config`] without a seed. None of these changes anything here. A rejection by the rules ends the search
    /// at once. [`StartError::NotActive`] when it was let in and the log did not arrive in time: it is a member then.
    pub async fn join(&self, seeds: &[Address], role: Role, timeout: Duration) -> Result<Identity, StartError> {
        self.parts.entrance().join(seeds, role, timeout).await
    }

    /// Takes up membership after a stop: announces a new life of this node once a majority is up.
    ///
    /// # Errors
    /// [`StartError::Vacant`] when the folder belongs to no cluster; [`StartError::Propose`] when the join was refused or no
    /// leader was found within `timeout`.
    pub async fn resume(&self, timeout: Duration) -> Result<Identity, StartError> {
        self.parts.entrance().resume(timeout).await
    }

    /// The latest picture.
    pub fn view(&self) -> View {
        self.parts.latest()
    }

    /// The latest picture, and a wake-up with each new one.
    pub fn watch(&self) -> watch::Receiver<View> {
        self.parts.views.subscribe()
    }

    /// Every event after `revision`, then each as it is committed; see [`FeedItem`].
    pub fn events_since(&self, revision: Revision) -> BoxStream<'static, FeedItem> {
        self.parts.engine.feed().since(revision, Filter::all())
    }

    /// As [`Self::events_since`], of what the filter wants.
    pub fn events_matching(&self, revision: Revision, filter: Filter) -> BoxStream<'static, FeedItem> {
        self.parts.engine.feed().since(revision, filter)
    }

    /// Proposes a command, through whoever leads, and waits until it is applied here.
    ///
    /// # Errors
    /// [`ProposeError`] tells "nothing changed" from "unknown".
    pub async fn propose(&self, command: Command) -> Result<Committed, ProposeError> {
        self.parts.engine.propose(command, self.parts.engine.config().propose_timeout).await
    }

    /// Waits until this node has applied everything that was committed when the call began (Raft's ReadIndex), so that
    /// a look at [`Node::view`] afterwards is linearizable. Returns how far.
    ///
    /// # Errors
    /// [`ReadError::MaybeStale`] rather than waiting longer than `timeout`.
    pub async fn read_barrier(&self, timeout: Duration) -> Result<Revision, ReadError> {
        self.parts.engine.read_barrier(timeout).await
    }

    /// Hands leadership to `to`, or to the voter that has most of the log. Returns who leads now.
    ///
    /// # Errors
    /// [`HandOverError`]; after [`HandOverError::TimedOut`] it may still happen.
    pub async fn hand_over(&self, to: Option<NodeId>) -> Result<NodeId, HandOverError> {
        self.parts.engine.hand_over(to).await
    }

    /// Stands for election at once in place of a leader that is proved to have ended, instead of waiting until it has
    /// been silent for long enough. Every node does so by itself for an end that is committed; this is for who knows
    /// it from elsewhere.
    ///
    /// # Errors
    /// [`SucceedError`]; nothing was changed.
    pub async fn succeed(&self, end: &ProvedEnd) -> Result<(), SucceedError> {
        self.parts.engine.succeed(end).await
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
        let give_up = tokio::time::Instant::now() + self.parts.engine.config().propose_timeout * 2;
        let told = loop {
            let Some(who) = self.identity() else { break Ok(()) };
            // P19: the lease first. Who still protects something has not stopped, and must not say so.
            match self.parts.keeper.surrender(self.parts.engine.config().timing.plan().lease).await {
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
        if self.parts.engine.leading()
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
        self.stop.cancel();
        self.parts.shut_down(Fatal::Shutdown).await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
        // A node that nobody holds must fall silent, or its heartbeats would keep a life looking well for ever. Without
        // a runtime its tasks have ended already.
        if tokio::runtime::Handle::try_current().is_ok() {
            let parts = self.parts.clone();
            drop(host::spawn(async move { parts.shut_down(Fatal::Shutdown).await }));
        }
    }
}

fn still_protected(what: &str) -> ProposeError {
    let why = format!("this life still protects {what}: say that it has stopped before it leaves; nobody was told");
    ProposeError::Refused(Refusal::Malformed(why))
}
