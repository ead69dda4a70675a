//! The rules for locks: how they are asked for, released and passed on. The drawing is in `store/lock.rs`; the order
//! of waiters is in `lock_waiters.rs`.

use std::time::Duration;

use super::checks::{current_activation, full, is_fresh};
use super::lock_waiters;
use crate::cluster::ClusterState;
use crate::event::Event;
use crate::evolve::evolve;
use crate::id::{Activation, Identity, Revision};
use crate::proof::FenceProof;
use crate::rejection::Rejection;
use crate::store::lock::{Delay, Grant, Holder, MAX_LOCKS, Name, Release};
use crate::store::request::{Admission, Request};
use crate::store::session;

pub(super) fn lock(
    state: &ClusterState,
    revision: Revision,
    request: Request,
    name: &Name,
    holder: Holder,
    wait: bool,
) -> Result<Vec<Event>, Rejection> {
    if !is_fresh(state, revision, request)? {
        return Ok(vec![]);
    }
    name.check().map_err(Rejection::Text)?;
    if !state.may_hold(holder) {
        return Err(Rejection::MayNotHold(holder));
    }
    let answered = Event::Answered { request: request.nonce };
    let Some(lock) = state.store.locks.get(name) else {
        if state.store.locks.len() >= MAX_LOCKS {
            return Err(full("locks", MAX_LOCKS, "release some"));
        }
        return Ok(vec![answered, granted(state, revision, name, holder, request)]);
    };
    if lock.is_free() {
        // A free lock has waiters only if none of them may hold anything any more.
        return Ok(vec![answered, granted(state, revision, name, holder, request)]);
    }
    if wait {
        lock_waiters::admit(state, name)?;
        return Ok(vec![answered, Event::LockQueued { name: name.clone(), holder, request: request.nonce }]);
    }
    Err(match (lock.grant, lock.delay) {
        (Some(Grant { holder, token, .. }), _) => Rejection::LockHeld { name: name.clone(), holder, token },
        (None, Some(Delay { token, .. })) => Rejection::LockHeldBack { name: name.clone(), token },
        (None, None) => Rejection::MayNotHold(holder),
    })
}

fn granted(state: &ClusterState, revision: Revision, name: &Name, holder: Holder, request: Request) -> Event {
    Event::LockGranted {
        name: name.clone(),
        holder,
        token: lock_waiters::token(state, revision),
        request: request.nonce,
    }
}

/// By token, not by owner: the late release of a former grant changes nothing (P13).
pub(super) fn unlock(
    state: &ClusterState,
    revision: Revision,
    name: &Name,
    holder: Holder,
    shown: Revision,
) -> Vec<Event> {
    let held = state.store.locks.get(name).and_then(|lock| lock.grant).filter(|grant| grant.holder == holder);
    let Some(grant) = held else { return vec![] };
    if grant.token != shown && !mutant!("release_by_owner") {
        return vec![];
    }
    let token = grant.token;
    let mut events = vec![Event::LockReleased { name: name.clone(), holder, token, why: Release::Unlocked }];
    events.extend(lock_waiters::next(state, revision, name));
    events
}

/// Decides what became of a request, if it is not decided yet. A lock that it was granted stays granted.
pub(super) fn settle(
    state: &ClusterState,
    revision: Revision,
    request: Request,
    lock: Option<&Name>,
) -> Result<Vec<Event>, Rejection> {
    // A request may wait for longer than its fate is remembered. If it waits or holds, it has taken effect.
    if let Some((name, lock)) = lock.and_then(|name| Some((name, state.store.locks.get(name)?))) {
        if let Some(waiter) = lock.waiters.iter().find(|waiter| waiter.request == request.nonce) {
            let (name, holder, request) = (name.clone(), waiter.holder, waiter.request);
            return Ok(vec![Event::LockWithdrawn { name, holder, request }]);
        }
        if lock.grant.is_some_and(|grant| grant.request == request.nonce) {
            return Ok(vec![]);
        }
    }
    match state.store.answered.admit(revision, request) {
        Admission::Fresh => Ok(vec![Event::Voided { request: request.nonce }]),
        Admission::Done | Admission::Void => Ok(vec![]),
        // No copy of it can take effect any more; whether one did is no longer remembered.
        Admission::Outdated => Err(Rejection::Outdated { request, at: revision }),
    }
}

