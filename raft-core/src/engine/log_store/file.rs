//! Makes the file of the log, and opens it.
//!
//! ```text
//!   raft.log.new-…   made, written, synced
//!        │ link: appears whole, and never in the place of another
//!        ▼
//!   raft.log         folder synced, then opened: every sector, every record, every rule of the log (`replay.rs`)
//! ```
//!
//! A crash while a file is made leaves one that is no log. Hence the temporary name; files found under one are removed.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::engine::log_store::OpenError;
use crate::engine::log_store::disk::open_file;
use crate::engine::log_store::replay::{self, Opened};

/// Opens the log at `path`, or makes an empty one there.
pub(crate) fn open_or_create(path: &Path) -> Result<Opened, OpenError> {
    remove_leftovers(path)?;
    if !path.try_exists()? {
        create(path)?;
    }
    open_existing(path)
}

/// Opens the log at `path`.
pub(crate) fn open_existing(path: &Path) -> Result<Opened, OpenError> {
    if !path.try_exists()? {
        return Err(OpenError::Damaged(format!("{} is missing", path.display())));
    }
    replay::open(Box::new(open_file(path)?))
}

fn create(path: &Path) -> Result<(), OpenError> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let (folder, prefix) = temporary(path)?;
    let temporary = folder.join(format!("{prefix}{}-{number}", std::process::id()));
    // If another process was faster, its file stays. This one is empty.
    let linked = make(&temporary).and_then(|()| match std::fs::hard_link(&temporary, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error.into()),
        _ => Ok(()),
    });
    let removed = std::fs::remove_file(&temporary);
    linked?;
    removed?;
    File::open(&folder)?.sync_all()?;
    Ok(())
}

fn make(path: &Path) -> Result<(), OpenError> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
    replay::format(&file)?;
    file.sync_all()?;
    Ok(())
}

/// The folder of the file, and how the names of its temporary forerunners begin.
fn temporary(path: &Path) -> io::Result<(PathBuf, String)> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the log needs a file name in UTF-8"))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((folder.into(), format!("{name}.new-")))
}

fn remove_leftovers(path: &Path) -> io::Result<()> {
    let (folder, prefix) = temporary(path)?;
    for file in std::fs::read_dir(folder)? {
        let file = file?;
        if file.file_name().to_string_lossy().starts_with(&prefix) {
            std::fs::remove_file(file.path())?;
        }
    }
    Ok(())
}
