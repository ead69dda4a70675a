//! Only who protects something is ended by its own mechanism (I19).

use std::collections::BTreeMap;

use quorate::NodeId;
use quorate::lease::ledger::Note;
use quorate::testing::sim::{Observation, TraceEntry};

use super::{Property, Verdict};

#[derive(Default)]
pub(crate) struct Resets {
    protected: BTreeMap<NodeId, i64>,
}

impl Property for Resets {
    fn claim(&self) -> &'static str {
        "nobody is ended by its mechanism who protects nothing (I19)"
    }

    fn see(&mut self, entry: &TraceEntry) -> Verdict {
        let protected = self.protected.entry(entry.node).or_default();
        match &entry.seen {
            Observation::Began => *protected = 0,
            Observation::Noted(Note::Protects { .. }) => *protected += 1,
            Observation::Noted(Note::Stopped { .. }) => *protected -= 1,
            Observation::Fired if *protected == 0 => {
                return Err(format!("{} was ended with nothing to protect", entry.node));
            }
            _ => {}
        }
        Ok(())
    }
}
