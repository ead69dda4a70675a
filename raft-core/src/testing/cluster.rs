//! A cluster in one process, and a small vocabulary for scenarios.
//!
//! ```no_run
//! # async fn scenario() -> anyhow::Result<()> {
//! use quorate_raft_core::testing::TestCluster;
//!
//! let mut t = TestCluster::start(3).await?;
//! t.node(3)?.stop().await;
//! t.until("n3#1 is fenced", |state| state.life("n3#1".parse().unwrap()).unwrap().phase.has_ended()).await?;
//! t.node(3)?.start().await?;
//! t.until_active("n3#2").await
//! # }
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use quorate_membership::{ClusterState, Drift, Identity, NodeId, Phase, Plan, Role, Stop, Timing};
use tokio::time::{Instant, sleep};

use super::disk::FaultyDisk;
use super::node::{TIMEOUT, TestNode};
use super::{MemoryNetwork, TestFencer, TestStop};
use crate::config::Config;

/// Timing for tests: quick, and slow enough for a busy machine with a slow disk.
pub fn fast() -> Config {
    let ms = Duration::from_millis;
    Config {
        timing: quick(),
        suspect_after: Some(ms(400)),
        fence_after: Some(ms(1200)),
        fence_deadline: ms(500),
        fence_backoff: ms(50),
        propose_timeout: Duration::from_secs(5),
        ..Config::default()
    }
}

fn quick() -> Timing {
    let ms = Duration::from_millis;
    let plan = Plan {
        heartbeat: ms(50),
        election_min: ms(300),
        election_max: ms(600),
        renew: ms(150),
        lease: ms(2600),
        margin: ms(700),
        stop: Stop::Unbounded,
        in_flight: Duration::ZERO,
        drift: Drift::default(),
        round_trip: ms(10),
        fsync: ms(50),
    };
    Timing::new(plan).unwrap_or_default()
}

/// Several nodes on one [`MemoryNetwork`], each with a durable log in a temporary folder.
pub struct TestCluster {
    /// The network between them.
    pub network: MemoryNetwork,
    /// The fencing device that all of them use.
    pub fencer: TestFencer,
    config: Config,
    promise: Option<Stop>,
    on_disks: bool,
    folder: tempfile::TempDir,
    nodes: BTreeMap<NodeId, TestNode>,
}

impl TestCluster {
    /// A cluster of `n` voters, `n1` to `n<n>`, all of them active.
    ///
    /// # Errors
    /// When it does not form.
    pub async fn start(n: u64) -> anyhow::Result<Self> {
        Self::start_with(n, fast()).await
    }

    /// As [`Self::start`], with other settings.
    ///
    /// # Errors
    /// When it does not form.
    pub async fn start_with(n: u64, config: Config) -> anyhow::Result<Self> {
        Self::form(n, config, None, false).await
    }

    /// As [`Self::start`], with a [`TestStop`] in each node that promises `promise`.
    ///
    /// # Errors
    /// When it does not form.
    pub async fn start_protected(n: u64, promise: Stop) -> anyhow::Result<Self> {
        Self::start_protected_with(n, fast(), promise).await
    }

    /// As [`Self::start_protected`], with other settings.
    ///
    /// # Errors
    /// When it does not form.
    pub async fn start_protected_with(n: u64, config: Config, promise: Stop) -> anyhow::Result<Self> {
        Self::form(n, config, Some(promise), false).await
    }

    /// As [`Self::start_protected`], with the log of each node on a [`FaultyDisk`] of its own; see [`TestNode::disk`].
    ///
    /// # Errors
    /// When it does not form.
    pub async fn start_on_disks(n: u64, promise: Stop) -> anyhow::Result<Self> {
        Self::form(n, fast(), Some(promise), true).await
    }

    async fn form(n: u64, config: Config, promise: Option<Stop>, on_disks: bool) -> anyhow::Result<Self> {
        let mut made = Self {
            promise,
            on_disks,
            network: MemoryNetwork::new(),
            fencer: TestFencer::default(),
            config,
            folder: tempfile::tempdir()?,
            nodes: BTreeMap::new(),
        };
        for number in 1..=n {
            made.add(number, Role::Voter).await?;
        }
        for number in 1..=n {
            made.until_active(&format!("n{number}#1")).await?;
        }
        Ok(made)
    }

