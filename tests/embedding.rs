//! A program that embeds quorate from outside: it names nothing but `quorate`, and implements each trait that a consumer is
//! asked for.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use quorate::fencing::{Evidence, FenceFuture, FenceRequest, Fencer};
use quorate::lease::{Reading, Stop, StopMechanism};
use quorate::{Cluster, NodeId, Revision};

/// A liveness limit that a busy machine does not reach.
const LIMIT: Duration = Duration::from_secs(60);

/// How long the mechanism takes to end the work.
const BOUND: Duration = Duration::from_millis(200);

/// What the mechanism was told.
type Told = Arc<Mutex<Vec<&'static str>>>;

struct Mechanism(Told);

impl Mechanism {
    fn note(&self, what: &'static str) {
        if let Ok(mut told) = self.0.lock() {
            told.push(what);
        }
    }
}

impl StopMechanism for Mechanism {
    fn stop(&self) -> Stop {
        Stop::Own { bound: BOUND }
    }

    fn check(&mut self) -> io::Result<()> {
        self.note("check");
        Ok(())
    }

    fn pace(&self) -> Duration {
        Duration::from_millis(50)
    }

    fn sustain(&mut self, looked: Reading, left: Duration) -> io::Result<()> {
        let armed = looked.boottime() > Duration::ZERO && left > Duration::ZERO;
        self.note(if armed { "sustain" } else { "sustain for nothing" });
        Ok(())
    }

    fn disarm(&mut self) -> io::Result<()> {
        self.note("disarm");
        Ok(())
    }

    fn fire(&mut self) {
        self.note("fire");
    }
}

struct Device;

impl Fencer for Device {
    fn fence(&self, request: FenceRequest) -> FenceFuture {
        Box::pin(async move { Ok(Evidence::new(format!("{} is off", request.target))?) })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_implements_each_trait_from_outside() -> Result<()> {
    let (folder, told) = (tempfile::tempdir()?, Told::default());
    let cluster = Cluster::builder(NodeId::new(1))
        .data(folder.path().join("n1"))
        .listen_plaintext("127.0.0.1:0".parse()?)
        .fencing(Device)
        .self_fencing(Mechanism(told.clone()))
        .trust_vm_clock()
        .timeout(LIMIT)
        .bootstrap()
        .await?;
    tokio::time::timeout(LIMIT, cluster.lease().held()).await?;
    let protection = cluster.lease().protect("worker", Revision::new(1)).await?;
    protection.stopped();
    cluster.leave().await?;
    let mut told = told.lock().ok().context("nobody panicked with it")?.clone();
    told.dedup();
    assert_eq!(told, ["check", "sustain", "disarm"]);
    Ok(())
}

/// Nothing real is stopped by it, so a virtual machine that its host may freeze is as good as any.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stop_of_the_tests_is_accepted_on_any_machine() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cluster = Cluster::builder(NodeId::new(1))
        .data(folder.path().join("n1"))
        .in_memory(&quorate::testing::MemoryNetwork::new())
        .without_fencing()
        .self_fencing(quorate::testing::TestStop::new(Stop::Own { bound: BOUND }))
        .timeout(LIMIT)
        .bootstrap()
        .await?;
    tokio::time::timeout(LIMIT, cluster.lease().held()).await?;
    cluster.shutdown().await;
    Ok(())
}
