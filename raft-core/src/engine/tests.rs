//! What only the inside can bring about: a change of voters left in the middle, a disk that fails under a node.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::Membership;
use openraft::entry::EntryPayload;
use quorate_membership::{Command, Event, Key, NodeId, Operator, ProvedEnd, Revision, Role};

use crate::engine::log_store::LogStore;
use crate::error::{Fatal, ProposeError};
use crate::feed::FeedItem;
use crate::folder::Folder;
use crate::lease::ledger::Ledger;
use crate::node::{Node, NodeSettings};
use crate::testing::disk::FaultyDisk;
use crate::testing::{MemoryNetwork, TestCluster, fast};

/// Point 9 of the engine's traps: a change is two entries, and the second is driven by whoever asked for the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joint_configuration_left_behind_is_finished_by_whoever_leads_next() -> anyhow::Result<()> {
    for leader_dies in [false, true] {
        let mut t = TestCluster::start(3).await?;
        t.add(4, Role::Learner).await?;
        t.until_active("n4#1").await?;
        let leader = t.leader().await?.get();
        let (old, new) = (BTreeSet::from([1, 2, 3]), BTreeSet::from([1, 2, 3, 4]));
        let nodes: BTreeMap<u64, ()> = new.iter().map(|id| (*id, ())).collect();
        let joint = Membership::new(vec![old, new], nodes)?;
        let raft = t.node(leader)?.handle()?.parts.engine.0.raft.clone();
        raft.append_membership(joint, EntryPayload::Blank, []).await?;
        if leader_dies {
            t.node(leader)?.stop().await;
        }
        // Finished, and then put right: n4 was never meant to vote.
        t.until("n4 learns again", |s| !s.configuration().is_joint() && s.configuration().is_learner(NodeId::new(4)))
            .await?;
        let witness = leader % 3 + 1;
        let mut feed = t.node(witness)?.handle()?.events_since(Revision::default());
        let mut was_joint = false;
        while let Some(item) = futures_util::StreamExt::next(&mut feed).await {
            let FeedItem::Event { event: Event::Configured { configuration }, .. } = item else { continue };
            was_joint |= configuration.is_joint();
            if was_joint && !configuration.is_joint() && configuration.is_learner(NodeId::new(4)) {
                break;
            }
        }
        assert!(was_joint);
    }
    Ok(())
}

/// A failed fsync is never retried: the node says why and stops, and acknowledges nothing from then on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_fsync_stops_the_node_with_its_reason() -> anyhow::Result<()> {
    let (folder, board, disk) = (tempfile::tempdir()?, MemoryNetwork::new(), FaultyDisk::new());
    let node = NodeId::new(1);
    let settings = NodeSettings {
        node,
        data: folder.path().into(),
        addresses: vec![MemoryNetwork::address(node)?],
        config: fast(),
        transport: board.transport(node),
        fencer: None,
        stop: None,
        trust_vm_clock: false,
    };
    let (store, ledger) = (LogStore::open_on(&disk)?, Ledger::open(folder.path(), node)?);
    let running = Node::run(settings, Folder::open(folder.path(), node)?, store, ledger).await?;
    running.bootstrap(Role::Voter, Duration::from_secs(60)).await?;
    disk.fail_sync(1);
    let refused = loop {
        let addresses =
            vec![quorate_membership::Address::new("memory:n1")?, quorate_membership::Address::new("other")?];
        match running.propose(Command::SetAddresses { node, addresses, by: None }).await {
            Err(ProposeError::Stopped(why)) => break why,
            Err(ProposeError::OutcomeUnknown { .. } | ProposeError::NoLeader { .. }) => {}
            other => anyhow::bail!("acknowledged although the disk had failed: {other:?}"),
        }
    };
    assert!(matches!(&refused, Fatal::Storage(_)), "{refused}");
    let mut view = running.watch();
    let stopped = view.wait_for(|view| matches!(view.local.stopped, Some(Fatal::Storage(_))));
    tokio::time::timeout(Duration::from_secs(60), stopped).await??;
    let join = crate::transport::JoinRequest { cluster: None, command: crate::rpc::Payload::new(vec![]), timing: 0 };
    assert!(running.service().join(join).await.is_err());
    let state = running.view().cluster.clone();
    assert_eq!(state.member(node).map(|m| m.addresses.len()), Some(1), "what was not durable was not applied");
    Ok(())
}

