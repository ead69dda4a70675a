//! What a new life declares about itself: that its work dies with its process, and that its former life has ended (P3).
//!
//! ```text
//!   configured so ─▶ DeclareProcessBound(n3#2)
//!   n3#1 declared it too, same disk, same boot ─▶ Inherit(n3#2, n3#1): n3#1 is fenced by "succeeded", n3#2 has its locks
//! ```
//!
//! This process holds the exclusive lock on the data folder, and has checked that the process that had it before is
//! gone. The lock alone proves too little, because it ends with the node and not with the process.
//!
//! [`due_declaration`], pure code in membership, decides which declaration is due. This task proposes it, waits for the
//! log, and asks again. Each declaration is committed at most once per life; a repetition changes nothing. A rejection
//! is no failure: the rules know a reason against the succession, and the former life then needs another proof of its
//! end.

use quorate_membership::{Phase, due_declaration};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::error::ProposeError;

/// Declares what is due for this life.
///
/// Runs until everything is declared, this life is active, or `stop`. `former_gone`: whether the process that had the
/// data folder before is known to be gone.
pub(crate) async fn run(engine: Engine, former_gone: bool, stop: CancellationToken) {
    let config = engine.config();
    let mut standing = engine.standing();
    loop {
        if let Some(who) = engine.identity() {
            let state = engine.state();
            let Some(command) = due_declaration(&state, who, config.work_dies_with_process, former_gone) else {
                if state.life(who).is_none_or(|life| life.phase != Phase::Joining) {
                    return;
                }
                tokio::select! { biased;
                    () = stop.cancelled() => return,
                    changed = standing.changed() => match changed { Ok(()) => continue, Err(_) => return },
                }
            };
            match engine.propose(command, config.propose_timeout).await {
                Ok(_) => continue,
                Err(ProposeError::Rejected(rejection)) => {
                    tracing::info!(%who, %rejection, "the declaration of this life was rejected")
                }
                Err(ProposeError::Stopped(_)) => return,
                Err(error) => {
                    tracing::debug!(%who, %error, "the declaration of this life is not committed yet; trying again")
                }
            }
        }
        tokio::select! { biased;
            () = stop.cancelled() => return,
            () = sleep(config.heartbeat()) => {}
        }
    }
}
