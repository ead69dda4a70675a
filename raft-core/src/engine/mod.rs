//! openraft behind plain types.
//!
//! ```text
//!   propose, request, read ─▶ Engine ─▶ openraft ─▶ log_store (one writer, one write and one fsync a group)
//!                               │          │ committed
//!                               │          ▼
//!                               │    state_machine ─▶ membership::apply ─▶ feed (ordered, resumable)
//!                               └─▶ peers, network: calls to the other nodes
//! ```
//!
//! The rooms above hold an [`Engine`]. It proposes commands, serves reads and shows the committed state. No openraft
//! type leaves this room.

mod batches;
mod change_voters;
mod commits;
mod confirm;
mod contacts;
mod heartbeats;
mod in_flight;
mod inbound;
mod leadership;
pub(crate) mod log_store;
pub(crate) mod lost_leader;
mod metrics;
mod network;
pub(crate) mod open;
pub(crate) mod peers;
mod propose;
mod read;
pub(crate) mod receipts;
mod refused;
mod request;
pub(crate) mod retention;
mod revocable;
mod rounds;
mod runtime;
mod spared;
pub(crate) mod state_machine;
#[cfg(test)]
mod tests;
pub(crate) mod types;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use openraft::async_runtime::WatchReceiver;
use quorate_membership::detector::Moment;
use quorate_membership::{ClusterState, Identity, NodeId, Nonce, Revision};
use tokio::sync::watch;

use crate::config::Config;
use crate::engine::batches::Batches;
use crate::engine::leadership::Arrivals;
use crate::engine::log_store::{LogStore, Trouble};
use crate::engine::lost_leader::Stood;
use crate::engine::peers::Peers;
use crate::engine::rounds::Rounds;
use crate::engine::state_machine::StateMachine;
use crate::engine::types::Types;
use crate::error::Fatal;
use crate::feed::Feed;
use crate::host::Beat;

pub(crate) use self::change_voters::{ChangeError, VoterChange};
pub(crate) use self::propose::{fits, only_raft};

type Raft = openraft::Raft<Types, StateMachine>;

/// The replicated log of one node and the state that results from it. Clones share it.
#[derive(Clone)]
pub(crate) struct Engine(Arc<Core>);

struct Core {
    node: NodeId,
    /// The nonce of this process, drawn at random at its start. It tells this process from another one of the same
    /// node.
    process: Nonce,
    config: Config,
    /// The data folder, for messages.
    data: PathBuf,
    raft: Raft,
    batches: Batches,
    machine: StateMachine,
    store: LogStore,
    feed: Feed,
    peers: Arc<Peers>,
    /// What confirms that this node leads.
    rounds: Rounds<Option<Revision>>,
    /// What asks the leader for a read index.
    asked: Rounds<Option<Revision>>,
    arrivals: Arrivals,
    stood: Stood,
    /// The time before which this voter neither votes nor stands for election (P22); `None` if it has never voted.
    embargo_ends: Option<Moment>,
    identity: OnceLock<Identity>,
    shut_down: OnceLock<()>,
}

impl Engine {
    /// This node.
    pub(crate) fn node(&self) -> NodeId {
        self.0.node
    }

    /// The nonce that this process drew at its start.
    pub(crate) fn process(&self) -> Nonce {
        self.0.process
    }

    /// The configuration of this node.
    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }

    /// When the periodic tasks of this node wake.
    pub(crate) fn beat(&self) -> Beat {
        Beat::of(self.0.node, self.0.config.heartbeat())
    }

    /// The data folder.
    pub(crate) fn data(&self) -> &Path {
        &self.0.data
    }

    /// The other nodes, as this one calls them.
    pub(crate) fn peers(&self) -> &Peers {
        &self.0.peers
    }

    /// The committed events.
    pub(crate) fn feed(&self) -> &Feed {
        &self.0.feed
    }

    /// Looks at the committed state, as far as it is applied here. Cheaper than a picture of it, but nothing is applied
    /// meanwhile, so it should be short.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&ClusterState) -> R) -> R {
        self.0.feed.look(look)
    }

    /// A picture of the committed state, as far as it is applied here.
    pub(crate) fn state(&self) -> Arc<ClusterState> {
        self.0.feed.state()
    }

    /// Follows how far the log is applied here.
    pub(crate) fn progress(&self) -> watch::Receiver<Revision> {
        self.0.machine.progress()
    }

    /// Follows the last revision that changed members, fencing, sessions or leadership, or began a term.
    pub(crate) fn standing(&self) -> watch::Receiver<Revision> {
        self.0.machine.standing()
    }

    /// How far the log is applied here.
    pub(crate) fn applied(&self) -> Revision {
        self.0.machine.applied()
    }

    /// The time before which a promise of its former life binds this voter (P22); `None` if it has never voted.
    pub(crate) fn embargo_ends(&self) -> Option<Moment> {
        self.0.embargo_ends
    }

    /// This life; `None` until its join is applied here.
    pub(crate) fn identity(&self) -> Option<Identity> {
        if let Some(known) = self.0.identity.get() {
            return Some(*known);
        }
        let found = self.look(|state| state.life_of(self.0.node, self.0.process))?;
        Some(*self.0.identity.get_or_init(|| found))
    }

    /// Why nothing becomes durable here now, and the remedy; `None` while the disk works.
    pub(crate) fn disk_trouble(&self) -> Option<String> {
        let data = self.0.data.display();
        self.0.store.trouble(self.0.config.election_max()).map(|trouble| match trouble {
            Trouble::Full => format!(
                "the disk of {data} is full, and nothing is written until there is room; free some space, and this node \
                 continues without a restart"
            ),
            Trouble::Slow(timeout) => format!(
                "the disk of {data} has not finished a write for {timeout:?}, and nothing more is written until it does; \
                 if it never does, check the disk and restart this node"
            ),
        })
    }

    /// Why the engine accepts no input now; `None` while it does. It refuses input while the disk does not work and a
    /// vote waits to become durable, because the input would pile up in memory.
    pub(crate) fn takes_nothing(&self) -> Option<String> {
        self.0.store.vote_under_way().and_then(|_| self.disk_trouble())
    }

    /// Why this node has stopped; `None` while it runs.
    pub(crate) fn stopped(&self) -> Option<Fatal> {
        if let Some(why) = self.0.store.poisoned() {
            return Some(Fatal::Storage(why));
        }
        if let Some(fatal) = self.0.machine.unreadable() {
            return Some(fatal);
        }
        if self.0.shut_down.get().is_some() {
            return Some(Fatal::Shutdown);
        }
        let running = self.0.raft.metrics().borrow_watched().running_state.clone();
        running.err().map(|e| Fatal::Engine(e.to_string()))
    }

    /// Stops the engine for `why`. `false` if it was shut down before.
    pub(crate) async fn stop(&self, why: &Fatal) -> bool {
        if matches!(why, Fatal::Shutdown) && self.0.shut_down.set(()).is_err() {
            return false;
        }
        // The engine may be waiting for room on the disk. Nothing else ends that wait.
        self.0.store.wait_no_more();
        if let Err(error) = self.0.raft.shutdown().await {
            tracing::warn!(node = %self.0.node, %error, "the engine did not stop cleanly");
        }
        true
    }

    /// Ends the feed and closes the log. Blocks until the disk has finished.
    pub(crate) fn close(&self) {
        self.0.feed.close();
        self.0.store.close();
    }
}
