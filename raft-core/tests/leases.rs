//! Leases on a real engine: held, lost by one's own clock, and their end as a proof for others.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use quorate_membership::{Command, FenceProof, Identity, NodeId, Phase, Plan, Revision, Role, Stop, Timing};
use quorate_raft_core::testing::{DeviceBehaviour, MemoryNetwork, TestCluster, TestStop, fast};
use quorate_raft_core::{Config, LeaseStage, Node, NodeSettings, ProposeError, ProtectError, StartError};
use tokio::time::{sleep, timeout};

const TIMEOUT: Duration = Duration::from_secs(60);
const BOUND: Stop = Stop::Own { bound: Duration::from_millis(100) };

async fn all_hold(t: &mut TestCluster, n: u64) -> Result<()> {
    for number in 1..=n {
        let lease = t.node(number)?.lease()?;
        timeout(TIMEOUT, lease.held()).await.with_context(|| format!("n{number} never got its lease"))?;
    }
    Ok(())
}

fn proof_of(state: &quorate_membership::ClusterState, who: Identity) -> Option<FenceProof> {
    state.fences().ended(who).map(|record| record.proof.clone())
}

/// Every member gets its lease, the leader's own included, and may say so within nanoseconds. Nobody who protects
/// nothing is armed (I19).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_holds_a_lease_and_nobody_is_armed() -> Result<()> {
    let mut t = TestCluster::start_protected(3, BOUND).await?;
    all_hold(&mut t, 3).await?;
    for number in 1..=3 {
        let node = t.node(number)?;
        let left = node.lease()?.check()?;
        ensure!(!left.is_zero() && left <= Duration::from_millis(1900), "{left:?}");
        assert_eq!(node.mechanism()?.seen(), Default::default(), "n{number} was armed for nothing");
        assert_eq!(node.lease()?.view().stop, BOUND);
    }
    let activation = t.node(1)?.handle()?.view().cluster.leadership().context("a leader was activated")?;
    let leader = t.leader().await?;
    ensure!(activation.leader == leader, "{activation:?}, and {leader} leads");
    Ok(())
}

/// An isolated member loses its lease by its own clock, with notice first; the others conclude its end from time alone
/// where no fencer can reach it; and it comes back as a new life.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_cut_off_stops_and_time_proves_it() -> Result<()> {
    let mut t = TestCluster::start_protected(3, BOUND).await?;
    t.fencer.always(DeviceBehaviour::Fail);
    all_hold(&mut t, 3).await?;
    let leader = t.leader().await?;
    let away = [1, 2, 3].into_iter().find(|n| NodeId::new(*n) != leader).context("three nodes")?;
    let (lease, stop) = (t.node(away)?.lease()?, t.node(away)?.mechanism()?.clone());
    let who = lease.who();
    let protection = lease.protect("worker", Revision::new(7)).await?;
    ensure!(stop.seen().armed && lease.view().protecting == ["worker"], "armed before the work may begin");
    t.isolate(away);
    timeout(TIMEOUT, lease.lost()).await.context("no notice")?;
    ensure!(protection.check().is_err(), "something could still be begun after the notice");
    t.until("its end is proved by time", |state| matches!(proof_of(state, who), Some(FenceProof::Expired { .. })))
        .await?;
    // By then the mechanism had been told, on the isolated side.
    assert_eq!((stop.seen().fired, lease.view().stage), (1, LeaseStage::Lapsed));
    protection.stopped();
    t.heal();
    t.until("it is known over there, too", |state| state.life(who).is_none_or(|life| life.phase.has_ended())).await?;
    t.node(away)?.stop().await;
    let again = t.node(away)?.start().await?;
    t.until_active(&again.to_string()).await?;
    timeout(TIMEOUT, t.node(away)?.lease()?.held()).await.context("the new life has no lease")
}

