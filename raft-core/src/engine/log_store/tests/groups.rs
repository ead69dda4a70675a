//! One sync a group, everything that waits in one group, and no word before the sync.

use std::time::Duration;

use openraft::storage::RaftLogStorage;

use super::{append, append_durably, at, ballot, roomy, save, small};
use crate::engine::log_store::LogStore;
use crate::engine::types::{log_id_to, vote_to};
use crate::testing::disk::{FaultyDisk, Survive};

#[tokio::test]
async fn one_append_at_a_time_costs_one_sync_each() {
    let disk = roomy();
    let mut store = LogStore::open_on(&disk).unwrap();
    let before = disk.counts();
    for index in 0..100 {
        append_durably(&mut store, [small(1, index)]).await.unwrap();
    }
    store.save_vote(&vote_to(ballot(2, 1, false))).await.unwrap();
    save(&store, at(1, 50)).await.unwrap();
    let after = disk.counts();
    println!("102 groups: {} syncs, {} writes", after.syncs - before.syncs, after.writes - before.writes);
    assert_eq!((after.syncs - before.syncs, after.writes - before.writes), (102, 102));
    assert_eq!((store.stats().groups, store.stats().operations), (102, 102));
}

#[tokio::test]
async fn what_gathers_during_a_sync_is_one_group_and_nothing_is_acknowledged_before_its_sync() {
    let disk = roomy();
    let mut store = LogStore::open_on(&disk).unwrap();
    let before = disk.counts().syncs;
    let held = disk.hold_syncs();
    let mut first = append(&mut store, [small(1, 0)]).await.unwrap();
    held.wait_for_one();
    let mut others = vec![];
    for index in 1..200 {
        others.push(append(&mut store, [small(1, index)]).await.unwrap());
    }
    assert_eq!(store.get_log_state().await.unwrap().last_log_id, Some(log_id_to(at(1, 199))), "readable at once");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(first.try_recv().is_err(), "acknowledged before its sync");
    held.release_one();
    first.await.unwrap().unwrap();
    held.wait_for_one();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(others.iter_mut().all(|other| other.try_recv().is_err()), "acknowledged before its sync");
    held.release_one();
    for other in others {
        other.await.unwrap().unwrap();
    }
    assert_eq!((store.stats().groups, store.stats().operations, disk.counts().syncs - before), (2, 200, 2));
}

#[tokio::test]
async fn a_vote_and_a_snapshot_wait_for_their_sync_and_are_not_shown_before_it() {
    let disk = roomy();
    let store = LogStore::open_on(&disk).unwrap();
    let held = disk.hold_syncs();
    let mut voter = store.clone();
    let vote = tokio::spawn(async move { voter.save_vote(&vote_to(ballot(3, 2, false))).await });
    tokio::task::yield_now().await;
    held.wait_for_one();
    let snapshot = tokio::spawn({
        let store = store.clone();
        async move { save(&store, at(1, 7)).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!vote.is_finished() && !snapshot.is_finished());
    assert!(store.vote().is_none() && store.current_snapshot().is_none());
    held.release_one();
    vote.await.unwrap().unwrap();
    assert_eq!(store.vote(), Some(ballot(3, 2, false)));
    assert!(!snapshot.is_finished() && store.current_snapshot().is_none());
    drop(held);
    snapshot.await.unwrap().unwrap();
    assert_eq!(store.current_snapshot().unwrap().0.last, Some(at(1, 7)));
}

#[tokio::test]
async fn how_far_the_log_is_committed_costs_no_sync_and_rides_along() {
    let disk = roomy();
    let mut store = LogStore::open_on(&disk).unwrap();
    append_durably(&mut store, [small(1, 0), small(1, 1)]).await.unwrap();
    let before = disk.counts();
    for _ in 0..100 {
        store.save_committed(Some(log_id_to(at(1, 0)))).await.unwrap();
    }
    // An empty append is answered once everything before it has been dealt with.
    append_durably(&mut store, []).await.unwrap();
    assert_eq!(disk.counts(), before);
    append_durably(&mut store, [small(1, 2)]).await.unwrap();
    assert_eq!(disk.counts().syncs, before.syncs + 1);
    let after_a_cut = FaultyDisk::with_content(disk.image(Survive::Nothing)).with_regions_of(2048);
    let mut reopened = LogStore::open_on(&after_a_cut).unwrap();
    assert_eq!(reopened.read_committed().await.unwrap(), Some(log_id_to(at(1, 0))));
}

#[tokio::test]
async fn two_hundred_appends_on_a_file_need_far_fewer_syncs() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = LogStore::open(&folder.path().join("raft.log")).unwrap();
    let mut waiting = vec![];
    for index in 0..200 {
        waiting.push(append(&mut store, [small(1, index)]).await.unwrap());
    }
    for acknowledgement in waiting {
        acknowledgement.await.unwrap().unwrap();
    }
    let stats = store.stats();
    println!("200 appends on a file: {} groups", stats.groups);
    assert!(stats.groups <= 100 && stats.operations == 200, "{stats:?}");
}
