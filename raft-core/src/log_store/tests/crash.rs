//! The power is cut at every operation of the disk, in the middle of everything the store does.
//!
//! ```text
//!   steps   a a V a │ t a │ S p a c │ ...      each has a picture: what the log holds once it is done
//!   acknowledged ───────┘       │
//!   asked for ──────────────────┘
//!              the picture found after the cut must be one of these, whole
//! ```
//!
//! Of what was not synced, nothing, everything, or pieces chosen by a seed survive. `QUORATE_CRASH=full` takes more
//! workloads and more choices. On a disk that lies about syncing the same checks must find losses, or they have no teeth.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use openraft::storage::{RaftLogReader, RaftLogStorage};

use super::{append, ballot, entry, formatted, save};
use crate::log_store::{LogStore, OpenError};
use crate::rpc::{Ballot, Position};
use crate::testing::disk::{Disk, Survive};
use crate::types::{OrEntry, log_id_from, log_id_to, vote_to};

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<OrEntry>),
    Truncate(Position),
    Purge(Position),
    Vote(Ballot),
    Commit(Position),
    Snapshot(Position),
}

/// What the log holds, but for how far it is committed, which is promised to nobody.
#[derive(Debug, Clone, Default, PartialEq)]
struct Picture {
    entries: BTreeMap<u64, OrEntry>,
    vote: Option<Ballot>,
    purged: Option<Position>,
    snapshot: Option<Position>,
}

impl Picture {
    fn take(&mut self, step: &Step) {
        match step {
            Step::Append(entries) => self.entries.extend(entries.iter().map(|e| (e.log_id.index, e.clone()))),
            Step::Truncate(after) => drop(self.entries.split_off(&(after.index + 1))),
            Step::Purge(upto) => {
                self.entries = self.entries.split_off(&(upto.index + 1));
                self.purged = Some(*upto);
            }
            Step::Vote(vote) => self.vote = Some(*vote),
            Step::Snapshot(last) => self.snapshot = Some(*last),
            Step::Commit(_) => {}
        }
    }

    fn last(&self) -> Option<Position> {
        self.entries.values().next_back().map(|entry| log_id_from(&entry.log_id)).or(self.purged)
    }

    fn place(&self, index: u64) -> Option<Position> {
        self.entries.get(&index).map(|entry| log_id_from(&entry.log_id))
    }
}

/// splitmix64: the same numbers for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// Steps that a sound engine could take. Every entry ever written has bytes of its own.
fn workload(seed: u64, length: usize) -> (Vec<Step>, Vec<Picture>) {
    let mut dice = Dice(seed);
    let (mut now, mut term, mut committed) = (Picture::default(), 1, None::<Position>);
    let (mut steps, mut pictures) = (vec![], vec![now.clone()]);
    while steps.len() < length {
        let next = now.last().map_or(0, |last| last.index + 1);
        let floor = committed.max(now.purged).map_or(0, |floor| floor.index);
        let step = match dice.below(100) {
            0..46 => {
                let entries = (0..=dice.below(4)).map(|n| {
                    let size = [3, 40, 700, 5000][dice.below(4) as usize];
                    let mut bytes = format!("step {} entry {}", steps.len(), next + n).into_bytes();
                    bytes.resize(bytes.len() + size, n as u8);
                    entry(term, next + n, bytes)
                });
                Step::Append(entries.collect())
            }
            46..54 => {
                term += 1;
                Step::Vote(ballot(term, 1 + dice.below(3), false))
            }
            54..60 => match now.vote {
                Some(vote) if !vote.committed => Step::Vote(Ballot { committed: true, ..vote }),
                _ => continue,
            },
            60..70 => match now.place(floor + dice.below(4)) {
                Some(after) if Some(after) >= committed => Step::Truncate(after),
                _ => continue,
            },
            70..80 => match now.place(floor + 1 + dice.below(6)) {
                Some(upto) => {
                    committed = Some(upto);
                    Step::Commit(upto)
                }
                None => continue,
            },
            80..89 if committed > now.snapshot => match committed {
                Some(last) => Step::Snapshot(last),
                None => continue,
            },
            89..100 => {
                match now.snapshot.and_then(|covered| now.place(covered.index - covered.index.min(dice.below(3)))) {
                    Some(upto) if Some(upto) > now.purged => Step::Purge(upto),
                    _ => continue,
                }
            }
            _ => continue,
        };
        now.take(&step);
        steps.push(step);
        pictures.push(now.clone());
    }
    (steps, pictures)
}

