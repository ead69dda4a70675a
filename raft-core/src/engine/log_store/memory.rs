//! What the log holds, in memory, and the rules that a change of it must keep.
//!
//! ```text
//!   snapshot ═══════════════════╗
//!   purged ────────────┐        ║        committed          last
//!   ░░░░░░░░░░░░░░░░░░░▼████████▼████████████▼████████████████▼
//!                       entries: no hole, terms never fall
//! ```
//!
//! A change that would break a rule is refused before anything is touched, here or on the disk. The rules are Raft's. A
//! refusal means that the caller is wrong, and that going on could cost acknowledged entries.

use std::collections::BTreeMap;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use openraft::entry::EntryPayload;
use parking_lot::{Condvar, Mutex, MutexGuard};
use quorate_membership::detector::Moment;
use tokio::sync::{Notify, watch};

use crate::engine::log_store::Stats;
use crate::engine::log_store::operation::Op;
use crate::engine::log_store::queue::Sender;
use crate::engine::log_store::weights::Weights;
use crate::engine::types::{OrEntry, log_id_from};
use crate::host::clock;
use crate::rpc::{Ballot, Position, SnapshotMeta};

/// What is in the file, as far as it matters after the opening.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Every entry after `purged`. Those at the end may not be durable yet.
    pub(crate) entries: BTreeMap<u64, OrEntry>,
    /// The durable vote.
    pub(crate) vote: Option<Ballot>,
    pub(crate) committed: Option<Position>,
    pub(crate) purged: Option<Position>,
    /// The durable snapshot.
    pub(crate) snapshot: Option<(SnapshotMeta, Arc<[u8]>)>,
}

/// The first failure, with which every later operation fails.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) kind: io::ErrorKind,
    pub(crate) reason: String,
}

impl Failure {
    pub(crate) fn error(&self) -> io::Error {
        let Self { kind, reason } = self;
        io::Error::new(*kind, format!("the log has stopped and must be opened again: {reason}"))
    }
}

/// The state, and the queue to the disk. A change of the state is sent to the queue under the same lock, so that both have
/// the same order.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) state: State,
    /// What the entries take.
    pub(crate) weights: Weights,
    /// The vote asked for last: durable, or on its way.
    pub(crate) asked: Option<Ballot>,
    /// The end of the snapshot saved last: durable, or on its way.
    pub(crate) covered: Option<Position>,
    pub(crate) failure: Option<Failure>,
    /// `None` once the store was closed.
    pub(crate) queue: Option<Sender>,
    /// Rings for each operation that is sent.
    pub(crate) bell: Arc<Notify>,
}

impl Memory {
    pub(crate) fn new(state: State, queue: Sender) -> Self {
        let asked = state.vote;
        let covered = state.snapshot.as_ref().and_then(|(meta, _)| meta.last);
        let mut weights = Weights::default();
        state.entries.iter().for_each(|(index, entry)| weights.push(*index, bytes_of(entry)));
        Self { state, weights, asked, covered, failure: None, queue: Some(queue), bell: Arc::default() }
    }

    /// Fails, always with the same text, if the store has stopped or was closed.
    pub(crate) fn usable(&self) -> io::Result<()> {
        match (&self.failure, &self.queue) {
            (Some(failure), _) => Err(failure.error()),
            (None, None) => Err(io::Error::other("the log was closed")),
            (None, Some(_)) => Ok(()),
        }
    }

    pub(crate) fn send(&self, op: Op) -> io::Result<()> {
        self.usable()?;
        let sent = self.queue.as_ref().is_some_and(|queue| queue.send(op));
        self.bell.notify_one();
        sent.then_some(()).ok_or_else(|| io::Error::other("the thread that writes the log has ended"))
    }

    /// Notes how far the log is committed. It is written with the next group that is.
    pub(crate) fn note_committed(&mut self, committed: Option<Position>, record: Vec<u8>) -> io::Result<()> {
        self.usable()?;
        if let Some(queue) = &self.queue {
            queue.committed(record);
        }
        self.state.committed = committed;
        Ok(())
    }

