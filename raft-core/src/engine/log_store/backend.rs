//! The backend between redb and the file. It passes every call on, and remembers which kind of call failed.
//!
//! ```text
//!   redb ──▶ backend ──▶ file, or a disk of a test
//!              │  write, set_len: no room  ─▶ nothing is lost by it: may be tried again when there is some
//!              └  sync, and anything else  ─▶ never again, whatever the error calls itself
//! ```
//!
//! redb reports an error, but not which call it came from, and the meaning depends on that. A write that found no room
//! changed nothing. After a failed sync it is unknown what is durable: the kernel may have dropped the pages, and report
//! success next time. Even `ENOSPC` from a sync is therefore final.
//!
//! The file stays open from the first opening of the log to its close, however often redb opens and closes it: Linux reports
//! a failed write-back once to each open file, and to a file opened later perhaps never.

use std::fs::OpenOptions;
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

use crate::engine::log_store::OpenError;

/// The way to the disk. Clones are the same open file.
#[derive(Debug, Clone)]
pub(crate) struct Backend {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    backend: Box<dyn StorageBackend>,
    /// A write found no room since [`Backend::begin`].
    full: AtomicBool,
    /// Something else has failed since the opening.
    broken: AtomicBool,
}

impl Backend {
    pub(crate) fn new(backend: impl StorageBackend) -> Self {
        let (full, broken) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { inner: Arc::new(Inner { backend: Box::new(backend), full, broken }) }
    }

    /// The file at `path`, which must be there and not be empty: redb would make an empty one its own.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        if file.metadata()?.len() == 0 {
            return Err(OpenError::Damaged(format!("{} is empty", path.display())));
        }
        Ok(Self::new(FileBackend::new(file)?))
    }

    /// Forgets earlier writes that found no room.
    pub(crate) fn begin(&self) {
        self.inner.full.store(false, Ordering::Release);
    }

    /// Whether a write found no room since [`Self::begin`], and nothing else ever failed.
    pub(crate) fn only_full(&self) -> bool {
        self.inner.full.load(Ordering::Acquire) && !self.inner.broken.load(Ordering::Acquire)
    }

    fn noted<T>(&self, result: io::Result<T>, writing: bool) -> io::Result<T> {
        if let Err(error) = &result {
            let kind = error.kind();
            let no_room = matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            let noted = if writing && no_room { &self.inner.full } else { &self.inner.broken };
            noted.store(true, Ordering::Release);
        }
        result
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.noted(self.inner.backend.len(), false)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.noted(self.inner.backend.read(offset, out), false)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.noted(self.inner.backend.set_len(length), true)
    }

    fn sync_data(&self) -> io::Result<()> {
        if cfg!(quorate_mutant = "fsync_skipped") {
            return Ok(());
        }
        if cfg!(quorate_mutant = "sync_error_retried") {
            let full = |_| io::Error::from(io::ErrorKind::StorageFull);
            return self.noted(self.inner.backend.sync_data().map_err(full), true);
        }
        self.noted(self.inner.backend.sync_data(), false)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.noted(self.inner.backend.write(offset, data), true)
    }

    /// Gives up redb's lock. The file stays open as long as a clone of this is there.
    fn close(&self) -> io::Result<()> {
        self.inner.backend.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.backend.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.backend.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.backend.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.backend.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.backend.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.backend.query_lock_range(start, end)
    }
}
