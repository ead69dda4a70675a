//! Histories of a store that is right by construction: calls that overlap, each with its effect at one moment in between.
//!
//! ```text
//!   invoked ├──────────────●──────────┤ returned          ● is where the one log has it, at the next revision
//!   killed  ├─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─●                   anywhere after its invocation, or nowhere
//! ```

use std::collections::BTreeMap;

use crate::op::{Call, CallResult, NEVER, Op};
use quorate::testing::sim::Rng;

/// How many calls a history has.
const CALLS: u64 = 240;

#[derive(Default)]
struct Store {
    revision: u64,
    records: BTreeMap<String, (u64, u64)>,
    locks: BTreeMap<String, u64>,
}

impl Store {
    /// Carries a call out, here and now.
    fn apply(&mut self, call: &Call) -> CallResult {
        self.revision += 1;
        let at = self.revision;
        match call {
            Call::Put { key, value } | Call::Guarded { key, value, .. } => {
                self.records.insert(key.clone(), (at, *value));
                CallResult::Done(at)
            }
            Call::Cas { key, expected, value } => {
                let found = self.records.get(key).map(|(version, _)| *version);
                if found != *expected {
                    return CallResult::Conflict(found);
                }
                self.records.insert(key.clone(), (at, *value));
                CallResult::Done(at)
            }
            Call::Delete { key } => {
                self.records.remove(key);
                CallResult::Done(at)
            }
            Call::Get { key } => CallResult::Read { at, record: self.records.get(key).copied() },
            Call::Lock { name } => match self.locks.get(name) {
                Some(held) => CallResult::Held(*held),
                None => {
                    self.locks.insert(name.clone(), at);
                    CallResult::Granted(at)
                }
            },
            Call::Act { .. } => CallResult::Fine,
            Call::Release { name, token } => {
                if self.locks.get(name) == Some(token) {
                    self.locks.remove(name);
                }
                CallResult::Fine
            }
        }
    }
}

/// A history of a few hundred calls of six clients on two records and a lock.
pub(crate) fn simulate(seed: u64) -> Vec<Op> {
    let (mut rng, mut store, mut ops) = (Rng::new(seed), Store::default(), vec![]);
    // Each client: when it is free again, and the token that it holds.
    let mut clients = [(0_u64, None::<u64>); 6];
    // Calls in the order of their effects; so that each finds what was there at that moment.
    let mut effect = 0;
    for value in 1..=CALLS {
        effect += rng.between(1, 20);
        let client = rng.below(clients.len() as u64) as usize;
        let Some((free, holds)) = clients.get_mut(client) else { continue };
        if *free >= effect {
            continue;
        }
        let invoked = rng.between(*free, effect - 1).max(effect.saturating_sub(60));
        let returned = effect + rng.between(1, 60);
        let call = call(client, value, *holds, &store, &mut rng);
        let (mut outcome, mut end) = (CallResult::Unknown("killed".into()), NEVER);
        let killed = rng.below(12) == 0 && holds.is_none();
        if !killed {
            (outcome, end) = (store.apply(&call), returned);
        } else if rng.chance(500) && !matches!(call, Call::Lock { .. } | Call::Release { .. }) {
            store.apply(&call);
        }
        match outcome {
            CallResult::Granted(token) => *holds = Some(token),
            CallResult::Fine if matches!(call, Call::Release { .. }) => *holds = None,
            _ => {}
        }
        // Acts lie within the hold, and the hold ends only after the last of them.
        let (invoked, end) = if matches!(call, Call::Act { .. }) { (effect, effect) } else { (invoked, end) };
        *free = if end == NEVER { returned } else { end };
        ops.push(Op { client: format!("n{client}/c1"), call, invoked, returned: end, outcome });
    }
    ops
}

fn call(client: usize, value: u64, holds: Option<u64>, store: &Store, rng: &mut Rng) -> Call {
    let key = format!("k{}", rng.below(2));
    let name = "a".to_string();
    if client >= 4 {
        return match holds {
            None => Call::Lock { name },
            Some(token) if rng.below(4) == 0 => Call::Release { name, token },
            Some(token) if rng.below(3) == 0 => Call::Guarded { key: "j".into(), value, name, token },
            Some(token) => Call::Act { name, token },
        };
    }
    match rng.below(10) {
        0..=3 => Call::Get { key },
        4..=5 => Call::Put { key, value },
        6 => Call::Delete { key },
        _ => {
            let found = store.records.get(&key).map(|(version, _)| *version);
            // Sometimes what was there a while ago.
            let expected = if rng.below(3) == 0 { found.map(|version| version.saturating_sub(1)) } else { found };
            Call::Cas { key, expected, value }
        }
    }
}