/// While nobody reads the views, the picture in them may be old. Who begins to read them gets the newest, and then each change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_begins_to_read_the_views_sees_every_record_that_was_written_before() -> anyhow::Result<()> {
    let mut t = TestCluster::start(1).await?;
    let node = t.node(1)?.handle()?;
    for round in ["first", "second", "third"] {
        let key = Key::new(round)?;
        node.records().put(key.clone(), "written").await?;
        let mut views = node.watch();
        assert!(views.borrow().cluster.store().record(&key).is_some(), "{round}");
        node.records().delete(key.clone()).await?;
        let gone = views.wait_for(|view| view.cluster.store().record(&key).is_none());
        tokio::time::timeout(Duration::from_secs(60), gone).await??;
    }
    Ok(())
}

/// Whoever lets go of a node without a word must not leave heartbeats behind that keep its life looking well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_dropped_falls_silent_and_is_fenced() -> anyhow::Result<()> {
    let mut t = TestCluster::start(3).await?;
    let leader = t.leader().await?.get();
    t.node(leader)?.forget();
    t.until_phase(&format!("n{leader}#1"), quorate_membership::Phase::Fenced).await
}

/// After a proved end nobody waits for the silence of the one who led: with elections that come after twenty seconds at
/// the soonest, somebody else leads long before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_proved_to_have_ended_is_succeeded_at_once() -> anyhow::Result<()> {
    let timing = quorate_membership::Timing::new(fast().timing.plan().scaled(70, 1))?;
    let soonest = timing.plan().election_min;
    let slow = crate::Config { timing, suspect_after: Some(soonest), fence_after: Some(soonest * 20), ..fast() };
    for vouched in [false, true] {
        let mut t = TestCluster::start_with(3, slow.clone()).await?;
        let leader = t.leader().await?;
        let dead = t.node(leader.get())?.handle()?.identity().unwrap();
        if !vouched {
            t.node(leader.get())?.handle()?.propose(Command::Leave { who: dead }).await?;
            // The successor has to know: one that has not heard of the end waits for an ordinary election.
            t.until_phase(&dead.to_string(), quorate_membership::Phase::Left).await?;
        }
        let begun = tokio::time::Instant::now();
        // Nobody sees its machine refuse connections: only the proof tells of its end.
        t.isolate(leader.get());
        t.node(leader.get())?.stop().await;
        let successor = leader.get() % 3 + 1;
        if vouched {
            let end = ProvedEnd::vouched(dead, Operator::new("alice", "she pulled the plug")?);
            let node = t.node(successor)?.handle()?;
            node.succeed(&end).await?;
            let later = ProvedEnd::vouched(dead, Operator::new("alice", "said twice")?);
            let leads = async {
                while node.parts.engine.leader() != Some(NodeId::new(successor)) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(soonest, leads).await?;
            assert!(matches!(node.succeed(&later).await, Err(crate::SucceedError::NotTheLeader { .. })));
        }
        t.until("somebody else leads", |state| state.leadership().is_some_and(|l| l.leader != leader)).await?;
        assert!(begun.elapsed() < soonest, "{:?}, and an election comes after {soonest:?} anyway", begun.elapsed());
    }
    Ok(())
}

/// Heartbeats confirm a read only if they were sent after it began.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_just_cut_off_confirms_no_read_by_its_heartbeats() -> anyhow::Result<()> {
    let plan = fast().timing.plan().scaled(10, 1);
    let config = crate::Config { timing: quorate_membership::Timing::new(plan)?, ..fast() };
    let config = crate::Config { suspect_after: None, fence_after: None, ..config };
    let mut t = TestCluster::start_with(3, config).await?;
    let leader = t.leader().await?.get();
    let engine = t.node(leader)?.handle()?.parts.engine.clone();
    assert!(engine.read_index_by_heartbeats(plan.lease).await.is_some(), "a quorum answers it");
    t.isolate(leader);
    let read = engine.read_index_by_heartbeats(plan.election_min).await;
    assert_eq!(read, None, "a leader that was just cut off confirmed a read");
    Ok(())
}

