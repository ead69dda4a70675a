//! A bit is flipped, in every page of a log: that is noticed when the log is opened, or it makes no difference.
//!
//! ```text
//!   ├─ page 0 ─┼─ page 1 ─┼─ …       in each page, a bit at every so many bytes; one file for each
//!        ×          ×                 opened: damaged, and left as it is │ exactly what was there before
//! ```
//!
//! The group that was written last is no exception, although a power cut could have torn it: see `torn.rs`.
//! `QUORATE_CRASH=full` takes more bits of each page.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use openraft::storage::RaftLogStorage;

use super::history::{Picture, drive, picture, workload};
use super::{append_durably, formatted, small};
use crate::engine::log_store::{LogStore, OpenError};
use crate::engine::types::log_id_from;
use crate::testing::disk::{FaultyDisk, Survive};
use crate::testing::sim::Rng;

/// The file system's.
const PAGE: usize = 4096;

/// No opening takes as long, however busy the machine is.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A log with everything in it, and what it holds: closed, or as a power cut leaves it after its last sync.
fn recorded(seed: u64, closed: bool) -> (Vec<u8>, Picture) {
    let disk = FaultyDisk::with_content(formatted());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (steps, pictures) = workload(seed, 40);
    let mut store = LogStore::open_on(&disk).unwrap();
    assert_eq!(runtime.block_on(drive(&mut store, &steps)).acknowledged, steps.len());
    if closed {
        store.close();
    }
    (disk.image(Survive::Nothing), pictures.into_iter().next_back().unwrap())
}

#[derive(Debug, PartialEq)]
enum Found {
    Noticed,
    Harmless,
    Wrong(String),
}

/// What comes of a file with one bit flipped.
fn look(content: &[u8], byte: usize, bit: u8, expected: &Picture) -> Found {
    let mut flipped = content.to_vec();
    flipped[byte] ^= 1 << bit;
    let disk = FaultyDisk::with_content(flipped.clone());
    let mut store = match catch_unwind(AssertUnwindSafe(|| LogStore::open_on(&disk))) {
        Err(_) => return Found::Wrong("a panic escaped".into()),
        Ok(Err(OpenError::Damaged(_))) if disk.image(Survive::Everything) == flipped => return Found::Noticed,
        Ok(Err(OpenError::Damaged(why))) => return Found::Wrong(format!("damaged, and written to: {why}")),
        Ok(Err(other)) => return Found::Wrong(format!("another error: {other}")),
        Ok(Ok(store)) => store,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let found = picture(&mut store).await.unwrap();
        if found != *expected {
            return Found::Wrong("other content".into());
        }
        // What made no difference to the reader must make none to the next write.
        let last = store.get_log_state().await.unwrap().last_log_id.as_ref().map(log_id_from);
        let next = small(99, last.map_or(0, |last| last.index + 1));
        append_durably(&mut store, [next.clone()]).await.unwrap();
        store.close();
        let mut reopened = LogStore::open_on(&disk).unwrap();
        let mut grown = found;
        grown.entries.insert(next.log_id.index, next);
        match picture(&mut reopened).await.unwrap() == grown {
            true => Found::Harmless,
            false => Found::Wrong("other content after the next write".into()),
        }
    })
}

/// Noticed, harmless; and what is wrong. The pages are shared out to two threads.
fn flip_everywhere(content: &[u8], expected: &Picture, in_each_page: usize) -> ([u64; 2], Vec<String>) {
    let tally: [AtomicU64; 2] = Default::default();
    let next = AtomicUsize::new(0);
    let work = |report: std::sync::mpsc::Sender<Option<String>>| {
        loop {
            let page = next.fetch_add(1, Ordering::Relaxed);
            let from = page * PAGE;
            if from >= content.len() {
                return;
            }
            let until = content.len().min(from + PAGE);
            let stride = (until - from).div_ceil(in_each_page);
            let mut rng = Rng::new(page as u64);
            for byte in (from + rng.below(stride as u64) as usize..until).step_by(stride) {
                let bit = rng.below(8) as u8;
                let told = match look(content, byte, bit, expected) {
                    Found::Wrong(why) => Some(format!("byte {byte}, bit {bit}: {why}")),
                    found => {
                        let kind = [Found::Noticed, Found::Harmless];
                        let n = kind.iter().position(|kind| *kind == found).unwrap();
                        tally[n].fetch_add(1, Ordering::Relaxed);
                        None
                    }
                };
                report.send(told).unwrap();
            }
        }
    };
    let wrong = std::thread::scope(|scope| {
        let (report, reports) = channel();
        for report in [report.clone(), report] {
            scope.spawn(|| work(report));
        }
        let mut wrong = vec![];
        loop {
            match reports.recv_timeout(TIMEOUT) {
                Ok(told) => wrong.extend(told),
                Err(RecvTimeoutError::Disconnected) => return wrong,
                Err(RecvTimeoutError::Timeout) => {
                    // The thread that hangs would be waited for.
                    eprintln!("an opening has not ended for {TIMEOUT:?}");
                    std::process::abort();
                }
            }
        }
    });
    (tally.map(AtomicU64::into_inner), wrong)
}

fn in_each_page(everyday: usize) -> usize {
    if std::env::var("QUORATE_CRASH").is_ok_and(|v| v == "full") { everyday * 8 } else { everyday }
}

#[test]
fn a_bit_flipped_in_any_page_is_noticed_or_does_no_harm() {
    for (seed, closed) in [(0, true), (0, false), (1, false), (3, true)] {
        let started = Instant::now();
        let (content, expected) = recorded(seed, closed);
        let ([noticed, harmless], wrong) = flip_everywhere(&content, &expected, in_each_page(40));
        println!(
            "workload {seed}, {}, {} pages, {} bits flipped: {noticed} noticed, {harmless} harmless, {} wrong, {:?}",
            if closed { "closed" } else { "after a power cut" },
            content.len() / PAGE,
            noticed + harmless + wrong.len() as u64,
            wrong.len(),
            started.elapsed()
        );
        assert!(wrong.is_empty(), "{} violations, the first: {:#?}", wrong.len(), &wrong[..wrong.len().min(5)]);
        assert!(noticed > 100 && harmless > 10);
    }
}
