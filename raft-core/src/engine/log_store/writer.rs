//! The thread that writes. Everything that has gathered in the queue is one group: one write, one sync.
//!
//! ```text
//!   queue   a a v a t a a │ a a s │ a ...         while one group is synced, the next one gathers
//!           └─ group 1 ─┘   └ 2 ┘
//!           write, fdatasync, then the callbacks of group 1, in order
//! ```
//!
//! A full disk is noticed by the *write*, or the growth of the file, that fails with `ENOSPC` or `EDQUOT` (`disk.rs`). Such a
//! write changed nothing that is needed, and its group was not acknowledged, so nothing is lost by waiting: the same group is
//! written to the same place when there is room. Its callers and those behind it go on waiting, because the order must stay.
//!
//! A truncation waits for what replaces the entries that go: later entries, or a snapshot that covers their places. Both are in
//! one group. openraft truncates before it installs a snapshot whose end differs from the log. Among what goes then may
//! be entries that are committed, although this node does not know it yet, and its disk may be one of the few that have
//! them. Raft keeps the log until the snapshot is saved (Ongaro and Ousterhout, *In Search of an Understandable Consensus
//! Algorithm*, 2014, section 7).

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::engine::log_store::disk::WriteError;
use crate::engine::log_store::memory::{Failure, Shared};
use crate::engine::log_store::operation::{Done, LogChange, Op};
use crate::engine::log_store::queue::Receiver;
use crate::engine::log_store::stream::Stream;

/// The first wait. Each is twice the one before.
const FIRST: Duration = Duration::from_millis(125);

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(2);

/// Starts the thread. It ends when the queue has no sender left and everything in it has been dealt with; the file is
/// closed by then.
pub(crate) fn spawn(stream: Stream, shared: Arc<Shared>, ops: Receiver) -> io::Result<JoinHandle<()>> {
    let mut writer = Writer::new(stream, shared);
    std::thread::Builder::new().name("quorate-log".into()).spawn(move || {
        while let Some(group) = ops.group() {
            writer.handle(group);
        }
        writer.close();
    })
}

/// What makes groups durable.
pub(crate) struct Writer {
    stream: Stream,
    shared: Arc<Shared>,
    /// How far the log is committed, not yet written: it asks for no sync, and rides with the next group that does.
    committed: Option<Vec<u8>>,
    /// Truncations, not yet written. A log that is opened again without them is as if they had not been asked for.
    truncations: Vec<LogChange>,
}

/// Why a group is not durable.
#[derive(Debug)]
enum WriteFailure {
    /// There was no room, and nothing else failed: the group may be written again when there is some.
    Full(Failure),
    /// It will never be.
    Final(Failure),
}

impl Writer {
    pub(crate) fn new(stream: Stream, shared: Arc<Shared>) -> Self {
        Self { stream, shared, committed: None, truncations: vec![] }
    }

    pub(crate) fn handle(&mut self, group: Vec<Op>) {
        let mut changes = Vec::with_capacity(group.len());
        let mut waiting = Vec::with_capacity(group.len());
        for Op { change, done } in group {
            match change {
                LogChange::Committed { record } => self.committed = Some(record),
                LogChange::Append { records, .. } if records.is_empty() => {}
                change => changes.push(change),
            }
            waiting.push(done);
        }
        let changes = self.hold_back(changes);
        let mut result = self.still_working();
        if result.is_ok() && !changes.is_empty() {
            self.shared.begin();
            result = self.commit_in_order(changes.as_slice());
            self.shared.end();
        }
        match &result {
            Ok(()) => self.publish(changes),
            Err(failure) => self.shared.fail(failure.clone()),
        }
        for done in waiting {
            let result = result.as_ref().copied().map_err(Failure::error);
            match done {
                Done::Unwatched => {}
                Done::Append(callback) => callback.io_completed(result),
                // The caller may have gone.
                Done::Answer(answer) => drop(answer.send(result)),
            }
        }
    }

    /// What is to be written now: truncations together with what replaces the entries that go.
    fn hold_back(&mut self, changes: Vec<LogChange>) -> Vec<LogChange> {
        let mut ready = Vec::with_capacity(changes.len());
        for change in changes {
            let truncates = matches!(change, LogChange::Truncate { .. });
            if truncates && !quorate_membership::mutant!("truncated_before_replaced") {
                self.truncations.push(change);
                continue;
            }
            if self.truncations.iter().all(|truncation| change.replaces(truncation)) {
                ready.append(&mut self.truncations);
            }
            ready.push(change);
        }
        ready
    }

    fn commit_in_order(&mut self, changes: &[LogChange]) -> Result<(), Failure> {
        #[cfg(quorate_mutants)]
        if quorate_membership::mutant!("purge_before_snapshot")
            && changes.iter().any(|change| matches!(change, LogChange::Purge { .. }))
        {
            let (snapshots, rest) = changes.iter().partition::<Vec<_>, _>(|c| matches!(c, LogChange::Snapshot { .. }));
            let owned = |part: Vec<&LogChange>| part.into_iter().cloned().collect::<Vec<_>>();
            self.commit_when_there_is_room(&owned(rest))?;
            return self.commit_when_there_is_room(&owned(snapshots));
        }
        self.commit_when_there_is_room(changes)
    }

    /// Nothing is tried again after the first failure.
    pub(crate) fn still_working(&self) -> Result<(), Failure> {
        self.shared.still_working()
    }

    /// One write, one sync.
    fn commit(&mut self, changes: &[LogChange]) -> Result<(), WriteFailure> {
        let committed = self.committed.as_deref();
        let failed =
            |error: io::Error| Failure { kind: error.kind(), reason: format!("a write to the log failed: {error}") };
        match self.stream.append(changes, committed) {
            Ok(()) => {
                self.shared.count(changes.len() + usize::from(committed.is_some()));
                self.committed = None;
                Ok(())
            }
            Err(WriteError::Full(error)) => Err(WriteFailure::Full(failed(error))),
            Err(WriteError::Final(error)) => Err(WriteFailure::Final(failed(error))),
        }
    }

    /// Makes what has become durable visible to readers of durable state.
    fn publish(&self, changes: Vec<LogChange>) {
        for change in changes {
            match change {
                LogChange::Vote { vote, .. } => self.shared.lock().state.vote = Some(vote),
                LogChange::Snapshot { meta, data, .. } => self.shared.lock().state.snapshot = Some((meta, data)),
                LogChange::Append { .. }
                | LogChange::Truncate { .. }
                | LogChange::Purge { .. }
                | LogChange::Committed { .. } => {}
            }
        }
    }

    pub(crate) fn close(mut self) {
        if self.committed.is_some()
            && self.still_working().is_ok()
            && let Err(failure) = self.commit_when_there_is_room(&[])
        {
            self.shared.fail(failure);
        }
    }
}

impl Writer {
    /// One write with one sync, after as long a wait as it takes. When the store must wait no more, it tries once again and
    /// then gives up: the group was not written, and nothing after it will be.
    fn commit_when_there_is_room(&mut self, changes: &[LogChange]) -> Result<(), Failure> {
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
