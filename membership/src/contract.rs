//! The contract of a life: how long one grant of its lease lasts, and what stops its work when no further grant comes.
//!
//! ```text
//!   renewal sent          the lease ends            the mechanism has acted     no write is in flight any more
//!   ├────────── L ───────────▶├──────── T_stop ────────▶├──────── T_io ────────▶│
//!   ├───────── on the leader's clock, from the receipt of the last renewal: D ──┴──▶ the life may be expired
//! ```
//!
//! The contract belongs to the life (P20). It is committed with the join and never changes, so a wait computed from it
//! cannot mix an old lease with a new default. The wait is
//!
//! ```text
//!   E1:  D ≥ (1 + ρ) · (L / (1 − ρ) + T_stop + T_io)
//! ```
//!
//! where ρ bounds the error in the rate of a clock (Gray and Cheriton, *Leases*, 1989, with the drift written out).

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A bound on the error in the rate of a clock, in parts per million. At most [`Drift::LIMIT`]. Default: 10 000, which
/// is 1 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Drift(u32);

impl Drift {
    /// The largest drift that a contract may allow for: 40 %, far beyond any real oscillator. Models use it.
    pub const LIMIT: Self = Self(400_000);

    /// A drift of that many parts per million.
    pub const fn ppm(parts: u32) -> Self {
        Self(parts)
    }

    /// The parts per million.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// What a clock that runs fast by ρ shows after `real`: `real · (1 + ρ)`, rounded up.
    pub const fn on_a_fast_clock(self, real: Duration) -> Duration {
        scale(real, 1_000_000 + self.0 as u128, 1_000_000)
    }

    /// What has really passed when a clock that runs slow by ρ shows `shown`: `shown / (1 − ρ)`, rounded up.
    pub const fn on_a_slow_clock(self, shown: Duration) -> Duration {
        let rate = if self.0 < 1_000_000 { 1_000_000 - self.0 as u128 } else { 1 };
        scale(shown, 1_000_000, rate)
    }

    /// What one clock shows at the least while another shows `other`, where one is slow by ρ and the other fast by ρ:
    /// `other · (1 − ρ) / (1 + ρ)`, rounded down.
    pub fn on_another_clock(self, other: Duration) -> Duration {
        if mutant!("receipts_without_drift") {
            return other;
        }
        let slow = if self.0 < 1_000_000 { 1_000_000 - self.0 as u128 } else { 0 };
        let nanos = other.as_nanos().saturating_mul(slow) / (1_000_000 + self.0 as u128);
        if nanos > u64::MAX as u128 { Duration::from_nanos(u64::MAX) } else { Duration::from_nanos(nanos as u64) }
    }
}

impl Default for Drift {
    fn default() -> Self {
        Self(10_000)
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", f64::from(self.0) / 10_000.0)
    }
}

const fn scale(time: Duration, by: u128, of: u128) -> Duration {
    let nanos = (time.as_nanos() * by).div_ceil(of);
    let (seconds, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    if seconds > u64::MAX as u128 { Duration::MAX } else { Duration::new(seconds as u64, rest as u32) }
}

/// What stops the work of a life when its lease ends. Variants are only ever appended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Stop {
    /// Nothing reliable: at best a check in the process. Time never proves the end of such a life; a device, an
    /// operator or a clean leave does. (Class P of the protocol.)
    #[default]
    Unbounded,
    /// The resource itself rejects old tokens, so nothing has to be stopped. (Class T.)
    Tokens,
    /// A hardware watchdog with one feeder, fed only while the lease lasts. The feeder may pause between checking the
    /// lease and feeding, so twice the timeout counts. (Class H.)
    Watchdog {
        /// The timeout that the device confirmed. At least 1 ms, and shorter than the lease (E5).
        timeout: Duration,
        /// How long the machine may still act after the device has fired. At most 1 h.
        reset: Duration,
    },
    /// A timer in the kernel that kills the process, even if the process is stopped, blocked or spinning. (Class K.)
    Deadman {
        /// How long after the end of the lease the process has ended at the latest. At most 1 h.
        lateness: Duration,
    },
    /// A mechanism of the consumer's own.
    Own {
        /// How long after the end of the lease it has acted at the latest. At most 1 h.
        bound: Duration,
    },
}

