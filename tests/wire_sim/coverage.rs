//! How often each fault and each interesting state came about. A long sweep in which one never did fails.

use std::collections::{BTreeMap, BTreeSet};

use quorate::Event;
use quorate::lease::ledger::Note;
use quorate::testing::sim::{Durable, End, Observation, TraceEntry};

use crate::faults::Kind;

/// Counts.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) counts: BTreeMap<String, u64>,
    terms: BTreeSet<u64>,
    applied: BTreeSet<u64>,
}

/// The states that a long sweep must have come through.
const STATES: [&str; 10] = [
    "connection made",
    "connection refused or not in time",
    "connection broken",
    "connection found dead by its ping",
    "election won",
    "fenced",
    "ended by its dead-man",
    "snapshot installed",
    "write done",
    "write unknown",
];

impl Tally {
    pub(crate) fn count(&mut self, what: &str) {
        self.add(what, 1);
    }

    pub(crate) fn add(&mut self, what: &str, times: u64) {
        *self.counts.entry(what.into()).or_default() += times;
    }

    /// What never happened.
    pub(crate) fn missing(&self) -> Vec<String> {
        let faults = Kind::ALL.iter().map(|kind| format!("fault {kind:?}"));
        let states = STATES.iter().map(|state| (*state).to_string());
        faults.chain(states).filter(|what| self.counts.get(what).is_none_or(|times| *times == 0)).collect()
    }

    pub(crate) fn see(&mut self, entry: &TraceEntry) {
        match &entry.seen {
            Observation::Ended { how: End::PowerCut } => self.count("power cut"),
            Observation::Ended { how: End::Killed } => self.count("killed"),
            Observation::Fired => self.count("ended by its dead-man"),
            Observation::Installed { .. } => self.count("snapshot installed"),
            Observation::Noted(Note::Lapsed { .. }) => self.count("lease ran out"),
            Observation::Durable(Durable::Vote(vote))
                if vote.committed && vote.node == entry.node && self.terms.insert(vote.term) =>
            {
                self.count("election won");
            }
            Observation::Applied { at, answer: Ok(events), .. } if self.applied.insert(at.index) => {
                let fenced = events.iter().filter(|event| matches!(event, Event::Fenced { .. })).count();
                if fenced > 0 {
                    self.add("fenced", fenced as u64);
                }
            }
            _ => {}
        }
    }
}
