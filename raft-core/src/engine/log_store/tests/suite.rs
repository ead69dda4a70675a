//! openraft's own suite for log storage, on real files, with the shipped state machine.
//!
//! The suite begins some logs at entry 1 or 2 and purges without a snapshot. The store refuses both, rightly; so a
//! wrapper first fills the beginning with blank entries, and first saves a snapshot that covers the purge.

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;

use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{OptionalSend, StorageError};
use tempfile::TempDir;

use super::{at, save};
use crate::engine::log_store::LogStore;
use crate::engine::state_machine::StateMachine;
use crate::engine::types::{OrEntry, OrLogId, OrVote, Types, log_id_from, log_id_to};
use crate::feed::Feed;

struct Padded(LogStore);

impl RaftLogReader<Types> for Padded {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<OrEntry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.0.try_get_log_entries(range).await
    }

    async fn read_vote(&mut self) -> Result<Option<OrVote>, io::Error> {
        self.0.read_vote().await
    }
}

impl RaftLogStorage<Types> for Padded {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        self.0.get_log_state().await
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.0.get_log_reader().await
    }

    async fn save_vote(&mut self, vote: &OrVote) -> Result<(), io::Error> {
        self.0.save_vote(vote).await
    }

    async fn save_committed(&mut self, committed: Option<OrLogId>) -> Result<(), io::Error> {
        self.0.save_committed(committed).await
    }

    async fn read_committed(&mut self) -> Result<Option<OrLogId>, io::Error> {
        self.0.read_committed().await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = OrEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<OrEntry> = entries.into_iter().collect();
        if let (None, Some(first)) = (self.0.get_log_state().await?.last_log_id, entries.first()) {
            let blanks = (0..first.log_id.index).map(|index| OrEntry::new_blank(log_id_to(at(0, index))));
            self.0.append(blanks.collect::<Vec<_>>(), IOFlushed::noop()).await?;
        }
        self.0.append(entries, callback).await
    }

    async fn truncate_after(&mut self, last: Option<OrLogId>) -> Result<(), io::Error> {
        self.0.truncate_after(last).await
    }

    async fn purge(&mut self, upto: OrLogId) -> Result<(), io::Error> {
        save(&self.0, log_id_from(&upto)).await?;
        self.0.purge(upto).await
    }
}

struct Files;

impl StoreBuilder<Types, Padded, StateMachine, TempDir> for Files {
    async fn build(&self) -> Result<(TempDir, Padded, StateMachine), StorageError<Types>> {
        let folder = tempfile::tempdir().unwrap();
        let log = LogStore::open(&folder.path().join("raft.log")).unwrap();
        // The snapshots that cover the suite's purges are not the machine's: it gets a store of its own.
        let store = LogStore::open(&folder.path().join("machine.log")).unwrap();
        let machine = StateMachine::new(store, Feed::new(64, usize::MAX), std::sync::Arc::new(|_| ()));
        Ok((folder, Padded(log), machine))
    }
}

#[tokio::test]
async fn openrafts_own_suite_passes_on_files_with_the_shipped_machine() {
    Suite::test_all(Files).await.unwrap();
}
