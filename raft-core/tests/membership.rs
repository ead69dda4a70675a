//! Who is in the cluster: joins, roles, removals, and leaders that change in the middle of them.

use anyhow::{Context, Result};
use futures_util::StreamExt;
use quorate_membership::{Address, Command, Event, NodeId, Rejection, Revision, Role};
use quorate_raft_core::testing::{MemoryNetwork, TestCluster};
use quorate_raft_core::{FeedItem, ProposeError};

const fn n(number: u64) -> NodeId {
    NodeId::new(number)
}

async fn role(t: &mut TestCluster, through: u64, node: u64, role: Role) -> Result<()> {
    t.node(through)?.handle()?.propose(Command::SetRole { node: n(node), role, by: None }).await?;
    Ok(())
}

/// Reads a node's feed from the beginning until `last` has come.
async fn history(t: &mut TestCluster, node: u64, last: &Event) -> Result<Vec<String>> {
    let mut feed = t.node(node)?.handle()?.events_since(Revision::default());
    let mut lines = vec![];
    while let Some(item) = feed.next().await {
        lines.push(item.to_string());
        if matches!(&item, FeedItem::Event { event, .. } if event == last) {
            return Ok(lines);
        }
    }
    anyhow::bail!("the feed ended before {last}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_form_and_tell_the_same_story_in_the_same_order() -> Result<()> {
    let mut t = TestCluster::start(3).await?;
    t.until("all three vote", |s| s.configuration().to_string() == "{n1 n2 n3}").await?;
    let leader = t.leader().await?.get();
    let before = t.node(leader)?.handle()?.view().cluster.revision();
    let through = leader % 3 + 1;
    t.node(through)?
        .handle()?
        .propose(Command::SetAddresses {
            node: n(1),
            addresses: vec![MemoryNetwork::address(n(1))?, Address::new("elsewhere:1")?],
            by: None,
        })
        .await?;
    let last = Event::Readdressed {
        node: n(1),
        addresses: vec![MemoryNetwork::address(n(1))?, Address::new("elsewhere:1")?],
        by: Some(n(through).into()),
    };
    let stories =
        [history(&mut t, 1, &last).await?, history(&mut t, 2, &last).await?, history(&mut t, 3, &last).await?];
    assert_eq!(stories[0], stories[1]);
    assert_eq!(stories[0], stories[2]);
    assert!(stories[0].len() >= 10, "{stories:#?}");
    // Whoever resumes after a revision sees exactly what came after it.
    let mut resumed = t.node(2)?.handle()?.events_since(before);
    let Some(FeedItem::Event { event, .. }) = resumed.next().await else { anyhow::bail!("no event") };
    assert_eq!(event, last);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_is_promoted_demoted_and_removed() -> Result<()> {
    let mut t = TestCluster::start(3).await?;
    t.add(4, Role::Learner).await?;
    t.until_active("n4#1").await?;
    t.until("n4 only learns", |s| s.configuration().is_learner(n(4))).await?;
    role(&mut t, 2, 4, Role::Voter).await?;
    t.until("n4 votes", |s| s.configuration().is_voter(n(4)) && !s.configuration().is_joint()).await?;
    role(&mut t, 4, 4, Role::Learner).await?;
    t.until("n4 votes no more", |s| s.configuration().is_learner(n(4))).await?;
    let refused = t.node(1)?.handle()?.propose(Command::Remove { node: n(4), by: None }).await;
    assert!(matches!(refused, Err(ProposeError::Rejected(Rejection::StillLives(_)))), "{refused:?}");
    t.node(4)?.leave().await?;
    t.node(1)?.handle()?.propose(Command::Remove { node: n(4), by: None }).await?;
    t.until("n4 is out", |s| !s.configuration().contains(n(4)) && s.retired().contains(&n(4))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_is_finished_by_the_next_leader_when_the_first_dies_in_the_middle() -> Result<()> {
    let mut t = TestCluster::start(3).await?;
    for number in [4, 5] {
        t.add(number, Role::Voter).await?; // returns as soon as it is known: the rest is owed by the leader
        let leader = t.leader().await?.get();
        t.node(leader)?.stop().await;
        t.until_active(&format!("n{number}#1")).await?;
        t.until("the new one votes", |s| s.configuration().is_lasting_voter(n(number))).await?;
        let back = t.node(leader)?.start().await?;
        t.until_active(&back.to_string()).await?;
    }
    t.until("five vote", |s| s.configuration().to_string() == "{n1 n2 n3 n4 n5}").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_witness_hands_leadership_to_a_voter() -> Result<()> {
    let mut t = TestCluster::start(3).await?;
    let leader = t.leader().await?;
    role(&mut t, leader.get(), leader.get(), Role::Witness).await?;
    let mut view = t.node(leader.get())?.handle()?.watch();
    let moved = view.wait_for(|view| view.local.leader.is_some_and(|l| l != leader));
    tokio::time::timeout(std::time::Duration::from_secs(60), moved).await.context("the witness still leads")??;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_barrier_sees_what_was_committed_elsewhere_and_says_stale_without_a_quorum() -> Result<()> {
    let mut t = TestCluster::start(3).await?;
    let outcome = t.node(1)?.handle()?.propose(Command::SetRole { node: n(3), role: Role::Witness, by: None }).await?;
    for number in 1..=3 {
        let node = t.node(number)?.handle()?;
        let read = node.read_barrier(std::time::Duration::from_secs(20)).await?;
        assert!(read >= outcome.revision);
        assert_eq!(node.view().cluster.member(n(3)).map(|m| m.role), Some(Role::Witness));
    }
    t.isolate(2);
    let stale = t.node(2)?.handle()?.read_barrier(std::time::Duration::from_secs(2)).await;
    assert!(matches!(stale, Err(quorate_raft_core::ReadError::MaybeStale { .. })), "{stale:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_raft_itself_says_who_votes() -> Result<()> {
    let mut t = TestCluster::start(1).await?;
    let configuration = quorate_membership::Configuration::uniform([n(9)], []);
    let door = t.node(1)?.handle()?.service();
    let error = door.command(Command::Configure { configuration }).await;
    assert!(error.is_err(), "{error:?}");
    t.until("n1 alone votes", |s| s.configuration().to_string() == "{n1}").await
}

/// Others take its work over at once: so nobody says it but the process whose life it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_says_of_another_that_it_has_left() -> Result<()> {
    let mut t = TestCluster::start(3).await?;
    let leader = t.leader().await?.get();
    let other = leader % 3 + 1;
    let who = t.node(other)?.handle()?.identity().context("it joined")?;
    let door = t.node(leader)?.handle()?.service();
    let outside = door.command(Command::Leave { who }).await.map_err(|e| e.to_string());
    assert!(outside.as_ref().is_err_and(|e| e.contains("only the life itself")), "{outside:?}");
    // Nor a third node, on behalf of it, through the leader.
    let third = other % 3 + 1;
    let third = if third == leader { third % 3 + 1 } else { third };
    let error = t.node(third)?.handle()?.propose(Command::Leave { who }).await.map_err(|e| e.to_string());
    assert!(error.as_ref().is_err_and(|e| e.contains("only the life itself")), "{error:?}");
    t.until_active(&who.to_string()).await
}

/// Begun without those who are needed for it, a change of voters could never be finished, and nothing else either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_change_of_voters_is_begun_while_those_it_needs_are_not_heard() -> Result<()> {
    let mut t = TestCluster::start(3).await?;
    let leader = t.leader().await?.get();
    let (dead, demoted) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    t.node(dead)?.stop().await;
    // Nobody has noticed yet: for the rules, all three stand.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let asked =
        t.node(leader)?.handle()?.propose(Command::SetRole { node: n(demoted), role: Role::Learner, by: None }).await;
    t.until_phase(&format!("n{dead}#1"), quorate_membership::Phase::Fenced).await?;
    t.until("the voters are as they were", |s| s.configuration().to_string() == "{n1 n2 n3}").await?;
    let back = t.node(dead)?.start().await?;
    t.until_active(&back.to_string()).await?;
    if asked.is_ok() {
        t.until("now it can be done", |s| s.configuration().is_learner(n(demoted))).await?;
    }
    Ok(())
}

/// Nobody acknowledges anything to a founder that is still alone, for however long it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_founder_that_was_alone_for_long_still_lets_others_in() -> Result<()> {
    let mut t = TestCluster::start(1).await?;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert!(t.node(1)?.handle()?.view().local.quorate, "who votes alone is its own majority");
    t.add(2, Role::Voter).await?;
    t.until_active("n2#1").await?;
    t.until("both vote", |s| s.configuration().to_string() == "{n1 n2}").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_demoted_hands_over_and_then_loses_its_vote() -> Result<()> {
    let mut t = TestCluster::start(3).await?;
    let leader = t.leader().await?;
    role(&mut t, leader.get(), leader.get(), Role::Learner).await?;
    t.until("it learns", |s| s.configuration().is_learner(leader)).await?;
    assert_ne!(t.leader().await?, leader);
    Ok(())
}
