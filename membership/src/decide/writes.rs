//! The rules for records, queues and sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::checks::{current_activation, full, is_fresh, known_life};
use crate::cluster::ClusterState;
use crate::event::Event;
use crate::id::{Activation, ItemId, Revision, SessionId};
use crate::member::Phase;
use crate::principal::Principal;
use crate::rejection::Rejection;
use crate::store::MAX_BYTES;
use crate::store::lock::Name;
use crate::store::record::{Change, Check, Key, MAX_BOUND, MAX_RECORDS, MAX_STEPS, MAX_VALUE, MAX_WRITE};
use crate::store::request::Request;
use crate::store::session::{self, MAX_SESSIONS, MAX_TTL, MIN_TTL, Session};
use crate::store::work_queue::{Item, MAX_ITEMS, MAX_QUEUE};

/// A transaction: if every check holds, every change is made in one entry; otherwise none is.
pub(super) fn write(
    state: &ClusterState,
    revision: Revision,
    request: Request,
    checks: &[Check],
    changes: &[Change],
) -> Result<Vec<Event>, Rejection> {
    if !is_fresh(state, revision, request)? {
        return Ok(vec![]);
    }
    sized("checks", checks.len(), MAX_STEPS)?;
    sized("changes", changes.len(), MAX_STEPS)?;
    let bytes = changes.iter().map(Change::bytes).chain(checks.iter().map(Check::bytes)).sum();
    sized("bytes", bytes, MAX_WRITE)?;
    checks.iter().try_for_each(|check| holds(state, check))?;
    let mut events = Vec::with_capacity(1 + changes.len());
    events.push(Event::Answered { request: request.nonce });
    let (mut keys, mut items, mut item) = (BTreeSet::new(), BTreeSet::new(), state.store.last_item);
    for change in changes {
        if let Some(value) = change.value().filter(|value| value.as_bytes().len() > MAX_VALUE) {
            return Err(Rejection::ValueTooLarge { got: value.as_bytes().len() as u64, limit: MAX_VALUE as u64 });
        }
        match change {
            Change::Put { key, value, bound } => {
                key.check().map_err(Rejection::Text)?;
                once(keys.insert(key), key.as_str())?;
                if let Some(holder) = bound.filter(|holder| !state.may_hold(*holder)) {
                    return Err(Rejection::MayNotHold(holder));
                }
                events.push(Event::Put { key: key.clone(), value: value.clone(), bound: *bound });
            }
            Change::Delete { key } => {
                once(keys.insert(key), key.as_str())?;
                if state.store.records.contains_key(key) {
                    events.push(Event::Deleted { key: key.clone() });
                }
            }
            Change::Push { queue, value } => {
                queue.check().map_err(Rejection::Text)?;
                item = item.next();
                events.push(Event::Pushed { queue: queue.clone(), item, value: value.clone() });
            }
            Change::Acknowledge { queue, item, token } => {
                held(state, queue, *token)?;
                once(items.insert(*item), &item.to_string())?;
                taken(state, queue, *item, *token)?;
                events.push(Event::Acknowledged { queue: queue.clone(), item: *item });
            }
        }
    }
    room(state, changes)?;
    Ok(events)
}

fn holds(state: &ClusterState, check: &Check) -> Result<(), Rejection> {
    let record = |key: &Key| state.store.record(key);
    match check {
        Check::Version { key, version } => {
            let of = |r: &crate::store::record::Record| {
                if mutant!("compare_wrong_version") { r.created } else { r.version }
            };
            let found = record(key).map(of);
            let same = found == *version;
            same.then_some(()).ok_or_else(|| Rejection::Version { key: key.clone(), expected: *version, found })
        }
        Check::Value { key, value } => {
            let found = record(key);
            let same = found.is_some_and(|record| record.value == *value);
            let version = found.map(|record| record.version);
            same.then_some(()).ok_or_else(|| Rejection::Value { key: key.clone(), found: version })
        }
        Check::Holds { lock, token } => held(state, lock, *token),
        Check::Over { who } => state.has_ended(*who).then_some(()).ok_or(Rejection::NotOver(*who)),
        Check::Active { who } => match known_life(state, *who)?.phase {
            Phase::Active => Ok(()),
            phase @ (Phase::Joining | Phase::Fencing | Phase::Fenced | Phase::Left) => {
                Err(Rejection::Phase { who: *who, phase })
            }
        },
    }
}

/// The lock is held under this very token, so the command does not come from a former holder.
fn held(state: &ClusterState, name: &Name, token: Revision) -> Result<(), Rejection> {
    let current = state.store.locks.get(name).and_then(|lock| lock.grant).map(|grant| grant.token);
    if current == Some(token) || mutant!("stale_token_accepted") {
        return Ok(());
    }
    Err(Rejection::NotHolder { name: name.clone(), token, current })
}

fn taken<'a>(state: &'a ClusterState, queue: &Name, item: ItemId, token: Revision) -> Result<&'a Item, Rejection> {
    let found = state.store.queues.get(queue).and_then(|queue| queue.items.get(&item));
    let under = found.filter(|item| item.is_taken_under(token));
    under.ok_or_else(|| Rejection::NotTaken { queue: queue.clone(), item, token })
}

