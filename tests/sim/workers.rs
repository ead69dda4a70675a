//! What runs on the nodes: workers that act under locks and stop promptly, slowly or never, and clients of the records.
//!
//! ```text
//!   worker: lock ─▶ act, act, … while the guard says yes ─▶ lost: stop at once │ after a while, acting on │ never
//!                                                                               └─ the dead-man ends the process
//! ```

use std::sync::Arc;
use std::time::Duration;

use quorate::testing::sim::{Rng, Running, SimHost};
use quorate::{
    Key, LockGuard, Name, ProposeError,
    records::{Check, Value},
};
use quorate_raft_core::Node;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::oracle::{Ask, Book};

/// How a worker behaves when its right is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Temper {
    Prompt,
    /// Goes on for so long, then says that it has stopped.
    Slow(Duration),
    /// Goes on until its process is ended.
    Never,
}

impl Temper {
    /// Half of the workers are prompt; the slow ones take at most `longest`.
    pub(crate) fn draw(rng: &mut Rng, longest: Duration) -> Self {
        match rng.below(10) {
            0..=4 => Self::Prompt,
            5..=7 => Self::Slow(longest),
            _ => Self::Never,
        }
    }
}

/// What all that run on one process share.
#[derive(Clone)]
pub(crate) struct Shift {
    pub(crate) running: Running,
    /// Raised when everything is to stop, before the node leaves.
    pub(crate) over: watch::Receiver<bool>,
    pub(crate) book: Book,
    /// How long something begun in time may take to land.
    pub(crate) in_flight: Duration,
}

impl Shift {
    fn node(&self) -> &Node {
        &self.running.node
    }

    fn host(&self) -> &Arc<SimHost> {
        &self.running.host
    }

    /// Starts a worker for a lock.
    pub(crate) fn work(&self, lock: Name, temper: Temper, rng: Rng) {
        let shift = self.clone();
        drop(self.host().spawn(async move { shift.work_for_ever(lock, temper, rng).await }));
    }

    async fn work_for_ever(mut self, lock: Name, temper: Temper, mut rng: Rng) {
        while !*self.over.borrow() {
            let pause = rng.span(ms(20), ms(400));
            let Some(who) = self.node().identity() else {
                sleep(pause).await;
                continue;
            };
            let timeout = rng.span(ms(500), ms(8000));
            let asked = self.node().lock_for(who, lock.clone(), Some(timeout));
            // Some give up in the middle: nothing may stay behind.
            let guard = match rng.chance(100) {
                true => tokio::time::timeout(rng.span(ms(1), ms(2000)), asked).await.ok(),
                false => Some(asked.await),
            };
            if let Some(Ok(guard)) = guard {
                self.work_under(guard, temper, &mut rng).await;
            }
            sleep(pause).await;
        }
    }

    async fn work_under(&mut self, guard: LockGuard, temper: Temper, rng: &mut Rng) {
        let ends = Instant::now() + rng.span(ms(100), ms(20_000));
        loop {
            let pace = rng.span(ms(2), ms(60));
            let lost = async {
                tokio::select! { biased;
                    () = guard.lost() => true,
                    _ = self.over.wait_for(|over| *over) => false,
                }
            };
            match timeout(pace, lost).await {
                Err(_) if Instant::now() < ends => {
                    if guard.check().is_ok() {
                        self.act(&guard, rng);
                    }
                }
                // Enough for now, or the node is about to leave: stopped, and says so.
                Err(_) | Ok(false) => break,
                Ok(true) => {
                    self.stop(&guard, temper, rng).await;
                    break;
                }
            }
        }
        // Stopped is who has nothing under way any more.
        sleep(self.in_flight).await;
        match rng.chance(500) {
            true => drop(guard),
            // Whoever is not told in time sees to it in the background.
            false => drop(guard.release().await),
        }
    }

    /// The right is gone: what the temper makes of it. The mechanism has the last word.
    async fn stop(&self, guard: &LockGuard, temper: Temper, rng: &mut Rng) {
        let until = match temper {
            Temper::Prompt => return,
            Temper::Slow(longest) => Some(Instant::now() + rng.span(Duration::ZERO, longest)),
            Temper::Never => None,
        };
        while until.is_none_or(|until| Instant::now() < until) {
            self.act(guard, rng);
            sleep(rng.span(ms(2), ms(60))).await;
        }
    }

    fn act(&self, guard: &LockGuard, rng: &mut Rng) {
        let (host, lock, who, token) = (self.host().clone(), guard.name().clone(), guard.who(), guard.token());
        let lands = rng.span(Duration::ZERO, self.in_flight);
        match lands.is_zero() {
            true => host.acts(lock, who, token),
            // On its way to the disk: it lands whatever becomes of the process.
            false => drop(tokio::spawn(async move {
                sleep(lands).await;
                host.acts(lock, who, token);
            })),
        }
    }

    /// Starts a client of the records. Every value that it writes is its own.
    pub(crate) fn ask(&self, number: u64, rng: Rng) {
        let shift = self.clone();
        drop(self.host().spawn(async move { shift.ask_for_ever(number, rng).await }));
    }

    async fn ask_for_ever(self, number: u64, mut rng: Rng) {
        let records = self.node().records();
        for count in 0u64.. {
            sleep(rng.span(ms(50), ms(1500))).await;
            if *self.over.borrow() {
                return;
            }
            let Ok(key) = Key::new(format!("k{}", rng.below(4))) else { return };
            if rng.chance(400) {
                let began = self.book.told();
                if let Ok(seen) = records.get_latest(&key, ms(3000)).await {
                    let value = seen.value.map(|record| record.value.as_bytes().to_vec());
                    self.book.read(key, value, seen.at, began);
                }
                continue;
            }
            let text = format!("{}-{number}-{count}", self.host().node());
            // Its process may be ended in the middle: then nobody was told.
            self.book.wrote(text.clone().into_bytes(), Ask::Unknown);
            let value = Value::new(text.clone().into_bytes());
            let done = match rng.chance(400) {
                true => records.put(key, value).await,
                false => {
                    let version = records.get(&key).value.map(|record| record.version);
                    let check = Check::Version { key: key.clone(), version };
                    records.write().when(check).put(key, value).within(ms(4000)).commit().await
                }
            };
            let ask = match done {
                Ok(revision) => Ask::Done(revision),
                Err(ProposeError::OutcomeUnknown { .. } | ProposeError::Stopped(_)) => Ask::Unknown,
                Err(_) => Ask::Refused,
            };
            self.book.wrote(text.into_bytes(), ask);
        }
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
