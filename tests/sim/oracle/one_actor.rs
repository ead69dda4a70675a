//! Under different tokens of one lock nothing overlaps, and tokens grow (I1, I7): judged by the effects themselves.

use std::collections::BTreeMap;

use quorate::testing::sim::{Observation, TraceEntry};
use quorate::{Identity, Name, Revision};

use super::{Property, Verdict};

#[derive(Default)]
pub(crate) struct OneActor {
    acted: BTreeMap<Name, (Revision, Identity)>,
}

impl Property for OneActor {
    fn claim(&self) -> &'static str {
        "effects under different tokens of one lock never overlap, and tokens grow (I1, I7)"
    }

    fn see(&mut self, entry: &TraceEntry) -> Verdict {
        let Observation::Acted { lock, who, token } = &entry.seen else { return Ok(()) };
        let last = self.acted.entry(lock.clone()).or_insert((*token, *who));
        if *token < last.0 {
            return Err(format!("{who} acts under {lock} {token} after {} did under {}", last.1, last.0));
        }
        // A life may take over what its own former life left, under the same token (P3).
        if *token == last.0 && (who.node != last.1.node || *who < last.1) {
            return Err(format!("{who} and {} both act under {lock} {token}", last.1));
        }
        *last = (*token, *who);
        Ok(())
    }
}
