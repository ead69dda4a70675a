//! The stream of groups, and the regions of the file that hold it.
//!
//! ```text
//!   places    0 ········ S ········ 2S ········ 3S ········ 4S         S sectors a region, 1 MiB
//!   groups    ├g┼─g─┼g┤··├B┼──g───────┼g┼g┤·····├B┼g┼ next             a group is one write and one sync
//!                        ▲ a region begins with a beginning            the rest of a region stays empty if the next
//!             └ oldest that is needed                                  group does not fit into it
//!
//!   file      │ region 3 │ region 1 │ free │ region 2 │                regions stand anywhere
//! ```
//!
//! A group never begins in the middle of a write of another, and at most one is on its way to the disk. What is needed of
//! the past is a stretch of the stream without a hole: from the first group that has an entry not purged, or the snapshot, to
//! the last. A region before that stretch is free. It is used again only once a *later* beginning that names the newer oldest
//! group is durable: until then a power cut may bring back the earlier one.
//!
//! A new region is filled with zeros when the file grows, so that later writes change no metadata of the file system and a
//! sync has only the data to write.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;

use crate::engine::log_store::disk::{Disk, WriteError};
use crate::engine::log_store::group::{Beginning, Carried, put_beginning, put_changes};
use crate::engine::log_store::operation::LogChange;
use crate::engine::log_store::sector::{SECTOR, lay_out, sectors_for};

/// The file grows by this part of its length, and by one region at the least, so that a long log grows seldom.
const GROWTH: u64 = 8;

/// It never grows by more regions at once than this or than a group needs: all of it is zeroed while that group waits.
const LARGEST_GROWTH: u64 = 4;

/// The first group of a region, and what is in those that begin in it.
#[derive(Debug, Clone, Copy)]
struct Start {
    place: u64,
    /// The highest entry among them.
    top: Option<u64>,
}

/// The log as a stream of groups on a disk.
#[derive(Debug)]
pub(crate) struct Stream {
    disk: Box<dyn Disk>,
    /// Where the last group ended.
    next: u64,
    /// Which region of the stream stands where in the file.
    slots: BTreeMap<u64, u64>,
    /// The regions of the file that hold nothing that is needed.
    free: BTreeSet<u64>,
    /// The regions in which a group begins, the oldest first.
    starts: VecDeque<Start>,
    /// The group that holds the snapshot.
    snapshot: Option<u64>,
    purged: Option<u64>,
    carried: Carried,
}

/// What the replay has found of a group.
pub(super) struct Found {
    pub(super) place: u64,
    pub(super) top: Option<u64>,
    pub(super) snapshot: bool,
}

impl Stream {
    /// A stream that goes on at `next`, on a disk where the regions stand as `slots` says and nothing else is needed.
    pub(super) fn new(disk: Box<dyn Disk>, next: u64, slots: BTreeMap<u64, u64>, free: BTreeSet<u64>) -> Self {
        let (starts, carried) = Default::default();
        Self { disk, next, slots, free, starts, snapshot: None, purged: None, carried }
    }

    /// Takes note of a group that was found on the disk, and at the end of what is carried on.
    pub(super) fn note(&mut self, groups: impl IntoIterator<Item = Found>, carried: Carried, purged: Option<u64>) {
        groups.into_iter().for_each(|found| self.began(&found));
        (self.carried, self.purged) = (carried, purged);
    }

    /// Makes the changes durable, all or none: one write, one sync. The file may grow before.
    ///
    /// # Errors
    /// [`WriteError::Full`]: the same changes may be given again. [`WriteError::Final`]: nothing may be given any more.
    pub(crate) fn append(&mut self, changes: &[LogChange], committed: Option<&[u8]>) -> Result<(), WriteError> {
        let mut payload = vec![];
        put_changes(&mut payload, changes, committed);
        let mut place = self.next;
        let mut oldest = None;
        if sectors_for(payload.len() as u64) > self.rest_of_region() {
            place = self.next.next_multiple_of(self.region());
            let beginning = Beginning { oldest: self.oldest().unwrap_or(place), follows: self.next };
            payload.clear();
            put_beginning(&mut payload, beginning, &self.carried);
            put_changes(&mut payload, changes, committed);
            oldest = Some(beginning.oldest);
        }
        if quorate_membership::mutant!("region_used_too_early")
            && let Some(oldest) = oldest
        {
            self.release(oldest);
        }
        let end = place + sectors_for(payload.len() as u64);
        let taken = self.room_for(place, end)?;
        self.write(place, &lay_out(place, &payload), &taken)?;
        self.sync()?;
        self.free.retain(|slot| taken.iter().all(|(_, used)| used != slot));
        self.slots.extend(taken);
        self.next = end;
        let top = changes.iter().filter_map(LogChange::top).max();
        let snapshot = changes.iter().any(|change| matches!(change, LogChange::Snapshot { .. }));
        self.began(&Found { place, top, snapshot });
        self.carry(changes, committed);
        if let Some(oldest) = oldest {
            self.release(oldest);
        }
        Ok(())
    }

