//! A cluster over mutual TLS: three nodes in one process, gRPC on loopback, certificates of an authority of its own.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use quorate::builder::Ready;
use quorate::tls::{Authority, CallerRole, Credentials, CredentialsError};
use quorate::{Cluster, Evidence, FenceRequest, NodeId, Role, StartError};

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
    let shown = |node| credentials(authority, node, authority.certificate());
    let mut nodes = vec![describe(1, folder, shown(1)?)?.bootstrap().await?];
    for node in 2..=3 {
        let seed = address(&nodes[0])?;
        nodes.push(describe(node, folder, shown(node)?)?.join([seed]).await?);
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
