//! The thread that writes a ledger: append only, in two bounded files, and never stopped by a disk.
//!
//! ```text
//!   queue ──▶ a batch of lines ──▶ ledger ──full──▶ renamed to ledger.1 (the one before it is gone)
//!                                    ▲                    a new ledger begins with what is still in force
//!                                    └── a write fails: logged once, the batch counts as dropped, and the next batch
//!                                        opens the file anew and notes how many are missing
//! ```

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;

use quorate_membership::{BootId, Identity, NodeId, Revision};
use tokio::sync::oneshot;

use super::note::{Entry, Note};
use super::reader::{NEW, OLD};
use crate::host::clock;

/// An order to the thread.
#[derive(Debug)]
pub(super) enum Order {
    Write(Entry),
    Close(Entry, oneshot::Sender<()>),
}

/// The longest line. A consumer names its work, and may choose long names.
const LINE: usize = 16 << 10;

/// The smallest file: a few of the longest lines.
const SMALLEST: u64 = 4 * LINE as u64;

/// The most notes written at once. Lines of ordinary length then take about one page of memory.
const BATCH: usize = 256;

/// Starts the thread. It ends when the queue has no sender left and everything in it is written.
pub(super) fn spawn(
    folder: PathBuf,
    limit: u64,
    boot: BootId,
    node: NodeId,
    dropped: Arc<AtomicU64>,
    orders: Receiver<Order>,
) -> io::Result<()> {
    let limit = limit.max(SMALLEST);
    let mut writer = Writer {
        folder,
        limit,
        boot,
        node,
        dropped,
        file: None,
        size: 0,
        head_due: false,
        failing: false,
        closed: false,
        in_force: InForce::default(),
    };
    std::thread::Builder::new().name("quorate-ledger".into()).spawn(move || writer.run(&orders))?;
    Ok(())
}

struct Writer {
    folder: PathBuf,
    limit: u64,
    boot: BootId,
    node: NodeId,
    /// How many notes were lost and not yet reported by a line.
    dropped: Arc<AtomicU64>,
    file: Option<File>,
    size: u64,
    /// The file was begun after another, and the notes in force are still to be copied to its head.
    head_due: bool,
    /// It was logged that writing fails.
    failing: bool,
    closed: bool,
    in_force: InForce,
}

impl Writer {
    fn run(&mut self, orders: &Receiver<Order>) {
        while let Ok(first) = orders.recv() {
            let (mut batch, mut next, mut closing) = (vec![], Some(first), None);
            while let Some(order) = next.take() {
                match order {
                    Order::Write(entry) => batch.push(entry),
                    Order::Close(entry, done) => {
                        batch.push(entry);
                        closing = Some(done);
                        break;
                    }
                }
                if batch.len() < BATCH {
                    next = orders.try_recv().ok();
                }
            }
            self.write(batch);
            if let Some(done) = closing {
                self.closed = true;
                let _caller_gone = done.send(());
            }
        }
        self.write(vec![]); // what was dropped after the last line
    }

    fn entry(&self, note: Note) -> Entry {
        Entry { boot: self.boot, at: clock::now().since_origin(), node: self.node, note }
    }

