//! The two clocks of a simulated machine, and the timers of its kernel. Each clock runs at its own rate; one of them
//! stands still while the machine sleeps.
//!
//! ```text
//!   world time ──▶ CLOCK_MONOTONIC_RAW   × oscillator                      stops in suspend
//!              └─▶ CLOCK_BOOTTIME        × oscillator × what NTP slews     counts suspend
//! ```

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_membership::lease::Reading;
use tokio::sync::Notify;

/// How fast the clocks of a machine run, in millionths more (or less) than the world's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rate {
    /// The oscillator, behind both clocks. The shipped profiles allow ±10 000 (1 %).
    pub oscillator: i64,
    /// What NTP adds to it on CLOCK_BOOTTIME.
    pub slew: i64,
}

#[derive(Debug, Clone)]
pub(super) struct Clocks {
    /// The world's time at which the rest was right.
    since: Duration,
    boottime: Duration,
    raw: Duration,
    rate: Rate,
    asleep: bool,
}

fn scaled(span: Duration, millionths: i64) -> Duration {
    let nanos = i128::try_from(span.as_nanos()).unwrap_or(i128::MAX / 2_000_000);
    let shown = nanos + nanos * i128::from(millionths) / 1_000_000;
    Duration::from_nanos(u64::try_from(shown).unwrap_or(0))
}

/// The span of the world's time in which a clock that is off by so many millionths advances by `span`.
pub(super) fn unscaled(span: Duration, millionths: i64) -> Duration {
    let divisor = u128::try_from(1_000_000 + millionths).unwrap_or(1).max(1);
    let nanos = (span.as_nanos().saturating_mul(1_000_000)).div_ceil(divisor);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

impl Clocks {
    /// Clocks of a machine that has been up for `up`.
    pub(super) fn new(now: Duration, up: Duration, rate: Rate) -> Self {
        Self { since: now, boottime: up, raw: up, rate, asleep: false }
    }

    pub(super) fn read(&self, now: Duration) -> Reading {
        let passed = now.saturating_sub(self.since);
        let raw = if self.asleep { self.raw } else { self.raw + scaled(passed, self.rate.oscillator) };
        let slewed = self.rate.oscillator.saturating_add(self.rate.slew);
        Reading::new(self.boottime + scaled(passed, slewed), raw)
    }

    pub(super) fn is_asleep(&self) -> bool {
        self.asleep
    }

    pub(super) fn rate(&self) -> Rate {
        self.rate
    }

    /// From now on they run at another rate, or sleep, or are awake.
    pub(super) fn change(&mut self, now: Duration, rate: Rate, asleep: bool) {
        let shown = self.read(now);
        *self = Self { since: now, boottime: shown.boottime(), raw: shown.raw(), rate, asleep };
    }
}

/// A timer of the kernel on CLOCK_BOOTTIME.
#[derive(Default)]
pub(super) struct Timer {
    /// What CLOCK_BOOTTIME shows when it fires; `None` when it is disarmed.
    fires: Mutex<Option<Duration>>,
    changed: Notify,
}

impl Timer {
    pub(super) fn set(&self, fires: Option<Duration>) {
        *self.fires.lock() = fires;
        self.changed.notify_one();
    }

    pub(super) fn fires(&self) -> Option<Duration> {
        *self.fires.lock()
    }

    /// Waits until it is set.
    pub(super) async fn is_set(&self) {
        self.changed.notified().await;
    }
}

/// The timers of one process.
#[derive(Clone, Default)]
pub(super) struct Timers(Arc<Mutex<Vec<Arc<Timer>>>>);

impl Timers {
    pub(super) fn add(&self, timer: Arc<Timer>) {
        self.0.lock().push(timer);
    }

    /// Whether one of them should have fired.
    pub(super) fn are_due(&self, now: Duration) -> bool {
        self.0.lock().iter().any(|timer| timer.fires().is_some_and(|fires| fires <= now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_run_at_their_rates_and_only_one_counts_sleep() {
        let s = Duration::from_secs;
        let mut clocks = Clocks::new(s(0), s(100), Rate { oscillator: 10_000, slew: -20_000 });
        let shown = clocks.read(s(100));
        assert_eq!((shown.boottime(), shown.raw()), (s(199), s(201)));
        clocks.change(s(100), Rate::default(), true);
        clocks.change(s(110), Rate::default(), false);
        let shown = clocks.read(s(111));
        assert_eq!((shown.boottime(), shown.raw()), (s(210), s(202)));
        assert_eq!(unscaled(s(101), 10_000), s(100));
    }
}
