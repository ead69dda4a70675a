//! The releaser: withdraws every lock and every place in a queue that the log has for this life and no caller here
//! wants.
//!
//! ```text
//!   wanted: {request → lock}          one Ticket for each, held by the caller that waits or by its guard
//!   log:    granted to or queued for this life, under a request that is not wanted ─▶ Unlock, Settle, until applied
//! ```
//!
//! A dropped future, a dropped guard and a request whose answer was lost are thereby all handled in the same way. A
//! lock that this life inherited from a former one ([`Command::Inherit`]) is kept until it is adopted or disowned.

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
    /// The requests that a caller waits for or a guard holds: the lock, its token once granted, and the guard's flag.
    requests: BTreeMap<Nonce, (Name, Option<Revision>, Gone)>,
    /// The inherited locks that a caller has adopted. From then on, each is kept only while it is wanted.
    asked_for: BTreeSet<Name>,
    /// Whether the remaining inherited locks were given up.
    disowned: bool,
}

impl Wanted {
    /// Whether `who` inherited this lock from a former life and has not adopted it yet. An inherited lock was granted
    /// in the same entry in which `who` succeeded that life.
    fn waits_for_its_successor(&self, state: &ClusterState, who: Identity, name: &Name, grant: &Grant) -> bool {
        let succeeded = FenceProof::Succeeded { by: who };
        let left = |end: &FenceRecord| end.confirmed == grant.token && end.proof == succeeded;
        !self.disowned && !self.asked_for.contains(name) && state.fences().history().rev().any(left)
    }
}

/// The requests for locks that this process wants. Clones share them.
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

    /// Registers a request as wanted, for as long as the ticket lives.
    pub(crate) fn ticket(&self, name: Name, request: Nonce) -> Ticket {
        let gone = Gone::default();
        self.lock().requests.insert(request, (name, None, gone.clone()));
        Ticket { releaser: self.clone(), request, gone }
    }

    /// Adopts a lock that `who` inherited; `None` if `who` did not inherit it or it was adopted before.
    pub(crate) fn adopt(&self, state: &ClusterState, who: Identity, name: &Name) -> Option<Ticket> {
        let grant = state.store().lock(name)?.grant.filter(|grant| grant.holder == Holder::Life(who))?;
        // Under one guard: a lock that is neither awaiting adoption nor wanted would be released.
        let mut wanted = self.lock();
        if !wanted.waits_for_its_successor(state, who, name, &grant) {
            return None;
        }
        wanted.asked_for.insert(name.clone());
        let gone = Gone::default();
        wanted.requests.insert(grant.request, (name.clone(), Some(grant.token), gone.clone()));
        Some(Ticket { releaser: self.clone(), request: grant.request, gone })
    }

    /// The inherited locks that were not adopted yet, with their tokens.
    pub(crate) fn inherited(&self, state: &ClusterState, who: Identity) -> Vec<(Name, Revision)> {
        let wanted = self.lock();
        let grants = state.store().locks().filter_map(|(name, lock)| Some((name, lock.grant?)));
        let own = grants.filter(|(_, grant)| grant.holder == Holder::Life(who));
        let left = own.filter(|(name, grant)| wanted.waits_for_its_successor(state, who, name, grant));
        left.map(|(name, grant)| (name.clone(), grant.token)).collect()
    }

    /// Gives up the inherited locks that were not adopted.
    pub(crate) fn disown(&self) {
        self.lock().disowned = true;
        self.0.look.notify_one();
    }
}

/// The interest of one caller in one request. Dropping it makes the request unwanted.
#[derive(Debug)]
pub(crate) struct Ticket {
    releaser: Releaser,
    pub(crate) request: Nonce,
    pub(crate) gone: Gone,
}

impl Ticket {
    /// Notes that the request was granted under `token`.
    pub(crate) fn granted(&self, token: Revision) {
        if let Some((_, known, _)) = self.releaser.lock().requests.get_mut(&self.request) {
            *known = Some(token);
        }
        // The lock may have been lost before its grant was noted.
        self.releaser.0.look.notify_one();
    }

    /// Resolves when this life does not hold the lock any more.
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
                        tracing::debug!(lock = %key.0, %error, "an unwanted lock is not withdrawn yet; trying again");
                        // The next round proposes it again; this pause keeps it from spinning while there is no leader.
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

/// Whether an event can change what this life holds or waits for.
fn concerns(me: NodeId, item: &FeedItem) -> bool {
    let own = |holder: &Holder| matches!(holder, Holder::Life(who) if who.node == me);
    match item {
        FeedItem::Gap { .. } | FeedItem::Ahead { .. } => true,
        FeedItem::Event { event, .. } => match event {
            Event::LockGranted { holder, .. }
            | Event::LockQueued { holder, .. }
            | Event::LockReleased { holder, .. } => own(holder),
            Event::Fenced { who, .. } | Event::Left { who, .. } => who.node == me,
            _ => false,
        },
    }
}

/// Marks the guards whose locks this life does not hold any more, and wakes their waiters.
fn mark_gone(state: &ClusterState, releaser: &Releaser, who: Identity) {
    let ended = state.has_ended(who);
    let mut woken = false;
    for (name, token, gone) in releaser.lock().requests.values() {
        let Some(token) = token else { continue };
        if (ended || !state.store().holds(name, *token)) && !gone.swap(true, Ordering::AcqRel) {
            woken = true;
        }
    }
    if woken {
        releaser.0.passed.notify_waiters();
    }
}

/// The locks and requests of this life in the log that are not wanted here, with the command that withdraws each.
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
        let waits = lock.waiters().filter(|w| w.holder == holder && !wanted.requests.contains_key(&w.request));
        for waiter in waits {
            let request = engine.request_named(waiter.request);
            said.push(((name.clone(), waiter.request), Command::Settle { request, lock: Some(name.clone()) }));
        }
    }
    said
}
