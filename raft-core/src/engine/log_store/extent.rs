//! What the file must hold, in five numbers: compared when it is opened again after the disk was full.
//!
//! ```text
//!   acknowledged ──group──▶ acknowledged and the group       found must be the one or the other
//! ```
//!
//! The last entry stands for all before it: the file is read through when it is opened, an entry follows on the one
//! before, and two logs that agree in the place of one entry agree up to it.

use crate::engine::log_store::memory::State;
use crate::engine::log_store::operation::LogChange;
use crate::rpc::{Ballot, Position};

/// What is durable, or would be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    vote: Option<Ballot>,
    entries: usize,
    last: Option<Position>,
    purged: Option<Position>,
    snapshot: Option<Position>,
}

impl Extent {
    pub(crate) fn of(state: &State) -> Self {
        Self {
            vote: state.vote,
            entries: state.entries.len(),
            last: state.last(),
            purged: state.purged,
            snapshot: state.snapshot.as_ref().and_then(|(about, _)| about.last),
        }
    }

    /// What there is once these are made.
    pub(crate) fn after(self, changes: &[LogChange]) -> Self {
        changes.iter().fold(self, Self::with)
    }

    fn with(self, change: &LogChange) -> Self {
        let counted = |last: Option<Position>, purged: Option<Position>| {
            let end = |place: Option<Position>| place.map_or(0, |at| at.index.saturating_add(1));
            usize::try_from(end(last).saturating_sub(end(purged))).unwrap_or(usize::MAX)
        };
        match change {
            LogChange::Append { records, last } => match records.is_empty() {
                true => self,
                false => Self { last: *last, entries: counted(*last, self.purged), ..self },
            },
            LogChange::Truncate { last, .. } => Self { last: *last, entries: counted(*last, self.purged), ..self },
            LogChange::Purge { upto, .. } => {
                let last = self.last.filter(|last| last.index > upto.index).or(Some(*upto));
                Self { last, purged: Some(*upto), entries: counted(last, Some(*upto)), ..self }
            }
            LogChange::Vote { vote, .. } => Self { vote: Some(*vote), ..self },
            LogChange::Committed { .. } => self,
            LogChange::Snapshot { meta, .. } => Self { snapshot: meta.last, ..self },
        }
    }
}