/// Ends a lock-delay, if the leader of the current activation has waited long enough.
pub(super) fn lift(
    state: &ClusterState,
    revision: Revision,
    name: &Name,
    token: Revision,
    under: Activation,
    waited: Duration,
) -> Result<Vec<Event>, Rejection> {
    current_activation(state, under)?;
    let Some(delay) = state.store.locks.get(name).and_then(|lock| lock.delay).filter(|delay| delay.token == token)
    else {
        return Ok(vec![]);
    };
    let need = session::wait(delay.at_least);
    if waited < need {
        return Err(Rejection::WaitOn { what: format!("lock `{name}`"), waited, need });
    }
    let mut events = vec![Event::LockLifted { name: name.clone(), token }];
    events.extend(lock_waiters::next(state, revision, name));
    Ok(events)
}

/// The locks that a joining life gives up. It took them over from its former life, and never acted under them.
pub(super) fn forfeit(state: &ClusterState, revision: Revision, who: Identity) -> Vec<Event> {
    let (holder, why) = (Holder::Life(who), Release::HolderEnded);
    let held = state.store.held_by(holder);
    let given_up = held.flat_map(|(name, token)| {
        let released = Event::LockReleased { name: name.clone(), holder, token, why };
        [Some(released), lock_waiters::next(state, revision, name)].into_iter().flatten()
    });
    given_up.collect()
}

/// The consequences when holders end, in the same entry as the proof (P11): their locks pass on, and the records bound
/// to them are deleted.
pub(super) fn pass_on(state: &ClusterState, revision: Revision, events: &mut Vec<Event>) {
    let ended: Vec<_> = events.iter().filter_map(|event| end(state, event)).collect();
    if ended.is_empty() {
        return;
    }
    let mut after = state.clone();
    events.iter().for_each(|event| evolve(&mut after, revision, event));
    let mut follow = |after: &mut ClusterState, event: Event| {
        evolve(after, revision, &event);
        events.push(event);
    };
    for (over, delay, successor) in ended {
        let held: Vec<_> = after.store.held_by(over).map(|(name, token)| (name.clone(), token)).collect();
        for (name, token) in held {
            let request = after.store.locks.get(&name).and_then(|lock| lock.grant).map(|grant| grant.request);
            let why = Release::HolderEnded;
            follow(&mut after, Event::LockReleased { name: name.clone(), holder: over, token, why });
            if let (Some(successor), Some(request)) = (successor, request) {
                follow(&mut after, Event::LockGranted { name, holder: successor, token: revision, request });
                continue;
            }
            let at_least = delay.unwrap_or_default();
            if !at_least.is_zero() {
                follow(&mut after, Event::LockDelayed { name, token, at_least });
            } else if let Some(grant) = lock_waiters::next(&after, revision, &name) {
                follow(&mut after, grant);
            }
        }
        let bound: Vec<_> =
            after.store.records.iter().filter(|(_, r)| r.bound == Some(over)).map(|(key, _)| key.clone()).collect();
        for key in bound {
            follow(&mut after, Event::Deleted { key });
        }
    }
}

/// A holder that ends, the lock-delay of its locks, and the life that inherits them.
type End = (Holder, Option<Duration>, Option<Holder>);

/// The holder that this event ends. `state` is the state before the event.
fn end(state: &ClusterState, event: &Event) -> Option<End> {
    Some(match event {
        Event::Fenced { who, proof: FenceProof::Succeeded { by }, .. } => ((*who).into(), None, Some((*by).into())),
        Event::Fenced { who, .. } | Event::Left { who, .. } | Event::Superseded { who } => ((*who).into(), None, None),
        Event::SessionEnded { id, clean } => {
            let delay = state.store.sessions.get(id).filter(|_| !clean).map(|session| session.lock_delay);
            ((*id).into(), delay, None)
        }
        // The mistake: an order is taken for the end.
        Event::FenceOrdered { target, .. } if mutant!("lock_passes_on_silence") => ((*target).into(), None, None),
        _ => return None,
    })
}
