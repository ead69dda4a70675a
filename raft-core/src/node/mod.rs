//! One node: starts, enters a cluster, shows its view, passes commands on, and stops. `member/bootstrap.rs` and
//! `member/join.rs` describe how it enters, `engine/propose.rs` how a command reaches the leader.
//!
//! ```text
//!   start ──▶ bootstrap │ join │ resume ──▶ (a life is known, `Joining`) ──reconcile──▶ `Active` ──▶ leave │ shutdown
//! ```

mod parts;
mod rules;
pub(crate) mod service;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use quorate_membership::{Address, Command, Identity, Name, NodeId, ProvedEnd, Revision, Role, TextError};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::client_service::Service;
use crate::engine::log_store::LogStore;
use crate::engine::open;
use crate::error::{Fatal, HandOverError, ProposeError, ReadError, StartError, SucceedError};
use crate::feed::{FeedItem, Filter};
use crate::folder::Folder;
use crate::host;
use crate::lease::ledger::{LastEnd, Ledger};
use crate::lease::{Lease, slow_disk};
use crate::member::departure::Departure;
use crate::member::lock_error::LockError;
use crate::member::locks::LockGuard;
use crate::member::records::Records;
pub use crate::node::parts::NodeSettings;
use crate::node::parts::Parts;
use crate::rpc::Committed;
use crate::view::View;

/// A running node. Dropping it stops it without waiting; [`Node::shutdown`] waits.
pub struct Node {
    pub(crate) parts: Arc<Parts>,
    stop: CancellationToken,
}

/// How long a folder that is in use is waited for: a node of this process that was dropped closes it a moment later.
const CLOSES_WITHIN: Duration = Duration::from_secs(2);

/// Opens the folder and the log in it.
async fn open_when_free(data: &Path, node: NodeId) -> Result<(Folder, LogStore), StartError> {
    let give_up = Instant::now() + CLOSES_WITHIN;
    loop {
        let data = data.to_path_buf();
        let opened = tokio::task::spawn_blocking(move || open::open(&data, node));
        match opened.await.map_err(|e| StartError::Engine(e.to_string()))? {
            Err(StartError::InUse(_)) if Instant::now() < give_up => sleep(Duration::from_millis(20)).await,
            opened => return opened,
        }
    }
}

impl Node {
    /// Opens the data folder and starts the engine. Serve its [`Node::service`] from now on. The node enters a cluster
    /// with [`Node::bootstrap`], [`Node::join`] or [`Node::resume`].
    ///
    /// # Errors
    /// [`StartError`]. The folder counts its openings, and counts this one even if a later step fails. Nothing else is
    /// changed.
    pub async fn start(settings: NodeSettings) -> Result<Self, StartError> {
        Self::start_within(settings, Duration::ZERO).await
    }

    /// As [`Self::start`]. If elapsed time can prove the end of this node, its disk has to hold the timing. While it does
    /// not, a node that is no member yet measures it again until `timeout`. A member starts at once, and protects no work
    /// until a measurement passes; meanwhile [`LeaseView::trouble`](crate::LeaseView::trouble) says why.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_within(settings: NodeSettings, timeout: Duration) -> Result<Self, StartError> {
        settings.config.check()?;
        let (node, data) = (settings.node, settings.data.clone());
        if node.get() == 0 {
            let why = "nodes are numbered from 1".into();
            return Err(StartError::Config { what: "the node", value: node.to_string(), why });
        }
        // Time alone proves the end of such a node, so a slow disk must not make it miss its renewals.
        let by_time = settings.stop.is_some().then_some(settings.config.timing);
        let (folder, store) = open_when_free(&data, node).await?;
        let (data, member) = (folder.path().to_path_buf(), folder.cluster().is_some());
        let too_slow = match by_time {
            Some(timing) => slow_disk::admit(&data, timing, member, timeout).await?.map(|why| (timing, why)),
            None => None,
        };
        let ledger = Ledger::open(folder.path(), node)
            .map_err(|cause| StartError::Folder { path: folder.path().into(), cause })?;
        let started = Self::run(settings, folder, store, ledger).await?;
        if let Some((timing, why)) = too_slow {
            slow_disk::tell(&started.parts.keeper, &data, Some(why));
            let (parts, stop) = (started.parts.clone(), started.stop.clone());
            host::spawn(async move { slow_disk::measure_again(data, timing, &parts.keeper, stop).await });
        }
        Ok(started)
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

