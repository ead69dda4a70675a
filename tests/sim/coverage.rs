//! How often each fault and each interesting state came about. A sweep in which one never did proves less than it says, and
//! fails.

use std::collections::{BTreeMap, BTreeSet};

use quorate::lease::ledger::Note;
use quorate::testing::sim::{Durable, End, FaultCounts, Observation, TraceEntry};
use quorate::{
    Event, Identity, NodeId,
    fencing::{Cause, FenceId, FenceProof},
};

use crate::faults::Kind;

#[derive(Default)]
struct Watch {
    leaders: BTreeMap<NodeId, u64>,
    started: BTreeMap<FenceId, NodeId>,
    open: BTreeMap<FenceId, Identity>,
    seen: BTreeSet<u64>,
    joint: bool,
}

/// Counts.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) counts: BTreeMap<String, u64>,
    watch: Watch,
}

/// The states that a sweep must have come through.
const STATES: [&str; 27] = [
    "ordered because a machine refused",
    "message slow on a thin way",
    "second of a whole majority among faults: commits judged",
    "second of a whole majority among faults: leases judged",
    "two leaders at once",
    "order resumed by another node",
    "fenced by time",
    "fenced by a device",
    "second proof after the first",
    "device failed",
    "return in the middle of a fence",
    "succeeded by its next life",
    "left cleanly",
    "snapshot taken",
    "snapshot installed from another node",
    "snapshot during a change of voters",
    "joint configuration",
    "ended by its dead-man",
    "lease ran out with work",
    "lease ran out and work stopped in time",
    "lock passed on by proof",
    "vote lost or torn by an end",
    "write unknown",
    "write refused",
    "a node stopped for good",
    "log truncated",
    "role changed",
];

impl Tally {
    pub(crate) fn count(&mut self, what: &str) {
        self.add(what, 1);
    }

    pub(crate) fn add(&mut self, what: &str, times: u64) {
        if times > 0 {
            *self.counts.entry(what.into()).or_default() += times;
        }
    }

    /// What became of the messages of the network.
    pub(crate) fn count_messages(&mut self, counts: &FaultCounts) {
        let FaultCounts { lost, twice, late, waited, .. } = *counts;
        let of = [("lost", lost), ("twice", twice), ("late", late), ("slow on a thin way", waited)];
        of.into_iter().for_each(|(what, times)| self.add(&format!("message {what}"), times));
    }

    /// What never happened.
    pub(crate) fn missing(&self) -> Vec<String> {
        let faults = Kind::ALL.iter().map(|kind| format!("fault {kind:?}"));
        let states = STATES.iter().map(|state| (*state).to_string());
        faults.chain(states).filter(|what| !self.counts.contains_key(what)).collect()
    }

    pub(crate) fn see(&mut self, entry: &TraceEntry) {
        let node = entry.node;
        match &entry.seen {
            Observation::Ended { how } => {
                self.watch.leaders.remove(&node);
                self.count(if *how == End::PowerCut { "power cut" } else { "killed" });
            }
            Observation::Unsure(of) if of.iter().any(|durable| matches!(durable, Durable::Vote(_))) => {
                self.count("vote lost or torn by an end");
            }
            Observation::Fired => self.count("ended by its dead-man"),
            Observation::Noted(Note::Activated { .. }) => {
                // Until it is seen to follow another, it believes in itself.
                self.watch.leaders.insert(node, 0);
                if self.watch.leaders.len() > 1 {
                    self.count("two leaders at once");
                }
            }
            Observation::Noted(Note::Notice { protecting, .. }) if !protecting.is_empty() => {
                self.count("lease ran out with work");
            }
            Observation::Noted(Note::Lapsed { protecting, .. }) if protecting.is_empty() => {
                self.count("lease ran out and work stopped in time");
            }
            Observation::Durable(Durable::Vote(vote)) if vote.committed && vote.node != node => {
                self.watch.leaders.remove(&node);
            }
            Observation::Durable(Durable::Truncated(_)) => self.count("log truncated"),
            Observation::Durable(Durable::Snapshot(_)) => {
                self.count("snapshot taken");
                if self.watch.joint {
                    self.count("snapshot during a change of voters");
                }
            }
            Observation::Installed { .. } => self.count("snapshot installed from another node"),
            Observation::Applied { at, answer, state, voters, .. } if self.watch.seen.insert(at.index) => {
                if voters.is_some() {
                    self.watch.joint = state.configuration().is_joint();
                    if self.watch.joint {
                        self.count("joint configuration");
                    }
                }
                for event in answer.iter().flatten() {
                    self.happened(event, state);
                }
            }
            _ => {}
        }
    }

    fn happened(&mut self, event: &Event, state: &quorate::state::ClusterState) {
        match event {
            Event::FenceOrdered { order, target, cause } => {
                if *cause == Cause::Refused {
                    self.count("ordered because a machine refused");
                }
                self.watch.open.insert(*order, *target);
            }
            Event::FenceStarted { order, by, .. } => {
                let before = self.watch.started.insert(*order, *by);
                self.add("order resumed by another node", u64::from(before.is_some_and(|before| before != *by)));
            }
            Event::FenceFailed { .. } => self.count("device failed"),
            Event::Fenced { order, proof, token, .. } => {
                self.watch.open.remove(order);
                self.count(match proof {
                    FenceProof::Device { .. } => "fenced by a device",
                    FenceProof::Expired { .. } => "fenced by time",
                    FenceProof::Succeeded { .. } => "succeeded by its next life",
                    _ => "fenced otherwise",
                });
                let passed = state
                    .store()
                    .locks()
                    .filter(|(_, lock)| lock.grant.as_ref().is_some_and(|grant| grant.token == *token))
                    .count();
                self.add("lock passed on by proof", passed as u64);
            }
            Event::Left { .. } => self.count("left cleanly"),
            Event::RoleChanged { .. } => self.count("role changed"),
            Event::Corroborated { .. } => self.count("second proof after the first"),
            Event::Joined { who, .. } if self.watch.open.values().any(|target| target.node == who.node) => {
                self.count("return in the middle of a fence");
            }
            _ => {}
        }
    }
}
