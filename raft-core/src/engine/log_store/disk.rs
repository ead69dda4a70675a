//! The disk under the log: a file, or a disk of a test. What a failed call means is decided here.
//!
//! ```text
//!   write, set_len: no room   ─▶ Full:  nothing is lost by it; may be tried again when there is some
//!   anything else, any sync   ─▶ Final: never again, whatever the error calls itself
//! ```
//!
//! After a failed sync it is unknown what is durable: the kernel may have dropped the pages, and report success next time.
//! Even `ENOSPC` from a sync is therefore final.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::engine::log_store::OpenError;

/// Sectors of a region of a file: 1 MiB.
const REGION_SECTORS: u64 = 2048;

/// A range of bytes that can be read, written in place, grown, and made durable.
pub(crate) trait Disk: fmt::Debug + Send {
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Reads exactly as many bytes.
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Writes all of it. What is there after a power cut is each sector as before or as written.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Changes the length. New bytes are zero.
    fn set_len(&self, length: u64) -> io::Result<()>;

    /// Makes everything durable that was written before, and the length.
    fn sync(&self) -> io::Result<()>;

    /// How many sectors a region has. The same for the life of the content.
    fn region_sectors(&self) -> u64 {
        REGION_SECTORS
    }
}

impl Disk for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(out, offset)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_all_at(data, offset)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        Self::set_len(self, length)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Opens the file at `path`, which must be there, and locks it against every other store for as long as it is open.
///
/// # Errors
/// [`OpenError::InUse`] when another has the lock, [`OpenError::Damaged`] for an empty file, or what the system says.
pub(super) fn open_file(path: &Path) -> Result<File, OpenError> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(OpenError::InUse),
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    match file.metadata()?.len() {
        0 => Err(OpenError::Damaged(format!("{} is empty", path.display()))),
        _ => Ok(file),
    }
}

/// Why something was not written.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// There was no room. It may be written again when there is some.
    Full(io::Error),
    /// The disk failed. Nothing may be written any more.
    Final(io::Error),
}

impl WriteError {
    /// What the failure of a write, or of a change of length, means.
    pub(super) fn of_write(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full(error),
            _ => Self::Final(error),
        }
    }
}
