//! The engine's settings, and the opening of the folder that it runs on.

use std::path::Path;
use std::time::Duration;

use openraft::{SnapshotPolicy, StepDownPolicy};
use quorate_membership::NodeId;

use crate::config::Config;
use crate::engine::log_store::{LogStore, OpenError};
use crate::error::StartError;
use crate::folder::Folder;

/// `stand` whether this node may stand for election at once.
pub(crate) fn config(config: &Config, stand: bool) -> Result<openraft::Config, StartError> {
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let made = openraft::Config {
        cluster_name: "quorate".into(),
        heartbeat_interval: ms(config.heartbeat()),
        election_timeout_min: ms(config.election_min()),
        election_timeout_max: ms(config.election_max()),
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
        quorum_loss_probe_interval: Some(2 * ms(config.election_max())),
        broadcast_submitted_on_append: Some(true),
        removed_leader_step_down: StepDownPolicy::After(ms(config.election_min())),
        ..Default::default()
    };
    made.validate().map_err(|e| StartError::Engine(e.to_string()))
}

pub(crate) fn open(data: &Path, node: NodeId) -> Result<(Folder, LogStore), StartError> {
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
