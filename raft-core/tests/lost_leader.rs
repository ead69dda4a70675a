//! A leader whose process has ended is succeeded without waiting for its silence, if a quorum sees it.

use std::time::Duration;

use anyhow::Result;
use quorate_membership::{NodeId, Timing};
use quorate_raft_core::Config;
use quorate_raft_core::testing::{TestCluster, fast};
use tokio::time::{Instant, sleep};

/// Elections that come after twenty seconds at the soonest.
fn slow() -> Result<Config> {
    let timing = Timing::new(fast().timing.plan().scaled(70, 1))?;
    let soonest = timing.plan().election_min;
    Ok(Config { timing, suspect_after: Some(soonest), fence_after: Some(soonest * 20), ..fast() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_machine_refuses_connections_is_succeeded_long_before_its_timeout() -> Result<()> {
    let config = slow()?;
    let soonest = config.timing.plan().election_min;
    let mut t = TestCluster::start_with(3, config).await?;
    let leader = t.leader().await?;
    let begun = Instant::now();
    t.node(leader.get())?.stop().await;
    t.until("somebody else leads", |state| state.leadership().is_some_and(|l| l.leader != leader)).await?;
    assert!(begun.elapsed() < soonest, "{:?}, and an election comes after {soonest:?} anyway", begun.elapsed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_one_follower_is_refused_by_goes_on() -> Result<()> {
    let mut t = TestCluster::start_with(3, slow()?).await?;
    let leader = t.leader().await?;
    let term = t.node(leader.get())?.handle()?.view().local.term;
    let refused = NodeId::new(leader.get() % 3 + 1);
    t.network.reject(refused, leader);
    sleep(Duration::from_secs(2)).await;
    for node in 1..=3 {
        let local = t.node(node)?.handle()?.view().local;
        assert_eq!((local.leader, local.term), (Some(leader), term), "as n{node} sees it");
    }
    Ok(())
}