/// How far a workload came: that many steps were acknowledged, that many had been asked for.
#[derive(Debug, Default)]
struct Ran {
    acknowledged: usize,
    asked: usize,
}

/// Takes the steps, up to three at a time without waiting, until the disk stops the store. Every write is in order, so
/// that an acknowledgement holds for every step before as well.
async fn run(disk: &Disk, steps: &[Step]) -> Ran {
    let mut ran = Ran::default();
    let Ok(mut store) = LogStore::open_with_backend(disk.clone()) else { return ran };
    let mut waiting = vec![];
    for (n, step) in steps.iter().enumerate() {
        let asked = match step {
            Step::Append(entries) => match append(&mut store, entries.clone()).await {
                Ok(acknowledgement) => {
                    waiting.push((n + 1, acknowledgement));
                    true
                }
                Err(_) => false,
            },
            Step::Truncate(after) => store.truncate_after(Some(log_id_to(*after))).await.is_ok(),
            Step::Purge(upto) => store.purge(log_id_to(*upto)).await.is_ok(),
            Step::Commit(upto) => store.save_committed(Some(log_id_to(*upto))).await.is_ok(),
            Step::Vote(vote) => {
                ran.asked = n + 1;
                let saved = store.save_vote(&vote_to(*vote)).await.is_ok();
                ran.acknowledged = if saved { n + 1 } else { ran.acknowledged };
                saved
            }
            Step::Snapshot(last) => {
                ran.asked = n + 1;
                let saved = save(&store, *last).await.is_ok();
                ran.acknowledged = if saved { n + 1 } else { ran.acknowledged };
                saved
            }
        };
        if asked {
            ran.asked = n + 1;
        }
        if n % 3 == 2 || !asked {
            for (upto, acknowledgement) in waiting.drain(..) {
                if acknowledgement.await.is_ok_and(|answer| answer.is_ok()) {
                    ran.acknowledged = ran.acknowledged.max(upto);
                }
            }
        }
        if !asked || store.poisoned().is_some() {
            break;
        }
    }
    ran
}

/// What is wrong with the log found on an image. Empty is good.
async fn violations(opened: Result<LogStore, OpenError>, pictures: &[Picture], ran: &Ran) -> Vec<String> {
    let mut store = match opened {
        Ok(store) => store,
        Err(error) => return vec![format!("does not open: {error}")],
    };
    let found = Picture {
        entries: store.try_get_log_entries(..).await.unwrap().into_iter().map(|e| (e.log_id.index, e)).collect(),
        vote: store.vote(),
        purged: store.get_log_state().await.unwrap().last_purged_log_id.as_ref().map(log_id_from),
        snapshot: store.current_snapshot().and_then(|(meta, _)| meta.last),
    };
    let possible = &pictures[ran.acknowledged..=ran.asked.max(ran.acknowledged)];
    if possible.contains(&found) {
        return vec![];
    }
    let mut wrong = vec![];
    if !possible.iter().any(|picture| picture.vote == found.vote) {
        wrong.push(format!("vote went back: {:?} where {:?} was acknowledged", found.vote, possible[0].vote));
    }
    if !possible.iter().any(|picture| picture.snapshot == found.snapshot) {
        wrong.push(format!("snapshot lost: {:?} where {:?} was acknowledged", found.snapshot, possible[0].snapshot));
    }
    for (index, entry) in &possible[0].entries {
        let due = possible.iter().all(|picture| picture.entries.get(index) == Some(entry));
        if due && found.entries.get(index) != Some(entry) {
            wrong.push(format!("acknowledged entry {index} lost"));
        }
    }
    for (index, entry) in &found.entries {
        if !possible.iter().any(|picture| picture.entries.get(index) == Some(entry)) {
            wrong.push(format!("entry {index} is none that should be there"));
        }
    }
    if found.purged.map(|purged| purged.index) > found.snapshot.map(|snapshot| snapshot.index) {
        wrong.push(format!("purged up to {:?}, snapshot ends at {:?}", found.purged, found.snapshot));
    }
    let last = found.entries.len() as u64 + found.purged.map_or(0, |purged| purged.index + 1);
    if last != found.entries.last_key_value().map_or(last, |(index, _)| index + 1) {
        wrong.push("a hole".into());
    }
    if wrong.is_empty() {
        wrong.push("parts of different moments".into());
    }
    wrong
}

