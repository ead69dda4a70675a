//! Timing: how a cluster behaves in time, as one value that exists only if its inequalities hold.
//!
//! ```text
//!   E1  D ≥ (1 + ρ) · (L / (1 − ρ) + T_stop + T_io)                                    no two lives act at once
//!   E2  L − M > (1 + ρ) · (R + T_elect + (k − 1) · election_max + T_activate + H + 2δ)  no healthy member lapses
//!   E3  R ≤ (L − M) / 4                                    several renewals may be lost
//!   E4  election_min ≥ 3 · heartbeat, T_elect = 2 · election_max + 2δ + F
//!   E5  W < L, W ≥ 4 · feeding interval                    (watchdogs only)
//!   E6  M > σ · L                                          (dead-man only: BOOTTIME may be slewed by σ)
//! ```
//!
//! L is the lease, M the margin between notice and end, R the renewal interval, H the heartbeat, ρ the drift, 2δ the
//! round trip, F one fsync, and k = 1 the elections to survive. T_activate = 2δ + 2F is one commit. E1 holds by
//! construction: D is computed and never set.

mod defaults;
mod plan;

use std::fmt;
use std::time::Duration;

pub use defaults::Profile;
pub use plan::Plan;

use crate::contract::{Contract, ContractError, Stop};

/// σ: by how much the rate of CLOCK_BOOTTIME may be slewed, in percent. The largest slew of chrony is 8.3 %.
pub const SLEW_PERCENT: u32 = 10;

/// Times that do not fit together. The text contains the inequality with its numbers. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TimingError {
    /// A time is out of its bounds.
    #[error("{what} is {got:?}; it must lie between {low:?} and {high:?}")]
    Bounds {
        /// The field of the [`Plan`].
        what: &'static str,
        /// The time that was given.
        got: Duration,
        /// The shortest allowed.
        low: Duration,
        /// The longest allowed.
        high: Duration,
    },
    /// The contract that follows from the plan is out of bounds.
    #[error(transparent)]
    Contract(#[from] ContractError),
    /// E2: during one change of leaders, the leases of healthy members would lapse.
    #[error("{}", worked_out(.0))]
    HealthyWouldLapse(Box<Plan>),
    /// E3: too few renewals fit into a lease.
    #[error("E3: R = {renew:?} must be at most (L − M) / 4 = {most:?}; renew more often, or lengthen the lease")]
    RenewalsTooRare {
        /// R: the renewal interval that was given.
        renew: Duration,
        /// The longest interval that this lease allows.
        most: Duration,
    },
    /// E4: one or two lost heartbeats would start an election.
    #[error(
        "E4: election_min = {got:?} must be at least 3 · H = {least:?}; shorten the heartbeat, or raise election_min"
    )]
    ElectionTooSoon {
        /// The `election_min` that was given.
        got: Duration,
        /// Three heartbeats.
        least: Duration,
    },
    /// E6: a slewed clock would use up the margin.
    #[error(
        "E6: M = {margin:?} must exceed σ · L = {slew:?} for a dead-man; lengthen the margin, or shorten the lease"
    )]
    MarginBelowSlew {
        /// M: the margin that was given.
        margin: Duration,
        /// σ · L: the most that the clock may be slewed during one lease.
        slew: Duration,
    },
    /// No timing fails over within the target.
    #[error("no timing fails over within {target:?}: the fastest that holds needs {fastest:?}")]
    Unreachable {
        /// The failover time that was asked for.
        target: Duration,
        /// The failover time of the fastest profile.
        fastest: Duration,
    },
}

/// E2 with the numbers of a plan that violates it, and the remedy.
fn worked_out(plan: &Plan) -> String {
    let Plan { lease, margin, renew, heartbeat, round_trip, .. } = plan;
    let (have, need) = (lease.saturating_sub(*margin), plan.survives());
    let (elect, activate, short) = (plan.elect(), plan.commit(), need.saturating_sub(have));
    format!(
        "E2: L − M = {have:?} must exceed (1 + ρ) · (R {renew:?} + T_elect {elect:?} + T_activate {activate:?} + \
         H {heartbeat:?} + 2δ {round_trip:?}) = {need:?}; lengthen the lease by more than {short:?}, or shorten the election"
    )
}

/// The timing of a cluster. Every value of this type satisfies all inequalities above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Timing {
    plan: Plan,
}

impl Default for Timing {
    fn default() -> Self {
        Profile::Standard.timing()
    }
}

impl From<Profile> for Timing {
    fn from(profile: Profile) -> Self {
        profile.timing()
    }
}

