//! The configurations of the store model: what each is for, how far it goes, and what it must reach.
//!
//! Of two locks, two lives that contend, two requests of each: in the small ones of everything that matters to what they
//! are for, in the wide ones of more.

use crate::checks::Situation;
use crate::world::{ACTORS, Bounds, FIRST, OTHER, SECOND};

const NOBODY: [u8; ACTORS] = [0; ACTORS];

/// Nobody asks for anything: what the others widen. Lists are of n1#1, n2#1, n1#2 and the two clients.
const BASE: Bounds = Bounds {
    name: "",
    asks: [[0; 2]; ACTORS],
    writes: NOBODY,
    guarded: true,
    bound: false,
    pushes: 0,
    takes: 0,
    settles: 0,
    orders: 0,
    targets: &[FIRST],
    attempts: 1,
    leads: 0,
    leaves: 0,
    restarts: false,
    reboots: false,
    process_bound: false,
    reaches: &[],
};

/// Who holds a lock when lives are suspected, fenced, stopped and begun anew.
pub(crate) mod locks {
    use super::*;

    pub(crate) const FENCED: Bounds = Bounds {
        name: "locks: a life is fenced and comes back",
        asks: [[2, 1], [2, 1], [1, 0], [0, 0], [0, 0]],
        orders: 1,
        restarts: true,
        reaches: &[
            Situation::PassedByRelease,
            Situation::PassedByProof,
            Situation::TwoByOneEnd,
            Situation::LateRelease,
            Situation::LateReleaseOfAnotherGrant,
            Situation::ActsWhileFenced,
            Situation::EndedUnknown,
            Situation::FormerHolds,
            Situation::SecondLifeHolds,
            Situation::MayNotHold,
            Situation::Copy,
        ],
        ..BASE
    };
    pub(crate) const FENCED_FULL: Bounds = Bounds {
        name: "locks: two lives are fenced, some twice",
        asks: [[2, 1], [2, 1], [1, 0], [0, 0], [0, 0]],
        orders: 2,
        targets: &[FIRST, OTHER, SECOND],
        attempts: 2,
        ..FENCED
    };
    pub(crate) const LED_FULL: Bounds =
        Bounds { name: "locks: two lives are fenced, leaders change", attempts: 1, leads: 1, ..FENCED_FULL };
    pub(crate) const LEFT: Bounds = Bounds {
        name: "locks: lives leave, requests are settled",
        asks: [[2, 1], [1, 1], [0, 0], [0, 0], [0, 0]],
        settles: 1,
        leaves: 1,
        reaches: &[
            Situation::PassedByLeaving,
            Situation::VoidCopy,
            Situation::Withdrawn,
            Situation::Copy,
            Situation::TwoByOneEnd,
        ],
        ..BASE
    };
    pub(crate) const LEFT_FULL: Bounds = Bounds {
        name: "locks: lives leave, more is settled",
        asks: [[2, 1], [2, 1], [0, 0], [0, 0], [0, 0]],
        settles: 2,
        orders: 1,
        ..LEFT
    };
    pub(crate) const PROCESS_BOUND: Bounds = Bounds {
        name: "locks: a new life takes them up",
        asks: [[1, 1], [1, 0], [1, 0], [0, 0], [0, 0]],
        orders: 1,
        targets: &[FIRST, SECOND],
        restarts: true,
        reboots: true,
        process_bound: true,
        reaches: &[
            Situation::InheritedBySuccessor,
            Situation::PassedByProof,
            Situation::SecondLifeHolds,
            Situation::LateRelease,
            Situation::Forfeited,
        ],
        ..BASE
    };
    pub(crate) const PROCESS_BOUND_FULL: Bounds = Bounds {
        name: "locks: a new life takes them up, and leaves",
        asks: [[2, 1], [1, 1], [1, 0], [0, 0], [0, 0]],
        leaves: 1,
        ..PROCESS_BOUND
    };
}

/// What waits for the holder of a lock.
pub(crate) mod queue {
    use super::*;

