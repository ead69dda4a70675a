//! No leader grants to a life whose end it has applied itself (I3).

use std::collections::{BTreeMap, BTreeSet};

use quorate::lease::ledger::Note;
use quorate::testing::sim::{Observation, TraceEntry};
use quorate::{Event, Identity, NodeId};

use super::{Property, Verdict};

#[derive(Default)]
pub(crate) struct Grants {
    ended: BTreeMap<NodeId, BTreeSet<Identity>>,
}

impl Property for Grants {
    fn claim(&self) -> &'static str {
        "nobody grants a lease to a life whose end it has applied (I3)"
    }

    fn see(&mut self, entry: &TraceEntry) -> Verdict {
        let ended = self.ended.entry(entry.node).or_default();
        match &entry.seen {
            Observation::Applied { answer: Ok(events), .. } => {
                ended.extend(events.iter().filter_map(|event| match event {
                    Event::Fenced { who, .. } | Event::Left { who, .. } => Some(*who),
                    _ => None,
                }));
                Ok(())
            }
            Observation::Noted(Note::Granted { who, seq, .. }) if ended.contains(who) => {
                Err(format!("{} grants renewal {seq} of {who}", entry.node))
            }
            _ => Ok(()),
        }
    }
}
