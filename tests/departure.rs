//! How lives end and are followed: a cluster that stops as a whole without an error and comes back without a fence, and the
//! next life in the same process.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use quorate::fencing::FenceProof;
use quorate::{Cluster, Departure, Event, Evidence, FenceRequest, NodeId, Operator, Revision, StartError};
use tokio::task::JoinSet;

/// A liveness limit for what must come; a busy machine does not reach it.
const LIMIT: Duration = Duration::from_secs(60);

/// Three nodes on fixed ports, and how often a fencer was called.
struct Site {
    folder: tempfile::TempDir,
    ports: [SocketAddr; 3],
    fenced: Arc<AtomicUsize>,
}

impl Site {
    fn new() -> Result<Self> {
        let free = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0"));
        let mut ports = vec![];
        for listener in free {
            ports.push(listener?.local_addr()?);
        }
        let ports = <[SocketAddr; 3]>::try_from(ports).ok().context("three ports")?;
        Ok(Self { folder: tempfile::tempdir()?, ports, fenced: Arc::default() })
    }

    fn describe(&self, node: u64) -> quorate::builder::Ready {
        let fenced = self.fenced.clone();
        let folder: &Path = self.folder.path();
        Cluster::builder(NodeId::new(node))
            .data(folder.join(format!("n{node}")))
            .listen_plaintext(self.ports[node as usize - 1])
            .fencing(move |_: FenceRequest| {
                fenced.fetch_add(1, Ordering::Relaxed);
                async move { Ok(Evidence::new("the test holds it to be off")?) }
            })
            .timeout(LIMIT)
    }

    async fn found(&self) -> Result<Vec<Cluster>> {
        let mut nodes = vec![self.describe(1).bootstrap().await?];
        for node in 2..=3 {
            nodes.push(self.describe(node).join([self.ports[0].to_string()]).await?);
        }
        all_active(&nodes).await?;
        Ok(nodes)
    }

    async fn resume(&self) -> Result<Vec<Cluster>> {
        let mut starting = JoinSet::new();
        for node in 1..=3 {
            starting.spawn(self.describe(node).resume());
        }
        let mut nodes: Vec<Cluster> = starting.join_all().await.into_iter().collect::<Result<_, _>>()?;
        nodes.sort_by_key(Cluster::identity);
        all_active(&nodes).await?;
        Ok(nodes)
    }
}

async fn all_active(nodes: &[Cluster]) -> Result<()> {
    for cluster in nodes {
        tokio::time::timeout(LIMIT, cluster.active()).await??;
    }
    Ok(())
}

/// The signal comes to all of them within a moment. Those that have left vote on until the last one has, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_cluster_stops_without_an_error_and_comes_back_without_a_fence() -> Result<()> {
    let site = Site::new()?;
    let mut nodes = site.found().await?;
    for round in 2..=3 {
        let ends = Arc::new(Mutex::new(vec![]));
        let mut leaving = JoinSet::new();
        for (late, cluster) in nodes.into_iter().enumerate() {
            let ends = ends.clone();
            leaving.spawn(async move {
                tokio::time::sleep(Duration::from_millis(500) * late as u32).await;
                let end = cluster.leave().await;
                ends.lock().map(|mut ends| ends.push(end)).ok();
            });
        }
        leaving.join_all().await;
        let ends = std::mem::take(&mut *ends.lock().ok().context("nobody panicked")?);
        ensure!(ends.len() == 3 && ends.iter().all(Result::is_ok), "{ends:?}");
        nodes = site.resume().await?;
        let lives: Vec<String> = nodes.iter().map(|cluster| cluster.identity().to_string()).collect();
        assert_eq!(lives, [format!("n1#{round}"), format!("n2#{round}"), format!("n3#{round}")]);
    }
    assert_eq!(site.fenced.load(Ordering::Relaxed), 0, "nobody was to be fenced");
    Ok(())
}

/// The others are gone for good when the last node leaves: it does not wait for them, and its next life reports that the
/// former one had stopped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_to_leave_ends_at_once_and_its_next_life_says_so() -> Result<()> {
    let site = Site::new()?;
    let mut nodes = site.found().await?;
    let last = nodes.pop().context("n3")?;
    for cluster in nodes {
        assert_eq!(cluster.leave().await?, Departure::Committed);
    }
    // Nobody is left to hear that the lock is free.
    let (began, limit) = (Instant::now(), Duration::from_secs(20));
    assert_eq!(last.leave().await?, Departure::LastToLeave);
    ensure!(began.elapsed() < limit, "it waited for {:?}", began.elapsed());

    let nodes = site.resume().await?;
    let (mut events, mut left) = (nodes[0].events_since(Revision::default()), vec![]);
    while let Ok(event) = tokio::time::timeout(Duration::from_secs(1), events.next()).await {
        match event? {
            Event::Left { who, .. } => left.push(who.to_string()),
            Event::Fenced { proof: FenceProof::Device { .. }, who, .. } => anyhow::bail!("{who} was shot"),
            _ => {}
        }
    }
    assert_eq!(left, ["n1#1", "n2#1", "n3#1"]);
    assert_eq!(site.fenced.load(Ordering::Relaxed), 0, "nobody was to be fenced");
    Ok(())
}

/// An operator ends a life whose process goes on. The next one begins in the same process, once nothing is protected there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_life_that_is_over_is_followed_by_the_next_in_the_same_process() -> Result<()> {
    let site = Site::new()?;
    let mut nodes = site.found().await?;
    let mut third = nodes.pop().context("n3")?;
    tokio::time::timeout(LIMIT, third.lease().held()).await?;
    let protection = third.lease().protect("worker", Revision::new(1)).await?;
    let word = Operator::new("ada", "the process was stopped for a while")?;
    nodes[0].dangerous().vouch(third.identity(), word).await?;
    tokio::time::timeout(LIMIT, third.over()).await?;
    let refused = third.renew_life(site.describe(3)).await;
    ensure!(matches!(&refused, Err(StartError::Protected(_, what)) if what == "worker"), "{refused:?}");
    protection.stopped();
    // What was protected is reported to the keeper in the background.
    let began = Instant::now();
    while !third.lease().view().protecting.is_empty() {
        ensure!(began.elapsed() < LIMIT);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    third.renew_life(site.describe(3)).await?;
    assert_eq!(third.identity().to_string(), "n3#2");
    tokio::time::timeout(LIMIT, third.active()).await??;
    Ok(())
}
