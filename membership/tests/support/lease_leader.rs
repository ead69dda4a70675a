//! A leader of the lease model: the production `Grantor`, and what its process has in hand.
//!
//! ```text
//!   applied ─▶ handle_applied      lags behind what is committed
//!   read    ─▶ handle_read         begun, confirmed by a majority, ended: three moments
//!   pending ─▶ append              concluded in one moment, proposed in any later one
//! ```

use std::sync::Arc;

use quorate_membership::lease::{Grantor, Round};
use quorate_membership::*;

use crate::log::{State, id};
use crate::member::at;
use crate::world::Bounds;

/// A linearizable read that is under way.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Read {
    pub(crate) round: Round,
    /// What was committed when it was begun. It may show nothing older.
    pub(crate) begun: Arc<State>,
    /// A majority has said since that it still follows.
    pub(crate) confirmed: bool,
}

/// The leader's side of leases in one process.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LeaderSide {
    pub(crate) grantor: Grantor,
    /// What the grantor was told of last.
    pub(crate) applied: Arc<State>,
    /// Whether it was told of anything yet.
    pub(crate) told: bool,
    pub(crate) read: Option<Read>,
    /// A read that was under way when the grantor heard of another gain. It may still end.
    pub(crate) former: Option<Read>,
    /// What a voter has said of receipts, not heard yet, and whether it was told of no life.
    pub(crate) asked: Option<(usize, lease::Receipts, bool)>,
    /// Concluded, not yet in any log.
    pub(crate) pending: Vec<Command>,
    /// The term of the gain that the grantor was told of last.
    pub(crate) gained: u8,
    /// Lives that it watches, of which a grant was made that was sent after it noted them last.
    pub(crate) overtaken: Vec<Identity>,
}

impl LeaderSide {
    /// Of a process that has just started.
    pub(crate) fn new(node: usize, applied: Arc<State>, bounds: &Bounds) -> Self {
        let grantor = Grantor::new(id(node), bounds.drift);
        Self {
            grantor,
            applied,
            told: false,
            read: None,
            former: None,
            asked: None,
            pending: vec![],
            gained: 0,
            overtaken: vec![],
        }
    }

    /// Whether what it concludes counts.
    pub(crate) fn is_current(&self, committed: &State) -> bool {
        self.grantor.activation().is_some() && self.grantor.activation() == committed.activation()
    }

    /// Tells the grantor of a newer state. The lives that were noted by that.
    pub(crate) fn apply(&mut self, state: Arc<State>, now: u64) -> Vec<Identity> {
        let (before, watched): (_, Vec<_>) = (self.grantor.activation(), self.grantor.watched().collect());
        self.grantor.handle_applied(&state.cluster, at(now));
        (self.applied, self.told) = (state, true);
        let anew = self.grantor.activation() != before;
        let noted: Vec<_> = self.grantor.watched().filter(|who| anew || !watched.contains(who)).collect();
        // Of a life that is not watched it concludes nothing, and notes it anew before it ever does.
        self.overtaken.retain(|who| self.grantor.watched().any(|watched| watched == *who) && !noted.contains(who));
        noted
    }

    /// Whether the read under way has come far enough to be ended with that state.
    pub(crate) fn may_end(&self, state: &State) -> bool {
        self.read.as_ref().is_some_and(|read| read.confirmed && state.version >= read.begun.version)
    }

    /// Concludes whose time is up. Whether there was anything new.
    pub(crate) fn conclude(&mut self, now: u64) -> bool {
        let due = self.grantor.poll_expiries(at(now));
        let before = self.pending.len();
        for expiry in due {
            let (target, under, waited) = (expiry.target, expiry.under, expiry.waited);
            let same =
                |c: &Command| matches!(c, Command::Expire { target: t, under: u, .. } if *t == target && *u == under);
            if !self.pending.iter().any(same) {
                self.pending.push(Command::Expire { target, under, waited });
            }
        }
        // In whatever order they were concluded, they are proposed in any.
        self.pending.sort();
        self.pending.len() > before
    }
}
