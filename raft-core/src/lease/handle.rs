//! This node's own right to act, as its consumer sees it.
//!
//! ```text
//!   lease.check()            nanoseconds, no I/O: may this node begin something, right now?
//!   lease.protect(what, r19) arms the stop mechanism: from here on the work may run
//!        │
//!        ├─ lease.lost()     resolves with time left: stop the work, then protection.stopped()
//!        └─ … else at the end of the lease the mechanism acts
//! ```
//!
//! A node that protects nothing is never armed and never reset: its lease simply lapses (I19).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quorate_membership::lease::Reading;
use quorate_membership::{Identity, Revision, Stop};
use tokio::sync::{oneshot, watch};

use crate::host;
use crate::host::clock;
use crate::lease::keeper::{KeeperHandle, Message};

/// How a lease stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LeaseStage {
    /// There is none: nothing may run.
    #[default]
    Lapsed,
    /// It runs out, or the life is being fenced: what runs has to stop now.
    Notice,
    /// It is held.
    Held,
}

impl fmt::Display for LeaseStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lapsed => "lapsed",
            Self::Notice => "notice",
            Self::Held => "held",
        })
    }
}

/// What this node knows of its lease.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseView {
    /// How it stands.
    pub stage: LeaseStage,
    /// What stops the work at its end, as registered with this life.
    pub stop: Stop,
    /// Whether that is armed just now. Never without protected work.
    pub armed: bool,
    /// What is protected, by name.
    pub protecting: Vec<String>,
    /// What is wrong with the mechanism, if anything is: then nothing may be begun.
    pub trouble: Option<String>,
}

/// There is no right to act now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this node holds no lease now: it may begin nothing, and what it runs has to stop")]
pub struct NotHeld;

/// Work could not be protected; nothing was armed for it, and it must not be begun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtectError {
    /// There is no lease.
    #[error(transparent)]
    NotHeld(#[from] NotHeld),
    /// The mechanism cannot be armed.
    #[error("the stop mechanism could not be armed: {0}")]
    Mechanism(String),
    /// The work has to be bound to the lease, and nothing here is armed that could end a process.
    #[error("{0} ends no process here; start the node with a dead-man or a watchdog to bind children to its lease")]
    Unbound(Stop),
    /// This life has said that its work dies with its process, and a child may outlive it by a moment.
    #[error(
        "this node said that its work dies with its process, and a child may outlive it; start it without `work_dies_with_process` to bind children"
    )]
    Alone,
    /// The process could not be started, or not be bound.
    #[error("the process was not started: {0}")]
    Spawn(String),
    /// The node has been shut down.
    #[error("the node is shut down")]
    Closed,
}

/// What the keeper publishes without a lock: until when something may be begun, on each of the two lease clocks.
///
/// The keeper alone writes. A reader that sees one clock's value of a new grant and the other's of the one before sees
/// two limits of which each held, so it errs on the safe side.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    boottime: AtomicU64,
    raw: AtomicU64,
}

impl Limits {
    pub(crate) fn set(&self, until: Option<Reading>) {
        let nanos = |shown: Duration| u64::try_from(shown.as_nanos()).unwrap_or(0);
        let (boottime, raw) = until.map_or((0, 0), |until| (nanos(until.boottime()), nanos(until.raw())));
        self.boottime.store(boottime, Ordering::Release);
        self.raw.store(raw, Ordering::Release);
    }

    fn left(&self, now: Reading) -> Option<Duration> {
        let until = [&self.boottime, &self.raw].map(|limit| Duration::from_nanos(limit.load(Ordering::Acquire)));
        let left = until[0].saturating_sub(now.boottime()).min(until[1].saturating_sub(now.raw()));
        (!left.is_zero()).then_some(left)
    }
}

/// What was published last; a keeper that has ended keeps no lease, whatever it said last.
pub(crate) fn seen(views: &watch::Receiver<LeaseView>) -> LeaseView {
    let view = views.borrow().clone();
    match views.has_changed() {
        Ok(_) => view,
        Err(_) => LeaseView { stage: LeaseStage::Lapsed, ..view },
    }
}

/// This life's lease. Clones are the same lease.
#[derive(Clone)]
pub struct Lease {
    pub(crate) who: Identity,
    /// Whether this life has said that all its work runs inside its process.
    pub(crate) alone: bool,
    pub(crate) limits: Arc<Limits>,
    pub(crate) views: watch::Receiver<LeaseView>,
    pub(crate) post: KeeperHandle,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("who", &self.who).field("view", &*self.views.borrow()).finish_non_exhaustive()
    }
}

impl Lease {
    /// Whose lease it is.
    pub fn who(&self) -> Identity {
        self.who
    }

    /// Whether something may be begun now, and for how long that is sure: two readings of a clock, no I/O, no lock.
    /// What was begun in time and takes longer is what the margin and the mechanism are for.
    ///
    /// # Errors
    /// [`NotHeld`]: begin nothing.
    pub fn check(&self) -> Result<Duration, NotHeld> {
        self.left(clock::reading())
    }

