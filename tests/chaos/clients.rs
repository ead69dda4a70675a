//! Clients of records: they write, compare and read, and write down what they were told.
//!
//! ```text
//!   k0-7   put · cas with the version last seen · get           every ten seconds other keys, so that what was written
//!   k0-8   …                                                    and acknowledged long ago is still there at the end
//! ```

use std::time::Duration;

use anyhow::Result;
use quorate::testing::sim::Rng;
use quorate::{Key, Name, Revision, records::Check};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::host::Shared;
use crate::log::now;
use crate::op::{Call, CallResult};

/// How many clients a host has, and how many records they fight for at a time.
const CLIENTS: u64 = 2;
const KEYS: u64 = 3;

/// For how long, in nanoseconds.
const EPOCH: u64 = 10_000_000_000;

/// How large a large value is.
const MUCH: usize = 48 << 10;

/// How long a read waits for a quorum.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The clients of one process.
pub(crate) fn spawn(shared: &Shared, seed: u64, into: &mut JoinSet<Result<()>>) {
    for client in 1..=CLIENTS {
        into.spawn(records(shared.clone(), format!("{}/c{client}", shared.who), Rng::new(seed ^ client)));
    }
}

/// What a write stores: its own number, and perhaps much behind it.
fn text(shared: &Shared, id: u64) -> String {
    if shared.large() { format!("{id} {}", "x".repeat(MUCH)) } else { id.to_string() }
}

fn read(text: Option<&str>) -> u64 {
    // A value that begins with no number is nobody's.
    text.and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or(0)
}

async fn records(shared: Shared, client: String, mut rng: Rng) -> Result<()> {
    let mut seen: (String, Option<u64>) = Default::default();
    while !shared.stopped() {
        let key = format!("k{}-{}", rng.below(KEYS), now() / EPOCH);
        let records = shared.cluster.records();
        let (id, at) = (shared.log.number(), Key::new(key.as_str())?);
        let expected = seen.1.filter(|_| seen.0 == key);
        let call = match rng.below(10) {
            0..=2 => Call::Get { key: key.clone() },
            3..=5 => Call::Put { key: key.clone(), value: id },
            _ => Call::Cas { key: key.clone(), expected, value: id },
        };
        shared.log.begin_as(id, &client, &call)?;
        let text = text(&shared, id);
        let outcome = match call {
            Call::Get { .. } => match records.get_latest(&at, TIMEOUT).await {
                Ok(found) => {
                    let record = found.value.map(|record| (record.version.get(), read(record.value.as_text())));
                    CallResult::Read { at: found.at.get(), record }
                }
                Err(error) => CallResult::Failed(error.to_string()),
            },
            Call::Put { .. } => records.put(at, text.as_str()).await.into(),
            _ => records.put_if(at, expected.map(Revision::new), text.as_str()).await.into(),
        };
        shared.log.end(id, &outcome)?;
        let version = match outcome {
            CallResult::Done(at) => Some(at),
            CallResult::Conflict(found) => found,
            CallResult::Read { record, .. } => record.map(|(version, _)| version),
            _ => None,
        };
        seen = (key, version);
        sleep(Duration::from_millis(rng.between(30, 120))).await;
    }
    Ok(())
}

/// A write that counts only while the lock is held under that token.
pub(crate) async fn write_under(shared: &Shared, client: &str, name: &str, token: Revision) -> Result<()> {
    let (id, key) = (shared.log.number(), format!("journal/{name}-{}", now() / EPOCH));
    let call = Call::Guarded { key: key.clone(), value: id, name: name.into(), token: token.get() };
    shared.log.begin_as(id, client, &call)?;
    let holds = Check::Holds { lock: Name::new(name)?, token };
    let write = shared.cluster.records().write().when(holds).put(Key::new(key.as_str())?, id.to_string().as_str());
    shared.log.end(id, &write.commit().await.into())
}

/// Every record there is, once more, as of now.
pub(crate) async fn look(shared: &Shared) -> Result<()> {
    let (client, begun) = (format!("{}/last", shared.who), now());
    let found = shared.cluster.records().list_latest("", Duration::from_secs(20)).await?;
    for (key, record) in found.value {
        let id = shared.log.number();
        shared.log.say(&format!("> {id} {begun} {client} {}", Call::Get { key: key.to_string() }))?;
        let record = Some((record.version.get(), read(record.value.as_text())));
        shared.log.end(id, &CallResult::Read { at: found.at.get(), record })?;
    }
    Ok(())
}
