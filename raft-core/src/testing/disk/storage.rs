//! What the log asks of a disk in memory, and when the disk refuses.
//!
//! ```text
//!   write ─▶ room? ─▶ current, un-synced        no room: ENOSPC, and the first half may be there
//!   sync  ─▶ held? ─▶ un-synced becomes durable    made to fail: EIO, and the un-synced is gone
//! ```

use std::io;

use rustix::io::Errno;

use super::{Change, DiskState, FaultyDisk, PIECE};
use crate::engine::log_store::disk::Disk;

/// Sectors of a region of the log: few, so that a short log has many regions.
const REGION_SECTORS: u64 = 16;

impl Disk for FaultyDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.lock();
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let there = from.checked_add(out.len()).and_then(|to| state.current.get(from..to));
        out.copy_from_slice(there.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.lock();
        state.begin()?;
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let growth = length.saturating_sub(state.current.len());
        state.take_room(growth)?;
        state.current.resize(length, 0);
        state.unsynced.push(Change::Length(length));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.lock();
        state.counts.syncs += 1;
        let this = state.counts.syncs;
        state.begin()?;
        if state.held.is_some() {
            state.waiting += 1;
            self.moved.notify_all();
            let held = |state: &mut DiskState| state.held == Some(0);
            self.moved.wait_while(&mut state, held);
            state.waiting -= 1;
            state.held = state.held.map(|passes| passes.saturating_sub(1));
        }
        if let Some((_, errno)) = state.failing_sync.filter(|(failing, _)| *failing == this) {
            state.unsynced.clear();
            return Err(errno.into());
        }
        if !state.lies {
            for change in std::mem::take(&mut state.unsynced) {
                state.harden(change);
            }
        }
        Ok(())
    }

    fn region_sectors(&self) -> u64 {
        self.lock().region_sectors.unwrap_or(REGION_SECTORS)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        state.counts.writes += 1;
        state.begin()?;
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        if let Err(full) = state.take_room(data.len()) {
            let half = &data[..data.len() / 2 / PIECE * PIECE];
            if !half.is_empty() {
                put(&mut state.current, offset, half);
                state.unsynced.push(Change::Write(offset, half.to_vec()));
            }
            return Err(full);
        }
        put(&mut state.current, offset, data);
        state.unsynced.push(Change::Write(offset, data.to_vec()));
        Ok(())
    }
}

impl DiskState {
    fn begin(&mut self) -> io::Result<()> {
        self.counts.operations += 1;
        match self.cut_at {
            Some(cut) if self.counts.operations >= cut => Err(io::Error::other("the power was cut")),
            _ => Ok(()),
        }
    }

    fn take_room(&mut self, bytes: usize) -> io::Result<()> {
        let full = self.full_at.is_some_and(|at| self.counts.operations >= at);
        match (&mut self.room, bytes as u64) {
            (_, 0) => return Ok(()),
            (None, _) if !full => return Ok(()),
            (Some(room), bytes) if !full && bytes <= *room => {
                *room -= bytes;
                return Ok(());
            }
            _ => {}
        }
        self.refusals += 1;
        Err(Errno::NOSPC.into())
    }

    fn harden(&mut self, change: Change) {
        match change {
            Change::Write(offset, bytes) => put(&mut self.durable, offset, &bytes),
            Change::Length(length) => self.durable.resize(length, 0),
        }
    }
}

pub(super) fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}
