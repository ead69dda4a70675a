//! A device's proof follows its own success under that order (I10), and no order leaves less than a majority (I18).

use std::collections::BTreeMap;
use std::time::Duration;

use quorate::testing::sim::{Observation, TraceEntry};
use quorate::{
    Event, NodeId,
    fencing::{FenceId, FenceProof},
    state::{ClusterState, Phase},
};

use super::{Property, Verdict};

#[derive(Default)]
pub(crate) struct Fences {
    ordered: BTreeMap<FenceId, Duration>,
    /// When the device last saw each machine off.
    off: BTreeMap<NodeId, Duration>,
}

/// Who votes and is neither over nor about to be.
fn standing(state: &ClusterState) -> std::collections::BTreeSet<NodeId> {
    let ending = |node: NodeId| {
        let newest = state.newest(node);
        let life = newest.and_then(|who| state.life(who));
        life.is_none_or(|life| !matches!(life.phase, Phase::Joining | Phase::Active))
    };
    state.configuration().voters().into_iter().filter(|node| !ending(*node)).collect()
}

impl Property for Fences {
    fn claim(&self) -> &'static str {
        "a device's proof follows its own success under that order, and no order breaks the majority (I10, I18)"
    }

    fn see(&mut self, entry: &TraceEntry) -> Verdict {
        match &entry.seen {
            Observation::Said(text) => {
                let off = text.strip_prefix("device has ").and_then(|rest| rest.strip_suffix(" off"));
                if let Some(node) = off.and_then(|node| node.parse().ok()) {
                    self.off.insert(node, entry.at);
                }
            }
            Observation::Applied { at, answer: Ok(events), state, .. } => {
                for event in events {
                    match event {
                        Event::FenceOrdered { order, target, .. } => {
                            self.ordered.entry(*order).or_insert(entry.at);
                            // The former life of a node that is back takes nobody from the voters.
                            let newest = state.newest(target.node) == Some(*target);
                            if newest && !state.configuration().has_quorum(&standing(state)) {
                                return Err(format!("{order} against {target} at {at} leaves {:?}", standing(state)));
                            }
                        }
                        Event::Fenced { order, who, proof: FenceProof::Device { .. }, .. } => {
                            let (ordered, off) = (self.ordered.get(order), self.off.get(&who.node));
                            if ordered.is_none() || off < ordered {
                                return Err(format!("{event} at {at}: ordered at {ordered:?}, seen off at {off:?}"));
                            }
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}
