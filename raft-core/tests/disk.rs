//! Disks that are full or stand still, under one node of three: the others go on, nobody is fenced for it, and the node is
//! back by itself when its disk is.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use quorate_membership::{Key, Name, NodeId, Phase, Stop};
use quorate_raft_core::testing::{TestCluster, fast};
use quorate_raft_core::{LeaseStage, Local, View};
use tokio::time::{sleep, timeout};

const TIMEOUT: Duration = Duration::from_secs(60);
const BOUND: Stop = Stop::Own { bound: Duration::from_millis(100) };

fn key(text: &str) -> Result<Key> {
    Ok(Key::new(text)?)
}

async fn all_hold(t: &mut TestCluster) -> Result<()> {
    for number in 1..=3 {
        let lease = t.node(number)?.lease()?;
        timeout(TIMEOUT, lease.held()).await.with_context(|| format!("n{number} never got its lease"))?;
    }
    Ok(())
}

fn local(t: &mut TestCluster, number: u64) -> Result<Local> {
    Ok(t.node(number)?.handle()?.view().local)
}

/// Waits until what `number` sees satisfies `what`.
async fn until_sees(t: &mut TestCluster, number: u64, claim: &str, what: impl Fn(&Local) -> bool) -> Result<()> {
    let give_up = Instant::now() + TIMEOUT;
    loop {
        let seen = local(t, number)?;
        if what(&seen) {
            return Ok(());
        }
        ensure!(Instant::now() < give_up, "not within {TIMEOUT:?}: n{number} sees that {claim}\n{seen:#?}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until another node than `than` leads, and is the one that the third follows.
async fn another_leader(t: &mut TestCluster, than: u64) -> Result<u64> {
    let give_up = Instant::now() + TIMEOUT;
    while Instant::now() < give_up {
        for number in (1..=3).filter(|number| *number != than) {
            let seen = local(t, number)?;
            if seen.quorate && seen.leader == Some(NodeId::new(number)) {
                return Ok(number);
            }
        }
        sleep(Duration::from_millis(5)).await;
    }
    bail!("nobody but n{than} leads after {TIMEOUT:?}: {:#?}", local(t, than)?)
}

/// Writes until it is known that something is committed: what is under way while leaders change may end unknown.
async fn commit(t: &mut TestCluster, through: u64, what: &str) -> Result<()> {
    let give_up = Instant::now() + TIMEOUT;
    loop {
        let put = t.node(through)?.handle()?.records().put(key(what)?, "written").await;
        match put {
            Ok(_) => return Ok(()),
            Err(error) => ensure!(Instant::now() < give_up, "{what} is not committed: {error}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Something for the disks to do, whether or not it is committed.
fn ask_to_write(t: &mut TestCluster, through: u64) -> Result<()> {
    let records = t.node(through)?.handle()?.records();
    let key = key("something")?;
    tokio::spawn(async move { records.put(key, "to write").await });
    Ok(())
}

/// Nobody was fenced, and every node may act, for as long as a lease would have lasted without being renewed.
async fn nobody_is_blamed(t: &mut TestCluster) -> Result<()> {
    let until = Instant::now() + fast().timing.plan().lease * 2;
    while Instant::now() < until {
        for number in 1..=3 {
            let (lease, view) = (t.node(number)?.lease()?, t.node(number)?.handle()?.view());
            ensure!(lease.view().stage == LeaseStage::Held, "n{number} lost its lease: {:#?}", view.local);
        }
        sleep(Duration::from_millis(20)).await;
    }
    ensure!(t.fencer.asked().is_empty(), "somebody is being fenced: {:?}", t.fencer.asked());
    Ok(())
}

/// The node has everything that the others have, and may lead again.
async fn is_back(t: &mut TestCluster, number: u64) -> Result<()> {
    until_sees(t, number, "its disk works", |seen| seen.disk.is_none()).await?;
    commit(t, number, "back").await?;
    t.until("it is written everywhere", |state| key("back").is_ok_and(|key| state.store().record(&key).is_some()))
        .await?;
    let give_up = Instant::now() + TIMEOUT;
    while t.leader().await?.get() != number {
        let leader = t.leader().await?.get();
        let asked = t.node(leader)?.handle()?.hand_over(Some(NodeId::new(number))).await;
        ensure!(Instant::now() < give_up, "n{number} does not take leadership: {asked:?}");
    }
    commit(t, number, "under it").await
}

/// The disk of the leader is full: another leads, commits go on, the full node says why, keeps its lease, does not stand,
/// and is back by itself when there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_is_full_makes_way_and_is_back_when_there_is_room() -> Result<()> {
    let mut t = TestCluster::start_on_disks(3, BOUND).await?;
    all_hold(&mut t).await?;
    let full = t.leader().await?.get();
    let disk = t.node(full)?.disk()?.clone();
    disk.fill_up_at(1);
    ask_to_write(&mut t, full)?;
    until_sees(&mut t, full, "its disk is full", |seen| seen.disk.is_some()).await?;
    let since = Instant::now();
    let leader = another_leader(&mut t, full).await?;
    println!(
        "n{leader} leads in place of n{full} after {:?}; election_max is {:?}",
        since.elapsed(),
        fast().election_max()
    );
    for what in ["one", "two", "three"] {
        commit(&mut t, leader, what).await?;
    }
    let said = local(&mut t, full)?;
    let why = said.disk.context("it does not say why")?;
    ensure!(why.contains("is full") && why.contains("there is room") && said.stopped.is_none(), "{why}");
    let stood = t.network.candidacies(NodeId::new(full));
    nobody_is_blamed(&mut t).await?;
    assert_eq!(t.network.candidacies(NodeId::new(full)), stood, "it stands for election on a full disk");
    disk.make_room();
    is_back(&mut t, full).await
}

/// The disk of the leader stands still: it says so after an election time-out and makes way at once. Commits never stop,
/// for the others are a majority.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_fsync_hangs_makes_way() -> Result<()> {
    let mut t = TestCluster::start_on_disks(3, BOUND).await?;
    all_hold(&mut t).await?;
    let hung = t.leader().await?.get();
    let held = t.node(hung)?.disk()?.hold_syncs();
    let since = Instant::now();
    ask_to_write(&mut t, hung)?;
    let leader = another_leader(&mut t, hung).await?;
    println!(
        "n{leader} leads in place of n{hung} after {:?}; election_max is {:?}",
        since.elapsed(),
        fast().election_max()
    );
    commit(&mut t, leader, "without its disk").await?;
    until_sees(&mut t, hung, "its disk stands still", |seen| seen.disk.is_some()).await?;
    let why = local(&mut t, hung)?.disk.context("it does not say why")?;
    ensure!(why.contains("has not finished a write for 600ms"), "{why}");
    nobody_is_blamed(&mut t).await?;
    drop(held);
    is_back(&mut t, hung).await
}

/// The disk of a follower is full: it keeps its lease, which is renewed without its disk, and nobody is fenced. When the
/// leader dies as well it does not stand for election, nor is anybody elected by a vote that it could not keep; with room
/// on its disk the two go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_whose_disk_is_full_keeps_its_lease_and_does_not_stand() -> Result<()> {
    let mut t = TestCluster::start_on_disks(3, BOUND).await?;
    all_hold(&mut t).await?;
    let leader = t.leader().await?.get();
    let [full, other] = match leader {
        1 => [2, 3],
        2 => [3, 1],
        _ => [1, 2],
    };
    let disk = t.node(full)?.disk()?.clone();
    disk.fill_up_at(1);
    commit(&mut t, leader, "without the follower").await?;
    until_sees(&mut t, full, "its disk is full", |seen| seen.disk.is_some()).await?;
    nobody_is_blamed(&mut t).await?;
    assert_eq!(t.leader().await?.get(), leader, "a follower's disk is no reason for another leader");
    let (stood, ended) = (t.network.candidacies(NodeId::new(full)), t.node(leader)?.lease()?.who());
    t.node(leader)?.stop().await;
    sleep(fast().election_max() * 5).await;
    ensure!(t.network.candidacies(NodeId::new(other)) > 0, "the other one would have been the next");
    assert_eq!(t.network.candidacies(NodeId::new(full)), stood, "it stands for election on a full disk");
    disk.make_room();
    t.until("the dead leader is fenced", |state| state.life(ended).is_some_and(|life| life.phase == Phase::Fenced))
        .await?;
    until_sees(&mut t, full, "its disk works", |seen| seen.disk.is_none()).await?;
    commit(&mut t, full, "together").await
}

/// A leader whose disk is full does not make way where nobody could be elected without it: it goes on confirming that it
/// leads, so that the work of the nodes that are there goes on, and commits when there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_which_there_is_none_stays() -> Result<()> {
    let mut t = TestCluster::start_on_disks(3, BOUND).await?;
    all_hold(&mut t).await?;
    let leader = t.leader().await?.get();
    let (away, other) = if leader == 1 { (2, 3) } else { (1, 6 - leader - 1) };
    let (gone, term) = (t.node(away)?.lease()?.who(), local(&mut t, leader)?.term);
    t.node(away)?.stop().await;
    t.until("the one that is gone is fenced", |state| state.life(gone).is_some_and(|life| life.phase == Phase::Fenced))
        .await?;
    let disk = t.node(leader)?.disk()?.clone();
    disk.fill_up_at(1);
    ask_to_write(&mut t, leader)?;
    until_sees(&mut t, leader, "its disk is full", |seen| seen.disk.is_some()).await?;
    let until = Instant::now() + fast().timing.plan().lease * 2;
    while Instant::now() < until {
        for number in [leader, other] {
            ensure!(t.node(number)?.lease()?.view().stage == LeaseStage::Held, "{:#?}", local(&mut t, number)?);
        }
        sleep(Duration::from_millis(20)).await;
    }
    let seen = local(&mut t, leader)?;
    assert_eq!((seen.leader, seen.term, seen.quorate), (Some(NodeId::new(leader)), term, true));
    disk.make_room();
    commit(&mut t, other, "with room").await
}

/// Shutting down does not wait for room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_a_full_disk_can_be_stopped_and_started_again_with_room() -> Result<()> {
    let mut t = TestCluster::start_on_disks(3, BOUND).await?;
    all_hold(&mut t).await?;
    let full = t.leader().await?.get();
    let disk = t.node(full)?.disk()?.clone();
    disk.fill_up_at(1);
    ask_to_write(&mut t, full)?;
    let leader = another_leader(&mut t, full).await?;
    commit(&mut t, leader, "while it is full").await?;
    timeout(TIMEOUT, t.node(full)?.stop()).await.context("it does not stop")?;
    disk.make_room();
    let again = t.node(full)?.start().await?;
    t.until_active(&again.to_string()).await
}

/// A leader that has nothing to write does not know that its disk is full. Deposed while it was cut off, it cannot even note
/// down who was elected: it knows all the same, keeps its lease, and nobody is fenced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_deposed_while_its_disk_is_full_keeps_its_lease() -> Result<()> {
    let mut t = TestCluster::start_on_disks(3, BOUND).await?;
    all_hold(&mut t).await?;
    let full = t.leader().await?.get();
    let disk = t.node(full)?.disk()?.clone();
    disk.fill_up_at(1);
    t.isolate(full);
    let leader = another_leader(&mut t, full).await?;
    t.heal();
    until_sees(&mut t, full, "another leads", |seen| seen.leader == Some(NodeId::new(leader))).await?;
    // On a busy machine the election takes so long that the lease is almost over, which is no fault: it is renewed now.
    all_hold(&mut t).await?;
    nobody_is_blamed(&mut t).await?;
    disk.make_room();
    is_back(&mut t, full).await
}

/// What a node with a full disk says reaches who leads, also when it led itself and cannot note down who does now: a lock
/// that it gives back is free.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_leader_whose_disk_is_full_gives_its_locks_back() -> Result<()> {
    let mut t = TestCluster::start_on_disks(3, BOUND).await?;
    all_hold(&mut t).await?;
    let full = t.leader().await?.get();
    let (who, name) = (t.node(full)?.lease()?.who(), Name::new("vm/1")?);
    let guard = t.node(full)?.handle()?.lock_for(who, name.clone(), Some(TIMEOUT)).await?;
    let disk = t.node(full)?.disk()?.clone();
    disk.fill_up_at(1);
    ask_to_write(&mut t, full)?;
    let leader = another_leader(&mut t, full).await?;
    commit(&mut t, leader, "one").await?;
    drop(guard);
    let give_up = Instant::now() + TIMEOUT;
    let held = |view: View| view.cluster.store().lock(&name).is_some_and(|lock| lock.grant.is_some());
    while held(t.node(leader)?.handle()?.view()) {
        ensure!(Instant::now() < give_up, "the lock that n{full} gave back is held after {TIMEOUT:?}");
        sleep(Duration::from_millis(20)).await;
    }
    disk.make_room();
    is_back(&mut t, full).await
}

/// Two disks are full, that of the leader as well: nobody else could be elected, so it stays, and confirms what all leases
/// rest on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_is_full_stays_when_the_others_could_elect_nobody() -> Result<()> {
    let mut t = TestCluster::start_on_disks(3, BOUND).await?;
    all_hold(&mut t).await?;
    let leader = t.leader().await?.get();
    let follower = leader % 3 + 1;
    let disks = [t.node(leader)?.disk()?.clone(), t.node(follower)?.disk()?.clone()];
    disks[1].fill_up_at(1);
    commit(&mut t, leader, "without the follower").await?;
    until_sees(&mut t, follower, "its disk is full", |seen| seen.disk.is_some()).await?;
    // Until it has not answered for as long as an election takes.
    nobody_is_blamed(&mut t).await?;
    disks[0].fill_up_at(1);
    ask_to_write(&mut t, leader)?;
    until_sees(&mut t, leader, "its disk is full", |seen| seen.disk.is_some()).await?;
    nobody_is_blamed(&mut t).await?;
    disks.iter().for_each(|disk| disk.make_room());
    is_back(&mut t, leader).await
}
