//! The times that a [`Timing`](super::Timing) is made of, and what follows from them. Their defaults are in `defaults.rs`.

use std::time::Duration;

use crate::contract::{Contract, Drift, Stop};

/// The times that a [`Timing`](super::Timing) is made of. [`Timing::new`](super::Timing::new) checks whether they fit
/// together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Plan {
    /// H: how often the leader sends heartbeats, and how often it confirms the renewals it has received. 1 ms to 10 s.
    pub heartbeat: Duration,
    /// The shortest silence after which a follower starts an election. At least 3 · H (E4).
    pub election_min: Duration,
    /// The longest such silence. More than `election_min`, at most 120 s.
    pub election_max: Duration,
    /// R: how often a member renews its lease. At least H, at most (L − M) / 4 (E3).
    pub renew: Duration,
    /// L: how long a lease lasts, counted from the sending of the renewal. 1 ms to 1 h; E2 bounds it from below.
    pub lease: Duration,
    /// M: how long before its end the consumer is given notice. The work must be able to stop within it. 1 ms to L.
    pub margin: Duration,
    /// What stops the work when the lease ends.
    pub stop: Stop,
    /// T_io: how long an action that was started in time may still take effect. At most 1 h.
    pub in_flight: Duration,
    /// ρ: by how much the rate of any clock may be off. At most [`Drift::LIMIT`].
    pub drift: Drift,
    /// 2δ: the longest round trip between two nodes that this timing is meant for. At most 10 s.
    pub round_trip: Duration,
    /// F: the longest fsync that this timing is meant for. At most 10 s.
    pub fsync: Duration,
}

impl Plan {
    /// The plan with every time multiplied by `percent / of`. An `of` of 0 counts as 1. Drift and reset time stay.
    #[must_use]
    pub fn scaled(self, percent: u32, of: u32) -> Self {
        let by = |d: Duration| d.saturating_mul(percent) / of.max(1);
        Self {
            heartbeat: by(self.heartbeat),
            election_min: by(self.election_min),
            election_max: by(self.election_max),
            renew: by(self.renew),
            lease: by(self.lease),
            margin: by(self.margin),
            stop: match self.stop {
                Stop::Deadman { lateness } => Stop::Deadman { lateness: by(lateness) },
                Stop::Watchdog { timeout, reset } => Stop::Watchdog { timeout: by(timeout), reset },
                stop @ (Stop::Own { .. } | Stop::Tokens | Stop::Unbounded) => stop,
            },
            in_flight: by(self.in_flight),
            drift: self.drift,
            round_trip: by(self.round_trip),
            fsync: by(self.fsync),
        }
    }

    pub(super) fn contract(&self) -> Contract {
        Contract { lease: self.lease, stop: self.stop, in_flight: self.in_flight, drift: self.drift }
    }

    /// T_elect (E4): the longest election, if the first one succeeds.
    pub(super) fn elect(&self) -> Duration {
        self.election_max * 2 + self.round_trip + self.fsync
    }

    /// T_activate: one commit.
    pub(super) fn commit(&self) -> Duration {
        self.round_trip + self.fsync * 2
    }

    /// The right side of E2.
    pub(super) fn survives(&self) -> Duration {
        let silence = self.renew + self.elect() + self.commit() + self.heartbeat + self.round_trip;
        self.drift.on_a_fast_clock(silence)
    }
}