/// Staged loss: the consumer stops its work when it is told, says so, and nothing is fired.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stops_in_time_is_not_reset() -> Result<()> {
    let mut t = TestCluster::start_protected(3, BOUND).await?;
    all_hold(&mut t, 3).await?;
    let (lease, stop) = (t.node(3)?.lease()?, t.node(3)?.mechanism()?.clone());
    let stopped = lease.protect("worker", Revision::new(7)).await?.stop_with(|| async {});
    t.isolate(3);
    timeout(TIMEOUT, stopped).await.context("the callback never ran")??;
    let mut view = lease.view();
    while view.armed {
        tokio::time::sleep(Duration::from_millis(5)).await;
        view = lease.view();
    }
    t.until("it is fenced", |state| state.life(lease.who()).is_some_and(|life| life.phase == Phase::Fenced)).await?;
    let seen = stop.seen();
    ensure!(seen.fired == 0 && !seen.armed && seen.disarmed == 1 && seen.sustained > 0, "{seen:?}");
    Ok(())
}

/// A leader that is cut off grants nothing any more and ends nobody, however long it believes in itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_grants_and_ends_nothing() -> Result<()> {
    let mut t = TestCluster::start_protected(3, BOUND).await?;
    t.fencer.always(DeviceBehaviour::Fail);
    all_hold(&mut t, 3).await?;
    let old = t.leader().await?;
    let lease = t.node(old.get())?.lease()?;
    let who = lease.who();
    t.isolate(old.get());
    timeout(TIMEOUT, lease.lost()).await.context("it still grants itself a lease")?;
    t.until("the others have ended it by time, under another activation", |state| {
        let other = state.leadership().is_some_and(|l| l.leader != old);
        other && matches!(proof_of(state, who), Some(FenceProof::Expired { .. }))
    })
    .await?;
    let here = t.node(old.get())?.handle()?.view();
    assert_eq!(here.cluster.fences().history().count(), 0, "it ended somebody all by itself");
    ensure!(lease.view().stage == LeaseStage::Lapsed && lease.check().is_err());
    Ok(())
}

/// Time alone proves the end of a former life, so the device is not asked: it might hit the life that came back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_life_ends_by_time_and_nobody_is_shot() -> Result<()> {
    let mut t = TestCluster::start_protected(3, BOUND).await?;
    all_hold(&mut t, 3).await?;
    t.node(3)?.stop().await;
    let again = t.node(3)?.start().await?;
    assert_eq!(again.to_string(), "n3#2");
    t.until_active("n3#2").await?;
    let former: Identity = "n3#1".parse()?;
    let state = t.node(1)?.handle()?.view().cluster;
    ensure!(matches!(proof_of(&state, former), Some(FenceProof::Expired { .. })), "{:?}", proof_of(&state, former));
    assert_eq!(t.fencer.asked(), []);
    Ok(())
}

/// Both ways to a proof run side by side; the first that comes wins, the second is recorded beside it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_proof_is_recorded_beside_the_first() -> Result<()> {
    let config = quorate_raft_core::Config { fence_deadline: Duration::from_secs(600), ..fast() };
    let mut t = TestCluster::start_protected_with(3, config, BOUND).await?;
    all_hold(&mut t, 3).await?;
    let leader = t.leader().await?;
    let away = [1, 2, 3].into_iter().find(|n| NodeId::new(*n) != leader).context("three nodes")?;
    let who = t.node(away)?.lease()?.who();
    // The device gets there, but much later than the time.
    t.fencer.then([DeviceBehaviour::Late(Duration::from_secs(5))]);
    t.node(away)?.stop().await;
    t.until("time came first", |state| matches!(proof_of(state, who), Some(FenceProof::Expired { .. }))).await?;
    t.until("the device is recorded, too", |state| {
        let second = state.fences().ended(who).and_then(|record| record.second.as_ref());
        matches!(second, Some(FenceProof::Device { .. }))
    })
    .await
}

/// P19: who still protects something has not stopped, and does not say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_leaves_with_work_that_is_protected() -> Result<()> {
    let mut t = TestCluster::start_protected(3, BOUND).await?;
    all_hold(&mut t, 3).await?;
    let protection = t.node(3)?.lease()?.protect("worker", Revision::new(7)).await?;
    let error = t.node(3)?.leave().await.err().context("it left")?;
    let refused = error.downcast_ref::<ProposeError>().is_some_and(|e| matches!(e, ProposeError::Refused(_)));
    ensure!(refused && error.to_string().contains("worker"), "{error:#}");
    let phase = t.node(1)?.handle()?.view().cluster.life("n3#1".parse()?).map(|life| life.phase);
    ensure!(phase != Some(Phase::Left), "it said that it had left");
    protection.stopped();
    Ok(())
}

