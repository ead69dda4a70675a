//! The leader is lost: how long until a write through one of the others is acknowledged that was begun after that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use parking_lot::Mutex;
use rustix::process::Signal;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::cluster::{Cluster, NODES};
use crate::load::Draws;

/// A new write begins through each of the others as often as this, whether or not the earlier ones have their answers.
const EVERY: Duration = Duration::from_millis(5);

/// As many connections to each node share the writes: a node works on 128 calls of one connection at a time.
const CONNECTIONS: usize = 4;

/// When a write was begun, and acknowledged.
type Acknowledged = Arc<Mutex<Vec<(Instant, Instant)>>>;

/// How the leader is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Its process is killed with SIGKILL: the kernel closes its connections.
    Killed,
    /// Its process is stopped with SIGSTOP, and says nothing more, as a host without power.
    Silent,
}

/// Loses the leader `trials` times, and brings it back. The times in milliseconds.
pub async fn run(cluster: &mut Cluster, trials: usize, how: Loss) -> Result<Vec<f64>> {
    let (mut found, mut draws) = (vec![], Draws(0x2545_f491_4f6c_dd1d));
    for _ in 0..trials {
        let leader = cluster.leader().await?;
        let (over, acknowledged) = (Arc::new(AtomicBool::new(false)), Acknowledged::default());
        for node in (0..NODES).filter(|node| *node != leader) {
            probe(cluster, node, over.clone(), acknowledged.clone()).await?;
        }
        sleep(Duration::from_millis(1000 + draws.next() % 1000)).await;
        let killed = match how {
            Loss::Killed => cluster.kill(leader).await?,
            Loss::Silent => cluster.signal(leader, Signal::STOP)?,
        };
        let first = loop {
            let first = {
                let acknowledged = acknowledged.lock();
                acknowledged.iter().filter(|(begun, _)| *begun > killed).map(|(_, at)| *at).min()
            };
            match first {
                Some(first) => break Some(first),
                None if killed.elapsed() > Duration::from_secs(30) => break None,
                None => sleep(Duration::from_millis(2)).await,
            }
        };
        over.store(true, Ordering::Relaxed);
        found.push((first.context("no write within 30 s")? - killed).as_secs_f64() * 1e3);
        match how {
            Loss::Killed => cluster.resume(leader).await?,
            Loss::Silent => {
                cluster.signal(leader, Signal::CONT)?;
                cluster.leader().await?;
            }
        }
        sleep(Duration::from_millis(1500)).await;
    }
    Ok(found)
}

async fn probe(cluster: &Cluster, node: usize, over: Arc<AtomicBool>, acknowledged: Acknowledged) -> Result<()> {
    let mut clients = vec![];
    for _ in 0..CONNECTIONS {
        clients.push(cluster.client(node).await?);
    }
    tokio::spawn(async move {
        let mut pace = interval(EVERY);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !over.load(Ordering::Relaxed) {
            pace.tick().await;
            clients.rotate_left(1);
            let (mut client, acknowledged) = (clients[0].beside(), acknowledged.clone());
            tokio::spawn(async move {
                let begun = Instant::now();
                // One that fails says nothing; the next is on its way.
                if client.put("probe", b"v").await.is_ok() {
                    acknowledged.lock().push((begun, Instant::now()));
                }
            });
        }
    });
    Ok(())
}
