//! What clients may rely on: an acknowledged write is there, a refused one never is, an unknown one is there or not; a read
//! shows a state that is at least as late as everything acknowledged before it began.
//!
//! Every answer carries its place in the log, so the log itself resolves what nobody was told (an index-witnessed history):
//! no search over orders is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate::testing::sim::{Observation, TraceEntry};
use quorate::{Event, Key, Revision, records::Value};

use super::Verdict;

/// What became of a write, as its client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// It stands there.
    Done(Revision),
    /// It has not taken effect and never will.
    Refused,
    /// Nobody can tell.
    Unknown,
}

#[derive(Default)]
struct Pages {
    /// What was written, by its value, which is never used twice.
    writes: BTreeMap<Vec<u8>, Ask>,
    reads: Vec<(Key, Option<Vec<u8>>, Revision, Revision)>,
    /// The latest revision that any client was told of.
    told: Revision,
}

/// What the clients were told. Clones are the same book.
#[derive(Clone, Default)]
pub(crate) struct Book(Arc<Mutex<Pages>>);

impl Book {
    fn lock(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wrote(&self, value: Vec<u8>, ask: Ask) {
        let mut pages = self.lock();
        if let Ask::Done(revision) = ask {
            pages.told = pages.told.max(revision);
        }
        pages.writes.insert(value, ask);
    }

    /// What anybody was told so far: a read that begins now has to show at least that.
    pub(crate) fn told(&self) -> Revision {
        self.lock().told
    }

    pub(crate) fn read(&self, key: Key, value: Option<Vec<u8>>, at: Revision, began: Revision) {
        let mut pages = self.lock();
        pages.told = pages.told.max(at);
        pages.reads.push((key, value, at, began));
    }

    /// How many writes were acknowledged, refused, unknown, and how many reads there were.
    pub(crate) fn counts(&self) -> [u64; 4] {
        let pages = self.lock();
        let of = |wanted: fn(&Ask) -> bool| pages.writes.values().filter(|ask| wanted(ask)).count() as u64;
        let done = of(|ask| matches!(ask, Ask::Done(_)));
        [done, of(|ask| *ask == Ask::Refused), of(|ask| *ask == Ask::Unknown), pages.reads.len() as u64]
    }
}

/// What the log says was written.
#[derive(Default)]
pub(crate) struct Written {
    puts: BTreeMap<Key, BTreeMap<Revision, Option<Vec<u8>>>>,
    seen: BTreeSet<Revision>,
}

impl Written {
    pub(crate) fn see(&mut self, entry: &TraceEntry) {
        let Observation::Applied { at, answer: Ok(events), .. } = &entry.seen else { return };
        let revision = Revision::new(at.index + 1);
        if !self.seen.insert(revision) {
            return;
        }
        for event in events {
            let (key, value): (&Key, Option<&Value>) = match event {
                Event::Put { key, value, .. } => (key, Some(value)),
                Event::Deleted { key } => (key, None),
                _ => continue,
            };
            let value = value.map(|value| value.as_bytes().to_vec());
            self.puts.entry(key.clone()).or_default().insert(revision, value);
        }
    }

    /// Judges the whole book by the log.
    pub(crate) fn judge(&self, book: &Book) -> Verdict {
        let pages = book.lock();
        let mut places: BTreeMap<&[u8], Vec<Revision>> = BTreeMap::new();
        for (revision, value) in self.puts.values().flatten() {
            if let Some(value) = value {
                places.entry(value).or_default().push(*revision);
            }
        }
        for (value, ask) in &pages.writes {
            let (found, text) = (places.get(value.as_slice()), String::from_utf8_lossy(value));
            match (ask, found.map(Vec::as_slice)) {
                (_, Some([_, _, ..])) => {
                    return Err(format!("violated: `{text}` was written more than once: {found:?}"));
                }
                (Ask::Done(at), Some([there])) if at == there => {}
                (Ask::Done(at), found) => {
                    return Err(format!(
                        "violated: `{text}` was acknowledged at {at}, and the log has it at {found:?}"
                    ));
                }
                (Ask::Refused, Some(at)) => {
                    return Err(format!("violated: `{text}` was refused, and the log has it at {at:?}"));
                }
                (Ask::Refused, None) | (Ask::Unknown, _) => {}
            }
        }
        for (key, value, at, began) in &pages.reads {
            if at < began {
                return Err(format!("violated: a read of {key} shows {at}, and {began} had been told before it began"));
            }
            let there = self.puts.get(key).and_then(|puts| puts.range(..=at).next_back()).and_then(|(_, v)| v.clone());
            if there != *value {
                return Err(format!("violated: a read of {key} at {at} shows {value:?}, and the log has {there:?}"));
            }
        }
        Ok(())
    }
}