fn once(fresh: bool, what: &str) -> Result<(), Rejection> {
    fresh.then_some(()).ok_or_else(|| Rejection::Twice(what.into()))
}

fn sized(what: &str, got: usize, limit: usize) -> Result<(), Rejection> {
    let (got, limit) = (got as u64, limit as u64);
    if got <= limit { Ok(()) } else { Err(Rejection::WriteTooLarge { what: what.into(), got, limit }) }
}

/// Every bound of the store still holds after these changes.
fn room(state: &ClusterState, changes: &[Change]) -> Result<(), Rejection> {
    let store = &state.store;
    let (mut bytes, mut fresh, mut bound, mut pushed) = (store.bytes, 0, 0, BTreeMap::<&Name, usize>::new());
    for change in changes {
        match change {
            Change::Put { key, bound: with, .. } => {
                bytes += change.bytes() as u64;
                let old = store.records.get(key);
                fresh += usize::from(old.is_none());
                bytes -= old.map_or(0, |record| (key.as_str().len() + record.value.as_bytes().len()) as u64);
                bound += usize::from(with.is_some() && old.is_none_or(|record| record.bound.is_none()));
            }
            Change::Push { queue, .. } => {
                bytes += change.bytes() as u64;
                let here = pushed.entry(queue).or_default();
                *here += 1;
                let waiting = store.queues.get(queue).map_or(0, |queue| queue.items.len());
                if waiting + *here > MAX_QUEUE {
                    return Err(full(&format!("items in queue `{queue}`"), MAX_QUEUE, "take and acknowledge some"));
                }
            }
            Change::Delete { .. } | Change::Acknowledge { .. } => {}
        }
    }
    if store.items + pushed.values().sum::<usize>() as u64 > MAX_ITEMS {
        return Err(full("items in all queues", MAX_ITEMS as usize, "take and acknowledge some"));
    }
    if fresh > 0 && store.records.len() + fresh > MAX_RECORDS {
        return Err(full("records", MAX_RECORDS, "delete some"));
    }
    if bound > 0 && store.records.values().filter(|record| record.bound.is_some()).count() + bound > MAX_BOUND {
        return Err(full("records bound to a holder", MAX_BOUND, "delete some"));
    }
    // What this write deletes still counts, so a consumer makes room with an earlier write.
    if bytes > MAX_BYTES && bytes > store.bytes {
        return Err(full("bytes of records and items", MAX_BYTES as usize, "delete some"));
    }
    Ok(())
}

/// Takes the oldest item that was not taken under this token. Items taken under an earlier token are available again.
pub(super) fn take(
    state: &ClusterState,
    revision: Revision,
    request: Request,
    queue: &Name,
    token: Revision,
) -> Result<Vec<Event>, Rejection> {
    if !is_fresh(state, revision, request)? {
        return Ok(vec![]);
    }
    held(state, queue, token)?;
    let mut waiting = state.store.queue(queue);
    let (item, _) =
        waiting.find(|(_, item)| !item.is_taken_under(token)).ok_or_else(|| Rejection::QueueEmpty(queue.clone()))?;
    let request = request.nonce;
    Ok(vec![Event::Answered { request }, Event::Taken { queue: queue.clone(), item, token, request }])
}

pub(super) fn open(
    state: &ClusterState,
    revision: Revision,
    request: Request,
    session: &Session,
) -> Result<Vec<Event>, Rejection> {
    if !is_fresh(state, revision, request)? {
        return Ok(vec![]);
    }
    session.label.check().map_err(Rejection::Text)?;
    session.owner.iter().try_for_each(Principal::check).map_err(Rejection::Text)?;
    let between = |what: &str, got: Duration, from| match got >= from && got <= MAX_TTL {
        true => Ok(()),
        false => Err(Rejection::SessionTimes { what: what.into(), got, from, to: MAX_TTL }),
    };
    between("time to live", session.ttl, MIN_TTL)?;
    between("lock-delay", session.lock_delay, Duration::ZERO)?;
    if state.store.sessions.len() >= MAX_SESSIONS {
        return Err(full("sessions", MAX_SESSIONS, "close some"));
    }
    let opened = Event::SessionOpened { id: SessionId::new(revision.get()), session: session.clone() };
    Ok(vec![Event::Answered { request: request.nonce }, opened])
}

pub(super) fn close(state: &ClusterState, session: SessionId) -> Vec<Event> {
    let open = state.store.sessions.contains_key(&session);
    if open { vec![Event::SessionEnded { id: session, clean: true }] } else { vec![] }
}

/// Only the leader of the current activation expires a session, after a wait that is long enough on the clock of any
/// client.
pub(super) fn expire(
    state: &ClusterState,
    session: SessionId,
    under: Activation,
    waited: Duration,
) -> Result<Vec<Event>, Rejection> {
    current_activation(state, under)?;
    let Some(open) = state.store.sessions.get(&session) else { return Ok(vec![]) };
    let need = session::wait(open.ttl);
    if waited < need {
        return Err(Rejection::WaitOn { what: format!("session {session}"), waited, need });
    }
    Ok(vec![Event::SessionEnded { id: session, clean: false }])
}
