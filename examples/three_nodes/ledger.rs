//! The resource that the worker writes to: a file that checks tokens.
//!
//! ```text
//!   r7 n1#1 5123456789        token, owner, CLOCK_MONOTONIC in ns
//!   r7 n1#1 5128471234
//!   r19 n2#1 6611223344       a larger token: from here on r7 is refused
//! ```
//!
//! Each line is written under a lock on the file, after reading the last one; a smaller token is refused. *Before*
//! that, each attempt is noted in a second file, without a lock and without a check of its token. From that file the
//! audit sees which owner was at work when, even if the ledger refused its lines.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use quorate::{Identity, Revision};

use crate::process::monotonic_ns;

/// One line of the ledger, or of the file of attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) token: Revision,
    pub(crate) owner: Identity,
    pub(crate) at: u64,
}

fn parse(line: &str) -> Result<Line> {
    let bad = || format!("`{line}` is not a line of the ledger");
    let mut words = line.split(' ');
    let mut word = || words.next().with_context(bad);
    let (token, owner, at) = (word()?.parse()?, word()?.parse()?, word()?.parse()?);
    Ok(Line { token, owner, at })
}

/// The whole ledger, in the order in which it was written.
pub(crate) fn read(path: &Path) -> Result<Vec<Line>> {
    let text = match std::fs::read_to_string(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        read => read.with_context(|| format!("reading {}", path.display()))?,
    };
    // A killed writer may have left half a line at the end. It does not count.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().filter(|line| !line.is_empty()).map(parse).collect()
}

/// Reads a growing file incrementally: each call continues where the last one stopped.
#[derive(Debug)]
pub(crate) struct Reader {
    path: PathBuf,
    offset: u64,
    lines: Vec<Line>,
}

impl Reader {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, offset: 0, lines: vec![] }
    }

    /// Every complete line so far.
    pub(crate) fn lines(&mut self) -> Result<&[Line]> {
        let mut file = match File::open(&self.path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(&self.lines),
            opened => opened.with_context(|| format!("reading {}", self.path.display()))?,
        };
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = vec![];
        file.read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let text = std::str::from_utf8(&bytes[..whole]).context("the ledger is text")?;
        for line in text.lines().filter(|line| !line.is_empty()) {
            self.lines.push(parse(line)?);
        }
        self.offset += whole as u64;
        Ok(&self.lines)
    }
}

/// The file that notes every attempt, refused or not.
pub(crate) fn attempts(path: &Path) -> PathBuf {
    path.with_extension("attempts")
}

/// Writes to the ledger for one owner under one token.
pub(crate) struct Writer {
    file: File,
    attempts: File,
    token: Revision,
    owner: Identity,
}

impl Writer {
    pub(crate) fn open(path: &Path, token: Revision, owner: Identity) -> Result<Self> {
        let file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        let attempts = OpenOptions::new().create(true).append(true).open(attempts(path))?;
        Ok(Self { file, attempts, token, owner })
    }

    /// Writes one line.
    ///
    /// # Errors
    /// If the ledger has a line with a larger token; only the attempt is noted then.
    pub(crate) fn write(&mut self) -> Result<()> {
        // One short write to a file opened for appending, so lines stay whole and in the kernel's order.
        let attempt = format!("{} {} {}\n", self.token, self.owner, monotonic_ns());
        self.attempts.write_all(attempt.as_bytes())?;
        rustix::fs::flock(&self.file, rustix::fs::FlockOperation::LockExclusive)?;
        let written = self.write_locked();
        rustix::fs::flock(&self.file, rustix::fs::FlockOperation::Unlock)?;
        written
    }

    fn write_locked(&mut self) -> Result<()> {
        let length = self.file.seek(SeekFrom::End(0))?;
        self.file.seek(SeekFrom::Start(length.saturating_sub(512)))?;
        let mut tail = String::new();
        self.file.read_to_string(&mut tail)?;
        let torn = !tail.is_empty() && !tail.ends_with('\n');
        let last = tail[..tail.rfind('\n').unwrap_or(0)].lines().last();
        if let Some(largest) = last.filter(|_| length > 0).map(parse).transpose()?.map(|line| line.token)
            && largest > self.token
        {
            bail!("{} is superseded: the ledger has seen {largest}", self.token);
        }
        // Half a line of a killed writer is terminated first.
        let start = if torn { "\n" } else { "" };
        let line = format!("{start}{} {} {}\n", self.token, self.owner, monotonic_ns());
        self.file.write_all(line.as_bytes())?;
        Ok(())
    }
}
