//! Locks, guards, queues and records on real nodes in one process.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use quorate_membership::{Check, Key, Name, Phase, Rejection, Stop, Timing};
use quorate_raft_core::testing::{DeviceBehaviour, TestCluster, fast};
use quorate_raft_core::{Config, LockError, LockGuard, LockWait, Node, NotPermitted, ProposeError};
use tokio::time::timeout;

const TIMEOUT: Duration = Duration::from_secs(60);
const OWN: Stop = Stop::Own { bound: Duration::from_millis(100) };

fn vm() -> Name {
    Name::new("vm/100").unwrap_or_else(|error| unreachable!("{error}"))
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap_or_else(|error| unreachable!("{error}"))
}

async fn lock(node: &Node) -> Result<LockGuard, LockError> {
    let who = node.identity().unwrap_or_else(|| unreachable!("it has joined"));
    node.lock_for(who, vm(), Some(TIMEOUT)).await
}

async fn three() -> Result<TestCluster> {
    let mut t = TestCluster::start_protected(3, OWN).await?;
    for number in 1..=3 {
        timeout(TIMEOUT, t.node(number)?.lease()?.held()).await.context("no lease")?;
    }
    Ok(t)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_passes_on_in_the_order_of_asking_with_growing_tokens() -> Result<()> {
    let mut t = three().await?;
    let first = lock(t.node(1)?.handle()?).await?;
    ensure!(first.check()?.token == first.token() && t.node(1)?.mechanism()?.seen().armed, "guarded, so armed");
    let who = t.node(2)?.handle()?.identity().context("it has joined")?;
    let held = t.node(2)?.handle()?.lock_for(who, vm(), None).await;
    ensure!(matches!(held, Err(LockError::Propose(ProposeError::Rejected(Rejection::LockHeld { .. })))), "{held:?}");
    let held = t.node(2)?.handle()?.lock_for(who, vm(), Some(Duration::from_millis(200))).await;
    ensure!(matches!(held, Err(LockError::TimedOut { why: LockWait::Holder { before: 0, .. }, .. })), "{held:?}");
    let token = first.token();
    let (second, ()) = tokio::join!(lock(t.node(2)?.handle()?), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(first);
    });
    let second = second?;
    ensure!(second.token() > token && second.check()?.token == second.token());
    second.release().await?;
    t.until("nobody holds it", |state| state.store().lock(&vm()).is_none()).await?;
    ensure!(!t.node(1)?.mechanism()?.seen().armed, "nothing is guarded any more");
    Ok(())
}

/// Cancel-safety: at whatever moment the future is dropped, the log has nothing of the request in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gives_up_waiting_leaves_nothing_behind() -> Result<()> {
    let mut t = three().await?;
    for held in [true, false] {
        let guard = if held { Some(lock(t.node(1)?.handle()?).await?) } else { None };
        for micros in [0, 50, 200, 1000, 3000, 10_000, 50_000] {
            let asked = lock(t.node(2)?.handle()?);
            let _given_up = timeout(Duration::from_micros(micros), asked).await.map(drop);
        }
        let waits =
            |state: &quorate_membership::ClusterState| state.store().lock(&vm()).map_or(0, |l| l.waiters().len());
        t.until("nobody waits", |state| waits(state) == 0).await?;
        drop(guard);
        t.until("nobody holds it", |state| state.store().lock(&vm()).is_none()).await?;
    }
    Ok(())
}

