//! What the store refuses, although it could write it; a refusal changes nothing.

use openraft::storage::{RaftLogReader, RaftLogStorage};
use quorate_membership::codec::{Enveloped, decode, encode};

use super::{append, append_durably, at, ballot, formatted, save, small, snapshot};
use crate::engine::log_store::LogStore;
use crate::engine::log_store::shape::{StoredEntry, StoredPosition, StoredVote};
use crate::engine::types::{OrEntry, log_id_to, vote_to};
use crate::rpc::{Body, LogEntry, Payload, VoterSets};
use crate::testing::disk::FaultyDisk;

fn open() -> LogStore {
    LogStore::open_on(&FaultyDisk::with_content(formatted())).unwrap()
}

async fn refuses(store: &mut LogStore, entries: Vec<OrEntry>, why: &str) {
    let before = store.get_log_state().await.unwrap();
    let error = append(store, entries).await.map(drop).unwrap_err().to_string();
    assert!(error.contains(why), "{error}");
    assert_eq!(store.get_log_state().await.unwrap(), before);
    assert_eq!(store.poisoned(), None);
}

#[tokio::test]
async fn a_hole_a_double_and_a_falling_term_are_refused() {
    let mut store = open();
    refuses(&mut store, vec![small(1, 1)], "t1.i1 cannot follow the beginning: entry 0 is due").await;
    append_durably(&mut store, [small(2, 0), small(2, 1)]).await.unwrap();
    refuses(&mut store, vec![small(2, 3)], "t2.i3 cannot follow t2.i1: entry 2 is due").await;
    refuses(&mut store, vec![small(2, 1)], "t2.i1 cannot follow t2.i1: entry 2 is due").await;
    refuses(&mut store, vec![small(2, 2), small(2, 4)], "t2.i4 cannot follow t2.i2: entry 3 is due").await;
    refuses(&mut store, vec![small(1, 2)], "t1.i2 cannot follow t2.i1: its term is lower").await;
    append_durably(&mut store, [small(3, 2)]).await.unwrap();
}

#[tokio::test]
async fn a_vote_is_not_taken_back() {
    let mut store = open();
    let mut try_vote = async |term, node, committed| store.save_vote(&vote_to(ballot(term, node, committed))).await;
    try_vote(5, 1, false).await.unwrap();
    try_vote(5, 1, false).await.unwrap();
    assert!(try_vote(4, 1, true).await.is_err(), "a lower term");
    assert!(try_vote(5, 2, false).await.is_err(), "two candidates in one term");
    try_vote(5, 2, true).await.unwrap();
    assert!(try_vote(5, 2, false).await.is_err(), "a leader no more");
    assert!(try_vote(5, 1, true).await.is_err(), "two leaders in one term");
    try_vote(6, 1, false).await.unwrap();
    assert_eq!(store.vote(), Some(ballot(6, 1, false)));
}

#[tokio::test]
async fn nothing_committed_is_truncated_and_nothing_uncovered_is_purged() {
    let mut store = open();
    append_durably(&mut store, (0..10).map(|index| small(1, index))).await.unwrap();
    store.save_committed(Some(log_id_to(at(1, 5)))).await.unwrap();
    let error = store.truncate_after(Some(log_id_to(at(1, 4)))).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "nothing was truncated: entries up to t1.i5 are committed or purged, and t1.i4 would be the last"
    );
    assert!(store.truncate_after(None).await.is_err());
    store.truncate_after(Some(log_id_to(at(1, 5)))).await.unwrap();
    let error = store.purge(log_id_to(at(1, 3))).await.unwrap_err().to_string();
    assert_eq!(error, "nothing was purged up to t1.i3: the saved snapshot ends at nothing");
    save(&store, at(1, 3)).await.unwrap();
    store.purge(log_id_to(at(1, 3))).await.unwrap();
    store.purge(log_id_to(at(1, 2))).await.unwrap();
    assert!(store.purge(log_id_to(at(1, 4))).await.is_err());
    assert_eq!(store.try_get_log_entries(..).await.unwrap(), [small(1, 4), small(1, 5)]);
    assert_eq!(store.get_log_state().await.unwrap().last_purged_log_id, Some(log_id_to(at(1, 3))));
}

#[tokio::test]
async fn an_earlier_snapshot_does_not_replace_a_later_one_and_junk_is_no_snapshot() {
    let store = open();
    save(&store, at(2, 9)).await.unwrap();
    save(&store, at(1, 5)).await.unwrap();
    assert_eq!(store.current_snapshot(), Some(snapshot(at(2, 9))));
    let junk = store.save_snapshot(snapshot(at(3, 12)).0, b"junk".to_vec().into()).await;
    assert_eq!(junk.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    assert_eq!(store.current_snapshot(), Some(snapshot(at(2, 9))));
}

#[tokio::test]
#[expect(clippy::reversed_empty_ranges, reason = "the engine may ask for one, and BTreeMap would panic")]
async fn a_range_that_ends_before_it_begins_is_empty() {
    let mut store = open();
    append_durably(&mut store, (0..4).map(|index| small(1, index))).await.unwrap();
    assert!(store.try_get_log_entries(3..1).await.unwrap().is_empty());
    assert!(store.try_get_log_entries(2..2).await.unwrap().is_empty());
    assert_eq!(store.try_get_log_entries(1..=2).await.unwrap().len(), 2);
    assert_eq!(store.try_get_log_entries(2..100).await.unwrap().len(), 2);
}

fn golden<T: Enveloped + PartialEq + std::fmt::Debug>(record: &T, bytes: &str) {
    let hex: String = encode(record).unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, bytes.replace(' ', ""), "{record:?}");
    assert_eq!(&decode::<T>(&encode(record).unwrap()).unwrap(), record);
}

#[test]
fn the_bytes_on_the_disk_do_not_change() {
    let voters = VoterSets {
        sets: vec![[1, 2].map(quorate_membership::NodeId::new).into()],
        nodes: [1, 2, 3].map(quorate_membership::NodeId::new).into(),
    };
    let stored = |body| StoredEntry::from(LogEntry { at: at(2, 7), body });
    golden(&stored(Body::Blank), "51525431 01 01 0300 14000000 74ccdf51  0200000000000000 0700000000000000 00000000");
    golden(
        &stored(Body::Command(Payload::new(*b"abc"))),
        "51525431 01 01 0300 1f000000 a8dec205  0200000000000000 0700000000000000 0100000003000000 00000000616263",
    );
    golden(
        &stored(Body::Configuration(voters)),
        "51525431 01 01 0300 54000000 27cb6058  0200000000000000 0700000000000000 0200000001000000 0000000002000000 0000000001000000 0000000002000000 0000000003000000 0000000001000000 0000000002000000 0000000003000000 00000000",
    );
    golden(
        &StoredVote(ballot(3, 2, true)),
        "51525431 01 01 0400 11000000 330ba4f7  0300000000000000 0200000000000000 01",
    );
    golden(&StoredPosition(None), "51525431 01 01 0500 01000000 81b31af4  00");
    golden(
        &StoredPosition(Some(at(2, 7))),
        "51525431 01 01 0500 11000000 de72e939  0102000000000000 0007000000000000 00",
    );
}
