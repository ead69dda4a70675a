//! What a timing is made of, and the profiles that were proved as a whole.

use std::fmt;
use std::time::Duration;

use super::Timing;
use crate::contract::{Contract, Drift, Stop};

/// A profile: timing that was proved and measured as a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Profile {
    /// A quiet local network and NVMe: failover well under a second. Refused on slower disks.
    Fast,
    /// Most clusters.
    #[default]
    Standard,
    /// As standard, stopped by a hardware watchdog of one second.
    Watchdog,
    /// Wide-area or noisy networks, slow disks.
    Patient,
}

impl Profile {
    /// All of them, fastest first.
    pub const ALL: [Self; 4] = [Self::Fast, Self::Standard, Self::Watchdog, Self::Patient];

    /// Its timing.
    pub fn timing(self) -> Timing {
        // That each of them holds is a test.
        Timing { plan: self.plan() }
    }

    pub(super) fn plan(self) -> Plan {
        let ms = Duration::from_millis;
        let deadman = |lateness| Stop::Deadman { lateness: ms(lateness) };
        let standard = Plan {
            heartbeat: ms(80),
            election_min: ms(400),
            election_max: ms(800),
            renew: ms(300),
            lease: ms(3000),
            margin: ms(600),
            stop: deadman(250),
            in_flight: Duration::ZERO,
            drift: Drift::default(),
            round_trip: ms(20),
            fsync: ms(40),
        };
        match self {
            Self::Standard => standard,
            Self::Watchdog => Plan { stop: Stop::Watchdog { timeout: ms(1000), reset: ms(0) }, ..standard },
            Self::Fast => Plan {
                heartbeat: ms(25),
                election_min: ms(75),
                election_max: ms(150),
                renew: ms(75),
                lease: ms(600),
                margin: ms(100),
                stop: deadman(50),
                round_trip: ms(4),
                fsync: ms(8),
                ..standard
            },
            Self::Patient => Plan {
                heartbeat: ms(300),
                election_min: ms(1500),
                election_max: ms(3000),
                renew: ms(1000),
                lease: ms(10_000),
                margin: ms(2000),
                stop: deadman(500),
                round_trip: ms(60),
                fsync: ms(100),
                ..standard
            },
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fast => "fast",
            Self::Standard => "standard",
            Self::Watchdog => "watchdog",
            Self::Patient => "patient",
        })
    }
}

/// What a [`Timing`] is made of. Anybody may fill it in; only [`Timing::new`] says whether it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Plan {
    /// H: how often the leader speaks, and how often it begins a read for the renewals that wait. 1 ms to 10 s.
    pub heartbeat: Duration,
    /// The shortest silence after which a follower stands for election.
    pub election_min: Duration,
    /// The longest. More than `election_min`, at most 120 s.
    pub election_max: Duration,
    /// R: how often a member renews its lease. At least H.
    pub renew: Duration,
    /// L: how long a lease lasts from the sending of the renewal. At most 1 h.
    pub lease: Duration,
    /// M: how long before its end the consumer is told. What runs must be able to stop within it.
    pub margin: Duration,
    /// What stops the work at the end of the lease.
    pub stop: Stop,
    /// T_io: for how long something that was started in time may still land.
    pub in_flight: Duration,
    /// ρ: what any two clocks may be off.
    pub drift: Drift,
    /// 2δ: the round trip between two nodes that this is meant for.
    pub round_trip: Duration,
    /// F: the fsync that this is meant for.
    pub fsync: Duration,
}

impl Plan {
    /// Every time in it, multiplied by `percent / of`; `of` counts as 1 if it is 0. The drift stays.
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

    /// T_elect.
    pub(super) fn elect(&self) -> Duration {
        self.election_max * 2 + self.round_trip + self.fsync
    }

    /// One commit: T_activate.
    pub(super) fn commit(&self) -> Duration {
        self.round_trip + self.fsync * 2
    }

    /// The right side of E2.
    pub(super) fn survives(&self) -> Duration {
        let silence = self.renew + self.elect() + self.commit() + self.heartbeat + self.round_trip;
        self.drift.on_a_fast_clock(silence)
    }
}
