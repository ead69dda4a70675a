//! The local ledger: a bounded file beside the log, in which a node records what it held, granted and proved.
//!
//! ```text
//!   keeper, renewer, grantor ──note──▶ bounded queue ──▶ one thread ──▶ ledger, ledger.1   (4 MiB each, append only)
//!                               │ full: counted, and noted by a line               │
//!                               └ never waits, never fails                         ├─▶ LastEnd: how the former process ended
//!                                                                                  └─▶ audit: did two ever act at once?
//! ```
//!
//! A note survives the death of the process as soon as the thread has written it, as a rule within microseconds. Only the
//! notes that give the reason of a reset ([`Note::Notice`], and [`Note::Lapsed`] with work protected) and [`Note::Closed`]
//! are synced to the disk at once. All others may be lost with the machine, as far as its kernel had not written them
//! back. The auditor takes that into account.

pub mod audit;
mod last_end;
mod note;
mod reader;
mod text;
mod writer;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use futures_util::future::BoxFuture;
use quorate_membership::{BootId, NodeId};
use tokio::sync::oneshot;

use crate::host::clock;
pub use last_end::{LastEnd, Loss, Timestamp};
pub use note::{Entry, LineError, Note};
pub use reader::{LedgerContent, LedgerLine, Place, Unreadable, read};
use writer::Order;

/// How much of the disk and of memory a ledger may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The size in bytes at which a file is closed and the next one begins. At least 64 KiB, default 4 MiB. There are two
    /// files, so the disk holds up to twice that, and the one line that exceeds it.
    pub file: u64,
    /// How many notes may wait to be written. At least 1, default 4 096. Further notes are dropped, and counted.
    pub queue: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { file: 4 << 20, queue: 4096 }
    }
}

/// What takes the notes of a ledger.
pub(crate) trait Sink: fmt::Debug + Send + Sync {
    /// Takes a note, without waiting for a disk.
    fn note(&self, note: Note);

    /// Takes [`Note::Closed`] as the last one. Resolves to whether everything is durable.
    fn close(&self) -> BoxFuture<'_, bool>;
}

struct Shared {
    node: NodeId,
    sink: Box<dyn Sink>,
    closed: AtomicBool,
    last_end: LastEnd,
}

/// The ledger of a node. Clones write to the same file; the thread ends with the last of them.
#[derive(Clone)]
pub struct Ledger(Arc<Shared>);

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("node", &self.0.node).field("sink", &self.0.sink).finish_non_exhaustive()
    }
}

impl Ledger {
    /// Opens the ledger in the data folder of `node`, and reads how the former process ended. The caller must hold the lock
    /// on the folder.
    ///
    /// # Errors
    /// When the thread cannot be started. A file that cannot be written is no error: it is logged, tried again with each
    /// note, and lost notes are counted.
    pub fn open(folder: &Path, node: NodeId) -> io::Result<Self> {
        Self::open_bounded(folder, node, Bounds::default())
    }

    /// As [`Self::open`], with other bounds.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_bounded(folder: &Path, node: NodeId, bounds: Bounds) -> io::Result<Self> {
        let last_end = LastEnd::of(&reader::last_process(folder));
        match &last_end {
            LastEnd::SelfFenced { .. } | LastEnd::Silent { .. } => {
                tracing::warn!(%node, %last_end, "how the process before this one ended");
            }
            LastEnd::None | LastEnd::Closed { .. } | LastEnd::Unarmed { .. } => {
                tracing::info!(%node, %last_end, "how the process before this one ended");
            }
        }
        let (orders, inbox) = sync_channel(bounds.queue.max(1));
        let (boot, dropped) = (clock::boot_id(), Arc::new(AtomicU64::new(0)));
        writer::spawn(folder.into(), bounds.file, boot, node, dropped.clone(), inbox)?;
        Ok(Self::on(Box::new(Queue { node, boot, orders, dropped }), node, last_end))
    }

    /// A ledger whose notes go to `sink`.
    pub(crate) fn on(sink: Box<dyn Sink>, node: NodeId, last_end: LastEnd) -> Self {
        Self(Arc::new(Shared { node, sink, closed: AtomicBool::new(false), last_end }))
    }

    /// Queues a note to be written. Never waits for the disk, and never fails: a note that finds the queue full is counted.
    pub fn note(&self, note: Note) {
        tracing::trace!(%note, "ledger");
        self.0.sink.note(note);
    }

    /// Notes that the node is shut down, and waits until this note and all before it are on the disk, at most for
    /// `timeout`. Later notes are still written, but begin no new file: the folder may belong to another process by then.
    /// Returns whether it was done in time; true if the ledger was closed before.
    pub async fn close(&self, timeout: Duration) -> bool {
        if self.0.closed.swap(true, Ordering::Relaxed) {
            return true;
        }
        tokio::time::timeout(timeout, self.0.sink.close()).await.unwrap_or(false)
    }

    /// How the process before this one ended, as far as the ledger shows it.
    pub fn last_end(&self) -> &LastEnd {
        &self.0.last_end
    }
}

/// The queue to the thread that writes.
#[derive(Debug)]
struct Queue {
    node: NodeId,
    boot: BootId,
    orders: SyncSender<Order>,
    dropped: Arc<AtomicU64>,
}

impl Queue {
    fn entry(&self, note: Note) -> Entry {
        Entry { boot: self.boot, at: clock::now().since_origin(), node: self.node, note }
    }
}

impl Sink for Queue {
    fn note(&self, note: Note) {
        if self.orders.try_send(Order::Write(self.entry(note))).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn close(&self) -> BoxFuture<'_, bool> {
        Box::pin(async {
            let (done, written) = oneshot::channel();
            let mut order = Order::Close(self.entry(Note::Closed), done);
            loop {
                match self.orders.try_send(order) {
                    Ok(()) => return written.await.is_ok(),
                    Err(TrySendError::Full(back)) => order = back,
                    Err(TrySendError::Disconnected(_)) => return false,
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    }
}
