//! The processor time that a thousand renewing members cost a leader.
//!
//! ```text
//!   this process: a node that leads  ◀── 1000 renewals every 300 ms, over 50 connections ── another process
//!   CLOCK_PROCESS_CPUTIME_ID over some seconds, less the same without callers
//! ```
//!
//! The callers renew for lives that the node does not know, so everything happens but the grant itself. The figure for
//! the rules covers the grant.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use quorate::{Address, Cluster, Identity, NodeId, Timing, state::ClusterId};
use quorate_membership::{Disk, DiskId, Nonce};
use quorate_raft_core::rpc::{Caller, Renewal};
use quorate_raft_core::{Peer, Transport, TransportExt};
use quorate_transport_grpc::GrpcTransport;
use rustix::time::{ClockId, clock_gettime};

use crate::{leader, round};

const MEMBERS: u64 = 1000;
const CONNECTIONS: u64 = 50;
const SECONDS: u64 = 5;

/// The processor time of all threads of this process so far.
fn used() -> Duration {
    let spec = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(spec.tv_sec.unsigned_abs(), spec.tv_nsec.unsigned_abs() as u32)
}

/// Prints both shares.
pub(crate) fn print() -> Result<()> {
    let renew = Timing::default().plan().renew;
    let (mut grantor, state, lives) = leader(MEMBERS)?;
    let (rounds, begun) = (200, used());
    for seq in 1..=rounds {
        round(&mut grantor, &state, &lives, seq);
    }
    let rules = (used() - begun) / rounds as u32;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (idle, called) = runtime.block_on(shares())?;
    println!("{MEMBERS} members, each renewing every {renew:?}: share of one core");
    println!("  rules, one round of all   {:>6.2} %", 100.0 * rules.as_secs_f64() / renew.as_secs_f64());
    println!("  node that is called       {:>6.2} %   (idle it takes {idle:.2} %)", called - idle);
    Ok(())
}

/// The percentage of one core that a cluster of one node takes: idle, and while it is called.
async fn shares() -> Result<(f64, f64)> {
    let folder = tempfile::tempdir()?;
    let node = Cluster::builder(NodeId::new(1)).data(folder.path()).listen_plaintext("127.0.0.1:0".parse()?);
    let cluster = node.without_fencing().bootstrap().await?;
    cluster.active().await?;
    cluster.lease().held().await;
    let idle = share().await;
    let address = cluster.local_addr().context("it listens")?.to_string();
    let name = cluster.view().cluster.id().context("founded")?.to_string();
    let mut callers = tokio::process::Command::new(std::env::current_exe()?)
        .args(["--caller", &address, &name])
        .kill_on_drop(true)
        .spawn()?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let called = share().await;
    ensure!(callers.try_wait()?.is_none(), "the calling process has ended");
    callers.kill().await?;
    cluster.leave().await?;
    Ok((idle, called))
}

async fn share() -> f64 {
    let (before, begun) = (used(), Instant::now());
    tokio::time::sleep(Duration::from_secs(SECONDS)).await;
    100.0 * (used() - before).as_secs_f64() / begun.elapsed().as_secs_f64()
}

/// `--caller ADDRESS CLUSTER`: calls until it is killed.
pub(crate) fn call(args: &[String]) -> Result<()> {
    let [address, cluster, ..] = args else { anyhow::bail!("--caller needs an address and a cluster") };
    let peer = Peer { node: NodeId::new(1), addresses: vec![Address::new(address.clone())?] };
    let cluster: ClusterId = cluster.parse()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut calls = tokio::task::JoinSet::new();
        for connection in 0..CONNECTIONS {
            let transport: Arc<dyn Transport> = Arc::new(GrpcTransport::new());
            for member in (0..MEMBERS).filter(|member| member % CONNECTIONS == connection) {
                calls.spawn(renew(transport.clone(), peer.clone(), cluster, member + 2));
            }
        }
        calls.join_next().await.context("no call is under way")??
    })
}

async fn renew(transport: Arc<dyn Transport>, peer: Peer, cluster: ClusterId, node: u64) -> Result<()> {
    let (from, every) = (NodeId::new(node), Timing::default().plan().renew);
    let disk = Disk { id: DiskId::new(node.into()), opened: 1 };
    let (process, timing) = (Nonce::new(node.into()), Timing::default().hash());
    let caller = Caller { cluster, from, to: peer.node, disk, process, callee: None, timing };
    let who = Identity::new(from, quorate::state::Incarnation::new(1));
    // Spread over the interval, like the renewals of real members.
    tokio::time::sleep(every * (node % 97) as u32 / 97).await;
    let mut pace = tokio::time::interval(every);
    for seq in 1.. {
        pace.tick().await;
        transport.request(&peer, caller, Renewal { who, seq }, Duration::from_secs(5)).await?;
    }
    Ok(())
}