    pub(crate) const HANDED: Bounds = Bounds {
        name: "queue: its lock is handed over",
        asks: [[2, 0], [2, 0], [0, 0], [0, 0], [0, 0]],
        pushes: 2,
        takes: 2,
        orders: 1,
        reaches: &[
            Situation::TakenAgainBySuccessor,
            Situation::LateAcknowledgement,
            Situation::Acknowledged,
            Situation::PassedByProof,
            Situation::PassedByRelease,
            Situation::Copy,
        ],
        ..BASE
    };
    pub(crate) const HANDED_FULL: Bounds = Bounds {
        name: "queue: its lock is handed to a new life",
        asks: [[2, 0], [1, 0], [1, 0], [0, 0], [0, 0]],
        restarts: true,
        process_bound: true,
        ..HANDED
    };
}

/// Comparisons, sets and the tokens that they are made under.
pub(crate) mod compare {
    use super::*;

    pub(crate) const GUARDED: Bounds = Bounds {
        name: "record: written under tokens",
        asks: [[2, 0], [2, 0], [0, 0], [0, 0], [0, 0]],
        writes: [2, 2, 0, 0, 0],
        orders: 1,
        reaches: &[
            Situation::StaleTokenRefused,
            Situation::ComparisonRefused,
            Situation::ComparedTwice,
            Situation::PassedByProof,
            Situation::LateReleaseOfAnotherGrant,
            Situation::Copy,
        ],
        ..BASE
    };
    pub(crate) const GUARDED_FULL: Bounds = Bounds {
        name: "record: written under tokens by three lives",
        asks: [[2, 0], [2, 0], [1, 0], [0, 0], [0, 0]],
        writes: [2, 2, 1, 0, 0],
        restarts: true,
        ..GUARDED
    };
    pub(crate) const BARE: Bounds = Bounds {
        name: "record: written by comparison alone",
        writes: [2, 2, 0, 0, 0],
        guarded: false,
        bound: true,
        settles: 2,
        orders: 1,
        reaches: &[Situation::ComparisonRefused, Situation::ComparedTwice, Situation::VoidCopy, Situation::Vanished],
        ..BASE
    };
    pub(crate) const BARE_FULL: Bounds =
        Bounds { name: "record: written often, by comparison alone", writes: [3, 3, 0, 0, 0], ..BARE };
}

/// Clients that are no members.
pub(crate) mod sessions {
    use super::*;

    pub(crate) const ENDED: Bounds = Bounds {
        name: "sessions: one ends and does not know it",
        asks: [[0, 0], [1, 1], [0, 0], [1, 1], [0, 0]],
        writes: [0, 0, 0, 2, 0],
        bound: true,
        leads: 1,
        reaches: &[
            Situation::PassedByClosing,
            Situation::PassedAfterDelay,
            Situation::ClientActsOn,
            Situation::StaleTokenRefused,
            Situation::StaleActivation,
            Situation::MayNotHold,
            Situation::Vanished,
            Situation::Copy,
        ],
        ..BASE
    };
    pub(crate) const SETTLED_FULL: Bounds = Bounds {
        name: "sessions: one ends, requests are settled",
        settles: 1,
        reaches: &[Situation::VoidCopy, Situation::ClientActsOn, Situation::PassedAfterDelay, Situation::Vanished],
        ..ENDED
    };
    pub(crate) const TWO_FULL: Bounds = Bounds {
        name: "sessions: two contend with a life",
        asks: [[0, 0], [1, 1], [0, 0], [1, 1], [1, 0]],
        writes: [0, 0, 0, 1, 1],
        ..ENDED
    };
    pub(crate) const FENCED: Bounds = Bounds {
        name: "sessions: a life that is fenced hands over",
        asks: [[2, 0], [0, 0], [0, 0], [2, 0], [1, 0]],
        orders: 1,
        leads: 1,
        reaches: &[
            Situation::PassedByProof,
            Situation::PassedAfterDelay,
            Situation::ClientActsOn,
            Situation::EndedUnknown,
        ],
        ..BASE
    };
}
