//! The default times: a lease of three seconds, heartbeats of 80 ms, and the other profiles, each checked as a whole.
//!
//! | profile  | heartbeat | election        | renewal | lease L | notice M | stop mechanism            |
//! |----------|-----------|-----------------|---------|---------|----------|---------------------------|
//! | fast     | 25 ms     | 75 to 150 ms    | 75 ms   | 600 ms  | 100 ms   | dead-man within 50 ms     |
//! | standard | 80 ms     | 400 to 800 ms   | 300 ms  | 3 s     | 600 ms   | dead-man within 250 ms    |
//! | watchdog | 80 ms     | 400 to 800 ms   | 300 ms  | 3 s     | 600 ms   | watchdog of 1 s           |
//! | patient  | 300 ms    | 1.5 to 3 s      | 1 s     | 10 s    | 2 s      | dead-man within 500 ms    |

use std::fmt;
use std::time::Duration;

use super::Timing;
use super::plan::Plan;
use crate::contract::{Drift, Stop};

/// A timing that was checked and measured as a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Profile {
    /// For a quiet local network and NVMe: fails over in about a second. A node on a slower disk protects no work
    /// with it.
    Fast,
    /// For most clusters: a lease of three seconds, stopped by a dead-man.
    #[default]
    Standard,
    /// As standard, but stopped by a hardware watchdog with a timeout of one second.
    Watchdog,
    /// For wide-area or noisy networks and slow disks: a lease of ten seconds.
    Patient,
}

impl Profile {
    /// All profiles, fastest first.
    pub const ALL: [Self; 4] = [Self::Fast, Self::Standard, Self::Watchdog, Self::Patient];

    /// The timing of this profile.
    pub fn timing(self) -> Timing {
        // A test shows that each of them holds.
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
