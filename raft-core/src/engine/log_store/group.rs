//! What is in a group: the changes that became durable together, one after the other.
//!
//! ```text
//!   group      record record record …
//!   record     ├ tag u8 ┼ length u64 ┼ bytes ┤
//!
//!   1 beginning   format u32, oldest u64, follows u64      first in every region (`stream.rs`)
//!   2 entry       StoredEntry            5 vote        StoredVote
//!   3 truncate    from u64               6 committed   StoredPosition
//!   4 purge       StoredPosition         7 snapshot    length u64 of SnapshotMeta, SnapshotMeta, the machine's envelope
//! ```

use std::sync::Arc;

use quorate_membership::codec::{CodecError, Enveloped, decode, inspect};

use crate::engine::log_store::memory::{State, follows};
use crate::engine::log_store::operation::LogChange;
use crate::engine::log_store::shape::{StoredEntry, StoredPosition, StoredVote};
use crate::engine::log_store::{OpenError, newer};
use crate::engine::types::entry_to;
use crate::rpc::{LogEntry, SnapshotMeta};

/// What this build writes, and the most that it can read.
const FORMAT: u32 = 1;

const BEGINNING: u8 = 1;
const ENTRY: u8 = 2;
const TRUNCATE: u8 = 3;
const PURGE: u8 = 4;
const VOTE: u8 = 5;
const COMMITTED: u8 = 6;
const SNAPSHOT: u8 = 7;

/// How a region begins: what is needed to read the log from here back to its oldest group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Beginning {
    /// The place of the oldest group that is needed.
    pub(super) oldest: u64,
    /// The place where the group before this one ended.
    pub(super) follows: u64,
}

/// The records of the position up to which entries were purged, of the vote, and of how far the log is committed. A new
/// region repeats them, so that no older one is needed for them.
#[derive(Debug, Clone, Default)]
pub(super) struct Carried {
    pub(super) purged: Option<Vec<u8>>,
    pub(super) vote: Option<Vec<u8>>,
    pub(super) committed: Option<Vec<u8>>,
}

pub(super) fn put_beginning(out: &mut Vec<u8>, beginning: Beginning, carried: &Carried) {
    let Beginning { oldest, follows } = beginning;
    put(out, BEGINNING, &[&FORMAT.to_le_bytes(), &oldest.to_le_bytes(), &follows.to_le_bytes()]);
    for (tag, record) in [(PURGE, &carried.purged), (VOTE, &carried.vote), (COMMITTED, &carried.committed)] {
        if let Some(record) = record {
            put(out, tag, &[record]);
        }
    }
}

pub(super) fn put_changes(out: &mut Vec<u8>, changes: &[LogChange], committed: Option<&[u8]>) {
    out.reserve(changes.iter().map(room_for).sum::<usize>() + committed.map_or(0, |record| HEAD + record.len()));
    for change in changes {
        match change {
            LogChange::Append { records } => records.iter().for_each(|(_, record)| put(out, ENTRY, &[record])),
            LogChange::Truncate { from } => put(out, TRUNCATE, &[&from.to_le_bytes()]),
            LogChange::Purge { record, .. } => put(out, PURGE, &[record]),
            LogChange::Vote { record, .. } => put(out, VOTE, &[record]),
            LogChange::Committed { record } => put(out, COMMITTED, &[record]),
            LogChange::Snapshot { record, data, .. } => {
                put(out, SNAPSHOT, &[&(record.len() as u64).to_le_bytes(), record, data]);
            }
        }
    }
    if let Some(record) = committed {
        put(out, COMMITTED, &[record]);
    }
}

/// The length of a tag and a length.
const HEAD: usize = 9;

/// How many bytes a change takes.
fn room_for(change: &LogChange) -> usize {
    match change {
        LogChange::Append { records } => records.iter().map(|(_, record)| HEAD + record.len()).sum(),
        LogChange::Truncate { .. } => HEAD + 8,
        LogChange::Purge { record, .. } | LogChange::Vote { record, .. } | LogChange::Committed { record } => {
            HEAD + record.len()
        }
        LogChange::Snapshot { record, data, .. } => HEAD + 8 + record.len() + data.len(),
    }
}

fn put(out: &mut Vec<u8>, tag: u8, parts: &[&[u8]]) {
    out.push(tag);
    let length: usize = parts.iter().map(|part| part.len()).sum();
    out.extend((length as u64).to_le_bytes());
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// What a group did, beside its changes of the state.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// How it begins, if it is the first of a region.
    pub(super) beginning: Option<Beginning>,
    /// The highest entry in it.
    pub(super) top: Option<u64>,
    /// Whether there is a snapshot in it.
    pub(super) snapshot: bool,
}

