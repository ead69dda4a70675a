//! What the clients of one process do: a mix of writes, comparisons, deletions and reads, and locks with work under them.
//!
//! ```text
//!   records   get · put · cas with the version last seen · delete         some dropped in the middle: their end is unknown
//!   holder    lock ─▶ look ─▶ write to the resource, and to the cluster ─▶ look ─▶ … ─▶ released, dropped, or killed
//! ```

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use quorate::testing::sim::Rng;
use quorate::{
    Cluster, Identity, LockError, LockGuard, Name, ProposeError, Revision, records::Check, state::Rejection,
};
use tokio::time::sleep;

use crate::node::{Log, key, now};
use crate::op::{Call, CallResult};

/// The records and the locks that everybody wants.
pub(crate) const KEYS: [&str; 4] = ["k1", "k2", "k3", "k4"];
pub(crate) const LOCKS: [&str; 2] = ["a", "b"];

/// How long a read waits for a quorum.
const TIMEOUT: Duration = Duration::from_secs(1);

/// What all clients of a process share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) log: Arc<Log>,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) who: Identity,
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

async fn pause(rng: &mut Rng, low: u64, high: u64) {
    sleep(Duration::from_millis(rng.between(low, high))).await;
}

/// A client of the records.
pub(crate) async fn records(shared: Shared, client: String, seed: u64) -> Result<()> {
    let (mut rng, mut seen) = (Rng::new(seed), [None; KEYS.len()]);
    while !shared.stopped() {
        let at = rng.below(KEYS.len() as u64) as usize;
        let (Some(text), Some(version)) = (KEYS.get(at), seen.get_mut(at)) else { continue };
        let id = shared.log.number();
        let key = (*text).to_string();
        let call = match rng.below(20) {
            0..=7 => Call::Get { key },
            8..=12 => Call::Put { key, value: id },
            13 => Call::Delete { key },
            _ => Call::Cas { key, expected: *version, value: id },
        };
        let outcome = ask(&shared, id, &client, &call, &mut rng).await?;
        *version = match outcome {
            CallResult::Done(_) if matches!(call, Call::Delete { .. }) => None,
            CallResult::Done(at) => Some(at),
            CallResult::Conflict(found) => found,
            CallResult::Read { record, .. } => record.map(|(version, _)| version),
            _ => *version,
        };
        let slow = matches!(outcome, CallResult::Failed(_) | CallResult::Unknown(_));
        if slow { pause(&mut rng, 20, 100).await } else { pause(&mut rng, 0, 12).await }
    }
    Ok(())
}

/// One call on a record, written down before and after.
async fn ask(shared: &Shared, id: u64, client: &str, call: &Call, rng: &mut Rng) -> Result<CallResult> {
    shared.log.begin(id, client, call)?;
    let records = shared.cluster.records();
    let text = id.to_string();
    let asked = async {
        Ok::<_, anyhow::Error>(match call {
            Call::Get { key: name } => match records.get_latest(&key(name)?, TIMEOUT).await {
                Ok(seen) => {
                    // A value that is no number is nobody's.
                    let value = |text: Option<&str>| text.and_then(|text| text.parse().ok()).unwrap_or(0);
                    let record = seen.value.map(|record| (record.version.get(), value(record.value.as_text())));
                    CallResult::Read { at: seen.at.get(), record }
                }
                Err(error) => CallResult::Failed(error.to_string()),
            },
            Call::Put { key: name, .. } => records.put(key(name)?, text.as_str()).await.into(),
            Call::Cas { key: name, expected, .. } => {
                records.put_if(key(name)?, expected.map(Revision::new), text.as_str()).await.into()
            }
            Call::Delete { key: name } => records.delete(key(name)?).await.into(),
            other => CallResult::Failed(format!("{other} is not on a record")),
        })
    };
    // Now and then nobody waits for the end.
    let outcome = if rng.below(40) == 0 {
        let timeout = Duration::from_micros(rng.between(10, 8000));
        tokio::time::timeout(timeout, asked).await.unwrap_or_else(|_| Ok(CallResult::Unknown("dropped".into())))?
    } else {
        asked.await?
    };
    shared.log.end(id, &outcome)?;
    Ok(outcome)
}

/// Every record once more, and again where no quorum answers.
pub(crate) async fn look(shared: &Shared) -> Result<()> {
    let client = format!("{}/last", shared.who);
    let mut rng = Rng::new(0);
    for text in KEYS {
        for _ in 0..10 {
            let call = Call::Get { key: text.into() };
            if let CallResult::Read { .. } = ask(shared, shared.log.number(), &client, &call, &mut rng).await? {
                break;
            }
        }
    }
    Ok(())
}

