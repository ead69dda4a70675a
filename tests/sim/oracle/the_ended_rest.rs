//! A life whose end is told anywhere has no effect any more (I6): what users buy.

use std::collections::BTreeMap;

use quorate::testing::sim::{Observation, TraceEntry};
use quorate::{Event, Identity};

use super::{Property, Verdict};

#[derive(Default)]
pub(crate) struct TheEndedRest {
    ended: BTreeMap<Identity, String>,
}

impl Property for TheEndedRest {
    fn claim(&self) -> &'static str {
        "of a life whose end is applied anywhere no effect starts or lands (I6)"
    }

    fn see(&mut self, entry: &TraceEntry) -> Verdict {
        match &entry.seen {
            Observation::Applied { answer: Ok(events), .. } => {
                for event in events {
                    if let Event::Fenced { who, .. } | Event::Left { who, .. } = event {
                        let told = || format!("{event} on {} at {:?}", entry.node, entry.at);
                        self.ended.entry(*who).or_insert_with(told);
                    }
                }
                Ok(())
            }
            Observation::Acted { lock, who, token } => match self.ended.get(who) {
                Some(end) => Err(format!("{who} acts under {lock} {token} after {end}")),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }
}
