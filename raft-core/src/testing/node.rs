//! One node of a [`TestCluster`](super::TestCluster): stopped, started again, looked at.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use quorate_membership::{Identity, NodeId};

use super::disk::FaultyDisk;
use super::{MemoryNetwork, TestStop};
use crate::config::Config;
use crate::engine::log_store::LogStore;
use crate::fencer::Fencer;
use crate::folder::Folder;
use crate::lease::Lease;
use crate::lease::ledger::Ledger;
use crate::node::{Node, NodeSettings};

/// How long a test waits for what must come. Long: a busy machine must not fail a test.
pub(super) const TIMEOUT: Duration = Duration::from_secs(60);

/// One place in a [`TestCluster`], whether or not its node runs.
pub struct TestNode {
    pub(super) number: NodeId,
    pub(super) data: PathBuf,
    pub(super) config: Config,
    pub(super) network: MemoryNetwork,
    pub(super) fencer: Option<Arc<dyn Fencer>>,
    pub(super) stop: Option<TestStop>,
    pub(super) disk: Option<FaultyDisk>,
    pub(super) running: Option<Arc<Node>>,
}

/// As [`Node::start`], with the log on a disk in memory instead of a file.
async fn start_on(settings: NodeSettings, disk: &FaultyDisk) -> anyhow::Result<Node> {
    settings.config.check()?;
    let folder = Folder::open(&settings.data, settings.node)?;
    let ledger = Ledger::open(folder.path(), settings.node)?;
    Ok(Node::run(settings, folder, LogStore::open_on(disk)?, ledger).await?)
}

impl TestNode {
    pub(super) async fn open(&self) -> anyhow::Result<Node> {
        let settings = NodeSettings {
            node: self.number,
            data: self.data.clone(),
            addresses: vec![MemoryNetwork::address(self.number)?],
            config: self.config.clone(),
            transport: self.network.transport(self.number),
            fencer: self.fencer.clone(),
            stop: self.stop.clone().map(|stop| Box::new(stop) as _),
            trust_vm_clock: true,
        };
        let node = match &self.disk {
            Some(disk) => start_on(settings, disk).await?,
            None => Node::start(settings).await?,
        };
        self.network.connect(self.number, node.service());
        Ok(node)
    }

    /// The node that runs here.
    ///
    /// # Errors
    /// When none does.
    pub fn handle(&self) -> anyhow::Result<&Node> {
        self.running.as_deref().with_context(|| format!("{} does not run", self.number))
    }

    /// The node that runs here, for who keeps it beyond the test's own borrow. [`Self::forget`] lets go of it here alone.
    ///
    /// # Errors
    /// When none does.
    pub fn shared(&self) -> anyhow::Result<Arc<Node>> {
        self.running.clone().with_context(|| format!("{} does not run", self.number))
    }

    /// Its lease.
    ///
    /// # Errors
    /// When no node runs here, or its join is not applied yet.
    pub fn lease(&self) -> anyhow::Result<Lease> {
        self.handle()?.lease().with_context(|| format!("{} has no name yet", self.number))
    }

    /// Its stop mechanism.
    ///
    /// # Errors
    /// When it has none.
    pub fn mechanism(&self) -> anyhow::Result<&TestStop> {
        self.stop.as_ref().with_context(|| format!("{} has no stop mechanism", self.number))
    }

    /// The disk that its log is on.
    ///
    /// # Errors
    /// When its log is a file.
    pub fn disk(&self) -> anyhow::Result<&FaultyDisk> {
        self.disk.as_ref().with_context(|| format!("the log of {} is a file", self.number))
    }

    /// Its data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Runs without a fencing device from the next start on.
    pub fn without_fencer(&mut self) {
        self.fencer = None;
    }

    /// Stops the engine without a word to the others.
    pub async fn stop(&mut self) {
        self.network.disconnect(self.number);
        if let Some(node) = self.running.take() {
            node.shutdown().await;
        }
    }

    /// Lets go of the node without stopping it, as a program does that drops its handle. It stays on the network.
    pub fn forget(&mut self) {
        self.running = None;
    }

    /// Starts again from the data folder, without waiting until a majority takes it in.
    ///
    /// # Errors
    /// When the folder cannot be opened.
    pub async fn open_again(&mut self) -> anyhow::Result<()> {
        self.running = Some(Arc::new(self.open().await?));
        Ok(())
    }

    /// Starts again as a new life of the same node.
    ///
    /// # Errors
    /// When it is refused or finds no leader.
    pub async fn start(&mut self) -> anyhow::Result<Identity> {
        self.open_again().await?;
        Ok(self.handle()?.resume(TIMEOUT).await?)
    }

    /// Leaves cleanly.
    ///
    /// # Errors
    /// When the others cannot be told.
    pub async fn leave(&mut self) -> anyhow::Result<()> {
        if let Some(node) = self.running.take() {
            node.leave().await?;
        }
        self.network.disconnect(self.number);
        Ok(())
    }
}
