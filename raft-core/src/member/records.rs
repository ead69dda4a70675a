//! The consumer's own records, and transactions on them.
//!
//! ```text
//!   get, list           what this node has, and as of which revision: may be stale, never waits
//!   get_latest, …       after a read barrier: linearizable, or "maybe stale" when no quorum answers in time
//!   write().when(…).put(…).commit()    whole or not at all, once
//! ```

use std::time::Duration;

use quorate_membership::{
    Change, Check, Command, Holder, Identity, ItemId, Key, Name, Record, Revision, TextError, Value,
};

use crate::engine::Engine;
use crate::error::{ProposeError, ReadError};
use crate::member::locks::LockGuard;

/// What was read, and as of when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsOf<T> {
    /// What was read.
    pub value: T,
    /// The revision that this node had applied: everything up to it is in it, and perhaps a little more.
    pub at: Revision,
}

/// The records of the cluster, as this node has them. Clones are the same.
#[derive(Clone)]
pub struct Records {
    pub(crate) engine: Engine,
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Records").field("at", &self.engine.applied()).finish_non_exhaustive()
    }
}

impl Records {
    fn seen<T>(&self, read: impl FnOnce(&quorate_membership::Store) -> T) -> AsOf<T> {
        // How far first: what is read then is at least as new.
        let at = self.engine.applied();
        AsOf { value: read(self.engine.state().store()), at }
    }

    /// The record under `key`, as this node has it.
    pub fn get(&self, key: impl AsRef<str>) -> AsOf<Option<Record>> {
        self.seen(|store| store.record(key).cloned())
    }

    /// The records whose keys begin with `prefix`, in the order of keys, as this node has them.
    pub fn list(&self, prefix: &str) -> AsOf<Vec<(Key, Record)>> {
        self.seen(|store| store.records(prefix).map(|(key, record)| (key.clone(), record.clone())).collect())
    }

    /// The record under `key`, at least as new as everything that was committed before the call.
    ///
    /// # Errors
    /// [`ReadError::MaybeStale`] when no quorum answered within `timeout`; [`Self::get`] still tells what this node has.
    pub async fn get_latest(&self, key: impl AsRef<str>, timeout: Duration) -> Result<AsOf<Option<Record>>, ReadError> {
        self.engine.read_barrier(timeout).await?;
        Ok(self.get(key))
    }

    /// As [`Self::list`], at least as new as everything that was committed before the call.
    ///
    /// # Errors
    /// As [`Self::get_latest`].
    pub async fn list_latest(&self, prefix: &str, timeout: Duration) -> Result<AsOf<Vec<(Key, Record)>>, ReadError> {
        self.engine.read_barrier(timeout).await?;
        Ok(self.list(prefix))
    }

    /// Begins a transaction. Nothing happens before [`Write::commit`].
    pub fn write(&self) -> Write {
        Write { engine: self.engine.clone(), checks: vec![], changes: vec![], timeout: None, wrong: None }
    }

    /// Stores `value`, whatever was there before. Returns the version that it has now.
    ///
    /// # Errors
    /// As [`Write::commit`].
    pub async fn put(
        &self,
        key: impl TryInto<Key, Error: Into<TextError>>,
        value: impl Into<Value>,
    ) -> Result<Revision, ProposeError> {
        self.write().put(key, value).commit().await
    }

    /// Stores `value` if the record has `version`; `None`: if there is none. Returns the version that it has now.
    ///
    /// # Errors
    /// [`Rejection::Version`](quorate_membership::Rejection::Version) says which it has; then nothing changed. Else as
    /// [`Write::commit`].
    pub async fn put_if(
        &self,
        key: impl TryInto<Key, Error: Into<TextError>>,
        version: Option<Revision>,
        value: impl Into<Value>,
    ) -> Result<Revision, ProposeError> {
        let key: Key = key.try_into().map_err(Into::into)?;
        self.write().when(Check::Version { key: key.clone(), version }).put(key, value).commit().await
    }

    /// Removes a record. One that is not there stays so.
    ///
    /// # Errors
    /// As [`Write::commit`].
    pub async fn delete(&self, key: impl TryInto<Key, Error: Into<TextError>>) -> Result<Revision, ProposeError> {
        self.write().delete(key).commit().await
    }

