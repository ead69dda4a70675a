//! The callback that ends lives: what a consumer provides, and what it must promise.
//!
//! ```text
//!   committed order ──StartFence committed──▶ Fencer::fence(request) ──Ok(evidence)──▶ ConfirmFence ──▶ Fenced everywhere
//!                                                  │
//!                                                  └── Err, or no answer in time ──▶ FailFence, back off, try again
//! ```
//!
//! **`Ok` means verified.** The power was read back as off, the process group is gone and was seen to be gone, the path
//! to the storage is removed and the removal confirmed. "The command was sent" is an `Err`: quorate hands the work to
//! others on the strength of this answer alone.
//!
//! **It may be called again**, for the same order, by this node or by another that took over in the middle: fencing what
//! is fenced must succeed. At most one attempt per target runs on one node at a time. One that overruns its deadline is
//! dropped; what it left running (a child, code that blocks instead of awaiting) may meet the next and must do no harm.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use quorate_membership::{
    Address, BootId, Cause, ClusterState, Command, Confirmation, Evidence, FenceId, FenceOrder, Identity, NodeId,
    Progress, Reason,
};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::error::ProposeError;
use crate::host;
use crate::inner::Inner;
use crate::leader::reconciler::propose;

/// Whom to fence, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FenceRequest {
    /// The order. Worth putting into the device's own log.
    pub order: FenceId,
    /// The life to be ended. Later lives of the same node need not be spared, but ending them is not needed either.
    pub target: Identity,
    /// Which boot of the machine that life ran in.
    pub boot: BootId,
    /// Where that life can be reached, or could.
    pub addresses: Vec<Address>,
    /// If the node has come back already. It proves nothing: a cloned disk comes back too, on another machine, and to
    /// end that one says nothing of the target. Fence the machine that the *target* ran on, or both.
    pub returned: Option<Returned>,
    /// Why.
    pub cause: Cause,
    /// Which node carries it out: the one that this runs on.
    pub by: NodeId,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// How long the call may take.
    pub deadline: Duration,
}

/// A later life of the target's node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Returned {
    /// Which.
    pub who: Identity,
    /// In which boot.
    pub boot: BootId,
    /// Where it can be reached.
    pub addresses: Vec<Address>,
}

/// A call of the fencer under way: `Box::pin(async move { … })`.
pub type Fencing = Pin<Box<dyn Future<Output = anyhow::Result<Evidence>> + Send>>;

/// Ends a life, verifiably. Implemented by the consumer, for a struct or as a closure:
///
/// ```
/// use quorate_raft_core::{FenceRequest, Fencer};
/// use quorate_membership::Evidence;
///
/// fn by_closure() -> impl Fencer {
///     |request: FenceRequest| async move {
///         // … power the machine of `request.target` off, and read the state back …
///         Ok(Evidence::new(format!("power of {} read back: off", request.target.node))?)
///     }
/// }
/// # let _ = by_closure();
/// ```
pub trait Fencer: Send + Sync + 'static {
    /// Ends the target of `request` and verifies it. See the module's documentation for what `Ok` promises.
    fn fence(&self, request: FenceRequest) -> Fencing;
}

impl<F, Fut> Fencer for F
where
    F: Fn(FenceRequest) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = anyhow::Result<Evidence>> + Send + 'static,
{
    fn fence(&self, request: FenceRequest) -> Fencing {
        Box::pin(self(request))
    }
}

/// One attempt at an order: committed before the fencer is called, and its end committed whatever it is.
pub(crate) async fn attempt(inner: &Inner, open: &FenceOrder, state: &ClusterState) -> anyhow::Result<()> {
    let Some(fencer) = inner.fencer.clone() else { return Ok(()) };
    if let Progress::Failed { .. } = open.progress {
        let wait = inner.config.fence_backoff * (1 << open.attempts.saturating_sub(1).min(4));
        tokio::time::sleep(wait).await;
    }
    let (order, target, attempt) = (open.id, open.target, open.attempts.saturating_add(1));
    propose(inner, Command::StartFence { order, by: inner.node, attempt }).await?;
    let request = request(inner, open, state, attempt);
    let deadline = request.deadline;
    tracing::info!(%order, %target, attempt, "fencing");
    let verdict = timeout(deadline, guarded(async move { fencer.fence(request).await })).await;
    match verdict {
        Ok(Ok(evidence)) => {
            let confirmation = Confirmation::Device { by: inner.node, attempt, evidence };
            confirm(inner, order, Command::ConfirmFence { order, target, confirmation }).await
        }
        Ok(Err(error)) => fail(inner, order, attempt, &format!("{error:#}")).await,
        Err(_) => fail(inner, order, attempt, &format!("no answer within {deadline:?}")).await,
    }
}

/// A fencer that panics has failed; it does not take this node with it.
async fn guarded<T: Send + 'static>(
    call: impl Future<Output = anyhow::Result<T>> + Send + 'static,
) -> anyhow::Result<T> {
    let task = AbortOnDrop(host::spawn(call));
    let mut task = std::pin::pin!(task);
    std::future::poll_fn(|cx| std::pin::Pin::new(&mut task.0).poll(cx)).await.map_err(anyhow::Error::from)?
}

struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn request(inner: &Inner, open: &FenceOrder, state: &ClusterState, attempt: u32) -> FenceRequest {
    let target = open.target;
    let newest = state.newest(target.node).filter(|newest| *newest != target);
    FenceRequest {
        order: open.id,
        target,
        boot: state.life(target).map(|life| life.boot).unwrap_or_default(),
        addresses: state.life(target).map(|life| life.addresses.clone()).unwrap_or_default(),
        returned: newest.and_then(|who| Some((who, state.life(who)?.clone()))).map(|(who, life)| Returned {
            who,
            boot: life.boot,
            addresses: life.addresses,
        }),
        cause: open.cause.clone(),
        by: inner.node,
        attempt,
        deadline: inner.config.fence_deadline,
    }
}

/// A proof must not be lost for want of a leader: it is said until it is heard, or the order is closed without it.
async fn confirm(inner: &Inner, order: FenceId, command: Command) -> anyhow::Result<()> {
    loop {
        match inner.propose(command.clone(), inner.config.propose_timeout).await {
            Ok(_) => return Ok(()),
            Err(ProposeError::Rejected(rejection)) => {
                tracing::info!(%order, %rejection, "the proof was not needed any more");
                return Ok(());
            }
            Err(error @ ProposeError::Stopped(_)) => return Err(error.into()),
            Err(error) => {
                tracing::warn!(%order, %error, "the proof is not committed yet; saying it again");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn fail(inner: &Inner, order: FenceId, attempt: u32, why: &str) -> anyhow::Result<()> {
    tracing::warn!(%order, attempt, why, "the attempt failed");
    propose(inner, Command::FailFence { order, attempt, reason: Reason::clipped(why) }).await
}
