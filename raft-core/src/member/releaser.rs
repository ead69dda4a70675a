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
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::StreamExt;
use parking_lot::{Mutex, MutexGuard};
use quorate_membership::lock::Grant;
use quorate_membership::{
    ClusterState, Command, Event, FenceProof, FenceRecord, Holder, Identity, Name, NodeId, Nonce, Revision, Topic,
};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::error::ProposeError;
use crate::feed::{FeedItem, Filter};
use crate::host;

/// Whether a lock is held no more; shared between its guard and the releaser.
pub(crate) type Gone = Arc<AtomicBool>;

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

/// What this process wants of the log. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Releaser(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    wanted: Mutex<Wanted>,
    look: Notify,
    passed: Notify,
}

impl Releaser {
    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.0.wanted.lock()
    }

    /// Says that somebody wants this request's lock, for as long as the ticket lives.
    pub(crate) fn ticket(&self, name: Name, request: Nonce) -> Ticket {
        let gone = Gone::default();
        self.lock().requests.insert(request, (name, None, gone.clone()));
        Ticket { releaser: self.clone(), request, gone }
    }

    /// A ticket for a lock that a former life left to `who`.
    pub(crate) fn adopt(&self, state: &ClusterState, who: Identity, name: &Name) -> Option<Ticket> {
        let grant = state.store().lock(name)?.grant.filter(|grant| grant.holder == Holder::Life(who))?;
        // In one step: what neither waits for its successor nor is wanted is given back.
        let mut wanted = self.lock();
        if !wanted.waits_for_its_successor(state, who, name, &grant) {
            return None;
        }
        wanted.asked_for.insert(name.clone());
        let gone = Gone::default();
        wanted.requests.insert(grant.request, (name.clone(), Some(grant.token), gone.clone()));
        Some(Ticket { releaser: self.clone(), request: grant.request, gone })
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
        self.0.look.notify_one();
    }
}

/// The interest of one caller in one request.
#[derive(Debug)]
pub(crate) struct Ticket {
    releaser: Releaser,
    pub(crate) request: Nonce,
    pub(crate) gone: Gone,
}

impl Ticket {
    pub(crate) fn granted(&self, token: Revision) {
        if let Some((_, known, _)) = self.releaser.lock().requests.get_mut(&self.request) {
            *known = Some(token);
        }
        // The lock may have passed on before this was noted.
        self.releaser.0.look.notify_one();
    }

    /// Resolves when the lock is not held any more.
    pub(crate) async fn passed_on(&self) {
        loop {
            let next = self.releaser.0.passed.notified();
            if self.gone.load(Ordering::Acquire) {
                return;
            }
            next.await;
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.releaser.lock().requests.remove(&self.request);
        self.releaser.0.look.notify_one();
    }
}

/// Runs until `stop`.
pub(crate) async fn run(engine: Engine, releaser: Releaser, stop: CancellationToken) {
    let mut events = engine.feed().since(Revision::default(), Filter::all().topics([Topic::Locks, Topic::Fencing]));
    let mut said: JoinSet<(Name, Nonce)> = JoinSet::new();
    let mut under_way = BTreeSet::new();
    loop {
        let concerned = tokio::select! { biased;
            () = stop.cancelled() => return,
            item = events.next() => match item {
                Some(item) => concerns(engine.node(), &item),
                None => return,
            },
            () = releaser.0.look.notified() => true,
            Some(done) = said.join_next() => {
                match done {
                    Ok(what) => under_way.remove(&what),
                    Err(_) => { under_way.clear(); true }
                };
                true
            }
        };
        let Some(who) = engine.identity().filter(|_| concerned) else { continue };
        mark_gone(&engine.state(), &releaser, who);
        for (key, command) in unwanted(&engine, &releaser, who) {
            if under_way.insert(key.clone()) {
                let engine = engine.clone();
                said.spawn(host::bound(async move {
                    if let Err(error) = engine.propose(command, engine.config().propose_timeout).await {
                        tracing::debug!(lock = %key.0, %error, "not given back yet; said again");
                        // Without a leader there is nobody to say it to; with one it is asked again soon.
                        if !matches!(error, ProposeError::Stopped(_)) {
                            tokio::time::sleep(engine.config().heartbeat()).await;
                        }
                    }
                    key
                }));
            }
        }
        if engine.stopped().is_some() {
            return;
        }
    }
}

/// Whether an event may change what this life holds or waits for.
fn concerns(me: NodeId, item: &FeedItem) -> bool {
    let own = |holder: &Holder| matches!(holder, Holder::Life(who) if who.node == me);
    match item {
        FeedItem::Gap { .. } => true,
        FeedItem::Event { event, .. } => match event {
            Event::LockGranted { holder, .. }
            | Event::LockQueued { holder, .. }
            | Event::LockReleased { holder, .. } => own(holder),
            Event::Fenced { who, .. } | Event::Left { who, .. } => who.node == me,
            _ => false,
        },
    }
}

/// Tells the guards of locks that are not held any more.
fn mark_gone(state: &ClusterState, releaser: &Releaser, who: Identity) {
    let over = state.has_ended(who);
    let mut told = false;
    for (name, token, gone) in releaser.lock().requests.values() {
        let Some(token) = token else { continue };
        if (over || !state.store().holds(name, *token)) && !gone.swap(true, Ordering::AcqRel) {
            told = true;
        }
    }
    if told {
        releaser.0.passed.notify_waiters();
    }
}

/// What the log has of this life and nobody here wants, and how to say so.
fn unwanted(engine: &Engine, releaser: &Releaser, who: Identity) -> Vec<((Name, Nonce), Command)> {
    let state = engine.state();
    if state.has_ended(who) {
        return vec![];
    }
    let wanted = releaser.lock();
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
            let request = engine.request_named(waiter.request);
            said.push(((name.clone(), waiter.request), Command::Settle { request, lock: Some(name.clone()) }));
        }
    }
    said
}
