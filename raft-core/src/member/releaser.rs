//! The releaser: sees to it that the log has no lock, and no place in a line, of this life that nobody here wants.
//!
//! ```text
//!   wanted: {request → lock}          a Ticket for each, held by whoever waits or guards
//!   log:    granted or queued for this life under a request that is not wanted ─▶ Unlock, Settle: said until it is so
//! ```
//!
//! So a future that is dropped, a guard that is dropped, and a request whose answer was lost all end the same way. What
//! a former life left to this one ([`Command::Inherit`]) is kept until it is asked for or given up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures_util::StreamExt;
use quorate_membership::lock::Grant;
use quorate_membership::{
    ClusterState, Command, Event, FenceProof, FenceRecord, Holder, Identity, Name, Nonce, Revision, Topic,
};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::error::ProposeError;
use crate::feed::{FeedItem, Filter};
use crate::host;
use crate::inner::Inner;
use crate::member::locks::Gone;

#[derive(Debug, Default)]
struct Wanted {
    /// What somebody here waits for or guards.
    requests: BTreeMap<Nonce, (Name, Option<Revision>, Gone)>,
    /// What a former life left and somebody has asked for: from then on it is kept only while it is wanted.
    asked_for: BTreeSet<Name>,
    /// Whether the rest of what a former life left was given up.
    disowned: bool,
}

impl Wanted {
    /// Whether a lock of `who`'s was left to it by a former life and still waits to be asked for: it was granted in the
    /// very entry that says that `who` succeeded that life.
    fn waits_for_its_successor(&self, state: &ClusterState, who: Identity, name: &Name, grant: &Grant) -> bool {
        let succeeded = FenceProof::Succeeded { by: who };
        let left = |end: &FenceRecord| end.confirmed == grant.token && end.proof == succeeded;
        !self.disowned && !self.asked_for.contains(name) && state.fences().history().rev().any(left)
    }
}

/// What this process wants of the log.
#[derive(Debug, Default)]
pub(crate) struct Releaser {
    wanted: Mutex<Wanted>,
    look: Notify,
    passed: Notify,
}

impl Releaser {
    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that somebody wants this request's lock, for as long as the ticket lives.
    pub(crate) fn ticket(&self, inner: &Arc<Inner>, name: Name, request: Nonce) -> Ticket {
        let gone = Gone::default();
        self.lock().requests.insert(request, (name, None, gone.clone()));
        Ticket { inner: Arc::downgrade(inner), request, gone }
    }

    /// A ticket for a lock that a former life left to `who`.
    pub(crate) fn adopt(&self, inner: &Arc<Inner>, who: Identity, name: &Name) -> Option<Ticket> {
        let state = inner.feed.state();
        let grant = state.store().lock(name)?.grant.filter(|grant| grant.holder == Holder::Life(who))?;
        // In one step: what neither waits for its successor nor is wanted is given back.
        let mut wanted = self.lock();
        if !wanted.waits_for_its_successor(&state, who, name, &grant) {
            return None;
        }
        wanted.asked_for.insert(name.clone());
        let gone = Gone::default();
        wanted.requests.insert(grant.request, (name.clone(), Some(grant.token), gone.clone()));
        Some(Ticket { inner: Arc::downgrade(inner), request: grant.request, gone })
    }

    /// The locks that a former life left and that nobody has asked for yet.
    pub(crate) fn inherited(&self, state: &ClusterState, who: Identity) -> Vec<(Name, Revision)> {
        let wanted = self.lock();
        let grants = state.store().locks().filter_map(|(name, lock)| Some((name, lock.grant?)));
        let own = grants.filter(|(_, grant)| grant.holder == Holder::Life(who));
        let left = own.filter(|(name, grant)| wanted.waits_for_its_successor(state, who, name, grant));
        left.map(|(name, grant)| (name.clone(), grant.token)).collect()
    }

    /// Gives up what was left and not asked for.
    pub(crate) fn disown(&self) {
        self.lock().disowned = true;
        self.look.notify_one();
    }
}

/// Somebody's interest in one request.
#[derive(Debug)]
pub(crate) struct Ticket {
    inner: Weak<Inner>,
    pub(crate) request: Nonce,
    pub(crate) gone: Gone,
}

impl Ticket {
    pub(crate) fn granted(&self, token: Revision) {
        let Some(inner) = self.inner.upgrade() else { return };
        if let Some((_, known, _)) = inner.releaser.lock().requests.get_mut(&self.request) {
            *known = Some(token);
        }
        // It may have passed on before anybody was watching.
        inner.releaser.look.notify_one();
    }

