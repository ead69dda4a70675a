//! Work that must never run twice: an effect is a line in one file that everybody appends to and that refuses nobody.
//!
//! ```text
//!   lock("a") ─▶ check ─▶ ─▶ effect ─▶ check ─▶ ─▶ effect … ─▶ released ─▶ lock("a")
//!                                       └ lost ─┬─ obedient   stops at once
//!                                               ├─ slow       goes on for a third of the margin, without a look
//!                                               └─ stubborn   never looks: its dead-man ends the process
//! ```
//!
//! The order of the lines is the order in which effects arrived: appending to a file is one after the other.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use quorate::testing::sim::Rng;
use quorate::{LockError, LockGuard, Name, ProposeError, state::Rejection};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::clients;
use crate::host::Shared;
use crate::log::now;
use crate::op::{Call, CallResult};

/// What everybody wants.
pub(crate) const LOCKS: [&str; 4] = ["a", "b", "c", "d"];

/// How long an effect takes from the look at the guard to its arrival, and how long it is until the next look. A process
/// that is stopped in between does its effect, late, with the first thing that it does again: if it ever does.
const PACE: Duration = Duration::from_millis(5);

/// How long a slow one goes on.
const SLOW: Duration = Duration::from_millis(200);

/// What a worker does when it is told that its lease is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Temper {
    Obedient,
    Slow,
    Stubborn,
}

/// One worker for each lock.
pub(crate) fn spawn(shared: &Shared, seed: u64, into: &mut JoinSet<Result<()>>) {
    for (name, salt) in LOCKS.into_iter().zip(100..) {
        into.spawn(worker(shared.clone(), name, Rng::new(seed ^ salt)));
    }
}

/// Where effects arrive.
#[derive(Debug)]
struct Effects {
    file: File,
    next: AtomicU64,
    who: String,
    name: &'static str,
}

impl Effects {
    fn one(&self, token: u64) -> Result<()> {
        let (Self { who, name, .. }, seq) = (self, self.next.fetch_add(1, Ordering::SeqCst));
        (&self.file).write_all(format!("{} {name} {token} {who} {seq}\n", now()).as_bytes()).context("the ledger")
    }
}

async fn worker(shared: Shared, name: &'static str, mut rng: Rng) -> Result<()> {
    let file = OpenOptions::new().append(true).create(true).open(shared.run.join("ledger"))?;
    let who = shared.who.to_string();
    let effects = Arc::new(Effects { file, next: AtomicU64::new(0), who, name });
    let (lock, client) = (Name::new(name)?, format!("{}/{name}", shared.who));
    while !shared.stopped() {
        let call = Call::Lock { name: name.into() };
        let id = shared.log.begin(&client, &call)?;
        // So that nobody waits for ever when all are to come to an end.
        match shared.cluster.lock_with_timeout(lock.clone(), Duration::from_secs(2)).await {
            Ok(guard) => {
                shared.log.end(id, &CallResult::Granted(guard.token().get()))?;
                hold(&shared, &client, guard, &effects, &mut rng).await?;
                sleep(Duration::from_millis(rng.between(0, 50))).await;
            }
            Err(error) => {
                shared.log.end(id, &refused(&error))?;
                sleep(Duration::from_millis(rng.between(20, 100))).await;
            }
        }
    }
    Ok(())
}

fn refused(error: &LockError) -> CallResult {
    match error {
        LockError::Propose(ProposeError::Rejected(Rejection::LockHeld { token, .. })) => CallResult::Held(token.get()),
        other => CallResult::Failed(other.to_string().replace('\n', " ")),
    }
}

async fn hold(shared: &Shared, client: &str, guard: LockGuard, effects: &Arc<Effects>, rng: &mut Rng) -> Result<()> {
    let temper = match rng.below(4) {
        0 => Temper::Stubborn,
        1 => Temper::Slow,
        _ => Temper::Obedient,
    };
    let until = Instant::now() + Duration::from_millis(rng.between(500, 9000));
    let guard = match temper {
        Temper::Stubborn => {
            let (shared, effects) = (shared.clone(), effects.clone());
            // On a thread of its own, which knows nothing of leases.
            let work = move || {
                while Instant::now() < until && !shared.stopped() {
                    std::thread::sleep(PACE * 2);
                    effects.one(guard.token().get())?;
                }
                Ok::<_, anyhow::Error>(guard)
            };
            tokio::task::spawn_blocking(work).await??
        }
        Temper::Slow | Temper::Obedient => {
            let mut beats = 0_u64;
            while Instant::now() < until && !shared.stopped() && guard.check().is_ok() {
                sleep(PACE).await;
                effects.one(guard.token().get())?;
                beats += 1;
                if beats.is_multiple_of(50) {
                    clients::write_under(shared, client, guard.name().as_str(), guard.token()).await?;
                }
                tokio::select! {
                    () = sleep(PACE) => {}
                    () = guard.lost() => break,
                }
            }
            if temper == Temper::Slow && guard.check().is_err() {
                let enough = Instant::now() + SLOW;
                while Instant::now() < enough {
                    sleep(PACE * 2).await;
                    effects.one(guard.token().get())?;
                }
            }
            guard
        }
    };
    let (name, token) = (guard.name().to_string(), guard.token().get());
    let id = shared.log.begin(client, &Call::Release { name, token })?;
    let outcome = if rng.chance(500) {
        guard.release().await.map_or_else(|error| CallResult::Unknown(error.to_string()), |()| CallResult::Fine)
    } else {
        drop(guard);
        CallResult::Unknown("dropped".into())
    };
    shared.log.end(id, &outcome)
}
