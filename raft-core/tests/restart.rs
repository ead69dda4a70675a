//! Nodes that stop and come back: one, two, all three; and the promise that a restarted voter keeps.

use anyhow::{Context, Result};
use quorate_membership::{Command, NodeId, Nonce, Phase, Role};
use quorate_raft_core::rpc::{Ballot, Caller, PreVote, VoteRequest};
use quorate_raft_core::testing::{TestCluster, fast};
use quorate_raft_core::{Config, HandOverError, PeerServiceExt, Refusal};

const fn n(number: u64) -> NodeId {
    NodeId::new(number)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_two_and_all_three_nodes_restart_and_nothing_committed_is_lost() -> Result<()> {
    let mut t = TestCluster::start(3).await?;
    let mut life = [1; 3];
    for stopped in [vec![2], vec![1, 3], vec![1, 2, 3]] {
        let role = if life[0] % 2 == 0 { Role::Voter } else { Role::Witness };
        t.node(1)?.handle()?.propose(Command::SetRole { node: n(3), role, by: None }).await?;
        for number in &stopped {
            t.node(*number)?.stop().await;
        }
        for number in &stopped {
            t.node(*number)?.open_again().await?;
        }
        for number in &stopped {
            let who = t.node(*number)?.handle()?.resume(std::time::Duration::from_secs(60)).await?;
            life[*number as usize - 1] += 1;
            assert_eq!(who.incarnation.get(), life[*number as usize - 1]);
        }
        for number in 1..=3 {
            t.until_active(&format!("n{number}#{}", life[number as usize - 1])).await?;
        }
        t.until("the role is kept", |s| s.member(n(3)).is_some_and(|m| m.role == role)).await?;
    }
    // Each former life ended by a proof: no restart counted as one.
    let view = t.node(2)?.handle()?.view();
    assert_eq!(view.cluster.fences().history().count(), 6, "{:#?}", view.cluster.fences());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_leave_needs_no_fencing_and_the_node_comes_back() -> Result<()> {
    let mut t = TestCluster::start(3).await?;
    let leader = t.leader().await?.get();
    t.node(leader)?.leave().await?;
    t.until_phase(&format!("n{leader}#1"), Phase::Left).await?;
    let back = t.node(leader)?.start().await?;
    t.until_active(&back.to_string()).await?;
    assert!(t.fencer.asked().is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_life_that_returns_waits_until_its_former_life_is_proved_to_have_ended() -> Result<()> {
    let mut t = TestCluster::start(3).await?;
    t.fencer.always(quorate_raft_core::testing::DeviceBehaviour::Fail);
    t.node(2)?.stop().await;
    let back = t.node(2)?.start().await?;
    t.until("the former life is condemned", |s| s.fences().open().any(|o| o.target.to_string() == "n2#1")).await?;
    t.until("a device has failed", |s| s.fences().open().any(|o| o.attempts >= 2)).await?;
    t.until_phase(&back.to_string(), Phase::Joining).await?;
    t.fencer.always(quorate_raft_core::testing::DeviceBehaviour::Succeed);
    t.until_active(&back.to_string()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_brings_back_a_node_that_the_log_no_longer_reaches() -> Result<()> {
    let config = Config { snapshot_every: 32, keep_entries: 0, event_history: 16, ..fast() };
    let mut t = TestCluster::start_with(3, config).await?;
    let leader = t.leader().await?;
    let away = leader.get() % 3 + 1;
    t.node(away)?.stop().await;
    t.until_phase(&format!("n{away}#1"), Phase::Fenced).await?;
    for round in 0..200 {
        let role = if round % 2 == 0 { Role::Witness } else { Role::Voter };
        let other = (1..=3).find(|m| *m != leader.get() && *m != away).context("a third")?;
        t.node(leader.get())?.handle()?.propose(Command::SetRole { node: n(other), role, by: None }).await?;
    }
    let back = t.node(away)?.start().await?;
    t.until_active(&back.to_string()).await?;
    let views = [t.node(away)?.handle()?.view(), t.node(leader.get())?.handle()?.view()];
    assert_eq!(views[0].cluster.fences(), views[1].cluster.fences(), "the history came with the snapshot");
    // The events before the snapshot are not here: a reader from the beginning is told so, with a picture.
    let mut feed = t.node(away)?.handle()?.events_since(quorate_membership::Revision::default());
    let first = futures_util::StreamExt::next(&mut feed).await;
    assert!(matches!(first, Some(quorate_raft_core::FeedItem::Gap { .. })), "{first:?}");
    Ok(())
}

/// P22. A voter that restarts answers no vote and no pre-vote for as long as a promise of its former life may hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_voter_gives_no_vote_before_its_embargo_is_over() -> Result<()> {
    let timing = quorate_membership::Timing::new(fast().timing.plan().scaled(100, 1))?;
    let config = Config {
        timing,
        suspect_after: Some(std::time::Duration::from_secs(60)),
        fence_after: Some(std::time::Duration::from_secs(90)),
        ..fast()
    };
    let mut t = TestCluster::start_with(1, config.clone()).await?;
    let cluster = t.node(1)?.handle()?.view().cluster.id().context("founded")?;
    t.node(1)?.stop().await;
    t.node(1)?.open_again().await?;
    let door = t.node(1)?.handle()?.service();
    let caller = Caller {
        cluster,
        from: n(7),
        to: n(1),
        disk: quorate_membership::Disk { id: quorate_membership::DiskId::new(7), opened: 1 },
        process: Nonce::new(7),
        callee: None,
        timing: config.timing.hash(),
    };
    let ask = VoteRequest { ballot: Ballot { term: 900, node: n(7), committed: false }, last: None, transfer: false };
    for answer in [door.request(caller, ask).await, door.request(caller, PreVote(ask)).await] {
        assert!(matches!(answer, Err(Refusal::Embargo { .. })), "{answer:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_to_a_voter_that_was_just_started_when_it_may_stand() -> Result<()> {
    let mut t = TestCluster::start(3).await?;
    for _ in 0..2 {
        let leader = t.leader().await?.get();
        let successor = leader % 3 + 1;
        t.node(successor)?.stop().await;
        t.node(successor)?.open_again().await?;
        let back = t.node(successor)?.handle()?.resume(std::time::Duration::from_secs(60)).await?;
        t.until_active(&back.to_string()).await?;
        // A busy machine may have elected another meanwhile; then that one hands over.
        loop {
            let leader = t.leader().await?.get();
            match t.node(leader)?.handle()?.hand_over(Some(n(successor))).await {
                Err(HandOverError::NotLeader { .. }) => {}
                successors => break assert_eq!(successors?, n(successor)),
            }
        }
        // And whoever leads now can speak for the cluster: reads are confirmed, commands committed.
        t.node(successor)?.handle()?.read_barrier(std::time::Duration::from_secs(60)).await?;
    }
    Ok(())
}
