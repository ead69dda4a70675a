//! What a node takes from the machine that it runs on: tasks and randomness; clocks are in [`crate::host::clock`].
//!
//! ```text
//!   spawn, bound, random ──▶ tokio, the operating system
//!                      └───▶ testing::sim::Host, inside a simulated world (only with the feature `testing`)
//! ```
//!
//! Everything that runs on behalf of a node is spawned here, so that a simulated machine can stop it between any two of
//! its steps, and end it without a word.

pub(crate) mod clock;

use std::future::Future;
use std::io;

use tokio::task::JoinHandle;

/// The simulated machine that the current task runs on, if it does.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn simulated() -> Option<std::sync::Arc<crate::testing::sim::Host>> {
    crate::testing::sim::Host::current()
}

/// Starts a task on this machine.
pub(crate) fn spawn<F>(task: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    #[cfg(any(test, feature = "testing"))]
    if let Some(host) = simulated() {
        return host.spawn(task);
    }
    tokio::spawn(task)
}

/// Binds a future to this machine, for those that are not started by [`spawn`]: members of a set of tasks.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn bound<F: Future>(task: F) -> impl Future<Output = F::Output> {
    use futures_util::future::Either;
    match simulated() {
        Some(host) => Either::Left(host.bind(task)),
        None => Either::Right(task),
    }
}

/// Binds a future to this machine, for those that are not started by [`spawn`]: members of a set of tasks.
#[cfg(not(any(test, feature = "testing")))]
pub(crate) fn bound<F: Future>(task: F) -> F {
    task
}

/// 128 random bits.
pub(crate) fn random() -> io::Result<u128> {
    #[cfg(any(test, feature = "testing"))]
    if let Some(host) = simulated() {
        return Ok(host.draw_wide());
    }
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| io::Error::other(format!("no randomness from the system: {e}")))?;
    Ok(u128::from_le_bytes(bytes))
}
