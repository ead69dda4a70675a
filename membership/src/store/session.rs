//! Sessions, as the cluster keeps them: the times of each, and what a leader has to wait before it expires one.
//!
//! ```text
//!   OpenSession(ttl, lock_delay) ─▶ s77 ── CloseSession ──▶ its locks pass on at once
//!                                      └── ExpireSession ─▶ its locks are delayed by lock_delay, then pass on
//! ```
//!
//! A session is for a client that is not a member. It holds locks like a life of a member does, and no proof shows that
//! its client has stopped: its end is a decision of the cluster, by time.
//!
//! How the leader learns that a session is alive is in `session.rs`, one level up.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bounded_text::Reason;
use crate::contract::Drift;
use crate::principal::Principal;

/// The most sessions that may be open at a time.
pub const MAX_SESSIONS: usize = 4096;

/// The shortest time to live of a session. Its client sends several keep-alives within it.
pub const MIN_TTL: Duration = Duration::from_millis(500);

/// The longest time to live, and the longest lock-delay.
pub const MAX_TTL: Duration = Duration::from_secs(3600);

/// A session of a client that is not a member.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Session {
    /// How long it lives at least after a keep-alive was sent that is answered. [`MIN_TTL`] to [`MAX_TTL`].
    pub ttl: Duration,
    /// How long its locks are delayed if it expires. At most [`MAX_TTL`].
    pub lock_delay: Duration,
    /// The name of the client, for operators.
    pub label: Reason,
    /// Whose it is: the other clients may not use it. `None` for one that was opened without a certificate.
    pub owner: Option<Principal>,
}

/// How long a leader has to wait on its own clock so that at least `ttl` has passed on the clock of any client: E1
/// without a stop mechanism and without actions in flight, for clocks that are off by up to 1 % each.
pub const fn wait(ttl: Duration) -> Duration {
    let drift = Drift::ppm(10_000);
    drift.on_a_fast_clock(drift.on_a_slow_clock(ttl))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_leader_waits_for_the_slowest_client() {
        let drift = Drift::ppm(10_000);
        for ttl in [MIN_TTL, Duration::from_millis(5001), MAX_TTL] {
            let passed_at_least = wait(ttl).mul_f64(1.0 / 1.01);
            assert!(passed_at_least + Duration::from_nanos(1) >= drift.on_a_slow_clock(ttl), "{ttl:?}");
            assert!(wait(ttl) <= ttl * 103 / 100, "{ttl:?}: and not much longer than that");
        }
    }
}
