//! What is applied anywhere is durable on a quorum, and never becomes another entry, across every end of every process.

use std::collections::{BTreeMap, BTreeSet};

use quorate::NodeId;
use quorate::testing::sim::{Durable, Seen, Sighting, Stored};
use quorate_raft_core::rpc::{Position, VoterSets};

use super::{Property, Verdict};

#[derive(Default)]
struct Log {
    entries: BTreeMap<u64, Position>,
    covered: Option<Position>,
}

#[derive(Default)]
pub(crate) struct Committed {
    logs: BTreeMap<NodeId, Log>,
    committed: BTreeMap<u64, Position>,
    /// Every configuration that stands in some log, by where it stands.
    voters: BTreeMap<Position, VoterSets>,
    /// The last that was committed.
    current: Option<Position>,
}

impl Committed {
    fn stored(&mut self, node: NodeId, entries: &[Stored]) {
        let log = self.logs.entry(node).or_default();
        log.entries.extend(entries.iter().map(|entry| (entry.at.index, entry.at)));
        let changes = entries.iter().filter_map(|entry| Some((entry.at, entry.voters.clone()?)));
        self.voters.extend(changes);
    }

    fn holders(&self, at: Position) -> BTreeSet<NodeId> {
        let holds = |log: &Log| {
            log.entries.get(&at.index) == Some(&at) || log.covered.is_some_and(|covered| covered.index >= at.index)
        };
        self.logs.iter().filter(|(_, log)| holds(log)).map(|(node, _)| *node).collect()
    }

    /// Whether a quorum of the configuration in force, or of one on its way, holds it: a leader counts by the newest in its
    /// own log.
    fn on_a_quorum(&self, at: Position) -> bool {
        let holders = self.holders(at);
        let mut candidates = self.voters.range(self.current.unwrap_or(at)..).map(|(_, voters)| voters).peekable();
        candidates.peek().is_none()
            || candidates.any(|voters| {
                let majority = |set: &BTreeSet<NodeId>| set.intersection(&holders).count() * 2 > set.len();
                // A leader whose log has the end of a joint change already, though on no disk yet, counts by the new set.
                voters.sets.iter().all(majority) || voters.sets.last().is_some_and(majority)
            })
    }
}

impl Property for Committed {
    fn claim(&self) -> &'static str {
        "what is applied is durable on a quorum, and never becomes another entry (Raft)"
    }

    fn see(&mut self, sighting: &Sighting) -> Verdict {
        let node = sighting.node;
        match &sighting.seen {
            Seen::Durable(Durable::Entries(entries)) => self.stored(node, entries),
            Seen::Durable(Durable::Truncated(from)) => {
                if let Some((_, at)) = self.committed.range(from..).next()
                    && self.logs.entry(node).or_default().entries.get(&at.index) == Some(at)
                {
                    return Err(format!("{node} truncated from {from}, and {at} was committed"));
                }
                drop(self.logs.entry(node).or_default().entries.split_off(from));
            }
            Seen::Durable(Durable::Purged(upto)) => {
                let log = self.logs.entry(node).or_default();
                log.entries = log.entries.split_off(&(upto + 1));
            }
            Seen::Durable(Durable::Snapshot(last)) => self.logs.entry(node).or_default().covered = *last,
            Seen::Opened { snapshot, entries, .. } => {
                self.logs.insert(node, Log { covered: *snapshot, ..Log::default() });
                self.stored(node, entries);
            }
            Seen::Applied { at, voters, .. } => match self.committed.get(&at.index) {
                Some(known) if known != at => return Err(format!("{node} applies {at}, and {known} was committed")),
                Some(_) => {}
                None => {
                    if !self.on_a_quorum(*at) {
                        return Err(format!("{node} applies {at}, which only {:?} hold", self.holders(*at)));
                    }
                    self.committed.insert(at.index, *at);
                    if voters.is_some() {
                        self.current = self.current.max(Some(*at));
                    }
                }
            },
            _ => {}
        }
        Ok(())
    }
}
