//! A cluster over mutual TLS: three nodes in one process, gRPC on loopback, certificates of an authority of its own.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use quorate::builder::Ready;
use quorate::tls::{Authority, CallerRole, Credentials, CredentialsError};
use quorate::{Cluster, Evidence, FenceRequest, NodeId, Profile, Role, StartError};
use tokio::sync::watch;
use tokio::time::Instant;

/// A liveness limit for what must come; a busy machine does not reach it.
const LIMIT: Duration = Duration::from_secs(60);

/// How long what must not happen is waited for.
const BRIEFLY: Duration = Duration::from_secs(3);

const DAY: Duration = Duration::from_secs(24 * 3600);

fn credentials(of: &Authority, node: u64, trust: &str) -> Result<Credentials> {
    Ok(of.issue(CallerRole::Node(NodeId::new(node)), &[], DAY)?.credentials(trust)?)
}

fn describe(node: u64, folder: &Path, shown: Credentials) -> Result<Ready> {
    let node = Cluster::builder(NodeId::new(node)).data(folder.join(format!("n{node}")));
    let node = node.listen_tls("127.0.0.1:0".parse()?, shown);
    let fencer = |request: FenceRequest| async move { Ok(Evidence::new(format!("{} is off", request.target))?) };
    Ok(node.fencing(fencer).timeout(LIMIT))
}

fn address(cluster: &Cluster) -> Result<String> {
    Ok(cluster.local_addr().context("it listens")?.to_string())
}

async fn three(authority: &Authority, folder: &Path) -> Result<Vec<Cluster>> {
    three_with(authority, folder, Profile::Standard).await
}

