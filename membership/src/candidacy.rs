//! Damped candidacy: a node that keeps losing leadership lets others lead.
//!
//! ```text
//!   leads ─lost─ leads ─lost─▶ damped ── both losses are old ──▶ stands as ever
//!                               └── no leader heard for 4 election timeouts ──▶ stands all the same
//! ```
//!
//! A process that is stopped and goes on, again and again, wakes with its election timer expired, before anything that
//! waits for it is read. It stands, is elected by those whose leader could not reach it either, and is stopped again.
//! Every change of leader begins each wait of a lease anew. So it stays behind: it votes, and stands only if nobody leads.
//! Losing leadership to a hand-over of its own is no loss.

use std::collections::VecDeque;
use std::time::Duration;

use crate::detector::Moment;

/// After so many losses it is damped.
const LOSSES: usize = 2;

/// For so many election timeouts a loss counts: a minute with the standard profile.
const COUNTS_FOR: u32 = 75;

/// After so many election timeouts without a leader it stands all the same.
const WITHOUT_A_LEADER: u32 = 4;

/// How often this node has lost leadership lately.
#[derive(Debug, Clone)]
pub struct Candidacy {
    election_max: Duration,
    leads: bool,
    losses: VecDeque<Moment>,
    led: Moment,
}

impl Candidacy {
    /// A node that has lost nothing, at `now`.
    pub const fn new(election_max: Duration, now: Moment) -> Self {
        Self { election_max, leads: false, losses: VecDeque::new(), led: now }
    }

    /// Notes whether this node leads, and whether it has asked another to lead in its place.
    pub fn observe(&mut self, leads: bool, handed_over: bool, now: Moment) {
        if std::mem::replace(&mut self.leads, leads) && !leads && !handed_over {
            self.losses.push_back(now);
            self.losses.drain(..self.losses.len().saturating_sub(LOSSES));
        }
        if leads {
            self.led = now;
        }
    }

    /// Notes that a leader was heard at `at`, or that this process did not run until then and could hear nobody.
    pub fn heard(&mut self, at: Moment) {
        self.led = self.led.max(at);
    }

    /// Whether this node keeps losing leadership.
    pub fn is_damped(&self, now: Moment) -> bool {
        let oldest = self.losses.front().filter(|_| self.losses.len() >= LOSSES);
        let damped = oldest.is_some_and(|at| now.since(*at) < self.election_max * COUNTS_FOR);
        damped && !mutant!("candidacy_undamped")
    }

    /// Whether this node may stand for election.
    pub fn may_stand(&self, now: Moment) -> bool {
        !self.is_damped(now) || now.since(self.led) > self.election_max * WITHOUT_A_LEADER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::new(Duration::from_millis(ms))
    }

    #[test]
    fn two_losses_in_a_minute_keep_a_node_behind_unless_nobody_leads() {
        let mut node = Candidacy::new(Duration::from_millis(800), at(0));
        node.observe(true, false, at(1000));
        node.observe(false, false, at(2000));
        assert!(node.may_stand(at(2000)), "one loss is nothing");
        node.observe(true, false, at(3000));
        node.observe(false, false, at(4000));
        assert!(node.is_damped(at(4000)) && !node.may_stand(at(4000)));
        node.heard(at(6000));
        assert!(!node.may_stand(at(9200)));
        assert!(node.may_stand(at(9201)), "nobody leads");
        node.heard(at(9300));
        node.heard(at(61_000));
        assert!(!node.may_stand(at(61_999)));
        assert!(node.may_stand(at(62_000)), "the first loss is a minute old");
    }

    #[test]
    fn a_hand_over_is_no_loss() {
        let mut node = Candidacy::new(Duration::from_millis(800), at(0));
        for turn in 0..10 {
            node.observe(true, false, at(turn * 1000));
            node.observe(false, true, at(turn * 1000 + 500));
        }
        assert!(!node.is_damped(at(10_000)));
    }
}
