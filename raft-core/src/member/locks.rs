//! Locks as the consumer of a node uses them: acquired, guarded, released.
//!
//! ```text
//!   lock("vm/100") ─▶ Lock{request} ─▶ log ─▶ granted, token r42 ─▶ lease.protect ─▶ LockGuard
//!        │ dropped at any moment                                      guard.check()   nanoseconds, no I/O
//!        └──▶ the releaser withdraws the request or                   guard.lost()    stop now
//!             releases the lock                                       drop            released
//! ```
//!
//! A guard combines the lock (committed), the lease (volatile) and the stop mechanism (armed). It is valid while all
//! three are, and [`LockGuard::check`] tells at any moment whether that holds, without a call to another node.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_membership::lease::Reading;
use quorate_membership::lock::Grant;
use quorate_membership::{Command, Holder, Identity, Name, Nonce, Phase, Rejection, Request, Revision, awaited};
use tokio::time::{Instant, timeout_at};

use crate::engine::Engine;
use crate::error::{Fatal, ProposeError, Refusal};
use crate::host::clock;
use crate::lease::keeper::Keeper;
use crate::lease::stop::BoundChild;
use crate::lease::{Lease, ProtectError, Protection};
use crate::member::guarded_child::{self, GuardedChild};
use crate::member::lock_error::{LockError, LockWait, NotPermitted};
use crate::member::releaser::{Gone, Releaser, Ticket};

/// Permission to begin a step under a lock now; see [`LockGuard::check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Permit {
    /// The fencing token of the lock. Pass it to every resource that the step changes.
    pub token: Revision,
    /// How long the permission lasts, counted from the check.
    pub left: Duration,
    /// When the permission ends, on both clocks of the lease (CLOCK_BOOTTIME, CLOCK_MONOTONIC_RAW).
    pub until: Reading,
}

/// A lock that this life holds. **Dropping the guard declares that the work under it has stopped, and releases the
/// lock.**
///
/// When [`Self::lost`] resolves, first stop the work, then drop the guard. If the work is not stopped, the stop
/// mechanism of the node acts at the end of the lease. Do not keep the guard inside a future that may be cancelled
/// while its work continues elsewhere, such as in `spawn_blocking`. A guard that is dropped during a panic releases
/// nothing: the lock stays held and the mechanism armed until the process or the lease ends.
#[must_use = "dropping it releases the lock"]
pub struct LockGuard {
    engine: Engine,
    name: Name,
    token: Revision,
    lease: Lease,
    protection: Option<Protection>,
    ticket: Option<Ticket>,
    gone: Gone,
    /// What was started by [`LockGuard::spawn`].
    pub(super) children: Mutex<Vec<GuardedChild>>,
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard").field("name", &self.name).field("token", &self.token).finish_non_exhaustive()
    }
}

impl LockGuard {
    /// The name of the lock.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The fencing token: the revision at which the lock was granted. A later grant has a larger one.
    pub fn token(&self) -> Revision {
        self.token
    }

    /// The life that holds the lock, which is this life of this node.
    pub fn who(&self) -> Identity {
        self.lease.who()
    }

    /// Whether a step may be begun under this lock now. Reads two clocks and a flag; it does no I/O and never waits.
    /// Call it before every step that has an effect.
    ///
    /// # Errors
    /// [`NotPermitted`]: begin no further step.
    pub fn check(&self) -> Result<Permit, NotPermitted> {
        if self.gone.load(Ordering::Acquire) {
            return Err(NotPermitted::PassedOn);
        }
        let now = clock::reading();
        let left = self.lease.left(now)?;
        Ok(Permit { token: self.token, left, until: Reading::new(now.boottime() + left, now.raw() + left) })
    }

    /// Resolves when the work must stop, because the lease or the lock is lost. It resolves some time before the end of
    /// the lease, so that there is time to stop. Cancel-safe.
    pub async fn lost(&self) {
        tokio::select! { biased;
            () = self.lease.lost() => {}
            () = self.passed_on() => {}
        }
    }

    /// Releases the lock, and waits until the release is applied here. First stop all work under the lock. Processes that
    /// [`Self::spawn`] started are killed, and waited for without a limit: one that hangs in the kernel keeps the lock.
    ///
    /// # Errors
    /// [`ProposeError`] when it is not known whether the release was committed. It is proposed again in the background
    /// until it is committed or this life ends. [`ProposeError::Refused`] when such a process may still run: then the lock
    /// stays held, and the stop mechanism acts at the end of the lease.
    pub async fn release(mut self) -> Result<(), ProposeError> {
        let children = self.children.lock().clone();
        if !guarded_child::all_gone(children).await {
            let why = format!("a process that was started under {} may still run, so the lock stays held", self.name);
            std::mem::forget((self.protection.take(), self.ticket.take()));
            return Err(ProposeError::Refused(Refusal::Unavailable(why)));
        }
        if let Some(protection) = self.protection.take() {
            protection.stopped();
        }
        let (name, holder, token) = (self.name.clone(), Holder::Life(self.who()), self.token);
        let timeout = self.engine.time_to_leave();
        self.engine.propose(Command::Unlock { name, holder, token }, timeout).await.map(|_| ())
    }

