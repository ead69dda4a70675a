//! The time of a world: that of its one runtime, or a time that the caller moves for several runtimes in step.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// How old a world is, as all its machines see it.
#[derive(Debug, Clone)]
pub(super) struct Time {
    began: Instant,
    shown: Option<Arc<AtomicU64>>,
}

/// Moves the time of a world whose machines have a runtime each: their instants cannot be compared.
#[derive(Debug, Clone)]
pub struct ManualTime(Arc<AtomicU64>);

impl Time {
    /// The time of this runtime, from now on.
    pub(super) fn of_this_runtime() -> Self {
        Self { began: Instant::now(), shown: None }
    }

    /// A time that stands still until it is moved.
    pub(super) fn with_manual_time() -> (Self, ManualTime) {
        let shown = Arc::new(AtomicU64::new(0));
        (Self { began: Instant::now(), shown: Some(shown.clone()) }, ManualTime(shown))
    }

    /// How old the world is.
    pub(super) fn elapsed(&self) -> Duration {
        match &self.shown {
            Some(shown) => Duration::from_nanos(shown.load(Ordering::Acquire)),
            None => self.began.elapsed(),
        }
    }

    /// An instant from which the engines of all machines count.
    pub(super) fn began(&self) -> Instant {
        self.began
    }
}

impl ManualTime {
    /// Sets the age of the world. It never gets younger.
    pub fn show(&self, age: Duration) {
        self.0.fetch_max(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX), Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_world_moved_by_hand_stands_still_in_between_and_never_gets_younger() {
        let (time, hand) = Time::with_manual_time();
        assert_eq!(time.elapsed(), Duration::ZERO);
        hand.show(Duration::from_millis(7));
        hand.show(Duration::from_millis(5));
        assert_eq!(time.elapsed(), Duration::from_millis(7));
    }
}