    /// Adds a node: the first founds the cluster, others join through those that run.
    ///
    /// # Errors
    /// When it is not let in.
    pub async fn add(&mut self, number: u64, role: Role) -> anyhow::Result<()> {
        let id = NodeId::new(number);
        let seeds: Vec<_> = self.running().map(|node| MemoryNetwork::address(node.number)).collect::<Result<_, _>>()?;
        let mut place = TestNode {
            number: id,
            data: self.folder.path().join(id.to_string()),
            config: self.config.clone(),
            network: self.network.clone(),
            fencer: Some(Arc::new(self.fencer.clone())),
            stop: self.promise.map(TestStop::new),
            disk: self.on_disks.then(FaultyDisk::new),
            running: None,
        };
        let node = place.open().await?;
        match seeds.is_empty() {
            true => node.bootstrap(role, TIMEOUT).await?,
            false => node.join(&seeds, role, TIMEOUT).await?,
        };
        place.running = Some(Arc::new(node));
        self.nodes.insert(id, place);
        Ok(())
    }

    /// The place of that number.
    ///
    /// # Errors
    /// When there is none.
    pub fn node(&mut self, number: u64) -> anyhow::Result<&mut TestNode> {
        self.nodes.get_mut(&NodeId::new(number)).with_context(|| format!("no n{number} in this test"))
    }

    fn running(&self) -> impl Iterator<Item = &TestNode> {
        self.nodes.values().filter(|place| place.running.is_some())
    }

    /// Cuts `number` off from all others.
    pub fn isolate(&self, number: u64) {
        self.network.isolate(NodeId::new(number));
    }

    /// Cuts the link between two, both ways.
    pub fn cut(&self, a: u64, b: u64) {
        self.network.cut(NodeId::new(a), NodeId::new(b));
    }

    /// Mends every link.
    pub fn heal(&self) {
        self.network.heal();
    }

    /// Waits until a running node that is quorate says that it leads.
    ///
    /// # Errors
    /// When none does for a minute.
    pub async fn leader(&self) -> anyhow::Result<NodeId> {
        let give_up = Instant::now() + TIMEOUT;
        while Instant::now() < give_up {
            let views = self.running().filter_map(|place| Some((place.number, place.running.as_ref()?.view().local)));
            for (number, local) in views {
                if local.quorate && local.leader == Some(number) {
                    return Ok(number);
                }
            }
            sleep(Duration::from_millis(10)).await;
        }
        bail!("no node leads after {TIMEOUT:?}")
    }

    /// Waits until the state of every running node that is quorate, and of at least one, satisfies `what`.
    ///
    /// # Errors
    /// When it does not within a minute, with the states as they are then.
    pub async fn until(&self, claim: &str, what: impl Fn(&ClusterState) -> bool) -> anyhow::Result<()> {
        let give_up = Instant::now() + TIMEOUT;
        loop {
            let views: Vec<_> = self.running().filter_map(|place| Some(place.running.as_ref()?.view())).collect();
            let (mut seen, mut all) = (0, true);
            for view in views.iter().filter(|view| view.local.quorate) {
                seen += 1;
                all &= what(&view.cluster);
            }
            if seen > 0 && all {
                return Ok(());
            }
            ensure!(Instant::now() < give_up, "not within {TIMEOUT:?}: {claim}\n{views:#?}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the life of that name may work.
    ///
    /// # Errors
    /// When the name does not parse, or not within a minute.
    pub async fn until_active(&self, who: &str) -> anyhow::Result<()> {
        self.until_phase(who, Phase::Active).await
    }

    /// Waits until the life of that name is in `phase`.
    ///
    /// # Errors
    /// As [`Self::until_active`].
    pub async fn until_phase(&self, who: &str, phase: Phase) -> anyhow::Result<()> {
        let who: Identity = who.parse()?;
        let claim = format!("{who} is {phase}");
        self.until(&claim, |state| state.life(who).is_some_and(|life| life.phase == phase)).await
    }
}