    /// The calls that a server passes to this node.
    pub fn service(&self) -> Arc<dyn Service> {
        Arc::new(service::NodeService(self.parts.clone()))
    }

    /// This life's name; `None` until its join is applied here.
    pub fn identity(&self) -> Option<Identity> {
        self.parts.engine.identity()
    }

    /// How the previous process on this data folder ended, according to its ledger.
    pub fn last_end(&self) -> &LastEnd {
        self.parts.ledger.last_end()
    }

    /// The lease of `who`, which must be this life.
    pub fn lease_of(&self, who: Identity) -> Lease {
        self.parts.keeper.lease(who)
    }

    /// The lease of this life; `None` until its join is applied here.
    pub fn lease(&self) -> Option<Lease> {
        self.parts.engine.identity().map(|who| self.parts.keeper.lease(who))
    }

    /// The consumer's keys and values in the log, and the queues.
    pub fn records(&self) -> Records {
        Records { engine: self.parts.engine.clone() }
    }

    /// Acquires a lock for `who`, which must be this life. It waits in the queue for at most `wait`: without limit for
    /// `Some(Duration::MAX)`, not at all for `None`. Cancel-safe: dropping the future withdraws the request.
    ///
    /// # Errors
    /// [`LockError`]; the request is withdrawn, if necessary in the background.
    pub async fn lock_for(
        &self,
        who: Identity,
        name: impl TryInto<Name, Error: Into<TextError>>,
        wait: Option<Duration>,
    ) -> Result<LockGuard, LockError> {
        let name = name.try_into().map_err(Into::into)?;
        self.parts.locks().lock(who, name, wait).await
    }

    /// The locks that this life inherited from a former one and has not yet adopted, with their tokens; see
    /// [`Config::work_dies_with_process`](crate::Config::work_dies_with_process). They are kept until they are adopted
    /// with a request, or [disowned](Self::disown).
    pub fn inherited(&self) -> Vec<(Name, Revision)> {
        let (state, who) = (self.parts.engine.state(), self.identity());
        who.map(|who| self.parts.releaser.inherited(&state, who)).unwrap_or_default()
    }

    /// Releases every inherited lock that was not adopted.
    pub fn disown(&self) {
        self.parts.releaser.disown();
    }

    /// Founds a cluster with this node as its only voter. Repeated after a crash, it continues where it was.
    ///
    /// # Errors
    /// [`StartError::Occupied`] when the folder already belongs to a cluster; use `resume`. [`StartError::Config`] for
    /// any role but voter. Neither changes anything.
    pub async fn bootstrap(&self, role: Role, timeout: Duration) -> Result<Identity, StartError> {
        self.parts.entrance().bootstrap(role, timeout).await
    }

    /// Asks the members at `seeds` in turn to admit this node, for at most `timeout`.
    ///
    /// # Errors
    /// [`StartError::Occupied`] when the folder belongs to a cluster, [`StartError::Config`] without a seed, and
    /// [`StartError::Join`] when no member admitted it. None of these changes anything here. A rejection by the rules
    /// ends the search at once. [`StartError::NotActive`] when this node was admitted, and so is a member, but the log
    /// did not arrive in time.
    pub async fn join(&self, seeds: &[Address], role: Role, timeout: Duration) -> Result<Identity, StartError> {
        self.parts.entrance().join(seeds, role, timeout).await
    }

    /// Resumes membership after a stop: proposes the join of a new life of this node. It needs a majority.
    ///
    /// # Errors
    /// [`StartError::Vacant`] when the folder belongs to no cluster; nothing was changed. [`StartError::Propose`] when
    /// the join was refused. [`StartError::Resume`] when no leader confirmed it within `timeout`.
    pub async fn resume(&self, timeout: Duration) -> Result<Identity, StartError> {
        self.resume_with(&[], timeout).await
    }

    /// As [`Self::resume`], and looks for other members at `seeds` too, where they may be now.
    ///
    /// # Errors
    /// As [`Self::resume`].
    pub async fn resume_with(&self, seeds: &[Address], timeout: Duration) -> Result<Identity, StartError> {
        self.parts.entrance().resume(seeds, timeout).await
    }

    /// The latest view. It may be stale; see [`Node::read_barrier`].
    pub fn view(&self) -> View {
        self.parts.latest()
    }

