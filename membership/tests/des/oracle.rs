//! The oracle: what really happened at the resources, which the rules never see.
//!
//! ```text
//!   a life may act on a job:   begins ├──────────── effects ────────────┤ stops, or is killed   ─ in flight ─┤
//!   broken promises            Fenced applied anywhere before that end (I6) · another token's interval overlaps (I7)
//!   with tokens alone          an old token is accepted after a new holder has read
//! ```
//!
//! The interval is that of *may* act: a paused or stubborn worker counts for as long as nothing has stopped it, whether
//! or not it happens to write.

use std::collections::BTreeMap;

use quorate_membership::{ClusterState, Event, Identity, NodeId, Stop};

use crate::clocks::Nanos;
use crate::setup::Setup;
use crate::tally::Tally;

/// Something done to a resource: by whom, in which job, under which token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Effect {
    pub(crate) who: Identity,
    pub(crate) job: usize,
    pub(crate) token: u64,
}

/// Who may do which job, as every replica reads it off the events. A job goes to its home node first, then to whichever
/// active life has the fewest.
#[derive(Clone)]
pub(crate) struct Jobs(Vec<Place>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    AtHome,
    Held { by: Identity, token: u64 },
    Nowhere,
}

impl Jobs {
    pub(crate) fn new(jobs: usize) -> Self {
        Self(vec![Place::AtHome; jobs])
    }

    pub(crate) fn apply(&mut self, event: &Event, at: u64, state: &ClusterState) {
        match event {
            Event::Activated { who } => {
                let home = who.node.get() as usize - 1;
                for (job, place) in self.0.iter_mut().enumerate() {
                    if *place == Place::Nowhere || (*place == Place::AtHome && job == home) {
                        *place = Place::Held { by: *who, token: at };
                    }
                }
            }
            Event::Fenced { who, token, .. } | Event::Left { who, token } => {
                for job in 0..self.0.len() {
                    if matches!(self.0[job], Place::Held { by, .. } if by == *who) {
                        let next = state.active().min_by_key(|life| (self.of(*life).count(), life.node));
                        let held = |by| Place::Held { by, token: token.get() };
                        self.0[job] = next.map_or(Place::Nowhere, held);
                    }
                }
            }
            _ => {}
        }
    }

    /// The jobs of a life with their tokens.
    pub(crate) fn of(&self, who: Identity) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.0.iter().enumerate().filter_map(move |(job, place)| match place {
            Place::Held { by, token } if *by == who => Some((job, *token)),
            Place::Held { .. } | Place::AtHome | Place::Nowhere => None,
        })
    }
}

pub(crate) struct Oracle {
    /// Whether the resources check tokens, so that nobody has to stop.
    tokens: bool,
    ended: BTreeMap<Identity, Nanos>,
    running: Vec<Effect>,
    /// Until when something begun may still land, per job, and whose it is.
    landing: Vec<Option<(Identity, Nanos)>>,
    floors: Vec<u64>,
    /// The highest token whose holder has read and works, per job.
    begun: Vec<u64>,
    holders: BTreeMap<(usize, u64), Identity>,
    /// Crashes whose end is being awaited: when, and whether it led.
    pub(crate) crashed: BTreeMap<Identity, (Nanos, bool)>,
    pub(crate) violation: Option<String>,
}

impl Oracle {
    pub(crate) fn new(setup: &Setup) -> Self {
        let n = setup.nodes;
        Self {
            tokens: setup.plan.stop == Stop::Tokens,
            ended: BTreeMap::new(),
            running: vec![],
            landing: vec![None; n],
            floors: vec![0; n],
            begun: vec![0; n],
            holders: BTreeMap::new(),
            crashed: BTreeMap::new(),
            violation: None,
        }
    }

    pub(crate) fn violated(&mut self, now: Nanos, what: String) {
        self.violation.get_or_insert(format!("at {:.3} s: {what}", now as f64 / 1e9));
    }

    /// A life begins to work: from here on it may act.
    pub(crate) fn begins(&mut self, now: Nanos, effect: Effect) {
        let Effect { who, job, token } = effect;
        let holder = *self.holders.entry((job, token)).or_insert(who);
        if holder != who {
            self.violated(now, format!("token {token} of job {job} was given to {holder} and to {who}"));
        }
        if !self.tokens {
            if self.ended.contains_key(&who) {
                self.violated(now, format!("{who} begins job {job} after it was fenced"));
            }
            if let Some(other) = self.running.iter().find(|r| r.job == job && r.who != who).copied() {
                let Effect { who: other, token: theirs, .. } = other;
                self.violated(now, format!("{who} (token {token}) begins job {job} while {other} ({theirs}) may act"));
            }
            if let Some((other, until)) = self.landing[job].filter(|(other, until)| *other != who && *until > now) {
                let later = (until - now) as f64 / 1e6;
                self.violated(
                    now,
                    format!("{who} begins job {job}, and an effect of {other} lands {later:.2} ms later"),
                );
            }
        }
        self.begun[job] = self.begun[job].max(token);
        self.running.push(effect);
    }

    /// Nothing of that life runs any more.
    pub(crate) fn stops(&mut self, who: Identity) {
        self.running.retain(|effect| effect.who != who);
    }

    pub(crate) fn may_act(&self, who: Identity) -> bool {
        self.running.iter().any(|effect| effect.who == who)
    }

    /// An effect starts and will land at `lands`.
    pub(crate) fn started(&mut self, now: Nanos, effect: Effect, lands: Nanos) {
        let Effect { who, job, .. } = effect;
        if self.tokens {
            return;
        }
        if self.ended.contains_key(&who) {
            self.violated(now, format!("an effect of {who} starts after it was fenced"));
        }
        let latest = self.landing[job].filter(|(other, until)| *other == who && *until > lands);
        self.landing[job] = latest.or(Some((who, lands)));
    }

    pub(crate) fn landed(&mut self, now: Nanos, effect: Effect, tally: &mut Tally) {
        let Effect { who, job, token } = effect;
        if self.tokens && token < self.floors[job] {
            tally.count("effect refused by the floor");
        } else if self.tokens && token < self.begun[job] {
            self.violated(now, format!("an effect of {who} under token {token} is accepted after a newer holder read"));
        } else if !self.tokens && self.ended.contains_key(&who) {
            self.violated(now, format!("an effect of {who} lands after it was fenced"));
        }
    }

    pub(crate) fn floor(&mut self, job: usize, token: u64) {
        self.floors[job] = self.floors[job].max(token);
    }

    /// `Fenced` of that life was applied somewhere. Whether that is news.
    pub(crate) fn fenced(&mut self, now: Nanos, who: Identity) -> bool {
        if self.ended.contains_key(&who) {
            return false;
        }
        self.ended.insert(who, now);
        if !self.tokens && self.may_act(who) {
            self.violated(now, format!("{who} is fenced while it may act"));
        }
        let landing = self.landing.iter().flatten().find(|(whose, until)| *whose == who && *until > now);
        if let Some((_, until)) = landing.filter(|_| !self.tokens) {
            let later = (until - now) as f64 / 1e6;
            self.violated(now, format!("{who} is fenced, and an effect of it lands {later:.2} ms later"));
        }
        true
    }
}

/// The number of a machine as its node.
pub(crate) fn node(i: usize) -> NodeId {
    NodeId::new(i as u64 + 1)
}