    /// The last entry, or the place up to which everything was purged.
    pub(crate) fn last(&self) -> Option<Position> {
        self.state.last()
    }

    /// The first entries of a range that together have at most `bytes`, and one at the least.
    pub(crate) fn read_upto(&self, range: std::ops::Range<u64>, bytes: usize) -> Vec<OrEntry> {
        let (mut sum, mut found) = (0, vec![]);
        if range.is_empty() {
            return found;
        }
        for (_, entry) in self.state.entries.range(range) {
            sum += bytes_of(entry);
            if sum > bytes && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        found
    }

    /// The entries of a range. Empty for a range that ends before it begins.
    pub(crate) fn read(&self, range: &impl RangeBounds<u64>) -> Vec<OrEntry> {
        let from = match range.start_bound() {
            Bound::Included(at) => *at,
            Bound::Excluded(at) => at.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let entries = self.state.entries.range(from..).take_while(|(index, _)| match range.end_bound() {
            Bound::Included(end) => *index <= end,
            Bound::Excluded(end) => *index < end,
            Bound::Unbounded => true,
        });
        entries.map(|(_, entry)| entry.clone()).collect()
    }

    /// Refuses a hole, an entry that is there already, and a term that falls.
    pub(crate) fn check_append(&self, entries: &[OrEntry]) -> io::Result<()> {
        let mut last = self.last();
        for entry in entries {
            let at = log_id_from(&entry.log_id);
            follows(last, at).map_err(|why| refused(format!("nothing was appended: {why}")))?;
            last = Some(at);
        }
        Ok(())
    }

    /// Refuses to cut off what was purged, or what is known to be committed.
    pub(crate) fn check_truncate(&self, after: Option<Position>) -> io::Result<()> {
        let floor = self.state.purged.max(self.state.committed);
        match floor {
            Some(floor) if after.is_none_or(|after| after.index < floor.index) => Err(refused(format!(
                "nothing was truncated: entries up to {floor} are committed or purged, and {} would be the last",
                after.map_or("none".into(), |after| after.to_string()),
            ))),
            _ => Ok(()),
        }
    }

    /// Refuses to purge what no saved snapshot covers.
    pub(crate) fn check_purge(&self, upto: Position) -> io::Result<()> {
        match self.covered {
            Some(covered) if covered.index >= upto.index => Ok(()),
            covered => Err(refused(format!(
                "nothing was purged up to {upto}: the saved snapshot ends at {}",
                covered.map_or("nothing".into(), |covered| covered.to_string()),
            ))),
        }
    }

    /// Refuses a vote that takes back the one before: a lower term, another candidate in the same term unless a quorum
    /// has elected it, another leader in the same term.
    pub(crate) fn check_vote(&self, vote: Ballot) -> io::Result<()> {
        match self.asked {
            Some(given) if !may_follow(given, vote) => Err(refused(format!(
                "the vote was not saved: {vote:?} would take back {given:?}, which was given before"
            ))),
            _ => Ok(()),
        }
    }
}

impl State {
    pub(crate) fn last(&self) -> Option<Position> {
        self.last_entry().or(self.purged)
    }

    pub(crate) fn last_entry(&self) -> Option<Position> {
        self.entries.last_key_value().map(|(_, entry)| log_id_from(&entry.log_id))
    }

    pub(crate) fn first_entry(&self) -> Option<Position> {
        self.entries.first_key_value().map(|(_, entry)| log_id_from(&entry.log_id))
    }
}

/// The bytes of the command in an entry.
pub(crate) fn bytes_of(entry: &OrEntry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(payload) => payload.as_bytes().len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    }
}

/// Whether an entry may stand right after another.
pub(crate) fn follows(last: Option<Position>, next: Position) -> Result<(), String> {
    let due = last.map_or(0, |last| last.index.saturating_add(1));
    let told = || last.map_or("the beginning".into(), |last| last.to_string());
    match last {
        _ if next.index != due => Err(format!("{next} cannot follow {}: entry {due} is due", told())),
        Some(last) if next.term < last.term => Err(format!("{next} cannot follow {}: its term is lower", told())),
        _ => Ok(()),
    }
}

fn may_follow(given: Ballot, new: Ballot) -> bool {
    let same_node = given.node == new.node;
    match (given.committed, new.committed) {
        _ if given.term != new.term => given.term < new.term,
        (false, true) => true,
        (false, false) | (true, true) => same_node,
        (true, false) => false,
    }
}

fn refused(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

/// The memory behind its lock, and what the outside may watch without it.
#[derive(Debug)]
pub(crate) struct Shared {
    memory: Mutex<Memory>,
    pub(crate) failed: watch::Sender<Option<String>>,
    /// Whether there is a failure: for the writer, which must not wait for the lock to learn that there is none.
    broken: AtomicBool,
    groups: AtomicU64,
    operations: AtomicU64,
    /// Since when the oldest group that is not durable is being written, if one is.
    under_way: Mutex<Option<Moment>>,
    /// The disk is full, and the writer waits for room.
    full: AtomicBool,
    /// The writer must wait for room no more.
    hurry: Mutex<bool>,
    hurried: Condvar,
}

impl Shared {
    pub(crate) fn new(memory: Memory) -> Self {
        let (groups, operations) = (AtomicU64::new(0), AtomicU64::new(0));
        Self {
            memory: Mutex::new(memory),
            failed: watch::Sender::new(None),
            broken: AtomicBool::new(false),
            groups,
            operations,
            under_way: Mutex::new(None),
            full: AtomicBool::new(false),
            hurry: Mutex::new(false),
            hurried: Condvar::new(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock()
    }

    /// Stops the store. The first reason stays.
    pub(crate) fn fail(&self, failure: Failure) {
        let mut memory = self.lock();
        if memory.failure.is_none() {
            tracing::error!(reason = %failure.reason, "the log has stopped; check the disk, then start this node again");
            self.failed.send_replace(Some(failure.reason.clone()));
            memory.failure = Some(failure);
            self.broken.store(true, Ordering::Release);
        }
    }

    /// Fails, always with the same words, after the first failure.
    pub(crate) fn still_working(&self) -> Result<(), Failure> {
        match self.broken.load(Ordering::Acquire) {
            true => self.lock().failure.clone().map_or(Ok(()), Err),
            false => Ok(()),
        }
    }

    /// A group goes to the disk.
    pub(crate) fn begin(&self) {
        *self.under_way.lock() = Some(clock::now());
    }

    /// It is durable, or never will be.
    pub(crate) fn end(&self) {
        *self.under_way.lock() = None;
    }

    /// For how long the oldest group that is not durable has been under way.
    pub(crate) fn writing_for(&self) -> Option<Duration> {
        let since = *self.under_way.lock();
        since.map(|since| clock::now().since(since))
    }

    pub(crate) fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Release);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    /// Blocks the writer's thread for `wait`. Returns `false`, at once, when the store must wait no more.
    pub(crate) fn wait_for_room(&self, wait: Duration) -> bool {
        let mut hurry = self.hurry.lock();
        self.hurried.wait_while_for(&mut hurry, |hurry| !*hurry, wait);
        !*hurry
    }

    /// Ends all waiting for room, for good.
    pub(crate) fn wait_no_more(&self) {
        *self.hurry.lock() = true;
        self.hurried.notify_all();
    }

    pub(crate) fn count(&self, operations: usize) {
        self.groups.fetch_add(1, Ordering::Relaxed);
        self.operations.fetch_add(operations as u64, Ordering::Relaxed);
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats { groups: self.groups.load(Ordering::Relaxed), operations: self.operations.load(Ordering::Relaxed) }
    }
}
