//! Which commands openraft has and has not answered, and the way back to whoever asked.
//!
//! ```text
//!   Responder::new ─▶ in flight ─┬▶ answered: the caller is told      either way the count falls, and who waits for that wakes
//!                                └▶ dropped: the caller is told that
//! ```
//!
//! A command is in flight for as long as openraft keeps its responder, whether or not the caller has looked at the answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use openraft::{OptionalSend, RaftTypeConfig};
use tokio::sync::{Notify, oneshot};

/// How many commands are in flight.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    commands: AtomicUsize,
    fewer: Notify,
}

impl InFlight {
    pub(super) fn commands(&self) -> usize {
        self.commands.load(Ordering::Relaxed)
    }

    /// Waits until a command has been answered or dropped since the last call.
    pub(super) async fn fewer(&self) {
        self.fewer.notified().await;
    }
}

/// One command that is in flight for as long as this lives.
#[derive(Debug)]
struct Counted(Arc<InFlight>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.commands.fetch_sub(1, Ordering::Relaxed);
        self.0.fewer.notify_one();
    }
}

/// Answers one command, which is in flight until then, or until this is dropped.
#[derive(Debug)]
pub(crate) struct Responder<T> {
    answer: oneshot::Sender<T>,
    _in_flight: Counted,
}

impl<T> Responder<T> {
    pub(super) fn new(answer: oneshot::Sender<T>, all: &Arc<InFlight>) -> Self {
        all.commands.fetch_add(1, Ordering::Relaxed);
        Self { answer, _in_flight: Counted(all.clone()) }
    }
}

impl<C: RaftTypeConfig, T: OptionalSend + 'static> openraft::raft::responder::Responder<C, T> for Responder<T> {
    fn on_complete(self, result: T) {
        // The caller may have given up.
        let _gone = self.answer.send(result);
    }
}