/// A mechanism that cannot be armed protects nothing; one that fails later is trouble that everybody sees.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_mechanism_that_works_nothing_is_begun() -> Result<()> {
    let mut t = TestCluster::start_protected(1, BOUND).await?;
    all_hold(&mut t, 1).await?;
    let (lease, stop) = (t.node(1)?.lease()?, t.node(1)?.mechanism()?.clone());
    let held = lease.protect("worker", Revision::new(7)).await?;
    stop.break_it();
    timeout(TIMEOUT, lease.lost()).await.context("nobody was told")?;
    ensure!(lease.check().is_err() && lease.view().trouble.is_some(), "{:?}", lease.view());
    held.stopped();
    let refused = lease.protect("worker", Revision::new(8)).await.err();
    ensure!(matches!(refused, Some(ProtectError::Mechanism(_) | ProtectError::NotHeld(_))), "{refused:?}");
    Ok(())
}

/// What one leader concluded does not count once another was activated (I9), and only a leader may conclude it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expiry_counts_only_under_the_current_activation() -> Result<()> {
    let mut t = TestCluster::start_protected(3, BOUND).await?;
    all_hold(&mut t, 3).await?;
    let leader = t.leader().await?;
    let node = t.node(leader.get())?.handle()?;
    let under = node.view().cluster.leadership().context("activated")?.activation;
    let successor = node.hand_over(None).await?;
    t.until("another activation", |state| state.leadership().is_some_and(|l| l.activation > under)).await?;
    let target = t.node(1)?.lease()?.who();
    let expire = Command::Expire { target, under, waited: Duration::from_secs(3600) };
    let refused = t.node(successor.get())?.handle()?.propose(expire).await.err().context("it counted")?;
    ensure!(refused.to_string().contains("is not the current activation"), "{refused}");
    Ok(())
}

/// A life that may not work yet renews no lease, and its silence counts from when it may: after everything was down at
/// once, everybody holds a lease again, and nobody is ended for having waited.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_restarts_holds_a_lease_again_one_or_all() -> Result<()> {
    for n in [1, 3] {
        let mut t = TestCluster::start_protected(n, BOUND).await?;
        all_hold(&mut t, n).await?;
        for number in 1..=n {
            t.node(number)?.stop().await;
        }
        for number in 1..=n {
            t.node(number)?.open_again().await?;
        }
        for number in 1..=n {
            t.node(number)?.handle()?.resume(TIMEOUT).await?;
        }
        all_hold(&mut t, n).await?;
        for number in 1..=n {
            let who = t.node(number)?.lease()?.who();
            assert_eq!(who.to_string(), format!("n{number}#2"), "it was ended and came back");
        }
    }
    Ok(())
}

/// A future of `protect` that is dropped protects nothing, even if the keeper had answered already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_for_protection_that_is_dropped_leaves_nothing_armed() -> Result<()> {
    let mut t = TestCluster::start_protected(1, BOUND).await?;
    all_hold(&mut t, 1).await?;
    let (lease, stop) = (t.node(1)?.lease()?, t.node(1)?.mechanism()?.clone());
    let mut dropped = false;
    while !dropped {
        let (mut asked, before) = (Box::pin(lease.protect("worker", Revision::new(7))), stop.seen().sustained);
        // The keeper is another thread; now and then it is quicker than the first look.
        if let std::task::Poll::Ready(answer) = futures_util::poll!(&mut asked) {
            answer?.stopped();
            continue;
        }
        while stop.seen().sustained == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        dropped = true;
    }
    let gone = async {
        while stop.seen().armed || !lease.view().protecting.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(TIMEOUT, gone).await.context("it stays armed for nobody")
}

