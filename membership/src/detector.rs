//! The failure detector: which nodes are silent. Its result is an opinion of one node, never a committed fact.
//!
//! ```text
//!    contact ──▶ Healthy ── suspect_after ──▶ Suspect ── fence_after ──▶ Silent  ──▶ the leader asks for a fence order
//!                   ▲ └──── its machine refuses, as a quorum sees it ────▶ Refused ──▶ likewise
//!                   └──────────────────────── contact ───────────────────────┘
//! ```
//!
//! A node that is heard every second and has not been heard for five is in trouble, unless this process itself was
//! paused. So the detector watches its own polls too: if far more time than usual passed between two of them, it was
//! paused, and it counts every silence again from there (the lesson of TigerBeetle's fault detector and of Lifeguard,
//! HashiCorp 2017). A node that becomes silent and returns repeatedly is given more time, up to a bound.
//!
//! A machine that refuses connections says that the process has ended, or a firewall says so in its place. A node of which
//! that was said, and which was heard again as the same process, is judged by its silence alone until it has been calm.
//!
//! Time is an argument. Safety does not depend on the detector: fencing needs a committed order and a proof.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::NodeId;

/// An instant on a steady clock, as the time since an origin that only the caller knows.
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

    /// The time from `earlier` to this instant; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// What the detector thinks of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// Heard recently.
    Healthy,
    /// Silent for at least [`Thresholds::suspect_after`].
    Suspect,
    /// Silent for at least [`Thresholds::fence_after`]: the leader asks for a fence order.
    Silent,
    /// Its machine refuses connections, as a quorum of the voters sees it, and it was not heard since: the leader asks for a
    /// fence order.
    Refused,
}

impl Signal {
    /// Whether the leader asks for a fence order.
    pub const fn asks_for_a_fence(self) -> bool {
        matches!(self, Self::Silent | Self::Refused)
    }
}

/// How long a node may be silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// The silence after which a node is [`Signal::Suspect`]. Several heartbeats.
    pub suspect_after: Duration,
    /// The silence after which a node is [`Signal::Silent`], and the leader asks for a fence order. Longer than
    /// `suspect_after`.
    pub fence_after: Duration,
    /// A gap between two polls that shows a pause of this process. Every silence is counted again from there.
    pub own_pause: Duration,
}

impl Thresholds {
    /// A node that was heard for so long without a break is calm.
    fn calm(&self) -> Duration {
        self.fence_after * 20
    }
}

/// How often `fence_after` may double for a node that becomes silent and returns repeatedly.
const MOST_DOUBLINGS: u32 = 3;

#[derive(Debug, Clone, Copy)]
struct Heard {
    last: Moment,
    was_silent: bool,
    relapses: u32,
    calm_since: Moment,
    /// Whether its machine refuses connections.
    refuses: bool,
    /// When it was heard again although its machine was said to refuse.
    misjudged: Option<Moment>,
}

/// The contact times of the other nodes, and the signal that follows from them.
#[derive(Debug, Clone)]
pub struct Detector {
    thresholds: Thresholds,
    heard: BTreeMap<NodeId, Heard>,
    polled: Option<Moment>,
}

impl Detector {
    /// A detector that watches no node yet.
    pub fn new(thresholds: Thresholds) -> Self {
        Self { thresholds, heard: BTreeMap::new(), polled: None }
    }

    /// Begins to watch `node`, with its silence counted from `now`. Does nothing if it is watched.
    pub fn watch(&mut self, node: NodeId, now: Moment) {
        let fresh =
            Heard { last: now, was_silent: false, relapses: 0, calm_since: now, refuses: false, misjudged: None };
        self.heard.entry(node).or_insert(fresh);
    }

    /// Stops watching every node for which `keep` is false.
    pub fn retain(&mut self, keep: impl Fn(NodeId) -> bool) {
        self.heard.retain(|node, _| keep(*node));
    }

    /// `node` was heard at `now`. A contact older than the last known one changes nothing.
    pub fn handle_contact(&mut self, node: NodeId, now: Moment) {
        self.watch(node, now);
        let Some(heard) = self.heard.get_mut(&node).filter(|heard| heard.last < now) else { return };
        heard.last = now;
        if heard.refuses {
            (heard.refuses, heard.misjudged) = (false, Some(now));
        }
        if heard.was_silent {
            heard.was_silent = false;
            heard.relapses = (heard.relapses + 1).min(MOST_DOUBLINGS);
            heard.calm_since = now;
        } else if now.since(heard.calm_since) > self.thresholds.calm() {
            heard.relapses = 0;
            heard.calm_since = now;
        }
    }