impl Timing {
    /// Checks a plan against every inequality.
    ///
    /// # Errors
    /// The first inequality that does not hold, with its numbers.
    pub fn new(plan: Plan) -> Result<Self, TimingError> {
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        let within = |what, got, low, high| match got {
            got if got < low || got > high => Err(TimingError::Bounds { what, got, low, high }),
            _ => Ok(()),
        };
        within("heartbeat", plan.heartbeat, ms(1), s(10))?;
        within("election_max", plan.election_max, plan.election_min.saturating_add(ms(1)), s(120))?;
        // The leader confirms renewals once a heartbeat. A renewal sent more often would be forgotten before its grant.
        within("renew", plan.renew, plan.heartbeat, s(600))?;
        within("lease", plan.lease, ms(1), s(3600))?;
        within("margin", plan.margin, ms(1), plan.lease)?;
        within("round_trip", plan.round_trip, Duration::ZERO, s(10))?;
        within("fsync", plan.fsync, Duration::ZERO, s(10))?;
        plan.contract().check()?;
        if plan.election_min < plan.heartbeat * 3 {
            return Err(TimingError::ElectionTooSoon { got: plan.election_min, least: plan.heartbeat * 3 });
        }
        let have = plan.lease - plan.margin;
        if plan.renew > have / 4 {
            return Err(TimingError::RenewalsTooRare { renew: plan.renew, most: have / 4 });
        }
        if let (Stop::Deadman { .. }, slew) = (plan.stop, plan.lease * SLEW_PERCENT / 100)
            && plan.margin <= slew
        {
            return Err(TimingError::MarginBelowSlew { margin: plan.margin, slew });
        }
        let need = plan.survives();
        if have <= need {
            return Err(TimingError::HealthyWouldLapse(Box::new(plan)));
        }
        Ok(Self { plan })
    }

    /// The calmest timing that fails over by time within `target` even if the leader dies (see [`Self::leader_crash`]).
    /// The stop mechanism is a dead-man, and everything is the standard profile in proportion, or the fast one where
    /// that is too slow.
    ///
    /// # Errors
    /// [`TimingError::Unreachable`] if `target` is shorter than the fast profile needs.
    pub fn within(target: Duration) -> Result<Self, TimingError> {
        let fastest = Profile::Fast.timing().leader_crash().unwrap_or(Duration::MAX);
        let unreachable = TimingError::Unreachable { target, fastest };
        // The largest scale at which it stays within the target.
        let (fast, standard) = (Profile::Fast.plan(), Profile::Standard.plan());
        let holds = |percent: u32| {
            let base = if percent < 100 { fast.scaled(percent * 5, 100) } else { standard.scaled(percent, 100) };
            Self::new(base).ok().filter(|t| t.leader_crash().is_some_and(|worst| worst <= target))
        };
        (20..=2000).rev().find_map(holds).filter(|_| target >= fastest).ok_or(unreachable)
    }

    /// The fastest timing for a disk whose slow fsyncs (about the 99th percentile) take `fsync`. A heartbeat is
    /// answered only after earlier log writes are flushed, so it must not be shorter than that. `None` if the disk is
    /// too slow even for four times the standard timing.
    pub fn fastest_for(fsync: Duration) -> Option<Self> {
        let (fast, standard) = (Profile::Fast.plan(), Profile::Standard.plan());
        let holds = |plan: Plan| Self::new(plan).ok().filter(|t| t.holds_on(fsync));
        holds(fast).or_else(|| (50..=400).find_map(|percent| holds(standard.scaled(percent, 100))))
    }

    /// Whether a disk whose slow fsyncs take `fsync` is fast enough for this timing.
    pub fn holds_on(&self, fsync: Duration) -> bool {
        fsync <= self.plan.fsync
    }

    /// The same timing with another stop mechanism.
    ///
    /// # Errors
    /// [`TimingError`] if the mechanism does not fit the lease (E5) or the margin (E6).
    pub fn stopped_by(self, stop: Stop) -> Result<Self, TimingError> {
        Self::new(Plan { stop, ..self.plan })
    }

    /// The times that it is made of.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The contract of a life under this timing.
    pub fn contract(&self) -> Contract {
        self.plan.contract()
    }

    /// The longest time from the crash of a member that does not lead until time proves its end. `None` if it never
    /// does.
    pub fn member_crash(&self) -> Option<Duration> {
        // The last renewal may be sent just before the crash and takes half a round trip. The wait, and the pace at
        // which the leader checks, are measured on a clock that may be slow.
        let waited = self.contract().own_wait()? + self.plan.heartbeat / 4;
        Some(self.plan.round_trip / 2 + self.plan.drift.on_a_slow_clock(waited) + self.plan.commit())
    }

    /// The longest time from the crash of the leader until time proves its end, if the first election succeeds. `None`
    /// if it never does.
    pub fn leader_crash(&self) -> Option<Duration> {
        let led = self.plan.elect() + self.plan.commit() + self.plan.heartbeat;
        Some(self.plan.drift.on_a_slow_clock(led) + self.member_crash()?)
    }

