//! The configurations of the lease model: what each is for, how far it goes, and what it must reach.
//!
//! ```text
//!   rates 2 and 3 a tick, so ρ = 20 %         class K, L = 4:  a slow member ends after 2 ticks; D = 6, a fast leader 2
//!   rates 1 and 1, ρ = 0                      class H, L = 4, W = 3:  D = 10
//! ```
//!
//! For class K the wait is exact in whole ticks: one unit less, and a life that can act is expired.

use std::time::Duration;

use quorate_membership::*;

use crate::world::{Bounds, Mistake, Situation};

const ANY: u8 = u8::MAX;

const fn watchdog(units: u64) -> Stop {
    Stop::Watchdog { timeout: Duration::from_millis(units), reset: Duration::ZERO }
}

/// One term of one leader, who is no member: the bounds that the others widen.
const BASE: Bounds = Bounds {
    name: "",
    lease: 4,
    stop: Stop::Deadman { lateness: Duration::ZERO },
    drift: Drift::ppm(200_000),
    rates: [2, 3],
    leaders: &[2],
    terms: 1,
    activations: 1,
    lives: [1, 1],
    renewals: 1,
    sends: [1, 0],
    room: 1,
    crashes: 0,
    restarts: 0,
    orders: 0,
    takeovers: 0,
    doubles: false,
    rests: false,
    hears: false,
    timed: true,
    receipts: false,
    mistake: None,
    reaches: &[],
};

/// A stop mechanism and its wait, with one leader.
pub(crate) mod one_leader {
    use super::*;

    pub(crate) const DEADMAN: Bounds = Bounds {
        name: "K: two members, one leader",
        sends: [ANY, ANY],
        reaches: &[Situation::Stopped, Situation::ExpiringRefused, Situation::SecondMember, Situation::MinorityKept],
        ..BASE
    };
    pub(crate) const LONG: Bounds =
        Bounds { name: "K: a longer lease", lease: 6, reaches: &[Situation::Stopped], ..BASE };
    pub(crate) const RESTS: Bounds = Bounds {
        name: "K: work is laid down",
        rests: true,
        sends: [2, 0],
        reaches: &[Situation::LapsedAndRegained, Situation::ExpiringRefused],
        ..BASE
    };
    pub(crate) const RESTS_FULL: Bounds = Bounds {
        name: "K: two members lay work down",
        sends: [ANY, 2],
        reaches: &[Situation::LapsedAndRegained, Situation::MinorityKept, Situation::SecondMember],
        ..RESTS
    };
    pub(crate) const DOUBLES: Bounds = Bounds {
        name: "K: two in flight, each twice",
        sends: [ANY, 0],
        renewals: 2,
        doubles: true,
        reaches: &[Situation::DoubledGrant, Situation::TwoInFlight],
        ..BASE
    };
    pub(crate) const STEADY_DOG: Bounds = Bounds {
        name: "H: perfect clocks",
        stop: watchdog(3),
        drift: Drift::ppm(0),
        rates: [1, 1],
        sends: [2, 0],
        reaches: &[Situation::Stopped, Situation::LapsedAndRegained],
        ..BASE
    };
    pub(crate) const DRIFTING_DOG: Bounds = Bounds {
        name: "H: drifting clocks",
        lease: 8,
        stop: watchdog(6),
        sends: [0, 0],
        reaches: &[Situation::Stopped],
        ..BASE
    };
    pub(crate) const DRIFTING_DOG_FULL: Bounds = Bounds {
        name: "H: drifting clocks, a member renews",
        sends: [1, 0],
        reaches: &[Situation::Stopped, Situation::LapsedAndRegained],
        ..DRIFTING_DOG
    };
    pub(crate) const STEADY_DOGS: Bounds = Bounds {
        name: "H: perfect clocks, two members renew",
        sends: [ANY, 1],
        reaches: &[Situation::Stopped, Situation::LapsedAndRegained],
        ..STEADY_DOG
    };
}

