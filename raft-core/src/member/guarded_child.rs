//! Processes that are started under a lock: the lock is released only when none of them is left.
//!
//! ```text
//!   guard.spawn(command) ─▶ noted with the guard ─▶ started ─▶ BoundChild     the caller's handle: pipes, wait, stop, kill
//!                                 │
//!        release, drop of the guard ─▶ kill ─▶ no process of its group is left ─▶ Unlock
//! ```
//!
//! A child is noted before it is started, and started by a task of its own: a caller that gives up in the middle leaves
//! nothing behind that the guard does not know of.

use std::mem::ManuallyDrop;
use std::process::Command;

use parking_lot::Mutex;
use quorate_membership::Revision;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use crate::lease::stop::{BoundChild, ChildEnd};
use crate::lease::{Lease, ProtectError, Protection};
use crate::member::releaser::Ticket;

/// How far a child has come.
#[derive(Debug, Clone)]
enum Stage {
    Starting,
    Runs(ChildEnd),
    /// It was not started. Whether it is certain that nothing of it runs.
    NotStarted {
        certain: bool,
    },
}

/// A child as its guard knows it.
#[derive(Debug, Clone)]
pub(super) struct GuardedChild {
    stage: watch::Receiver<Stage>,
    /// The runtime that it was started on.
    runtime: Handle,
}

impl GuardedChild {
    /// Whether it is certain that nothing of it runs, and nothing will.
    pub(super) fn has_ended(&self) -> bool {
        match &*self.stage.borrow() {
            Stage::Starting => false,
            Stage::Runs(end) => end.has_ended(),
            Stage::NotStarted { certain } => *certain,
        }
    }

    /// Kills its whole group, without waiting. One that is only starting is killed by [`Self::gone`].
    fn kill(&self) {
        if let Stage::Runs(end) = &*self.stage.borrow()
            && let Err(error) = end.kill()
        {
            tracing::error!(%error, "a process that was started under a lock could not be killed");
        }
    }

    /// Kills it, and waits for its end. Returns whether it is certain that nothing of it is left.
    async fn gone(mut self) -> bool {
        let started = self.stage.wait_for(|stage| !matches!(stage, Stage::Starting)).await;
        let Ok(stage) = started.map(|stage| stage.clone()) else { return false };
        match stage {
            Stage::Runs(end) => {
                self.kill();
                end.gone().await
            }
            Stage::NotStarted { certain } => certain,
            Stage::Starting => false,
        }
    }
}

/// Starts a child, noted in `children` before anything of it runs.
pub(super) async fn start(
    children: &Mutex<Vec<GuardedChild>>,
    lease: Lease,
    name: String,
    token: Revision,
    command: Command,
) -> Result<BoundChild, ProtectError> {
    let (told, stage) = watch::channel(Stage::Starting);
    let runtime = Handle::current();
    {
        let mut children = children.lock();
        children.retain(|known| !known.has_ended());
        children.push(GuardedChild { stage, runtime: runtime.clone() });
    }
    let (reply, replied) = oneshot::channel();
    // Not cancelled with the caller: what it starts is noted, whatever becomes of the caller.
    let starting = async move {
        let started = lease.spawn(command, name, token).await;
        told.send_replace(match &started {
            Ok(child) => Stage::Runs(child.end()),
            Err(error) => Stage::NotStarted { certain: !matches!(error, ProtectError::MayRun(_)) },
        });
        // A child that nobody waits for any more is dropped right here, and killed by that.
        drop(reply.send(started));
    };
    drop(runtime.spawn(starting));
    replied.await.map_err(|_| ProtectError::MayRun("the task that should start it has ended".into()))?
}

/// Kills what was started under a lock, and waits until all of it is gone. Returns whether that is certain.
pub(super) async fn all_gone(children: Vec<GuardedChild>) -> bool {
    children.iter().for_each(GuardedChild::kill);
    let mut certain = true;
    for child in children {
        certain &= child.gone().await;
    }
    certain
}

/// Releases a lock when its processes are gone. If that is never certain, the lock stays held and its work protected: the
/// stop mechanism acts at the end of the lease.
pub(super) fn release_after(children: Vec<GuardedChild>, protection: Option<Protection>, ticket: Option<Ticket>) {
    // Now, and not when a runtime comes to it.
    children.iter().for_each(GuardedChild::kill);
    // A runtime that is shut down drops this future in the middle, which must release nothing.
    let ticket = ManuallyDrop::new(ticket);
    let Some(runtime) = children.first().map(|child| child.runtime.clone()) else { return };
    let over = async move {
        if all_gone(children).await {
            if let Some(protection) = protection {
                protection.stopped();
            }
            drop(ManuallyDrop::into_inner(ticket));
        } else {
            tracing::error!("a process that was started under a lock may still run, so the lock stays held");
        }
    };
    drop(runtime.spawn(over));
}
