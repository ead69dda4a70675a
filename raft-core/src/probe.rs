//! Measures the disk at start. A timing that the disk cannot hold makes healthy nodes look dead.
//!
//! ```text
//!   32 small writes, each with fdatasync ──▶ sorted: median │ slow (9 of 10 are faster) │ worst
//!   3 rounds, the best counts: a busy moment at the start is not the disk
//! ```
//!
//! A follower answers a heartbeat only after it has flushed what was logged before. The slow fsyncs are therefore the lower
//! bound of every interval (see [`Timing::fastest_for`]).

use std::fs::OpenOptions;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use quorate_membership::Timing;

use crate::error::StartError;

const WRITES: usize = 32;
const ROUNDS: usize = 3;

/// How long fdatasync takes after a small write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Probe {
    /// Half of the syncs were faster.
    pub median: Duration,
    /// Nine of ten syncs were faster.
    pub slow: Duration,
    /// The slowest sync of all rounds.
    pub worst: Duration,
}

/// Measures the disk of `folder` with a file of its own, which is removed again. The folder must exist. Blocks for about a
/// hundred fsyncs.
///
/// # Errors
/// When the file cannot be written or synced.
pub fn probe(folder: &Path) -> io::Result<Probe> {
    let path = folder.join("probe");
    let measured = rounds(&path);
    std::fs::remove_file(&path)?;
    measured
}

fn rounds(path: &Path) -> io::Result<Probe> {
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
    file.write_all(&[0; 4096])?;
    file.sync_all()?;
    let mut round = || -> io::Result<Probe> {
        let mut took = [Duration::ZERO; WRITES];
        for (number, took) in took.iter_mut().enumerate() {
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&[number as u8; 512])?;
            let begun = Instant::now();
            file.sync_data()?;
            *took = begun.elapsed();
        }
        took.sort_unstable();
        Ok(Probe { median: took[WRITES / 2], slow: took[WRITES * 9 / 10], worst: took[WRITES - 1] })
    };
    let mut best = round()?;
    for _ in 1..ROUNDS {
        let next = round()?;
        let worst = best.worst.max(next.worst);
        best = Probe { worst, ..if next.slow < best.slow { next } else { best } };
    }
    Ok(best)
}

/// Why the disk of `folder` does not hold a timing, with one that it holds; `None` if it does.
pub(crate) fn too_slow(folder: &Path, timing: Timing) -> Result<Option<String>, StartError> {
    let found = probe(folder).map_err(|cause| StartError::Folder { path: folder.into(), cause })?;
    if timing.holds_on(found.slow) {
        return Ok(None);
    }
    let (meant, slow) = (timing.plan().fsync, found.slow);
    let fits = match Timing::fastest_for(slow) {
        Some(fits) => format!("one with a heartbeat of {:?} would do (Timing::fastest_for)", fits.plan().heartbeat),
        None => "no timing would do; use a faster disk".into(),
    };
    Ok(Some(format!(
        "it is meant for fsyncs of {meant:?}, and on this disk one of ten takes more than {slow:?}; {fits}"
    )))
}

#[cfg(test)]
mod tests {
    use quorate_membership::{Plan, Profile};

    use super::*;

    #[test]
    fn a_probe_is_in_order_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let found = probe(folder.path()).unwrap();
        assert!(found.median <= found.slow && found.slow <= found.worst && !found.median.is_zero(), "{found:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_timing_for_a_faster_disk_does_not_hold_and_one_that_fits_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let plan = Plan { fsync: Duration::from_nanos(1), ..*Profile::Standard.timing().plan() };
        let why = too_slow(folder.path(), Timing::new(plan).unwrap()).unwrap().unwrap();
        assert!(why.contains("meant for fsyncs of 1ns") && why.contains("one with a heartbeat of"), "{why}");
    }
}