    /// Writes a batch, or counts it as dropped.
    fn write(&mut self, batch: Vec<Entry>) {
        let mut lines = String::new();
        let mut durable = false;
        for entry in &batch {
            durable |= entry.note.must_be_durable();
            match line(entry) {
                Some(line) => lines.push_str(&line),
                None => drop(self.dropped.fetch_add(1, Ordering::Relaxed)),
            }
        }
        let lost = self.dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let said = self.entry(Note::Dropped { notes: lost });
            lines.insert_str(0, &format!("{said}\n"));
        }
        if lines.is_empty() {
            return;
        }
        let appended = self.append(lines.as_bytes(), durable);
        // Not before: a file that is begun with this batch begins with what was in force before it.
        batch.iter().for_each(|entry| self.in_force.handle(entry));
        match appended {
            Ok(()) if self.failing => {
                self.failing = false;
                tracing::info!(folder = %self.folder.display(), "the ledger is written again");
            }
            Ok(()) => {}
            Err(error) => {
                // At the most: some of them may have come through.
                self.dropped.fetch_add(lost + batch.len() as u64, Ordering::Relaxed);
                self.file = None;
                if !std::mem::replace(&mut self.failing, true) {
                    let folder = self.folder.display();
                    tracing::error!(%error, %folder, "the ledger cannot be written; notes are lost and counted until it can");
                }
            }
        }
    }

    fn append(&mut self, bytes: &[u8], durable: bool) -> io::Result<()> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.open()?,
        };
        let longer = self.size + bytes.len() as u64;
        if self.closed && longer > 2 * self.limit {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the ledger is closed and full"));
        }
        if !self.closed && longer > self.limit && self.size > 0 && !self.head_due {
            drop(file);
            std::fs::rename(self.folder.join(NEW), self.folder.join(OLD))?;
            self.head_due = true;
            file = self.open()?;
        }
        if self.head_due {
            let head = self.head();
            file.write_all(head.as_bytes())?;
            self.size += head.len() as u64;
            self.head_due = false;
        }
        file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        if durable {
            // Of a failed sync nothing is known, and it is never repeated: the file is opened anew.
            file.sync_data()?;
        }
        self.file = Some(file);
        Ok(())
    }

    /// Opens the file, and ends a line that was torn off so that it stands by itself.
    fn open(&mut self) -> io::Result<File> {
        let path = self.folder.join(NEW);
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let found = file.metadata()?;
        self.size = if found.is_file() { found.len() } else { 0 };
        if found.is_file() && found.len() == 0 {
            File::open(&self.folder)?.sync_all()?; // so that what is synced later can be found
        }
        let mut last = [b'\n'];
        if self.size > 0 {
            file.read_exact_at(&mut last, self.size - 1)?;
        }
        if last != [b'\n'] {
            file.write_all(b"\n")?;
            self.size += 1;
        }
        Ok(file)
    }

    /// What a new file begins with, up to half of it.
    fn head(&self) -> String {
        let mut head = format!("{}\n", self.entry(Note::Rotated));
        for entry in self.in_force.entries() {
            match line(entry) {
                Some(line) if head.len() + line.len() <= (self.limit / 2) as usize => head.push_str(&line),
                _ => drop(self.dropped.fetch_add(1, Ordering::Relaxed)),
            }
        }
        head
    }
}

/// The line of an entry, its end included. A list of what is protected is shortened where it has to be; `None` for what
/// is too long all the same.
fn line(entry: &Entry) -> Option<String> {
    let fits = |line: String| Some(line).filter(|line| line.len() <= LINE);
    let whole = format!("{entry}\n");
    if whole.len() <= LINE {
        return Some(whole);
    }
    let mut shorter = entry.clone();
    let (Note::Notice { protecting, .. } | Note::Lapsed { protecting, .. }) = &mut shorter.note else { return None };
    let all = protecting.len();
    let mut room = LINE / 4; // a character may be spelt with three
    protecting.retain(|what| {
        room = room.saturating_sub(what.len() + 1);
        room > 0
    });
    protecting.push(format!("and {} more", all - protecting.len()));
    fits(format!("{shorter}\n"))
}

/// The notes that a reader needs who sees nothing of what was before them: which process, what stops it, until when it
/// holds its lease, what it protects, and whether it has been told to stop.
#[derive(Debug, Default)]
struct InForce {
    started: Option<Entry>,
    named: Option<Entry>,
    activated: Option<Entry>,
    held: Option<Entry>,
    told: Option<Entry>,
    protects: VecDeque<Entry>,
}

impl InForce {
    fn handle(&mut self, entry: &Entry) {
        let kept = || Some(entry.clone());
        match &entry.note {
            Note::Started { .. } => *self = Self { started: kept(), ..Self::default() },
            Note::Registered { .. } => self.named = kept(),
            Note::Activated { .. } | Note::Receipts { .. } => self.activated = kept(),
            Note::Held { .. } => (self.held, self.told) = (kept(), None),
            Note::Notice { .. } | Note::Lapsed { .. } => self.told = kept(),
            Note::Protects { .. } => self.protects.push_back(entry.clone()),
            Note::Stopped { who, what, token } => {
                let same = |at: &Entry| protects(at) == Some((*who, what.as_str(), *token));
                if let Some(at) = self.protects.iter().position(same) {
                    self.protects.remove(at);
                }
            }
            _ => {}
        }
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        let first = [&self.started, &self.named, &self.activated].into_iter().flatten();
        first.chain(&self.protects).chain(&self.held).chain(&self.told)
    }
}

fn protects(entry: &Entry) -> Option<(Identity, &str, Revision)> {
    match &entry.note {
        Note::Protects { who, what, token } => Some((*who, what, *token)),
        _ => None,
    }
}
