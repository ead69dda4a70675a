//! What a log goes through in the trials of its disk: steps that a sound engine could take, and a picture after each.
//!
//! ```text
//!   steps   a a V a │ t a │ S p a c │ ...      each has a picture: what the file holds once it is done
//!   acknowledged ───────┘       │
//!   asked for ──────────────────┘
//!              the picture found on the disk must be one of these, whole
//! ```

use std::collections::BTreeMap;
use std::io;

use futures_util::future::BoxFuture;
use openraft::storage::{RaftLogReader, RaftLogStorage};

use super::{append, append_durably, ballot, entry, snapshot};
use crate::engine::log_store::{LogStore, OpenError};
use crate::engine::types::{OrEntry, log_id_from, log_id_to, vote_to};
use crate::rpc::{Ballot, Position};
use crate::testing::disk::FaultyDisk;
use crate::testing::sim::Rng;

#[derive(Debug, Clone)]
pub(super) enum Step {
    Append(Vec<OrEntry>),
    Truncate(Position),
    Purge(Position),
    Vote(Ballot),
    Commit(Position),
    Snapshot(Position),
}

/// What the log holds, but for how far it is committed, which is promised to nobody.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Picture {
    pub(super) entries: BTreeMap<u64, OrEntry>,
    pub(super) vote: Option<Ballot>,
    pub(super) purged: Option<Position>,
    pub(super) snapshot: Option<Position>,
}

/// What a store holds in memory, and what its file does.
#[derive(Default)]
struct Both {
    memory: Picture,
    file: Picture,
    /// From where the file is to be truncated, once it is written what replaces the entries that go.
    truncates: Option<u64>,
}

impl Both {
    fn take(&mut self, step: &Step) {
        let before = self.memory.last();
        self.memory.take(step);
        let replaced = match step {
            Step::Truncate(after) => {
                // The log is whole up to its end, so a later truncation goes further back than an earlier one.
                self.truncates = if before > Some(*after) { Some(after.index + 1) } else { self.truncates };
                return;
            }
            Step::Append(_) => true,
            Step::Snapshot(last) => self.truncates.is_some_and(|from| last.index >= from),
            _ => false,
        };
        if let Some(from) = self.truncates.filter(|_| replaced) {
            drop(self.file.entries.split_off(&from));
            self.truncates = None;
        }
        self.file.take(step);
    }
}

impl Picture {
    fn take(&mut self, step: &Step) {
        match step {
            Step::Append(entries) => self.entries.extend(entries.iter().map(|e| (e.log_id.index, e.clone()))),
            Step::Truncate(after) => drop(self.entries.split_off(&(after.index + 1))),
            Step::Purge(upto) => {
                self.entries = self.entries.split_off(&(upto.index + 1));
                self.purged = Some(*upto);
            }
            Step::Vote(vote) => self.vote = Some(*vote),
            Step::Snapshot(last) => self.snapshot = Some(*last),
            Step::Commit(_) => {}
        }
    }

    fn last(&self) -> Option<Position> {
        self.entries.values().next_back().map(|entry| log_id_from(&entry.log_id)).or(self.purged)
    }

    fn place(&self, index: u64) -> Option<Position> {
        self.entries.get(&index).map(|entry| log_id_from(&entry.log_id))
    }
}

/// Steps that a sound engine could take. Every entry ever written has bytes of its own.
pub(super) fn workload(seed: u64, length: usize) -> (Vec<Step>, Vec<Picture>) {
    let mut rng = Rng::new(seed);
    let (mut both, mut term, mut committed) = (Both::default(), 1, None::<Position>);
    let (mut steps, mut pictures) = (vec![], vec![both.file.clone()]);
    while steps.len() < length {
        let now = &both.memory;
        let next = now.last().map_or(0, |last| last.index + 1);
        let floor = committed.max(now.purged).map_or(0, |floor| floor.index);
        let step = match rng.below(100) {
            0..46 => {
                let entries = (0..=rng.below(4)).map(|n| {
                    let size = [3, 40, 700, 5000][rng.below(4) as usize];
                    let mut bytes = format!("step {} entry {}", steps.len(), next + n).into_bytes();
                    bytes.resize(bytes.len() + size, n as u8);
                    entry(term, next + n, bytes)
                });
                Step::Append(entries.collect())
            }
            46..54 => {
                term += 1;
                Step::Vote(ballot(term, 1 + rng.below(3), false))
            }
            54..60 => match now.vote {
                Some(vote) if !vote.committed => Step::Vote(Ballot { committed: true, ..vote }),
                _ => continue,
            },
            60..70 => match now.place(floor + rng.below(4)) {
                Some(after) if Some(after) >= committed => Step::Truncate(after),
                _ => continue,
            },
            70..80 => match now.place(floor + 1 + rng.below(6)) {
                Some(upto) => {
                    committed = Some(upto);
                    Step::Commit(upto)
                }
                None => continue,
            },
            80..89 if committed > now.snapshot => match committed {
                Some(last) => Step::Snapshot(last),
                None => continue,
            },
            89..100 => {
                match now.snapshot.and_then(|covered| now.place(covered.index - covered.index.min(rng.below(3)))) {
                    Some(upto) if Some(upto) > now.purged => Step::Purge(upto),
                    _ => continue,
                }
            }
            _ => continue,
        };
        both.take(&step);
        steps.push(step);
        pictures.push(both.file.clone());
    }
    (steps, pictures)
}

