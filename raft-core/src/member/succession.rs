//! What a life says of itself when it begins: that its work dies with its process, and that its former life is gone (P3).
//!
//! ```text
//!   configured so ─▶ DeclareProcessBound(n3#2)
//!   n3#1 had said so, same disk, same boot ─▶ Inherit(n3#2, n3#1): fenced by "succeeded", its locks are n3#2's
//! ```
//!
//! This process holds the exclusive lock on the data folder, and has looked for the process that had it before: it is gone.
//! The lock alone would not do, for it ends with the node and not with the process.

use std::sync::{Arc, PoisonError};

use quorate_membership::{ClusterState, Command, Identity, Phase};
use tokio::sync::watch;

use crate::error::ProposeError;
use crate::inner::Inner;

/// Runs until everything is said, this life works, or `stop`.
pub(crate) async fn run(inner: Arc<Inner>, mut stop: watch::Receiver<bool>) {
    let mut progress = inner.machine.progress();
    loop {
        if let Some(who) = inner.identity() {
            let state = inner.feed.state();
            let gone = {
                let folder = inner.folder.lock().unwrap_or_else(PoisonError::into_inner);
                folder.as_ref().is_some_and(|folder| folder.former_gone())
            };
            let Some(command) = owed(&state, who, inner.config.work_dies_with_process, gone) else {
                if state.life(who).is_none_or(|life| life.phase != Phase::Joining) {
                    return;
                }
                tokio::select! { biased;
                    _ = stop.wait_for(|stop| *stop) => return,
                    changed = progress.changed() => match changed { Ok(()) => continue, Err(_) => return },
                }
            };
            match inner.propose(command, inner.config.propose_timeout).await {
                Ok(_) => continue,
                Err(ProposeError::Rejected(rejection)) => tracing::info!(%who, %rejection, "not said of this life"),
                Err(ProposeError::Stopped(_)) => return,
                Err(error) => tracing::debug!(%who, %error, "not said yet"),
            }
        }
        tokio::select! { biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(inner.config.heartbeat()) => {}
        }
    }
}

/// What is to be said next. The former lives first: nobody is to shoot this machine for them.
fn owed(state: &ClusterState, who: Identity, process_bound: bool, gone: bool) -> Option<Command> {
    let life = state.life(who)?;
    let former = state.lives().find(|(other, former)| {
        let waits = other.node == who.node && *other < who && former.phase.may_work();
        waits && former.process_bound && former.boot == life.boot
    });
    if let (Some((former, _)), Phase::Joining, true) = (former, life.phase, gone) {
        return Some(Command::Inherit { who, former });
    }
    let unsaid = process_bound && !life.process_bound && matches!(life.phase, Phase::Joining | Phase::Active);
    unsaid.then_some(Command::DeclareProcessBound { who })
}
