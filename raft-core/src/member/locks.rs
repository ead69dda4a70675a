//! Locks as a node's consumer has them: asked for, guarded, given back.
//!
//! ```text
//!   lock("vm/100") ─▶ Lock{request} ─▶ log ─▶ granted, token r42 ─▶ lease.protect ─▶ LockGuard
//!        │ dropped at any moment                                      guard.check()   nanoseconds, no I/O
//!        └──▶ the releaser withdraws or releases whatever nobody here   guard.lost()    stop now
//!             waits for or holds any more                             drop            released
//! ```
//!
//! A guard is the lock (committed), the lease (volatile) and the stop mechanism (armed) in one: it is valid while all
//! three are. [`LockGuard::check`] says so at any moment, without asking anybody.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_membership::lease::Reading;
use quorate_membership::lock::Grant;
use quorate_membership::{Command, Holder, Identity, Name, Nonce, Phase, Rejection, Request, Revision, TextError};
use tokio::time::{Instant, timeout_at};

use crate::engine::Engine;
use crate::error::{Fatal, ProposeError};
use crate::host::clock;
use crate::lease::keeper::Keeper;
use crate::lease::{Lease, NotHeld, ProtectError, Protection};
use crate::member::releaser::{Gone, Releaser, Ticket};

/// Why a lock was not had. Whatever the log had of the request is withdrawn.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// It could not be asked for, or the rules refused: [`Rejection::LockHeld`] for `try_lock` on one that is held.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// It did not become free in time, or this life was not given work in time.
    #[error("lock `{name}` was not had within {waited:?}{}", holder_now(*.holder))]
    TimedOut {
        /// Which lock.
        name: Name,
        /// For how long it was waited.
        waited: Duration,
        /// Who holds it, if anybody does.
        holder: Option<Holder>,
    },
    /// This life is over, or is being ended: it gets nothing any more.
    #[error("{0} is over or being ended, and gets no lock any more")]
    Over(Identity),
    /// The lock was granted, but what must be armed before the work may begin could not be. It was released again.
    #[error("lock `{name}` was granted, and released again: {why}")]
    Unprotected {
        /// Which lock.
        name: Name,
        /// What was wrong.
        why: ProtectError,
    },
}

fn holder_now(holder: Option<Holder>) -> String {
    holder.map_or(String::new(), |holder| format!("; {holder} holds it"))
}

impl From<TextError> for LockError {
    fn from(text: TextError) -> Self {
        Self::Propose(text.into())
    }
}

impl From<Fatal> for LockError {
    fn from(fatal: Fatal) -> Self {
        Self::Propose(fatal.into())
    }
}

/// The lock is this life's no more, or its lease does not hold now: begin nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotPermitted {
    /// The lease does not hold now. It may again, and then the lock is still ours.
    #[error(transparent)]
    NotHeld(#[from] NotHeld),
    /// The lock has passed on: it never comes back under this token.
    #[error("the lock was released or passed on; what runs under its token has to stop")]
    PassedOn,
}

/// That something may be begun under a lock, now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Permit {
    /// The fencing token, to be shown to whatever is touched.
    pub token: Revision,
    /// For how long the answer holds, from now.
    pub left: Duration,
    /// Until when it holds, on the two clocks of the lease (CLOCK_BOOTTIME, CLOCK_MONOTONIC_RAW).
    pub until: Reading,
}

/// A lock that this life holds. **Dropping it says that the work under it has stopped, and releases the lock.**
///
/// When [`Self::lost`] resolves, stop the work and then drop the guard, in this order. Should nobody stop the work, the
/// stop mechanism of the node acts at the end of the lease. Keep the guard outside of any future that may be cancelled
/// while its work goes on elsewhere (`spawn_blocking`). A guard that a panic drops stays: the lock is held, and the
/// mechanism armed, until the process ends or the lease does.
#[must_use = "dropping it releases the lock"]
pub struct LockGuard {
    engine: Engine,
    name: Name,
    token: Revision,
    lease: Lease,
    protection: Option<Protection>,
    ticket: Option<Ticket>,
    gone: Gone,
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard").field("name", &self.name).field("token", &self.token).finish_non_exhaustive()
    }
}

