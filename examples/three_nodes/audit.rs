//! The audit: reads the ledger as a stranger would, and counts what must not be there.

use crate::ledger::Line;

/// What the ledger shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Audit {
    pub(crate) lines: usize,
    pub(crate) owners: usize,
    /// Lines of one owner at or after the first of a later one, and attempts that the ledger refused.
    pub(crate) overlaps: usize,
    /// Lines with a smaller token than one before them.
    pub(crate) backwards: usize,
}

impl Audit {
    pub(crate) fn of(lines: &[Line], refused: usize) -> Self {
        let mut audit = Self { lines: lines.len(), overlaps: refused, ..Self::default() };
        for (before, line) in lines.iter().zip(lines.iter().skip(1)) {
            let changed = before.token != line.token;
            // One token belongs to one owner for good, and the lines of two never interleave in time.
            let two_owners = !changed && before.owner != line.owner;
            if two_owners || changed && line.at <= before.at {
                audit.overlaps += 1;
            }
            audit.owners += usize::from(changed);
        }
        audit.owners += usize::from(!lines.is_empty());
        let mut largest = None;
        for line in lines {
            if largest > Some(line.token) {
                audit.backwards += 1;
            }
            largest = largest.max(Some(line.token));
        }
        audit
    }

    pub(crate) fn clean(&self) -> bool {
        self.overlaps == 0 && self.backwards == 0
    }
}
