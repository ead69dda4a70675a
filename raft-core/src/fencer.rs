//! The fencing callback: what the consumer provides to end the life of a lost node, and what it must guarantee.
//!
//! ```text
//!   committed order ──StartFence committed──▶ Fencer::fence(request) ──Ok(evidence)──▶ ConfirmFence ──▶ Fenced everywhere
//!                                                  │
//!                                                  └── Err, or no answer in time ──▶ FailFence, back off, try again;
//!                                                      three times in a row ──▶ Fencer::reach on the others; one of them leads
//! ```
//!
//! **`Ok` means verified.** For example, the power state was read back as off, the process group was checked and is
//! gone, or the path to the storage was removed and the removal confirmed. "The command was sent" is an `Err`, because
//! quorate hands the work to other nodes on the strength of this answer alone.
//!
//! **It may be called again** for the same order, by this node or by a new leader, so fencing a fenced target must
//! succeed. One node runs at most one attempt per target at a time. An attempt that overruns its deadline is dropped.
//! Whatever it leaves running, such as a child process or blocking code, may overlap with the next attempt and must do
//! no harm.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use quorate_membership::{Address, BootId, Cause, Evidence, FenceHint, FenceId, Identity, NodeId};

/// The life to fence, and what the cluster knows about it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FenceRequest {
    /// The fence order that is carried out. Put it into the device's own log if that has one.
    pub order: FenceId,
    /// The life to end. Later lives of the same node may be ended with it, but need not be.
    pub target: Identity,
    /// The boot of the machine in which that life ran.
    pub boot: BootId,
    /// The last known addresses of that life.
    pub addresses: Vec<Address>,
    /// What that life said of itself in [`Config::fence_hint`](crate::Config::fence_hint), by which it is told from other
    /// lives of its node.
    pub hint: Option<FenceHint>,
    /// The newest life of the same node, if it has already returned. A return proves nothing about the target: a cloned
    /// disk also returns, on another machine, and ending that machine does not end the target. Fence the machine that
    /// the *target* ran on, or both.
    pub returned: Option<Returned>,
    /// Why the life is to be fenced: it fell silent, its node returned, or an operator asked for it.
    pub cause: Cause,
    /// The node that carries out the order, which is the one that makes this call.
    pub by: NodeId,
    /// The number of this attempt at the order, counted from 1 across all nodes.
    pub attempt: u32,
    /// How long this call may take before it is dropped and the attempt counts as failed.
    pub deadline: Duration,
}

/// A later life of the target's node, which has joined since.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Returned {
    /// The identity of the later life.
    pub who: Identity,
    /// The boot of the machine in which it runs.
    pub boot: BootId,
    /// The addresses at which it can be reached.
    pub addresses: Vec<Address>,
}

/// A call of the fencer, as a boxed future: `Box::pin(async move { … })`. Its `Ok` is the evidence, which is committed
/// with the proof; its error is committed as the reason of the failed attempt, and the order is tried again.
pub type FenceFuture = Pin<Box<dyn Future<Output = anyhow::Result<Evidence>> + Send>>;

/// A look at a device, as a boxed future: `Ok` if nothing speaks against an attempt, an error that says what does. The error
/// is logged.
pub type ReachFuture = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

/// Ends a life and verifies the end. Implement it for a type of your own, or use a closure:
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
    /// Ends the target of `request` and verifies that it has ended. The documentation of the module states what `Ok`
    /// guarantees.
    fn fence(&self, request: FenceRequest) -> FenceFuture;

    /// Looks whether the device for the target of `request` can be reached from this node. **Changes nothing.** Called while
    /// another node leads whose own fencer has failed three times in a row, or that has none: leadership, and the order with
    /// it, moves to a member that answers `Ok`. By default nothing speaks against an attempt. Dropped after the deadline of an
    /// attempt, at most 5 s.
    fn reach(&self, request: FenceRequest) -> ReachFuture {
        let _ = request;
        Box::pin(std::future::ready(Ok(())))
    }
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
