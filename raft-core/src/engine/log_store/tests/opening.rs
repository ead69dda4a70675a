//! What is found at an opening: nothing, half a file, somebody else's, another's lock, or everything that was there.

use std::path::{Path, PathBuf};

use openraft::storage::{RaftLogReader, RaftLogStorage};
use tempfile::TempDir;

use super::{append, append_durably, at, ballot, formatted, save, small, snapshot};
use crate::engine::log_store::{LogStore, OpenError};
use crate::engine::types::{log_id_to, vote_to};
use crate::testing::disk::{FaultyDisk, Survive};

fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("raft.log");
    (folder, path)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        folder.read_dir().unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn everything_is_there_after_a_close_and_after_a_drop() {
    let (_folder, path) = place();
    let mut store = LogStore::open(&path).unwrap();
    assert_eq!((store.vote(), store.current_snapshot()), (None, None));
    append_durably(&mut store, (0..20).map(|index| small(1, index))).await.unwrap();
    store.save_vote(&vote_to(ballot(2, 3, true))).await.unwrap();
    save(&store, at(1, 9)).await.unwrap();
    store.purge(log_id_to(at(1, 4))).await.unwrap();
    store.save_committed(Some(log_id_to(at(1, 12)))).await.unwrap();
    for round in 0..2 {
        store.truncate_after(Some(log_id_to(at(1, 15)))).await.unwrap();
        assert_eq!(store.try_get_log_entries(..).await.unwrap().last(), Some(&small(1, 15)));
        match round {
            0 => store.close(),
            // Not awaited: the drop writes what is queued before it returns.
            _ => drop(append(&mut store, [small(2, 16)]).await.unwrap()),
        }
        drop(store);
        store = LogStore::open_existing(&path).unwrap();
        assert_eq!(store.vote(), Some(ballot(2, 3, true)));
        assert_eq!(store.current_snapshot(), Some(snapshot(at(1, 9))));
        assert_eq!(store.read_committed().await.unwrap(), Some(log_id_to(at(1, 12))));
        assert_eq!(store.get_log_state().await.unwrap().last_purged_log_id, Some(log_id_to(at(1, 4))));
        let there = store.try_get_log_entries(..).await.unwrap();
        // What was truncated stays on the disk until it is replaced.
        let due: Vec<_> = match round {
            0 => (5..20).map(|index| small(1, index)).collect(),
            _ => (5..16).map(|index| small(1, index)).chain([small(2, 16)]).collect(),
        };
        assert_eq!(there, due);
    }
}

/// openraft truncates before it installs a snapshot whose end differs from the log. What goes may be committed.
#[tokio::test]
async fn what_a_snapshot_replaces_is_on_the_disk_until_the_snapshot_is() {
    let (_folder, path) = place();
    let mut store = LogStore::open(&path).unwrap();
    append_durably(&mut store, (0..20).map(|index| small(1, index))).await.unwrap();
    let replaced = [(at(1, 12), 0..20), (at(1, 15), 0..20), (at(2, 30), 0..16)];
    for (last, there) in replaced {
        // One that this node takes of its own state, or that ends before, replaces nothing of it.
        store.truncate_after(Some(log_id_to(at(1, 15)))).await.unwrap();
        store.save_vote(&vote_to(ballot(last.index, 1, true))).await.unwrap();
        save(&store, last).await.unwrap();
        drop(store);
        store = LogStore::open_existing(&path).unwrap();
        let due: Vec<_> = there.map(|index| small(1, index)).collect();
        assert_eq!(store.try_get_log_entries(..).await.unwrap(), due, "with a snapshot up to {last}");
    }
}

/// A process that was killed leaves what it wrote in the kernel's cache. The next one must not promise anything on it.
#[tokio::test]
async fn what_is_found_is_durable_before_anybody_hears_of_it() {
    let disk = FaultyDisk::with_content(formatted());
    let mut store = LogStore::open_on(&disk).unwrap();
    append_durably(&mut store, [small(1, 0)]).await.unwrap();
    disk.lie_about_syncs();
    store.save_vote(&vote_to(ballot(2, 3, false))).await.unwrap();
    drop(store);
    disk.tell_the_truth_about_syncs();
    let next = LogStore::open_on(&disk).unwrap();
    assert_eq!(next.vote(), Some(ballot(2, 3, false)));
    let cut = LogStore::open_on(&FaultyDisk::with_content(disk.image(Survive::Nothing))).unwrap();
    assert_eq!(cut.vote(), next.vote(), "a vote that was found and told was lost by a power cut");
}