    /// Follows the view of this node. It shows a change of members, sessions or leadership at once, and one of records, queues
    /// or locks within 50 ms, and the first within a heartbeat. Not to be called while a view is borrowed from a receiver.
    pub fn watch(&self) -> watch::Receiver<View> {
        // Nobody may have read the views so far, and the picture in them may be old.
        let latest = self.parts.latest();
        self.parts.views.send_if_modified(|view| {
            let newer = latest.cluster.revision() > view.cluster.revision();
            if newer {
                view.cluster = latest.cluster;
                view.local.applied = view.local.applied.max(latest.local.applied);
            }
            newer
        });
        self.parts.views.subscribe()
    }

    /// Every event after `revision`: first those of the past, then each one as it is committed. See [`FeedItem`]. A
    /// revision that does not exist yet is refused with [`FeedItem::Ahead`], as soon as a quorum confirms it.
    pub fn events_since(&self, revision: Revision) -> BoxStream<'static, FeedItem> {
        self.parts.engine.events_since(revision, Filter::all())
    }

    /// As [`Self::events_since`], limited to the events that `filter` selects.
    pub fn events_matching(&self, revision: Revision, filter: Filter) -> BoxStream<'static, FeedItem> {
        self.parts.engine.events_since(revision, filter)
    }

    /// Proposes a command through the leader, and waits until it is applied here. What an operator decides is asked for in the
    /// name of this node, unless the command names another asker.
    ///
    /// # Errors
    /// [`ProposeError`]. Only [`ProposeError::OutcomeUnknown`] leaves open whether the command takes effect; after any
    /// other error, nothing was changed.
    pub async fn propose(&self, command: Command) -> Result<Committed, ProposeError> {
        let asker = command.asker().cloned().unwrap_or_else(|| self.parts.engine.node().into());
        let command = command.asked_by(Some(asker));
        self.parts.engine.propose(command, self.parts.engine.config().propose_timeout).await
    }

    /// Waits until this node has applied everything that was committed before the call (Raft's ReadIndex). A
    /// [`Node::view`] taken afterwards is linearizable. Returns the revision that it had to reach.
    ///
    /// # Errors
    /// [`ReadError::MaybeStale`] if that takes longer than `timeout`.
    pub async fn read_barrier(&self, timeout: Duration) -> Result<Revision, ReadError> {
        self.parts.engine.read_barrier(timeout).await
    }

    /// Hands leadership to `to`, or to the preferred voter: one that answers, carries work and has the longest log.
    /// Returns the new leader.
    ///
    /// # Errors
    /// [`HandOverError`]. After [`HandOverError::TimedOut`] the hand-over may still happen; otherwise nothing was
    /// changed.
    pub async fn hand_over(&self, to: Option<NodeId>) -> Result<NodeId, HandOverError> {
        self.parts.engine.hand_over(to).await
    }

    /// Stands for election at once in place of a leader that is proved to have ended, instead of waiting for its
    /// silence to trigger an election. For an end that is committed, the reconciler does this by itself. Call it for an
    /// end that is known from elsewhere.
    ///
    /// # Errors
    /// [`SucceedError`]; nothing was changed.
    pub async fn succeed(&self, end: &ProvedEnd) -> Result<(), SucceedError> {
        self.parts.engine.succeed(end).await
    }

    /// Ends this life cleanly: commits that all its work has stopped, hands leadership over if it leads, and shuts
    /// down. First stop all work that this node was given. The node stays a member.
    ///
    /// It shuts down even if it fails. A leave whose outcome is unknown may still take effect, and a life that may have
    /// left must not work again.
    ///
    /// # Errors
    /// [`ProposeError`] when it is not known whether the leave was committed. Unless work was still protected, the data
    /// folder says that this life has stopped, and the join of its next life reports it. The others may fence it before.
    pub async fn leave(&self) -> Result<Departure, ProposeError> {
        self.leave_within(self.parts.engine.config().propose_timeout * 2).await
    }

    /// As [`Self::leave`], and tries for at most `limit`.
    ///
    /// # Errors
    /// As [`Self::leave`].
    pub async fn leave_within(&self, limit: Duration) -> Result<Departure, ProposeError> {
        let left = self.parts.departing().leave(limit).await;
        self.shutdown().await;
        left
    }

    /// Stops the engine and closes the data folder. This does not end the life that ran here; only a leave or a proof
    /// does.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.parts.shut_down(Fatal::Shutdown).await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
        // A dropped node must fall silent, or its heartbeats would make its life appear healthy. Without a runtime, its
        // tasks have ended already.
        if tokio::runtime::Handle::try_current().is_ok() {
            let parts = self.parts.clone();
            drop(host::spawn(async move { parts.shut_down(Fatal::Shutdown).await }));
        }
    }
}
