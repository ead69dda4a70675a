//! The consumer's own records: keys and values in the log, and transactions on them.
//!
//! ```text
//!   get, list           what this node has applied, and up to which revision: may be stale, never waits
//!   get_latest, …       after a read barrier: linearizable, or `MaybeStale` if no quorum answers in time
//!   write().when(…).put(…).commit()    all of it or nothing, once
//! ```

use std::time::Duration;

use quorate_membership::{
    Change, Check, Command, Holder, Identity, ItemId, Key, Name, Record, Revision, TextError, Value,
};

use crate::engine::Engine;
use crate::error::{ProposeError, ReadError};
use crate::member::locks::LockGuard;

/// A value that was read, and the revision that it is at least as new as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsOf<T> {
    /// The value.
    pub value: T,
    /// The revision that this node had applied. The value reflects every entry up to it, and perhaps a few later ones.
    pub at: Revision,
}

/// The records of the cluster, as this node has applied them. Clones share them.
///
/// A record is a value under a key, with the revision that stored it as its version.
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
    /// The record under `key`, as this node has applied it. It may be stale.
    pub fn get(&self, key: impl AsRef<str>) -> AsOf<Option<Record>> {
        // Read the revision first, so that the state is at least as new.
        let at = self.engine.applied();
        AsOf { value: self.engine.look(|state| state.store().record(key).cloned()), at }
    }

    /// The records whose keys begin with `prefix`, in the order of their keys, as this node has applied them. They may
    /// be stale.
    pub fn list(&self, prefix: &str) -> AsOf<Vec<(Key, Record)>> {
        let at = self.engine.applied();
        // In a picture: many records take their time, and nothing is applied while one looks at the state.
        let state = self.engine.state();
        AsOf { value: state.store().records(prefix).map(|(key, record)| (key.clone(), record.clone())).collect(), at }
    }

    /// The record under `key`, at least as new as everything that was committed before the call. Waits at most
    /// `timeout`.
    ///
    /// # Errors
    /// [`ReadError::MaybeStale`] when no quorum answered within `timeout`. [`Self::get`] still returns what this node
    /// has.
    pub async fn get_latest(&self, key: impl AsRef<str>, timeout: Duration) -> Result<AsOf<Option<Record>>, ReadError> {
        self.engine.read_barrier(timeout).await?;
        Ok(self.get(key))
    }

    /// As [`Self::list`], at least as new as everything that was committed before the call. Waits at most `timeout`.
    ///
    /// # Errors
    /// As [`Self::get_latest`].
    pub async fn list_latest(&self, prefix: &str, timeout: Duration) -> Result<AsOf<Vec<(Key, Record)>>, ReadError> {
        self.engine.read_barrier(timeout).await?;
        Ok(self.list(prefix))
    }

    /// Starts a transaction. It has no effect before [`Write::commit`].
    pub fn write(&self) -> Write {
        Write { engine: self.engine.clone(), checks: vec![], changes: vec![], timeout: None, wrong: None }
    }

    /// Stores `value` under `key` unconditionally. Returns the new version of the record.
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

    /// Stores `value` under `key` if the record has `version`; with `None`, if there is no record. Returns the new
    /// version.
    ///
    /// # Errors
    /// [`Rejection::Version`](quorate_membership::Rejection::Version) with the actual version; nothing was changed
    /// then. Otherwise as [`Write::commit`].
    pub async fn put_if(
        &self,
        key: impl TryInto<Key, Error: Into<TextError>>,
        version: Option<Revision>,
        value: impl Into<Value>,
    ) -> Result<Revision, ProposeError> {
        let key: Key = key.try_into().map_err(Into::into)?;
        self.write().when(Check::Version { key: key.clone(), version }).put(key, value).commit().await
    }

    /// Removes the record under `key`, if there is one. Returns the revision of the removal.
    ///
    /// # Errors
    /// As [`Write::commit`].
    pub async fn delete(&self, key: impl TryInto<Key, Error: Into<TextError>>) -> Result<Revision, ProposeError> {
        self.write().delete(key).commit().await
    }

    /// Moves the ownership that `key` records from one life to another, in one entry. It succeeds if `former` is the
    /// owner, `former` is *proved* to have ended, and `successor` may be given work. Of several nodes that try, exactly
    /// one succeeds, and the returned revision is its fencing token.
    ///
    /// # Errors
    /// [`Rejection::NotOver`](quorate_membership::Rejection::NotOver) while nothing proves the end of `former`;
    /// [`Rejection::Value`](quorate_membership::Rejection::Value) when another life is the owner. Nothing was changed
    /// then. Otherwise as [`Write::commit`].
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

    /// Appends an item to the queue of the lock `queue`, for its present or next holder. Returns the revision of the
    /// push.
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

