//! Two networks between the nodes: either may be cut, and leases and leadership go on over the other one.
//!
//! ```text
//!   n1 ──▶ relay of n2 in network A ──▶ n2        a relay that is dark passes nothing on, and closes nothing
//!     └──▶ relay of n2 in network B ──▶ n2
//! ```

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use quorate::builder::Ready;
use quorate::tls::Invite;
use quorate::{Cluster, NodeId, Profile, Role};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

/// A liveness limit for what must come; a busy machine does not reach it.
const LIMIT: Duration = Duration::from_secs(60);

/// For how long a network is cut.
const CUT: Duration = Duration::from_secs(6);

/// One network: whether it is dark.
struct Network {
    dark: watch::Sender<bool>,
}

impl Network {
    fn new() -> Self {
        Self { dark: watch::Sender::new(false) }
    }

    /// The address in this network of the node that listens there.
    async fn relay(&self, to: SocketAddr) -> Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, dark) = (listener.local_addr()?, self.dark.subscribe());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(pass_on(stream, to, dark.clone()));
            }
        });
        Ok(address)
    }
}

async fn pass_on(from: TcpStream, to: SocketAddr, dark: watch::Receiver<bool>) -> Result<()> {
    lit(&dark).await?;
    let to = TcpStream::connect(to).await?;
    let ((from_read, from_write), (to_read, to_write)) = (from.into_split(), to.into_split());
    tokio::try_join!(copy(from_read, to_write, dark.clone()), copy(to_read, from_write, dark))?;
    Ok(())
}

/// Waits until the network is not dark.
async fn lit(dark: &watch::Receiver<bool>) -> Result<()> {
    dark.clone().wait_for(|dark| !dark).await?;
    Ok(())
}

async fn copy(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    dark: watch::Receiver<bool>,
) -> Result<()> {
    let mut bytes = vec![0; 16 << 10];
    loop {
        let count = from.read(&mut bytes).await?;
        lit(&dark).await?;
        if count == 0 {
            return Ok(to.shutdown().await?);
        }
        to.write_all(&bytes[..count]).await?;
    }
}

/// A node with an address in each network.
async fn described(node: u64, folder: &Path, networks: &[Network]) -> Result<Ready> {
    // Free a moment ago.
    let listen = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut addresses = vec![];
    for network in networks {
        addresses.push(network.relay(listen).await?.to_string());
    }
    let ready = Cluster::builder(NodeId::new(node)).data(folder.join(format!("n{node}")));
    let ready = ready.listen(listen).without_fencing().advertise(addresses);
    Ok(ready.timing(Profile::Standard).timeout(LIMIT))
}

async fn three(folder: &Path, networks: &[Network]) -> Result<Vec<Cluster>> {
    let mut nodes = vec![described(1, folder, networks).await?.bootstrap().await?];
    for number in 2..=3 {
        let whom = Invite { node: Some(NodeId::new(number)), role: Role::Voter, valid: LIMIT };
        let token = nodes[0].invite(whom).await?;
        nodes.push(described(number, folder, networks).await?.join_with(&token).await?);
    }
    for cluster in &nodes {
        tokio::time::timeout(LIMIT, cluster.active()).await??;
        tokio::time::timeout(LIMIT, cluster.lease().held()).await?;
    }
    Ok(nodes)
}

/// Writes at every node for so long. Returns the longest that a write took, and the least that a lease had left.
async fn work(nodes: &[Cluster], time: Duration) -> Result<(Duration, Duration)> {
    let until = Instant::now() + time;
    let writing = async {
        let mut longest = Duration::ZERO;
        while Instant::now() < until {
            for cluster in nodes {
                let began = Instant::now();
                cluster.records().put("load", "x").await.with_context(|| format!("at {}", cluster.identity()))?;
                longest = longest.max(began.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(longest)
    };
    let holding = async {
        let mut least = Duration::MAX;
        while Instant::now() < until {
            for cluster in nodes {
                let left = cluster.lease().check().with_context(|| format!("the lease of {}", cluster.identity()))?;
                least = least.min(left);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        anyhow::Ok(least)
    };
    tokio::try_join!(writing, holding)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_network_is_cut_and_leases_and_leadership_go_on_over_the_other() -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::new(std::env::var("RUST_LOG").unwrap_or_default());
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr).try_init();
    let (folder, networks) = (tempfile::tempdir()?, [Network::new(), Network::new()]);
    let nodes = three(folder.path(), &networks).await?;
    let activation = || nodes[0].view().cluster.leadership().map(|leader| leader.activation);
    let (before, epoch) = (activation(), nodes[0].view().cluster.epoch());
    let quiet = work(&nodes, CUT / 2).await?;
    println!("both networks: longest write {:?}, least left of a lease {:?}", quiet.0, quiet.1);
    for (name, network) in ["first", "second"].into_iter().zip(&networks) {
        network.dark.send_replace(true);
        let (write, left) = work(&nodes, CUT).await?;
        println!("{name} network cut: longest write {write:?}, least left of a lease {left:?}");
        network.dark.send_replace(false);
        let (write, left) = work(&nodes, CUT / 2).await?;
        println!("and healed: longest write {write:?}, least left of a lease {left:?}");
    }
    assert_eq!(activation(), before, "no election");
    assert_eq!(nodes[0].view().cluster.epoch(), epoch, "nobody was lost");
    Ok(())
}