impl LockGuard {
    /// Which lock.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The fencing token: the revision of the grant.
    pub fn token(&self) -> Revision {
        self.token
    }

    /// Whose it is: this life of this node.
    pub fn who(&self) -> Identity {
        self.lease.who()
    }

    /// Whether something may be begun under this lock now: a look at two clocks and a flag, no I/O, no waiting.
    ///
    /// # Errors
    /// [`NotPermitted`]: begin nothing.
    pub fn check(&self) -> Result<Permit, NotPermitted> {
        if self.gone.load(Ordering::Acquire) {
            return Err(NotPermitted::PassedOn);
        }
        let now = clock::reading();
        let left = self.lease.left(now)?;
        Ok(Permit { token: self.token, left, until: Reading::new(now.boottime() + left, now.raw() + left) })
    }

    /// Resolves when the work has to stop: the lease is lost, or the lock has passed on. Cancel-safe.
    pub async fn lost(&self) {
        tokio::select! { biased;
            () = self.lease.lost() => {}
            () = self.passed_on() => {}
        }
    }

    /// Releases the lock and waits until that is committed. Say it only when the work under it has stopped.
    ///
    /// # Errors
    /// [`ProposeError`] when it is not known whether the others were told; it is said again in the background, until
    /// this life is over.
    pub async fn release(mut self) -> Result<(), ProposeError> {
        if let Some(protection) = self.protection.take() {
            protection.stopped();
        }
        let (name, holder, token) = (self.name.clone(), Holder::Life(self.who()), self.token);
        let timeout = self.engine.config().propose_timeout;
        self.engine.propose(Command::Unlock { name, holder, token }, timeout).await.map(|_| ())
    }

    async fn passed_on(&self) {
        match &self.ticket {
            Some(ticket) => ticket.passed_on().await,
            None => std::future::pending().await,
        }
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (name, token) = (&self.name, self.token);
            tracing::error!(%name, %token, "a panic dropped the guard; nobody says that the work has stopped, so it stays");
            std::mem::forget(self.ticket.take());
            return;
        }
        if let Some(protection) = self.protection.take() {
            protection.stopped();
        }
        // After that, so that the lock is given back when the work is not protected any more.
        self.ticket.take();
    }
}

/// What asking for a lock takes. Clones are the same.
#[derive(Clone)]
pub(crate) struct Locks {
    pub(crate) engine: Engine,
    pub(crate) releaser: Releaser,
    pub(crate) keeper: Arc<Keeper>,
}

