//! A full disk: wait until there is room, check that the file is what it must be, and write the same group again.
//!
//! ```text
//!   write ─▶ no room ─▶ sync what is there ─▶ close ─▶ wait ─▶ open, read it all ─▶ as acknowledged? ─▶ write again
//!                            │ fails: final                      │ no room: wait       │ no: final
//! ```
//!
//! A full disk is noticed here by the *write* that fails with `ENOSPC` or `EDQUOT` (`backend.rs`). Such a write changed
//! nothing and its group was not acknowledged, so nothing is lost by waiting. redb refuses every call after an error until
//! it is opened again, and then rolls back to its last whole commit. What was half written is synced before that, on the
//! file that it was written to; if that fails, the rule for failed syncs holds. The callers of this group and of those
//! behind it go on waiting, because the order must stay.

use std::io;
use std::time::Duration;

use redb::StorageBackend;

use crate::engine::log_store::extent::Extent;
use crate::engine::log_store::file::open_behind;
use crate::engine::log_store::memory::Failure;
use crate::engine::log_store::operation::LogChange;
use crate::engine::log_store::writer::{WriteFailure, Writer};

/// The first wait. Each is twice the one before.
const FIRST: Duration = Duration::from_millis(125);

/// The longest wait. Shorter ones would read the whole log too often, only to find that there is no room yet.
const LONGEST: Duration = Duration::from_secs(2);

impl Writer {
    /// One transaction with one sync, after as long a wait as it takes. When the store must wait no more, it tries once
    /// again and then gives up: the group was not written, and nothing after it will be.
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
            self.set_aside()?;
            let go_on = self.shared.wait_for_room(wait);
            match self.open_again(changes).and_then(|()| self.commit(changes)) {
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

    /// Syncs and closes the file, so that nothing in it is not on the disk.
    fn set_aside(&mut self) -> Result<(), Failure> {
        if self.database.is_none() {
            return Ok(());
        }
        let synced = self.backend.sync_data();
        let _rolled_back_when_opened = self.close_database();
        let failed =
            |error: io::Error| Failure { kind: error.kind(), reason: format!("a sync of the log failed: {error}") };
        synced.map_err(failed)
    }

    fn open_again(&mut self, changes: &[LogChange]) -> Result<(), WriteFailure> {
        self.backend.begin();
        let opened = open_behind(self.backend.clone(), false).map_err(|error| {
            let kind = if self.backend.only_full() { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
            let failure = Failure { kind, reason: format!("the log could not be opened again: {error}") };
            if self.backend.only_full() { WriteFailure::Full(failure) } else { WriteFailure::Final(failure) }
        })?;
        let found = Extent::of(&opened.state);
        self.database = Some(opened.database);
        if found != self.extent && found != self.extent.after(changes) {
            let known = self.extent;
            let reason = format!("after the disk was full the log holds {found:?} where {known:?} was acknowledged");
            return Err(WriteFailure::Final(Failure { kind: io::ErrorKind::InvalidData, reason }));
        }
        Ok(())
    }
}
