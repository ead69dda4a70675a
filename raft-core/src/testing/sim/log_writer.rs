//! The writer of a simulated machine: a task of it instead of a thread, and syncs that take the world's time.
//!
//! The shipped [`Writer`] decides what is written and how. Only the moment of each write is the simulation's.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use quorate_membership::codec::{decode, encode};

use super::host::SimHost;
use super::observation::{Durable, Observation, Stored};
use super::sim_disk::{Latency, OpenLog};
use crate::engine::log_store::memory::{Memory, Shared};
use crate::engine::log_store::operation::{LogChange, Op};
use crate::engine::log_store::queue::{Receiver, Taken, queue};
use crate::engine::log_store::shape::StoredEntry;
use crate::engine::log_store::writer::Writer;
use crate::engine::log_store::{LogStore, LogWriter, OpenError};
use crate::engine::types::entry_from;
use crate::rpc::{Body, LogEntry};
use crate::testing::disk::{FaultyDisk, Survive};

/// What the task works with. The end of the machine takes it over.
pub(crate) struct WriterTask {
    host: Arc<SimHost>,
    writer: Option<Writer>,
    ops: Receiver,
    /// The group that is being written.
    group: Vec<Op>,
    /// Truncations that are asked for, and not written yet.
    truncated: Vec<u64>,
}

impl std::fmt::Debug for WriterTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriterTask").field("group", &self.group.len()).finish_non_exhaustive()
    }
}

fn lock(task: &Mutex<WriterTask>) -> MutexGuard<'_, WriterTask> {
    task.lock()
}

/// The task as the log store knows it: closes it for good, and writes what is queued unless the machine has ended.
#[derive(Debug)]
struct Handle(Arc<Mutex<WriterTask>>);

impl LogWriter for Handle {
    fn close(self: Box<Self>) {
        let host = {
            let mut task = lock(&self.0);
            task.finish();
            task.host.clone()
        };
        if host.is_alive() {
            host.sim_disk().closed();
        }
    }
}

/// Opens the log of a simulated machine.
///
/// # Errors
/// See [`OpenError`].
pub(super) fn open(host: &Arc<SimHost>) -> Result<LogStore, OpenError> {
    let sim_disk = host.sim_disk();
    let (mut disk, fresh) = sim_disk.disk();
    if fresh {
        // A real one is made under another name and appears whole.
        drop(disk.open_log()?);
        disk = FaultyDisk::with_content(disk.image(Survive::Everything));
    }
    let opened = disk.open_log()?;
    let (queue, ops) = queue();
    let state = opened.state;
    let entries = state.entries.values().filter_map(|entry| sum(&StoredEntry::from(entry_from(entry)))).collect();
    let snapshot = state.snapshot.as_ref().and_then(|(meta, _)| meta.last);
    host.tell(Observation::Opened { vote: state.vote, last: state.last(), snapshot, entries });
    let shared = Arc::new(Shared::new(Memory::new(state, queue)));
    let writer = Some(Writer::new(opened.stream, shared.clone()));
    let task = Arc::new(Mutex::new(WriterTask { host: host.clone(), writer, ops, group: vec![], truncated: vec![] }));
    sim_disk.opened(disk, task.clone());
    let _runs_as_long_as_the_host = host.spawn(drive(host.clone(), task.clone(), shared.clone()));
    Ok(LogStore::written_by(Box::new(Handle(task)), shared))
}

async fn drive(host: Arc<SimHost>, task: Arc<Mutex<WriterTask>>, shared: Arc<Shared>) {
    let bell = shared.lock().bell.clone();
    loop {
        let next = lock(&task).take_next();
        match next {
            Next::Write => {
                match host.sim_disk().latency() {
                    Latency::Takes(latency) => tokio::time::sleep(latency).await,
                    Latency::Hung => {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        continue;
                    }
                    Latency::Full => {
                        shared.set_full(true);
                        tokio::time::sleep(Duration::from_millis(125)).await;
                        continue;
                    }
                }
                if shared.is_full() {
                    shared.begin();
                    shared.set_full(false);
                }
                lock(&task).write_what_waits();
                shared.end();
            }
            Next::Begin => shared.begin(),
            Next::Wait => bell.notified().await,
            Next::Over => return,
        }
    }
}

enum Next {
    Begin,
    Write,
    Wait,
    Over,
}

impl WriterTask {
    fn take_next(&mut self) -> Next {
        if !self.group.is_empty() {
            return Next::Write;
        }
        match self.ops.try_group() {
            Taken::Group(group) => {
                self.group = group;
                Next::Begin
            }
            Taken::Empty => Next::Wait,
            Taken::Closed => Next::Over,
        }
    }

    /// Writes everything that is queued, and closes the file.
    pub(crate) fn finish(&mut self) {
        if !self.host.is_alive() {
            return self.abandon();
        }
        self.write_what_waits();
        while let Taken::Group(group) = self.ops.try_group() {
            self.group = group;
            self.write_what_waits();
        }
        if let Some(writer) = self.writer.take() {
            writer.close();
        }
    }
}

impl WriterTask {
    /// What is on the disk once a group is written. A truncation waits for what replaces the entries that go.
    fn told(&mut self, group: &[Op]) -> Vec<Durable> {
        let mut told = vec![];
        for durable in group.iter().filter_map(|op| durable(&op.change)) {
            match durable {
                Durable::Truncated(from) => self.truncated.push(from),
                Durable::Entries(ref entries) if !entries.is_empty() => {
                    told.extend(self.truncated.drain(..).map(Durable::Truncated));
                    told.push(durable);
                }
                Durable::Snapshot(last) => {
                    told.push(durable);
                    let covers = |from: &u64| last.is_some_and(|last| last.index >= *from);
                    if self.truncated.iter().all(covers) {
                        told.extend(self.truncated.drain(..).map(Durable::Truncated));
                    }
                }
                other => told.push(other),
            }
        }
        told
    }
}

impl OpenLog for WriterTask {
    fn write_what_waits(&mut self) {
        let group = std::mem::take(&mut self.group);
        let told = self.told(&group);
        let Some(writer) = self.writer.as_mut().filter(|_| !group.is_empty()) else { return };
        if !self.host.is_alive() {
            self.host.is_unsure(told.clone());
        }
        writer.handle(group);
        if writer.still_working().is_err() {
            self.host.is_unsure(told);
        } else {
            told.into_iter().for_each(|durable| self.host.tell(Observation::Durable(durable)));
        }
    }

    fn abandon(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.close();
        }
    }
}

fn sum(entry: &StoredEntry) -> Option<Stored> {
    stored(&encode(entry).ok()?)
}

fn stored(record: &[u8]) -> Option<Stored> {
    let LogEntry { at, body } = decode::<StoredEntry>(record).ok()?.into();
    let voters = match body {
        Body::Configuration(voters) => Some(voters),
        Body::Blank | Body::Command(_) => None,
    };
    Some(Stored { at, sum: crc32c::crc32c(record), voters })
}

fn durable(change: &LogChange) -> Option<Durable> {
    Some(match change {
        LogChange::Append { records } => {
            Durable::Entries(records.iter().filter_map(|(_, record)| stored(record)).collect())
        }
        LogChange::Truncate { from } => Durable::Truncated(*from),
        LogChange::Purge { upto, .. } => Durable::Purged(upto.index),
        LogChange::Vote { vote, .. } => Durable::Vote(*vote),
        LogChange::Snapshot { meta, .. } => Durable::Snapshot(meta.last),
        LogChange::Committed { .. } => return None,
    })
}
