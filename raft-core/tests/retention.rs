//! The log keeps its bound in bytes, whatever the size of its entries, and a node that was away for long comes back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use quorate_membership::{Key, Phase};
use quorate_raft_core::testing::{TestCluster, fast};
use quorate_raft_core::{Config, Node};

/// Fifteen values of 65 000 bytes, under the same keys each time: what is alive afterwards is one MB.
async fn overwrite(node: &Node, turn: u8) -> Result<()> {
    let mut write = node.records().write();
    for place in 0..15 {
        write = write.put(Key::new(format!("k{place}"))?, vec![turn; 65_000]);
    }
    write.commit().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_of_large_entries_keeps_its_bound_in_bytes_and_its_file_stays_small() -> Result<()> {
    let bound = 8 << 20;
    let mut t = TestCluster::start_with(3, Config { log_bytes: bound, ..fast() }).await?;
    let away = t.leader().await?.get() % 3 + 1;
    let writes_at = t.leader().await?.get();
    t.node(away)?.stop().await;
    t.until_phase(&format!("n{away}#1"), Phase::Fenced).await?;
    // Forty-eight megabytes, far fewer entries than a snapshot is taken after by number.
    for turn in 0..50 {
        overwrite(t.node(writes_at)?.handle()?, turn).await?;
    }
    for node in (1..=3).filter(|node| *node != away) {
        let file = t.node(node)?.data().join("log.redb");
        let size = std::fs::metadata(&file)?.len();
        ensure!(size < 5 * bound, "{} has {size} bytes where the log may take {bound}", file.display());
    }
    // What it missed is in no log any more.
    t.node(away)?.start().await?;
    t.until_active(&format!("n{away}#2")).await?;
    overwrite(t.node(writes_at)?.handle()?, 99).await?;
    let back = t.node(away)?.handle()?;
    back.read_barrier(Duration::from_secs(60)).await?;
    let view = back.view();
    let record = view.cluster.store().record(&Key::new("k7")?).context("k7")?;
    ensure!(record.value.as_bytes().iter().all(|byte| *byte == 99), "it has what was written last");
    Ok(())
}
