//! The runtime that the engine runs on inside simulated worlds: tokio's, seen from the machine that a task runs on.
//!
//! ```text
//!   Instant::now ─▶ the machine's own oscillator      spawn ─▶ tasks of its host      thread_rng ─▶ its own chance
//! ```
//!
//! Outside of a simulated world it is tokio's own, so that all tests run on one type of engine.

#![expect(unreachable_pub, reason = "the engine's own type, which names them, has to be public in its module")]

use std::future::Future;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::time::Duration;

use openraft::OptionalSend;
use openraft::async_runtime::AsyncRuntime;
use openraft::impls::TokioRuntime;
use rand::SeedableRng;
use rand::rngs::SmallRng;

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
        Self(host::simulated().map_or_else(tokio::time::Instant::now, |host| host.instant()))
    }
}

/// The runtime.
#[derive(Debug)]
pub struct Runtime(TokioRuntime);

fn lasting(span: Duration) -> Duration {
    host::simulated().map_or(span, |host| host.lasting(span))
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
    type ThreadLocalRng = SmallRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        host::spawn(future)
    }

    fn sleep(span: Duration) -> Self::Sleep {
        tokio::time::sleep(lasting(span))
    }

    fn sleep_until(deadline: Instant) -> Self::Sleep {
        tokio::time::sleep(left(deadline))
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
        match host::simulated() {
            Some(host) => SmallRng::seed_from_u64(host.draw()),
            None => rand::make_rng(),
        }
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