    /// A hash (FNV-1a) of what all nodes must share: heartbeat, election bounds and drift.
    pub fn hash(&self) -> u64 {
        let Plan { heartbeat, election_min, election_max, drift, .. } = self.plan;
        let times = [heartbeat, election_min, election_max].map(|d| d.as_nanos() as u64);
        let bytes = times.into_iter().chain([u64::from(drift.get())]).flat_map(u64::to_le_bytes);
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }
}

/// A table for operators: what was set, and what follows from it.
impl fmt::Display for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { heartbeat, election_min, election_max, renew, lease, margin, stop, drift, .. } = self.plan;
        let or_never = |d: Option<Duration>| d.map_or_else(|| "never by time".into(), |d| format!("{d:.0?}"));
        writeln!(f, "heartbeat / election     {heartbeat:?} / {election_min:?} to {election_max:?}")?;
        writeln!(f, "renewal R, lease L       {renew:?}, {lease:?}")?;
        writeln!(f, "notice M before the end  {margin:?}")?;
        writeln!(f, "stopped by               {stop}")?;
        writeln!(f, "drift allowed            {drift}")?;
        writeln!(f, "meant for                round trip {:?}, fsync {:?}", self.plan.round_trip, self.plan.fsync)?;
        writeln!(f, "E1  wait D               {}", or_never(self.contract().own_wait()))?;
        writeln!(f, "E2  L − M > need         {:?} > {:.0?}", lease - margin, self.plan.survives())?;
        writeln!(f, "member dies → fenced     within {}", or_never(self.member_crash()))?;
        write!(f, "leader dies → fenced     within {}", or_never(self.leader_crash()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Drift;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn every_profile_holds_and_meets_the_bounds_of_the_protocol() {
        for (profile, member, leader) in [
            (Profile::Fast, 700, 1100),
            (Profile::Standard, 3500, 5400),
            (Profile::Watchdog, 5300, 7200),
            (Profile::Patient, 11_200, 18_000),
        ] {
            let timing = Timing::new(*profile.timing().plan()).unwrap_or_else(|e| panic!("{profile}: {e}"));
            assert!(timing.member_crash().unwrap() <= ms(member), "{profile}\n{timing}");
            assert!(timing.leader_crash().unwrap() <= ms(leader), "{profile}\n{timing}");
        }
    }

    #[test]
    fn what_is_unsafe_is_refused_with_the_inequality_worked_out() {
        let plan = *Timing::default().plan();
        let error = |plan| Timing::new(plan).unwrap_err().to_string();
        let short = error(Plan { lease: ms(2600), ..plan });
        assert!(short.starts_with("E2: L − M = 2s must exceed (1 + ρ) · (R 300ms"), "{short}");
        assert!(
            error(Plan { renew: ms(700), ..plan }).starts_with("E3: R = 700ms must be at most (L − M) / 4 = 600ms")
        );
        assert!(error(Plan { election_min: ms(200), ..plan }).starts_with("E4: election_min = 200ms"));
        assert!(error(Plan { margin: ms(300), ..plan }).starts_with("E6: M = 300ms must exceed σ · L = 300ms"));
        let dog = Stop::Watchdog { timeout: ms(3000), reset: ms(0) };
        assert!(error(Plan { stop: dog, ..plan }).contains("E5"));
        assert!(error(Plan { heartbeat: ms(0), ..plan }).contains("heartbeat is 0ns"));
        assert!(error(Plan { drift: Drift::ppm(900_000), ..plan }).contains("drift of 90 %"));
    }

    #[test]
    fn a_target_gives_the_calmest_timing_that_meets_it() {
        for target in [1100, 2000, 5000, 20_000] {
            let timing = Timing::within(ms(target)).unwrap();
            let worst = timing.leader_crash().unwrap();
            assert!(worst <= ms(target) && worst >= ms(target) * 8 / 10, "{target}: {worst:?}");
        }
        let error = Timing::within(ms(500)).unwrap_err().to_string();
        assert!(error.starts_with("no timing fails over within 500ms: the fastest that holds needs"), "{error}");
    }

    #[test]
    fn a_disk_gets_the_fastest_timing_that_it_holds() {
        assert_eq!(Timing::fastest_for(ms(5)).unwrap(), Profile::Fast.timing());
        let slow = Timing::fastest_for(ms(60)).unwrap();
        assert!(slow.holds_on(ms(60)) && slow.plan().heartbeat > ms(80), "{slow}");
        assert_eq!(Timing::fastest_for(Duration::from_secs(1)), None);
    }

    #[test]
    fn the_hash_covers_what_all_must_share_and_nothing_else() {
        let (plan, own) = (*Timing::default().plan(), Timing::default().hash());
        let of = |plan| Timing::new(plan).unwrap().hash();
        assert_ne!(of(Plan { heartbeat: ms(81), ..plan }), own);
        assert_eq!(of(Plan { margin: ms(500), ..plan }), own);
    }
}
