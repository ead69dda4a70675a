//! The group that was written last: torn by a power cut, or damaged after it was durable. The two are told apart.
//!
//! ```text
//!   … ─g─┼ last group, sectors ■ ■ ■ ┤      ■ ■ □   some as before the write: it never became durable; the log is without it
//!                                           ■ × ■   one is neither as before nor as written: damaged; the log is refused
//!                                           □ □ □ ■ another group stands behind it: it was durable and is lost; refused
//! ```

use openraft::storage::{RaftLogReader, RaftLogStorage};

use super::{append_durably, at, ballot, entry, formatted, save, small};
use crate::engine::log_store::{LogStore, OpenError};
use crate::engine::types::{log_id_to, vote_to};
use crate::testing::disk::{FaultyDisk, Survive};

const SECTOR: usize = 512;

/// A log of a few groups, where its last group stands in the file, and the log before that group. The last is of `bytes`.
async fn with_last_group(before: u64, bytes: usize) -> (Vec<u8>, Vec<u8>, Vec<usize>) {
    let disk = FaultyDisk::with_content(formatted());
    let mut store = LogStore::open_on(&disk).unwrap();
    store.save_vote(&vote_to(ballot(1, 1, false))).await.unwrap();
    for index in 0..before {
        append_durably(&mut store, [small(1, index)]).await.unwrap();
    }
    let without = disk.image(Survive::Nothing);
    append_durably(&mut store, [entry(1, before, vec![7; bytes])]).await.unwrap();
    let with = disk.image(Survive::Nothing);
    let same = |n: &usize| without.get(n * SECTOR..(n + 1) * SECTOR) == with.get(n * SECTOR..(n + 1) * SECTOR);
    let zero = |n: &usize| without.len() <= n * SECTOR && with[n * SECTOR..(n + 1) * SECTOR].iter().all(|b| *b == 0);
    let sectors = (0..with.len() / SECTOR).filter(|n| !same(n) && !zero(n)).collect();
    (without, with, sectors)
}

fn open(content: &[u8]) -> Result<LogStore, OpenError> {
    LogStore::open_on(&FaultyDisk::with_content(content.to_vec()))
}

async fn entries(content: &[u8]) -> usize {
    open(content).unwrap().try_get_log_entries(..).await.unwrap().len()
}

/// In the middle of a region, at the beginning of one, over several.
const LAST_GROUPS: [(u64, usize); 6] = [(3, 10), (3, 1400), (13, 1400), (14, 600), (14, 12_000), (5, 20_000)];

#[tokio::test]
async fn a_group_that_lacks_any_of_its_sectors_never_was_and_one_with_a_damaged_sector_is_refused() {
    for (before, bytes) in LAST_GROUPS {
        let (without, with, sectors) = with_last_group(before, bytes).await;
        println!("{before} groups before, the last in {} sectors", sectors.len());
        assert_eq!(entries(&with).await as u64, before + 1);
        assert_eq!(entries(&without).await as u64, before);
        for lacking in &sectors {
            // As it was before the write.
            let mut torn = with.clone();
            let range = lacking * SECTOR..(lacking + 1) * SECTOR;
            torn[range.clone()].fill(0);
            if let Some(former) = without.get(range) {
                torn[lacking * SECTOR..(lacking + 1) * SECTOR].copy_from_slice(former);
            }
            assert_eq!(entries(&torn).await as u64, before, "sector {lacking} of {sectors:?}");
            // Alone on the disk, too.
            let mut alone = without.clone();
            alone.resize(with.len(), 0);
            let range = lacking * SECTOR..(lacking + 1) * SECTOR;
            alone[range.clone()].copy_from_slice(&with[range]);
            let due = before + u64::from(sectors.len() == 1);
            assert_eq!(entries(&alone).await as u64, due, "only sector {lacking} of {sectors:?}");
        }
        for damaged in &sectors {
            for bit in [0, 31, 32 * 8 + 5, 511 * 8 + 7] {
                let mut flipped = with.clone();
                flipped[damaged * SECTOR + bit / 8] ^= 1 << (bit % 8);
                let told = open(&flipped).map(drop);
                assert!(
                    matches!(&told, Err(OpenError::Damaged(_))),
                    "bit {bit} of sector {damaged} of the last group, which was durable: {told:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_group_that_is_gone_from_before_another_is_missed() {
    let (_, with, sectors) = with_last_group(6, 10).await;
    for gone in 1..sectors[0] {
        let mut lost = with.clone();
        lost[gone * SECTOR..(gone + 1) * SECTOR].fill(0);
        assert!(matches!(open(&lost), Err(OpenError::Damaged(_))), "the sector {gone} was durable, and is empty");
    }
}

/// Wherever the log has come to, also in a region that was used before.
#[tokio::test]
async fn a_damaged_last_group_is_refused_at_any_age_of_the_log() {
    let disk = FaultyDisk::with_content(formatted());
    let mut store = LogStore::open_on(&disk).unwrap();
    let (mut before, mut flipped, mut at_a_beginning) = (disk.image(Survive::Nothing), 0, 0);
    for index in 0..300 {
        append_durably(&mut store, [entry(1, index, vec![index as u8; 100 + index as usize % 700])]).await.unwrap();
        let now = disk.image(Survive::Nothing);
        let old = |n: usize| before.get(n * SECTOR..(n + 1) * SECTOR).unwrap_or(&[0; SECTOR]);
        let written: Vec<usize> =
            (0..now.len() / SECTOR).filter(|n| now[n * SECTOR..(n + 1) * SECTOR] != *old(*n)).collect();
        for sector in &written {
            let mut damaged = now.clone();
            damaged[sector * SECTOR + 40] ^= 4;
            assert!(
                matches!(open(&damaged), Err(OpenError::Damaged(_))),
                "entry {index}: sector {sector} of {written:?}, of the last group, which was durable"
            );
            flipped += 1;
            at_a_beginning += usize::from(sector % 16 == 0);
        }
        before = now;
        if index % 10 == 9 {
            save(&store, at(1, index - 3)).await.unwrap();
            store.purge(log_id_to(at(1, index - 5))).await.unwrap();
            before = disk.image(Survive::Nothing);
        }
    }
    println!("{flipped} sectors of last groups damaged, {at_a_beginning} of them at the beginning of a region");
    assert!(at_a_beginning > 10);
}

#[tokio::test]
async fn a_long_log_whose_beginning_is_purged_again_and_again_stays_small_and_sound() {
    let disk = FaultyDisk::with_content(formatted());
    let mut store = LogStore::open_on(&disk).unwrap();
    let mut largest = 0;
    for index in 0..2_000 {
        append_durably(&mut store, [entry(1, index, vec![index as u8; 300])]).await.unwrap();
        if index % 50 == 49 {
            save(&store, at(1, index - 10)).await.unwrap();
            store.purge(log_id_to(at(1, index - 20))).await.unwrap();
        }
        if index % 97 == 0 {
            let mut found = LogStore::open_on(&FaultyDisk::with_content(disk.image(Survive::Nothing))).unwrap();
            let due = store.try_get_log_entries(..).await.unwrap();
            let there = found.try_get_log_entries(..).await.unwrap();
            assert_eq!(there.last(), due.last());
            largest = largest.max(disk.image(Survive::Nothing).len());
        }
    }
    println!("2000 entries of 300 bytes, at most 70 of them kept: {largest} bytes at most");
    assert!(largest < 200_000, "regions are used again");
}
