//! Reads ledgers back, and tells lines that are whole from those torn off at the end of a process and those damaged.
//!
//! ```text
//!   … held held he          torn: the last line of a process that was killed; nothing after it was lost
//!   q1 … n3 started …       ◀─ the next process
//!   q1 … n3 hxld … 5d0f12ab damaged: something that was there cannot be read
//!   q1 … n3 held …
//! ```

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::note::{Entry, LineError, Note};

/// The file that is written.
pub(super) const NEW: &str = "ledger";

/// The one before it.
pub(super) const OLD: &str = "ledger.1";

/// The place of a line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The file.
    pub file: Arc<Path>,
    /// The number of the line in it, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// A line that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerLine {
    /// Its place.
    pub place: Place,
    /// Its content.
    pub entry: Entry,
}

impl fmt::Display for LedgerLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.entry)
    }
}

/// The content of the ledger of one data folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LedgerContent {
    /// The lines, in the order in which they were written. A line that a new file repeats is here once.
    pub lines: Vec<LedgerLine>,
    /// The number of lines torn off where a process was killed or its machine died.
    pub torn: usize,
    /// The lines that cannot be read, and why.
    pub damaged: Vec<(Place, LineError)>,
    /// Whether older lines are gone because the files are bounded.
    pub begins_later: bool,
}

impl LedgerContent {
    /// How many notes the writer could not write, at most.
    pub fn dropped(&self) -> u64 {
        let notes = |line: &LedgerLine| match line.entry.note {
            Note::Dropped { notes } => notes,
            _ => 0,
        };
        self.lines.iter().map(notes).sum()
    }
}

/// A ledger could not be read at all.
#[derive(Debug, thiserror::Error)]
#[error("the ledger {path} cannot be read: {cause}")]
pub struct Unreadable {
    /// The file or folder.
    pub path: PathBuf,
    /// The error of the system.
    pub cause: io::Error,
}

/// Reads both files of the ledger in a data folder. If it is written at the same time, it ends where it was read.
///
/// # Errors
/// [`Unreadable`] when there is no ledger, or the system refuses to read it.
pub fn read(folder: &Path) -> Result<LedgerContent, Unreadable> {
    // The new file first: should it be renamed meanwhile, its lines are seen twice, and kept once.
    let new = content(folder, NEW)?;
    let old = content(folder, OLD)?;
    if new.is_none() && old.is_none() {
        let cause = io::Error::new(io::ErrorKind::NotFound, "there is no ledger");
        return Err(Unreadable { path: folder.join(NEW), cause });
    }
    let (mut kept, mut seen) = (LedgerContent::default(), HashSet::new());
    let mut bad: Vec<(Place, LineError)> = vec![];
    let mut first = true;
    for (file, text) in [(OLD, old), (NEW, new)].into_iter().filter_map(|(name, text)| Some((name, text?))) {
        let file: Arc<Path> = folder.join(file).into();
        let mut text = text.as_slice();
        let mut number = 0;
        while !text.is_empty() {
            let end = text.iter().position(|byte| *byte == b'\n');
            let (line, rest) = text.split_at(end.unwrap_or(text.len()));
            (text, number) = (rest.get(1..).unwrap_or_default(), number + 1);
            if line.is_empty() {
                continue; // it ended a line that a failed write may have left open
            }
            let place = Place { file: file.clone(), line: number };
            let read = std::str::from_utf8(line).map_err(|_| LineError::Damaged).and_then(str::parse::<Entry>);
            match read {
                Ok(entry) => {
                    // Whatever could not be read before the start of a process is the end of the one before.
                    match entry.note {
                        Note::Started { .. } => kept.torn += bad.drain(..).count(),
                        _ => kept.damaged.append(&mut bad),
                    }
                    kept.begins_later |= first && entry.note == Note::Rotated;
                    first = false;
                    if seen.insert(entry.to_string()) {
                        kept.lines.push(LedgerLine { place, entry });
                    }
                }
                Err(LineError::Damaged) => bad.push((place, LineError::Damaged)),
                Err(unknown) => kept.damaged.push((place, unknown)),
            }
        }
    }
    kept.torn += bad.len();
    Ok(kept)
}

/// The content of a file; `None` where there is no file. A file that is not plain might never end, and is not read.
fn content(folder: &Path, name: &str) -> Result<Option<Vec<u8>>, Unreadable> {
    let path = folder.join(name);
    let read = || match std::fs::metadata(&path)?.is_file() {
        true => std::fs::read(&path),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "this is not a plain file")),
    };
    match read() {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(Unreadable { path, cause }),
    }
}

/// The notes of the last process that wrote in this folder, oldest first; none where nothing can be read. Reads no further
/// back than it has to.
pub(super) fn last_process(folder: &Path) -> Vec<Entry> {
    let mut entries = vec![];
    'files: for name in [NEW, OLD] {
        let text = match content(folder, name) {
            Ok(text) => text.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(%error, "the ledger cannot be read, so it is not known how the former process ended");
                return vec![];
            }
        };
        for line in text.rsplit(|byte| *byte == b'\n') {
            let Some(entry) = std::str::from_utf8(line).ok().and_then(|line| line.parse::<Entry>().ok()) else {
                continue;
            };
            let begins = matches!(entry.note, Note::Started { .. });
            entries.push(entry);
            if begins {
                break 'files;
            }
        }
    }
    entries.reverse();
    entries
}
