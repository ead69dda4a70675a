//! What is applied anywhere is durable on a quorum, and never becomes another entry, across every end of every process.

use std::collections::{BTreeMap, BTreeSet};

use quorate::testing::sim::{Durable, Observation, TraceEntry};
use quorate_raft_core::rpc::{Position, VoterSets};

use super::held::Held;
use super::{Property, Verdict};

#[derive(Default)]
pub(crate) struct Committed {
    held: Held,
    committed: BTreeMap<u64, Position>,
    /// Every configuration that stands in some log, by where it stands.
    voters: BTreeMap<Position, VoterSets>,
    /// The last that was committed.
    current: Option<Position>,
}

impl Committed {
    /// Whether a quorum of the configuration in force, or of one on its way, holds it: a leader counts by the newest in its
    /// own log.
    fn on_a_quorum(&self, at: Position) -> bool {
        let holders = self.held.holders(at);
        let mut candidates = self.voters.range(self.current.unwrap_or(at)..).map(|(_, voters)| voters).peekable();
        candidates.peek().is_none()
            || candidates.any(|voters| {
                let majority = |set: &BTreeSet<_>| set.intersection(&holders).count() * 2 > set.len();
                // A leader whose log has the end of a joint change already, though on no disk yet, counts by the new set.
                voters.sets.iter().all(majority) || voters.sets.last().is_some_and(majority)
            })
    }
}

impl Property for Committed {
    fn claim(&self) -> &'static str {
        "what is applied is durable on a quorum, and never becomes another entry (Raft)"
    }

    fn see(&mut self, entry: &TraceEntry) -> Verdict {
        let node = entry.node;
        if let Observation::Durable(Durable::Truncated(from)) = &entry.seen
            && let Some((_, at)) = self.committed.range(from..).next()
            && self.held.has_entry(node, *at)
            && !self.held.covers(node, *at)
        {
            return Err(format!("{node} truncated from {from}, and {at} was committed"));
        }
        self.held.see(entry);
        match &entry.seen {
            Observation::Durable(Durable::Entries(entries)) | Observation::Opened { entries, .. } => {
                self.voters.extend(entries.iter().filter_map(|entry| Some((entry.at, entry.voters.clone()?))));
            }
            Observation::Applied { at, voters, .. } => match self.committed.get(&at.index) {
                Some(known) if known != at => return Err(format!("{node} applies {at}, and {known} was committed")),
                Some(_) => {}
                None => {
                    if !self.on_a_quorum(*at) {
                        return Err(format!("{node} applies {at}, which only {:?} hold", self.held.holders(*at)));
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
