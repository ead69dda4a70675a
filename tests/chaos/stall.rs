//! Whether the machine itself stood still: a thread that sleeps a little and syncs a little, and notes when that took long.
//!
//! ```text
//!   sleep 20 ms ─▶ 20.1   20.1   640.3 !          somebody else has the processors
//!   sync a file ─▶  4.2    3.9     5.0   900.1 !  or the disk
//! ```
//!
//! On a shared machine a node may be silent for reasons that are nobody's fault; what happens then is counted apart.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;

use crate::log::now;

/// More than this in one place is noted, in nanoseconds.
const LONG: u64 = 300_000_000;

/// The thread, and what it noted.
#[derive(Debug)]
pub(crate) struct Stalls {
    noted: Arc<Mutex<Vec<(u64, u64)>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // It has nothing to tell but what it noted.
            let _ended = thread.join();
        }
    }
}

impl Stalls {
    /// Begins to look, at the processors and at the disk that `run` is on.
    pub(crate) fn new(run: &Path) -> Result<Self> {
        let mut file = File::create(run.join("sync"))?;
        let (noted, stop) = (Arc::<Mutex<Vec<_>>>::default(), Arc::new(AtomicBool::new(false)));
        let (notes, ends) = (noted.clone(), stop.clone());
        let look = move || {
            let mut last = now();
            let mut note = |upto: u64| {
                if upto.saturating_sub(last) > LONG {
                    notes.lock().unwrap_or_else(PoisonError::into_inner).push((last, upto));
                }
                last = upto;
            };
            for turn in 0_u64.. {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
                note(now());
                if turn.is_multiple_of(15) {
                    let written = file.rewind().and_then(|()| file.write_all(&turn.to_le_bytes()));
                    if written.and_then(|()| file.sync_data()).is_err() {
                        return; // the hosts will say so, too
                    }
                    note(now());
                }
            }
        };
        Ok(Self { noted, stop, thread: Some(std::thread::spawn(look)) })
    }

    /// From when until when it stood still.
    pub(crate) fn noted(&self) -> Vec<(u64, u64)> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