/// Why a grant is a read that a quorum confirms. A voter that restarts has forgotten its promise to the old leader; with
/// a partition at the same time another leader is elected while the old one still believes in its lease. With the
/// engine's lease reads (and without the embargo of a restarted voter) the old one grants all the same: that is what the
/// mistake `lease_reads_without_embargo` shows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_follower_and_a_partition_make_no_stale_grant_valid() -> anyhow::Result<()> {
    let plan = fast().timing.plan().scaled(10, 1);
    let (timing, fence_after) = (quorate_membership::Timing::new(plan)?, Some(plan.election_max * 20));
    let suspect_after = Some(plan.election_max * 10);
    let config = crate::Config { timing, suspect_after, fence_after, ..fast() };
    let mut t = TestCluster::start_with(3, config).await?;
    let old = t.leader().await?;
    let (restarted, successor) = (old.get() % 3 + 1, (old.get() + 1) % 3 + 1);
    let lease = t.node(old.get())?.lease()?;
    tokio::time::timeout(Duration::from_secs(60), lease.held()).await?;
    let before = t.node(old.get())?.handle()?.view().cluster.leadership().unwrap();
    // The successor hears nothing of the old leader for long; the old one goes on with the third.
    t.cut(old.get(), successor);
    tokio::time::sleep(plan.election_max * 2).await;
    t.cut(old.get(), restarted);
    t.node(restarted)?.stop().await;
    t.node(restarted)?.open_again().await?;
    t.cut(old.get(), restarted);
    let node = t.node(successor)?.handle()?;
    let activated = async {
        loop {
            let current = node.parts.engine.state().leadership();
            if current.is_some_and(|now| now.activation > before.activation) {
                return;
            }
            let _asked = node.parts.engine.0.raft.trigger().elect(true).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), activated).await?;
    // From here on nothing that the old leader grants may count: its successor's wait began before it was asked.
    let renewal = crate::rpc::Renewal { who: lease.who(), seq: 1 << 40 };
    let here = t.node(old.get())?.handle()?;
    let asked = tokio::time::timeout(plan.election_max, here.parts.grantor.renew(renewal)).await;
    let granted = matches!(asked, Ok(crate::rpc::Renewed::Granted(_)));
    assert!(!granted, "a leader that another has followed granted a lease");
    Ok(())
}

/// A renewal that comes by two networks is granted to both callers. The first answer counts there, so a copy that was refused would
/// cost the lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_renewal_is_granted_with_the_first() -> anyhow::Result<()> {
    let mut t = TestCluster::start(3).await?;
    let leader = t.leader().await?;
    let who = t.node(leader.get() % 3 + 1)?.lease()?.who();
    t.until_active(&who.to_string()).await?;
    let here = t.node(leader.get())?.handle()?;
    for seq in 0..20 {
        let renewal = crate::rpc::Renewal { who, seq: (1 << 40) + seq };
        let grantor = &here.parts.grantor;
        let both = futures_util::future::join(grantor.renew(renewal), grantor.renew(renewal));
        let (first, copy) = tokio::time::timeout(Duration::from_secs(60), both).await?;
        for answer in [first, copy] {
            assert_eq!(answer, crate::rpc::Renewed::Granted(renewal), "one of two copies was refused");
        }
    }
    Ok(())
}

/// The connection to a follower is dead, and keeps what it was given to send. Once another one works, the follower gets entries.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_connection_keeps_no_follower_from_its_entries() -> anyhow::Result<()> {
    let mut t = TestCluster::start(3).await?;
    t.until_active("n3#1").await?;
    let leader = t.leader().await?;
    let away = NodeId::new(leader.get() % 3 + 1);
    // What the mistake needs, an append under way in the moment of the cut, is there in one turn of three.
    for turn in 0..20 {
        t.network.cut(leader, away);
        // Entries for it, and a quorum without it.
        let addresses =
            vec![MemoryNetwork::address(leader)?, quorate_membership::Address::new(format!("turn:{turn}"))?];
        let moved = Command::SetAddresses { node: leader, addresses, by: None };
        let committed = t.node(leader.get())?.handle()?.propose(moved).await?.revision;
        tokio::time::sleep(Duration::from_millis(100)).await;
        t.heal();
        let mut applied = t.node(away.get())?.handle()?.parts.engine.progress();
        let reached = tokio::time::timeout(Duration::from_secs(20), applied.wait_for(|at| *at >= committed)).await;
        anyhow::ensure!(matches!(reached, Ok(Ok(_))), "{away} got no entries after the connection to it was dead");
    }
    Ok(())
}
