//! What the tasks of a node share: its engine, its state, its ways out, and whether it still runs.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use openraft::async_runtime::WatchReceiver;
use quorate_membership::detector::Moment;
use quorate_membership::{Address, Identity, NodeId, Nonce};
use tokio::sync::watch;

use crate::config::Config;
use crate::engine::confirm::Rounds;
use crate::engine::log_store::{LogStore, Trouble};
use crate::engine::peers::Peers;
use crate::engine::state_machine::StateMachine;
use crate::engine::types::Raft;
use crate::error::Fatal;
use crate::feed::Feed;
use crate::folder::Folder;
use crate::leader::fencer::Fencer;
use crate::leader::grantor::GrantorHandle;
use crate::leader::session_table::SessionTable;
use crate::lease::keeper::Keeper;
use crate::lease::ledger::Ledger;
use crate::member::gate::Gate;
use crate::member::releaser::Releaser;
use crate::member::renewer::Outbox;
use crate::view::{Local, View};

/// How long a shutdown waits for the last lines of the ledger.
const LEDGER_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2);

/// One node, from the inside.
pub(crate) struct Inner {
    pub(crate) node: NodeId,
    pub(crate) process: Nonce,
    pub(crate) addresses: Vec<Address>,
    pub(crate) config: Config,
    pub(crate) raft: Raft,
    pub(crate) machine: StateMachine,
    pub(crate) store: LogStore,
    pub(crate) feed: Feed,
    pub(crate) peers: Arc<Peers>,
    pub(crate) gate: Gate,
    pub(crate) fencer: Option<Arc<dyn Fencer>>,
    pub(crate) grantor: GrantorHandle,
    pub(crate) keeper: Keeper,
    pub(crate) outbox: Outbox,
    pub(crate) ledger: Ledger,
    pub(crate) rounds: Rounds,
    /// The newest life of each node, and when this node heard of it first.
    pub(crate) arrivals: Mutex<BTreeMap<NodeId, (Identity, Moment)>>,
    /// The term in which this node has handed leadership over, or tried to; 0 before the first.
    pub(crate) handed_over: AtomicU64,
    pub(crate) releaser: Releaser,
    pub(crate) sessions: SessionTable,
    pub(crate) view: watch::Sender<View>,
    pub(crate) embargo_ends: Option<Moment>,
    pub(crate) folder: Mutex<Option<Folder>>,
    pub(crate) identity: OnceLock<Identity>,
    pub(crate) shut: OnceLock<()>,
}

impl Inner {
    pub(crate) fn identity(&self) -> Option<Identity> {
        if let Some(known) = self.identity.get() {
            return Some(*known);
        }
        let found = self.feed.state().life_of(self.node, self.process)?;
        Some(*self.identity.get_or_init(|| found))
    }

    /// Why nothing becomes durable here just now, and what helps, if something is wrong.
    pub(crate) fn disk_trouble(&self) -> Option<String> {
        // Held over a sync while this node enters: whoever asks then is not told where.
        let place = || {
            let folder = self.folder.try_lock().ok();
            let path = folder.and_then(|folder| folder.as_ref().map(|folder| folder.path().display().to_string()));
            path.map(|path| format!(" of {path}")).unwrap_or_default()
        };
        self.store.trouble(self.config.election_max()).map(|trouble| match trouble {
            Trouble::Full => format!(
                "the disk{} is full: nothing is written until there is room; make some, and this node goes on by itself",
                place()
            ),
            Trouble::Slow(timeout) => format!(
                "the disk{} has not ended a write for {timeout:?}: nothing more is written until it has; if it never \
                 does, check the disk and start this node again",
                place()
            ),
        })
    }

    /// Why the engine takes nothing in just now: it waits for a vote to become durable, and the disk does not do its work.
    /// What was given to it meanwhile would pile up in memory.
    pub(crate) fn takes_nothing(&self) -> Option<String> {
        self.store.vote_under_way().and_then(|_| self.disk_trouble())
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
        // The engine may be waiting for room on the disk; nobody else will.
        self.store.wait_no_more();
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(node = %self.node, %error, "the engine did not end cleanly");
        }
        self.view.send_modify(|view| view.local.stopped = Some(why));
        self.feed.close();
        self.store.close();
        // Before the folder may belong to another process.
        if !self.ledger.close(LEDGER_TIMEOUT).await {
            tracing::warn!(node = %self.node, "the last lines of the ledger may not have come to the disk");
        }
        self.folder.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// The picture as of now: what the monitor saw last, with everything that is applied since.
    pub(crate) fn latest(&self) -> View {
        let local = self.view.borrow().local.clone();
        let applied = (*self.machine.progress().borrow()).max(local.applied);
        let lease = self.keeper.view();
        View { cluster: self.feed.state(), local: Local { identity: self.identity(), applied, lease, ..local } }
    }
}
