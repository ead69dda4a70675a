//! A disk that fails stops the store for good: the same words for everybody, and nothing is tried again. A disk that is
//! merely full is in `full.rs`.

use openraft::storage::{RaftLogReader, RaftLogStorage};

use super::{append, append_durably, at, ballot, formatted, save, small};
use crate::engine::log_store::LogStore;
use crate::engine::types::{log_id_to, vote_to};
use crate::testing::disk::{FaultyDisk, Survive};

/// Every operation fails with the same words, and the disk is not asked for anything, not even by closing.
async fn assert_stopped(mut store: LogStore, disk: &FaultyDisk, because: &str) {
    let reason = store.poisoned().expect("the store has stopped");
    assert!(reason.contains(because), "{reason}");
    assert_eq!(*store.failure().borrow(), Some(reason.clone()));
    let before = disk.counts();
    let words = format!("the log has stopped and must be opened again: {reason}");
    let next = store.shared().lock().last().map_or(0, |last| last.index + 1);
    let answers = [
        append(&mut store, [small(9, next)]).await.map(drop).unwrap_err(),
        store.save_vote(&vote_to(ballot(99, 1, false))).await.unwrap_err(),
        store.save_committed(None).await.unwrap_err(),
        store.truncate_after(None).await.unwrap_err(),
        store.purge(log_id_to(at(1, 0))).await.unwrap_err(),
        save(&store, at(99, 99)).await.unwrap_err(),
        store.get_log_state().await.map(drop).unwrap_err(),
        store.try_get_log_entries(..).await.map(drop).unwrap_err(),
        store.read_vote().await.map(drop).unwrap_err(),
        store.read_committed().await.map(drop).unwrap_err(),
    ];
    for answer in answers {
        assert_eq!(answer.to_string(), words);
    }
    store.close();
    assert_eq!(store.poisoned(), Some(reason), "closing does not hide the failure");
    drop(store);
    assert_eq!(disk.counts(), before, "nothing was tried again");
}

#[tokio::test]
async fn a_failed_sync_is_reported_once_to_each_and_never_retried() {
    let disk = FaultyDisk::with_content(formatted());
    let mut store = LogStore::open_on(&disk).unwrap();
    append_durably(&mut store, [small(1, 0)]).await.unwrap();
    disk.fail_sync(1);
    let mut watching = store.failure();
    let held = disk.hold_syncs();
    let first = append(&mut store, [small(1, 1)]).await.unwrap();
    held.wait_for_one();
    // Those that had gathered behind it are not written either, although the disk would now say that all is well.
    let second = append(&mut store, [small(1, 2)]).await.unwrap();
    let third = store.save_snapshot(super::snapshot(at(1, 1)).0, super::snapshot(at(1, 1)).1);
    drop(held);
    let error = first.await.unwrap().unwrap_err();
    assert_eq!(second.await.unwrap().unwrap_err().to_string(), error.to_string());
    assert_eq!(third.await.unwrap_err().to_string(), error.to_string());
    watching.changed().await.unwrap();
    assert!(store.current_snapshot().is_none());
    assert_eq!(store.stats().groups, 1);
    assert_stopped(store, &disk, "Input/output error").await;
    for survive in [Survive::Nothing, Survive::Everything, Survive::Seeded(1)] {
        let mut reopened = LogStore::open_on(&FaultyDisk::with_content(disk.image(survive))).unwrap();
        assert_eq!(reopened.try_get_log_entries(..).await.unwrap(), [small(1, 0)], "what was acknowledged is there");
    }
}

#[tokio::test]
async fn a_sync_that_finds_no_room_stops_the_store_like_any_other() {
    let disk = FaultyDisk::with_content(formatted());
    let mut store = LogStore::open_on(&disk).unwrap();
    append_durably(&mut store, [small(1, 0)]).await.unwrap();
    disk.find_no_room_at_sync(1);
    let told = append_durably(&mut store, [small(1, 1)]).await;
    let error = told.expect_err("a failed sync is never retried, whatever it calls itself");
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(store.trouble(std::time::Duration::ZERO), None, "this is the end, and no trouble that will pass");
    assert_stopped(store, &disk, "No space left on device").await;
    let mut reopened = LogStore::open_on(&FaultyDisk::with_content(disk.image(Survive::Nothing))).unwrap();
    assert_eq!(reopened.try_get_log_entries(..).await.unwrap(), [small(1, 0)]);
}

#[tokio::test]
async fn a_failed_vote_is_not_shown_as_given() {
    let disk = FaultyDisk::with_content(formatted());
    let mut store = LogStore::open_on(&disk).unwrap();
    store.save_vote(&vote_to(ballot(1, 1, false))).await.unwrap();
    disk.fail_sync(1);
    assert!(store.save_vote(&vote_to(ballot(2, 2, false))).await.is_err());
    assert_eq!(store.vote(), Some(ballot(1, 1, false)));
    assert_stopped(store, &disk, "Input/output error").await;
}