/// A client that wants one lock again and again, and works under it.
pub(crate) async fn holder(shared: Shared, name: &'static str, resource: Arc<File>, seed: u64) -> Result<()> {
    let (mut rng, lock, client) = (Rng::new(seed), Name::new(name)?, format!("{}/{name}", shared.who));
    // Before it is active, a life gets no lock; should it never be, this process ends for another reason.
    if shared.cluster.active().await.is_err() {
        std::future::pending::<()>().await;
    }
    while !shared.stopped() {
        let id = shared.log.number();
        shared.log.begin(id, &client, &Call::Lock { name: name.into() })?;
        let asked = match rng.below(8) {
            0 | 1 => shared.cluster.try_lock(lock.clone()).await,
            // Given up while it waits, or just when it has it.
            2 => {
                let timeout = Duration::from_millis(rng.between(1, 300));
                match tokio::time::timeout(timeout, shared.cluster.lock(lock.clone())).await {
                    Ok(asked) => asked,
                    Err(_) => {
                        shared.log.end(id, &CallResult::Unknown("dropped".into()))?;
                        continue;
                    }
                }
            }
            _ => shared.cluster.lock_with_timeout(lock.clone(), Duration::from_millis(1500)).await,
        };
        match asked {
            Ok(guard) => {
                shared.log.end(id, &CallResult::Granted(guard.token().get()))?;
                work(&shared, &client, name, guard, &resource, &mut rng).await?;
                pause(&mut rng, 0, 30).await;
            }
            Err(error) => {
                shared.log.end(id, &refused(&error))?;
                pause(&mut rng, 10, 60).await;
            }
        }
    }
    Ok(())
}

fn refused(error: &LockError) -> CallResult {
    match error {
        LockError::Propose(ProposeError::Rejected(Rejection::LockHeld { token, .. })) => CallResult::Held(token.get()),
        other => CallResult::Failed(other.to_string()),
    }
}

/// Works under a lock, and gives it back in one of two ways.
async fn work(
    shared: &Shared,
    client: &str,
    name: &str,
    guard: LockGuard,
    resource: &File,
    rng: &mut Rng,
) -> Result<()> {
    // Now and then for so long that somebody will be killed in the middle.
    let acts = if rng.below(8) == 0 { 40 } else { rng.between(1, 8) };
    for _ in 0..acts {
        if shared.stopped() || !act(shared, client, name, &guard, resource, rng).await? {
            break;
        }
        pause(rng, 1, 25).await;
    }
    let (id, token) = (shared.log.number(), guard.token().get());
    shared.log.begin(id, client, &Call::Release { name: name.into(), token })?;
    let outcome = if rng.chance(500) {
        guard.release().await.map_or_else(|error| CallResult::Unknown(error.to_string()), |()| CallResult::Fine)
    } else {
        drop(guard);
        CallResult::Unknown("dropped".into())
    };
    shared.log.end(id, &outcome)?;
    if rng.below(3) == 0 {
        // Too late, and in no doubt who may refuse it.
        pause(rng, 0, 40).await;
        write_under(shared, client, name, token).await?;
    }
    Ok(())
}

/// A write that counts only while the lock is held under that token.
async fn write_under(shared: &Shared, client: &str, name: &str, token: u64) -> Result<()> {
    let (id, journal) = (shared.log.number(), format!("journal/{name}"));
    shared.log.begin(id, client, &Call::Guarded { key: journal.clone(), value: id, name: name.into(), token })?;
    let holds = Check::Holds { lock: Name::new(name)?, token: Revision::new(token) };
    let write = shared.cluster.records().write().when(holds).put(key(&journal)?, id.to_string().as_str());
    shared.log.end(id, &write.commit().await.into())
}

/// Something that only the holder may do. `false` once it may not any more.
async fn act(
    shared: &Shared,
    client: &str,
    name: &str,
    guard: &LockGuard,
    resource: &File,
    rng: &mut Rng,
) -> Result<bool> {
    if guard.check().is_err() {
        return Ok(false);
    }
    let (id, token) = (shared.log.number(), guard.token().get());
    // The clock is read behind this look and before the next, so that what is told lies within what was believed.
    shared.log.begin(id, client, &Call::Act { name: name.into(), token })?;
    // A resource that asks for no token; what is written to it is in order only if nobody acts too late.
    { resource }.write_all(format!("{name} r{token} {client}\n").as_bytes()).context("the resource")?;
    if rng.below(3) == 0 {
        write_under(shared, client, name, token).await?;
    }
    let (at, still) = (now(), guard.check());
    let outcome = still.as_ref().map_or_else(|lost| CallResult::Failed(lost.to_string()), |_| CallResult::Fine);
    shared.log.end_at(id, at, &outcome)?;
    Ok(still.is_ok())
}