/// Only how a group begins.
///
/// # Errors
/// As [`replay`].
pub(super) fn beginning_of(payload: &[u8]) -> Result<Option<Beginning>, OpenError> {
    match Records(payload).next() {
        Some(Ok((BEGINNING, bytes))) => read_beginning(bytes).map(Some),
        Some(Ok(_)) | None => Ok(None),
        Some(Err(error)) => Err(error),
    }
}

/// Makes the changes of a group again.
///
/// # Errors
/// When a record cannot be read or does not fit. The state is then of no use.
pub(super) fn replay(payload: &[u8], state: &mut State, carried: &mut Carried) -> Result<Read, OpenError> {
    let mut read = Read::default();
    for record in Records(payload) {
        let (tag, bytes) = record?;
        match tag {
            BEGINNING => read.beginning = Some(read_beginning(bytes)?),
            ENTRY => {
                let entry = LogEntry::from(stored::<StoredEntry>("an entry", bytes)?);
                let at = entry.at;
                if let Some(last) = state.last_entry() {
                    follows(Some(last), at).map_err(OpenError::Damaged)?;
                }
                let entry = entry_to(entry).map_err(|error| damaged(format!("entry {at}: {error}")))?;
                state.entries.insert(at.index, entry);
                read.top = read.top.max(Some(at.index));
            }
            TRUNCATE => {
                let from = bytes.try_into().map(u64::from_le_bytes);
                let from = from.map_err(|_| damaged("a truncation has no place".into()))?;
                drop(state.entries.split_off(&from));
            }
            PURGE => {
                state.purged = stored::<StoredPosition>("the end of the purged", bytes)?.0;
                let kept = state.purged.map_or(0, |upto| upto.index.saturating_add(1));
                state.entries = state.entries.split_off(&kept);
                carried.purged = Some(bytes.to_vec());
            }
            VOTE => {
                state.vote = Some(stored::<StoredVote>("the vote", bytes)?.0);
                carried.vote = Some(bytes.to_vec());
            }
            COMMITTED => {
                state.committed = stored::<StoredPosition>("the end of the committed", bytes)?.0;
                carried.committed = Some(bytes.to_vec());
            }
            SNAPSHOT => {
                let (meta, data) = halves(bytes).ok_or_else(|| damaged("half of a snapshot is missing".into()))?;
                inspect(data).map_err(|error| unreadable("the snapshot", &error))?;
                state.snapshot = Some((stored::<SnapshotMeta>("what the snapshot is of", meta)?, Arc::from(data)));
                read.snapshot = true;
            }
            tag => return Err(newer(format!("a record of kind {tag}"))),
        }
    }
    Ok(read)
}

fn read_beginning(bytes: &[u8]) -> Result<Beginning, OpenError> {
    let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let format = bytes.get(..4).and_then(|four| four.try_into().ok()).map(u32::from_le_bytes);
    match (format, number(4), number(12)) {
        (Some(format), _, _) if format > FORMAT => Err(newer(format!("format {format}"))),
        (Some(_), Some(oldest), Some(follows)) => Ok(Beginning { oldest, follows }),
        _ => Err(damaged("a region begins with half a record".into())),
    }
}

/// What the snapshot is of, and its data.
fn halves(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(8)?;
    rest.split_at_checked(usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?)
}

fn stored<T: Enveloped>(name: &str, bytes: &[u8]) -> Result<T, OpenError> {
    decode(bytes).map_err(|error| unreadable(name, &error))
}

/// Content of a newer build is not damaged, and must not be wiped.
fn unreadable(name: &str, error: &CodecError) -> OpenError {
    let why = format!("{name}: {error}");
    match error {
        CodecError::Newer { .. } | CodecError::UnknownKind(_) => newer(why),
        _ => damaged(why),
    }
}

fn damaged(why: String) -> OpenError {
    OpenError::Damaged(why)
}

/// The records of a group, in order.
struct Records<'a>(&'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Result<(u8, &'a [u8]), OpenError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (&tag, rest) = self.0.split_first()?;
        let record = rest.split_at_checked(8).and_then(|(length, rest)| {
            rest.split_at_checked(usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?)
        });
        let Some((bytes, rest)) = record else {
            self.0 = &[];
            return Some(Err(damaged("a group ends in the middle of a record".into())));
        };
        self.0 = rest;
        Some(Ok((tag, bytes)))
    }
}