/// A transaction under construction: its conditions, and the changes to make if all of them hold.
#[derive(Clone)]
#[must_use = "nothing happens before `commit`"]
pub struct Write {
    engine: Engine,
    checks: Vec<Check>,
    changes: Vec<Change>,
    timeout: Option<Duration>,
    /// The error of the first name or key that was invalid, which `commit` returns.
    wrong: Option<TextError>,
}

impl std::fmt::Debug for Write {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Write").field("checks", &self.checks).field("changes", &self.changes).finish_non_exhaustive()
    }
}

impl Write {
    /// Adds a change to the name or key `text`. An invalid one makes `commit` fail.
    fn change<T>(mut self, text: impl TryInto<T, Error: Into<TextError>>, change: impl FnOnce(T) -> Change) -> Self {
        match text.try_into() {
            Ok(text) => self.changes.push(change(text)),
            Err(wrong) => drop(self.wrong.get_or_insert(wrong.into())),
        }
        self
    }

    /// Adds a condition. The transaction is rejected unless every condition holds.
    pub fn when(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }

    /// Adds the condition that the guard's lock is still held under the guard's token.
    pub fn under(self, guard: &LockGuard) -> Self {
        let (lock, token) = (guard.name().clone(), guard.token());
        self.when(Check::Holds { lock, token })
    }

    /// Stores a value under `key`, replacing any other.
    pub fn put(self, key: impl TryInto<Key, Error: Into<TextError>>, value: impl Into<Value>) -> Self {
        self.change(key, |key| Change::Put { key, value: value.into(), bound: None })
    }

    /// Stores a value under `key`, which is removed when the life or session `bound` ends.
    pub fn put_bound(
        self,
        key: impl TryInto<Key, Error: Into<TextError>>,
        value: impl Into<Value>,
        bound: impl Into<Holder>,
    ) -> Self {
        self.change(key, |key| Change::Put { key, value: value.into(), bound: Some(bound.into()) })
    }

    /// Removes the record under `key`, if there is one.
    pub fn delete(self, key: impl TryInto<Key, Error: Into<TextError>>) -> Self {
        self.change(key, |key| Change::Delete { key })
    }

    /// Appends an item to the queue of the lock `queue`.
    pub fn push(self, queue: impl TryInto<Name, Error: Into<TextError>>, value: impl Into<Value>) -> Self {
        self.change(queue, |queue| Change::Push { queue, value: value.into() })
    }

    /// Acknowledges an item that was taken under the guard, which removes it from the queue in the same entry as the
    /// other changes.
    pub fn acknowledge(mut self, guard: &LockGuard, item: ItemId) -> Self {
        let (queue, token) = (guard.name().clone(), guard.token());
        self.changes.push(Change::Acknowledge { queue, item, token });
        self
    }

    /// Sets how long `commit` may take to find a leader and to be applied. The default is `propose_timeout` of the
    /// configuration.
    pub fn within(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Commits the transaction once, and waits until this node has applied it. Returns its revision, which is the
    /// version of every record that it stored.
    ///
    /// # Errors
    /// [`ProposeError::Rejected`] when a condition did not hold or a limit was reached; nothing was changed. Only
    /// [`ProposeError::OutcomeUnknown`] leaves open whether the transaction took effect, if no leader was found that
    /// could settle it.
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