    /// Starts `command` under this lock, as [`Lease::spawn`] does with the name and the token of the lock. It is killed with its
    /// whole process group when the lease ends, when this process ends, and when the guard or the child is dropped. The lock is
    /// released only when no process of the group is left.
    ///
    /// When [`Self::lost`] resolves, call [`BoundChild::stop`] or [`BoundChild::kill`], and then drop the guard.
    ///
    /// # Errors
    /// As for [`Lease::spawn`]. The lock is still held. After [`ProtectError::MayRun`] it is not released any more while this
    /// process lives: the stop mechanism acts at the end of the lease.
    pub async fn spawn(&self, command: std::process::Command) -> Result<BoundChild, ProtectError> {
        let (lease, name) = (self.lease.clone(), self.name.to_string());
        guarded_child::start(&self.children, lease, name, self.token, command).await
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
            tracing::error!(%name, %token, "a panic dropped the guard; its work may still run, so the lock stays held");
            std::mem::forget(self.ticket.take());
            return;
        }
        let children: Vec<GuardedChild> =
            self.children.get_mut().drain(..).filter(|child| !child.has_ended()).collect();
        if !children.is_empty() {
            return guarded_child::release_after(children, self.protection.take(), self.ticket.take());
        }
        if let Some(protection) = self.protection.take() {
            protection.stopped();
        }
        // The lock is released only after the work has been reported as stopped.
        self.ticket.take();
    }
}

/// What acquiring a lock needs. Clones share it.
#[derive(Clone)]
pub(crate) struct Locks {
    pub(crate) engine: Engine,
    pub(crate) releaser: Releaser,
    pub(crate) keeper: Arc<Keeper>,
}

impl Locks {
    /// Acquires a lock for `who`, this life, and guards it. `wait`: how long to wait in the queue; `None` for not at
    /// all. If the future is dropped, the releaser withdraws the request.
    pub(crate) async fn lock(&self, who: Identity, name: Name, wait: Option<Duration>) -> Result<LockGuard, LockError> {
        let begun = Instant::now();
        let timeout = wait.unwrap_or(self.engine.config().propose_timeout);
        let give_up = begun.checked_add(timeout).unwrap_or(begun + FOR_EVER);
        match timeout_at(give_up, self.at_work(who)).await {
            Ok(found) => found?,
            Err(_) => {
                let why = LockWait::Active(awaited(&self.engine.state(), who));
                return Err(LockError::TimedOut { name, waited: timeout, why });
            }
        }
        // An inherited lock is adopted instead of requested.
        let mut ticket = match self.releaser.adopt(&self.engine.state(), who, &name) {
            Some(ticket) => ticket,
            None => self.ask_for(who, &name, wait.is_some(), give_up).await?,
        };
        let timed_out = |why| LockError::TimedOut { name: name.clone(), waited: timeout, why };
        let token = loop {
            let waiting = self.granted(who, &name, ticket.request);
            match timeout_at(give_up, waiting).await {
                Ok(Ok(Some(token))) => break token,
                // The log has nothing of the request, because it was withdrawn or never committed. Request it again.
                Ok(Ok(None)) => ticket = self.ask_for(who, &name, wait.is_some(), give_up).await?,
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(timed_out(self.awaited(&name, ticket.request))),
            }
        };
        ticket.granted(token);
        let lease = self.keeper.lease(who);
        let protection = loop {
            if timeout_at(give_up, lease.held()).await.is_err() {
                return Err(timed_out(LockWait::Lease));
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
            children: Mutex::default(),
        })
    }

    /// What a request that was not granted waits for.
    fn awaited(&self, name: &Name, request: Nonce) -> LockWait {
        let state = self.engine.state();
        let Some(lock) = state.store().lock(name) else { return LockWait::Log };
        let before = lock.waiters().take_while(|waiter| waiter.request != request).count();
        match lock.grant {
            Some(Grant { holder, token, .. }) => LockWait::Holder { holder, token, before },
            None => LockWait::Log,
        }
    }

    /// Waits until this life may be given work. It can hold no lock before.
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
            // Registered before it is proposed, so that the releaser withdraws it if this future is dropped.
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

    /// Waits until the request is granted, and returns its token; `None` if the log has nothing of the request.
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
                _ if lock.waiters().any(|waiter| waiter.request == request) => {}
                _ => return Ok(None),
            }
            if progress.changed().await.is_err() {
                return Err(Fatal::Shutdown.into());
            }
        }
    }
}

/// An upper bound for waits without a limit: 100 years.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
