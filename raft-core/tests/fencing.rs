//! How a lost node is fenced: by a quorum only, through failures of the device and of the leader.

use std::time::Duration;

use anyhow::{Context, Result};
use quorate_membership::{
    Cause, ClusterState, Command, Confirmation, FenceId, FenceProof, Identity, NodeId, Phase, Progress, Reason,
    Rejection,
};
use quorate_raft_core::ProposeError;
use quorate_raft_core::testing::{DeviceBehaviour, TestCluster, fast};

const fn n(number: u64) -> NodeId {
    NodeId::new(number)
}

fn follower_of(leader: NodeId) -> u64 {
    leader.get() % 3 + 1
}

async fn order(t: &mut TestCluster, through: u64, target: Identity) -> Result<(), ProposeError> {
    let cause = Cause::Requested { reason: Reason::clipped("a test"), by: None };
    #[expect(clippy::unwrap_used, reason = "the test's own node runs")]
    let node = t.node(through).unwrap().handle().unwrap();
    node.propose(Command::OrderFence { target, cause, under: None }).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_follower_and_then_a_dead_leader_are_fenced_and_come_back_as_new_lives() -> Result<()> {
    let mut t = TestCluster::start(3).await?;
    for leading in [false, true] {
        let leader = t.leader().await?;
        let victim = if leading { leader.get() } else { follower_of(leader) };
        let who = t.node(victim)?.handle()?.identity().context("it joined")?;
        t.node(victim)?.stop().await;
        t.until_phase(&who.to_string(), Phase::Fenced).await?;
        let asked = t.fencer.asked();
        let request = asked.iter().rfind(|r| r.target == who).context("the device was asked")?;
        assert!(matches!(request.cause, Cause::Silent { .. }), "{request:?}");
        assert_ne!(request.by, who.node);
        t.until("the proof is kept", |s| {
            let record = s.fences().history().find(|record| record.target == who);
            record.is_some_and(
                |r| matches!(&r.proof, FenceProof::Device { evidence, .. } if evidence.as_str().contains("off")),
            )
        })
        .await?;
        let back = t.node(victim)?.start().await?;
        assert_eq!((back.node, back.incarnation), (who.node, who.incarnation.next()));
        t.until_active(&back.to_string()).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_fails_panics_and_hangs_is_tried_again_until_it_succeeds() -> Result<()> {
    let mut t = TestCluster::start(3).await?;
    t.fencer.then([DeviceBehaviour::Fail, DeviceBehaviour::Panic, DeviceBehaviour::Hang]);
    let victim = follower_of(t.leader().await?);
    let who = t.node(victim)?.handle()?.identity().context("it joined")?;
    t.node(victim)?.stop().await;
    t.until_phase(&who.to_string(), Phase::Fenced).await?;
    let attempts: Vec<u32> = t.fencer.asked().iter().filter(|r| r.target == who).map(|r| r.attempt).collect();
    assert_eq!(attempts[..4], [1, 2, 3, 4]);
    assert!(t.fencer.asked().iter().all(|r| r.target == who), "nobody else was shot");
    Ok(())
}

/// The device fails for one leader. After a hand-over the next one begins at once, however long the former one would have
/// waited, and that one makes no attempt any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_moves_with_leadership_and_each_leader_waits_for_its_own_failures_only() -> Result<()> {
    let config = quorate_raft_core::Config { fence_backoff: Duration::from_secs(10), ..fast() };
    let mut t = TestCluster::start_with(3, config).await?;
    t.fencer.always(DeviceBehaviour::Fail);
    let former = t.leader().await?;
    let victim = follower_of(former);
    let next = (1..=3).map(n).find(|node| *node != former && node.get() != victim).context("a third node")?;
    t.node(victim)?.stop().await;
    t.until("an attempt failed", |s| s.fences().open().any(|o| matches!(o.progress, Progress::Failed { .. }))).await?;
    t.node(former.get())?.handle()?.hand_over(Some(next)).await?;
    let handed_over = std::time::Instant::now();
    while !t.fencer.asked().iter().any(|request| request.by == next) {
        assert!(handed_over.elapsed() < Duration::from_secs(9), "{next} waits for the failures of {former}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let before = t.fencer.asked().iter().filter(|request| request.by == former).count();
    // Longer than the former leader's wait.
    tokio::time::sleep(Duration::from_secs(11)).await;
    let asked = t.fencer.asked();
    assert_eq!(
        asked.iter().filter(|request| request.by == former).count(),
        before,
        "{former} leads no more: {asked:?}"
    );
    Ok(())
}

/// The device cannot be reached from the leader, and from one more. After three failed attempts leadership moves to the member
/// from which it can be, and the order with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_the_leader_cannot_carry_out_moves_to_a_member_that_can() -> Result<()> {
    let mut t = TestCluster::start(5).await?;
    let former = t.leader().await?;
    let victim = former.get() % 5 + 1;
    let who = t.node(victim)?.handle()?.identity().context("it joined")?;
    let others: Vec<NodeId> = (1..=5).map(n).filter(|node| *node != former && node.get() != victim).collect();
    let able = others[2];
    for node in [former, others[0], others[1]] {
        t.fencer.out_of_reach_of(node);
    }
    t.node(victim)?.stop().await;
    t.until_phase(&who.to_string(), Phase::Fenced).await?;
    let asked = t.fencer.asked();
    assert_eq!(
        asked.iter().map(|request| request.by).collect::<Vec<_>>(),
        [former, former, former, able],
        "{asked:#?}"
    );
    assert_eq!(t.leader().await?, able);
    Ok(())
}

/// A leader without a fencer does not wait for an operator while another member has one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_moves_at_once_from_a_leader_without_a_fencer() -> Result<()> {
    let mut t = TestCluster::start(3).await?;
    let former = t.leader().await?;
    let bare = follower_of(former);
    let victim = follower_of(n(bare));
    t.node(bare)?.stop().await;
    t.node(bare)?.without_fencer();
    let back = t.node(bare)?.start().await?;
    t.until_active(&back.to_string()).await?;
    t.node(former.get())?.handle()?.hand_over(Some(n(bare))).await?;
    let before = t.fencer.asked().len();
    let who = t.node(victim)?.handle()?.identity().context("it joined")?;
    t.node(victim)?.stop().await;
    t.until_phase(&who.to_string(), Phase::Fenced).await?;
    let asked = t.fencer.asked();
    assert!(asked[before..].iter().any(|r| r.target == who && r.by == former), "{asked:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_is_carried_on_by_the_next_leader_when_the_first_dies_in_the_middle() -> Result<()> {
    let config = quorate_raft_core::Config { fence_deadline: Duration::from_secs(600), ..fast() };
    let mut t = TestCluster::start_with(5, config).await?;
    t.fencer.then([DeviceBehaviour::Hang]);
    let leader = t.leader().await?;
    let victim = leader.get() % 5 + 1;
    let who = t.node(victim)?.handle()?.identity().context("it joined")?;
    t.node(victim)?.stop().await;
    // On a busy machine another may lead by now.
    let executes = |s: &ClusterState| match s.fences().against(who)?.progress {
        Progress::Executing { by } => Some(by),
        Progress::Ordered | Progress::Failed { .. } => None,
    };
    t.until("the device is at work", |s| executes(s).is_some()).await?;
    let leader = executes(&t.node(leader.get())?.handle()?.view().cluster).unwrap_or(leader);
    let number = t.node(leader.get())?.handle()?.view().cluster.fences().against(who).map(|o| o.id);
    t.node(leader.get())?.stop().await;
    t.until_phase(&who.to_string(), Phase::Fenced).await?;
    let asked = t.fencer.asked();
    let takers: Vec<_> = asked.iter().filter(|r| r.target == who).collect();
    assert!(takers.len() >= 2 && takers[0].by == leader && takers[1].by != leader, "{takers:#?}");
    assert!(takers.iter().all(|r| Some(r.order) == number), "the same order: {takers:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_cut_off_from_the_others_shoots_nobody_and_is_itself_fenced() -> Result<()> {
    let mut t = TestCluster::start(3).await?;
    let leader = t.leader().await?;
    let who = t.node(leader.get())?.handle()?.identity().context("it joined")?;
    t.isolate(leader.get());
    t.until_phase(&who.to_string(), Phase::Fenced).await?;
    assert!(t.fencer.asked().iter().all(|r| r.by != leader && r.target == who), "{:#?}", t.fencer.asked());
    // It still believes in itself, but knows that it has no quorum.
    assert!(!t.node(leader.get())?.handle()?.view().local.quorate);
    t.heal();
    let mut view = t.node(leader.get())?.handle()?.watch();
    let told = view.wait_for(|v| v.cluster.life(who).is_some_and(|life| life.phase == Phase::Fenced));
    tokio::time::timeout(Duration::from_secs(60), told).await.context("it learns of its end")??;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_for_one_target_merge_and_an_order_below_a_majority_is_refused() -> Result<()> {
    let mut t = TestCluster::start(3).await?;
    t.fencer.always(DeviceBehaviour::Hang);
    let leader = t.leader().await?;
    let (a, b) = (follower_of(leader), follower_of(n(follower_of(leader))));
    let target = t.node(a)?.handle()?.identity().context("it joined")?;
    let second = t.node(b)?.handle()?.identity().context("it joined")?;
    order(&mut t, leader.get(), target).await?;
    order(&mut t, b, target).await?;
    t.until("one order is open", |s| s.fences().open().count() == 1).await?;
    let refused = order(&mut t, leader.get(), second).await;
    assert!(
        matches!(refused, Err(ProposeError::Rejected(Rejection::Majority { standing: 1, voters: 3, .. }))),
        "{refused:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_device_the_word_of_an_operator_ends_the_life_and_only_by_its_own_order() -> Result<()> {
    let mut t = TestCluster::start(3).await?;
    t.fencer.always(DeviceBehaviour::Fail);
    let leader = t.leader().await?;
    let victim = follower_of(leader);
    let who = t.node(victim)?.handle()?.identity().context("it joined")?;
    t.node(victim)?.stop().await;
    t.until("an order is open", |s| s.fences().against(who).is_some()).await?;
    let node = t.node(leader.get())?.handle()?;
    let open = node.view().cluster.fences().against(who).context("open")?.id;
    let word = |order: FenceId| Command::ConfirmFence {
        order,
        target: who,
        confirmation: Confirmation::Operator {
            name: Reason::clipped("ada"),
            reason: Reason::clipped("pulled the plug"),
            by: None,
        },
    };
    let stale = node.propose(word(open.next())).await;
    assert!(matches!(stale, Err(ProposeError::Rejected(Rejection::UnknownOrder(_)))), "{stale:?}");
    node.propose(word(open)).await?;
    t.until_phase(&who.to_string(), Phase::Fenced).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_against_the_leaders_own_node_is_carried_out_by_another() -> Result<()> {
    let mut t = TestCluster::start(3).await?;
    let leader = t.leader().await?;
    let who = t.node(leader.get())?.handle()?.identity().context("it joined")?;
    order(&mut t, leader.get(), who).await?;
    t.until_phase(&who.to_string(), Phase::Fenced).await?;
    assert!(t.fencer.asked().iter().all(|r| r.by != leader), "{:#?}", t.fencer.asked());
    Ok(())
}