/// A disk that is too slow for the timing: a first start waits for it until its timeout, and is refused. A member starts, says
/// why it protects nothing, and protects nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_on_a_slow_disk_starts_and_protects_nothing_and_a_first_start_waits() -> Result<()> {
    let (network, folder, n1) = (MemoryNetwork::new(), tempfile::tempdir()?, NodeId::new(1));
    // No disk syncs in a nanosecond.
    let too_fast = Timing::new(Plan { fsync: Duration::from_nanos(1), ..*fast().timing.plan() })?;
    let settings = |timing: Timing, data: &str| -> Result<NodeSettings> {
        Ok(NodeSettings {
            node: n1,
            data: folder.path().join(data),
            addresses: vec![MemoryNetwork::address(n1)?],
            config: Config { timing, ..fast() },
            transport: network.transport(n1),
            fencer: None,
            stop: Some(Box::new(TestStop::new(BOUND))),
            trust_vm_clock: true,
        })
    };
    let begun = std::time::Instant::now();
    let refused = Node::start_within(settings(too_fast, "new")?, Duration::from_millis(1500)).await.err();
    let Some(StartError::Config { why, .. }) = refused else { anyhow::bail!("{refused:?}") };
    ensure!(why.contains("meant for fsyncs of 1ns") && begun.elapsed() >= Duration::from_secs(1), "{why}");

    let first = Node::start(settings(fast().timing, "n1")?).await?;
    network.connect(n1, first.service());
    first.bootstrap(Role::Voter, TIMEOUT).await?;
    first.shutdown().await;
    drop(first);
    let again = Node::start(settings(too_fast, "n1")?).await?;
    network.connect(n1, again.service());
    let who = again.resume(TIMEOUT).await?;
    ensure!(who.incarnation.get() == 2, "{who}");
    let lease = again.lease().context("it has joined")?;
    let give_up = std::time::Instant::now() + TIMEOUT;
    while lease.view().trouble.is_none() {
        ensure!(std::time::Instant::now() < give_up, "it says nothing: {:?}", lease.view());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let trouble = lease.view().trouble.unwrap_or_default();
    ensure!(trouble.contains("meant for fsyncs of 1ns"), "{trouble}");
    ensure!(lease.protect("worker", Revision::new(1)).await.is_err(), "it protects work");
    Ok(())
}

/// Cut off for far longer than its lease, a node that nobody waits for goes on as the same life, in time as by a device. One
/// that holds a lock is ended as ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_that_nobody_waits_for_is_spared_and_goes_on() -> Result<()> {
    let config = Config { spares_idle: true, ..fast() };
    let mut t = TestCluster::start_protected_with(3, config, BOUND).await?;
    all_hold(&mut t, 3).await?;
    let leader = t.leader().await?.get();
    let idle = leader % 3 + 1;
    let who = t.node(idle)?.handle()?.identity().context("it joined")?;
    for busy in [false, true] {
        let name = quorate_membership::Name::new("vm/100")?;
        let guard = match busy {
            true => Some(t.node(idle)?.handle()?.lock_for(who, name, Some(TIMEOUT)).await?),
            false => None,
        };
        t.isolate(idle);
        if busy {
            t.until("it is ended", |state| state.has_ended(who)).await?;
        } else {
            // D of these settings is less than 4 s, and fence_after 1.2 s.
            sleep(Duration::from_secs(6)).await;
            t.until("nothing is ordered", |s| s.fences().open().next().is_none() && !s.has_ended(who)).await?;
        }
        t.heal();
        if !busy {
            timeout(TIMEOUT, t.node(idle)?.lease()?.held()).await.context("the same life holds a lease again")?;
            assert_eq!(t.node(idle)?.handle()?.identity(), Some(who));
        }
        drop(guard);
    }
    Ok(())
}

/// A spared node that was started anew: its former life is not spared, for the next one waits for its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_life_is_not_spared_and_neither_is_one_whose_end_was_asked_for() -> Result<()> {
    let config = Config { spares_idle: true, ..fast() };
    let mut t = TestCluster::start_protected_with(3, config, BOUND).await?;
    all_hold(&mut t, 3).await?;
    t.fencer.always(DeviceBehaviour::Fail);
    let leader = t.leader().await?.get();
    let idle = leader % 3 + 1;
    t.node(idle)?.stop().await;
    let back = t.node(idle)?.start().await?;
    t.until_active(&back.to_string()).await?;
    // Time proved the end of the former life, and nobody asked a device for it.
    assert!(t.fencer.asked().is_empty(), "{:?}", t.fencer.asked());
    t.node(idle)?.stop().await;
    let cause =
        quorate_membership::Cause::Requested { reason: quorate_membership::Reason::clipped("a test"), by: None };
    let order = Command::OrderFence { target: back, cause, under: None };
    t.node(leader)?.handle()?.propose(order).await?;
    t.until("time proves its end", |state| state.has_ended(back)).await
}
