//! What the disk of each node holds of the log, by what it has acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use quorate::NodeId;
use quorate::testing::sim::{Durable, Observation, Stored, TraceEntry};
use quorate_raft_core::rpc::Position;

#[derive(Default)]
struct Log {
    entries: BTreeMap<u64, Position>,
    /// Up to where a snapshot stands for the entries.
    covered: Option<Position>,
}

/// The logs on all disks.
#[derive(Default)]
pub(super) struct Held(BTreeMap<NodeId, Log>);

impl Held {
    /// Takes in what was seen next.
    pub(super) fn see(&mut self, entry: &TraceEntry) {
        let log = self.0.entry(entry.node).or_default();
        let store = |log: &mut Log, entries: &[Stored]| {
            log.entries.extend(entries.iter().map(|entry| (entry.at.index, entry.at)));
        };
        match &entry.seen {
            Observation::Durable(Durable::Entries(entries)) => store(log, entries),
            Observation::Durable(Durable::Truncated(from)) => drop(log.entries.split_off(from)),
            Observation::Durable(Durable::Purged(upto)) => log.entries = log.entries.split_off(&(upto + 1)),
            Observation::Durable(Durable::Snapshot(last)) => log.covered = *last,
            Observation::Opened { snapshot, entries, .. } => {
                *log = Log { covered: *snapshot, ..Log::default() };
                store(log, entries);
            }
            _ => {}
        }
    }

    /// Whether the log of `node` has the entry itself.
    pub(super) fn has_entry(&self, node: NodeId, at: Position) -> bool {
        self.0.get(&node).is_some_and(|log| log.entries.get(&at.index) == Some(&at))
    }

    /// Whether the snapshot of `node` covers the place of the entry.
    pub(super) fn covers(&self, node: NodeId, at: Position) -> bool {
        self.0.get(&node).is_some_and(|log| log.covered.is_some_and(|covered| covered.index >= at.index))
    }

    /// Whether the log of `node` has the entry, or a snapshot that covers its place.
    pub(super) fn holds(&self, node: NodeId, at: Position) -> bool {
        self.has_entry(node, at) || self.covers(node, at)
    }

    /// Whose logs hold it.
    pub(super) fn holders(&self, at: Position) -> BTreeSet<NodeId> {
        self.0.keys().copied().filter(|node| self.holds(*node, at)).collect()
    }
}
