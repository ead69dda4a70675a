//! The beat of a node: the instants at which its periodic tasks wake, all of them together.
//!
//! ```text
//!   node 1   │      │      │      │      │        tasks of one node wake together, and so its machine once
//!   node 2      │      │      │      │      │     nodes beat at different instants, so two seldom stand for
//!   node 3    │      │      │      │      │       election in the same moment
//! ```
//!
//! The engine's own ticks keep the beat as well: by itself it would tick five times in a heartbeat, at instants of its own.

use std::time::Duration;

use quorate_membership::NodeId;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::clock;

/// The fractional part of the golden ratio, of 2^64: its multiples lie as far from each other as can be.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A part of `whole` that is another one for each node of a cluster.
pub(crate) fn share(node: NodeId, whole: u128) -> u64 {
    let part = (whole * u128::from(node.get().wrapping_mul(GOLDEN))) >> 64;
    u64::try_from(part).unwrap_or_default()
}

tokio::task_local! {
    /// The beat that the ticks of the engine keep: that of the node it was started for.
    static KEPT: Beat;
}

/// How often the periodic tasks of a node wake, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Beat {
    period: Duration,
    offset: Duration,
}

impl Beat {
    /// The beat of a node: two for each heartbeat.
    pub(crate) fn of(node: NodeId, heartbeat: Duration) -> Self {
        let period = (heartbeat / 2).max(Duration::from_millis(1));
        Self { period, offset: Duration::from_nanos(share(node, period.as_nanos())) }
    }

    /// Ticks with every beat, or with every so many. Ticks that were missed are left out.
    pub(crate) fn every(self, beats: u32) -> Interval {
        let period = self.period * beats.max(1);
        let rest = self.rest(period, clock::now().since_origin());
        let mut ticks = interval_at(Instant::now() + rest, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        ticks
    }

    /// From `now` to the next instant of this beat, or of every so many beats: more than nothing, and at most `period`.
    fn rest(self, period: Duration, now: Duration) -> Duration {
        let since = (now + period).saturating_sub(self.offset).as_nanos() % period.as_nanos();
        period.saturating_sub(Duration::from_nanos(u64::try_from(since).unwrap_or_default()))
    }

    /// Starts something whose sleeps end with the beat, and those of all tasks that it starts.
    pub(crate) async fn kept_by<T>(self, work: impl Future<Output = T>) -> T {
        KEPT.scope(self, work).await
    }
}

/// The beat that the current task keeps.
pub(crate) fn kept() -> Option<Beat> {
    KEPT.try_with(|beat| *beat).ok()
}

/// `span`, up to the first beat after its end if the current task keeps one.
pub(crate) fn until_beat(span: Duration) -> Duration {
    let Some(beat) = kept() else { return span };
    let rest = beat.rest(beat.period, clock::now().since_origin() + span);
    // It ends with a beat as it is.
    if rest == beat.period { span } else { span + rest }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_nodes_of_a_cluster_beat_apart() {
        let offsets: Vec<_> = (1..=5).map(|n| Beat::of(NodeId::new(n), 100 * MS)).collect();
        for (i, a) in offsets.iter().enumerate() {
            assert!(a.period == 50 * MS && a.offset < a.period);
            for b in &offsets[..i] {
                let apart = a.offset.abs_diff(b.offset);
                assert!(apart.min(a.period - apart) > 4 * MS, "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn each_second_beat_is_a_beat() {
        let beat = Beat::of(NodeId::new(3), 100 * MS);
        for now in (0..500).map(|n| n * MS + Duration::from_secs(7)) {
            let (one, two) = (beat.rest(beat.period, now), beat.rest(2 * beat.period, now));
            assert!(one <= 50 * MS && two <= 100 * MS && (two == one || two == one + 50 * MS), "{one:?} {two:?}");
        }
    }

    #[tokio::test]
    async fn a_sleep_ends_with_the_beat_of_whoever_keeps_one() {
        assert_eq!(until_beat(3 * MS), 3 * MS);
        let beat = Beat::of(NodeId::new(1), Duration::from_secs(600));
        let kept = beat.kept_by(async {
            let later = until_beat(3 * MS);
            (later, clock::now().since_origin() + later)
        });
        let (later, end) = kept.await;
        assert!(later > 3 * MS && later <= beat.period + 3 * MS);
        let since = (end - beat.offset).as_nanos() % beat.period.as_nanos();
        let off = since.min(beat.period.as_nanos() - since);
        assert!(off < Duration::from_secs(1).as_nanos(), "{off} ns from a beat");
    }
}
