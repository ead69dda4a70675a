//! A change of voters that its leader left in the middle: only the engine's own door can make one, so the test is here.

use std::collections::{BTreeMap, BTreeSet};

use openraft::Membership;
use openraft::entry::EntryPayload;
use quorate_membership::{Event, NodeId, Revision, Role};

use crate::feed::FeedItem;
use crate::testing::TestCluster;

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
        let raft = t.node(leader)?.handle()?.inner.raft.clone();
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
