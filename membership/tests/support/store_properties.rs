//! What holds of locks, records, queues and sessions on every random walk; `properties.rs` runs it.

use std::collections::{BTreeMap, BTreeSet};

use quorate_membership::*;

use crate::walk::{Step, Walk};

fn grant_of(state: &ClusterState, lock: &Name) -> Option<Revision> {
    state.store().lock(lock)?.grant.map(|grant| grant.token)
}

/// P13: the token is the revision of the grant, and those of one lock strictly grow.
pub(crate) fn tokens_of_a_lock_strictly_grow(walk: &Walk) {
    let mut last = BTreeMap::new();
    for (_, revision, event) in walk.events() {
        if let Event::LockGranted { name, token, .. } = &event {
            assert!(*token == revision && last.insert(name.clone(), *token) < Some(*token), "{event}");
        }
    }
}

/// A lock passes on when its holder releases it under its token, in the entry that ends its holder, or when a life that took
/// it up is to be ended before it could begin; never otherwise.
pub(crate) fn a_lock_is_released_by_its_token_or_by_an_end(step: &Step) {
    let ended = |holder: Holder| {
        step.events().iter().any(|event| match event {
            Event::Fenced { who, .. } | Event::Left { who, .. } | Event::Superseded { who } => holder == (*who).into(),
            Event::SessionEnded { id, .. } => holder == (*id).into(),
            _ => false,
        })
    };
    let forfeits = |holder: Holder| match (&step.command, holder) {
        (Command::OrderFence { target, .. }, Holder::Life(who)) => {
            *target == who && step.before.life(who).is_some_and(|life| life.phase == Phase::Joining)
        }
        _ => false,
    };
    for event in step.events() {
        let Event::LockReleased { name, holder, token, why } = event else { continue };
        let said = match &step.command {
            Command::Unlock { name: n, holder: h, token: t } => (n, h, t) == (name, holder, token),
            _ => false,
        };
        let held = step.before.store().lock(name).and_then(|lock| lock.grant);
        assert_eq!(held.map(|grant| (grant.holder, grant.token)), Some((*holder, *token)), "{event}");
        assert!(
            if *why == Release::Unlocked { said } else { ended(*holder) || forfeits(*holder) },
            "{event} by {:?}",
            step.command
        );
    }
    // And nothing else takes a holder away.
    for (name, before) in step.before.store().locks().filter_map(|(name, lock)| Some((name, lock.grant?))) {
        let same = step.after.store().lock(name).and_then(|lock| lock.grant) == Some(before);
        let told = |event: &Event| matches!(event, Event::LockReleased { name: n, .. } if n == name);
        assert!(same || step.events().iter().any(told), "{name} by {:?}", step.command);
    }
}

/// Who is over holds no lock, waits for none, and no record is bound to it.
pub(crate) fn who_is_over_has_nothing(step: &Step) {
    let (state, store) = (&step.after, step.after.store());
    let over = |holder: Holder| match holder {
        Holder::Life(who) => state.has_ended(who),
        Holder::Session(session) => store.session(session).is_none(),
    };
    let held = store.locks().filter_map(|(_, lock)| Some(lock.grant?.holder));
    let waits = store.locks().flat_map(|(_, lock)| lock.waiters().map(|waiter| waiter.holder));
    let bound = store.records("").filter_map(|(_, record)| record.bound);
    for holder in held.chain(waits).chain(bound) {
        assert!(!over(holder), "{holder} after {:?}", step.command);
    }
}

/// P13: a lock is granted to an open session, or to a life that is active and its node's newest; or to the next life of
/// who held it. After a session that did not close, it is held back for as long as that one asked for.
pub(crate) fn who_is_granted_a_lock_may_have_it(step: &Step) {
    let (before, after) = (&step.before, &step.after);
    let successor = |holder: Holder| {
        let took_up = |event: &Event| match event {
            Event::Fenced { proof: FenceProof::Succeeded { by }, .. } => holder == (*by).into(),
            _ => false,
        };
        step.events().iter().any(took_up)
    };
    for event in step.events() {
        let Event::LockGranted { name, holder, .. } = event else { continue };
        let may = match holder {
            Holder::Session(session) => after.store().session(*session).is_some(),
            Holder::Life(who) => {
                let active = after.life(*who).is_some_and(|life| life.phase == Phase::Active);
                (active && after.newest(who.node) == Some(*who)) || successor(*holder)
            }
        };
        assert!(may, "{event}");
        let held_back = step.events().iter().any(|event| match event {
            Event::SessionEnded { id, clean: false } => {
                before.store().session(*id).is_some_and(|session| !session.lock_delay.is_zero())
            }
            _ => false,
        });
        assert!(!held_back, "{event}, at the end of a session that asked for a delay of `{name}`");
    }
}

/// I9: nothing that was concluded under another activation than the current one takes effect.
pub(crate) fn what_was_concluded_under_another_activation_does_not_count(step: &Step) {
    let under = match &step.command {
        Command::OrderFence { under: Some(under), cause, .. } if !matches!(cause, Cause::Requested { .. }) => under,
        Command::Expire { under, .. } | Command::ExpireSession { under, .. } | Command::LiftDelay { under, .. } => {
            under
        }
        _ => return,
    };
    let current = step.before.leadership().map(|leadership| leadership.activation);
    assert!(step.events().is_empty() || current == Some(*under), "{:?}", step.command);
}