/// The heart of it: a holder that is cut off is told, its lock passes on only when its end is proved, and what it says
/// late changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_is_cut_off_loses_its_lock_with_a_proof_and_never_before() -> Result<()> {
    let mut t = three().await?;
    t.fencer.always(DeviceBehaviour::Fail);
    let leader = t.leader().await?.get();
    let (old, successor) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    let guard = lock(t.node(old)?.handle()?).await?;
    let (holder, token) = (guard.who(), guard.token());
    t.isolate(old);
    let next = lock(t.node(successor)?.handle()?).await?;
    let view = t.node(successor)?.handle()?.view();
    ensure!(next.token() > token && view.cluster.has_ended(holder), "passed on with the proof");
    ensure!(view.cluster.fences().ended(holder).is_some_and(|end| end.confirmed == next.token()), "in the same entry");
    timeout(TIMEOUT, guard.lost()).await.context("it is not told")?;
    ensure!(guard.check().is_err(), "cut off, it may begin nothing");
    let late = t.node(successor)?.handle()?.records().write().when(Check::Holds { lock: vm(), token });
    let late = late.put(key("disk"), "late").commit().await;
    ensure!(matches!(late, Err(ProposeError::Rejected(Rejection::NotHolder { .. }))), "{late:?}");
    t.heal();
    let gone = async {
        while guard.check() != Err(NotPermitted::PassedOn) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(TIMEOUT, gone).await.context("it does not learn that the lock has passed on")?;
    drop(guard);
    t.node(successor)?.handle()?.read_barrier(TIMEOUT).await?;
    ensure!(next.check()?.token == next.token(), "a late release is harmless");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_dies_loses_no_item_and_none_is_given_out_twice_under_one_token() -> Result<()> {
    let mut t = three().await?;
    let records = t.node(2)?.handle()?.records();
    for text in ["start", "resize", "stop"] {
        records.push(vm(), text).await?;
    }
    let guard = lock(t.node(3)?.handle()?).await?;
    let (first, second) = (guard.next().await?, guard.next().await?);
    ensure!(first.value.as_text() == Some("start") && !first.again && second.item > first.item);
    guard.done(first.item).await?;
    ensure!(guard.taken().iter().map(|one| one.item).eq([second.item]));
    drop(records);
    // Dies without a word, in the middle of the second.
    let token = guard.token();
    t.node(3)?.stop().await;
    let successor = lock(t.node(1)?.handle()?).await?;
    let again = successor.next().await?;
    ensure!(successor.token() > token && again.item == second.item && again.again, "{again:?}");
    let last = successor.next().await?;
    ensure!(last.value.as_text() == Some("stop") && !last.again, "{last:?}");
    let write = t.node(1)?.handle()?.records().write().under(&successor).put(key("vm/100"), "resized");
    write.acknowledge(&successor, again.item).acknowledge(&successor, last.item).commit().await?;
    t.until("the queue is empty", |state| state.store().queues().next().is_none()).await?;
    let late = guard.done(second.item).await;
    ensure!(late.is_err(), "{late:?}");
    Ok(())
}

/// P3: only where the former life had said that its work dies with its process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_life_takes_up_what_its_former_life_left_only_where_that_had_said_so() -> Result<()> {
    for (said, gone) in [(true, true), (true, false), (false, true)] {
        // And only if the process of that life is gone.
        let process_bound = said && gone;
        // Slow enough that neither silence nor time ends the former life before its successor is back.
        let timing = Timing::new(fast().timing.plan().scaled(if process_bound { 10 } else { 1 }, 1))?;
        let fence_after = timing.plan().lease * 2;
        let config = Config {
            work_dies_with_process: said,
            timing,
            suspect_after: Some(fence_after / 2),
            fence_after: Some(fence_after),
            ..fast()
        };
        let mut t = TestCluster::start_protected_with(3, config, OWN).await?;
        timeout(TIMEOUT, t.node(3)?.lease()?.held()).await?;
        let guard = lock(t.node(3)?.handle()?).await?;
        let (former, token) = (guard.who(), guard.token());
        if process_bound {
            t.until("it has said so", |state| state.life(former).is_some_and(|life| life.process_bound)).await?;
        }
        t.node(3)?.stop().await;
        // The test is one process, which is not gone: it says of another one that it had the folder.
        let opener = t.node(3)?.data().join("opener");
        if gone {
            let noted = std::fs::read_to_string(&opener)?;
            // Its number and its start; the boot and the namespaces stay.
            let rest = noted.splitn(3, ' ').last().context("a note")?;
            std::fs::write(&opener, format!("{} 1 {rest}", u32::MAX))?;
        }
        t.node(3)?.open_again().await?;
        let back = t.node(3)?.handle()?.resume(TIMEOUT).await?;
        t.until_active(&back.to_string()).await?;
        let end = t.node(1)?.handle()?.view().cluster.fences().ended(former).cloned().context("it has ended")?;
        ensure!((end.proof.kind() == "succeeded") == process_bound, "{:?}", end.proof);
        ensure!(
            !process_bound || t.fencer.asked().is_empty(),
            "nobody shoots a machine for a life that is succeeded on it: {end:?}"
        );
        let left = t.node(3)?.handle()?.inherited();
        if process_bound {
            ensure!(left.len() == 1 && left[0].0 == vm() && left[0].1 > token, "{left:?}");
            let again = lock(t.node(3)?.handle()?).await?;
            ensure!(again.token() == left[0].1 && again.who() == back && t.node(3)?.handle()?.inherited().is_empty());
        } else {
            ensure!(left.is_empty());
            t.until("nobody holds it", |state| state.store().lock(&vm()).is_none()).await?;
        }
        drop(guard);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_moves_once_and_only_when_it_is_over() -> Result<()> {
    let mut t = three().await?;
    let [n1, n2, n3] = [1, 2, 3].map(|n| format!("n{n}#1").parse().unwrap_or_else(|_| unreachable!("a life")));
    let records = [t.node(1)?.handle()?.records(), t.node(2)?.handle()?.records()];
    records[0].put(key("svc/100"), "n3#1").await?;
    records[0].write().put_bound(key("here/n3"), "up", n3).commit().await?;
    let early = records[0].move_owner(key("svc/100"), n3, n1).await;
    ensure!(matches!(early, Err(ProposeError::Rejected(Rejection::NotOver(who))) if who == n3), "{early:?}");
    t.node(3)?.stop().await;
    t.until_phase("n3#1", Phase::Fenced).await?;
    let (one, two) =
        tokio::join!(records[0].move_owner(key("svc/100"), n3, n1), records[1].move_owner(key("svc/100"), n3, n2));
    ensure!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
    let owner = records[0].get_latest(&key("svc/100"), TIMEOUT).await?;
    let wanted = if one.is_ok() { "n1#1" } else { "n2#1" };
    ensure!(owner.value.is_some_and(|record| record.value.as_text() == Some(wanted)));
    ensure!(records[0].get(key("here/n3")).value.is_none(), "it vanished with its life");
    let stale = records[0].put_if(key("svc/100"), None, "x").await;
    ensure!(matches!(stale, Err(ProposeError::Rejected(Rejection::Version { .. }))), "{stale:?}");
    Ok(())
}

/// A panic says nothing of the work: the lock stays, and so does what would end it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guard_that_a_panic_drops_is_not_said_to_have_stopped() -> Result<()> {
    let mut t = three().await?;
    let guard = lock(t.node(1)?.handle()?).await?;
    let token = guard.token();
    let task = tokio::spawn(async move {
        let _guarded = guard;
        unreachable!("the work has a defect");
    });
    ensure!(task.await.is_err());
    tokio::time::sleep(Duration::from_millis(500)).await;
    t.node(1)?.handle()?.read_barrier(TIMEOUT).await?;
    ensure!(t.node(1)?.handle()?.view().cluster.store().holds(&vm(), token), "it was given back");
    ensure!(t.node(1)?.mechanism()?.seen().armed, "it was disarmed");
    Ok(())
}
