//! Opens the log in a data folder, and starts openraft on it with quorate's settings.
//!
//! ```text
//!   open(folder) ─▶ Folder (locked, counted) + LogStore ─▶ Engine::start ─▶ openraft, network, state machine, feed
//! ```

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use openraft::{SnapshotPolicy, StepDownPolicy};
use quorate_membership::detector::Moment;
use quorate_membership::{ClusterId, Disk, NodeId, Nonce};

use crate::config::Config;
use crate::engine::batches::Batches;
use crate::engine::log_store::{LogStore, OpenError};
use crate::engine::network::NetworkFactory;
use crate::engine::peers::Peers;
use crate::engine::state_machine::{OnEvent, StateMachine};
use crate::engine::{Core, Engine, Raft};
use crate::error::StartError;
use crate::feed::Feed;
use crate::folder::Folder;
use crate::host::{Beat, clock};
use crate::transport::Transport;

/// Everything that an engine needs to start.
pub(crate) struct Opening {
    pub(crate) node: NodeId,
    pub(crate) process: Nonce,
    pub(crate) config: Config,
    /// The data folder, for messages.
    pub(crate) data: PathBuf,
    /// The identity of the data folder's disk, which every call to another node carries.
    pub(crate) disk: Disk,
    /// The cluster that the folder belongs to; `None` before the first join.
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) store: LogStore,
    pub(crate) transport: Arc<dyn Transport>,
    /// Called with each committed event before any reader of the feed sees it.
    pub(crate) on_event: OnEvent,
}

impl Engine {
    /// Starts openraft on an open log.
    ///
    /// # Errors
    /// [`StartError::Engine`] when openraft rejects the settings or cannot read the log; nothing was changed.
    pub(crate) async fn start(opening: Opening) -> Result<Self, StartError> {
        let Opening { node, process, config, data, disk, cluster, store, transport, on_event } = opening;
        let feed = Feed::new(config.event_history, usize::try_from(config.log_bytes / 8).unwrap_or(usize::MAX));
        let machine = StateMachine::new(store.clone(), feed.clone(), on_event);
        let peers = Arc::new(Peers::new(transport, node, disk, process, config.timing.hash(), cluster, feed.clone()));
        // P22: a node that voted before may still be bound by a promise that it no longer remembers.
        let voted = store.vote().is_some();
        let embargo_ends = voted.then(|| Moment::new(clock::now().since_origin() + config.embargo()));
        let settings = Arc::new(settings(&config, !voted)?);
        let network = NetworkFactory {
            peers: peers.clone(),
            store: store.clone(),
            answers_within: config.election_min(),
            spared_for: (config.heartbeat() * 4).min(config.suspect_after() * 8 / 15).min(config.election_max() / 2),
        };
        let raft = Raft::new(node.get(), settings, network, store.clone(), machine.clone());
        let raft =
            Beat::of(node, config.heartbeat()).kept_by(raft).await.map_err(|e| StartError::Engine(e.to_string()))?;
        let batches = Batches::start(raft.clone(), config.heartbeat() / 4);
        let (rounds, asked, arrivals, stood) = Default::default();
        let (identity, shut_down) = (OnceLock::new(), OnceLock::new());
        Ok(Self(Arc::new(Core {
            node,
            process,
            config,
            data,
            batches,
            raft,
            machine,
            store,
            feed,
            peers,
            rounds,
            asked,
            arrivals,
            stood,
            embargo_ends,
            identity,
            shut_down,
        })))
    }
}

/// openraft's election timeouts, in milliseconds. A follower of openraft stands after the lease of its leader, which is the
/// longest timeout, *and* a random timeout after that; it notices with its next tick, which comes with the beat of the node. Half
/// of each, and a beat less, makes the sum lie between about the mean of the two timeouts and the longest: with 400 and 800 ms
/// and 40 ms for a beat, between 580 and 800 ms.
fn raft_timeouts(config: &Config) -> (u64, u64) {
    let half = |d: Duration| u64::try_from(d.as_millis() / 2).unwrap_or(u64::MAX / 4);
    let heartbeat = u64::try_from(config.heartbeat().as_millis()).unwrap_or(u64::MAX / 4);
    let least = half(config.election_min()).max(heartbeat + 1);
    (least, half(config.election_max().saturating_sub(config.heartbeat() / 2)).max(least + 1))
}

/// openraft's settings. `stand`: whether this node may stand for election immediately.
fn settings(config: &Config, stand: bool) -> Result<openraft::Config, StartError> {
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let (election_timeout_min, election_timeout_max) = raft_timeouts(config);
    let made = openraft::Config {
        cluster_name: "quorate".into(),
        // Due shortly before each second beat, which is when it is sent.
        heartbeat_interval: ms(config.heartbeat() * 7 / 8).max(1),
        election_timeout_min,
        election_timeout_max,
        // How long it may stand still.
        install_snapshot_timeout: 10_000,
        // Never by itself: `retention.rs` asks for one, because it knows sizes.
        snapshot_policy: SnapshotPolicy::Never,
        replication_lag_threshold: config.snapshot_every * 2,
        // Never by itself: `retention.rs` purges, because it knows sizes.
        max_in_snapshot_log_to_keep: u64::MAX,
        backoff: "20ms 40ms 80ms ...200ms".into(),
        enable_elect: stand,
        enable_pre_vote: Some(true),
        // A restarted leader must be elected again: its belief from before the restart proves nothing.
        enable_leader_restore: Some(false),
        // Without this probe, a connected majority can stay without a leader under a bridge partition (openraft#2080).
        quorum_loss_probe_interval: Some(2 * ms(config.election_max())),
        broadcast_submitted_on_append: Some(true),
        removed_leader_step_down: StepDownPolicy::After(ms(config.election_min())),
        ..Default::default()
    };
    made.validate().map_err(|e| StartError::Engine(e.to_string()))
}

/// Opens a data folder and the log in it.
pub(crate) fn open(data: &Path, node: NodeId) -> Result<(Folder, LogStore), StartError> {
    let folder = Folder::open(data, node)?;
    let path = folder.log_path();
    // A member has a log that records its votes. If the log is gone, the node must not start afresh under its number.
    let opened = match folder.cluster() {
        Some(_) => LogStore::open_existing(&path),
        None => LogStore::open(&path),
    };
    let store = opened.map_err(|error| match error {
        OpenError::InUse => StartError::InUse(data.into()),
        OpenError::Damaged(why) => StartError::Damaged { path: path.clone(), why },
        OpenError::Io(cause) => StartError::Folder { path: path.clone(), cause },
    })?;
    Ok((folder, store))
}

#[cfg(test)]
mod tests {
    use quorate_membership::Profile;

    use super::*;

    #[test]
    fn a_follower_stands_between_its_election_timeouts() {
        for profile in Profile::ALL {
            let config = Config { timing: profile.timing(), ..Config::default() };
            let (least, most) = raft_timeouts(&config);
            let (soonest, latest) = (Duration::from_millis(most + least), Duration::from_millis(2 * most));
            let noticed = latest + config.heartbeat() / 2;
            assert!(
                soonest >= config.election_min() && noticed <= config.election_max() + Duration::from_millis(1),
                "{profile}"
            );
            assert!(settings(&config, true).is_ok(), "{profile}");
        }
    }
}
