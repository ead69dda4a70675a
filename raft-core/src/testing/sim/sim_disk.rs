//! The storage of a simulated machine: the disk of the log and the data folder, and how slow, hung or full they are. A new
//! disk fault is a [`Pace`] here, or a fault of [`FaultyDisk`](crate::testing::disk::FaultyDisk).
//!
//! ```text
//!   group of writes ──▶ waits as long as a sync takes ──▶ written and synced, told as durable, callbacks
//!                          │ the end comes meanwhile
//!                          └▶ written up to some operation; of what was not synced, some pieces survive
//! ```

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use quorate_membership::BootId;

use super::observation::End;
use super::rng::Rng;
use crate::testing::disk::{FaultyDisk, Survive};

/// How long the disk of a machine takes for a sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Fractions of a millisecond, now and then some.
    Quick,
    /// Ten to a hundred milliseconds.
    Slow,
    /// It does not come back.
    Hung,
    /// There is no room; nothing is written until there is.
    Full,
}

/// The fate of the next sync.
pub(crate) enum Latency {
    Takes(Duration),
    Hung,
    Full,
}

/// The log of a process, as the end of its machine finds it.
pub(super) trait OpenLog: Send {
    /// Writes the group whose turn it is.
    fn write_what_waits(&mut self);

    /// Lets go of the file as it is.
    fn abandon(&mut self);
}

struct Content {
    rng: Rng,
    pace: Pace,
    /// What is on the disk, while no process has it open.
    image: Option<Vec<u8>>,
    open: Option<(FaultyDisk, Arc<Mutex<dyn OpenLog>>)>,
    folder: Option<Vec<u8>>,
    opener: Option<BootId>,
}

/// The storage of one machine.
pub(crate) struct SimDisk(Mutex<Content>);

impl SimDisk {
    pub(super) fn new(rng: Rng) -> Self {
        let content = Content { rng, pace: Pace::Quick, image: None, open: None, folder: None, opener: None };
        Self(Mutex::new(content))
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.0.lock()
    }

    /// The disk for a new process; whether it is a new one.
    pub(crate) fn disk(&self) -> (FaultyDisk, bool) {
        match self.lock().image.take() {
            Some(image) => (FaultyDisk::with_content(image), false),
            None => (FaultyDisk::new(), true),
        }
    }

    /// A process has the log open.
    pub(super) fn opened(&self, disk: FaultyDisk, task: Arc<Mutex<dyn OpenLog>>) {
        self.lock().open = Some((disk, task));
    }

    /// It has closed it.
    pub(crate) fn closed(&self) {
        let mut content = self.lock();
        if let Some((disk, _)) = content.open.take() {
            content.image = Some(disk.image(Survive::Everything));
        }
    }

    pub(crate) fn latency(&self) -> Latency {
        let mut content = self.lock();
        let us = |rng: &mut Rng, low, high| Duration::from_micros(rng.between(low, high));
        let pace = content.pace;
        let rng = &mut content.rng;
        match pace {
            Pace::Quick if rng.chance(10) => Latency::Takes(us(rng, 2_000, 20_000)),
            Pace::Quick => Latency::Takes(us(rng, 150, 900)),
            Pace::Slow => Latency::Takes(us(rng, 10_000, 100_000)),
            Pace::Hung => Latency::Hung,
            Pace::Full => Latency::Full,
        }
    }

    pub(super) fn set_pace(&self, pace: Pace) {
        self.lock().pace = pace;
    }

    /// The log's disk, while a process has it open: to set its faults.
    pub(super) fn faulty(&self) -> Option<FaultyDisk> {
        self.lock().open.as_ref().map(|(disk, _)| disk.clone())
    }

    pub(crate) fn folder(&self) -> Option<Vec<u8>> {
        self.lock().folder.clone()
    }

    pub(crate) fn set_folder(&self, bytes: Vec<u8>) {
        self.lock().folder = Some(bytes);
    }

    /// Notes the boot in which the folder was opened. Returns the one before.
    pub(crate) fn opener(&self, boot: BootId) -> Option<BootId> {
        self.lock().opener.replace(boot)
    }

    /// The process has ended: what it was writing is cut off somewhere.
    pub(super) fn end(&self, how: End) {
        let (open, cut, seed) = {
            let mut content = self.lock();
            (content.open.take(), content.rng.below(24), content.rng.draw())
        };
        let Some((disk, task)) = open else { return };
        if cut > 0 {
            disk.cut_power_at(cut);
        }
        let mut task = task.lock();
        task.write_what_waits();
        disk.cut_power_at(1);
        task.abandon();
        let survive = match how {
            End::Killed => Survive::Everything,
            End::PowerCut => Survive::Seeded(seed),
        };
        self.lock().image = Some(disk.image(survive));
    }
}
