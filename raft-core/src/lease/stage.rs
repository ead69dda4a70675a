//! What the keeper publishes of the lease: its stage, and until when something may begin.
//!
//! ```text
//!   keeper ──▶ Limits      two atomics: Lease::check(), without a lock
//!          └─▶ LeaseView   a watch channel: held(), lost(), view()
//! ```

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quorate_membership::Stop;
use quorate_membership::lease::Reading;
use tokio::sync::watch;

/// The stage of a lease.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LeaseStage {
    /// There is no lease. Nothing may run.
    #[default]
    Lapsed,
    /// The lease is about to end, or the life is being fenced. What runs has to stop now.
    Notice,
    /// The lease is held.
    Held,
}

impl fmt::Display for LeaseStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lapsed => "lapsed",
            Self::Notice => "notice",
            Self::Held => "held",
        })
    }
}

/// What this node knows of its lease.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseView {
    /// The stage of the lease.
    pub stage: LeaseStage,
    /// What stops the work at the end of the lease, as registered with this life.
    pub stop: Stop,
    /// Whether the stop mechanism is armed. Never without protected work.
    pub armed: bool,
    /// The names of the protected work.
    pub protecting: Vec<String>,
    /// Why no work may begin: the stop mechanism does not work, or the disk is too slow for the timing. `None` otherwise.
    pub trouble: Option<String>,
}

/// The last view published. A keeper that has ended keeps no lease, whatever its last view says.
pub(crate) fn latest(views: &watch::Receiver<LeaseView>) -> LeaseView {
    let view = views.borrow().clone();
    match views.has_changed() {
        Ok(_) => view,
        Err(_) => LeaseView { stage: LeaseStage::Lapsed, ..view },
    }
}

/// Until when something may begin, on each of the two lease clocks.
///
/// Only the keeper writes. A reader may see the limit of a new grant on one clock and that of the previous grant on the
/// other. Each of the two limits was valid, so the earlier one that counts is on the safe side.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    /// In nanoseconds; 0 when nothing may begin.
    boottime: AtomicU64,
    raw: AtomicU64,
}

impl Limits {
    pub(crate) fn set(&self, until: Option<Reading>) {
        let nanos = |shown: Duration| u64::try_from(shown.as_nanos()).unwrap_or(0);
        let (boottime, raw) = until.map_or((0, 0), |until| (nanos(until.boottime()), nanos(until.raw())));
        self.boottime.store(boottime, Ordering::Release);
        self.raw.store(raw, Ordering::Release);
    }

    /// What is left until the earlier limit; `None` when nothing is.
    pub(crate) fn left(&self, now: Reading) -> Option<Duration> {
        let until = [&self.boottime, &self.raw].map(|limit| Duration::from_nanos(limit.load(Ordering::Acquire)));
        let left = until[0].saturating_sub(now.boottime()).min(until[1].saturating_sub(now.raw()));
        (!left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_holds_on_both_clocks_or_not_at_all() {
        let (limits, ms) = (Limits::default(), Duration::from_millis);
        assert_eq!(limits.left(Reading::new(ms(5), ms(5))), None);
        limits.set(Some(Reading::new(ms(100), ms(90))));
        assert_eq!(limits.left(Reading::new(ms(50), ms(50))), Some(ms(40)));
        assert_eq!(limits.left(Reading::new(ms(100), ms(50))), None);
        limits.set(None);
        assert_eq!(limits.left(Reading::new(ms(50), ms(50))), None);
    }
}
