//! Commands go to openraft in batches. The next one goes when it is as large as what is in flight, or when nothing is.
//!
//! ```text
//!   command ─▶ queue ─▶ batch: all that has gathered ─▶ as large as what is in flight? ─▶ openraft ─▶ log, followers, state
//!                             ▲                             │ no: wait for more, or for answers           │
//!                             └─────────────────────────────┘                      in flight until ◀──────┘ it is answered
//! ```
//!
//! A batch costs the leader and each follower one write, one sync, a message in each direction and a picture of the state,
//! however many commands are in it. A command that comes alone waits for nothing, and one of few waits for little. Under load
//! about half of the commands are in flight while the other half gathers. Gathering until the answers come is the rule of
//! Nagle (RFC 896); the size in it keeps a second batch on its way where the network takes longer than the disk.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;
use tokio::sync::{Notify, mpsc};

use crate::engine::Raft;
use crate::engine::types::Types;
use crate::host;
use crate::rpc::Payload;

/// The most commands in one batch.
const BATCH: usize = 1024;

/// How many commands are in flight.
#[derive(Debug, Default)]
struct InFlight {
    commands: AtomicUsize,
    fewer: Notify,
}

/// One command that is in flight for as long as this lives.
#[derive(Debug)]
struct Counted(Arc<InFlight>);

impl Counted {
    fn new(all: &Arc<InFlight>) -> Self {
        all.commands.fetch_add(1, Ordering::Relaxed);
        Self(all.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.commands.fetch_sub(1, Ordering::Relaxed);
        self.0.fewer.notify_one();
    }
}

/// What the caller of a command keeps while it waits. Set once the command is proposed. It is the caller's, so that a command
/// that the engine never answers, as a leader that was cut off may not, is in flight no longer than anybody waits for it.
type Waiting = OnceLock<Counted>;

/// A command in the queue, and how the engine answers it.
struct Queued<R> {
    payload: Payload,
    responder: R,
    caller: Weak<Waiting>,
}

/// The commands that wait for their batch.
pub(super) struct Batches<R = ProgressResponder<Types, ClientWriteResult<Types>>>(mpsc::UnboundedSender<Queued<R>>);

impl Batches {
    /// Starts the task that hands batches to `raft`. It ends when this is dropped, or when the engine has stopped.
    pub(super) fn start(raft: Raft) -> Self {
        let (queue, queued) = mpsc::unbounded_channel();
        host::spawn(run(queued, move |payload, responder| {
            let raft = raft.clone();
            async move { raft.client_write_ff(payload, Some(responder)).await.is_ok() }
        }));
        Self(queue)
    }

    /// Proposes a command with the next batch. `None` if the engine stopped and did not answer. A future that is dropped before
    /// its batch goes has proposed nothing.
    pub(super) async fn write(&self, payload: Payload) -> Option<ClientWriteResult<Types>> {
        let (responder, answered) = ProgressResponder::complete_only();
        let _waiting = self.queue(payload, responder)?;
        answered.await.ok()
    }
}

impl<R> Batches<R> {
    fn queue(&self, payload: Payload, responder: R) -> Option<Arc<Waiting>> {
        let waiting = Arc::default();
        self.0.send(Queued { payload, responder, caller: Arc::downgrade(&waiting) }).ok()?;
        Some(waiting)
    }
}

/// Gathers, and hands over. `propose` says whether there is still an engine that takes commands.
async fn run<R, F>(mut queued: mpsc::UnboundedReceiver<Queued<R>>, propose: impl Fn(Payload, R) -> F)
where
    F: Future<Output = bool>,
{
    let in_flight = Arc::<InFlight>::default();
    let mut batch = vec![];
    while queued.recv_many(&mut batch, BATCH).await > 0 {
        while batch.len() < in_flight.commands.load(Ordering::Relaxed).min(BATCH) {
            let room = BATCH - batch.len();
            tokio::select! { biased;
                more = queued.recv_many(&mut batch, room) => if more == 0 { return },
                () = in_flight.fewer.notified() => {}
            }
        }
        for Queued { payload, responder, caller } in batch.drain(..) {
            // Nobody waits for it any more.
            let Some(waiting) = caller.upgrade() else { continue };
            waiting.get_or_init(|| Counted::new(&in_flight));
            if !propose(payload, responder).await {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::{JoinHandle, yield_now};

    use super::*;

    type Proposed = mpsc::UnboundedReceiver<u8>;

    /// The task, with an engine that answers nothing. A command has one byte, its name.
    fn started() -> (Batches<()>, Proposed, JoinHandle<()>) {
        let (queue, queued) = mpsc::unbounded_channel();
        let (taken, proposed) = mpsc::unbounded_channel();
        let task = tokio::spawn(run(queued, move |payload: Payload, ()| {
            let taken = taken.clone();
            async move { payload.as_bytes().iter().all(|name| taken.send(*name).is_ok()) }
        }));
        (Batches(queue), proposed, task)
    }

    fn write(batches: &Batches<()>, name: u8) -> Option<Arc<Waiting>> {
        batches.queue(Payload::new(vec![name]), ())
    }

    /// What the engine has been given since, once every task has come to a stop.
    async fn given(proposed: &mut Proposed) -> Vec<u8> {
        for _ in 0..20 {
            yield_now().await;
        }
        std::iter::from_fn(|| proposed.try_recv().ok()).collect()
    }

    #[tokio::test]
    async fn a_batch_waits_until_it_is_as_large_as_what_is_in_flight() {
        let (batches, mut proposed, _task) = started();
        let mut waiting = vec![];
        // 1 alone, 2 beside it, 3 and 4 beside the two, and four more beside the four.
        for (name, go) in [(1, vec![1]), (2, vec![2]), (3, vec![]), (4, vec![3, 4]), (5, vec![]), (6, vec![])] {
            waiting.push(write(&batches, name));
            assert_eq!(given(&mut proposed).await, go, "after {name}");
        }
        // One of the four has its answer: three are in flight, and two wait.
        drop(waiting.remove(0));
        assert_eq!(given(&mut proposed).await, []);
        drop(waiting.remove(0));
        assert_eq!(given(&mut proposed).await, [5, 6]);
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_not_proposed_and_is_not_in_flight() {
        let (batches, mut proposed, _task) = started();
        let two = [write(&batches, 1), write(&batches, 2)];
        assert_eq!(given(&mut proposed).await, [1, 2]);
        drop(write(&batches, 3));
        let fourth = write(&batches, 4);
        assert_eq!(given(&mut proposed).await, [4], "the third was given up before its batch went");
        // The engine has answered none of them.
        drop((two, fourth));
        let _alone = write(&batches, 5);
        assert_eq!(given(&mut proposed).await, [5]);
    }

    #[tokio::test]
    async fn nothing_is_queued_for_an_engine_that_has_stopped() {
        let (batches, proposed, task) = started();
        drop(proposed);
        let _refused = write(&batches, 1);
        task.await.unwrap();
        assert!(write(&batches, 2).is_none());
    }
}
