//! A full disk: wait until there is room, and write the same group again.
//!
//! ```text
//!   write ─▶ no room ─▶ wait ─▶ write again, to the same place ─▶ durable
//!                         ▲           │ no room                 └─▶ sync fails: final
//!                         └───────────┘
//! ```
//!
//! A full disk is noticed by the *write*, or the growth of the file, that fails with `ENOSPC` or `EDQUOT` (`disk.rs`). Such
//! a write changed nothing that is needed, and its group was not acknowledged, so nothing is lost by waiting. The callers of
//! this group and of those behind it go on waiting, because the order must stay.

use std::io;
use std::time::Duration;

use crate::engine::log_store::memory::Failure;
use crate::engine::log_store::operation::LogChange;
use crate::engine::log_store::writer::{WriteFailure, Writer};

/// The first wait. Each is twice the one before.
const FIRST: Duration = Duration::from_millis(125);

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(2);

impl Writer {
    /// One write with one sync, after as long a wait as it takes. When the store must wait no more, it tries once again and
    /// then gives up: the group was not written, and nothing after it will be.
    pub(super) fn commit_when_there_is_room(&mut self, changes: &[LogChange]) -> Result<(), Failure> {
        let result = match self.commit(changes) {
            Ok(()) => return Ok(()),
            Err(WriteFailure::Final(failure)) => return Err(failure),
            Err(WriteFailure::Full(_)) => {
                self.shared.set_full(true);
                self.commit_later(changes)
            }
        };
        // In this order: a write that waited for room does not count as slow.
        self.shared.end();
        self.shared.set_full(false);
        result
    }

    fn commit_later(&mut self, changes: &[LogChange]) -> Result<(), Failure> {
        let mut wait = FIRST;
        loop {
            let go_on = self.shared.wait_for_room(wait);
            match self.commit(changes) {
                Ok(()) => return Ok(()),
                Err(WriteFailure::Final(failure)) => return Err(failure),
                Err(WriteFailure::Full(failure)) if !go_on => {
                    let reason = format!("the log was closed while the disk was full: {}", failure.reason);
                    return Err(Failure { kind: io::ErrorKind::StorageFull, reason });
                }
                Err(WriteFailure::Full(_)) => wait = LONGEST.min(wait * 2),
            }
        }
    }
}
