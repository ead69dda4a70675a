//! The order of waiters for a lock: first come, first served.
//!
//! ```text
//!   Lock{wait} ─▶ held ─▶ to the end of the line            released ─▶ the first in line that may hold anything
//!                          │ at most MAX_WAITERS a lock,               │ a life that has ended, or is about to be,
//!                          ▼ MAX_WAITING in all                        ▼ is passed over
//!                        n2#1, n3#4, s77                             granted, token = the revision of this entry
//! ```
//!
//! Nothing jumps the line: neither a life that asks again nor one that asks without waiting. A waiter whose life or
//! session ends leaves it in the entry that proves the end.

use super::checks::full;
use crate::cluster::ClusterState;
use crate::event::Event;
use crate::id::Revision;
use crate::rejection::Rejection;
use crate::store::lock::{MAX_WAITERS, MAX_WAITING, Name};

/// Whether one more may wait for this lock.
///
/// # Errors
/// [`Rejection::Full`] when too many wait for it, or for all locks together.
pub(super) fn admit(state: &ClusterState, name: &Name) -> Result<(), Rejection> {
    if state.store.locks.get(name).is_some_and(|lock| lock.waiters.len() >= MAX_WAITERS) {
        return Err(full(&format!("waiters for lock `{name}`"), MAX_WAITERS, "ask again later"));
    }
    if state.store.locks.values().map(|lock| lock.waiters.len()).sum::<usize>() >= MAX_WAITING {
        return Err(full("waiters for locks", MAX_WAITING, "ask again later"));
    }
    Ok(())
}

/// The grant to the first waiter that may hold anything. Called when the lock is neither held nor delayed.
pub(super) fn next(state: &ClusterState, revision: Revision, name: &Name) -> Option<Event> {
    let waiters = &state.store.locks.get(name)?.waiters;
    let mut may_hold = waiters.iter().filter(|waiter| state.may_hold(waiter.holder));
    let last = mutant!("queue_order_lost");
    let waiter = if last { may_hold.next_back() } else { may_hold.next() }?;
    let (holder, request) = (waiter.holder, waiter.request);
    Some(Event::LockGranted { name: name.clone(), holder, token: token(state, revision), request })
}

/// The revision of the entry that grants. A term or an activation would be shared by several grants.
pub(super) fn token(state: &ClusterState, revision: Revision) -> Revision {
    match state.leadership.filter(|_| mutant!("token_of_the_term")) {
        Some(leadership) => Revision::new(leadership.activation.get()),
        None => revision,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bounded_text::Reason;
    use crate::id::{Nonce, SessionId};
    use crate::store::lock::{Holder, Lock, Waiter};
    use crate::store::session::Session;

    const NOW: Revision = Revision::new(90);

    fn waiter(number: u64) -> Waiter {
        Waiter { holder: Holder::Session(SessionId::new(number)), request: Nonce::new(number.into()) }
    }

    /// A free lock for which these sessions wait, in this order; all of them are open.
    fn awaited(state: &mut ClusterState, name: &str, waiting: impl Iterator<Item = u64> + Clone) -> Name {
        let name = Name::new(name).unwrap();
        let lock = Lock { waiters: waiting.clone().map(waiter).collect(), ..Lock::default() };
        state.store.locks.insert(name.clone(), lock);
        let ttl = Duration::from_secs(10);
        let session =
            || Session { ttl, lock_delay: Duration::ZERO, label: Reason::new("a client").unwrap(), owner: None };
        state.store.sessions.extend(waiting.map(|number| (SessionId::new(number), session())));
        name
    }

    #[test]
    fn the_first_waiter_that_may_hold_anything_is_granted_the_lock() {
        let mut state = ClusterState::new();
        let name = awaited(&mut state, "vm/100", [8, 3, 5].into_iter());
        let granted = |number| {
            let Waiter { holder, request } = waiter(number);
            Some(Event::LockGranted { name: name.clone(), holder, token: NOW, request })
        };
        assert_eq!(next(&state, NOW, &name), granted(8));
        state.store.sessions.remove(&SessionId::new(8));
        assert_eq!(next(&state, NOW, &name), granted(3), "s8 has ended, and is passed over");
        state.store.sessions.clear();
        assert_eq!(next(&state, NOW, &name), None);
    }

    #[test]
    fn one_more_waits_below_the_bound_of_the_lock_and_that_of_all_locks() {
        let mut state = ClusterState::new();
        let (few, many) = (1..MAX_WAITERS as u64, 1..=MAX_WAITERS as u64);
        let [short, long] = [awaited(&mut state, "short", few), awaited(&mut state, "long", many.clone())];
        assert_eq!(admit(&state, &short), Ok(()));
        let refused = admit(&state, &long).unwrap_err().to_string();
        assert!(refused.contains("`long`") && refused.contains("256"), "{refused}");
        for number in 0..MAX_WAITING / MAX_WAITERS {
            awaited(&mut state, &format!("other/{number}"), many.clone());
        }
        let refused = admit(&state, &short).unwrap_err().to_string();
        assert!(refused.contains("16384"), "{refused}");
    }
}
