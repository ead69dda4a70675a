//! Clients that do one thing again and again, each on a connection of its own, for a while.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::time::sleep_until;

use crate::cluster::{Client, Cluster, NODES};

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Writes 128 bytes to one of 50 000 keys.
    Put,
    /// A linearizable read of one key.
    Get,
    /// Takes a lock of its own, and gives it back.
    Lock,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Put, Self::Get, Self::Lock];

    /// As it is chosen.
    pub fn short(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Lock => "lock",
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Lock => "lock + unlock",
        }
    }
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Measured {
    pub per_second: f64,
    /// Milliseconds.
    pub p50: f64,
    pub p99: f64,
    /// Of all nodes together, for one operation, in microseconds.
    pub cpu: f64,
    /// Of all nodes together, for one operation.
    pub switches: f64,
    pub errors: usize,
}

const VALUE: [u8; 128] = [b'x'; 128];

const KEYS: u64 = 50_000;

/// Small, and the same in every run.
pub struct Draws(pub u64);

impl Draws {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

async fn once(client: &mut Client, kind: Kind, number: usize, draws: &mut Draws) -> Result<()> {
    match kind {
        Kind::Put => client.put(&format!("bench/{:05}", draws.next() % KEYS), &VALUE).await,
        Kind::Get => client.get("bench/get").await,
        Kind::Lock => client.lock_and_unlock(&format!("bench/{number}")).await,
    }
}

/// `clients` at a time, the first at the leader and the rest in turn at all nodes, for `time`.
pub async fn run(cluster: &Cluster, kind: Kind, clients: usize, time: Duration) -> Result<Measured> {
    let leader = cluster.leader().await?;
    let mut prepared = vec![];
    for number in 0..clients {
        let mut client = cluster.client((leader + number) % NODES).await?;
        match kind {
            Kind::Put => {}
            Kind::Get => client.put("bench/get", &VALUE).await?,
            Kind::Lock => client.open_session().await?,
        }
        prepared.push(client);
    }
    let start = Instant::now() + Duration::from_millis(300);
    let end = start + time;
    let before = cluster.usage()?;
    let mut running = vec![];
    for (number, mut client) in prepared.into_iter().enumerate() {
        running.push(tokio::spawn(async move {
            let mut draws = Draws(0x9e37_79b9_7f4a_7c15 ^ ((number as u64 + 1) * 7919));
            let (mut times, mut errors) = (vec![], vec![]);
            sleep_until(start.into()).await;
            while Instant::now() < end {
                let begun = Instant::now();
                match once(&mut client, kind, number, &mut draws).await {
                    Ok(()) => times.push(begun.elapsed()),
                    Err(error) => errors.push(error),
                }
            }
            (client, times, errors)
        }));
    }
    let (mut times, mut errors, mut finished) = (vec![], vec![], vec![]);
    for client in running {
        let (client, its_times, its_errors) = client.await?;
        times.extend(its_times);
        errors.extend(its_errors);
        finished.push(client);
    }
    let took = start.elapsed();
    let after = cluster.usage()?;
    if kind == Kind::Lock {
        for mut client in finished {
            client.close_session().await?;
        }
    }
    if let Some(error) = errors.first() {
        eprintln!("{} of {} failed, the first: {error:#}", errors.len(), times.len());
    }
    times.sort_unstable();
    let at = |part: f64| times.get((times.len() as f64 * part) as usize).map_or(0.0, |time| time.as_secs_f64() * 1e3);
    let each = |sum: f64| sum / times.len().max(1) as f64;
    let cpu: f64 = after.iter().zip(&before).map(|(after, before)| (after.cpu - before.cpu).as_secs_f64()).sum();
    let switches: u64 = after.iter().zip(&before).map(|(after, before)| after.switches - before.switches).sum();
    Ok(Measured {
        per_second: times.len() as f64 / took.as_secs_f64(),
        p50: at(0.5),
        p99: at(0.99),
        cpu: each(cpu * 1e6),
        switches: each(switches as f64),
        errors: errors.len(),
    })
}
