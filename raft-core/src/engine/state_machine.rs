//! The state machine: applies committed entries, and produces the cluster's state, its events and snapshots.
//!
//! ```text
//!   entry ──decode──▶ Command ──membership::apply──▶ events ──▶ feed          state in memory
//!     │ cannot be decoded: typed error, the replica stops                     snapshot on disk (log_store)
//! ```
//!
//! The state lives in memory. Only the log and the last snapshot are durable. At a start, openraft installs the
//! snapshot again and applies the committed entries after it, so the feed replays their events too.

use std::io;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use openraft::entry::EntryPayload;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{OptionalSend, Snapshot};
use parking_lot::{Mutex, MutexGuard};
use quorate_membership::codec::{CodecError, decode, encode};
use quorate_membership::{ClusterState, Command, Event, Revision, Topic, apply};
use tokio::sync::watch;

use crate::engine::log_store::LogStore;
use crate::engine::types::{
    OrEntry, OrLogId, OrMembership, OrSnapshot, OrSnapshotMeta, OrStoredMembership, Reply, Types, log_id_from,
    membership_from, snapshot_meta_from, snapshot_meta_to,
};
use crate::error::Fatal;
use crate::feed::Feed;
use crate::host;

/// The revision of the entry at a Raft index. Raft counts from 0; revision 0 means that nothing is committed yet.
pub(crate) const fn revision(index: u64) -> Revision {
    Revision::new(index.saturating_add(1))
}

/// Called with each committed event, in order, before any reader of the feed sees it. The state is locked meanwhile, so it must
/// not block, and must not ask for the state.
pub(crate) type OnEvent = Arc<dyn Fn(&Event) + Send + Sync>;

/// The most entries that are applied and published together. Nobody reads the state meanwhile.
const BATCH: usize = 64;

/// Checks that a snapshot which another node sent can be decoded, before openraft sees it: a fault of the sender must not
/// stop this node. One that fails later, when it is installed, stops this replica.
///
/// # Errors
/// [`CodecError`]; the snapshot is refused, and nothing is changed.
pub(super) async fn check_received(data: Arc<[u8]>) -> Result<(), CodecError> {
    host::aside(move || decode::<ClusterState>(&data).map(drop)).await
}

#[derive(Default)]
struct Applied {
    last: Option<OrLogId>,
    membership: OrStoredMembership,
    /// The last entry of the batch that changed more than records, queues and locks, or began a term.
    stands: Option<Revision>,
}

/// Whether a change of this topic is one of members, sessions or leadership, and not of what they hold.
const fn is_standing(topic: Topic) -> bool {
    match topic {
        Topic::Locks | Topic::Records | Topic::Queues | Topic::Requests => false,
        Topic::Membership | Topic::Fencing | Topic::Leadership | Topic::Sessions => true,
        // One of a newer build.
        _ => true,
    }
}

/// An entry as the rules read it.
struct Decoded {
    id: OrLogId,
    /// `None` for an entry that changes nothing.
    command: Option<Command>,
    membership: Option<OrMembership>,
}

/// The replicated state of one node. Clones are cheap and share it.
#[derive(Clone)]
pub(crate) struct StateMachine {
    applied: Arc<Mutex<Applied>>,
    store: LogStore,
    feed: Feed,
    on_event: OnEvent,
    progress: Arc<watch::Sender<Revision>>,
    standing: Arc<watch::Sender<Revision>>,
    unreadable: Arc<Mutex<Option<Fatal>>>,
}

impl StateMachine {
    pub(crate) fn new(store: LogStore, feed: Feed, on_event: OnEvent) -> Self {
        let sender = || Arc::new(watch::Sender::new(Revision::default()));
        let (progress, standing) = (sender(), sender());
        Self { applied: Arc::default(), store, feed, on_event, progress, standing, unreadable: Arc::default() }
    }

    /// Follows how far the log is applied.
    pub(crate) fn progress(&self) -> watch::Receiver<Revision> {
        self.progress.subscribe()
    }

    /// Follows the last revision that changed more than records, queues and locks, or that began a term. Most entries of a
    /// busy cluster do not, and whoever follows this sleeps through them.
    pub(crate) fn standing(&self) -> watch::Receiver<Revision> {
        self.standing.subscribe()
    }

    /// How far the log is applied.
    pub(crate) fn applied(&self) -> Revision {
        *self.progress.borrow()
    }