impl Stop {
    /// T_stop: how long after the end of the lease, in real time, it has acted at the latest. `None` if there is no
    /// bound.
    pub fn bound(self, drift: Drift) -> Option<Duration> {
        match self {
            Self::Unbounded => None,
            Self::Tokens => Some(Duration::ZERO),
            Self::Watchdog { timeout, reset } => {
                let times = if mutant!("one_watchdog_timeout") { 1 } else { 2 };
                Some(drift.on_a_slow_clock(timeout.saturating_mul(times)).saturating_add(reset))
            }
            Self::Deadman { lateness: bound } | Self::Own { bound } => Some(bound),
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unbounded => f.write_str("nothing"),
            Self::Tokens => f.write_str("tokens"),
            Self::Watchdog { timeout, reset } => write!(f, "watchdog of {timeout:?}, reset within {reset:?}"),
            Self::Deadman { lateness } => write!(f, "dead-man within {lateness:?}"),
            Self::Own { bound } => write!(f, "own mechanism within {bound:?}"),
        }
    }
}

/// The contract of one life: committed with its join, and unchanged for as long as the life lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Contract {
    /// L: how long one grant lasts, counted from the *sending* of the renewal on the member's clock. 1 ms to 1 h.
    pub lease: Duration,
    /// What stops the work when the lease ends.
    pub stop: Stop,
    /// T_io: how long an action that was started in time may still take effect, for example a queued write. At most 1
    /// h.
    pub in_flight: Duration,
    /// ρ: by how much the clocks of this life and of any leader may be off. At most [`Drift::LIMIT`].
    pub drift: Drift,
}

impl Default for Contract {
    /// A lease of three seconds and no reliable stop mechanism: such a life never expires.
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(3),
            stop: Stop::Unbounded,
            in_flight: Duration::ZERO,
            drift: Drift::default(),
        }
    }
}

/// The longest time that a contract may contain.
const LONGEST: Duration = Duration::from_secs(3600);

/// A contract whose parts are out of bounds, or do not fit together. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ContractError {
    /// A time is out of its bounds.
    #[error("the {what} of a contract is {got:?}; it must lie between {low:?} and {high:?}")]
    Bounds {
        /// The part that is out of bounds.
        what: ContractPart,
        /// The time that was given.
        got: Duration,
        /// The shortest allowed.
        low: Duration,
        /// The longest allowed.
        high: Duration,
    },
    /// The drift exceeds [`Drift::LIMIT`].
    #[error("a drift of {got} exceeds the limit of {limit}; give the drift of the clocks, in parts per million", limit = Drift::LIMIT)]
    Drift {
        /// The drift that was given.
        got: Drift,
    },
    /// E5: the timeout of a watchdog must be shorter than the lease.
    #[error(
        "a watchdog of {timeout:?} does not fit a lease of {lease:?} (E5: W < L); take a shorter timeout or a longer lease"
    )]
    Watchdog {
        /// The timeout of the watchdog.
        timeout: Duration,
        /// The lease of the contract.
        lease: Duration,
    },
}

/// A time in a [`Contract`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContractPart {
    /// [`Contract::lease`].
    Lease,
    /// A time in [`Contract::stop`].
    Stop,
    /// [`Contract::in_flight`].
    InFlight,
}

impl fmt::Display for ContractPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lease => "lease",
            Self::Stop => "bound of the stop mechanism",
            Self::InFlight => "time in flight",
        })
    }
}