    /// Resolves when the lock is not held any more.
    pub(crate) async fn passed_on(&self) {
        loop {
            let Some(inner) = self.inner.upgrade() else { return std::future::pending().await };
            let next = inner.releaser.passed.notified();
            if self.gone.load(Ordering::Acquire) {
                return;
            }
            next.await;
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.upgrade() {
            inner.releaser.lock().requests.remove(&self.request);
            inner.releaser.look.notify_one();
        }
    }
}

/// Runs until `stop`.
pub(crate) async fn run(inner: Arc<Inner>, mut stop: watch::Receiver<bool>) {
    let mut events = inner.feed.since(Revision::default(), Filter::all().topics([Topic::Locks, Topic::Fencing]));
    let mut said: JoinSet<(Name, Nonce)> = JoinSet::new();
    let mut under_way = BTreeSet::new();
    loop {
        let concerned = tokio::select! { biased;
            _ = stop.wait_for(|stop| *stop) => return,
            item = events.next() => match item {
                Some(item) => concerns(&inner, &item),
                None => return,
            },
            () = inner.releaser.look.notified() => true,
            Some(done) = said.join_next() => {
                match done {
                    Ok(what) => under_way.remove(&what),
                    Err(_) => { under_way.clear(); true }
                };
                true
            }
        };
        let Some(who) = inner.identity().filter(|_| concerned) else { continue };
        mark_gone(&inner, who);
        for (key, command) in unwanted(&inner, who) {
            if under_way.insert(key.clone()) {
                let inner = inner.clone();
                said.spawn(host::bound(async move {
                    if let Err(error) = inner.propose(command, inner.config.propose_timeout).await {
                        tracing::debug!(lock = %key.0, %error, "not given back yet; said again");
                        // Without a leader there is nobody to say it to; with one it is asked again soon.
                        if !matches!(error, ProposeError::Stopped(_)) {
                            tokio::time::sleep(inner.config.heartbeat()).await;
                        }
                    }
                    key
                }));
            }
        }
        if inner.stopped().is_some() {
            return;
        }
    }
}

/// Whether an event may change what this life holds or waits for.
fn concerns(inner: &Inner, item: &FeedItem) -> bool {
    let own = |holder: &Holder| matches!(holder, Holder::Life(who) if who.node == inner.node);
    match item {
        FeedItem::Gap { .. } => true,
        FeedItem::Event { event, .. } => match event {
            Event::LockGranted { holder, .. }
            | Event::LockQueued { holder, .. }
            | Event::LockReleased { holder, .. } => own(holder),
            Event::Fenced { who, .. } | Event::Left { who, .. } => who.node == inner.node,
            _ => false,
        },
    }
}

/// Tells the guards of locks that are not held any more.
fn mark_gone(inner: &Inner, who: Identity) {
    let state = inner.feed.state();
    let over = state.has_ended(who);
    let mut told = false;
    for (name, token, gone) in inner.releaser.lock().requests.values() {
        let Some(token) = token else { continue };
        if (over || !state.store().holds(name, *token)) && !gone.swap(true, Ordering::AcqRel) {
            told = true;
        }
    }
    if told {
        inner.releaser.passed.notify_waiters();
    }
}

/// What the log has of this life and nobody here wants, and how to say so.
fn unwanted(inner: &Inner, who: Identity) -> Vec<((Name, Nonce), Command)> {
    let state = inner.feed.state();
    if state.has_ended(who) {
        return vec![];
    }
    let wanted = inner.releaser.lock();
    let holder = Holder::Life(who);
    let mut said = vec![];
    for (name, lock) in state.store().locks() {
        if let Some(grant) = lock.grant.filter(|grant| grant.holder == holder) {
            let kept = wanted.requests.contains_key(&grant.request)
                || wanted.waits_for_its_successor(&state, who, name, &grant);
            if !kept {
                let unlock = Command::Unlock { name: name.clone(), holder, token: grant.token };
                said.push(((name.clone(), grant.request), unlock));
            }
        }
        let waits = lock.waiters.iter().filter(|w| w.holder == holder && !wanted.requests.contains_key(&w.request));
        for waiter in waits {
            let request = inner.request_named(waiter.request);
            said.push(((name.clone(), waiter.request), Command::Settle { request, lock: Some(name.clone()) }));
        }
    }
    said
}
