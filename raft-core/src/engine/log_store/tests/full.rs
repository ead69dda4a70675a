//! The disk is full, at every operation in the middle of everything the store does: nothing is lost, nobody is told what is
//! not so, and when there is room again everything that was asked for is done.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use openraft::storage::{RaftLogReader, RaftLogStorage};

use super::history::{drive, picture, violations, workload};
use super::{append, append_durably, at, ballot, entry, formatted, small, snapshot};
use crate::engine::log_store::{LogStore, OpenError, Trouble};
use crate::engine::types::vote_to;
use crate::testing::disk::{FaultyDisk, Survive};

/// As many at a time: each of them mostly waits for room.
const AT_ONCE: u64 = 24;

/// Makes room once `refusals` writes were refused.
fn make_room_after(disk: &FaultyDisk, refusals: u64, over: &AtomicBool) {
    while disk.refusals() < refusals && !over.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(1));
    }
    disk.make_room();
}

/// One workload on a disk that is full from its `n`th operation on, for a while: whether it came to be full, and what is
/// wrong afterwards.
fn trial(seed: u64, n: u64) -> (bool, Vec<String>) {
    let (steps, pictures) = workload(seed, 40);
    let disk = FaultyDisk::with_content(formatted());
    let mut store = LogStore::open_on(&disk).unwrap();
    let (runtime, over) = (tokio::runtime::Builder::new_current_thread().build().unwrap(), AtomicBool::new(false));
    disk.fill_up_at(n);
    let ran = std::thread::scope(|scope| {
        scope.spawn(|| make_room_after(&disk, 1 + n % 2, &over));
        let ran = runtime.block_on(drive(&mut store, &steps));
        over.store(true, Ordering::Release);
        ran
    });
    let mut wrong = vec![];
    if ran.acknowledged != steps.len() {
        wrong.push(format!("{ran:?} of {} steps, {:?}", steps.len(), store.poisoned()));
    }
    store.close();
    for survive in [Survive::Nothing, Survive::Everything] {
        let opened = LogStore::open_on(&FaultyDisk::with_content(disk.image(survive)));
        wrong.extend(runtime.block_on(violations(opened, &pictures, &ran)));
    }
    let told = |violation| format!("workload {seed}, full at operation {n}: {violation}");
    (disk.refusals() > 0, wrong.into_iter().map(told).collect())
}

