//! A disk in memory that fails in the ways disks fail: power cut, full, broken sync, or one that lies about syncing.
//!
//! ```text
//!   write, set_len ──▶ current ──sync──▶ durable
//!                         │                 │
//!                         └── un-synced, ───┴──▶ image after a power cut = durable + some of the un-synced
//!                             in pieces of 512 bytes       (none, all, or a choice made by a seed)
//! ```
//!
//! Give a clone to the log and keep one to set its faults, to count, and to take the image that
//! a power cut would leave; [`FaultyDisk::with_content`] makes a sound disk of an image again.

mod storage;

use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::io::Errno;

use self::storage::put;
use super::sim::Rng;
use crate::engine::log_store::disk::Disk;
use crate::engine::log_store::replay::{self, Opened};
use crate::engine::log_store::{LogStore, OpenError};

impl LogStore {
    /// Opens the log on a disk in memory, or makes an empty one on it.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub(crate) fn open_on(disk: &FaultyDisk) -> Result<Self, OpenError> {
        Self::start(disk.open_log()?)
    }
}

/// What a disk writes whole or not at all.
const PIECE: usize = 512;

/// Which un-synced pieces are on the disk after a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survive {
    /// None: only what was synced.
    Nothing,
    /// All, as if the cut had come a moment later.
    Everything,
    /// Each piece of each write by the toss of a coin, the same for the same seed.
    Seeded(u64),
    /// Those pieces whose bits are set, counted from the lowest; see [`FaultyDisk::loose`].
    These(u64),
}

/// How often the disk was asked for what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls that would change the disk: writes, changes of length, syncs; those refused included.
    pub operations: u64,
    /// Writes, those refused included.
    pub writes: u64,
    /// Syncs, those refused included.
    pub syncs: u64,
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

#[derive(Debug, Default)]
struct DiskState {
    durable: Vec<u8>,
    current: Vec<u8>,
    unsynced: Vec<Change>,
    counts: Counts,
    cut_at: Option<u64>,
    room: Option<u64>,
    full_at: Option<u64>,
    failing_sync: Option<(u64, Errno)>,
    lies: bool,
    /// Sectors of a region of the log, if a test wants others than usual.
    region_sectors: Option<u64>,
    refusals: u64,
    /// How many syncs may still pass while they are held.
    held: Option<u64>,
    waiting: u64,
}

/// A disk in memory with faults to order. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct FaultyDisk {
    state: Arc<Mutex<DiskState>>,
    moved: Arc<Condvar>,
}

impl FaultyDisk {
    /// Opens the log on it, or makes an empty one.
    pub(crate) fn open_log(&self) -> Result<Opened, OpenError> {
        if self.len()? == 0 {
            replay::format(self)?;
        }
        replay::open(Box::new(self.clone()))
    }

    /// An empty, sound disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// A sound disk with this content, all of it durable.
    pub fn with_content(content: Vec<u8>) -> Self {
        let disk = Self::new();
        {
            let mut state = disk.lock();
            state.current.clone_from(&content);
            state.durable = content;
        }
        disk
    }

    /// Cuts the power at the `n`th operation from now on (the first is 1): it and everything after it fails, and nothing
    /// more gets onto the disk.
    pub fn cut_power_at(&self, n: u64) {
        let mut state = self.lock();
        state.cut_at = Some(state.counts.operations + n);
    }

    /// Lets `bytes` more be written, then answers every write with `ENOSPC`, until there is room again. Growing the file
    /// counts as writing. Of a write that is refused the first half may be there all the same.
    pub fn fill_up_after(&self, bytes: u64) {
        self.lock().room = Some(bytes);
    }

    /// As [`Self::fill_up_after`], from the `n`th operation from now on (the first is 1).
    pub fn fill_up_at(&self, n: u64) {
        let mut state = self.lock();
        state.full_at = Some(state.counts.operations + n);
    }

    /// How many writes were refused for want of room, ever.
    pub fn refusals(&self) -> u64 {
        self.lock().refusals
    }

    /// Makes room: every write finds some again.
    pub fn make_room(&self) {
        let mut state = self.lock();
        (state.room, state.full_at) = (None, None);
    }