/// How far a workload came: that many steps were acknowledged, that many had been asked for.
#[derive(Debug, Default)]
pub(super) struct Ran {
    pub(super) acknowledged: usize,
    pub(super) asked: usize,
}

/// Opens the log on `disk` and takes the steps.
pub(super) async fn run(disk: &FaultyDisk, steps: &[Step]) -> Ran {
    match LogStore::open_on(disk) {
        Ok(mut store) => drive(&mut store, steps).await,
        Err(_) => Ran::default(),
    }
}

/// Takes the steps, up to three at a time without waiting, until the disk stops the store. Every write is in order, so
/// that an acknowledgement holds for every step before as well.
pub(super) async fn drive(store: &mut LogStore, steps: &[Step]) -> Ran {
    let mut ran = Ran::default();
    let mut waiting: Vec<(usize, BoxFuture<'static, bool>)> = vec![];
    for (n, step) in steps.iter().enumerate() {
        let asked = match step {
            Step::Append(entries) => match append(store, entries.clone()).await {
                Ok(answer) => {
                    let durable = async { answer.await.is_ok_and(|answer| answer.is_ok()) };
                    waiting.push((n + 1, Box::pin(durable)));
                    true
                }
                Err(_) => false,
            },
            Step::Truncate(after) => store.truncate_after(Some(log_id_to(*after))).await.is_ok(),
            Step::Purge(upto) => store.purge(log_id_to(*upto)).await.is_ok(),
            Step::Commit(upto) => store.save_committed(Some(log_id_to(*upto))).await.is_ok(),
            Step::Vote(vote) => {
                ran.asked = n + 1;
                let saved = store.save_vote(&vote_to(*vote)).await.is_ok();
                ran.acknowledged = if saved { n + 1 } else { ran.acknowledged };
                saved
            }
            // Asked for by the call, whether or not its answer is waited for.
            Step::Snapshot(last) => {
                let (meta, data) = snapshot(*last);
                let saved = store.save_snapshot(meta, data);
                waiting.push((n + 1, Box::pin(async { saved.await.is_ok() })));
                store.poisoned().is_none()
            }
        };
        ran.asked = if asked { n + 1 } else { ran.asked };
        if n % 3 == 2 || !asked {
            for (upto, durable) in waiting.drain(..) {
                ran.asked = ran.asked.max(upto);
                ran.acknowledged = if durable.await { ran.acknowledged.max(upto) } else { ran.acknowledged };
            }
        }
        if !asked || store.poisoned().is_some() {
            return ran;
        }
    }
    // Answered once everything before it has been dealt with.
    if append_durably(store, []).await.is_ok() {
        ran.acknowledged = ran.asked;
    }
    ran
}

/// What the log holds now.
pub(super) async fn picture(store: &mut LogStore) -> io::Result<Picture> {
    Ok(Picture {
        entries: store.try_get_log_entries(..).await?.into_iter().map(|e| (e.log_id.index, e)).collect(),
        vote: store.vote(),
        purged: store.get_log_state().await?.last_purged_log_id.as_ref().map(log_id_from),
        snapshot: store.current_snapshot().and_then(|(meta, _)| meta.last),
    })
}

/// What is wrong with the log found on an image. Empty is good.
pub(super) async fn violations(opened: Result<LogStore, OpenError>, pictures: &[Picture], ran: &Ran) -> Vec<String> {
    let mut store = match opened {
        Ok(store) => store,
        Err(error) => return vec![format!("does not open: {error}")],
    };
    let found = picture(&mut store).await.unwrap();
    let possible = &pictures[ran.acknowledged..=ran.asked.max(ran.acknowledged)];
    if possible.contains(&found) {
        return vec![];
    }
    let mut wrong = vec![];
    if !possible.iter().any(|picture| picture.vote == found.vote) {
        wrong.push(format!("vote went back: {:?} where {:?} was acknowledged", found.vote, possible[0].vote));
    }
    if !possible.iter().any(|picture| picture.snapshot == found.snapshot) {
        wrong.push(format!("snapshot lost: {:?} where {:?} was acknowledged", found.snapshot, possible[0].snapshot));
    }
    for (index, entry) in &possible[0].entries {
        let due = possible.iter().all(|picture| picture.entries.get(index) == Some(entry));
        if due && found.entries.get(index) != Some(entry) {
            wrong.push(format!("acknowledged entry {index} lost"));
        }
    }
    for (index, entry) in &found.entries {
        if !possible.iter().any(|picture| picture.entries.get(index) == Some(entry)) {
            wrong.push(format!("entry {index} is none that should be there"));
        }
    }
    if found.purged.map(|purged| purged.index) > found.snapshot.map(|snapshot| snapshot.index) {
        wrong.push(format!("purged up to {:?}, snapshot ends at {:?}", found.purged, found.snapshot));
    }
    let last = found.entries.len() as u64 + found.purged.map_or(0, |purged| purged.index + 1);
    if last != found.entries.last_key_value().map_or(last, |(index, _)| index + 1) {
        wrong.push("a hole".into());
    }
    if wrong.is_empty() {
        wrong.push("parts of different moments".into());
    }
    wrong
}
