//! The lease of this node, as its consumer uses it.
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
use std::time::Duration;

use quorate_membership::lease::Reading;
use quorate_membership::{Identity, Revision};
use tokio::sync::{oneshot, watch};

use crate::host;
use crate::host::clock;
use crate::lease::error::{NotHeld, ProtectError};
use crate::lease::message::{AtEnd, KeeperHandle, Message};
use crate::lease::stage::{LeaseStage, LeaseView, Limits, latest};

/// This life's lease. Clones are the same lease.
#[derive(Clone)]
pub struct Lease {
    pub(crate) who: Identity,
    /// Whether this life has declared that its work dies with its process. Then no child is bound to the lease.
    pub(crate) process_bound: bool,
    pub(crate) limits: Arc<Limits>,
    pub(crate) views: watch::Receiver<LeaseView>,
    pub(crate) keeper: KeeperHandle,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("who", &self.who).field("view", &*self.views.borrow()).finish_non_exhaustive()
    }
}

impl Lease {
    /// The life that the lease belongs to.
    pub fn who(&self) -> Identity {
        self.who
    }

    /// Whether something may begin now, and for how long that is certain. Reads two clocks; no I/O, no lock. The margin
    /// and the stop mechanism cover what began in time and takes longer.
    ///
    /// # Errors
    /// [`NotHeld`]: begin nothing.
    pub fn check(&self) -> Result<Duration, NotHeld> {
        self.left(clock::reading())
    }

    /// As [`Self::check`], for clocks that were read already.
    pub(crate) fn left(&self, now: Reading) -> Result<Duration, NotHeld> {
        self.limits.left(now).ok_or(NotHeld)
    }

    /// The stage of the lease, what is armed and what is protected.
    pub fn view(&self) -> LeaseView {
        latest(&self.views)
    }

    /// Waits until the lease is held. Cancel-safe. Never resolves once the node is shut down.
    pub async fn held(&self) {
        self.until(|stage| stage == LeaseStage::Held).await;
    }

    /// Resolves when the lease is not held, at once if it is not held now: what runs has to stop. The margin of the timing
    /// is left until the stop mechanism acts. Cancel-safe: it reports a level, not an edge.
    pub async fn lost(&self) {
        self.until(|stage| stage != LeaseStage::Held).await;
    }

    async fn until(&self, wanted: impl Fn(LeaseStage) -> bool) {
        let mut views = self.views.clone();
        loop {
            // A keeper that has ended keeps no lease, whatever it published last.
            let stage = if views.has_changed().is_err() { LeaseStage::Lapsed } else { views.borrow_and_update().stage };
            if wanted(stage) {
                return;
            }
            if views.changed().await.is_err() && !wanted(LeaseStage::Lapsed) {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Arms the stop mechanism for work named `what`, which is to run here under `token` (P14). The work may begin when
    /// this has returned. It must have stopped before [`Protection::stopped`] is called.
    ///
    /// Dropping the future before it resolves protects nothing.
    ///
    /// # Errors
    /// [`ProtectError`]: the work must not begin.
    pub async fn protect(&self, what: impl Into<String>, token: Revision) -> Result<Protection, ProtectError> {
        self.protect_until(what.into(), token, None).await
    }

    /// As [`Self::protect`]; the keeper calls `at_end` when the lease ends with the work still protected.
    pub(crate) async fn protect_until(
        &self,
        what: String,
        token: Revision,
        at_end: Option<AtEnd>,
    ) -> Result<Protection, ProtectError> {
        let (reply, replied) = oneshot::channel();
        let (name, keeper) = (what.clone(), self.keeper.clone());
        let message = Message::Protect { what: name, token, at_end, keeper, reply };
        self.keeper.send(message).map_err(|_| ProtectError::Closed)?;
        let offer = replied.await.map_err(|_| ProtectError::Closed)??;
        Ok(Protection { id: offer.take(), what, token, lease: self.clone() })
    }
}

/// Work that may run, with the stop mechanism armed for it.
///
/// **Dropping it does not report that the work has stopped.** The mechanism stays armed and acts at the end of the lease.
/// Only [`Self::stopped`] ends the protection.
#[must_use = "dropped without `stopped`, the mechanism acts at the end of the lease"]
#[derive(Debug)]
pub struct Protection {
    id: u64,
    what: String,
    token: Revision,
    lease: Lease,
}

impl Protection {
    /// The name of the work.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// The token that the work runs under. Show it to every resource that the work touches.
    pub fn token(&self) -> Revision {
        self.token
    }

    /// Whether something may begin under it now; see [`Lease::check`].
    ///
    /// # Errors
    /// [`NotHeld`]: begin nothing.
    pub fn check(&self) -> Result<Duration, NotHeld> {
        self.lease.check()
    }

    /// Reports that the work has stopped: nothing of it runs or is under way. After the last protection the mechanism is
    /// disarmed.
    pub fn stopped(self) {
        // A keeper that has ended has nothing armed.
        let _keeper_gone = self.lease.keeper.send(Message::Stopped { id: self.id });
    }

    /// Runs `stop` on the async runtime when the lease is lost, and calls [`Self::stopped`] when `stop` has ended: the
    /// first stage of a loss. If the runtime is blocked, or `stop` takes too long, the mechanism still acts at the end of
    /// the lease.
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
