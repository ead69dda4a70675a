//! The power is cut at every operation of the disk, in the middle of everything the store does.
//!
//! Of what was not synced, nothing, everything, or pieces chosen by a seed survive; where there are few, every choice of
//! them. What a log goes through, and what must be found afterwards, is in `history.rs`. `QUORATE_CRASH=full` takes more
//! workloads and more choices. On a disk that lies about syncing the same checks must find losses, or they have no teeth.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use openraft::storage::RaftLogStorage;

use super::history::{picture, run, violations, workload};
use super::{append_durably, formatted, small};
use crate::engine::log_store::LogStore;
use crate::testing::disk::{FaultyDisk, Survive};

/// Cuts the power at every `every`th operation of a workload, and looks at what is left.
#[derive(Default)]
struct Tally {
    cuts: AtomicU64,
    images: AtomicU64,
    acknowledged: AtomicU64,
    /// Cuts of which every image was opened that could be left.
    whole: AtomicU64,
}

/// How much is tried.
#[derive(Clone, Copy)]
struct Size {
    workloads: u64,
    /// As many seeded choices of pieces at each cut.
    seeds: u64,
    /// Up to as many un-synced pieces, every choice of them instead.
    whole: usize,
}

const EVERYDAY: Size = Size { workloads: 4, seeds: 3, whole: 2 };
const FULL: Size = Size { workloads: 144, seeds: 8, whole: 7 };

/// Roughly: the second cut comes somewhere in the opening after the first.
const OPERATIONS_OF_AN_OPENING: u64 = 13;

fn cut_everywhere(seed: u64, length: usize, every: u64, size: Size, lie: bool, tally: &Tally) -> Vec<String> {
    let (steps, pictures) = workload(seed, length);
    let base = formatted();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut wrong = vec![];
    for cut in (1..).step_by(every as usize) {
        let disk = FaultyDisk::with_content(base.clone());
        if lie {
            disk.lie_about_syncs();
        }
        disk.cut_power_at(cut);
        let ran = runtime.block_on(run(&disk, &steps));
        tally.cuts.fetch_add(1, Ordering::Relaxed);
        tally.acknowledged.fetch_add(ran.acknowledged as u64, Ordering::Relaxed);
        let mut look = |image: Vec<u8>, told: String| {
            tally.images.fetch_add(1, Ordering::Relaxed);
            let disk = FaultyDisk::with_content(image);
            let opened = LogStore::open_on(&disk);
            let mut found = runtime.block_on(violations(opened, &pictures, &ran));
            if found.is_empty() {
                found = runtime.block_on(goes_on(&disk));
            }
            found.iter().for_each(|why| wrong.push(format!("workload {seed}, cut at {cut}, {told}, {ran:?}: {why}")));
        };
        let choices: Vec<Survive> = match disk.loose() {
            loose if loose <= size.whole => {
                tally.whole.fetch_add(1, Ordering::Relaxed);
                (0..1 << loose).map(Survive::These).collect()
            }
            _ => {
                let seeded = (0..size.seeds).map(|n| Survive::Seeded(cut * 1000 + n));
                [Survive::Nothing, Survive::Everything].into_iter().chain(seeded).collect()
            }
        };
        for survive in choices {
            look(disk.image(survive), format!("{survive:?}"));
        }
        // Once more, while the first cut is being repaired.
        let twice = FaultyDisk::with_content(disk.image(Survive::Seeded(cut)));
        let again = 1 + cut % OPERATIONS_OF_AN_OPENING;
        twice.cut_power_at(again);
        drop(LogStore::open_on(&twice));
        look(twice.image(Survive::Seeded(again)), format!("and again at {again}"));
        if disk.counts().operations < cut {
            return wrong;
        }
    }
    wrong
}

/// What is wrong with a log that is written on after the cut, and opened again.
async fn goes_on(disk: &FaultyDisk) -> Vec<String> {
    let mut store = LogStore::open_on(disk).expect("it was opened before");
    let next = store.get_log_state().await.unwrap().last_log_id.map_or(0, |last| last.index + 1);
    append_durably(&mut store, [small(u64::MAX, next)]).await.unwrap();
    let due = picture(&mut store).await.unwrap();
    store.close();
    let mut reopened = match LogStore::open_on(disk) {
        Ok(reopened) => reopened,
        Err(error) => return vec![format!("written on, and then does not open: {error}")],
    };
    let there = picture(&mut reopened).await.unwrap() == due;
    (!there).then(|| "what was written after the cut is not there".into()).into_iter().collect()
}

/// Of what kind the violations are.
fn kinds(wrong: &[String]) -> Vec<String> {
    let kinds = [
        "does not open",
        "not there",
        "entries were purged up to",
        "vote went back",
        "snapshot lost",
        "acknowledged entry",
        "is none that should be there",
        "a hole",
        "parts of different moments",
    ];
    let count = |kind: &&str| wrong.iter().filter(|violation| violation.contains(*kind)).count();
    kinds.iter().filter(|kind| count(kind) > 0).map(|kind| format!("{kind}: {} times", count(kind))).collect()
}

#[test]
fn no_power_cut_loses_what_was_acknowledged_or_shows_what_never_was() {
    let full = std::env::var("QUORATE_CRASH").is_ok_and(|v| v == "full");
    let size = if full { FULL } else { EVERYDAY };
    let (started, tally) = (Instant::now(), Tally::default());
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let half = |from| {
            let tally = &tally;
            scope.spawn(move || -> Vec<String> {
                let seeds_of_workloads = (from..size.workloads).step_by(2);
                seeds_of_workloads.flat_map(|seed| cut_everywhere(seed, 40, 1, size, false, tally)).collect()
            })
        };
        [half(0), half(1)].into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let [cuts, whole, images, steps] =
        [&tally.cuts, &tally.whole, &tally.images, &tally.acknowledged].map(|number| number.load(Ordering::Relaxed));
    println!(
        "{} workloads, {cuts} cuts ({whole} with every image they could leave), {images} images opened, \
         {steps} acknowledged steps checked, {} wrong, {:?}",
        size.workloads,
        wrong.len(),
        started.elapsed()
    );
    let found = kinds(&wrong);
    assert!(wrong.is_empty(), "{found:?}, the first: {:#?}", &wrong[..wrong.len().min(5)]);
    assert!(cuts > 100 && steps > 1000 && whole > 0);
    assert!(!full || images >= 50_000, "{images}");
}

#[test]
fn a_disk_that_lies_about_syncing_is_found_out() {
    let tally = Tally::default();
    let wrong = cut_everywhere(1, 40, 23, Size { seeds: 2, whole: 0, ..EVERYDAY }, true, &tally);
    println!("on a lying disk: {} images, {} violations", tally.images.load(Ordering::Relaxed), wrong.len());
    for kind in ["vote went back", "snapshot lost", "lost"] {
        assert!(wrong.iter().any(|violation| violation.contains(kind)), "no {kind:?} among {} violations", wrong.len());
    }
}

#[test]
fn the_workloads_hold_every_kind_of_step() {
    for seed in 0..4 {
        let (steps, _) = workload(seed, 40);
        let count = |kind: &str| steps.iter().filter(|step| format!("{step:?}").starts_with(kind)).count();
        let counts = ["Append", "Truncate", "Purge", "Vote", "Commit", "Snapshot"].map(count);
        println!("workload {seed}: {counts:?} appends, truncations, purges, votes, commits, snapshots");
        assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    }
}
