//! Leases: how long a member may act, and from when on the others know that it does not.
//!
//! ```text
//!   member: MemberLease                                  leader: Grantor
//!   poll_renewal: notes the time, then sends ──────▶ handle_renewal: last := now, waits
//!                                                    poll_read ─▶ one ReadIndex, begun after the receipts
//!   handle_grant: E := max(E, sent + L)  ◀────────── handle_read: granted iff the activation and the life still stand
//!        │ nothing comes                                  │ nothing comes
//!        ▼ E − M notice, E the mechanism acts              ▼ now − last ≥ D: Expiring, finally; then Expire proposed
//! ```
//!
//! The member counts its lease from the moment at which it *sent* the renewal, the leader from the later moment at
//! which it *received* it. The leader waits a little longer than the lease, for the drift of clocks and for the stop
//! mechanism. So the member has always stopped first. No node assumes that it is still the leader: a grant is a
//! linearizable read, and an expiry counts only under the activation that is current when it is applied.
//!
//! Both sides are state machines without a clock, a socket or a task. Time is an argument, `handle_*` takes what
//! arrives, and `poll_*` returns what is due.

mod grantor;
mod member_lease;
mod receipts;

use std::time::Duration;

pub use grantor::{Expiry, Grantor, NotRenewed, Round};
pub use member_lease::{MemberLease, Stage};
pub use receipts::{ReceiptLog, Receipts};

/// One reading of the two clocks that a lease is measured on.
///
/// CLOCK_BOOTTIME counts while the machine is suspended, but its rate may be slewed. CLOCK_MONOTONIC_RAW is not slewed,
/// but stops in suspend. A member takes the *larger* of the two advances and a leader the *smaller*. So each errs on
/// its own safe side, and ρ has to cover the oscillator only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Reading {
    boottime: Duration,
    raw: Duration,
}

impl Reading {
    /// A reading of both clocks.
    pub const fn new(boottime: Duration, raw: Duration) -> Self {
        Self { boottime, raw }
    }

    /// A reading on which both clocks agree, for models and tests.
    pub const fn steady(shown: Duration) -> Self {
        Self { boottime: shown, raw: shown }
    }

    /// The time on CLOCK_BOOTTIME.
    pub const fn boottime(self) -> Duration {
        self.boottime
    }

    /// The time on CLOCK_MONOTONIC_RAW.
    pub const fn raw(self) -> Duration {
        self.raw
    }

    /// The longest time that may have passed since `earlier`: for a member, which must not act too late.
    pub fn longest_since(self, earlier: Self) -> Duration {
        let raw = self.raw.saturating_sub(earlier.raw);
        if mutant!("frozen_clock_counts") { raw } else { raw.max(self.boottime.saturating_sub(earlier.boottime)) }
    }

    /// The reading `ago` before this one, or the beginning of a clock that was not running yet.
    pub fn before(self, ago: Duration) -> Self {
        Self { boottime: self.boottime.saturating_sub(ago), raw: self.raw.saturating_sub(ago) }
    }

    /// Of each clock the later of the two readings.
    pub fn later(self, other: Self) -> Self {
        Self { boottime: self.boottime.max(other.boottime), raw: self.raw.max(other.raw) }
    }

    /// Of each clock the earlier of the two readings.
    pub fn earlier(self, other: Self) -> Self {
        Self { boottime: self.boottime.min(other.boottime), raw: self.raw.min(other.raw) }
    }

    /// The shortest time that may have passed since `earlier`: for a leader, which must wait long enough.
    pub fn shortest_since(self, earlier: Self) -> Duration {
        self.boottime.saturating_sub(earlier.boottime).min(self.raw.saturating_sub(earlier.raw))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_errs_on_its_own_safe_side() {
        let ms = Duration::from_millis;
        let before = Reading::new(ms(100), ms(90));
        let suspended = Reading::new(ms(5100), ms(95));
        assert_eq!((suspended.longest_since(before), suspended.shortest_since(before)), (ms(5000), ms(5)));
        let slewed = Reading::new(ms(150), ms(152));
        assert_eq!((slewed.longest_since(before), slewed.shortest_since(before)), (ms(62), ms(50)));
    }
}
