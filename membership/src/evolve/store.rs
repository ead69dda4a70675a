//! What events do to locks, records, queues and sessions.

use crate::event::Event;
use crate::id::{ItemId, Revision};
use crate::store::Store;
use crate::store::lock::{Delay, Grant, Holder, Lock, Name, Waiter};
use crate::store::record::{Key, Record};
use crate::store::request::Fate;
use crate::store::work_queue::{Item, Taken};

/// Applies an event to the store. Events about members change only the lines of waiters, when a life ends.
pub(super) fn evolve(store: &mut Store, revision: Revision, event: &Event) {
    match event {
        Event::Answered { request } => store.answered.note(*request, Fate::Done(revision)),
        Event::Voided { request } => store.answered.note(*request, Fate::Void(revision)),
        Event::LockGranted { name, holder, token, request } => {
            let lock = store.locks.entry(name.clone()).or_default();
            lock.waiters.retain(|waiter| waiter.request != *request);
            lock.grant = Some(Grant { holder: *holder, token: *token, request: *request });
        }
        Event::LockQueued { name, holder, request } => {
            let waiter = Waiter { holder: *holder, request: *request };
            store.locks.entry(name.clone()).or_default().waiters.push_back(waiter);
        }
        Event::LockWithdrawn { name, holder: _, request } => {
            if let Some(lock) = store.locks.get_mut(name) {
                lock.waiters.retain(|waiter| waiter.request != *request);
            }
            forget_idle(store, name);
        }
        Event::LockReleased { name, token, .. } => {
            if let Some(lock) = store.locks.get_mut(name).filter(|lock| lock.grant.is_some_and(|g| g.token == *token)) {
                lock.grant = None;
            }
            forget_idle(store, name);
        }
        Event::LockDelayed { name, token, at_least } => {
            let delay = Delay { token: *token, at_least: *at_least };
            store.locks.entry(name.clone()).or_default().delay = Some(delay);
        }
        Event::LockLifted { name, .. } => {
            if let Some(lock) = store.locks.get_mut(name) {
                lock.delay = None;
            }
            forget_idle(store, name);
        }
        Event::Put { key, value, bound } => {
            let put = Record { value: value.clone(), version: revision, created: revision, bound: *bound };
            let freed = match store.records.get_mut(key) {
                Some(old) => {
                    let freed = size(key, old.value.as_bytes());
                    *old = Record { created: old.created, ..put }.into();
                    freed
                }
                None => {
                    store.records.insert(key.clone(), put.into());
                    0
                }
            };
            store.bytes = (store.bytes + size(key, value.as_bytes())).saturating_sub(freed);
        }
        Event::Deleted { key } => {
            if let Some(old) = store.records.remove(key) {
                store.bytes = store.bytes.saturating_sub(size(key, old.value.as_bytes()));
            }
        }
        Event::Pushed { queue, item, value } => {
            store.last_item = store.last_item.max(*item);
            store.items += 1;
            store.bytes += (queue.as_str().len() + value.as_bytes().len()) as u64;
            let waiting = Item { value: value.clone(), pushed: revision, taken: None };
            store.queues.entry(queue.clone()).or_default().items.insert(*item, waiting);
        }
        Event::Taken { queue, item, token, request } => {
            if mutant!("removed_before_acknowledged") {
                return remove_item(store, queue, *item);
            }
            if let Some(item) = store.queues.get_mut(queue).and_then(|queue| queue.items.get_mut(item)) {
                item.taken = Some(Taken { token: *token, request: *request });
            }
        }
        Event::Acknowledged { queue, item } => remove_item(store, queue, *item),
        Event::SessionOpened { id, session } => {
            store.sessions.insert(*id, session.clone());
        }
        Event::SessionEnded { id, .. } => {
            store.sessions.remove(id);
            leave_all_lines(store, (*id).into());
        }
        Event::Fenced { who, .. } | Event::Left { who, .. } | Event::Superseded { who } => {
            leave_all_lines(store, (*who).into());
        }
        _ => {}
    }
}

fn size(key: &Key, value: &[u8]) -> u64 {
    (key.as_str().len() + value.len()) as u64
}

fn remove_item(store: &mut Store, name: &Name, item: ItemId) {
    let Some(queue) = store.queues.get_mut(name) else { return };
    let Some(gone) = queue.items.remove(&item) else { return };
    let empty = queue.items.is_empty();
    store.items = store.items.saturating_sub(1);
    store.bytes = store.bytes.saturating_sub((name.as_str().len() + gone.value.as_bytes().len()) as u64);
    if empty {
        store.queues.remove(name);
    }
}

/// A holder that has ended waits for nothing. The locks that it holds are released by events of their own.
fn leave_all_lines(store: &mut Store, holder: Holder) {
    let waits =
        |(name, lock): (&Name, &Lock)| lock.waiters.iter().any(|waiter| waiter.holder == holder).then(|| name.clone());
    let names: Vec<_> = store.locks.iter().filter_map(waits).collect();
    for name in names {
        if let Some(lock) = store.locks.get_mut(&name) {
            lock.waiters.retain(|waiter| waiter.holder != holder);
        }
        forget_idle(store, &name);
    }
}

fn forget_idle(store: &mut Store, name: &Name) {
    if store.locks.get(name).is_some_and(Lock::is_idle) {
        store.locks.remove(name);
    }
}
