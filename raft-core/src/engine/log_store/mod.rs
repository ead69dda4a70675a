//! The durable log: entries, the vote, and the snapshot that replaces old entries, in one file.
//!
//! ```text
//!   openraft, machine ──▶ memory (rules, cache) ──▶ queue ──▶ thread quorate-log ──▶ one write, one fdatasync a group
//!         ▲                    │                                    │
//!         └── reads ───────────┘            callback, after it ◀────┘
//! ```
//!
//! Reads never touch the disk and writes never wait for it, except where the caller must wait (a vote, a snapshot). All
//! writes pass through one queue to one thread, which puts everything that has gathered into one group: a group is on the
//! disk whole or not at all, and groups are there in the order of the calls. Nothing is acknowledged before its group is
//! durable. The file is a stream of groups (`stream.rs`) of sectors that prove themselves (`sector.rs`).
//!
//! The first failure of the disk stops the store for good. Nothing is tried again, because after a failed fsync the kernel
//! may have dropped the pages and report success. What was acknowledged before is durable; what was under way may be or
//! not, and the next start finds out. The one exception is a *write* that found no room: the store waits until there is
//! some (`writer.rs`), and reports that it does ([`LogStore::trouble`]).

pub(crate) mod disk;
pub(crate) mod file;
mod group;
pub(crate) mod memory;
pub(crate) mod operation;
pub(crate) mod queue;
mod raft;
pub(crate) mod replay;
mod sector;
pub(crate) mod shape;
pub(crate) mod stream;
#[cfg(test)]
mod tests;
mod weights;
pub(crate) mod writer;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_membership::codec;
use tokio::sync::{oneshot, watch};

use crate::engine::log_store::memory::{Memory, Shared};
use crate::engine::log_store::operation::{Done, LogChange, Op};
use crate::engine::log_store::replay::Opened;
use crate::rpc::{Ballot, Position, SnapshotMeta};

/// Why the log could not be opened. The file is as it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// Another process, or another store of this one, has it open.
    #[error("the log is in use; stop the process that has it open first")]
    InUse,
    /// The content cannot be trusted. Nothing was overwritten.
    #[error("the log is damaged: {0}")]
    Damaged(String),
    /// The system refused an operation.
    #[error("the log cannot be opened: {0}")]
    Io(#[from] io::Error),
}

/// The log was written by a newer build, with something that this one cannot read. It is not damaged.
fn newer(what: String) -> OpenError {
    let why = format!("{what} is of a newer version of quorate; start that version here");
    OpenError::Io(io::Error::new(io::ErrorKind::Unsupported, why))
}

/// What the store has done since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stats {
    /// Groups made durable, each by one write and one sync.
    pub(crate) groups: u64,
    /// Operations that were in them.
    pub(crate) operations: u64,
}

/// What the log takes in memory, in bytes, and how far it may be purged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LogWeight {
    /// All entries.
    pub(crate) total: u64,
    /// The entries that the snapshot does not cover.
    pub(crate) since_snapshot: u64,
    /// The snapshot.
    pub(crate) snapshot: u64,
    /// The last entry that the durable snapshot covers.
    pub(crate) covered: Option<u64>,
    /// The last entry that was purged.
    pub(crate) purged: Option<u64>,
}

/// Why nothing becomes durable at the moment, although nothing has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The disk is full. Operations wait.
    Full,
    /// A write or a sync has been under way for longer than this.
    Slow(Duration),
}

/// The durable log. Cheap to clone; clones share it. When the last clone is dropped, what is queued is written, the file
/// is closed, and only then the drop returns.
#[derive(Debug, Clone)]
pub(crate) struct LogStore {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    writer: Mutex<Option<Box<dyn LogWriter>>>,
}

/// What takes operations out of the queue and writes them.
pub(crate) trait LogWriter: fmt::Debug + Send {
    /// Writes what is queued, if there is room for it, and closes the file. The queue has no sender any more.
    fn close(self: Box<Self>);
}

impl LogWriter for JoinHandle<()> {
    fn close(self: Box<Self>) {
        if self.thread().id() != std::thread::current().id() {
            // The thread reports its own failures, panics included.
            let _ended = self.join();
        }
    }
}

