//! Tasks, each of which belongs to the machine that it was started on.
//!
//! ```text
//!   spawn(task) ──▶ tokio::spawn                          on the machine as it is
//!              └──▶ tokio::spawn(Gated { host, task })    on a simulated machine, which admits each poll
//! ```

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::Either;
use tokio::task::JoinHandle;

use super::{Host, SIMULATED, simulated};

/// Starts a task on the machine that the current task runs on.
pub(crate) fn spawn<F>(task: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    match simulated() {
        Some(host) => spawn_on(host, task),
        None => tokio::spawn(task),
    }
}

/// Starts a task on a simulated machine.
pub(crate) fn spawn_on<F>(host: Arc<dyn Host>, task: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let handle = tokio::spawn(bind(host.clone(), task));
    host.started(handle.abort_handle());
    handle
}

/// Does work that takes long, such as to encode a whole snapshot, on a thread of its own: a runtime of one thread would
/// answer nobody meanwhile. On a simulated machine it takes no time.
pub(crate) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    if simulated().is_some() {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and everything on it.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Binds a future to the machine that the current task runs on. For futures that [`spawn`] does not start: the members of
/// a set of tasks.
pub(crate) fn bound<F: Future>(task: F) -> impl Future<Output = F::Output> {
    match simulated() {
        Some(host) => Either::Left(bind(host, task)),
        None => Either::Right(task),
    }
}

/// Binds a future to a simulated machine.
pub(crate) fn bind<F: Future>(host: Arc<dyn Host>, task: F) -> impl Future<Output = F::Output> + use<F> {
    SIMULATED.scope(host.clone(), Gated { host, task: Box::pin(task) })
}

/// A future that is polled only while its machine admits it.
struct Gated<F> {
    host: Arc<dyn Host>,
    task: Pin<Box<F>>,
}

impl<F: Future> Future for Gated<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.host.admits(cx.waker()) {
            return Poll::Pending;
        }
        let polled = self.task.as_mut().poll(cx);
        if self.host.stepped() { polled } else { Poll::Pending }
    }
}
