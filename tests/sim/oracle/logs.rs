//! Raft's own promises about votes and logs (Ongaro and Ousterhout 2014, figure 3): one leader a term, logs that match, and
//! leaders that have everything that was committed before.

use std::collections::BTreeMap;

use quorate::NodeId;
use quorate::testing::sim::{Durable, Observation, Stored, TraceEntry};
use quorate_raft_core::rpc::Position;

use super::held::Held;
use super::{Property, Verdict};

#[derive(Default)]
pub(crate) struct Logs {
    leaders: BTreeMap<u64, NodeId>,
    /// What each place holds, and the term of the entry before it.
    content: BTreeMap<(u64, u64), u32>,
    held: Held,
    committed: BTreeMap<u64, Position>,
    /// The terms whose leader was looked at.
    complete: BTreeMap<u64, ()>,
}

impl Logs {
    fn elected(&mut self, term: u64, node: NodeId) -> Verdict {
        let known = self.leaders.entry(term).or_insert(node);
        if *known != node {
            return Err(format!("{known} and {node} both lead term {term}"));
        }
        Ok(())
    }

    fn stored(&mut self, node: NodeId, entries: &[Stored]) -> Verdict {
        for entry in entries {
            let key = (entry.at.index, entry.at.term);
            let known = self.content.entry(key).or_insert(entry.sum);
            if *known != entry.sum {
                return Err(format!("{node} has another entry at {} than others", entry.at));
            }
        }
        Ok(())
    }

    /// The first entry of a leader's own term is durable only after everything before it.
    fn leads(&mut self, node: NodeId, entries: &[Stored]) -> Verdict {
        for entry in entries {
            let term = entry.at.term;
            if self.leaders.get(&term) != Some(&node) || self.complete.insert(term, ()).is_some() {
                continue;
            }
            let earlier = self.committed.range(..entry.at.index).rev().take(2000);
            for (_, at) in earlier.filter(|(_, at)| at.term < term) {
                if !self.held.holds(node, *at) {
                    return Err(format!("{node} leads term {term} without {at}, which was committed"));
                }
            }
        }
        Ok(())
    }
}

impl Property for Logs {
    fn claim(&self) -> &'static str {
        "one leader a term, logs that match, and leaders that have all that was committed (Raft)"
    }

    fn see(&mut self, entry: &TraceEntry) -> Verdict {
        let node = entry.node;
        self.held.see(entry);
        match &entry.seen {
            Observation::Durable(Durable::Vote(vote)) if vote.committed => self.elected(vote.term, vote.node)?,
            Observation::Durable(Durable::Entries(entries)) => {
                self.stored(node, entries)?;
                self.leads(node, entries)?;
            }
            Observation::Opened { entries, .. } => self.stored(node, entries)?,
            Observation::Applied { at, .. } => {
                self.committed.insert(at.index, *at);
            }
            _ => {}
        }
        Ok(())
    }
}
