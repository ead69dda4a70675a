//! Carries out fence orders: one attempt at a time calls the consumer's fencer, and commits the result.
//!
//! ```text
//!   open order ─▶ StartFence committed, by the leader alone ─▶ Fencer::fence ─┬▶ evidence ─▶ ConfirmFence
//!                                                                             └▶ error, no answer ─▶ FailFence
//! ```
//!
//! After a failure the reconciler waits before the next attempt. It remembers its own failures and no other leader's, so
//! that a leader whose device works is not kept waiting for one whose does not. After three the order moves, see `reach.rs`.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use quorate_membership::{ClusterState, Command, Confirmation, FenceId, FenceOrder, Reason};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::config::Config;
use crate::engine::Engine;
use crate::error::ProposeError;
use crate::fencer::{FenceRequest, Fencer, Returned};
use crate::host;

/// After each failure the wait doubles, at most this many times: 16 times `fence_backoff` is the longest wait.
const DOUBLINGS: u32 = 4;

/// How long the reconciler waits after a failed attempt, or other failed work, that has failed so many times before.
pub(crate) fn backoff(config: &Config, failures: u32) -> Duration {
    config.fence_backoff * (1 << failures.min(DOUBLINGS))
}

/// Why an attempt ended without a proof. The order stays open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttemptError {
    /// The fencer failed, or did not answer in time. The failure is committed.
    #[error("the fencer failed: {0}")]
    Failed(String),
    /// The start or the failure could not be committed.
    #[error(transparent)]
    Propose(#[from] ProposeError),
}

/// Makes one attempt at an open order. The start is committed before the fencer is called, and the result after it. Does
/// nothing if this node does not lead any more.
///
/// # Errors
/// [`AttemptError`]; the order stays open. A proof is proposed again until it is committed, not needed any more, or this
/// node stops.
pub(crate) async fn attempt(
    engine: &Engine,
    fencer: Arc<dyn Fencer>,
    open: &FenceOrder,
    state: &ClusterState,
) -> Result<(), AttemptError> {
    let (order, target, attempt) = (open.id, open.target, open.attempts.saturating_add(1));
    // Never through another leader: it has the order now, and makes attempts of its own.
    if !engine.propose_as_leader(Command::StartFence { order, by: engine.node(), attempt }).await? {
        return Ok(());
    }
    let request = request(engine, open, state, attempt);
    let deadline = request.deadline;
    tracing::info!(%order, %target, attempt, "fencing");
    let verdict = timeout(deadline, guarded(async move { fencer.fence(request).await })).await;
    match verdict {
        Ok(Ok(evidence)) => {
            let confirmation = Confirmation::Device { by: engine.node(), attempt, evidence };
            Ok(confirm(engine, order, Command::ConfirmFence { order, target, confirmation }).await?)
        }
        Ok(Err(error)) => fail(engine, order, attempt, &format!("{error:#}")).await,
        Err(_) => fail(engine, order, attempt, &format!("no answer within {deadline:?}")).await,
    }
}

/// Runs the fencer in a task of its own, so that a panic counts as a failed attempt and does not harm this node.
pub(crate) async fn guarded<T: Send + 'static>(
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

pub(crate) fn request(engine: &Engine, open: &FenceOrder, state: &ClusterState, attempt: u32) -> FenceRequest {
    let target = open.target;
    let newest = state.newest(target.node).filter(|newest| *newest != target);
    FenceRequest {
        order: open.id,
        target,
        boot: state.life(target).map(|life| life.boot).unwrap_or_default(),
        hint: state.life(target).and_then(|life| life.hint.clone()),
        addresses: state.life(target).map(|life| life.addresses.clone()).unwrap_or_default(),
        returned: newest.and_then(|who| Some((who, state.life(who)?.clone()))).map(|(who, life)| Returned {
            who,
            boot: life.boot,
            addresses: life.addresses,
        }),
        cause: open.cause.clone(),
        by: engine.node(),
        attempt,
        deadline: engine.config().fence_deadline,
    }
}

/// Proposes a proof until it is committed or the order is closed without it. A proof must not be lost because no leader
/// is known at the moment.
async fn confirm(engine: &Engine, order: FenceId, command: Command) -> Result<(), ProposeError> {
    loop {
        match engine.propose(command.clone(), engine.config().propose_timeout).await {
            Ok(_) => return Ok(()),
            Err(ProposeError::Rejected(rejection)) => {
                tracing::info!(%order, %rejection, "the proof is not needed any more");
                return Ok(());
            }
            Err(error @ ProposeError::Stopped(_)) => return Err(error),
            Err(error) => {
                tracing::warn!(%order, %error, "the proof is not committed yet; proposing it again");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn fail(engine: &Engine, order: FenceId, attempt: u32, why: &str) -> Result<(), AttemptError> {
    engine
        .propose(Command::FailFence { order, attempt, reason: Reason::clipped(why) }, engine.config().propose_timeout)
        .await?;
    Err(AttemptError::Failed(why.into()))
}
