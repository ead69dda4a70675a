//! The queue to the thread that writes, which takes whatever has gathered.
//!
//! ```text
//!   send ──▶ a a v a t a a ──▶ group: all of it, up to a bound      the thread sleeps while it is empty, and is woken once
//!   committed ─────────────▶ rides at the end of a group that empties the queue, and wakes nobody
//! ```
//!
//! How far the log is committed needs no sync. It must not come before an entry that it covers, so it goes with a group that
//! leaves nothing behind.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::engine::log_store::operation::{Done, LogChange, Op};

/// A group is closed at this many bytes or operations, so that the first in it does not wait for ever for the last.
const GROUP_BYTES: usize = 4 << 20;
const GROUP_OPERATIONS: usize = 4096;

#[derive(Debug, Default)]
struct State {
    ops: VecDeque<Op>,
    committed: Option<Vec<u8>>,
    /// No sender is left.
    closed: bool,
    /// No receiver is left.
    abandoned: bool,
}

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    grew: Condvar,
}

/// Where operations are put in. The queue ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Sender(Arc<Inner>);

/// Where groups are taken out.
#[derive(Debug)]
pub(crate) struct Receiver(Arc<Inner>);

/// What is there, without waiting.
#[derive(Debug)]
pub(crate) enum Taken {
    /// A group. Never empty.
    Group(Vec<Op>),
    /// Nothing, for now.
    Empty,
    /// Nothing, ever.
    Closed,
}

/// A queue, and its two ends.
pub(crate) fn queue() -> (Sender, Receiver) {
    let inner = Arc::<Inner>::default();
    (Sender(inner.clone()), Receiver(inner))
}

impl Sender {
    /// Puts an operation in. `false` if nobody will ever take it.
    pub(crate) fn send(&self, op: Op) -> bool {
        let mut state = self.0.state.lock();
        if state.abandoned {
            return false;
        }
        state.ops.push_back(op);
        drop(state);
        self.0.grew.notify_one();
        true
    }

    /// Notes how far the log is committed, for the next group.
    pub(crate) fn committed(&self, record: Vec<u8>) {
        self.0.state.lock().committed = Some(record);
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.state.lock().closed = true;
        self.0.grew.notify_one();
    }
}

impl Receiver {
    /// The next group; `None` once the queue has ended and everything in it was taken.
    pub(crate) fn group(&self) -> Option<Vec<Op>> {
        let mut state = self.0.state.lock();
        loop {
            match state.take() {
                Taken::Group(group) => return Some(group),
                Taken::Closed => return None,
                Taken::Empty => self.0.grew.wait(&mut state),
            }
        }
    }

    /// As [`Self::group`], without waiting.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn try_group(&self) -> Taken {
        self.0.state.lock().take()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let left = {
            let mut state = self.0.state.lock();
            state.abandoned = true;
            std::mem::take(&mut state.ops)
        };
        // Their callers hear that nobody writes them.
        drop(left);
    }
}

impl State {
    fn take(&mut self) -> Taken {
        if self.ops.is_empty() && !self.closed {
            return Taken::Empty;
        }
        let (mut group, mut bytes) = (vec![], 0);
        while bytes < GROUP_BYTES
            && group.len() < GROUP_OPERATIONS
            && let Some(op) = self.ops.pop_front()
        {
            bytes += op.change.size();
            group.push(op);
        }
        let committed = if self.ops.is_empty() { self.committed.take() } else { None };
        group.extend(committed.map(|record| Op { change: LogChange::Committed { record }, done: Done::Unwatched }));
        if group.is_empty() { Taken::Closed } else { Taken::Group(group) }
    }
}
