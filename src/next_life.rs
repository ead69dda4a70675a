//! One life after the other in one process, for a program that has nothing to protect when a life is over.
//!
//! ```text
//!   n3#1 ──stood still, fenced meanwhile──▶ over ──renew_life──▶ n3#2        work left? the stop mechanism ends the process
//! ```
//!
//! A life does not come back. A process that stood still for longer than the others waited finds that its life has ended, and
//! without this it would have to end, so that a supervisor starts it again. With protected work it does: its stop mechanism
//! has acted, or is about to.
//!
//! ```no_run
//! # async fn program(describe: impl Fn() -> quorate::builder::Ready) -> Result<(), quorate::StartError> {
//! let mut cluster = describe().resume().await?;
//! loop {
//!     cluster.over().await;
//!     cluster.renew_life(describe()).await?;
//! }
//! # }
//! ```

use quorate_membership::Phase;
use quorate_raft_core::View;

use crate::builder::Ready;
use crate::cluster::Cluster;
use crate::error::{Fatal, StartError};
use crate::listening::Listening;

impl Cluster {
    /// Waits until this life is over: it has ended or is being fenced by what the log says, a newer one of this node has
    /// joined, or the node has stopped. A program that only waits for its next life calls [`Self::renew_life`] then.
    pub async fn over(&self) {
        let who = self.identity;
        // A view that does not know this life yet says nothing about it.
        let over = |view: &View| {
            let ended = |phase: Phase| matches!(phase, Phase::Fencing | Phase::Fenced | Phase::Left);
            view.local.stopped.is_some()
                || view.cluster.retired().contains(&who.node)
                || view.cluster.newest(who.node).is_some_and(|newest| newest > who)
                || view.cluster.life(who).is_some_and(|life| ended(life.phase))
        };
        self.watch().until(over).await;
    }

    /// Begins the next life of this node in this process, where the old one is over, for example because the process stood
    /// still for too long: stops the node and resumes as `ready` describes it, which has to be the same node on the same
    /// folder. Nothing may be protected any more: a process that still runs work of the old life ends as its stop mechanism
    /// promises.
    ///
    /// A [fence hint](crate::builder::Ready::fence_hint) that names this process does not tell its lives apart: where the old
    /// life was not ended yet, such a fencer ends the process. Do not drop the future: the folder is free only at its end.
    ///
    /// # Errors
    /// [`StartError::Stopped`] when the node has failed: end this process. [`StartError::Protected`] names the work that was
    /// not reported as stopped. Neither changed anything. Any other error is that of
    /// [`resume`](crate::builder::Ready::resume): the old node has stopped, this handle stays with it, and the call may be
    /// repeated.
    pub async fn renew_life(&mut self, ready: Ready) -> Result<(), StartError> {
        // After a failed sync only a new process reads what is on the disk, and not what the kernel still has of it.
        if let Some(fatal) = self.view().local.stopped.filter(|fatal| !matches!(fatal, Fatal::Shutdown)) {
            return Err(StartError::Stopped(fatal));
        }
        let protecting = self.lease().view().protecting;
        if !protecting.is_empty() {
            return Err(StartError::Protected(self.identity, protecting.join(", ")));
        }
        self.node.shutdown().await;
        std::mem::replace(&mut self.listening, Listening::Closed).shut_down().await;
        *self = ready.resume().await?;
        Ok(())
    }
}
