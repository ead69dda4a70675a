//! The durable log, tried: openraft's own suite, power cuts, broken disks, groups, openings, and the rules.

mod crash;
mod faults;
mod flips;
mod full;
mod groups;
mod history;
mod opening;
mod rules;
mod suite;
mod torn;

use std::io;
use std::sync::Arc;

use openraft::entry::{EntryPayload, RaftEntry};
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::type_config::alias::OneshotReceiverOf;
use quorate_membership::NodeId;
use quorate_membership::codec::encode;

use crate::engine::log_store::LogStore;
use crate::engine::types::{OrEntry, Types, log_id_to};
use crate::rpc::{Ballot, Payload, Position, SnapshotMeta};
use crate::testing::disk::FaultyDisk;

type Acknowledgement = OneshotReceiverOf<Types, Result<(), io::Error>>;

fn at(term: u64, index: u64) -> Position {
    Position { term, index }
}

fn ballot(term: u64, node: u64, committed: bool) -> Ballot {
    Ballot { term, node: NodeId::new(node), committed }
}

fn entry(term: u64, index: u64, bytes: Vec<u8>) -> OrEntry {
    OrEntry::new(log_id_to(at(term, index)), EntryPayload::Normal(Payload::new(bytes)))
}

fn small(term: u64, index: u64) -> OrEntry {
    entry(term, index, format!("command {index} of term {term}").into_bytes())
}

async fn append(store: &mut LogStore, entries: impl IntoIterator<Item = OrEntry>) -> io::Result<Acknowledgement> {
    let (done, acknowledgement) = Types::oneshot();
    store.append(entries.into_iter().collect::<Vec<_>>(), IOFlushed::signal(done)).await?;
    Ok(acknowledgement)
}

async fn append_durably(store: &mut LogStore, entries: impl IntoIterator<Item = OrEntry>) -> io::Result<()> {
    append(store, entries).await?.await.expect("every append is answered")
}

/// A snapshot that ends at `last`. Any envelope will do for its content.
fn snapshot(last: Position) -> (SnapshotMeta, Arc<[u8]>) {
    let meta = SnapshotMeta { last: Some(last), configured: Some(at(0, 0)), ..SnapshotMeta::default() };
    let data = encode(&meta).unwrap().into();
    (meta, data)
}

async fn save(store: &LogStore, last: Position) -> io::Result<()> {
    let (meta, data) = snapshot(last);
    store.save_snapshot(meta, data).await
}

/// What a disk holds on which an empty log was made, and closed.
fn formatted() -> Vec<u8> {
    let disk = FaultyDisk::new();
    LogStore::open_on(&disk).unwrap().close();
    disk.image(crate::testing::disk::Survive::Nothing)
}

/// An empty log whose regions are large, so that it does not grow: each group is one sync.
fn roomy() -> FaultyDisk {
    let disk = FaultyDisk::new().with_regions_of(2048);
    LogStore::open_on(&disk).unwrap().close();
    disk
}
