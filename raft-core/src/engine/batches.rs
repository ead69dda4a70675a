//! Commands go to openraft in batches. The next one goes when it is as large as what is in flight, or when nothing is.
//!
//! ```text
//!   command ─▶ queue ─▶ batch: all that has gathered ─▶ as large as what is in flight? ─▶ openraft ─▶ log, followers, state
//!                             ▲                             │ no: wait for more, for answers,             │
//!                             └─────────────────────────────┘ or for the limit         in flight until ◀──┘ it is answered
//! ```
//!
//! What goes together shares writes, syncs, messages to followers and pictures of the state, however many commands it has. A
//! command that comes alone waits for nothing, and one of few waits for little. Under load about half of the commands are in
//! flight while the other half gathers. To gather until answers come is the rule of Nagle (RFC 896); the size in it keeps a second
//! batch on its way where the network takes longer than the disk.
//!
//! No batch gathers for longer than a quarter of a heartbeat. Of a leader that was cut off openraft answers nothing that was in
//! flight, and refuses a new command as soon as it gets it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use openraft::raft::ClientWriteResult;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::engine::Raft;
use crate::engine::in_flight::{InFlight, Responder};
use crate::engine::types::Types;
use crate::host;
use crate::rpc::Payload;

/// The most commands in one batch.
const BATCH: usize = 1024;

/// A batch of so many bytes waits for no more.
const BYTES: usize = 1 << 20;

/// A command in the queue.
struct Queued<T> {
    payload: Payload,
    answer: oneshot::Sender<T>,
}

/// The commands that wait for their batch.
pub(super) struct Batches<T = ClientWriteResult<Types>>(mpsc::UnboundedSender<Queued<T>>);

impl Batches {
    /// Starts the task that hands batches to `raft`, and that gathers for at most `gather`. It ends when this is dropped, or when
    /// the engine has stopped.
    pub(super) fn start(raft: Raft, gather: Duration) -> Self {
        let (queue, queued) = mpsc::unbounded_channel();
        host::spawn(run(queued, gather, move |payload, responder| {
            let raft = raft.clone();
            async move { raft.client_write_ff(payload, Some(responder)).await.is_ok() }
        }));
        Self(queue)
    }
}

impl<T> Batches<T> {
    /// Proposes a command with the next batch. `None` if the engine stopped and did not answer. A future that is dropped before
    /// its batch goes has proposed nothing.
    pub(super) async fn write(&self, payload: Payload) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Queued { payload, answer }).ok()?;
        answered.await.ok()
    }
}

/// Gathers, and hands over. `propose` says whether there is still an engine that takes commands.
async fn run<T, F>(
    mut queued: mpsc::UnboundedReceiver<Queued<T>>,
    gather: Duration,
    propose: impl Fn(Payload, Responder<T>) -> F,
) where
    F: Future<Output = bool>,
{
    let in_flight = Arc::<InFlight>::default();
    let mut batch = vec![];
    while queued.recv_many(&mut batch, BATCH).await > 0 {
        let until = Instant::now() + gather;
        while gathers(&batch, in_flight.commands()) {
            let room = BATCH - batch.len();
            tokio::select! { biased;
                more = queued.recv_many(&mut batch, room) => if more == 0 { return },
                () = in_flight.fewer() => {}
                () = sleep_until(until) => break,
            }
        }
        // Those that nobody waits for any more are left out.
        for Queued { payload, answer } in batch.drain(..).filter(|queued| !queued.answer.is_closed()) {
            if !propose(payload, Responder::new(answer, &in_flight)).await {
                return;
            }
        }
    }
}