impl Locks {
    /// Asks for a lock for `who`, this life, and guards it. Dropped at any moment, nothing stays behind.
    pub(crate) async fn lock(&self, who: Identity, name: Name, wait: Option<Duration>) -> Result<LockGuard, LockError> {
        let begun = Instant::now();
        let timeout = wait.unwrap_or(self.engine.config().propose_timeout);
        let give_up = begun.checked_add(timeout).unwrap_or(begun + FOR_EVER);
        match timeout_at(give_up, self.at_work(who)).await {
            Ok(found) => found?,
            Err(_) => return Err(LockError::TimedOut { name, waited: begun.elapsed(), holder: None }),
        }
        // What a former life of this process's node left to it, if it did.
        let mut ticket = match self.releaser.adopt(&self.engine.state(), who, &name) {
            Some(ticket) => ticket,
            None => self.ask_for(who, &name, wait.is_some(), give_up).await?,
        };
        let timed_out = || {
            let state = self.engine.state();
            let holder = state.store().lock(&name).and_then(|lock| lock.grant).map(|grant| grant.holder);
            LockError::TimedOut { name: name.clone(), waited: begun.elapsed(), holder }
        };
        let token = loop {
            let waiting = self.granted(who, &name, ticket.request);
            match timeout_at(give_up, waiting).await {
                Ok(Ok(Some(token))) => break token,
                // It had never been asked for, or was taken out of the line: a life's restart of its own engine at worst.
                Ok(Ok(None)) => ticket = self.ask_for(who, &name, wait.is_some(), give_up).await?,
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(timed_out()),
            }
        };
        ticket.granted(token);
        let lease = self.keeper.lease(who);
        let protection = loop {
            if timeout_at(give_up, lease.held()).await.is_err() {
                return Err(timed_out());
            }
            match lease.protect(name.to_string(), token).await {
                Ok(protection) => break protection,
                Err(ProtectError::NotHeld(_)) => {}
                Err(why) => return Err(LockError::Unprotected { name, why }),
            }
        };
        let gone = ticket.gone.clone();
        Ok(LockGuard {
            engine: self.engine.clone(),
            name,
            token,
            lease,
            protection: Some(protection),
            ticket: Some(ticket),
            gone,
        })
    }

    /// Waits until this life may be given work: before, it may hold nothing.
    async fn at_work(&self, who: Identity) -> Result<(), LockError> {
        let mut progress = self.engine.progress();
        loop {
            progress.borrow_and_update();
            let state = self.engine.state();
            if let Some(fatal) = self.engine.stopped() {
                return Err(fatal.into());
            }
            if state.may_renew(who) {
                return Ok(());
            }
            let joining = state.life(who).is_some_and(|life| life.phase == Phase::Joining);
            if !joining || state.newest(who.node) != Some(who) {
                return Err(LockError::Over(who));
            }
            if progress.changed().await.is_err() {
                return Err(Fatal::Shutdown.into());
            }
        }
    }

    async fn ask_for(&self, who: Identity, name: &Name, wait: bool, give_up: Instant) -> Result<Ticket, LockError> {
        let (holder, ticket) = (Holder::Life(who), Mutex::new(None));
        let make = |request: Request| {
            // Before it is proposed: whatever becomes of this future, what the log has of the request is somebody's.
            let wanted = self.releaser.ticket(name.clone(), request.nonce);
            ticket.lock().replace(wanted);
            Command::Lock { request, name: name.clone(), holder, wait }
        };
        let left = give_up.saturating_duration_since(Instant::now()).min(self.engine.config().propose_timeout);
        let asked = self.engine.ask_once(left, make).await;
        let ticket = ticket.into_inner();
        match (asked, ticket) {
            (Ok(_), Some(ticket)) => Ok(ticket),
            (Ok(_), None) => Err(LockError::Over(who)),
            (Err(ProposeError::Rejected(Rejection::MayNotHold(_))), _) => Err(LockError::Over(who)),
            (Err(other), _) => Err(other.into()),
        }
    }

    /// Waits until the request is granted; `None` when the log has nothing of it any more.
    async fn granted(&self, who: Identity, name: &Name, request: Nonce) -> Result<Option<Revision>, LockError> {
        let mut progress = self.engine.progress();
        loop {
            progress.borrow_and_update();
            let state = self.engine.state();
            if let Some(fatal) = self.engine.stopped() {
                return Err(fatal.into());
            }
            if state.has_ended(who) || !state.may_renew(who) {
                return Err(LockError::Over(who));
            }
            let Some(lock) = state.store().lock(name) else { return Ok(None) };
            match lock.grant {
                Some(Grant { holder, token, request: granted }) if granted == request && holder == who.into() => {
                    return Ok(Some(token));
                }
                _ if lock.waiters.iter().any(|waiter| waiter.request == request) => {}
                _ => return Ok(None),
            }
            if progress.changed().await.is_err() {
                return Err(Fatal::Shutdown.into());
            }
        }
    }
}

/// Longer than anything waits.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
