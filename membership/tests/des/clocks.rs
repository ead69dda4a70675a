//! The two clocks of one machine, as a function of real time.
//!
//! ```text
//!   CLOCK_MONOTONIC_RAW   oscillator (1 ± ρ)                 stands still while suspended
//!   CLOCK_BOOTTIME        oscillator (1 ± ρ) · slew (1 ± σ)  runs on while suspended, then without the slew
//! ```
//!
//! Both are straight lines between two changes of rate, in whole nanoseconds and parts per million, so that nothing
//! depends on how a machine rounds floating point.

use std::time::Duration;

use quorate_membership::lease::Reading;

/// Real or shown time in nanoseconds.
pub(crate) type Nanos = u64;

const MILLION: u64 = 1_000_000;

pub(crate) struct Clocks {
    /// When the rates last changed, and what the clocks showed then.
    since: Nanos,
    boot: Nanos,
    raw: Nanos,
    /// Parts per million of the true rate.
    oscillator: u64,
    slew: u64,
    suspended: bool,
}

impl Clocks {
    /// Clocks of an oscillator with that rate, which show `offset` at `now`.
    pub(crate) fn new(now: Nanos, oscillator: u64, offset: Nanos) -> Self {
        Self { since: now, boot: offset, raw: offset / 2, oscillator, slew: MILLION, suspended: false }
    }

    fn boot_rate(&self) -> u64 {
        if self.suspended { self.oscillator } else { self.oscillator * self.slew / MILLION }
    }

    /// What they show.
    pub(crate) fn look(&self, now: Nanos) -> Reading {
        Reading::new(Duration::from_nanos(self.boot_at(now)), Duration::from_nanos(self.raw_at(now)))
    }

    pub(crate) fn boot_at(&self, now: Nanos) -> Nanos {
        self.boot + (now - self.since) * self.boot_rate() / MILLION
    }

    pub(crate) fn raw_at(&self, now: Nanos) -> Nanos {
        if self.suspended { self.raw } else { self.raw + (now - self.since) * self.oscillator / MILLION }
    }

    /// The first real time from `now` on at which CLOCK_BOOTTIME has reached `shown`, if no rate changes before.
    pub(crate) fn when_boot_shows(&self, shown: Nanos, now: Nanos) -> Nanos {
        let left = shown.saturating_sub(self.boot);
        now.max(self.since + (left * MILLION).div_ceil(self.boot_rate()))
    }

    /// How long it really takes until CLOCK_MONOTONIC_RAW has advanced by `shown`.
    pub(crate) fn really(&self, shown: Nanos) -> Nanos {
        (shown * MILLION).div_ceil(self.oscillator)
    }

    fn rebase(&mut self, now: Nanos) {
        (self.boot, self.raw, self.since) = (self.boot_at(now), self.raw_at(now), now);
    }

    /// From `now` on CLOCK_BOOTTIME is steered to that many parts per million of the oscillator.
    pub(crate) fn steer(&mut self, now: Nanos, slew: u64) {
        self.rebase(now);
        self.slew = slew;
    }

    pub(crate) fn suspend(&mut self, now: Nanos, suspended: bool) {
        self.rebase(now);
        self.suspended = suspended;
    }

    pub(crate) fn is_suspended(&self) -> bool {
        self.suspended
    }
}
