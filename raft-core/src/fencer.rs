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

use quorate_membership::{Address, BootId, Cause, Evidence, FenceId, Identity, NodeId};

/// Whom to fence, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
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
#[non_exhaustive]
pub struct Returned {
    /// Which.
    pub who: Identity,
    /// In which boot.
    pub boot: BootId,
    /// Where it can be reached.
    pub addresses: Vec<Address>,
}

/// A call of the fencer under way: `Box::pin(async move { … })`.
pub type FenceFuture = Pin<Box<dyn Future<Output = anyhow::Result<Evidence>> + Send>>;

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
    fn fence(&self, request: FenceRequest) -> FenceFuture;
}

impl<F, Fut> Fencer for F
where
    F: Fn(FenceRequest) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = anyhow::Result<Evidence>> + Send + 'static,
{
    fn fence(&self, request: FenceRequest) -> FenceFuture {
        Box::pin(self(request))
    }
}