    fn region(&self) -> u64 {
        self.disk.region_sectors()
    }

    /// How many sectors are left in the region in which the last group ended.
    fn rest_of_region(&self) -> u64 {
        match self.next % self.region() {
            0 => 0,
            used => self.region() - used,
        }
    }

    /// The first group that is needed.
    fn oldest(&self) -> Option<u64> {
        let ends = self.starts.iter().skip(1).map(|start| start.place).chain([self.next]);
        let needed = |(start, end): &(&Start, u64)| {
            let entries = start.top.is_some_and(|top| self.purged.is_none_or(|purged| top > purged));
            entries || self.snapshot.is_some_and(|snapshot| (start.place..*end).contains(&snapshot))
        };
        self.starts.iter().zip(ends).find(needed).map(|(start, _)| start.place)
    }

    /// Places in the file for the regions of a group that have none. The file grows if it must.
    fn room_for(&mut self, place: u64, end: u64) -> Result<Vec<(u64, u64)>, WriteError> {
        let regions = place / self.region()..end.div_ceil(self.region());
        let new: Vec<u64> = regions.filter(|region| !self.slots.contains_key(region)).collect();
        let missing = (new.len() as u64).saturating_sub(self.free.len() as u64);
        if missing > 0 {
            let there = (self.slots.len() + self.free.len()) as u64;
            self.grow(missing.max(LARGEST_GROWTH.min(there / GROWTH)))?;
        }
        Ok(new.into_iter().zip(self.free.iter().copied()).collect())
    }

    fn grow(&mut self, regions: u64) -> Result<(), WriteError> {
        let bytes = self.region() * SECTOR as u64;
        let length = self.disk.len().map_err(WriteError::Final)?;
        self.disk.set_len(length + regions * bytes).map_err(WriteError::of_write)?;
        // The length first: a file whose length is not a whole number of regions was cut.
        self.sync()?;
        let zeros = vec![0; usize::try_from(bytes).unwrap_or(0)];
        for region in 0..regions {
            if let Err(error) = self.disk.write(length + region * bytes, &zeros) {
                // A later call begins again from the length before.
                self.disk.set_len(length).map_err(WriteError::Final)?;
                return Err(WriteError::of_write(error));
            }
        }
        let first = length / bytes;
        self.free.extend(first..first + regions);
        Ok(())
    }

    fn write(&self, place: u64, sectors: &[u8], taken: &[(u64, u64)]) -> Result<(), WriteError> {
        let region = self.region();
        let mut rest = sectors;
        let mut at = place;
        while !rest.is_empty() {
            let left = usize::try_from(region - at % region).unwrap_or(usize::MAX).saturating_mul(SECTOR);
            let (now, later) = rest.split_at(rest.len().min(left));
            let slot = self.slots.get(&(at / region)).copied();
            let slot = slot.or_else(|| taken.iter().find(|(new, _)| *new == at / region).map(|(_, slot)| *slot));
            let slot = slot.ok_or_else(|| WriteError::Final(io::Error::other("a group has no place in the file")))?;
            let offset = (slot * region + at % region) * SECTOR as u64;
            self.disk.write(offset, now).map_err(WriteError::of_write)?;
            at += (now.len() / SECTOR) as u64;
            rest = later;
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), WriteError> {
        if quorate_membership::mutant!("fsync_skipped") {
            return Ok(());
        }
        if quorate_membership::mutant!("sync_error_retried") {
            return self.disk.sync().map_err(WriteError::Full);
        }
        self.disk.sync().map_err(WriteError::Final)
    }

    /// A group is durable at its place.
    fn began(&mut self, found: &Found) {
        let region = self.region();
        match self.starts.back_mut() {
            Some(last) if last.place / region == found.place / region => last.top = last.top.max(found.top),
            _ => self.starts.push_back(Start { place: found.place, top: found.top }),
        }
        if found.snapshot {
            self.snapshot = Some(found.place);
        }
    }

    /// What the next region repeats.
    fn carry(&mut self, changes: &[LogChange], committed: Option<&[u8]>) {
        for change in changes {
            match change {
                LogChange::Purge { upto, record } => {
                    self.purged = Some(upto.index);
                    self.carried.purged = Some(record.clone());
                }
                LogChange::Vote { record, .. } => self.carried.vote = Some(record.clone()),
                LogChange::Committed { record } => self.carried.committed = Some(record.clone()),
                LogChange::Append { .. } | LogChange::Truncate { .. } | LogChange::Snapshot { .. } => {}
            }
        }
        if let Some(record) = committed {
            self.carried.committed = Some(record.to_vec());
        }
    }

    /// A durable beginning says that nothing before `oldest` is needed.
    fn release(&mut self, oldest: u64) {
        let needed = self.slots.split_off(&(oldest / self.region()));
        let free = std::mem::replace(&mut self.slots, needed);
        self.free.extend(free.into_values());
        self.starts.retain(|start| start.place >= oldest);
    }
}
