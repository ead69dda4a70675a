//! The holder's side of a lock's queue: takes the items that were pushed, and acknowledges them when they are done.
//!
//! ```text
//!   guard.next() ─▶ waits ─▶ Take under the guard's token ─▶ Delivery q7
//!   … carry it out …        guard.done(q7)   or, together with its result:   records.write().acknowledge(&guard, q7)
//! ```

use quorate_membership::{Change, Command, ItemId, Rejection, Revision, Value};

use crate::error::{Fatal, ProposeError};
use crate::member::locks::LockGuard;

/// An item that was pushed to the queue of a lock, delivered to the lock's holder.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivery {
    /// The number of the item, for its acknowledgement. It stays the same when the item is delivered again.
    pub item: ItemId,
    /// The bytes that were pushed.
    pub value: Value,
    /// The revision at which it was pushed.
    pub pushed: Revision,
    /// Whether the item was taken before and not acknowledged, by an earlier holder or under this guard. It may have
    /// been carried out already, wholly or in part.
    pub again: bool,
}

impl LockGuard {
    /// Takes the oldest item of the lock's queue that was not yet taken under this guard's token, and waits if there is
    /// none. The item stays in the queue until it is acknowledged, so if this holder dies, the next one gets it.
    ///
    /// If the future is dropped, it may have taken an item without returning it; [`LockGuard::taken`] lists it.
    ///
    /// # Errors
    /// [`Rejection::NotHolder`] in [`ProposeError::Rejected`] once this life has lost the lock; nothing was taken then.
    /// See [`ProposeError`] for the rest.
    pub async fn next(&self) -> Result<Delivery, ProposeError> {
        let engine = self.engine();
        let (queue, token) = (self.name().clone(), self.token());
        let mut progress = engine.progress();
        loop {
            progress.borrow_and_update();
            let state = engine.state();
            let store = state.store();
            let fresh =
                |taken: Option<quorate_membership::work_queue::Taken>| taken.is_none_or(|taken| taken.token != token);
            if !store.holds(&queue, token) || store.queue(&queue).any(|(_, item)| fresh(item.taken)) {
                let earlier: std::collections::BTreeSet<_> =
                    store.queue(&queue).filter(|(_, item)| item.taken.is_some()).map(|(id, _)| id).collect();
                let make = |request| Command::Take { request, queue: queue.clone(), token };
                match engine.ask_once(engine.config().propose_timeout, make).await {
                    Ok((request, _)) => {
                        let state = engine.state();
                        let by = |item: &&(ItemId, &quorate_membership::work_queue::Item)| {
                            item.1.taken.is_some_and(|taken| taken.request == request.nonce)
                        };
                        if let Some((item, what)) = state.store().queue(&queue).collect::<Vec<_>>().iter().find(by) {
                            let (value, pushed) = (what.value.clone(), what.pushed);
                            return Ok(Delivery { item: *item, value, pushed, again: earlier.contains(item) });
                        }
                    }
                    // Another caller took it in an entry that is not applied here yet. Wait for progress.
                    Err(ProposeError::Rejected(Rejection::QueueEmpty(_))) => {}
                    Err(other) => return Err(other),
                }
            }
            if progress.changed().await.is_err() {
                return Err(Fatal::Shutdown.into());
            }
        }
    }

    /// The items that were taken under this guard's token and not yet acknowledged, oldest first, as this node has
    /// applied them.
    pub fn taken(&self) -> Vec<Delivery> {
        let state = self.engine().state();
        let own = |taken: quorate_membership::work_queue::Taken| taken.token == self.token();
        let taken = state.store().queue(self.name()).filter(|(_, item)| item.taken.is_some_and(own));
        taken
            .map(|(item, what)| Delivery { item, value: what.value.clone(), pushed: what.pushed, again: true })
            .collect()
    }

    /// Acknowledges an item, which removes it from the queue. Returns the revision of the removal.
    ///
    /// # Errors
    /// [`Rejection::NotHolder`] in [`ProposeError::Rejected`] once this life has lost the lock; the item stays in the
    /// queue for the next holder. See [`ProposeError`] for the rest.
    pub async fn done(&self, item: ItemId) -> Result<Revision, ProposeError> {
        let engine = self.engine();
        let (queue, token) = (self.name().clone(), self.token());
        let acknowledged = Change::Acknowledge { queue, item, token };
        let make = |request| Command::Write { request, checks: vec![], changes: vec![acknowledged.clone()] };
        engine.ask_once(engine.config().propose_timeout, make).await.map(|(_, revision)| revision)
    }
}