    /// The error of the entry that stopped this replica; `None` while it runs.
    pub(crate) fn unreadable(&self) -> Option<Fatal> {
        self.unreadable.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Applied> {
        self.applied.lock()
    }

    fn stop_on(&self, error: CodecError) -> io::Error {
        let fatal = Fatal::Entry(error);
        let told = io::Error::other(fatal.to_string());
        *self.unreadable.lock() = Some(fatal);
        told
    }

    /// Applies one entry to the state. Its events join those of the batch, which nobody sees yet.
    fn apply_one(&self, state: &mut ClusterState, entry: &Decoded, events: &mut Vec<(Revision, Event)>) -> Reply {
        let Decoded { id, command, membership } = entry;
        let at = revision(id.index);
        let mut applied = self.lock();
        if applied.last.is_none_or(|last| last.leader_id != id.leader_id) {
            applied.stands = Some(at);
        }
        applied.last = Some(*id);
        if let Some(membership) = membership {
            applied.membership = OrStoredMembership::new(Some(*id), membership.clone());
        }
        let answer = command.as_ref().map_or(Ok(vec![]), |command| apply(state, at, command));
        host::observe(|host| {
            let voters = membership.as_ref().map(membership_from);
            host.applied(log_id_from(id), command.clone(), answer.clone(), Arc::new(state.clone()), voters);
        });
        if answer.as_ref().is_ok_and(|new| new.iter().any(|event| is_standing(event.topic()))) {
            applied.stands = Some(at);
        }
        answer.map(|new| {
            new.iter().for_each(|event| (self.on_event)(event));
            events.extend(new.into_iter().map(|event| (at, event)));
        })
    }

    /// Applies a batch, and shows all of it at once: the state after it and the events, in order.
    fn apply_batch(&self, batch: &[Decoded]) -> Vec<Reply> {
        let replies =
            self.feed.change(|state, events| batch.iter().map(|entry| self.apply_one(state, entry, events)).collect());
        let mut applied = self.lock();
        let (last, stands) = (applied.last, applied.stands.take());
        drop(applied);
        if let Some(last) = last {
            self.progress.send_replace(revision(last.index));
        }
        if let Some(at) = stands {
            self.standing.send_replace(at);
        }
        replies
    }

    fn decoded(&self, entry: OrEntry) -> io::Result<Decoded> {
        let id = entry.log_id;
        Ok(match entry.payload {
            EntryPayload::Blank => Decoded { id, command: None, membership: None },
            EntryPayload::Normal(bytes) => {
                let command = decode(bytes.as_bytes()).map_err(|error| self.stop_on(error))?;
                Decoded { id, command: Some(command), membership: None }
            }
            EntryPayload::Membership(membership) => {
                let configuration = membership_from(&membership).configuration();
                Decoded { id, command: Some(Command::Configure { configuration }), membership: Some(membership) }
            }
        })
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = Arc<[u8]>;
    type SnapshotBuilder = Picture;

    async fn applied_state(&mut self) -> Result<(Option<OrLogId>, OrStoredMembership), io::Error> {
        let applied = self.lock();
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<S>(&mut self, entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        // What is there already is one batch.
        let mut entries = entries.ready_chunks(BATCH);
        while let Some(ready) = entries.next().await {
            let (mut batch, mut responders, mut failed) = (vec![], vec![], None);
            for entry in ready {
                match entry.and_then(|(entry, responder)| Ok((self.decoded(entry)?, responder))) {
                    Ok((entry, responder)) => {
                        batch.push(entry);
                        responders.push(responder);
                    }
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
            }
            let replies = self.apply_batch(&batch);
            for (responder, reply) in responders.into_iter().zip(replies) {
                if let Some(responder) = responder {
                    responder.send(reply);
                }
            }
            failed.map_or(Ok(()), Err)?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Picture {
        let cluster = self.feed.state();
        let applied = self.lock();
        let meta = OrSnapshotMeta { last_log_id: applied.last, last_membership: applied.membership.clone() };
        Picture { meta, cluster, store: self.store.clone() }
    }

    async fn install_snapshot(&mut self, meta: &OrSnapshotMeta, data: Arc<[u8]>) -> Result<(), io::Error> {
        let received = data.clone();
        let cluster: ClusterState = host::aside(move || decode(&received)).await.map_err(|e| self.stop_on(e))?;
        let own = snapshot_meta_from(meta);
        // At a start, openraft installs the snapshot that is already on the disk. It need not be written again.
        if self.store.current_snapshot().is_none_or(|(there, _)| there != own) {
            self.store.save_snapshot(own, data).await?;
        }
        *self.lock() = Applied { last: meta.last_log_id, membership: meta.last_membership.clone(), stands: None };
        host::observe(|host| {
            host.installed(meta.last_log_id.as_ref().map(log_id_from), Arc::new(cluster.clone()));
        });
        self.feed.reset(cluster);
        if let Some(last) = meta.last_log_id {
            self.progress.send_replace(revision(last.index));
            self.standing.send_replace(revision(last.index));
        }
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<OrSnapshot>, io::Error> {
        let Some((meta, data)) = self.store.current_snapshot() else { return Ok(None) };
        Ok(Some(Snapshot { meta: snapshot_meta_to(&meta)?, snapshot: data }))
    }
}

/// A copy of the state, which is written as a snapshot while the state machine continues.
pub(crate) struct Picture {
    meta: OrSnapshotMeta,
    cluster: Arc<ClusterState>,
    store: LogStore,
}

impl RaftSnapshotBuilder<Types> for Picture {
    type SnapshotData = Arc<[u8]>;

    async fn build_snapshot(&mut self) -> Result<OrSnapshot, io::Error> {
        let cluster = self.cluster.clone();
        let data: Arc<[u8]> = host::aside(move || encode(&*cluster)).await.map_err(io::Error::other)?.into();
        self.store.save_snapshot(snapshot_meta_from(&self.meta), data.clone()).await?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: data })
    }
}
