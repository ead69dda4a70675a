//! What the director hears: the lines of the nodes, and the ends of their processes.

use std::time::Instant;

use quorate::Identity;
use serde_json::Value;

/// What a node says, or that it has ended.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(crate) node: u64,
    pub(crate) line: Value,
}

impl Report {
    /// The text under `key`, or nothing.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.line[key].as_str().unwrap_or("")
    }

    pub(crate) fn is(&self, kind: &str) -> bool {
        self.text("kind") == kind
    }

    /// Whether it is of that kind and about that life.
    pub(crate) fn tells(&self, kind: &str, who: Identity) -> bool {
        self.is(kind) && self.text("who") == who.to_string()
    }

    /// When it was said, in nanoseconds of CLOCK_MONOTONIC.
    pub(crate) fn at(&self) -> u64 {
        self.line["at"].as_u64().unwrap_or(0)
    }
}

/// A process that has ended, as far as is known by nobody's will. What is reported of it may be on its way.
pub(crate) struct Unexplained {
    pub(crate) node: u64,
    pub(crate) who: Option<Identity>,
    pub(crate) status: String,
    pub(crate) at: u64,
    pub(crate) heard: Instant,
}