/// Nobody waits in vain: a lock that is free has nobody in line who may hold it, and one that is held back has no holder.
pub(crate) fn nobody_waits_for_a_free_lock(step: &Step) {
    for (name, lock) in step.after.store().locks() {
        let waits = lock.waiters().any(|waiter| step.after.may_hold(waiter.holder));
        assert!(!lock.is_free() || !waits, "{name} after {:?}", step.command);
        assert!(lock.grant.is_none() || lock.delay.is_none(), "{name} is held, and held back");
        let idle = lock.is_free() && lock.waiters().len() == 0;
        assert!(!idle, "{name} is remembered for nothing");
    }
}

/// What is bound to a token counts only while the lock is held under it; a comparison, for the version that is there.
pub(crate) fn what_a_write_names_is_so(step: &Step) {
    let new = !step.events().is_empty();
    let current = |lock: &Name, token: &Revision| grant_of(&step.before, lock) == Some(*token);
    match &step.command {
        Command::Take { queue, token, .. } if new => assert!(current(queue, token), "{:?}", step.command),
        Command::Write { checks, changes, .. } if new => {
            for check in checks {
                let so = match check {
                    Check::Holds { lock, token } => current(lock, token),
                    Check::Version { key, version } => {
                        step.before.store().record(key).map(|record| record.version) == *version
                    }
                    _ => true,
                };
                assert!(so, "{check:?}");
            }
            let acknowledged = |change: &Change| match change {
                Change::Acknowledge { queue, token, .. } => current(queue, token),
                _ => true,
            };
            assert!(changes.iter().all(acknowledged), "{:?}", step.command);
        }
        _ => {}
    }
}

/// An item is gone only when it was acknowledged by who had taken it, and given out once under one token.
pub(crate) fn no_item_is_lost_or_given_out_twice(walk: &Walk) {
    let (mut waiting, mut given) = (BTreeSet::new(), BTreeSet::new());
    for step in &walk.0 {
        for event in step.events() {
            match event {
                Event::Pushed { queue, item, .. } => assert!(waiting.insert((queue.clone(), *item)), "{event}"),
                Event::Taken { queue, item, token, .. } => {
                    assert!(waiting.contains(&(queue.clone(), *item)), "{event}");
                    assert!(given.insert((*item, *token)), "{event} again");
                }
                Event::Acknowledged { queue, item } => {
                    let token = grant_of(&step.before, queue).unwrap();
                    assert!(given.contains(&(*item, token)), "{event}, which was not taken under {token}");
                    assert!(waiting.remove(&(queue.clone(), *item)), "{event}");
                }
                _ => {}
            }
        }
        let store = step.after.store();
        let there = store.queues().flat_map(|queue| store.queue(queue).map(|(item, _)| (queue.clone(), item)));
        assert_eq!(there.collect::<BTreeSet<_>>(), waiting, "after {:?}", step.command);
    }
}

/// A request takes effect once, in one entry; settled before, never. A grant belongs to one request and its successors.
pub(crate) fn a_request_takes_effect_once(walk: &Walk) {
    let (mut answered, mut voided, mut withdrawn) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
    let mut granted = BTreeSet::new();
    for (_, revision, event) in walk.events() {
        match &event {
            Event::Answered { request } => {
                assert!(!voided.contains(request) && answered.insert(*request, revision).is_none(), "{event}");
            }
            Event::Voided { request } => {
                assert!(!answered.contains_key(request) && voided.insert(*request), "{event}");
            }
            Event::LockWithdrawn { request, .. } => assert!(withdrawn.insert(*request), "{event}"),
            Event::LockGranted { request, holder, .. } => {
                assert!(answered.contains_key(request) && !withdrawn.contains(request), "{event}");
                assert!(granted.insert((*request, *holder)), "{event} under the same request");
            }
            Event::LockQueued { request, .. } | Event::Taken { request, .. } => {
                assert_eq!(answered.get(request), Some(&revision), "{event}");
            }
            _ => {}
        }
    }
    for (request, revision) in answered {
        assert_eq!(walk.end().store().answered().fate(request), Some(request::Fate::Done(revision)));
    }
}

/// The counters that the bounds go by are what is really stored.
pub(crate) fn what_is_counted_is_what_is_stored(step: &Step) {
    let store = step.after.store();
    let records = store.records("").map(|(key, record)| key.as_str().len() + record.value.as_bytes().len());
    let items = store.queues().flat_map(|queue| store.queue(queue).map(move |(_, item)| (queue, item)));
    let items: Vec<_> = items.map(|(queue, item)| queue.as_str().len() + item.value.as_bytes().len()).collect();
    let bytes = records.sum::<usize>() + items.iter().sum::<usize>();
    assert_eq!(store.bytes(), bytes as u64, "after {:?}", step.command);
    // How many items there are only the rules read; it is shown, and nothing more.
    let shown = format!("{store:?}");
    let counted = shown.rsplit_once(", items: ").and_then(|(_, rest)| rest.split(',').next()).unwrap();
    assert_eq!(counted, items.len().to_string(), "after {:?}", step.command);
    assert_eq!(store.record_count(), store.records("").count());
}
