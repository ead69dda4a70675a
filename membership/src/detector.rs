//! Who has gone silent: an opinion with a number, never a fact.
//!
//! ```text
//!    contact ──────▶ green ──── suspect_after after ────▶ suspect_after ──── fence_after after ────▶ fence_after ──▶ a fence order is *asked for*
//!                      ▲                              │                         │
//!                      └────────── contact ───────────┴────── contact ──────────┘
//! ```
//!
//! In everyday words: somebody whom you hear every second and have not heard for five is in trouble, unless it is you
//! who fell asleep. So the detector watches its own steps too: when far more time passed between two polls than was
//! meant to, the silence was its own, and every silence is counted anew (the lesson of TigerBeetle's fault detector and
//! of Lifeguard, HashiCorp 2017). A node that keeps coming and going gets a longer rope each time, up to a bound.
//!
//! Time is an argument. Nothing here is safety: whoever acts on fence_after needs a committed order, and proof.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::NodeId;

/// An instant of some steady clock, as the time since an origin that only the caller knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(Duration);

impl Moment {
    /// The instant `since_origin` after the clock's origin.
    pub const fn new(since_origin: Duration) -> Self {
        Self(since_origin)
    }

    /// The time since the clock's origin.
    pub const fn since_origin(self) -> Duration {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not.
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// How a node sounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// Heard lately.
    Healthy,
    /// Silent for longer than it should be.
    Suspect,
    /// Silent for so long that its work should be taken over.
    Silent,
}

/// When silence becomes an opinion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Silence that makes a node suspect.
    pub suspect_after: Duration,
    /// Silence that makes the leader ask for a fence order.
    pub fence_after: Duration,
    /// A gap between two polls that says "I slept", after which every silence is counted anew.
    pub own_pause: Duration,
}

/// How many times its timeout may double for one node that keeps coming and going.
const MOST_DOUBLINGS: u32 = 3;

#[derive(Debug, Clone, Copy)]
struct Heard {
    last: Moment,
    was_red: bool,
    relapses: u32,
    calm_since: Moment,
}

/// Contact times of the other nodes, and what they amount to.
#[derive(Debug, Clone)]
pub struct Detector {
    timeout: Thresholds,
    heard: BTreeMap<NodeId, Heard>,
    polled: Option<Moment>,
}

impl Detector {
    /// A detector that has heard nobody.
    pub fn new(timeout: Thresholds) -> Self {
        Self { timeout, heard: BTreeMap::new(), polled: None }
    }

    /// Begins to watch `node` if it is not watched, counting its silence from `now`.
    pub fn watch(&mut self, node: NodeId, now: Moment) {
        self.heard.entry(node).or_insert(Heard { last: now, was_red: false, relapses: 0, calm_since: now });
    }

    /// Stops watching every node that `keep` refuses.
    pub fn retain(&mut self, keep: impl Fn(NodeId) -> bool) {
        self.heard.retain(|node, _| keep(*node));
    }

    /// A sign of life of `node`, at `now`. A contact older than one already known changes nothing.
    pub fn handle_contact(&mut self, node: NodeId, now: Moment) {
        self.watch(node, now);
        let Some(heard) = self.heard.get_mut(&node).filter(|heard| heard.last < now) else { return };
        heard.last = now;
        if heard.was_red {
            heard.was_red = false;
            heard.relapses = (heard.relapses + 1).min(MOST_DOUBLINGS);
            heard.calm_since = now;
        } else if now.since(heard.calm_since) > self.timeout.fence_after * 20 {
            heard.relapses = 0;
            heard.calm_since = now;
        }
    }

    /// To be called at a steady pace: notices an own pause and remembers who was fence_after. Returns the length of an own
    /// pause, if there was one.
    pub fn poll(&mut self, now: Moment) -> Option<Duration> {
        let gap = self.polled.map_or(Duration::ZERO, |polled| now.since(polled));
        self.polled = Some(now);
        if gap > self.timeout.own_pause {
            for heard in self.heard.values_mut() {
                heard.last = now;
            }
            return Some(gap);
        }
        let fence_after: Vec<NodeId> =
            self.heard.keys().copied().filter(|n| self.signal(*n, now) == Signal::Silent).collect();
        for node in fence_after {
            if let Some(heard) = self.heard.get_mut(&node) {
                heard.was_red = true;
            }
        }
        None
    }

    /// How `node` sounds at `now`. A node that is not watched is green: there is no opinion of it.
    pub fn signal(&self, node: NodeId, now: Moment) -> Signal {
        let Some(heard) = self.heard.get(&node) else { return Signal::Healthy };
        let (silence, rope) = (now.since(heard.last), 1 << heard.relapses);
        match silence {
            s if s >= self.timeout.fence_after * rope => Signal::Silent,
            s if s >= self.timeout.suspect_after => Signal::Suspect,
            _ => Signal::Healthy,
        }
    }

    /// For how long `node` has been silent at `now`; `None` if it is not watched.
    pub fn silence(&self, node: NodeId, now: Moment) -> Option<Duration> {
        self.heard.get(&node).map(|heard| now.since(heard.last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const N2: NodeId = NodeId::new(2);

    fn at(ms: u64) -> Moment {
        Moment::new(Duration::from_millis(ms))
    }

    fn detector() -> Detector {
        let ms = Duration::from_millis;
        let mut made = Detector::new(Thresholds { suspect_after: ms(300), fence_after: ms(1000), own_pause: ms(500) });
        made.handle_contact(N2, at(0));
        made
    }

    #[test]
    fn silence_makes_a_node_suspect_then_silent_and_a_contact_clears_it() {
        let mut d = detector();
        assert_eq!([299, 300, 999, 1000].map(|t| d.signal(N2, at(t))), {
            use Signal::*;
            [Healthy, Suspect, Suspect, Silent]
        });
        d.handle_contact(N2, at(1100));
        assert_eq!(d.signal(N2, at(1200)), Signal::Healthy);
    }

    #[test]
    fn a_pause_of_ones_own_is_nobody_elses_silence() {
        let mut d = detector();
        assert_eq!(d.poll(at(100)), None);
        assert_eq!(d.poll(at(5000)), Some(Duration::from_millis(4900)));
        assert_eq!(d.signal(N2, at(5001)), Signal::Healthy);
    }

    #[test]
    fn who_keeps_coming_and_going_gets_a_longer_rope_up_to_a_bound() {
        let mut d = detector();
        let mut now = 0;
        for rope in [1000, 2000, 4000, 8000, 8000] {
            let fence_after = (now..now + 10_000).step_by(100).find(|t| {
                d.poll(at(*t));
                d.signal(N2, at(*t)) == Signal::Silent
            });
            assert_eq!(fence_after, Some(now + rope));
            now += rope + 100;
            d.handle_contact(N2, at(now));
        }
    }

    #[test]
    fn a_late_old_contact_does_not_turn_the_clock_back() {
        let mut d = detector();
        d.handle_contact(N2, at(900));
        d.handle_contact(N2, at(10));
        assert_eq!(d.silence(N2, at(1000)), Some(Duration::from_millis(100)));
        assert_eq!(d.signal(NodeId::new(9), at(1000)), Signal::Healthy);
    }

    /// Whoever polls also repeats what it knows: the same last word, said again, is not a return.
    #[test]
    fn a_contact_that_is_told_twice_is_no_return() {
        let mut d = detector();
        for t in (0..3000).step_by(100) {
            d.handle_contact(N2, at(0));
            d.poll(at(t));
        }
        assert_eq!(d.signal(N2, at(1000)), Signal::Silent);
    }
}
