//! Three nodes in this process, over gRPC on loopback, each with its log on a real disk.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use quorate::{Cluster, Config, Evidence, NodeId, Timing};
use tokio::time::{sleep, timeout};

/// How long an expected step may take before the benchmark fails.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// Relaxed timing, so that a pause of a shared machine causes no election and no fence order. What is measured waits
/// for none of these timers.
fn calm() -> Config {
    let s = Duration::from_secs;
    // Five times the standard timing.
    let timing = Timing::new(Timing::default().plan().scaled(5, 1)).unwrap_or_default();
    Config { timing, suspect_after: Some(s(10)), fence_after: Some(s(30)), ..Config::default() }
}

/// Starts a node: founds a cluster, or joins through `seed`. Its fencer answers at once; a real device takes longer.
pub(crate) async fn start(folder: &Path, number: u64, seed: Option<&Cluster>, resume: bool) -> Result<Cluster> {
    let described = Cluster::builder(NodeId::new(number))
        .data(folder.join(format!("n{number}")))
        .listen_plaintext("127.0.0.1:0".parse()?)
        .fencing(|_request| async { Ok(Evidence::new("nothing runs there")?) })
        .config(calm())
        .timeout(TIMEOUT);
    let node = match seed {
        _ if resume => described.resume().await?,
        None => described.bootstrap().await?,
        Some(first) => described.join([first.local_addr().context("it listens")?.to_string()]).await?,
    };
    timeout(TIMEOUT, node.active()).await??;
    timeout(TIMEOUT, node.lease().held()).await?;
    Ok(node)
}

/// Three nodes, the leader first.
pub(crate) async fn three(folder: &Path) -> Result<Vec<Cluster>> {
    let mut nodes: Vec<Cluster> = vec![];
    for number in 1..=3 {
        nodes.push(start(folder, number, nodes.first(), false).await?);
    }
    let began = Instant::now();
    loop {
        let leads = |node: &Cluster| {
            let local = node.view().local;
            local.quorate && local.leader == Some(local.node)
        };
        match nodes.iter().position(leads) {
            Some(place) => {
                nodes.swap(0, place);
                return Ok(nodes);
            }
            None if began.elapsed() > TIMEOUT => bail!("no node leads after {TIMEOUT:?}"),
            None => sleep(Duration::from_millis(20)).await,
        }
    }
}
