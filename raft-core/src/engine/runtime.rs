//! The runtime that openraft runs on: tokio's, with the time, tasks and random bits of the machine that a task runs on.
//!
//! ```text
//!   Instant::now, sleep ──▶ Host::instant, Host::lasting      spawn ──▶ host::spawn      thread_rng ──▶ Host::draw
//! ```
//!
//! On a real machine each of these is tokio's own, but that a sleep up to an instant ends with the next beat of the node: so the
//! engine ticks when the other tasks wake.

#![expect(unreachable_pub, reason = "the engine's own type, which names them, has to be public in its module")]

use std::future::Future;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::time::Duration;

use openraft::OptionalSend;
use openraft::async_runtime::AsyncRuntime;
use openraft::impls::TokioRuntime;

use crate::host;

/// An instant of the machine's own clock, in the time of the engine: it never decides anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(tokio::time::Instant);

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0 + span)
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, span: Duration) {
        self.0 += span;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        Self(self.0 - span)
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.0.saturating_duration_since(earlier.0)
    }
}

impl SubAssign<Duration> for Instant {
    fn sub_assign(&mut self, span: Duration) {
        self.0 -= span;
    }
}

impl openraft::Instant for Instant {
    fn now() -> Self {
        Self(host::current().instant())
    }
}

/// The runtime.
#[derive(Debug)]
pub struct Runtime(TokioRuntime);

fn lasting(span: Duration) -> Duration {
    host::current().lasting(span)
}

fn left(deadline: Instant) -> Duration {
    lasting(deadline - <Instant as openraft::Instant>::now())
}

impl AsyncRuntime for Runtime {
    type JoinError = tokio::task::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = tokio::task::JoinHandle<T>;
    type Sleep = tokio::time::Sleep;
    type Instant = Instant;
    type TimeoutError = tokio::time::error::Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = tokio::time::Timeout<T>;
    type ThreadLocalRng = random::Rng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        match host::beat::kept() {
            Some(beat) => host::spawn(beat.kept_by(future)),
            None => host::spawn(future),
        }
    }

    fn sleep(span: Duration) -> Self::Sleep {
        tokio::time::sleep(lasting(span))
    }

    fn sleep_until(deadline: Instant) -> Self::Sleep {
        tokio::time::sleep(lasting(host::beat::until_beat(deadline - <Instant as openraft::Instant>::now())))
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(span: Duration, future: F) -> Self::Timeout<R, F> {
        tokio::time::timeout(lasting(span), future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Instant, future: F) -> Self::Timeout<R, F> {
        tokio::time::timeout(left(deadline), future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        error.is_panic()
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        random::rng()
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}

/// What draws the election time-outs: seeded by the machine, so that a simulated one decides them.
///
/// Only in builds with `testing`: a generator that can be seeded would make `rand` a dependency of this crate.
#[cfg(any(test, feature = "testing"))]
mod random {
    use rand::SeedableRng;

    pub(super) type Rng = rand::rngs::SmallRng;

    pub(super) fn rng() -> Rng {
        crate::host::current().draw().map_or_else(|_| rand::make_rng(), Rng::seed_from_u64)
    }
}

/// What draws the election time-outs: openraft's own generator.
#[cfg(not(any(test, feature = "testing")))]
mod random {
    use super::{AsyncRuntime, TokioRuntime};

    pub(super) type Rng = <TokioRuntime as AsyncRuntime>::ThreadLocalRng;

    pub(super) fn rng() -> Rng {
        TokioRuntime::thread_rng()
    }
}