    /// Moves what `key` stands for from one life to another, in one entry: it is `successor`'s from here on, if it was
    /// `former`'s, `former` is *proved* to be over, and `successor` may be given work. Of all survivors that try, one succeeds;
    /// the returned revision is its fencing token.
    ///
    /// # Errors
    /// [`Rejection::NotOver`](quorate_membership::Rejection::NotOver) while nothing proves the end of `former`;
    /// [`Rejection::Value`](quorate_membership::Rejection::Value) when it is somebody else's already. Nothing changed
    /// then. Else as [`Write::commit`].
    pub async fn move_owner(
        &self,
        key: impl TryInto<Key, Error: Into<TextError>>,
        former: Identity,
        successor: Identity,
    ) -> Result<Revision, ProposeError> {
        let key: Key = key.try_into().map_err(Into::into)?;
        let was = Check::Value { key: key.clone(), value: former.to_string().as_str().into() };
        let write = self.write().when(was).when(Check::Over { who: former }).when(Check::Active { who: successor });
        write.put(key, successor.to_string().as_str()).commit().await
    }

    /// Appends to the queue of the lock `queue`, for whoever holds it or will. Returns where.
    ///
    /// # Errors
    /// As [`Write::commit`].
    pub async fn push(
        &self,
        queue: impl TryInto<Name, Error: Into<TextError>>,
        value: impl Into<Value>,
    ) -> Result<Revision, ProposeError> {
        self.write().push(queue, value).commit().await
    }
}

/// A transaction that is being described: conditions, and what happens if all of them hold.
#[derive(Clone)]
#[must_use = "nothing happens before `commit`"]
pub struct Write {
    engine: Engine,
    checks: Vec<Check>,
    changes: Vec<Change>,
    timeout: Option<Duration>,
    /// The first name or key that was none.
    wrong: Option<TextError>,
}

impl std::fmt::Debug for Write {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Write").field("checks", &self.checks).field("changes", &self.changes).finish_non_exhaustive()
    }
}

impl Write {
    /// Adds a change, if its text is one; else the write as a whole fails when it is committed.
    fn change<T>(mut self, text: impl TryInto<T, Error: Into<TextError>>, change: impl FnOnce(T) -> Change) -> Self {
        match text.try_into() {
            Ok(text) => self.changes.push(change(text)),
            Err(wrong) => drop(self.wrong.get_or_insert(wrong.into())),
        }
        self
    }

    /// Only if this holds.
    pub fn when(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }

    /// Only while the guard's lock is held under the guard's token.
    pub fn under(self, guard: &LockGuard) -> Self {
        let (lock, token) = (guard.name().clone(), guard.token());
        self.when(Check::Holds { lock, token })
    }

    /// Stores a value.
    pub fn put(self, key: impl TryInto<Key, Error: Into<TextError>>, value: impl Into<Value>) -> Self {
        self.change(key, |key| Change::Put { key, value: value.into(), bound: None })
    }

    /// Stores a value that vanishes with the life, or the session, that it is bound to.
    pub fn put_bound(
        self,
        key: impl TryInto<Key, Error: Into<TextError>>,
        value: impl Into<Value>,
        bound: impl Into<Holder>,
    ) -> Self {
        self.change(key, |key| Change::Put { key, value: value.into(), bound: Some(bound.into()) })
    }

    /// Removes a record.
    pub fn delete(self, key: impl TryInto<Key, Error: Into<TextError>>) -> Self {
        self.change(key, |key| Change::Delete { key })
    }

    /// Appends to the queue of a lock.
    pub fn push(self, queue: impl TryInto<Name, Error: Into<TextError>>, value: impl Into<Value>) -> Self {
        self.change(queue, |queue| Change::Push { queue, value: value.into() })
    }

    /// Removes an item that was taken under the guard: done with, in the same entry as everything else here.
    pub fn acknowledge(mut self, guard: &LockGuard, item: ItemId) -> Self {
        let (queue, token) = (guard.name().clone(), guard.token());
        self.changes.push(Change::Acknowledge { queue, item, token });
        self
    }

    /// How long to look for a leader and wait for the end. Default: `propose_timeout` of the configuration.
    pub fn within(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Has it happen, once, and waits until this node has applied it. Returns the revision: the version of every record
    /// that it stored.
    ///
    /// # Errors
    /// [`ProposeError::Rejected`]: a check did not hold, or a bound was reached; nothing changed. Only
    /// [`ProposeError::OutcomeUnknown`] leaves open whether it happened, when no leader was found afterwards that could
    /// settle it.
    pub async fn commit(self) -> Result<Revision, ProposeError> {
        let Self { engine, checks, changes, timeout, wrong } = self;
        if let Some(wrong) = wrong {
            return Err(wrong.into());
        }
        let timeout = timeout.unwrap_or(engine.config().propose_timeout);
        let make = |request| Command::Write { request, checks: checks.clone(), changes: changes.clone() };
        engine.ask_once(timeout, make).await.map(|(_, revision)| revision)
    }
}
