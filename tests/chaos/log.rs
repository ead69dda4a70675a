//! What one process writes down, in a file that outlives it; and the clock that all of them read.
//!
//! ```text
//!   > id clock client call      < id clock outcome        calls, as tests/history has them
//!   ! event r40 …                                         what this replica says of the log
//!   @ clock fenced n2#1 …                                 when it heard so
//!   ! up n2#3    ! over n2#3    ! left n2#3               the standing of this life
//! ```

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use quorate::Identity;
use rustix::time::{ClockId, clock_gettime};

use crate::op::{Call, CallResult};

/// What CLOCK_BOOTTIME shows, in nanoseconds: the same in all namespaces of a machine.
pub(crate) fn now() -> u64 {
    let shown = clock_gettime(ClockId::Boottime);
    shown.tv_sec.unsigned_abs() * 1_000_000_000 + shown.tv_nsec.unsigned_abs()
}

/// Where a node's log is kept.
pub(crate) fn of(run: &Path, node: u64) -> PathBuf {
    run.join(format!("n{node}.log"))
}

/// One write(2) a line, so that a kill cuts none in two.
#[derive(Debug)]
pub(crate) struct Log {
    file: File,
    next: AtomicU64,
}

impl Log {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Ok(Self { file: OpenOptions::new().append(true).create(true).open(path)?, next: AtomicU64::new(0) })
    }

    /// From here on numbers are those of this life.
    pub(crate) fn belongs_to(&self, who: Identity) {
        self.next.store(who.node.get() * 10_000_000_000 + who.incarnation.get() * 1_000_000, Ordering::SeqCst);
    }

    pub(crate) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::SeqCst)
    }

    pub(crate) fn say(&self, line: &str) -> Result<()> {
        (&self.file).write_all(format!("{}\n", line.replace('\n', " ")).as_bytes()).context("the log of a process")
    }

    /// Before a call. Its number.
    pub(crate) fn begin(&self, client: &str, call: &Call) -> Result<u64> {
        let id = self.number();
        self.begin_as(id, client, call).map(|()| id)
    }

    /// Before a call that carries its own number.
    pub(crate) fn begin_as(&self, id: u64, client: &str, call: &Call) -> Result<()> {
        self.say(&format!("> {id} {} {client} {call}", now()))
    }

    /// After it.
    pub(crate) fn end(&self, id: u64, outcome: &CallResult) -> Result<()> {
        self.say(&format!("< {id} {} {outcome}", now()))
    }
}
