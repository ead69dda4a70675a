//! What a checker found wrong, in lines that a person can read.

use std::fmt;

use crate::op::Op;

/// The most calls that are shown of one finding.
const SHOWN: usize = 16;

/// One thing that cannot have been, and the calls that say that it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) title: String,
    lines: Vec<String>,
}

impl Violation {
    pub(crate) fn new<'a>(title: impl Into<String>, ops: impl IntoIterator<Item = &'a Op>) -> Self {
        Self { title: title.into(), lines: ops.into_iter().map(|op| format!("    {op}")).collect() }
    }

    /// Where a search for an order came to its end.
    pub(crate) fn stuck<'a>(
        title: String,
        placed: impl IntoIterator<Item = &'a Op>,
        next: impl IntoIterator<Item = &'a Op>,
    ) -> Self {
        let placed = placed.into_iter().map(|op| format!("    {op}"));
        Self { title, lines: placed.chain(next.into_iter().map(|op| format!("  ? {op}"))).collect() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        self.lines.iter().take(SHOWN).try_for_each(|line| writeln!(f, "{line}"))?;
        match self.lines.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => writeln!(f, "    and {more} more"),
        }
    }
}

/// All of them, as one text; empty if there are none.
pub(crate) fn told(found: &[Violation]) -> String {
    found.iter().map(ToString::to_string).collect()
}