async fn three_with(authority: &Authority, folder: &Path, profile: Profile) -> Result<Vec<Cluster>> {
    let shown = |node| credentials(authority, node, authority.certificate());
    let describe = |node, shown| anyhow::Ok(describe(node, folder, shown)?.timing(profile));
    let mut nodes = vec![describe(1, shown(1)?)?.bootstrap().await?];
    for node in 2..=3 {
        let seed = address(&nodes[0])?;
        nodes.push(describe(node, shown(node)?)?.join([seed]).await?);
    }
    for cluster in &nodes {
        tokio::time::timeout(LIMIT, cluster.active()).await??;
    }
    Ok(nodes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_goes_on_while_its_certificates_and_its_authority_are_replaced() -> Result<()> {
    let (folder, old, new) = (tempfile::tempdir()?, Authority::new("blue")?, Authority::new("blue")?);
    let nodes = three(&old, folder.path()).await?;
    let both = format!("{}{}", old.certificate(), new.certificate());
    for (of, trust) in [(&old, both.as_str()), (&new, &both), (&new, new.certificate())] {
        for (number, cluster) in (1..).zip(&nodes) {
            cluster.replace_credentials(credentials(of, number, trust)?)?;
            cluster.records().put(format!("at/{number}"), "step").await?;
        }
    }
    // A node that joins now opens connections to everybody, and they to it.
    let fourth = describe(4, folder.path(), credentials(&new, 4, new.certificate())?)?.role(Role::Learner);
    let fourth = fourth.join([address(&nodes[1])?]).await?;
    tokio::time::timeout(LIMIT, fourth.active()).await??;
    assert!(fourth.records().get_latest("at/3", LIMIT).await?.value.is_some());
    let other = nodes[0].replace_credentials(credentials(&new, 2, new.certificate())?);
    assert!(matches!(other, Err(CredentialsError::OtherSubject { .. })), "{other:?}");
    Ok(())
}

/// Puts records at one node until it is told to stop; each has to succeed. Returns how many there were, and the longest.
fn writer(cluster: &Cluster, stop: &watch::Receiver<bool>) -> tokio::task::JoinHandle<Result<(usize, Duration)>> {
    let (records, node, stop) = (cluster.records(), cluster.identity().node, stop.clone());
    tokio::spawn(async move {
        let (mut count, mut longest) = (0, Duration::ZERO);
        while !*stop.borrow() {
            let began = Instant::now();
            records
                .put(format!("load/{node}"), count.to_string())
                .await
                .with_context(|| format!("put {count} at {node}"))?;
            (count, longest) = (count + 1, longest.max(began.elapsed()));
        }
        Ok((count, longest))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_rotations_under_load_cost_no_election_no_commit_and_no_lease() -> Result<()> {
    let (folder, mut now) = (tempfile::tempdir()?, Authority::new("blue")?);
    // So that a stall of a busy machine is no reason for an election.
    let nodes = three_with(&now, folder.path(), Profile::Patient).await?;
    let before = nodes[0].view();
    for cluster in &nodes {
        tokio::time::timeout(LIMIT, cluster.lease().held()).await?;
    }
    let leases: Vec<_> = nodes.iter().map(Cluster::lease).collect();
    let lost = futures_util::future::select_all(leases.iter().map(|lease| Box::pin(lease.lost())));
    let (stop, stopped) = watch::channel(false);
    let writers: Vec<_> = nodes.iter().map(|cluster| writer(cluster, &stopped)).collect();
    let rotated = async {
        for _ in 0..10 {
            let next = Authority::new("blue")?;
            let both = format!("{}{}", now.certificate(), next.certificate());
            for (of, trust) in [(&now, both.as_str()), (&next, &both), (&next, next.certificate())] {
                for (number, cluster) in (1..).zip(&nodes) {
                    cluster.replace_credentials(credentials(of, number, trust)?)?;
                }
                // So long that calls are made at each step, and now and then a look at what is connected.
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            now = next;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        rotated = rotated => rotated?,
        _ = lost => anyhow::bail!("a lease was lost"),
    }
    stop.send(true)?;
    let mut commits = 0;
    for writer in writers {
        let (count, longest) = tokio::time::timeout(LIMIT, writer).await???;
        println!("{count} commits, the longest after {longest:?}");
        commits += count;
    }
    let after = nodes[0].view();
    let elected = after.cluster.leadership().map(|leader| leader.activation);
    assert_eq!(elected, before.cluster.leadership().map(|leader| leader.activation), "no election");
    assert_eq!(after.local.term, before.local.term, "and none was tried");
    assert_eq!(after.cluster.epoch(), before.cluster.epoch(), "nobody left, and nobody was fenced");
    assert!(commits > 30, "{commits} commits");
    println!("10 rotations of certificates and authority: {commits} commits, 0 failed, 0 elections, 0 leases lost");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_certificate_of_the_cluster_does_not_get_in() -> Result<()> {
    let (folder, blue, other) = (tempfile::tempdir()?, Authority::new("blue")?, Authority::new("blue")?);
    let nodes = three(&blue, folder.path()).await?;
    let seed = address(&nodes[0])?;
    // The certificate of another node is noticed before anything is called.
    let mixed = describe(4, folder.path(), credentials(&blue, 5, blue.certificate())?)?;
    let error = mixed.join([seed.clone()]).await.err().context("n4 with the certificate of n5")?.to_string();
    assert!(error.contains("n4.blue.quorate.internal"), "{error}");
    let foreign =
        describe(4, folder.path(), credentials(&other, 4, &format!("{}{}", blue.certificate(), other.certificate()))?)?;
    let plain = Cluster::builder(NodeId::new(4)).data(folder.path().join("plain"));
    let plain = plain.listen_plaintext("127.0.0.1:0".parse()?).without_fencing();
    for (case, ready) in [("of another authority", foreign), ("none", plain)] {
        let error = ready.timeout(BRIEFLY).join([seed.clone()]).await.err().context(case)?;
        assert!(matches!(error, StartError::Join { .. }), "{case}: {error}");
    }
    assert_eq!(nodes[0].view().cluster.members().count(), 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_removed_does_not_come_back_with_a_certificate_that_is_still_valid() -> Result<()> {
    let (folder, blue) = (tempfile::tempdir()?, Authority::new("blue")?);
    let mut nodes = three(&blue, folder.path()).await?;
    let third = nodes.pop().context("three")?;
    third.leave().await?;
    tokio::time::timeout(LIMIT, nodes[0].remove(NodeId::new(3))).await??;
    let again = describe(3, folder.path(), credentials(&blue, 3, blue.certificate())?)?;
    let error = again.resume().await.err().context("n3 was removed")?.to_string();
    assert!(error.contains("n3 was removed from this cluster"), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_and_nodes_may_have_a_port_each() -> Result<()> {
    let (folder, blue) = (tempfile::tempdir()?, Authority::new("blue")?);
    let shown = |node| credentials(&blue, node, blue.certificate());
    let first = describe(1, folder.path(), shown(1)?)?.clients_at("127.0.0.1:0".parse()?).bootstrap().await?;
    let for_clients = first.client_addr().context("it has a port for clients")?;
    assert_ne!(first.local_addr(), Some(for_clients));
    let wrong = describe(2, folder.path(), shown(2)?)?.join([for_clients.to_string()]).await;
    let error = wrong.err().context("no node gets in at the port for clients")?.to_string();
    assert!(error.contains("this port is for clients; use the port for nodes"), "{error}");
    let second = describe(2, folder.path(), shown(2)?)?.without_clients().join([address(&first)?]).await?;
    tokio::time::timeout(LIMIT, second.active()).await??;
    assert_eq!(second.client_addr(), None);
    Ok(())
}
