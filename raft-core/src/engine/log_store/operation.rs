//! An operation in the queue of the log: a change of the file, and the caller that waits until it is durable.
//!
//! ```text
//!   raft.rs, save_snapshot ──▶ Op { change, done } ──▶ queue ──▶ writer.rs ──▶ file, then `done`
//! ```

use std::io;
use std::sync::Arc;

use openraft::storage::IOFlushed;
use tokio::sync::oneshot;

use crate::engine::types::Types;
use crate::rpc::{Ballot, Position, SnapshotMeta};

/// One change of the file, checked and encoded.
#[derive(Debug)]
#[cfg_attr(quorate_mutants, derive(Clone))]
pub(crate) enum LogChange {
    /// Entries with their indexes.
    Append { records: Vec<(u64, Vec<u8>)> },
    /// Every entry from this index on goes.
    Truncate { from: u64 },
    /// Every entry up to this one, inclusive, goes.
    Purge { upto: Position, record: Vec<u8> },
    /// The vote.
    Vote { vote: Ballot, record: Vec<u8> },
    /// How far the log is committed.
    Committed { record: Vec<u8> },
    /// The snapshot.
    Snapshot { record: Vec<u8>, meta: SnapshotMeta, data: Arc<[u8]> },
}

/// The caller that hears when the change is durable, or that it will not be.
pub(crate) enum Done {
    Unwatched,
    Append(IOFlushed<Types>),
    Answer(oneshot::Sender<io::Result<()>>),
}

impl std::fmt::Debug for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unwatched => "Unwatched",
            Self::Append(_) => "Append",
            Self::Answer(_) => "Answer",
        })
    }
}

/// A change, and the caller that waits for it.
#[derive(Debug)]
pub(crate) struct Op {
    pub(crate) change: LogChange,
    pub(crate) done: Done,
}

impl LogChange {
    /// Whether this stands for the entries that go with `truncation`.
    pub(super) fn replaces(&self, truncation: &Self) -> bool {
        match (self, truncation) {
            (Self::Append { records }, Self::Truncate { .. }) => !records.is_empty(),
            (Self::Snapshot { meta, .. }, Self::Truncate { from }) => meta.last.is_some_and(|last| last.index >= *from),
            _ => false,
        }
    }

    pub(super) fn size(&self) -> usize {
        match self {
            Self::Append { records } => records.iter().map(|(_, record)| record.len()).sum(),
            Self::Truncate { .. } => 0,
            Self::Purge { record, .. } | Self::Vote { record, .. } | Self::Committed { record } => record.len(),
            Self::Snapshot { record, data, .. } => record.len() + data.len(),
        }
    }

    /// The highest entry in it.
    pub(super) fn top(&self) -> Option<u64> {
        match self {
            Self::Append { records } => records.last().map(|(index, _)| *index),
            Self::Truncate { .. }
            | Self::Purge { .. }
            | Self::Vote { .. }
            | Self::Committed { .. }
            | Self::Snapshot { .. } => None,
        }
    }
}
