//! What was concluded under an earlier activation changes nothing (I9), and activations grow (I20).

use std::collections::BTreeMap;

use quorate::testing::sim::{Observation, TraceEntry};
use quorate::{NodeId, state::Activation};

use super::{Property, Verdict};
use crate::oracle::activations::Concluded::{Never, Under};

#[derive(Default)]
pub(crate) struct Activations {
    current: BTreeMap<NodeId, Activation>,
}

enum Concluded {
    Under(Activation),
    Never,
}

impl Property for Activations {
    fn claim(&self) -> &'static str {
        "nothing concluded under an earlier activation takes effect, and activations grow (I9, I20)"
    }

    fn see(&mut self, entry: &TraceEntry) -> Verdict {
        use quorate_membership::Command;
        match &entry.seen {
            // A process begins with what its log holds, and applies it anew.
            Observation::Began => drop(self.current.remove(&entry.node)),
            Observation::Installed { state, .. } => {
                if let Some(leadership) = state.leadership() {
                    self.current.insert(entry.node, leadership.activation);
                }
            }
            Observation::Applied { at, command: Some(command), answer: Ok(events), state, .. } => {
                let concluded = match command {
                    Command::Expire { under, .. }
                    | Command::OrderFence { under: Some(under), .. }
                    | Command::ExpireSession { under, .. }
                    | Command::LiftDelay { under, .. } => Under(*under),
                    _ => Never,
                };
                let before = self.current.get(&entry.node).copied();
                if let Under(under) = concluded
                    && !events.is_empty()
                    && before != Some(under)
                {
                    return Err(format!("{command:?} at {at} took effect while {before:?} was current"));
                }
                let now = state.leadership().map(|leadership| leadership.activation);
                if now < before {
                    return Err(format!("{now:?} at {at} follows {before:?}"));
                }
                if let Some(now) = now {
                    self.current.insert(entry.node, now);
                }
            }
            _ => {}
        }
        Ok(())
    }
}