    /// As [`Self::check`], by a look at the clocks that was taken already.
    pub(crate) fn left(&self, now: Reading) -> Result<Duration, NotHeld> {
        self.limits.left(now).ok_or(NotHeld)
    }

    /// How it stands, what is armed and what is protected.
    pub fn view(&self) -> LeaseView {
        seen(&self.views)
    }

    /// Waits until the lease is held. Cancel-safe. Never resolves once the node is shut down.
    pub async fn held(&self) {
        self.until(|stage| stage == LeaseStage::Held).await;
    }

    /// Resolves as soon as the lease is not held any more (or is not held now): what runs has to stop. There is time
    /// left until the mechanism acts, by the margin of the timing. Cancel-safe: it is a level, not an edge.
    pub async fn lost(&self) {
        self.until(|stage| stage != LeaseStage::Held).await;
    }

    async fn until(&self, wanted: impl Fn(LeaseStage) -> bool) {
        let mut views = self.views.clone();
        loop {
            // A keeper that has ended keeps no lease, whatever it said last.
            let stage = if views.has_changed().is_err() { LeaseStage::Lapsed } else { views.borrow_and_update().stage };
            if wanted(stage) {
                return;
            }
            if views.changed().await.is_err() && !wanted(LeaseStage::Lapsed) {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Says that work named `what` is to run here under `token`, and arms the stop mechanism for it (P14). The work may
    /// be begun when this has returned, and must have stopped before [`Protection::stopped`] is said.
    ///
    /// Dropping the future before it resolves protects nothing.
    ///
    /// # Errors
    /// [`ProtectError`]: it must not be begun.
    pub async fn protect(&self, what: impl Into<String>, token: Revision) -> Result<Protection, ProtectError> {
        self.ask(what.into(), token, None).await
    }

    pub(crate) async fn ask(
        &self,
        what: String,
        token: Revision,
        at_end: Option<Box<dyn FnMut() + Send>>,
    ) -> Result<Protection, ProtectError> {
        let (reply, replied) = oneshot::channel();
        let lease = self.clone();
        self.post.send(Message::Protect { what, token, at_end, lease, reply }).map_err(|_| ProtectError::Closed)?;
        replied.await.map_err(|_| ProtectError::Closed)?.map(Offer::take)?.ok_or(ProtectError::Closed)
    }
}

/// Work that may run, and that the stop mechanism is armed for.
///
/// **Dropping it does not say that the work has stopped**: the mechanism stays armed, and acts at the end of the lease.
/// Only [`Self::stopped`] says so.
#[must_use = "dropped without `stopped`, the mechanism acts at the end of the lease"]
#[derive(Debug)]
pub struct Protection {
    pub(crate) id: u64,
    pub(crate) what: String,
    pub(crate) token: Revision,
    pub(crate) lease: Lease,
}

impl Protection {
    /// What is protected.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// The token that it runs under: to be shown to whatever it touches.
    pub fn token(&self) -> Revision {
        self.token
    }

    /// Whether something may be begun under it now; see [`Lease::check`].
    ///
    /// # Errors
    /// [`NotHeld`]: begin nothing.
    pub fn check(&self) -> Result<Duration, NotHeld> {
        self.lease.check()
    }

    /// Says that the work has stopped: nothing of it runs or is under way. With the last protection the mechanism is
    /// disarmed.
    pub fn stopped(self) {
        // A keeper that is gone has nothing armed that it could disarm.
        let _keeper_gone = self.post_stopped();
    }

    fn post_stopped(&self) -> Result<(), Closed> {
        self.lease.post.send(Message::Stopped { id: self.id })
    }

    /// Runs `stop` when the lease is lost, on the async runtime, and says [`Self::stopped`] when it has ended: the first
    /// stage of a loss. Should the runtime be blocked, or `stop` take too long, the mechanism acts at the end of the
    /// lease all the same.
    ///
    /// Aborting the task leaves the work protected.
    pub fn stop_with<F, Fut>(self, stop: F) -> tokio::task::JoinHandle<()>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        host::spawn(async move {
            self.lease.lost().await;
            stop().await;
            self.stopped();
        })
    }
}

/// A protection on its way to whoever asked for it. Should nobody take it, it was never begun, and says so.
#[derive(Debug)]
pub(crate) struct Offer(Option<Protection>);

impl Offer {
    pub(crate) fn new(protection: Protection) -> Self {
        Self(Some(protection))
    }

    fn take(mut self) -> Option<Protection> {
        self.0.take()
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        if let Some(protection) = self.0.take() {
            protection.stopped();
        }
    }
}

/// The keeper has ended.
#[derive(Debug)]
pub(crate) struct Closed;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_holds_on_both_clocks_or_not_at_all() {
        let (limits, ms) = (Limits::default(), Duration::from_millis);
        assert_eq!(limits.left(Reading::new(ms(5), ms(5))), None);
        limits.set(Some(Reading::new(ms(100), ms(90))));
        assert_eq!(limits.left(Reading::new(ms(50), ms(50))), Some(ms(40)));
        assert_eq!(limits.left(Reading::new(ms(100), ms(50))), None);
        limits.set(None);
        assert_eq!(limits.left(Reading::new(ms(50), ms(50))), None);
    }
}
