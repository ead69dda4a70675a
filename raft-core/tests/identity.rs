//! Who a node is: wiped, cloned, foreign and reused disks are each refused, with the reason and the remedy.

use anyhow::Result;
use quorate_membership::{Command, NodeId, Role};
use quorate_raft_core::StartError;
use quorate_raft_core::testing::TestCluster;

fn copy(from: &std::path::Path, to: &std::path::Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_disk_is_not_let_in_under_its_old_number() -> Result<()> {
    let mut t = TestCluster::start(3).await?;
    t.node(3)?.leave().await?;
    std::fs::remove_dir_all(t.node(3)?.data())?;
    let error = t.add(3, Role::Voter).await.unwrap_err().to_string();
    assert!(error.contains("a wiped disk is a new node; remove n3"), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_disk_is_refused_once_the_original_was_opened_again() -> Result<()> {
    let mut t = TestCluster::start(3).await?;
    t.node(3)?.leave().await?;
    let (data, aside) = (t.node(3)?.data().to_path_buf(), tempfile::tempdir()?);
    copy(&data, aside.path())?;
    for expected in ["n3#2", "n3#3"] {
        assert_eq!(t.node(3)?.start().await?.to_string(), expected);
        t.until_active(expected).await?;
        t.node(3)?.leave().await?;
    }
    // The copy was taken before the original was opened twice more.
    std::fs::remove_dir_all(&data)?;
    copy(aside.path(), &data)?;
    let error = t.node(3)?.start().await.unwrap_err().to_string();
    assert!(error.contains("a copy or an old state of it"), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_cluster_is_refused() -> Result<()> {
    let mut ours = TestCluster::start(1).await?;
    let mut theirs = TestCluster::start(2).await?;
    theirs.node(2)?.leave().await?;
    let data = theirs.node(2)?.data().to_path_buf();
    ours.add(2, Role::Voter).await?;
    ours.until_active("n2#1").await?;
    ours.node(2)?.leave().await?;
    let place = ours.node(2)?.data().to_path_buf();
    std::fs::remove_dir_all(&place)?;
    copy(&data, &place)?;
    ours.node(2)?.open_again().await?;
    let resumed = ours.node(2)?.handle()?.resume(std::time::Duration::from_secs(5)).await;
    let error = resumed.unwrap_err().to_string();
    assert!(error.contains("no leader confirmed the new life") || error.contains("belongs to cluster"), "{error}");
    // And it cannot found or join anew with that folder.
    let joined = ours.node(2)?.handle()?.join(&[], Role::Voter, std::time::Duration::from_secs(1)).await;
    assert!(matches!(joined, Err(StartError::Occupied { .. })), "{joined:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_number_of_a_removed_node_is_not_given_again() -> Result<()> {
    let mut t = TestCluster::start(3).await?;
    t.node(3)?.leave().await?;
    t.node(1)?.handle()?.propose(Command::Remove { node: NodeId::new(3), by: None }).await?;
    let refused = t.node(3)?.start().await.unwrap_err().to_string();
    assert!(refused.contains("n3 was removed from this cluster"), "{refused}");
    t.node(3)?.stop().await;
    std::fs::remove_dir_all(t.node(3)?.data())?;
    let refused = t.add(3, Role::Voter).await.unwrap_err().to_string();
    assert!(refused.contains("its number is never reused"), "{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_without_a_cluster_cannot_resume_and_one_with_a_cluster_cannot_found() -> Result<()> {
    let mut t = TestCluster::start(1).await?;
    let node = t.node(1)?;
    node.stop().await;
    node.open_again().await?;
    let founded = node.handle()?.bootstrap(Role::Voter, std::time::Duration::from_secs(1)).await;
    assert!(matches!(founded, Err(StartError::Occupied { .. })), "{founded:?}");
    node.stop().await;
    std::fs::remove_dir_all(node.data())?;
    node.open_again().await?;
    let resumed = node.handle()?.resume(std::time::Duration::from_secs(1)).await;
    assert!(matches!(resumed, Err(StartError::Vacant(_))), "{resumed:?}");
    Ok(())
}