/// Leaders that come, go, come back and do not know it.
pub(crate) mod leaders {
    use super::*;

    pub(crate) const TWO: Bounds = Bounds {
        name: "K: two leaders",
        leaders: &[1, 2],
        terms: 2,
        activations: 2,
        reaches: &[
            Situation::TwoLeaders,
            Situation::Voided,
            Situation::Survived,
            Situation::GrantAfterChange,
            Situation::LaterExpiry,
            Situation::StaleReadRefused,
        ],
        ..BASE
    };
    pub(crate) const TWO_FULL: Bounds =
        Bounds { name: "K: two leaders, any first", leaders: &[0, 1, 2], sends: [2, 0], hears: true, room: 2, ..TWO };
    pub(crate) const TWO_FOR_EVER: Bounds =
        Bounds { name: "K: two leaders, renewals for ever", sends: [ANY, 0], ..TWO };
    pub(crate) const THREE: Bounds =
        Bounds { name: "K: three leaders", terms: 3, activations: 3, leaders: &[2], ..TWO };
    pub(crate) const TWO_DOGS: Bounds = Bounds {
        name: "H: two leaders",
        leaders: &[2],
        stop: watchdog(3),
        drift: Drift::ppm(0),
        rates: [1, 1],
        reaches: &[Situation::TwoLeaders, Situation::GrantAfterChange, Situation::LaterExpiry, Situation::Stopped],
        ..TWO
    };
    pub(crate) const ANEW: Bounds = Bounds {
        name: "K: a leader starts anew in its term",
        hears: true,
        activations: 2,
        restarts: 1,
        rests: true,
        reaches: &[
            Situation::RestartedInTerm,
            Situation::GrantAfterChange,
            Situation::LaterExpiry,
            Situation::ExpiringRefused,
        ],
        ..BASE
    };
    pub(crate) const ANEW_FULL: Bounds =
        Bounds { name: "K: a leader starts anew twice", sends: [ANY, 1], activations: 3, restarts: 2, ..ANEW };
}

/// New leaders that ask the voters when they heard of each life last.
pub(crate) mod receipts {
    use super::*;

    pub(crate) const TWO: Bounds = Bounds {
        name: "K: receipts, two leaders",
        receipts: true,
        lease: 3,
        drift: Drift::ppm(0),
        rates: [1, 1],
        sends: [0, 1],
        leaders: &[1],
        terms: 2,
        activations: 2,
        reaches: &[Situation::TwoLeaders, Situation::LaterExpiry, Situation::WaitMovedBack],
        ..BASE
    };
    pub(crate) const LOST: Bounds = Bounds {
        name: "K: receipts, a voter loses them",
        lease: 2,
        crashes: 1,
        reaches: &[Situation::TwoLeaders, Situation::LaterExpiry, Situation::WaitMovedBack, Situation::LostReceipts],
        ..TWO
    };
    /// The wait is exact: a slow member ends after one tick.
    pub(crate) const DRIFT: Bounds = Bounds {
        name: "K: receipts, drifting clocks",
        lease: 2,
        drift: Drift::ppm(200_000),
        rates: [2, 3],
        sends: [0, 1],
        reaches: &[Situation::TwoLeaders, Situation::LaterExpiry, Situation::WaitMovedBack],
        ..TWO
    };
    pub(crate) const DRIFT_LONGER: Bounds =
        Bounds { name: "K: receipts, drifting clocks, a longer lease", lease: 3, ..DRIFT };
    pub(crate) const DRIFT_LONGEST: Bounds =
        Bounds { name: "K: receipts, drifting clocks, the longest lease", lease: 4, ..DRIFT };
}

/// Two lives of a member, and their jobs.
pub(crate) mod lives {
    use super::*;

