//! Processes that are started under a lock: the lock is released only when none of them is left.
//!
//! ```text
//!   guard.spawn(command) ─▶ BoundChild          the caller's handle: pipes, wait, stop, kill
//!        └─ its end is also the guard's affair:  release, drop ─▶ kill ─▶ no process of its group is left ─▶ Unlock
//! ```

use std::mem::ManuallyDrop;
use std::process::Command;

use tokio::runtime::Handle;

use crate::lease::stop::{BoundChild, ChildEnd};
use crate::lease::{ProtectError, Protection};
use crate::member::locks::LockGuard;
use crate::member::releaser::Ticket;

impl LockGuard {
    /// Starts `command` under this lock, as [`Lease::spawn`](crate::Lease::spawn) does with the name and the token of the
    /// lock. It is killed with its whole process group when the lease ends, when this process ends, and when the guard or the
    /// child is dropped. The lock is released only when no process of the group is left.
    ///
    /// When [`Self::lost`] resolves, call [`BoundChild::stop`] or [`BoundChild::kill`], and then drop the guard.
    ///
    /// # Errors
    /// As for [`Lease::spawn`](crate::Lease::spawn). Nothing runs, unless the error says otherwise; the lock is still held.
    pub async fn spawn(&self, command: Command) -> Result<BoundChild, ProtectError> {
        let child = self.lease().spawn(command, self.name().to_string(), self.token()).await?;
        let mut children = self.children.lock();
        children.retain(|known| !known.is_over());
        children.push(child.end());
        Ok(child)
    }
}

/// Kills what was started under a lock, and waits until all of it is gone. Returns whether that is certain.
pub(super) async fn all_gone(children: Vec<ChildEnd>) -> bool {
    let mut certain = true;
    for child in &children {
        if let Err(error) = child.kill() {
            tracing::error!(%error, "a process that was started under a lock could not be killed");
        }
    }
    for child in children {
        certain &= child.gone().await;
    }
    certain
}

/// Releases a lock when its processes are gone. If that is never certain, the lock stays held and its work protected: the
/// stop mechanism acts at the end of the lease.
pub(super) fn release_after(children: Vec<ChildEnd>, protection: Option<Protection>, ticket: Option<Ticket>) {
    let Some(runtime) = children.first().map(|child| child.runtime().clone()) else { return };
    // A runtime that is shut down drops this future in the middle, which must release nothing.
    let ticket = ManuallyDrop::new(ticket);
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
    drop(Handle::spawn(&runtime, over));
}
