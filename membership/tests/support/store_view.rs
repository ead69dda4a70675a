//! Which worlds of the store model are the same: the fingerprint.
//!
//! Revisions only grow, and of tokens, versions, sessions and activations no rule reads more than whether two are equal.
//! So each is known by the place where the walk over the world meets it first.

use std::hash::{Hash, Hasher};

use quorate_membership::*;

use crate::moves::{key, name};
use crate::world::{LOCKS, World};

/// The revisions met so far.
#[derive(Default)]
struct Met(Vec<u64>);

impl Met {
    fn place(&mut self, revision: u64) -> u8 {
        let place = self.0.iter().position(|known| *known == revision).unwrap_or_else(|| {
            self.0.push(revision);
            self.0.len() - 1
        });
        u8::try_from(place).unwrap()
    }

    fn holder(&mut self, holder: Holder) -> (u64, u64) {
        match holder {
            Holder::Life(who) => (who.node.get(), who.incarnation.get()),
            Holder::Session(session) => (0, self.place(session.get()).into()),
        }
    }
}

impl Hash for World {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let mut met = Met::default();
        (self.used, self.wrong, &self.calls).hash(hasher);
        // The clients first, so that their sessions are known by who they are.
        for actor in self.actors.iter().rev() {
            actor.holder.map(|holder| met.holder(holder)).hash(hasher);
            (actor.acts, actor.begun, actor.left, actor.guards.len(), actor.writes.len()).hash(hasher);
        }
        for lock in 0..LOCKS {
            self.hash_lock(lock, &mut met, hasher);
        }
        self.hash_rest(&mut met, hasher);
        for actor in &self.actors {
            for guard in &actor.guards {
                (guard.lock, met.place(guard.token.get()), guard.request, guard.released).hash(hasher);
            }
            for write in &actor.writes {
                write.version.map(|version| met.place(version.get())).hash(hasher);
                write.under.map(|(lock, token)| (lock, met.place(token.get()))).hash(hasher);
            }
        }
        for (request, fate) in &self.fates {
            (request, fate.is_some()).hash(hasher);
        }
        self.withdrawn.hash(hasher);
    }
}

impl World {
    fn hash_lock<H: Hasher>(&self, lock: usize, met: &mut Met, hasher: &mut H) {
        let Some(lock) = self.cluster.store().lock(&name(lock)) else { return 0.hash(hasher) };
        let grant = lock.grant.map(|grant| (met.holder(grant.holder), met.place(grant.token.get()), grant.request));
        let delay = lock.delay.map(|delay| met.place(delay.token.get()));
        (1, grant, delay).hash(hasher);
        for waiter in lock.waiters() {
            (met.holder(waiter.holder), waiter.request).hash(hasher);
        }
    }

    /// Lives, orders, the record, the queue. What was given out counts under the token of now: no other comes back.
    fn hash_rest<H: Hasher>(&self, met: &mut Met, hasher: &mut H) {
        let cluster = &self.cluster;
        for (who, life) in cluster.lives() {
            (who, life.phase, life.process_bound, life.boot).hash(hasher);
        }
        for order in cluster.fences().open() {
            (order.id, order.target, order.attempts).hash(hasher);
        }
        for record in cluster.fences().history() {
            (record.id, record.proof.kind(), record.second.is_some()).hash(hasher);
        }
        let record = cluster.store().record(key());
        let places = record.map(|r| (met.place(r.version.get()), met.place(r.created.get())));
        (places, record.and_then(|r| r.bound).map(|holder| met.holder(holder))).hash(hasher);
        for (item, waiting) in cluster.store().queue(&name(0)) {
            (item, waiting.taken.map(|taken| met.place(taken.token.get()))).hash(hasher);
        }
        let current = cluster.store().lock(&name(0)).and_then(|lock| lock.grant).map(|grant| grant.token);
        for (item, _) in self.given.iter().filter(|(_, token)| Some(*token) == current) {
            item.hash(hasher);
        }
        for (session, _) in cluster.store().sessions() {
            met.place(session.get()).hash(hasher);
        }
    }
}
