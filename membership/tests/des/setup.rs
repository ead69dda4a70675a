//! What one run is of: a plan, a number of nodes, a weather, and perhaps a mistake that is made on purpose.

use std::time::Duration;

use quorate_membership::timing::SLEW_PERCENT;
use quorate_membership::{Contract, Drift, Plan, Profile, Stop, Timing};

use crate::clocks::Nanos;

/// Milliseconds and seconds in nanoseconds.
pub(crate) const MS: Nanos = 1_000_000;
pub(crate) const SECOND: Nanos = 1000 * MS;

/// What happens to the machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    /// Everything that may happen does.
    Chaos,
    /// Machines crash one at a time, once all is well again; the network and the disks are as the plan says. That many
    /// messages in a thousand are lost.
    Calm { loss: u64 },
}

/// A mistake that the simulation makes on purpose, to show that it would be noticed. Those in shipped code are branches
/// of it and are not listed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weakness {
    /// D is computed as if no clock drifted.
    NoDrift,
    /// D allows for one timeout of the watchdog.
    OneTimeout,
    /// D does not allow for what is in flight.
    NothingInFlight,
    /// A new leader counts from long before its activation.
    NewLeaderDoesNotWait,
    /// The lease is counted from the receipt of the grant.
    LeaseFromReceipt,
    /// A renewal is granted when it is received.
    NoRead,
    /// Nothing stops the work.
    NoStop,
    /// The dead-man is armed as if CLOCK_BOOTTIME were never steered.
    NoSlew,
    /// What is left is computed, and only then is the clock read that the dead-man is armed by.
    ArmedByALaterLook,
    /// A new holder works before its token is the resource's floor.
    WorkBeforeFloor,
    /// Work begins once the mechanism is armed, without a further look at the lease.
    NoSecondLook,
    /// Machines with a watchdog are suspended, which their class does not allow.
    SuspendedWatchdog,
}

/// One run.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) name: String,
    pub(crate) plan: Plan,
    pub(crate) nodes: usize,
    pub(crate) weather: Weather,
    pub(crate) weakness: Option<Weakness>,
    /// How long, in simulated seconds.
    pub(crate) seconds: u64,
    /// Whether only those faults occur, and the more often, that bring a lease to its very end.
    pub(crate) hunting: bool,
}

impl Setup {
    pub(crate) fn new(profile: Profile, nodes: usize, weather: Weather) -> Self {
        let plan = *profile.timing().plan();
        Self { name: format!("{profile} n={nodes}"), plan, nodes, weather, weakness: None, seconds: 60, hunting: false }
    }

    pub(crate) fn lasting(self, seconds: u64) -> Self {
        Self { seconds, ..self }
    }

    /// The same with another mechanism. Only what [`Timing`] accepts is a fair run.
    pub(crate) fn stopped_by(self, stop: Stop) -> Self {
        let plan = Plan { stop, ..self.plan };
        let fits = Timing::new(plan);
        assert!(fits.is_ok(), "{}: {fits:?}", self.name);
        Self { name: format!("{}, {stop}", self.name), plan, ..self }
    }

    /// The same where what was begun in time may land that much later.
    pub(crate) fn in_flight(self, in_flight: Duration) -> Self {
        let plan = Plan { in_flight, ..self.plan };
        Self { name: format!("{}, in flight {in_flight:?}", self.name), plan, ..self }
    }

    /// The same with clocks, and an allowance for them, that are so many times worse.
    pub(crate) fn drifting(self, times: u32) -> Self {
        let plan = Plan { drift: Drift::ppm(self.plan.drift.get() * times), ..self.plan };
        Self { name: format!("{}, clocks off by {}", self.name, plan.drift), plan, ..self }
    }

    /// The same plan with another lease, whether or not it then holds.
    pub(crate) fn leased_for(self, lease: Duration, margin: Duration, renew: Duration) -> Self {
        let plan = Plan { lease, margin, renew, ..self.plan };
        Self { name: format!("{}, lease of {lease:?}", self.name), plan, ..self }
    }

    pub(crate) fn hunting(self) -> Self {
        Self { hunting: true, ..self }
    }

    pub(crate) fn weakened(self, weakness: Weakness) -> Self {
        Self { name: format!("{}, {weakness:?}", self.name), weakness: Some(weakness), ..self }
    }

    pub(crate) fn is(&self, weakness: Weakness) -> bool {
        self.weakness == Some(weakness)
    }

    pub(crate) fn calm(&self) -> bool {
        self.weather != Weather::Chaos
    }

    /// What the lives of this run promise in the log. A weakness makes them promise too much.
    pub(crate) fn contract(&self) -> Contract {
        let Plan { lease, stop, in_flight, drift, .. } = self.plan;
        let honest = Contract { lease, stop, in_flight, drift };
        match (self.weakness, stop) {
            (Some(Weakness::NoDrift), _) => Contract { drift: Drift::ppm(0), ..honest },
            (Some(Weakness::NothingInFlight), _) => Contract { in_flight: Duration::ZERO, ..honest },
            (Some(Weakness::OneTimeout), Stop::Watchdog { timeout, reset }) => {
                Contract { stop: Stop::Watchdog { timeout: timeout / 2, reset }, ..honest }
            }
            _ => honest,
        }
    }

    /// What leaders take for the most that a clock may be off.
    pub(crate) fn drift_of_leaders(&self) -> Drift {
        if self.is(Weakness::NoDrift) { Drift::ppm(0) } else { self.plan.drift }
    }

    /// The least part of what is left that the dead-man is armed for, in percent.
    pub(crate) fn armed_percent(&self) -> u64 {
        if self.is(Weakness::NoSlew) { 100 } else { u64::from(100 - SLEW_PERCENT) }
    }
}

/// The plan in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) heartbeat: Nanos,
    pub(crate) election_min: Nanos,
    pub(crate) election_max: Nanos,
    pub(crate) lease: Nanos,
    pub(crate) margin: Nanos,
    pub(crate) in_flight: Nanos,
    /// One way.
    pub(crate) hop: Nanos,
    pub(crate) fsync: Nanos,
    /// D as the plan has it; with tokens alone, which have no bound of their own, as for a lease that ends at once.
    pub(crate) wait: Nanos,
    /// ρ in parts per million.
    pub(crate) drift: u64,
}

impl Times {
    pub(crate) fn of(setup: &Setup) -> Self {
        let nanos = |d: Duration| d.as_nanos() as Nanos;
        let Plan { heartbeat, election_min, election_max, lease, margin, in_flight, round_trip, fsync, .. } =
            setup.plan;
        Self {
            heartbeat: nanos(heartbeat),
            election_min: nanos(election_min),
            election_max: nanos(election_max),
            lease: nanos(lease),
            margin: nanos(margin),
            in_flight: nanos(in_flight),
            hop: nanos(round_trip / 2),
            fsync: nanos(fsync),
            wait: setup.contract().own_wait().map_or(nanos(lease), nanos),
            drift: u64::from(setup.plan.drift.get()),
        }
    }
}
