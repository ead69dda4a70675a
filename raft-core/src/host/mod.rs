//! What a node takes from the machine that it runs on: clocks, random bits, tasks and threads.
//!
//! ```text
//!                              ┌── OsHost   the operating system and tokio: every shipped build
//!   product ──▶ host::… ──▶ Host
//!                              └── a simulated machine, for the tasks that run on it (feature `testing`)
//! ```
//!
//! Everything that runs on behalf of a node is started through this module. A simulated machine can therefore pause a
//! node between any two of its steps, or end it there.
//!
//! A simulated machine is passed to its tasks as a tokio task-local. A build without the feature `testing` never looks it
//! up: there every call goes straight to [`OsHost`].

pub(crate) mod beat;
pub(crate) mod clock;
mod os;
pub(crate) mod task;

use std::any::Any;
use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use quorate_membership::lease::Reading;
use quorate_membership::{BootId, ClusterState, Command, Event, Rejection};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

pub(crate) use self::beat::Beat;
use self::os::OsHost;
pub(crate) use self::task::{aside, bound, spawn};
use crate::rpc::{Position, VoterSets};

/// A machine that a node runs on. The defaults are those of a machine that holds no task back.
pub(crate) trait Host: Any + Send + Sync {
    /// CLOCK_BOOTTIME and CLOCK_MONOTONIC_RAW.
    fn reading(&self) -> Reading;

    /// CLOCK_BOOTTIME alone.
    fn boottime(&self) -> Duration {
        self.reading().boottime()
    }

    /// Which boot of the machine this is.
    fn boot_id(&self) -> BootId;

    /// 64 random bits.
    fn draw(&self) -> io::Result<u64>;

    /// The present, for timers. No decision rests on it.
    fn instant(&self) -> Instant {
        Instant::now()
    }

    /// The span for which a timer has to be set so that `span` passes on this machine.
    fn lasting(&self, span: Duration) -> Duration {
        span
    }

    /// Starts `work`: on a thread of its own, or as a task that waits for `bell`, which rings with each message.
    fn run(&self, name: &str, work: Box<dyn TurnTaker>, bell: Arc<Notify>) -> io::Result<()>;

    /// Called for every task that was started on this machine.
    fn started(&self, _task: AbortHandle) {}

    /// Whether a task may take a step now. If not, the machine wakes it when it may.
    fn admits(&self, _waker: &Waker) -> bool {
        true
    }

    /// Called after each step of a task. Whether the machine still runs: otherwise the result of the step is lost.
    fn stepped(&self) -> bool {
        true
    }

    /// Whether the calls below do anything.
    fn observes(&self) -> bool {
        false
    }

    /// The node applied the entry at `at`: its command (`None` for a blank entry), what came of it, the state after it, and
    /// the voters if it changed them.
    fn applied(
        &self,
        _at: Position,
        _command: Option<Command>,
        _answer: Result<Vec<Event>, Rejection>,
        _state: Arc<ClusterState>,
        _voters: Option<VoterSets>,
    ) {
    }

    /// The node took its state from a snapshot that ends at `last`.
    fn installed(&self, _last: Option<Position>, _state: Arc<ClusterState>) {}
}

/// Work that no task may hold up: it alternates between turns and waits for messages.
pub(crate) trait TurnTaker: Send {
    /// Does what is due, and returns for how long it may wait.
    fn turn(&mut self) -> Duration;

    /// Blocks until a message has come, at most for `nap`, and handles it. A task does not call it.
    fn wait(&mut self, nap: Duration);

    /// Handles the messages that have come. Whether the work goes on.
    fn handle_messages(&mut self) -> bool;
}

tokio::task_local! {
    /// The simulated machine that the current task runs on.
    pub(crate) static SIMULATED: Arc<dyn Host>;
}

/// The machine that the current task runs on, if it is a simulated one.
pub(crate) fn simulated() -> Option<Arc<dyn Host>> {
    // A shipped build cannot be given another clock, and does not pay for the look-up.
    if cfg!(not(any(test, feature = "testing"))) {
        return None;
    }
    SIMULATED.try_with(Arc::clone).ok()
}

/// The machine that the current task runs on.
pub(crate) struct Current(Option<Arc<dyn Host>>);

impl Deref for Current {
    type Target = dyn Host;

    fn deref(&self) -> &Self::Target {
        self.0.as_deref().unwrap_or(&OsHost)
    }
}

/// The machine that the current task runs on.
pub(crate) fn current() -> Current {
    Current(simulated())
}

/// 128 random bits.
pub(crate) fn random() -> io::Result<u128> {
    let host = current();
    Ok(u128::from(host.draw()?) << 64 | u128::from(host.draw()?))
}

/// Shows something to the machine, if it is one that observes.
pub(crate) fn observe(show: impl FnOnce(&dyn Host)) {
    let host = current();
    if host.observes() {
        show(&*host);
    }
}