impl LogStore {
    /// Opens the log at `path`, or makes an empty one there. A crash at any moment of the making leaves either nothing
    /// at `path` or a whole log. Blocks on the disk.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        Self::start(file::open_or_create(path)?)
    }

    /// Opens the log at `path`, which must exist: for a node that was a member before. A node whose log is gone has lost its
    /// vote with it, and must not go on under its number.
    ///
    /// # Errors
    /// See [`OpenError`]; a missing file is [`OpenError::Damaged`].
    pub(crate) fn open_existing(path: &Path) -> Result<Self, OpenError> {
        Self::start(file::open_existing(path)?)
    }

    /// A store of what was opened, with a thread that writes.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(crate) fn start(opened: Opened) -> Result<Self, OpenError> {
        let Opened { stream, state } = opened;
        let (queue, ops) = queue::queue();
        let shared = Arc::new(Shared::new(Memory::new(state, queue)));
        let writer = writer::spawn(stream, shared.clone(), ops)?;
        Ok(Self::written_by(Box::new(writer), shared))
    }

    /// A store whose queue `writer` empties.
    pub(crate) fn written_by(writer: Box<dyn LogWriter>, shared: Arc<Shared>) -> Self {
        Self { handle: Arc::new(Handle { shared, writer: Mutex::new(Some(writer)) }) }
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    /// The vote that is durable here. On a fresh start: the vote given before it, if any.
    pub(crate) fn vote(&self) -> Option<Ballot> {
        self.shared().lock().state.vote
    }

    /// The vote that is not durable yet, if there is one. The engine does nothing else until it is.
    pub(crate) fn vote_under_way(&self) -> Option<Ballot> {
        let memory = self.shared().lock();
        memory.asked.filter(|asked| memory.state.vote != Some(*asked))
    }

    /// Saves a snapshot: durable once the returned future answers `Ok`. The order of calls is the order on the disk,
    /// whether or not the future is polled. A snapshot that ends before the one already saved is not written, because
    /// the log may have been purged up to the later one, which covers everything in the earlier: that is `Ok` as well.
    ///
    /// # Errors
    /// `InvalidInput` if `data` is not an envelope of [`quorate_membership::codec`]: nothing changed. Otherwise the
    /// store has stopped, see [`LogStore::poisoned`].
    pub(crate) fn save_snapshot(
        &self,
        meta: SnapshotMeta,
        data: Arc<[u8]>,
    ) -> impl Future<Output = io::Result<()>> + Send + use<> {
        let answer = self.queue_snapshot(meta, data);
        async move {
            match answer? {
                Some(answer) => answered(answer).await,
                None => Ok(()),
            }
        }
    }

    fn queue_snapshot(
        &self,
        meta: SnapshotMeta,
        data: Arc<[u8]>,
    ) -> io::Result<Option<oneshot::Receiver<io::Result<()>>>> {
        let invalid = |e| io::Error::new(io::ErrorKind::InvalidInput, format!("the snapshot was not saved: {e}"));
        codec::inspect(&data).map_err(invalid)?;
        let record = codec::encode(&meta).map_err(invalid)?;
        let mut memory = self.shared().lock();
        memory.usable()?;
        if meta.last < memory.covered {
            return Ok(None);
        }
        memory.covered = meta.last;
        let (done, answer) = oneshot::channel();
        let change = LogChange::Snapshot { record, meta, data };
        memory.send(Op { change, done: Done::Answer(done) })?;
        Ok(Some(answer))
    }

    /// The durable snapshot, if there is one. From memory.
    pub(crate) fn current_snapshot(&self) -> Option<(SnapshotMeta, Arc<[u8]>)> {
        self.shared().lock().state.snapshot.clone()
    }

    /// The bytes that the log takes in memory.
    pub(crate) fn weigh(&self) -> LogWeight {
        let memory = self.shared().lock();
        let snapshot = memory.state.snapshot.as_ref();
        let covered = snapshot.and_then(|(meta, _)| meta.last).map(|last| last.index);
        LogWeight {
            total: memory.weights.total(),
            since_snapshot: memory.weights.after(covered),
            snapshot: snapshot.map_or(0, |(_, data)| data.len() as u64),
            covered,
            purged: memory.state.purged.map(|purged| purged.index),
        }
    }

    /// The last entry, durable or not.
    pub(crate) fn last(&self) -> Option<Position> {
        self.shared().lock().last()
    }

    /// The bytes of the entries after `index`.
    pub(crate) fn weight_after(&self, index: Option<u64>) -> u64 {
        self.shared().lock().weights.after(index)
    }

    /// The last entry that has to be purged so that those after it take at most `bytes`; `None` if none has to.
    pub(crate) fn beyond(&self, bytes: u64) -> Option<u64> {
        self.shared().lock().weights.beyond(bytes)
    }

    /// Why the store has stopped for good, if it has. `None` after a mere [`LogStore::close`].
    pub(crate) fn poisoned(&self) -> Option<String> {
        self.shared().lock().failure.as_ref().map(|failure| failure.reason.clone())
    }

    /// [`LogStore::poisoned`] to be waited for. The channel ends when the store does.
    #[cfg_attr(not(test), expect(dead_code, reason = "node.rs asks `poisoned` so far"))]
    pub(crate) fn failure(&self) -> watch::Receiver<Option<String>> {
        self.shared().failed.subscribe()
    }

    /// Why nothing becomes durable, if that has been so for `timeout`, or because the disk is full.
    pub(crate) fn trouble(&self, timeout: Duration) -> Option<Trouble> {
        if self.shared().is_full() {
            return Some(Trouble::Full);
        }
        self.shared().writing_for().filter(|time| *time > timeout).map(|_| Trouble::Slow(timeout))
    }

    /// From now on a full disk is a failure like any other: operations that wait for room fail, and nothing more is written.
    pub(crate) fn wait_no_more(&self) {
        self.shared().wait_no_more();
    }

    /// What was done since the opening.
    #[cfg_attr(not(test), expect(dead_code, reason = "for tests and, one day, metrics"))]
    pub(crate) fn stats(&self) -> Stats {
        self.shared().stats()
    }

    /// Writes what is queued, if there is room for it, closes the file, and returns when another store may open it. Every
    /// later operation of any clone fails: the log was closed. Blocks on the disk; may be called more than once.
    pub(crate) fn close(&self) {
        self.handle.close();
    }
}

impl Handle {
    fn close(&self) {
        self.shared.wait_no_more();
        // Without its sender the queue ends, and with it the thread, once everything in it has been dealt with.
        self.shared.lock().queue = None;
        let writer = self.writer.lock().take();
        if let Some(writer) = writer {
            writer.close();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

async fn answered(answer: oneshot::Receiver<io::Result<()>>) -> io::Result<()> {
    answer.await.unwrap_or_else(|_| Err(io::Error::other("the thread that writes the log has ended")))
}