impl Contract {
    /// Checks every bound.
    ///
    /// # Errors
    /// The first bound that does not hold.
    pub fn check(&self) -> Result<(), ContractError> {
        let within = |what, got, low| match got {
            got if got < low || got > LONGEST => Err(ContractError::Bounds { what, got, low, high: LONGEST }),
            _ => Ok(()),
        };
        if self.drift > Drift::LIMIT {
            return Err(ContractError::Drift { got: self.drift });
        }
        within(ContractPart::Lease, self.lease, Duration::from_millis(1))?;
        within(ContractPart::InFlight, self.in_flight, Duration::ZERO)?;
        match self.stop {
            Stop::Unbounded | Stop::Tokens => Ok(()),
            Stop::Deadman { lateness: bound } | Stop::Own { bound } => {
                within(ContractPart::Stop, bound, Duration::ZERO)
            }
            Stop::Watchdog { timeout, reset } => {
                within(ContractPart::Stop, timeout, Duration::from_millis(1))?;
                within(ContractPart::Stop, reset, Duration::ZERO)?;
                match timeout < self.lease {
                    true => Ok(()),
                    false => Err(ContractError::Watchdog { timeout, lease: self.lease }),
                }
            }
        }
    }

    /// D (E1): how long a leader must have received no renewal, on its own clock, before this life is expired. `None`
    /// if no wait proves its end. The larger of the two drifts counts.
    pub fn wait(&self, drift_of_leader: Drift) -> Option<Duration> {
        let drift = self.drift.max(drift_of_leader);
        if mutant!("no_drift_margin") {
            return Some(self.lease + self.stop.bound(Drift::ppm(0))? + self.in_flight);
        }
        if mutant!("no_stop_time") {
            return Some(drift.on_a_fast_clock(drift.on_a_slow_clock(self.lease)));
        }
        let ended = drift.on_a_slow_clock(self.lease).saturating_add(self.stop.bound(drift)?);
        Some(drift.on_a_fast_clock(ended.saturating_add(self.in_flight)))
    }

    /// [`Self::wait`] for a leader whose clock keeps the drift of this contract.
    pub fn own_wait(&self) -> Option<Duration> {
        self.wait(self.drift)
    }
}

impl fmt::Display for Contract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lease {:?}, stopped by {}", self.lease, self.stop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// The column D of the profile table.
    #[test]
    fn the_waits_are_those_of_the_protocol() {
        let of = |lease, stop| Contract { lease: ms(lease), stop, ..Contract::default() }.own_wait();
        let deadman = |lateness| Stop::Deadman { lateness: ms(lateness) };
        let rounded = |wait: Option<Duration>| wait.map(|d| (d.as_secs_f64() * 1000.0).round() as u64);
        assert_eq!(rounded(of(600, deadman(50))), Some(663));
        assert_eq!(rounded(of(3000, deadman(250))), Some(3313));
        assert_eq!(rounded(of(3000, Stop::Watchdog { timeout: ms(1000), reset: ms(0) })), Some(5101));
        assert_eq!(rounded(of(10_000, deadman(500))), Some(10_707));
        assert_eq!(of(3000, Stop::Unbounded), None);
    }

    #[test]
    fn rounding_never_shortens_a_wait() {
        let drift = Drift::ppm(333_333);
        for nanos in 1..2000 {
            let time = Duration::from_nanos(nanos);
            assert!(drift.on_a_fast_clock(time).as_nanos() * 1_000_000 >= u128::from(nanos) * 1_333_333);
            assert!(drift.on_a_slow_clock(time).as_nanos() * 666_667 >= u128::from(nanos) * 1_000_000);
        }
    }

    #[test]
    fn a_contract_that_cannot_be_kept_says_what_would() {
        let dog = Stop::Watchdog { timeout: ms(3000), reset: ms(0) };
        let error = Contract { stop: dog, ..Contract::default() }.check().unwrap_err().to_string();
        assert!(error.contains("W < L"), "{error}");
        let error = Contract { lease: ms(0), ..Contract::default() }.check().unwrap_err().to_string();
        assert_eq!(error, "the lease of a contract is 0ns; it must lie between 1ms and 3600s");
        assert!(Contract { drift: Drift::ppm(500_000), ..Contract::default() }.check().is_err());
        assert!(Contract::default().check().is_ok());
    }
}
