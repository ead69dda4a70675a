//! A member of the lease model: its process with the production `MemberLease`, its work, and what stops it.
//!
//! ```text
//!   class K   the kernel kills the process at E, on the member's clock
//!   class H   a watchdog with a clock of its own; looking at the lease and feeding are two steps
//!   class T   nothing stops it; an effect starts while the lease lasts, lands whenever it likes, and the resource
//!             refuses it once a greater token is its floor
//! ```
//!
//! In the classes K and H a process that works and lives can act at any moment: between its look at the lease and the
//! act may lie any pause, so nothing is granted to the look.

use std::time::Duration;

use quorate_membership::lease::{MemberLease, Reading, Stage};
use quorate_membership::*;

use crate::log::MEMBERS;
use crate::world::{Bounds, Mistake};

/// One unit of every clock.
pub(crate) fn ms(units: u64) -> Duration {
    Duration::from_millis(units)
}

/// Whole units, for fingerprints.
pub(crate) fn units(time: Duration) -> u64 {
    time.as_millis() as u64
}

pub(crate) fn at(shown: u64) -> Reading {
    Reading::steady(ms(shown))
}

/// A process of a member that runs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Member {
    pub(crate) holder: MemberLease,
    /// The jobs that it works on, a bit each. While there is one, the stop mechanism is armed.
    pub(crate) works: u8,
    /// Under which token each.
    pub(crate) tokens: [Revision; MEMBERS],
    /// It has seen that the lease lasts, and is about to feed the watchdog.
    pub(crate) feeding: bool,
    /// What is left until the watchdog bites, on its own clock.
    pub(crate) dog: u64,
}

impl Member {
    pub(crate) fn new(who: Identity, bounds: &Bounds) -> Self {
        let holder = MemberLease::new(who, ms(bounds.lease), ms(1), Duration::ZERO);
        Self { holder, works: 0, tokens: [Revision::new(0); MEMBERS], feeding: false, dog: 0 }
    }

    pub(crate) fn who(&self) -> Identity {
        self.holder.who()
    }

    pub(crate) fn left(&self, now: u64) -> u64 {
        units(self.holder.left(at(now)))
    }

    pub(crate) fn is_held(&self, now: u64) -> bool {
        matches!(self.holder.stage(at(now)), Stage::Held { .. })
    }

    /// Whether something that this process does could have an effect, now or later.
    pub(crate) fn can_act(&self, now: u64, bounds: &Bounds) -> bool {
        self.left(now) > 0 || (self.works != 0 && bounds.stop != Stop::Tokens)
    }

    /// Begins a job; with the first the mechanism is armed.
    pub(crate) fn begin(&mut self, job: usize, token: Revision, bounds: &Bounds) {
        if let (Stop::Watchdog { timeout, .. }, 0) = (bounds.stop, self.works) {
            self.dog = units(timeout);
        }
        self.works |= 1 << job;
        self.tokens[job] = token;
    }

    /// All work is laid down in time, and the mechanism is disarmed.
    pub(crate) fn lay_down(&mut self) {
        (self.works, self.feeding, self.dog) = (0, false, 0);
    }

    pub(crate) fn feed(&mut self, bounds: &Bounds) {
        if let Stop::Watchdog { timeout, .. } = bounds.stop {
            (self.feeding, self.dog) = (false, units(timeout));
        }
    }

    /// Time has passed, on the member's clock and on the watchdog's. Whether the mechanism ends the process.
    pub(crate) fn is_stopped(&mut self, now: u64, dog: u8, bounds: &Bounds) -> bool {
        if self.works == 0 || bounds.mistake == Some(Mistake::NothingStops) {
            return false;
        }
        match bounds.stop {
            Stop::Deadman { .. } | Stop::Own { .. } => self.left(now) == 0,
            Stop::Watchdog { .. } => {
                self.dog = self.dog.saturating_sub(dog.into());
                self.dog == 0
            }
            Stop::Tokens | Stop::Unbounded => false,
        }
    }
}

/// A renewal on its way, and its grant. Neither is ever taken from the network by being delivered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Renewal {
    pub(crate) who: Identity,
    pub(crate) seq: u64,
    /// What the member's clock showed.
    pub(crate) sent: u64,
    pub(crate) granted: bool,
    /// Its grant has reached the member.
    pub(crate) delivered: bool,
    /// By node: it was sent after that leader last noted its life.
    pub(crate) after_last: u8,
    /// By node: it was sent after the read that this leader has under way was begun.
    pub(crate) after_read: u8,
}

/// A job, the life that it belongs to, and the resource that it works on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Job {
    pub(crate) owner: Identity,
    pub(crate) token: Revision,
    /// The smallest token that the resource takes.
    pub(crate) floor: Revision,
    /// By member: the token of an effect of its that is under way to the resource.
    pub(crate) under_way: [Option<Revision>; MEMBERS],
    /// The greatest token under which an effect has landed.
    pub(crate) landed: Revision,
}