/// Cuts the power at every `every`th operation of a workload, and looks at what is left.
#[derive(Default)]
struct Tally {
    cuts: AtomicU64,
    images: AtomicU64,
    acknowledged: AtomicU64,
}

/// Roughly: the second cut comes somewhere in the opening after the first.
const OPERATIONS_OF_AN_OPENING: u64 = 13;

fn cut_everywhere(seed: u64, length: usize, every: u64, seeds: u64, lie: bool, tally: &Tally) -> Vec<String> {
    let (steps, pictures) = workload(seed, length);
    let base = formatted();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut wrong = vec![];
    for cut in (1..).step_by(every as usize) {
        let disk = Disk::with_content(base.clone());
        if lie {
            disk.lie_about_syncs();
        }
        disk.cut_power_at(cut);
        let ran = runtime.block_on(run(&disk, &steps));
        tally.cuts.fetch_add(1, Ordering::Relaxed);
        tally.acknowledged.fetch_add(ran.acknowledged as u64, Ordering::Relaxed);
        let mut look = |image: Vec<u8>, told: String| {
            tally.images.fetch_add(1, Ordering::Relaxed);
            let opened = LogStore::open_with_backend(Disk::with_content(image));
            for violation in runtime.block_on(violations(opened, &pictures, &ran)) {
                wrong.push(format!("workload {seed}, cut at {cut}, {told}, {ran:?}: {violation}"));
            }
        };
        let choices = (0..seeds).map(|n| Survive::Seeded(cut * 1000 + n));
        for survive in [Survive::Nothing, Survive::Everything].into_iter().chain(choices) {
            look(disk.image(survive), format!("{survive:?}"));
        }
        // Once more, while the first cut is being repaired.
        let twice = Disk::with_content(disk.image(Survive::Seeded(cut)));
        let again = 1 + cut % OPERATIONS_OF_AN_OPENING;
        twice.cut_power_at(again);
        drop(LogStore::open_with_backend(twice.clone()));
        look(twice.image(Survive::Seeded(again)), format!("and again at {again}"));
        if disk.counts().operations < cut {
            return wrong;
        }
    }
    wrong
}

#[test]
fn no_power_cut_loses_what_was_acknowledged_or_shows_what_never_was() {
    let (workloads, seeds) = if std::env::var("QUORATE_CRASH").is_ok_and(|v| v == "full") { (48, 6) } else { (4, 3) };
    let (started, tally) = (Instant::now(), Tally::default());
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let half = |from| {
            let tally = &tally;
            scope.spawn(move || -> Vec<String> {
                let seeds_of_workloads = (from..workloads).step_by(2);
                seeds_of_workloads.flat_map(|seed| cut_everywhere(seed, 40, 1, seeds, false, tally)).collect()
            })
        };
        [half(0), half(1)].into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let [cuts, images, steps] =
        [&tally.cuts, &tally.images, &tally.acknowledged].map(|number| number.load(Ordering::Relaxed));
    println!(
        "{workloads} workloads, {cuts} cuts, {images} images opened, {steps} acknowledged steps checked, {} wrong, {:?}",
        wrong.len(),
        started.elapsed()
    );
    assert!(wrong.is_empty(), "{} violations, the first: {:#?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    assert!(cuts > 100 && steps > 1000);
}

#[test]
fn a_disk_that_lies_about_syncing_is_found_out() {
    let tally = Tally::default();
    let wrong = cut_everywhere(1, 40, 23, 2, true, &tally);
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
