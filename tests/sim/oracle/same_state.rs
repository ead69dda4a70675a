//! The same entry gives the same state on every node, by log or by snapshot (state machine safety, I17); a rejected one
//! changes nothing (I16).

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate::testing::sim::{Observation, TraceEntry};
use quorate::{NodeId, state::ClusterState};
use quorate_raft_core::rpc::Position;

use super::{Property, Verdict};

/// How many entries back are compared. A node that is further behind comes by a snapshot.
const KEPT: usize = 4000;

#[derive(Default)]
pub(crate) struct SameState {
    states: BTreeMap<u64, (Position, Arc<ClusterState>)>,
    last: BTreeMap<NodeId, (u64, Arc<ClusterState>)>,
}

impl SameState {
    fn compare(&mut self, node: NodeId, at: Position, state: &Arc<ClusterState>) -> Verdict {
        let (place, known) = self.states.entry(at.index).or_insert_with(|| (at, state.clone()));
        if *place != at {
            return Err(format!("{node} has {at} where another has {place}"));
        }
        if !Arc::ptr_eq(known, state) && **known != **state {
            return Err(format!("{node} has another state after {at}"));
        }
        if self.states.len() > KEPT {
            self.states.pop_first();
        }
        Ok(())
    }
}

impl Property for SameState {
    fn claim(&self) -> &'static str {
        "the same entry gives the same state everywhere, and a rejected one changes nothing (I16, I17)"
    }

    fn see(&mut self, entry: &TraceEntry) -> Verdict {
        let node = entry.node;
        match &entry.seen {
            Observation::Began => drop(self.last.remove(&node)),
            Observation::Applied { at, answer, state, .. } => {
                if let Some((last, before)) = self.last.insert(node, (at.index, state.clone())) {
                    if at.index != last + 1 {
                        return Err(format!("{node} applies {at} after entry {last}"));
                    }
                    if let Err(rejection) = answer
                        && **state != *before
                    {
                        return Err(format!("{node} at {at}: `{rejection}` changed the state"));
                    }
                }
                self.compare(node, *at, state)?;
            }
            Observation::Installed { last: Some(last), state } => {
                self.last.insert(node, (last.index, state.clone()));
                if self.states.contains_key(&last.index) {
                    self.compare(node, *last, state)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}
