//! Keeps the log within its bound in bytes: a snapshot when enough has gathered since the last, then a purge.
//!
//! ```text
//!   purged         covered by the snapshot          last
//!   ░░░░░▼────────────────▼──────────────────────────▼
//!        │  kept: a few   │  since the snapshot: at an eighth of the bound, or as much as the snapshot has (up to a
//!        │  entries, up   │  quarter less, by node), a new one is taken; at half of it, new commands wait until a
//!        │  to a sixteenth│  majority has acknowledged more
//!        └─ what a node that answers still needs stays, as long as the whole log is within its bound
//! ```
//!
//! The whole log is in memory, so this bounds the memory and the file as well. openraft counts entries only, and 512 entries
//! may be 512 bytes or 512 MiB.

use quorate_membership::NodeId;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::engine::log_store::LogWeight;
use crate::host::beat;

/// Fewer entries are not purged by themselves, unless they are large: each purge costs a write.
const FEW: u64 = 64;

/// Whether an entry after `covered`, up to `last`, was one of a node's own, of which there is one in `every`. While a
/// snapshot is written the log takes nothing else, so each node has others, and a majority that writes none goes on.
fn passed(node: NodeId, covered: u64, last: u64, every: u64) -> bool {
    let (offset, every) = (beat::share(node, u128::from(every)), every.max(1));
    last.saturating_add(offset) / every > covered.saturating_add(offset) / every
}

/// A limit that is up to a quarter lower, another one for each node, for the same reason.
fn sooner(node: NodeId, limit: u64) -> u64 {
    limit - beat::share(node, u128::from(limit / 4))
}

/// Runs until `stop`, or until the engine has stopped.
pub(crate) async fn run(engine: Engine, stop: CancellationToken) {
    let mut progress = engine.progress();
    let pause = engine.config().heartbeat() / 2;
    loop {
        let Some(under_way) = engine.trim().await else { return };
        let grown = async {
            match under_way {
                // The snapshot or the purge that was asked for may be done without another entry.
                true => drop(timeout(pause, progress.changed()).await),
                false => drop(progress.changed().await),
            }
            sleep(pause).await;
        };
        tokio::select! { biased;
            () = stop.cancelled() => return,
            () = grown => {}
        }
    }
}

impl Engine {
    /// Asks for what is due. Returns whether something is under way; `None` once the engine has stopped.
    async fn trim(&self) -> Option<bool> {
        let (config, weight) = (self.config(), self.0.store.weigh());
        let bound = config.log_bytes;
        let sooner = |limit: u64| sooner(self.node(), limit);
        let enough = sooner(weight.snapshot.clamp(bound / 8, bound / 2));
        // A snapshot covers what is applied, and no more.
        let since = weight.since_snapshot.saturating_sub(self.unapplied());
        let applied = self.applied().get();
        let covered = weight.covered.map_or(0, |covered| covered + 1);
        // A large state is not written anew for a few small entries.
        let many = passed(self.node(), covered, applied, config.snapshot_every)
            && since >= sooner(weight.snapshot.min(bound) / 2);
        let due = since > enough || many;
        if due {
            // openraft ignores it while one is being taken.
            self.0.raft.trigger().snapshot().await.ok()?;
        }
        self.note_who_is_behind(&weight);
        let upto = self.purgeable(&weight).filter(|upto| weight.purged.is_none_or(|purged| *upto > purged));
        let gone = |upto: u64| {
            let first = weight.purged.map_or(0, |purged| purged + 1);
            let bytes = weight.total.saturating_sub(self.0.store.weight_after(Some(upto)));
            (upto + 1).saturating_sub(first) >= FEW || bytes > bound / 32
        };
        let purge = upto.filter(|upto| gone(*upto));
        if let Some(upto) = purge {
            self.0.raft.trigger().purge_log(upto).await.ok()?;
        }
        Some(due || purge.is_some())
    }