/// Whether a batch waits for more.
fn gathers<T>(batch: &[Queued<T>], in_flight: usize) -> bool {
    let bytes: usize = batch.iter().map(|queued| queued.payload.as_bytes().len()).sum();
    batch.len() < in_flight.min(BATCH) && bytes < BYTES
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;
    use tokio::task::{JoinHandle, yield_now};

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    type Proposed = (u8, Responder<u8>);

    /// The task, an engine that takes commands and answers none, and who writes to it. A command is its name, and more bytes.
    struct Started {
        batches: Arc<Batches<u8>>,
        proposed: mpsc::UnboundedReceiver<Proposed>,
        task: JoinHandle<()>,
    }

    fn started(gather: Duration) -> Started {
        let (queue, queued) = mpsc::unbounded_channel();
        let (taken, proposed) = mpsc::unbounded_channel();
        let task = tokio::spawn(run(queued, gather, move |payload: Payload, responder| {
            let name = payload.as_bytes().first().copied().unwrap_or_default();
            let went = taken.send((name, responder)).is_ok();
            async move { went }
        }));
        Started { batches: Arc::new(Batches(queue)), proposed, task }
    }

    impl Started {
        /// A caller that has asked, and whose future is not polled unless somebody does.
        fn write(&self, name: u8, bytes: usize) -> BoxFuture<'static, Option<u8>> {
            let batches = self.batches.clone();
            let mut asking = async move { batches.write(Payload::new(vec![name; bytes])).await }.boxed();
            assert_eq!((&mut asking).now_or_never(), None);
            asking
        }

        /// What the engine has been given since, once every task has come to a stop.
        async fn given(&mut self) -> Vec<Proposed> {
            for _ in 0..20 {
                yield_now().await;
            }
            std::iter::from_fn(|| self.proposed.try_recv().ok()).collect()
        }

        async fn names(&mut self) -> Vec<u8> {
            self.given().await.into_iter().map(|(name, _dropped)| name).collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_waits_until_it_is_as_large_as_what_is_in_flight() {
        let mut s = started(LONG);
        let (mut callers, mut in_flight) = (vec![], vec![]);
        // 1 alone, 2 beside it, 3 and 4 beside the two, and four more beside the four.
        for (name, go) in [(1, vec![1]), (2, vec![2]), (3, vec![]), (4, vec![3, 4]), (5, vec![]), (6, vec![])] {
            callers.push(s.write(name, 1));
            let new = s.given().await;
            assert_eq!(new.iter().map(|(name, _)| *name).collect::<Vec<_>>(), go, "after {name}");
            in_flight.extend(new);
        }
        // What is answered is not in flight, whether or not its caller has looked.
        let (name, first) = in_flight.remove(0);
        openraft::raft::responder::Responder::<Types, _>::on_complete(first, name * 10);
        assert_eq!(s.names().await, []);
        // Nor is what the engine drops.
        drop(in_flight.remove(0));
        assert_eq!(s.names().await, [5, 6]);
        assert_eq!(callers.remove(0).await, Some(10));
        assert_eq!(callers.remove(0).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_answers_nothing_and_a_batch_of_many_bytes_hold_nobody_up() {
        let mut s = started(Duration::from_millis(20));
        let _two = [s.write(1, 1), s.write(2, 1)];
        let in_flight = s.given().await;
        assert_eq!(in_flight.len(), 2);
        let began = Instant::now();
        let _third = s.write(3, 1);
        assert_eq!(s.names().await, []);
        tokio::time::sleep(Duration::from_millis(21)).await;
        assert_eq!((s.names().await, began.elapsed() < Duration::from_millis(30)), (vec![3], true));
        let _large = s.write(4, BYTES);
        assert_eq!(s.names().await, [4]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_waits_for_is_not_proposed() {
        let mut s = started(LONG);
        let _two = [s.write(1, 1), s.write(2, 1)];
        let in_flight = s.given().await;
        drop(s.write(3, 1));
        let _fourth = s.write(4, 1);
        assert_eq!(s.names().await, [4], "the third was given up before its batch went");
        drop(in_flight);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_waits_for_an_engine_that_has_stopped() {
        let s = started(LONG);
        drop(s.proposed);
        assert_eq!(s.batches.write(Payload::new(vec![1])).await, None);
        s.task.await.unwrap();
        assert_eq!(s.batches.write(Payload::new(vec![2])).await, None);
    }
}