#[test]
fn a_disk_that_is_full_at_any_operation_loses_nothing_and_everything_asked_for_is_done_in_the_end() {
    let workloads = if std::env::var("QUORATE_CRASH").is_ok_and(|v| v == "full") { 8 } else { 1 };
    let (started, full) = (Instant::now(), AtomicU64::new(0));
    let mut wrong = vec![];
    for seed in 0..workloads {
        let next = AtomicU64::new(1);
        let beyond = AtomicU64::new(0);
        let work = || {
            let mut wrong = vec![];
            while beyond.load(Ordering::Acquire) < AT_ONCE {
                let (was_full, found) = trial(seed, next.fetch_add(1, Ordering::Relaxed));
                // How many operations there are depends on how much gathers in a group; so, a few beyond the last.
                let counted = if was_full { &full } else { &beyond };
                counted.fetch_add(1, Ordering::AcqRel);
                wrong.extend(found);
            }
            wrong
        };
        wrong.extend(std::thread::scope(|scope| {
            let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
        }));
    }
    let full = full.into_inner();
    println!("{workloads} workloads, full at {full} operations, {} wrong, {:?}", wrong.len(), started.elapsed());
    assert!(wrong.is_empty(), "{} violations, the first: {:#?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    assert!(full > 50);
}

#[tokio::test]
async fn nothing_is_acknowledged_while_the_disk_is_full_and_all_of_it_is_when_there_is_room() {
    let disk = FaultyDisk::with_content(formatted());
    let mut store = LogStore::open_on(&disk).unwrap();
    append_durably(&mut store, [small(1, 0)]).await.unwrap();
    let mut voter = store.clone();
    disk.fill_up_after(1 << 20);
    let large = append(&mut store, [entry(1, 1, vec![7; 2 << 20])]).await.unwrap();
    let vote = tokio::spawn(async move { voter.save_vote(&vote_to(ballot(2, 1, false))).await });
    let (meta, data) = snapshot(at(1, 0));
    let saved = store.save_snapshot(meta, data);
    let started = Instant::now();
    while disk.refusals() < 2 {
        assert!(started.elapsed() < Duration::from_secs(60), "it is never tried again");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(store.trouble(Duration::MAX), Some(Trouble::Full));
    assert_eq!((store.poisoned(), store.vote(), store.current_snapshot()), (None, None, None));
    assert!(!vote.is_finished());
    assert_eq!(store.try_get_log_entries(..).await.unwrap().len(), 2, "readable all the while");
    let image = disk.image(Survive::Everything);
    let mut reopened = LogStore::open_on(&FaultyDisk::with_content(image)).unwrap();
    assert_eq!(reopened.try_get_log_entries(..).await.unwrap(), [small(1, 0)]);
    disk.make_room();
    large.await.unwrap().unwrap();
    vote.await.unwrap().unwrap();
    saved.await.unwrap();
    append_durably(&mut store, [small(2, 2)]).await.unwrap();
    assert_eq!(store.trouble(Duration::MAX), None);
    let found = picture(&mut store).await.unwrap();
    store.close();
    let mut reopened = LogStore::open_on(&FaultyDisk::with_content(disk.image(Survive::Nothing))).unwrap();
    assert_eq!(picture(&mut reopened).await.unwrap(), found);
}

#[tokio::test]
async fn a_store_that_is_closed_on_a_full_disk_does_not_wait_and_says_what_was_not_written() {
    let disk = FaultyDisk::with_content(formatted());
    let mut store = LogStore::open_on(&disk).unwrap();
    append_durably(&mut store, [small(1, 0)]).await.unwrap();
    disk.fill_up_at(1);
    let first = append(&mut store, [small(1, 1)]).await.unwrap();
    while store.trouble(Duration::MAX).is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let second = append(&mut store, [small(1, 2)]).await.unwrap();
    store.close();
    for answer in [first, second] {
        let error = answer.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        assert!(error.to_string().contains("closed while the disk was full"), "{error}");
    }
    disk.make_room();
    let mut reopened = LogStore::open_on(&disk).unwrap();
    assert_eq!(reopened.try_get_log_entries(..).await.unwrap(), [small(1, 0)]);
}

#[tokio::test]
async fn a_log_that_is_opened_on_a_full_disk_is_not_taken_for_a_damaged_one() {
    let disk = FaultyDisk::with_content(formatted());
    let mut store = LogStore::open_on(&disk).unwrap();
    append_durably(&mut store, (0..20).map(|index| small(1, index))).await.unwrap();
    let before = picture(&mut store).await.unwrap();
    // Not closed: the next opening has something to repair.
    let image = disk.image(Survive::Everything);
    for n in 1.. {
        let disk = FaultyDisk::with_content(image.clone());
        disk.fill_up_at(n);
        match LogStore::open_on(&disk) {
            Ok(_) if disk.refusals() == 0 => break,
            Ok(_) => {}
            Err(OpenError::Io(error)) => assert_eq!(error.kind(), std::io::ErrorKind::StorageFull),
            Err(other) => panic!("operation {n}: {other}"),
        }
        disk.make_room();
        let mut opened = LogStore::open_on(&disk).unwrap();
        assert_eq!(picture(&mut opened).await.unwrap(), before, "operation {n}");
    }
}

#[tokio::test]
async fn a_write_that_does_not_end_is_noticed_after_as_long_as_one_is_ready_to_wait() {
    let disk = FaultyDisk::with_content(formatted());
    let mut store = LogStore::open_on(&disk).unwrap();
    let timeout = Duration::from_millis(50);
    let held = disk.hold_syncs();
    let answer = append(&mut store, [small(1, 0)]).await.unwrap();
    assert_eq!(store.trouble(Duration::from_secs(3600)), None);
    tokio::time::sleep(timeout * 2).await;
    assert_eq!(store.trouble(timeout), Some(Trouble::Slow(timeout)));
    drop(held);
    answer.await.unwrap().unwrap();
    append_durably(&mut store, [small(1, 1)]).await.unwrap();
    assert_eq!(store.trouble(timeout), None);
}

/// On a real file system: `QUORATE_SMALL_DISK=folder cargo test -p quorate-raft-core --lib small_disk -- --ignored`, with a
/// folder on one of a few dozen megabytes (`mount -t tmpfs -o size=48m tmpfs folder`, or an ext4 in a file).
#[tokio::test]
#[ignore = "needs a small file system of its own: QUORATE_SMALL_DISK"]
async fn a_small_disk_of_a_real_file_system_is_filled_and_cleared() {
    let folder = std::path::PathBuf::from(std::env::var("QUORATE_SMALL_DISK").unwrap());
    let (ballast, path) = (folder.join("ballast"), folder.join("raft.log"));
    let mut store = LogStore::open(&path).unwrap();
    append_durably(&mut store, [small(1, 0)]).await.unwrap();
    // All but some two megabytes.
    let free = rustix::fs::statvfs(&folder).unwrap();
    std::fs::write(&ballast, vec![1; (free.f_bavail * free.f_frsize) as usize - (2 << 20)]).unwrap();
    let mut answers = vec![];
    let started = Instant::now();
    while store.trouble(Duration::MAX).is_none() {
        assert!(started.elapsed() < Duration::from_secs(60), "it does not fill up");
        answers.push(append(&mut store, [entry(1, 1 + answers.len() as u64, vec![7; 20_000])]).await.unwrap());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(store.poisoned().is_none());
    let waiting: usize = answers.iter_mut().map(|answer| usize::from(answer.try_recv().is_err())).sum();
    println!("{} appends asked for, {waiting} of them not durable", answers.len());
    assert!(waiting > 0);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(store.trouble(Duration::MAX), Some(Trouble::Full), "and it is tried again all the while");
    std::fs::remove_file(&ballast).unwrap();
    let asked = picture(&mut store).await.unwrap();
    append_durably(&mut store, []).await.unwrap();
    assert_eq!((store.trouble(Duration::MAX), store.poisoned()), (None, None));
    store.close();
    let mut reopened = LogStore::open(&path).unwrap();
    assert_eq!(picture(&mut reopened).await.unwrap(), asked);
}
