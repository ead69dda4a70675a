//! Rounds that callers share: who arrives while one is under way shares the next, whatever their number.
//!
//! ```text
//!   caller 1 ─▶ round 1 begins ───────────────▶ ends
//!   callers 2, 3, 4 ─▶ wait for round 2            └─▶ round 2 begins ──────▶ ends
//!                                                        callers 5, 6 ─▶ wait for round 3
//! ```
//!
//! A round begins after each of its callers has arrived. So what it finds out is as new as every one of them needs it. A round moves
//! on only while a caller polls it. One that does not end in time is no longer waited for: two rounds at once do no harm.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio::time::timeout;

type Round<T> = Shared<BoxFuture<'static, T>>;

/// The next round, which has not begun, and the turn that lets one round run at a time.
#[derive(Clone)]
pub(crate) struct Rounds<T: Clone> {
    next: Arc<Mutex<Option<Round<T>>>>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl<T: Clone> Default for Rounds<T> {
    fn default() -> Self {
        Self { next: Arc::default(), turn: Arc::default() }
    }
}

impl<T: Clone + Send + Sync + 'static> Rounds<T> {
    /// What the next round finds out, which is `round` if nobody waits for one yet. It begins when the round before it has ended,
    /// or after `limit`. A round that nobody waits for any more ends.
    pub(crate) async fn share<F>(&self, limit: Duration, round: impl FnOnce() -> F + Send + 'static) -> T
    where
        F: Future<Output = T> + Send,
    {
        let shared = {
            let mut next = self.next.lock();
            next.get_or_insert_with(|| {
                let (next, turn) = (Arc::downgrade(&self.next), self.turn.clone());
                let begun = async move {
                    let _turn = timeout(limit, turn.lock()).await;
                    // Who arrives from here on is too late for this round.
                    if let Some(next) = next.upgrade().filter(|_| !quorate_membership::mutant!("late_for_a_round")) {
                        next.lock().take();
                    }
                    round().await
                };
                begun.boxed().shared()
            })
            .clone()
        };
        shared.await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(80);

    /// Rounds that are numbered as they begin, and end when they may.
    struct Numbered {
        rounds: Rounds<u32>,
        begun: Arc<AtomicU32>,
        may_end: Arc<Semaphore>,
    }

    impl Numbered {
        fn new() -> Self {
            Self { rounds: Rounds::default(), begun: Arc::default(), may_end: Arc::new(Semaphore::new(0)) }
        }

        /// A caller that has arrived.
        fn caller(&self) -> BoxFuture<'static, u32> {
            let (rounds, begun, may_end) = (self.rounds.clone(), self.begun.clone(), self.may_end.clone());
            let mut caller = async move {
                let round = move || async move {
                    let number = begun.fetch_add(1, Ordering::Relaxed) + 1;
                    may_end.acquire().await.unwrap().forget();
                    number
                };
                rounds.share(LIMIT, round).await
            }
            .boxed();
            assert_eq!((&mut caller).now_or_never(), None);
            caller
        }
    }

    #[tokio::test]
    async fn who_arrives_while_a_round_is_under_way_shares_the_next() {
        let numbered = Numbered::new();
        let first = numbered.caller();
        let (second, third) = (numbered.caller(), numbered.caller());
        assert_eq!(numbered.begun.load(Ordering::Relaxed), 1);
        numbered.may_end.add_permits(2);
        assert_eq!(first.await, 1);
        assert_eq!(futures_util::future::join(second, third).await, (2, 2));
        let fourth = numbered.caller();
        numbered.may_end.add_permits(1);
        assert_eq!(fourth.await, 3, "a round begins at once if none is under way");
    }

    #[tokio::test(start_paused = true)]
    async fn a_round_whose_caller_does_not_look_holds_up_the_next_for_a_moment_only() {
        let numbered = Numbered::new();
        let _first = numbered.caller();
        let second = numbered.caller();
        // The first has its place in line, and takes one.
        numbered.may_end.add_permits(2);
        assert_eq!(second.await, 2);
    }

    #[tokio::test]
    async fn a_round_that_nobody_waits_for_does_not_hold_up_the_next() {
        let numbered = Numbered::new();
        let (first, second) = (numbered.caller(), numbered.caller());
        drop(first);
        numbered.may_end.add_permits(1);
        assert_eq!(second.await, 2);
    }
}
