//! Handles for tests of programs that embed quorate: of a process in a simulated world, and of a node of a test cluster.
//!
//! ```text
//!   testing::sim::World ── Running ──▶ Cluster::in_world     time, disks, links and power are simulated
//!   testing::TestCluster ─ TestNode ─▶ Cluster::in_test      real time, a network in memory
//! ```

use crate::cluster::Cluster;
use crate::listening::Listening;

impl Cluster {
    /// The handle of a process in a [simulated world](crate::testing::sim), for tests of programs that embed quorate.
    /// The program runs unchanged on machines that lose power, links that break and clocks that drift, and minutes of
    /// simulated time take seconds. `None` until the process has joined the cluster. The world owns the process, so
    /// dropping the handle stops nothing.
    ///
    /// Spawn the program on [`Running::host`](crate::testing::sim::Running), so that it pauses and ends with its
    /// process.
    ///
    /// ```
    /// # use std::{sync::Arc, sync::atomic::{AtomicU64, Ordering}, time::Duration};
    /// # use quorate::{Cluster, NodeId, Role, lease::Stop};
    /// # use quorate::testing::sim::{End, Rate, Setting, World};
    /// # use tokio::time::sleep;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let ms = Duration::from_millis;
    /// let stop = Some(Stop::Deadman { lateness: ms(250) });
    /// let worked = [(); 3].map(|()| Arc::new(AtomicU64::new(0)));
    /// World::run(7, async {
    ///     let setting = Setting { seed: 7, config: Default::default(), stop, device: false, aloud: false };
    ///     let mut world = World::new(setting);
    ///     for (number, worked) in (1..).zip(worked.clone()) {
    ///         world.add_machine(NodeId::new(number), Rate::default());
    ///         let running = world.start(NodeId::new(number)).await?;
    ///         world.enter(&running, number == 1, Role::Voter);
    ///         // The program works while it holds the lock.
    ///         running.host.clone().spawn(async move {
    ///             let cluster = loop {
    ///                 match Cluster::in_world(&running) {
    ///                     Some(cluster) => break cluster,
    ///                     None => sleep(ms(10)).await,
    ///                 }
    ///             };
    ///             cluster.active().await.ok()?;
    ///             let guard = cluster.lock("vm/100").await.ok()?;
    ///             while guard.check().is_ok() {
    ///                 worked.fetch_add(1, Ordering::Relaxed);
    ///                 sleep(ms(100)).await;
    ///             }
    ///             Some(())
    ///         });
    ///         sleep(ms(5000)).await;
    ///     }
    ///     // The first machine loses power. Within a few simulated seconds, another one takes the work over.
    ///     assert!(worked[0].load(Ordering::Relaxed) > 0);
    ///     world.end(NodeId::new(1), End::PowerCut);
    ///     sleep(ms(20_000)).await;
    ///     assert!(worked[1..].iter().any(|worked| worked.load(Ordering::Relaxed) > 0));
    ///     Ok(())
    /// })?
    /// # }
    /// ```
    pub fn in_world(running: &crate::testing::sim::Running) -> Option<Self> {
        let identity = running.node.identity()?;
        Some(Self { node: running.node.clone(), identity, listening: Listening::World })
    }

    /// The handle of a node of a [`TestCluster`](crate::testing::TestCluster), for tests of programs that embed quorate: a
    /// whole cluster in one process, whose links and devices fail as the test wants. `None` if the node does not run, or has
    /// not joined. The test cluster owns the node, so dropping the handle stops nothing; it is dead once the node is stopped.
    ///
    /// ```
    /// # use quorate::{Cluster, testing::TestCluster};
    /// # fn main() -> anyhow::Result<()> { tokio::runtime::Runtime::new()?.block_on(async {
    /// let mut test = TestCluster::start(3).await?;
    /// let cluster = Cluster::in_test(test.node(2)?).ok_or(anyhow::anyhow!("n2 runs"))?;
    /// cluster.records().put("greeting", "hello").await?;
    /// // The program under test gets `cluster`; the test cuts its links.
    /// test.isolate(2);
    /// # Ok(()) }) }
    /// ```
    pub fn in_test(node: &crate::testing::TestNode) -> Option<Self> {
        let node = node.shared().ok()?;
        Some(Self { identity: node.identity()?, node, listening: Listening::World })
    }
}