    /// A new life of `node` was noted at `now`. The silence of its former life does not count against it, and what was said
    /// of the end of that life's process was right.
    pub fn handle_arrival(&mut self, node: NodeId, now: Moment) {
        self.handle_contact(node, now);
        if let Some(heard) = self.heard.get_mut(&node) {
            heard.misjudged = None;
        }
    }

    /// The machine of `node` refused connections from `since` on, as a quorum of the voters sees it. It counts only if the node
    /// was not heard since.
    pub fn handle_refusal(&mut self, node: NodeId, since: Moment) {
        if let Some(heard) = self.heard.get_mut(&node).filter(|heard| heard.last <= since) {
            heard.refuses = true;
        }
    }

    /// To be called at a steady pace. Notices a pause of this process, and remembers which nodes are silent. Returns
    /// the length of the pause, if there was one.
    pub fn poll(&mut self, now: Moment) -> Option<Duration> {
        let gap = self.polled.map_or(Duration::ZERO, |polled| now.since(polled));
        self.polled = Some(now);
        if gap > self.thresholds.own_pause {
            for heard in self.heard.values_mut() {
                heard.last = now;
            }
            return Some(gap);
        }
        let silent: Vec<NodeId> =
            self.heard.keys().copied().filter(|n| self.signal(*n, now) == Signal::Silent).collect();
        for node in silent {
            if let Some(heard) = self.heard.get_mut(&node) {
                heard.was_silent = true;
            }
        }
        None
    }

    /// The signal of `node` at `now`. A node that is not watched is healthy: there is no opinion about it.
    pub fn signal(&self, node: NodeId, now: Moment) -> Signal {
        let Some(heard) = self.heard.get(&node) else { return Signal::Healthy };
        let (silence, factor) = (now.since(heard.last), 1 << heard.relapses);
        let calm = heard.misjudged.is_none_or(|at| now.since(at) > self.thresholds.calm());
        match silence {
            _ if heard.refuses && (calm || mutant!("refusals_never_doubted")) => Signal::Refused,
            s if s >= self.thresholds.fence_after * factor => Signal::Silent,
            s if s >= self.thresholds.suspect_after => Signal::Suspect,
            _ => Signal::Healthy,
        }
    }

    /// For how long `node` has been silent at `now`. `None` if it is not watched.
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
        for limit in [1000, 2000, 4000, 8000, 8000] {
            let silent_at = (now..now + 10_000).step_by(100).find(|t| {
                d.poll(at(*t));
                d.signal(N2, at(*t)) == Signal::Silent
            });
            assert_eq!(silent_at, Some(now + limit));
            now += limit + 100;
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

    #[test]
    fn a_refusal_counts_until_the_node_is_heard_and_then_not_before_it_was_calm() {
        let mut d = detector();
        d.handle_refusal(N2, at(20));
        assert_eq!(d.signal(N2, at(21)), Signal::Refused);
        d.handle_contact(N2, at(30));
        assert_eq!(d.signal(N2, at(31)), Signal::Healthy);
        d.handle_refusal(N2, at(29));
        assert_eq!(d.signal(N2, at(40)), Signal::Healthy, "it was heard later than it refused");
        d.handle_refusal(N2, at(40));
        assert_eq!(d.signal(N2, at(41)), Signal::Healthy, "the same was said of it, and was wrong");
        for t in (100..20_100).step_by(100) {
            d.handle_contact(N2, at(t));
        }
        d.handle_refusal(N2, at(20_100));
        assert_eq!(d.signal(N2, at(20_101)), Signal::Refused);
    }

    #[test]
    fn a_new_life_shows_that_the_refusal_was_right() {
        let mut d = detector();
        d.handle_refusal(N2, at(20));
        // Its new process is heard before its join is applied.
        d.handle_contact(N2, at(30));
        d.handle_arrival(N2, at(35));
        d.handle_refusal(N2, at(40));
        assert_eq!(d.signal(N2, at(41)), Signal::Refused);
    }

    /// The caller repeats the last contact it knows at every poll. That is not a return.
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
