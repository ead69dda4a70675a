//! A disk never goes back behind what it acknowledged (I12): neither a vote nor an entry is lost by any end.

use std::collections::BTreeMap;

use quorate::NodeId;
use quorate::testing::sim::{Durable, Observation, Stored, TraceEntry};
use quorate_raft_core::rpc::{Ballot, Position};

use super::{Property, Verdict};

#[derive(Default)]
struct Disk {
    vote: Option<Ballot>,
    entries: BTreeMap<u64, Stored>,
    /// The end of what a snapshot replaces.
    covered: Option<Position>,
    /// What was being written when it ended: entries from here on may be gone.
    unsure_from: Option<u64>,
}

#[derive(Default)]
pub(crate) struct Disks(BTreeMap<NodeId, Disk>);

impl Disk {
    fn take(&mut self, durable: &Durable) {
        match durable {
            Durable::Vote(vote) => self.vote = Some(*vote),
            Durable::Entries(entries) => self.entries.extend(entries.iter().map(|e| (e.at.index, e.clone()))),
            Durable::Truncated(from) => drop(self.entries.split_off(from)),
            Durable::Purged(upto) => self.entries = self.entries.split_off(&(upto + 1)),
            Durable::Snapshot(last) => self.covered = self.covered.max(*last),
            _ => {}
        }
    }
}

impl Property for Disks {
    fn claim(&self) -> &'static str {
        "a vote, an entry or a snapshot that was acknowledged is there after every end (I12)"
    }

    fn see(&mut self, entry: &TraceEntry) -> Verdict {
        let disk = self.0.entry(entry.node).or_default();
        match &entry.seen {
            Observation::Durable(durable) => disk.take(durable),
            Observation::Unsure(of) => {
                for durable in of {
                    if let Durable::Truncated(from) = durable {
                        disk.unsure_from = Some(disk.unsure_from.map_or(*from, |known| known.min(*from)));
                    }
                }
            }
            Observation::Opened { vote, snapshot, entries, last } => {
                let found: BTreeMap<u64, &Stored> = entries.iter().map(|entry| (entry.at.index, entry)).collect();
                let above = |new: &Ballot, old: &Ballot| {
                    (new.term, new.committed) >= (old.term, old.committed)
                        && (new.term > old.term || new.node == old.node || new.committed)
                };
                if let Some(old) = &disk.vote
                    && !vote.as_ref().is_some_and(|new| above(new, old))
                {
                    return Err(format!("{} had acknowledged the vote {old:?} and opens with {vote:?}", entry.node));
                }
                if disk.covered > *snapshot {
                    let (had, has) = (disk.covered, snapshot);
                    return Err(format!("{} had a snapshot up to {had:?} and opens with {has:?}", entry.node));
                }
                for (index, had) in &disk.entries {
                    let covered = snapshot.is_some_and(|end| end.index >= *index);
                    let unsure = disk.unsure_from.is_some_and(|from| from <= *index);
                    if !covered && !unsure && found.get(index).is_none_or(|has| **has != *had) {
                        let has = found.get(index);
                        return Err(format!("{} had {had:?} and opens with {has:?} (last {last:?})", entry.node));
                    }
                }
                let entries = entries.iter().map(|entry| (entry.at.index, entry.clone())).collect();
                *disk = Disk { vote: *vote, entries, covered: *snapshot, unsure_from: None };
            }
            _ => {}
        }
        Ok(())
    }
}
