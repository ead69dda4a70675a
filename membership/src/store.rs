//! What the cluster keeps for its consumers: locks, records, queues and sessions, in maps of which a copy costs nothing.
//!
//! ```text
//!   locks     "vm:100"        held by n1#3 under r42, then n2#1, then s77       lock.rs
//!   records   "services/100"  = bytes, version r43, perhaps bound to a holder   record.rs
//!   queues    "vm:100"        q7 taken under r42, q8, q9                        queue.rs
//!   sessions  s77             for clients that are no members                   session.rs
//!   answered  request → what became of it                                       request.rs
//! ```
//!
//! Everything is bounded, and each bound has an error of its own that names it.

pub mod lock;
pub mod queue;
pub mod record;
pub mod request;
pub(crate) mod session;

use std::ops::Bound;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use crate::id::{ItemId, Revision, SessionId};
use crate::store::lock::{Holder, Lock, Name};
use crate::store::queue::{Item, Queue};
use crate::store::record::{Key, Record};
use crate::store::request::Answered;
use crate::store::session::Session;

/// The most bytes that the keys and values of all records and queued items take up together.
pub const MAX_BYTES: u64 = 16 << 20;

/// The locks, records, queues and sessions of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Store {
    pub(crate) locks: OrdMap<Name, Lock>,
    pub(crate) records: OrdMap<Key, Record>,
    pub(crate) queues: OrdMap<Name, Queue>,
    pub(crate) sessions: OrdMap<SessionId, Session>,
    pub(crate) answered: Answered,
    pub(crate) last_item: ItemId,
    pub(crate) items: u64,
    pub(crate) bytes: u64,
}

impl Store {
    /// The locks that are held, delayed or waited for, by name. One that is in none of these ways free is absent.
    pub fn locks(&self) -> impl Iterator<Item = (&Name, &Lock)> {
        self.locks.iter()
    }

    /// The lock of that name; `None` when it is free.
    pub fn lock(&self, name: &Name) -> Option<&Lock> {
        self.locks.get(name)
    }

    /// Whether `token` is the one that the lock is held under now.
    pub fn holds(&self, name: &Name, token: Revision) -> bool {
        self.lock(name).and_then(|lock| lock.grant.as_ref()).is_some_and(|grant| grant.token == token)
    }

    /// The record under that key.
    pub fn record(&self, key: impl AsRef<str>) -> Option<&Record> {
        self.records.get(key.as_ref())
    }

    /// The records whose keys begin with `prefix`, in the order of keys.
    pub fn records<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a Key, &'a Record)> + 'a {
        let from = (Bound::Included(prefix), Bound::<&str>::Unbounded);
        self.records.range::<_, str>(from).take_while(move |(key, _)| key.as_str().starts_with(prefix))
    }

    /// How many records there are.
    pub fn record_count(&self) -> usize {
        self.records.len()
    }

    /// How many bytes the keys and values of records and queued items take up, of [`MAX_BYTES`].
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What waits in the queue of that name, oldest first.
    pub fn queue(&self, name: &Name) -> impl Iterator<Item = (ItemId, &Item)> {
        self.queues.get(name).into_iter().flat_map(|queue| queue.items.iter().map(|(id, item)| (*id, item)))
    }

    /// The names of the queues in which something waits.
    pub fn queues(&self) -> impl Iterator<Item = &Name> {
        self.queues.keys()
    }

    /// The open session of that number.
    pub fn session(&self, session: SessionId) -> Option<&Session> {
        self.sessions.get(&session)
    }

    /// The open sessions.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.sessions.iter().map(|(id, session)| (*id, session))
    }

    /// What became of the requests of late.
    pub fn answered(&self) -> &Answered {
        &self.answered
    }

    /// Whether the locks and sessions are the same as in `other`, told without looking at each: `false` may be wrong.
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
