//! Creates the file, opens it, and checks its content before any promise rests on it.
//!
//! ```text
//!   log.redb.new-…   made, written, synced
//!        │ link: appears whole, and never in the place of another
//!        ▼
//!   log.redb         folder synced, then opened: every page's checksum, every record, every rule of the log
//! ```
//!
//! A crash while redb initialises a file leaves one that cannot be opened. Hence the temporary name; files found under one
//! are removed.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quorate_membership::codec::{CodecError, Enveloped, decode, inspect};
use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError};

use crate::engine::log_store::OpenError;
use crate::engine::log_store::backend::Backend;
use crate::engine::log_store::memory::{State, follows};
use crate::engine::log_store::shape::{
    COMMITTED, LOG, META, PURGED, SNAPSHOT, SNAPSHOT_DATA, StoredEntry, StoredPosition, StoredVote, VOTE,
};
use crate::engine::types::entry_to;
use crate::rpc::{LogEntry, SnapshotMeta};

/// For redb's own cache of pages. Reads come from memory, so that only the upper pages of the trees are in it.
const CACHE_BYTES: usize = 8 << 20;

/// An open file, and what is in it.
pub(crate) struct Opened {
    pub(crate) database: Database,
    pub(crate) state: State,
    pub(crate) backend: Backend,
}

pub(crate) fn open_or_create(path: &Path) -> Result<Opened, OpenError> {
    remove_leftovers(path)?;
    if !path.try_exists()? {
        create(path)?;
    }
    open_existing(path)
}

pub(crate) fn open_existing(path: &Path) -> Result<Opened, OpenError> {
    if !path.try_exists()? {
        return Err(OpenError::Damaged(format!("{} is missing", path.display())));
    }
    open_behind(Backend::open(path)?, false)
}

/// Opens what is behind the backend: for the first time, or again.
pub(crate) fn open_behind(backend: Backend, fresh: bool) -> Result<Opened, OpenError> {
    guarded(|| {
        let database = builder().create_with_backend(backend.clone())?;
        if fresh {
            make_tables(&database)?;
        }
        let state = load(&database)?;
        Ok(Opened { database, state, backend })
    })
}

/// redb verifies every page at every opening: without that it trusts them, and may panic on a damaged one.
fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

/// Damage that redb did not foresee makes it panic.
fn guarded<T>(open: impl FnOnce() -> Result<T, OpenError>) -> Result<T, OpenError> {
    catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(|_| Err(OpenError::Damaged("redb panicked over it".into())))
}

fn create(path: &Path) -> Result<(), OpenError> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let (folder, prefix) = temporary(path)?;
    let temporary = folder.join(format!("{prefix}{}-{number}", std::process::id()));
    let made = guarded(|| {
        let database = Builder::new().create(&temporary)?;
        make_tables(&database)?;
        database.close()?;
        File::open(&temporary)?.sync_all()?;
        Ok(())
    });
    // If another process was faster, its file stays. This one is empty.
    let linked = made.and_then(|()| match std::fs::hard_link(&temporary, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error.into()),
        _ => Ok(()),
    });
    let removed = std::fs::remove_file(&temporary);
    linked?;
    removed?;
    File::open(&folder)?.sync_all()?;
    Ok(())
}

fn make_tables(database: &Database) -> Result<(), OpenError> {
    let transaction = database.begin_write().map_err(storage)?;
    transaction.open_table(LOG).map_err(storage)?;
    transaction.open_table(META).map_err(storage)?;
    transaction.commit().map_err(storage)
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

/// Reads everything, and refuses content that breaks a rule of the log.
fn load(database: &Database) -> Result<State, OpenError> {
    let transaction = database.begin_read().map_err(storage)?;
    let log = transaction.open_table(LOG).map_err(storage)?;
    let meta = transaction.open_table(META).map_err(storage)?;
    let record = |key: &'static str| -> Result<Option<Vec<u8>>, OpenError> {
        Ok(meta.get(key).map_err(storage)?.map(|record| record.value().to_vec()))
    };
    let position = |key| -> Result<_, OpenError> {
        Ok(record(key)?.map(|bytes| read::<StoredPosition>(key, &bytes)).transpose()?.and_then(|stored| stored.0))
    };
    let vote = record(VOTE)?.map(|bytes| read::<StoredVote>(VOTE, &bytes)).transpose()?.map(|stored| stored.0);
    let (purged, committed) = (position(PURGED)?, position(COMMITTED)?);
    let snapshot = match (record(SNAPSHOT)?, record(SNAPSHOT_DATA)?) {
        (None, None) => None,
        (Some(about), Some(data)) => {
            inspect(&data).map_err(|e| unreadable(SNAPSHOT_DATA, &e))?;
            Some((read::<SnapshotMeta>(SNAPSHOT, &about)?, Arc::from(data)))
        }
        _ => return Err(OpenError::Damaged("half of the snapshot is missing".into())),
    };
    let covered = snapshot.as_ref().and_then(|(about, _)| about.last);
    if purged.map(|purged| purged.index) > covered.map(|covered| covered.index) {
        return Err(OpenError::Damaged(format!(
            "entries were purged up to {purged:?}, the snapshot ends at {covered:?}"
        )));
    }
    let mut state = State { vote, committed, purged, snapshot, ..State::default() };
    let mut last = purged;
    for stored in log.iter().map_err(storage)? {
        let (index, bytes) = stored.map_err(storage)?;
        let (index, name) = (index.value(), format!("entry {}", index.value()));
        let entry = LogEntry::from(read::<StoredEntry>(&name, bytes.value())?);
        if entry.at.index != index {
            return Err(OpenError::Damaged(format!("{name} calls itself {}", entry.at)));
        }
        follows(last, entry.at).map_err(OpenError::Damaged)?;
        last = Some(entry.at);
        state.entries.insert(index, entry_to(entry).map_err(|e| OpenError::Damaged(format!("{name}: {e}")))?);
    }
    Ok(state)
}

fn read<T: Enveloped>(name: &str, bytes: &[u8]) -> Result<T, OpenError> {
    decode(bytes).map_err(|error| unreadable(name, &error))
}

/// Content of a newer build is not damaged, and must not be wiped.
fn unreadable(name: &str, error: &CodecError) -> OpenError {
    let why = format!("{name}: {error}");
    match error {
        CodecError::Newer { .. } | CodecError::UnknownKind(_) => {
            OpenError::Io(io::Error::new(io::ErrorKind::Unsupported, why))
        }
        _ => OpenError::Damaged(why),
    }
}

fn storage(error: impl Into<redb::Error>) -> OpenError {
    match error.into() {
        redb::Error::Io(error) if !is_damage(&error) => OpenError::Io(error),
        error => OpenError::Damaged(error.to_string()),
    }
}

/// Whether redb means that the file is not one of its own, or too short.
fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

impl From<DatabaseError> for OpenError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => Self::InUse,
            DatabaseError::Storage(StorageError::Io(error)) if !is_damage(&error) => Self::Io(error),
            DatabaseError::UpgradeRequired(_) => {
                Self::Io(io::Error::new(io::ErrorKind::Unsupported, error.to_string()))
            }
            other => Self::Damaged(other.to_string()),
        }
    }
}