#[tokio::test]
async fn a_closed_store_says_so_to_every_clone_and_has_not_failed() {
    let (_folder, path) = place();
    let mut store = LogStore::open(&path).unwrap();
    let mut clone = store.clone();
    store.close();
    store.close();
    let again = LogStore::open(&path).unwrap();
    for error in [
        append(&mut clone, [small(1, 0)]).await.map(drop).unwrap_err(),
        clone.save_vote(&vote_to(ballot(1, 1, false))).await.unwrap_err(),
        store.read_vote().await.map(drop).unwrap_err(),
        save(&store, at(1, 1)).await.unwrap_err(),
    ] {
        assert_eq!(error.to_string(), "the log was closed");
    }
    assert_eq!((store.poisoned(), again.poisoned()), (None, None));
}

#[test]
fn leftovers_of_a_crash_while_the_file_was_made_are_thrown_away() {
    let (folder, path) = place();
    for (name, content) in [("raft.log.new-1-0", &b""[..]), ("raft.log.new-77-3", &formatted()[..3000])] {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    std::fs::write(folder.path().join("other.new-1-0"), b"not ours").unwrap();
    drop(LogStore::open(&path).unwrap());
    assert_eq!(names(folder.path()), ["other.new-1-0", "raft.log"]);
    std::fs::write(folder.path().join("raft.log.new-1-0"), b"half").unwrap();
    drop(LogStore::open(&path).unwrap());
    assert_eq!(names(folder.path()), ["other.new-1-0", "raft.log"]);
}

#[test]
fn no_power_cut_while_a_file_is_made_leaves_one_that_is_trusted() {
    // Why the temporary name is needed: some of what a cut leaves of a file's first moments is no log.
    let (mut refused, mut opened) = (0, 0);
    for cut in 1.. {
        let disk = FaultyDisk::new();
        disk.cut_power_at(cut);
        let whole = LogStore::open_on(&disk).is_ok();
        for survive in [Survive::Nothing, Survive::Everything, Survive::Seeded(cut)] {
            match LogStore::open_on(&FaultyDisk::with_content(disk.image(survive))) {
                Ok(store) => opened += usize::from(store.vote().is_none()),
                Err(OpenError::Damaged(_)) => refused += 1,
                Err(other) => panic!("{other}"),
            }
        }
        if whole {
            break;
        }
    }
    println!("cuts while a file is made: {opened} images opened, {refused} refused");
    assert!(refused > 0, "the temporary name is not needed any more");
}

#[test]
fn a_file_in_use_is_said_to_be_in_use_until_it_is_closed() {
    let (_folder, path) = place();
    let first = LogStore::open(&path).unwrap();
    assert!(matches!(LogStore::open(&path), Err(OpenError::InUse)));
    drop(first);
    assert!(LogStore::open(&path).is_ok());
}

#[test]
fn a_file_that_is_none_of_ours_is_damaged_and_left_alone() {
    let whole = formatted();
    for content in
        [b"".to_vec(), b"garbage".to_vec(), vec![0xa5; 100_000], whole[..4096].to_vec(), whole[..600].to_vec()]
    {
        let (folder, path) = place();
        std::fs::write(&path, &content).unwrap();
        let error = LogStore::open(&path).map(drop).unwrap_err();
        assert!(matches!(error, OpenError::Damaged(_)), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), content);
        assert_eq!(names(folder.path()), ["raft.log"]);
    }
}

#[test]
fn a_log_that_must_be_there_and_is_not_is_not_made_anew() {
    let (folder, path) = place();
    assert!(matches!(LogStore::open_existing(&path), Err(OpenError::Damaged(why)) if why.contains("is missing")));
    assert!(names(folder.path()).is_empty());
}