    /// As [`Self::fail_sync`], with `ENOSPC`: what a file system says that finds out late that it has no room.
    pub fn find_no_room_at_sync(&self, n: u64) {
        let mut state = self.lock();
        state.failing_sync = Some((state.counts.syncs + n, Errno::NOSPC));
    }

    /// Answers the `n`th sync from now on (the first is 1; 0 is none) with `EIO`, drops what it should have made durable,
    /// as Linux may, and lets the later ones succeed. A store that syncs again hears that all is well, and loses data.
    pub fn fail_sync(&self, n: u64) {
        let mut state = self.lock();
        state.failing_sync = Some((state.counts.syncs + n, Errno::IO));
    }

    /// From now on a sync answers that all is well and does nothing. A test that finds no loss on such a disk would find
    /// none anywhere.
    pub fn lie_about_syncs(&self) {
        self.lock().lies = true;
    }

    /// From now on a sync makes durable what was written before, also under [`Self::lie_about_syncs`].
    pub fn tell_the_truth_about_syncs(&self) {
        self.lock().lies = false;
    }

    /// The log on this disk has regions of so many sectors, from its making on.
    #[must_use]
    pub fn with_regions_of(self, sectors: u64) -> Self {
        self.lock().region_sectors = Some(sectors);
        self
    }

    /// Makes every sync wait until it is let through.
    pub fn hold_syncs(&self) -> HeldSyncs {
        self.lock().held = Some(0);
        HeldSyncs { disk: self.clone() }
    }

    /// What it was asked for so far.
    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// How many pieces are not synced, changes of length included: 2 to the power of that many images can be left.
    pub fn loose(&self) -> usize {
        let pieces = |change: &Change| match change {
            Change::Length(_) => 1,
            Change::Write(_, bytes) => bytes.chunks(PIECE).count(),
        };
        self.lock().unsynced.iter().map(pieces).sum()
    }

    /// The content after a power cut at this moment.
    pub fn image(&self, survive: Survive) -> Vec<u8> {
        let state = self.lock();
        let mut image = state.durable.clone();
        let mut coin = Coin::new(survive);
        for change in &state.unsynced {
            match change {
                Change::Length(length) => {
                    if coin.toss() {
                        image.resize(*length, 0);
                    }
                }
                Change::Write(offset, bytes) => {
                    for (n, piece) in bytes.chunks(PIECE).enumerate() {
                        if coin.toss() {
                            put(&mut image, offset + n * PIECE, piece);
                        }
                    }
                }
            }
        }
        image
    }

    fn lock(&self) -> MutexGuard<'_, DiskState> {
        self.state.lock()
    }
}

/// Syncs that wait. Dropping it lets them, and all later ones, through.
#[derive(Debug)]
pub struct HeldSyncs {
    disk: FaultyDisk,
}

impl HeldSyncs {
    /// Lets one sync through: the one that waits, or else the next.
    pub fn release_one(&self) {
        if let Some(passes) = &mut self.disk.lock().held {
            *passes += 1;
        }
        self.disk.moved.notify_all();
    }

    /// Blocks until a sync waits.
    pub fn wait_for_one(&self) {
        let waiting = |state: &mut DiskState| state.waiting == 0;
        self.disk.moved.wait_while(&mut self.disk.lock(), waiting);
    }
}

impl Drop for HeldSyncs {
    fn drop(&mut self) {
        self.disk.lock().held = None;
        self.disk.moved.notify_all();
    }
}

/// Decides which pieces survive.
enum Coin {
    Always(bool),
    Seeded(Rng),
    Listed(u64),
}

impl Coin {
    fn new(survive: Survive) -> Self {
        match survive {
            Survive::Nothing => Self::Always(false),
            Survive::Everything => Self::Always(true),
            Survive::Seeded(seed) => Self::Seeded(Rng::new(seed)),
            Survive::These(pieces) => Self::Listed(pieces),
        }
    }

    fn toss(&mut self) -> bool {
        match self {
            Self::Always(side) => *side,
            Self::Seeded(rng) => rng.draw() & 1 == 1,
            Self::Listed(pieces) => {
                let survives = *pieces & 1 == 1;
                *pieces >>= 1;
                survives
            }
        }
    }
}
