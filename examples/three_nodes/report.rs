//! The reports that the director receives: the lines of the nodes, and the ends of their processes.

use std::time::Instant;

use quorate::Identity;
use serde_json::Value;

/// One line of a node, or the end of its process.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(crate) node: u64,
    pub(crate) line: Value,
}

impl Report {
    /// The text under `key`; empty if there is none.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.line[key].as_str().unwrap_or("")
    }

    pub(crate) fn is(&self, kind: &str) -> bool {
        self.text("kind") == kind
    }

    /// Whether the report is of this kind and about this life.
    pub(crate) fn tells(&self, kind: &str, who: Identity) -> bool {
        self.is(kind) && self.text("who") == who.to_string()
    }

    /// The time of the report, in nanoseconds of CLOCK_MONOTONIC; 0 if it has none.
    pub(crate) fn at(&self) -> u64 {
        self.line["at"].as_u64().unwrap_or(0)
    }
}

/// A process that ended without a known cause. The report of the cause may still be on its way.
pub(crate) struct Unexplained {
    pub(crate) node: u64,
    pub(crate) who: Option<Identity>,
    pub(crate) status: String,
    pub(crate) at: u64,
    pub(crate) heard: Instant,
}
