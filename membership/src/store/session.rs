//! A client's session, as the cluster keeps it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::contract::Drift;
use crate::text::Reason;

/// The most sessions that may be open at a time.
pub const MAX_SESSIONS: usize = 4096;

/// The shortest time to live of a session.
pub const MIN_TTL: Duration = Duration::from_millis(500);

/// The longest time to live, and the longest lock-delay.
pub const MAX_TTL: Duration = Duration::from_secs(3600);

/// A session of a client.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Session {
    /// How long it lives at least after a keep-alive. [`MIN_TTL`] to [`MAX_TTL`].
    pub ttl: Duration,
    /// How long its locks are held back if it ends without having been closed. At most [`MAX_TTL`].
    pub lock_delay: Duration,
    /// Whose it is: for people.
    pub label: Reason,
}

/// How long a leader has to wait on its own clock, so that at least `ttl` has passed on any client's: E1 with nothing to
/// stop and nothing in flight, for clocks that are off by up to 1 % each.
pub const fn wait(ttl: Duration) -> Duration {
    let drift = Drift::ppm(10_000);
    drift.on_a_fast_clock(drift.on_a_slow_clock(ttl))
}
