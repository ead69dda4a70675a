//! The log as openraft sees it. Every method is awaited in openraft's one core task, so only a vote waits for the disk.

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;

use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use quorate_membership::codec::encode;
use tokio::sync::oneshot;

use crate::engine::log_store::memory::bytes_of;
use crate::engine::log_store::operation::{Done, LogChange, Op};
use crate::engine::log_store::shape::{StoredEntry, StoredPosition, StoredVote};
use crate::engine::log_store::{LogStore, answered};
use crate::engine::types::{OrEntry, OrLogId, OrVote, Types, entry_from, log_id_from, log_id_to, vote_from, vote_to};

/// The most bytes of entries in one message, far below what a message may have.
const BATCH: usize = 4 << 20;

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<OrEntry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let memory = self.shared().lock();
        memory.usable()?;
        Ok(memory.read(&range))
    }

    /// As many as fit into one message with room to spare, and one at the least: what is too large for the wire would be
    /// built again and again.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<OrEntry>, io::Error> {
        let memory = self.shared().lock();
        memory.usable()?;
        Ok(memory.read_upto(start..end, BATCH))
    }

    async fn read_vote(&mut self) -> Result<Option<OrVote>, io::Error> {
        let memory = self.shared().lock();
        memory.usable()?;
        Ok(memory.state.vote.map(vote_to))
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let memory = self.shared().lock();
        memory.usable()?;
        Ok(LogState {
            last_purged_log_id: memory.state.purged.map(log_id_to),
            last_log_id: memory.last().map(log_id_to),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &OrVote) -> Result<(), io::Error> {
        let vote = vote_from(vote);
        let answer = {
            let mut memory = self.shared().lock();
            memory.usable()?;
            memory.check_vote(vote)?;
            let record = encode(&StoredVote(vote)).map_err(io::Error::other)?;
            let (done, answer) = oneshot::channel();
            memory.asked = Some(vote);
            memory.send(Op { change: LogChange::Vote { vote, record }, done: Done::Answer(done) })?;
            answer
        };
        if quorate_membership::mutant!("vote_not_durable") {
            return Ok(());
        }
        answered(answer).await
    }

    /// Needs no sync of its own: it is written with the next group that does, or when the store is closed.
    async fn save_committed(&mut self, committed: Option<OrLogId>) -> Result<(), io::Error> {
        let committed = committed.as_ref().map(log_id_from);
        let record = encode(&StoredPosition(committed)).map_err(io::Error::other)?;
        self.shared().lock().note_committed(committed, record)
    }

    async fn read_committed(&mut self) -> Result<Option<OrLogId>, io::Error> {
        let memory = self.shared().lock();
        memory.usable()?;
        Ok(memory.state.committed.map(log_id_to))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = OrEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<OrEntry> = entries.into_iter().collect();
        let stored = |entry| encode(&StoredEntry::from(entry_from(entry))).map(|record| (entry.log_id.index, record));
        let records = entries.iter().map(stored).collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
        let mut memory = self.shared().lock();
        if let Err(error) = memory.usable() {
            callback.io_completed(Err(io::Error::new(error.kind(), error.to_string())));
            return Err(error);
        }
        memory.check_append(&entries)?;
        memory.send(Op { change: LogChange::Append { records }, done: Done::Append(callback) })?;
        for entry in entries {
            memory.weights.push(entry.log_id.index, bytes_of(&entry));
            memory.state.entries.insert(entry.log_id.index, entry);
        }
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<OrLogId>) -> Result<(), io::Error> {
        let after = last.as_ref().map(log_id_from);
        let from = after.map_or(0, |after| after.index.saturating_add(1));
        let mut memory = self.shared().lock();
        memory.usable()?;
        memory.check_truncate(after)?;
        if memory.state.entries.range(from..).next().is_some() {
            memory.send(Op { change: LogChange::Truncate { from }, done: Done::Unwatched })?;
            drop(memory.state.entries.split_off(&from));
            memory.weights.truncate(from);
        }
        Ok(())
    }

    async fn purge(&mut self, upto: OrLogId) -> Result<(), io::Error> {
        let upto = log_id_from(&upto);
        let record = encode(&StoredPosition(Some(upto))).map_err(io::Error::other)?;
        let mut memory = self.shared().lock();
        memory.usable()?;
        if memory.state.purged.is_some_and(|purged| purged.index >= upto.index) {
            return Ok(());
        }
        memory.check_purge(upto)?;
        memory.send(Op { change: LogChange::Purge { upto, record }, done: Done::Unwatched })?;
        let kept = memory.state.entries.split_off(&upto.index.saturating_add(1));
        memory.state.entries = kept;
        memory.weights.purge(upto.index);
        memory.state.purged = Some(upto);
        Ok(())
    }
}