    /// openraft purges nothing that is on its way to a node. One that takes it in, but slower than it is written, would keep the
    /// log from its bound for ever. Its stream is ended, and it is sent a snapshot.
    fn note_who_is_behind(&self, weight: &LogWeight) {
        let first = self.reach().filter(|_| weight.total > self.config().log_bytes);
        let matched = self.all_matched().into_iter();
        let behind = matched.filter(|(_, at)| first.is_some_and(|first| at.get() <= first)).map(|(node, _)| node);
        self.0.peers.set_behind(behind.collect());
    }

    /// The last entry that goes when the log keeps as many bytes as it should, whoever needs more.
    fn reach(&self) -> Option<u64> {
        self.0.store.beyond(self.config().log_bytes / 16)
    }

    /// The last entry that the log can do without.
    fn purgeable(&self, weight: &LogWeight) -> Option<u64> {
        let config = self.config();
        let covered = weight.covered?;
        let by_number = covered.checked_sub(config.keep_entries);
        let by_bytes = self.reach().map(|upto| upto.min(covered));
        let upto = by_number.max(by_bytes)?;
        let needed = self.needed_after(weight.purged).filter(|_| weight.total <= config.log_bytes);
        Some(needed.map_or(upto, |needed| upto.min(needed)))
    }

    /// The entry after which a node that answers, or receives a snapshot, still needs the log.
    fn needed_after(&self, purged: Option<u64>) -> Option<u64> {
        let mut answering = self.answering();
        // A learner may be sent few heartbeats. What it answers to entries counts as well.
        let lately = self.0.peers.contacts.answered_within(self.config().election_max());
        answering.extend(lately.into_iter().filter(|node| !self.0.peers.has_a_vote(*node)));
        let matched = self.all_matched().into_iter().filter(|(node, _)| answering.contains(node));
        // One that is behind the log is sent a snapshot, and then needs what comes after that.
        let following = matched.filter_map(|(_, at)| at.get().checked_sub(1)).filter(|at| Some(*at) >= purged);
        following.chain(self.0.peers.receiving()).min()
    }

    /// Waits, on a leader, while commands that no majority has acknowledged take half of what the log may take. Returns whether
    /// there is room now. What passes together is not counted against each other, so it is a brake and no exact bound.
    pub(super) async fn room_for_commands(&self, give_up: Instant) -> bool {
        let (mut progress, heartbeat) = (self.progress(), self.config().heartbeat());
        while self.unapplied() > self.config().log_bytes / 2 {
            if Instant::now() >= give_up || !self.leading() {
                return false;
            }
            // The next entry makes room. That this node leads no more is looked up at least once a heartbeat.
            let _look_again = timeout(heartbeat, progress.changed()).await;
        }
        true
    }

    /// The bytes of the entries that are not applied.
    fn unapplied(&self) -> u64 {
        self.0.store.weight_after(self.applied().get().checked_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_of_a_cluster_has_its_own_entries_for_snapshots() {
        let due = |node: u64| (1..=10_000).filter(move |last| passed(NodeId::new(node), last - 1, *last, 1000));
        for a in 1..=5 {
            let own: Vec<u64> = due(a).collect();
            assert!(own.len() == 10 && own.windows(2).all(|pair| pair[1] - pair[0] == 1000), "{own:?}");
            for b in 1..a {
                assert!(due(b).all(|b| own.iter().all(|a| a.abs_diff(b) > 80)), "n{a} and n{b}");
            }
        }
        // One that was left out is made up for.
        assert!(passed(NodeId::new(1), 100, 1100, 1000) && !passed(NodeId::new(1), 100, 100, 1000));
        assert!(passed(NodeId::new(1), 0, u64::MAX, 0));
    }

    #[test]
    fn each_node_of_a_cluster_has_its_own_limits() {
        let limits: Vec<u64> = (1..=5).map(|node| sooner(NodeId::new(node), 1000)).collect();
        for (i, a) in limits.iter().enumerate() {
            assert!((750..=1000).contains(a), "{limits:?}");
            assert!(limits[..i].iter().all(|b| a.abs_diff(*b) >= 20), "{limits:?}");
        }
        assert_eq!((sooner(NodeId::new(3), 0), sooner(NodeId::new(3), 3)), (0, 3));
    }
}
