//! The work that runs under the lease, and the mechanism that ends it.
//!
//! ```text
//!   protect: arm, check the lease again ─▶ sustain … ─▶ the last work has stopped ─▶ disarm
//!                                             │ the lease has ended
//!                                             └──▶ `at_end` of each work, then the mechanism fires
//! ```

use std::time::Duration;

use quorate_membership::lease::{MemberLease, Reading, Stage};
use quorate_membership::{Identity, Revision, Stop};

use crate::host::clock;
use crate::lease::error::{NotHeld, ProtectError};
use crate::lease::ledger::{Ledger, Note};
use crate::lease::message::AtEnd;
use crate::lease::stop::StopMechanism;

struct Protected {
    id: u64,
    who: Identity,
    what: String,
    token: Revision,
    at_end: Option<AtEnd>,
}

pub(crate) struct ProtectedWork {
    mechanism: Box<dyn StopMechanism>,
    ledger: Ledger,
    works: Vec<Protected>,
    next_id: u64,
    sustained: Option<Reading>,
    fired: bool,
    trouble: Option<String>,
    /// Why nothing may be protected on this machine yet.
    unfit: Option<String>,
}

impl ProtectedWork {
    pub(crate) fn new(mechanism: Box<dyn StopMechanism>, ledger: Ledger) -> Self {
        let (works, sustained, trouble, unfit) = Default::default();
        Self { mechanism, ledger, works, next_id: 1, sustained, fired: false, trouble, unfit }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.works.is_empty()
    }

    pub(crate) fn stop(&self) -> Stop {
        self.mechanism.stop()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.works.iter().map(|work| work.what.clone()).collect()
    }

    /// Why no work may begin, if none may: the mechanism does not work, or this machine is not fit yet.
    pub(crate) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref().or(self.unfit.as_deref())
    }

    pub(crate) fn set_unfit(&mut self, why: Option<String>) {
        self.unfit = why;
    }

    /// How long until the mechanism has to be sustained again; `None` when nothing is protected.
    pub(crate) fn until_due(&self, now: Reading) -> Option<Duration> {
        let since = self.sustained.map_or(Duration::MAX, |at| now.longest_since(at));
        (!self.works.is_empty()).then(|| self.mechanism.pace().saturating_sub(since))
    }

    /// P14: the mechanism is armed before the work may begin, and the lease is checked again after that, because the
    /// process may have been paused in between.
    pub(crate) fn protect(
        &mut self,
        holder: &MemberLease,
        what: String,
        token: Revision,
        at_end: Option<AtEnd>,
    ) -> Result<u64, ProtectError> {
        let looked = clock::reading();
        let Stage::Held { left } = holder.stage(looked) else { return Err(NotHeld.into()) };
        if let Some(trouble) = self.trouble() {
            return Err(ProtectError::Mechanism(trouble.into()));
        }
        if !quorate_membership::mutant!("never_armed") {
            self.mechanism.sustain(looked, left).map_err(|e| ProtectError::Mechanism(e.to_string()))?;
        }
        if !matches!(holder.stage(clock::reading()), Stage::Held { .. }) {
            if self.works.is_empty() {
                self.disarm();
            }
            return Err(NotHeld.into());
        }
        self.sustained = Some(looked);
        let (id, who) = (self.next_id, holder.who());
        self.next_id += 1;
        self.works.push(Protected { id, who, what: what.clone(), token, at_end });
        self.ledger.note(Note::Protects { who, what, token });
        Ok(id)
    }

    /// Whether the mechanism is armed. Never without work.
    pub(crate) fn are_armed(&self) -> bool {
        !self.is_empty() && self.stop() != Stop::Unbounded
    }

    pub(crate) fn stopped(&mut self, id: u64) {
        let Some(at) = self.works.iter().position(|work| work.id == id) else { return };
        let Protected { who, what, token, .. } = self.works.remove(at);
        self.ledger.note(Note::Stopped { who, what, token });
        if self.works.is_empty() {
            self.disarm();
        }
    }

    fn disarm(&mut self) {
        self.sustained = None;
        self.fired = false;
        match self.mechanism.disarm() {
            Ok(()) => self.trouble = None,
            Err(error) => {
                tracing::error!(%error, "the stop mechanism could not be disarmed, and may act although nothing is protected");
                self.trouble = Some(format!("disarming it failed: {error}"));
            }
        }
    }

    /// The end of the lease has moved. The next turn sustains the mechanism with the new one.
    pub(crate) fn extended(&mut self) {
        self.sustained = None;
    }

    /// Sustains the mechanism, if that is due, with what was left of the lease at `looked`.
    pub(crate) fn sustain(&mut self, looked: Reading, left: Duration) {
        let due = self.sustained.is_none_or(|at| looked.longest_since(at) >= self.mechanism.pace());
        if self.works.is_empty() || left.is_zero() || !due || quorate_membership::mutant!("never_armed") {
            return;
        }
        self.sustained = Some(looked);
        if let Err(error) = self.mechanism.sustain(looked, left) {
            tracing::error!(%error, "the stop mechanism does not work; no further work may begin");
            self.trouble.get_or_insert(error.to_string());
        }
    }

    /// The lease is held, perhaps again. Its next end fires the mechanism again.
    pub(crate) fn held(&mut self) {
        self.fired = false;
    }

    /// The lease has ended. Ends what is still protected, once.
    pub(crate) fn end(&mut self) {
        if self.works.is_empty() || self.fired {
            return;
        }
        self.fired = true;
        self.works.iter_mut().filter_map(|work| work.at_end.as_mut()).for_each(|end| end());
        self.mechanism.fire();
    }
}