    pub(crate) const SECOND: Bounds = Bounds {
        name: "K: two lives",
        lives: [2, 1],
        takeovers: 1,
        reaches: &[Situation::SecondLifeHolds, Situation::ClosingRefused, Situation::TookOver, Situation::SecondMember],
        ..BASE
    };
    pub(crate) const SECOND_FULL: Bounds =
        Bounds { name: "K: two lives, crashes", crashes: 1, sends: [2, 0], ..SECOND };
    pub(crate) const SECOND_AND_LEADERS: Bounds = Bounds {
        name: "K: two lives, two leaders",
        terms: 2,
        activations: 2,
        takeovers: 0,
        reaches: &[
            Situation::TwoLeaders,
            Situation::SecondLifeHolds,
            Situation::LaterExpiry,
            Situation::Survived,
            Situation::Voided,
        ],
        ..SECOND
    };
    pub(crate) const DOUBLES: Bounds = Bounds {
        name: "K: two lives, grants arrive twice",
        doubles: true,
        takeovers: 0,
        reaches: &[Situation::SecondLifeHolds, Situation::ClosingRefused, Situation::DoubledGrant],
        ..SECOND
    };
    pub(crate) const FENCER: Bounds = Bounds {
        name: "K: fencer and expiry race",
        orders: 1,
        takeovers: 1,
        reaches: &[Situation::SecondProof, Situation::Stopped, Situation::SecondMember, Situation::TookOver],
        ..BASE
    };
    pub(crate) const FENCER_FULL: Bounds = Bounds {
        name: "K: fencer, expiry, two lives",
        lives: [2, 1],
        reaches: &[Situation::SecondProof, Situation::SecondLifeHolds, Situation::TookOver, Situation::ClosingRefused],
        ..FENCER
    };
    pub(crate) const TOKENS: Bounds = Bounds {
        name: "T: tokens",
        stop: Stop::Tokens,
        takeovers: 1,
        sends: [0, 1],
        reaches: &[Situation::FloorRefused, Situation::LapsedAndRegained, Situation::TookOver],
        ..BASE
    };
    pub(crate) const TOKENS_SHOT: Bounds = Bounds {
        name: "T: tokens, fencer and expiry",
        orders: 1,
        sends: [1, 0],
        reaches: &[Situation::FloorRefused, Situation::SecondProof, Situation::TookOver],
        ..TOKENS
    };
    pub(crate) const TOKENS_FULL: Bounds = Bounds {
        name: "T: tokens, two lives",
        lives: [2, 1],
        reaches: &[Situation::FloorRefused, Situation::SecondProof, Situation::SecondLifeHolds, Situation::TookOver],
        ..TOKENS_SHOT
    };
}

/// Worlds in which a promise must break, and one in which it must not.
pub(crate) mod broken {
    use super::*;

    pub(crate) const FROZEN: Bounds =
        Bounds { name: "a machine stands still, its clock too", mistake: Some(Mistake::FrozenClock), ..BASE };
    pub(crate) const FROZEN_AND_SHOT: Bounds = Bounds {
        name: "it stands still, and only a fencer counts",
        timed: false,
        sends: [0, 0],
        orders: 1,
        takeovers: 1,
        reaches: &[Situation::TookOver],
        ..FROZEN
    };
    pub(crate) const UNSTOPPED: Bounds =
        Bounds { name: "nothing stops who promised it", mistake: Some(Mistake::NothingStops), ..BASE };
    pub(crate) const TOLD_EARLY: Bounds = Bounds {
        name: "work passes on before the proof",
        sends: [1, 1],
        orders: 1,
        takeovers: 1,
        timed: false,
        mistake: Some(Mistake::ToldBeforeTheProof),
        ..BASE
    };
    pub(crate) const NO_FLOOR: Bounds = Bounds {
        name: "work begins before its token is the floor",
        mistake: Some(Mistake::WorkBeforeTheFloor),
        ..super::lives::TOKENS
    };
}
