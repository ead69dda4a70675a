//! The holder's side of a queue: takes what was pushed for it, and says when it is done.
//!
//! ```text
//!   guard.next() ─▶ waits ─▶ Take under the guard's token ─▶ Delivery q7
//!   … carry it out …        guard.done(q7)   or, with the outcome in one entry:   records.write().acknowledge(&guard, q7)
//! ```

use quorate_membership::{Change, Command, ItemId, Rejection, Revision, Value};

use crate::error::{Fatal, ProposeError};
use crate::member::locks::LockGuard;

/// Something that was pushed for the holder of a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivery {
    /// Its number, for the acknowledgement. The same for whoever it is delivered to again.
    pub item: ItemId,
    /// What.
    pub value: Value,
    /// When it was pushed.
    pub pushed: Revision,
    /// Whether an earlier holder had taken it and did not acknowledge: it may have been carried out, wholly or in part.
    pub again: bool,
}

impl LockGuard {
    /// The next item of the lock's queue that was not given out under this guard's token yet; waits until there is one.
    /// It stays in the queue until it is acknowledged: should this holder die, the next one gets it.
    ///
    /// Dropped in the middle, an item may have been taken whose number nobody heard of: [`LockGuard::taken`] has it.
    ///
    /// # Errors
    /// [`Rejection::NotHolder`] in [`ProposeError::Rejected`] once the lock has passed on. Nothing was taken then.
    pub async fn next(&self) -> Result<Delivery, ProposeError> {
        let engine = self.engine();
        let (queue, token) = (self.name().clone(), self.token());
        let mut progress = engine.progress();
        loop {
            progress.borrow_and_update();
            let state = engine.state();
            let store = state.store();
            let fresh =
                |taken: Option<quorate_membership::queue::Taken>| taken.is_none_or(|taken| taken.token != token);
            if !store.holds(&queue, token) || store.queue(&queue).any(|(_, item)| fresh(item.taken)) {
                let earlier: std::collections::BTreeSet<_> =
                    store.queue(&queue).filter(|(_, item)| item.taken.is_some()).map(|(id, _)| id).collect();
                let make = |request| Command::Take { request, queue: queue.clone(), token };
                match engine.ask_once(engine.config().propose_timeout, make).await {
                    Ok((request, _)) => {
                        let state = engine.state();
                        let by = |item: &&(ItemId, &quorate_membership::queue::Item)| {
                            item.1.taken.is_some_and(|taken| taken.request == request.nonce)
                        };
                        if let Some((item, what)) = state.store().queue(&queue).collect::<Vec<_>>().iter().find(by) {
                            let (value, pushed) = (what.value.clone(), what.pushed);
                            return Ok(Delivery { item: *item, value, pushed, again: earlier.contains(item) });
                        }
                    }
                    // Taken by another caller in an entry that is not applied here yet: it comes.
                    Err(ProposeError::Rejected(Rejection::QueueEmpty(_))) => {}
                    Err(other) => return Err(other),
                }
            }
            if progress.changed().await.is_err() {
                return Err(Fatal::Shutdown.into());
            }
        }
    }

    /// What was taken under this guard's token and not acknowledged yet, oldest first, as this node has it.
    pub fn taken(&self) -> Vec<Delivery> {
        let state = self.engine().state();
        let own = |taken: quorate_membership::queue::Taken| taken.token == self.token();
        let taken = state.store().queue(self.name()).filter(|(_, item)| item.taken.is_some_and(own));
        taken
            .map(|(item, what)| Delivery { item, value: what.value.clone(), pushed: what.pushed, again: true })
            .collect()
    }

    /// Says that an item is done with: it leaves the queue for good.
    ///
    /// # Errors
    /// [`Rejection::NotHolder`] in [`ProposeError::Rejected`] once the lock has passed on: the next holder gets the item.
    pub async fn done(&self, item: ItemId) -> Result<Revision, ProposeError> {
        let engine = self.engine();
        let (queue, token) = (self.name().clone(), self.token());
        let acknowledged = Change::Acknowledge { queue, item, token };
        let make = |request| Command::Write { request, checks: vec![], changes: vec![acknowledged.clone()] };
        engine.ask_once(engine.config().propose_timeout, make).await.map(|(_, revision)| revision)
    }
}
