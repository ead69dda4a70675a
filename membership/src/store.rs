//! The store: the locks, records, queues and sessions that the cluster keeps for its consumers.
//!
//! ```text
//!   locks     "vm:100"        held by n1#3 under r42; n2#1, then s77 wait        store/lock.rs
//!   records   "services/100"  bytes, version r43, perhaps bound to a holder      store/record.rs
//!   queues    "vm:100"        q7 taken under r42, q8, q9                         store/work_queue.rs
//!   sessions  s77             for clients that are not members                   store/session.rs
//!   answered  request → what became of it                                        store/answered.rs
//! ```
//!
//! The maps are persistent: a copy shares everything and costs nothing. Everything is bounded, each bound stands beside
//! its type, and a command that would exceed one is rejected with an error that names it.

mod answered;
pub mod lock;
pub mod record;
pub mod request;
pub(crate) mod session;
pub mod work_queue;

use std::ops::Bound;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use crate::id::{ItemId, Revision, SessionId};
use crate::shared::Shared;
use crate::store::answered::Answered;
use crate::store::lock::{Holder, Lock, Name};
use crate::store::record::{Key, Record};
use crate::store::session::Session;
use crate::store::work_queue::{Item, Queue};

/// The most bytes that the keys and values of all records and queued items may have together.
pub const MAX_BYTES: u64 = 16 << 20;

/// The locks, records, queues and sessions of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Store {
    #[serde(deserialize_with = "crate::collections::map")]
    pub(crate) locks: OrdMap<Name, Lock>,
    /// A write copies a part of the map, and not the records in it.
    #[serde(deserialize_with = "crate::collections::map")]
    pub(crate) records: OrdMap<Key, Shared<Record>>,
    #[serde(deserialize_with = "crate::collections::map")]
    pub(crate) queues: OrdMap<Name, Queue>,
    #[serde(deserialize_with = "crate::collections::map")]
    pub(crate) sessions: OrdMap<SessionId, Session>,
    pub(crate) answered: Answered,
    pub(crate) last_item: ItemId,
    pub(crate) items: u64,
    pub(crate) bytes: u64,
}

impl Store {
    /// The locks that are held, delayed or waited for, by name. A free lock without waiters is absent.
    pub fn locks(&self) -> impl Iterator<Item = (&Name, &Lock)> {
        self.locks.iter()
    }

    /// The lock of that name; `None` if it is free and no request waits for it.
    pub fn lock(&self, name: &Name) -> Option<&Lock> {
        self.locks.get(name)
    }

    /// Whether the lock is held under `token` now.
    pub fn holds(&self, name: &Name, token: Revision) -> bool {
        self.lock(name).and_then(|lock| lock.grant.as_ref()).is_some_and(|grant| grant.token == token)
    }

    /// The record under that key.
    pub fn record(&self, key: impl AsRef<str>) -> Option<&Record> {
        self.records.get(key.as_ref()).map(|record| &**record)
    }

    /// The records whose keys begin with `prefix`, in the order of keys.
    pub fn records<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a Key, &'a Record)> + 'a {
        let from = (Bound::Included(prefix), Bound::<&str>::Unbounded);
        let found = self.records.range::<_, str>(from).map(|(key, record)| (key, &**record));
        found.take_while(move |(key, _)| key.as_str().starts_with(prefix))
    }

    /// How many records there are.
    pub fn record_count(&self) -> usize {
        self.records.len()
    }

    /// How many bytes the keys and values of records and queued items have, of [`MAX_BYTES`].
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The items in the queue of that name, oldest first.
    pub fn queue(&self, name: &Name) -> impl Iterator<Item = (ItemId, &Item)> {
        self.queues.get(name).into_iter().flat_map(|queue| queue.items.iter().map(|(id, item)| (*id, item)))
    }

    /// The names of the queues that are not empty.
    pub fn queues(&self) -> impl Iterator<Item = &Name> {
        self.queues.keys()
    }

    /// The open session with that number.
    pub fn session(&self, session: SessionId) -> Option<&Session> {
        self.sessions.get(&session)
    }

    /// The open sessions, by number.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.sessions.iter().map(|(id, session)| (*id, session))
    }

    /// The fates of recent requests.
    pub fn answered(&self) -> &Answered {
        &self.answered
    }

    /// A cheap comparison of the locks and sessions: `true` if they are the same as in `other`; `false` may be wrong.
    pub fn same_holders(&self, other: &Self) -> bool {
        self.locks.ptr_eq(&other.locks) && self.sessions.ptr_eq(&other.sessions)
    }

    /// The locks that `holder` holds, in the order of names.
    pub fn held_by(&self, holder: Holder) -> impl Iterator<Item = (&Name, Revision)> {
        self.locks.iter().filter_map(move |(name, lock)| {
            let grant = lock.grant.as_ref().filter(|grant| grant.holder == holder)?;
            Some((name, grant.token))
        })
    }
}
