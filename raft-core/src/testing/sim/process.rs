//! How a process begins on a simulated machine: over the network of the world, or over a transport of the caller.
//!
//! ```text
//!   World::begin ──▶ Process ──start(transport, addresses)──▶ Running      on the runtime that its tasks are to have
//!                                                         └─▶ Service      what answers to the network, on that host
//! ```

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::future::BoxFuture;
use quorate_membership::{Address, FenceHint, NodeId, Role, Stop};

use super::bound_service::Bound;
use super::device::Device;
use super::host::SimHost;
use super::log_writer;
use super::observation::Observation;
use super::stop::SimStop;
use crate::client_service::Service;
use crate::config::Config;
use crate::error::StartError;
use crate::folder::{Folder, FolderStorage};
use crate::host::Host;
use crate::lease::ledger::{LastEnd, Ledger, Note, Sink};
use crate::node::{Node, NodeSettings};
use crate::transport::Transport;

/// The setting of a world.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// The settings of every node. The lease is fitted to `stop`.
    pub config: Config,
    /// What stops the work of each node at the end of its lease; `None`: nothing.
    pub stop: Option<Stop>,
    /// Whether there is a device that fences.
    pub device: bool,
    /// Every line of the trace is printed to standard error as it comes.
    pub aloud: bool,
}

/// A process of a node that runs.
#[derive(Clone)]
pub struct Running {
    /// The process.
    pub host: Arc<SimHost>,
    /// The node in it.
    pub node: Arc<Node>,
}

/// A process that is about to begin.
pub struct Process {
    pub(super) host: Arc<SimHost>,
    pub(super) device: Device,
    pub(super) setting: Setting,
}

impl Process {
    /// The node of the process.
    pub fn node(&self) -> NodeId {
        self.host.node()
    }

    /// The process on its machine.
    #[cfg(test)]
    pub(crate) fn host(&self) -> Arc<SimHost> {
        self.host.clone()
    }

    /// Opens the folder and the log of its machine and starts the node. Its tasks run on the runtime of the caller.
    ///
    /// # Errors
    /// When it does not start, or is ended while it does.
    pub async fn start(
        self,
        transport: Arc<dyn Transport>,
        addresses: Vec<Address>,
    ) -> anyhow::Result<(Running, Arc<dyn Service>)> {
        let Self { host, device, setting } = self;
        let here = host.clone();
        let made = host.spawn(async move {
            let node = here.node();
            let path = PathBuf::from(format!("simulated/{node}"));
            let folder = Folder::open_on(Box::new(SimFolder(here.clone())), &path, node)?;
            let store = log_writer::open(&here).map_err(|error| anyhow::anyhow!("{node}: {error}"))?;
            // It does not know how the process before it ended.
            let ledger = Ledger::on(Box::new(SimLedger(here.clone())), node, LastEnd::None);
            let hint = FenceHint::new(format!("opening {}", folder.disk().opened))?;
            device.runs(node, hint.clone());
            let config = Config { fence_hint: Some(hint), ..setting.config };
            let stop = setting.stop.map(|stop| Box::new(SimStop::new(&here, stop)) as _);
            let settings = NodeSettings {
                node,
                data: folder.path().to_path_buf(),
                addresses,
                config,
                transport,
                fencer: setting.device.then(|| Arc::new(device) as _),
                stop,
                trust_vm_clock: true,
            };
            settings.config.check()?;
            anyhow::Ok(Node::run(settings, folder, store, ledger).await?)
        });
        let node = Arc::new(made.await.context("the process ended while it started")??);
        let service = Arc::new(Bound::new(node.service(), host.clone()));
        Ok((Running { host, node }, service))
    }
}

impl Running {
    /// Brings a started process into the cluster, as a service does: the founder founds it, a former member resumes, and
    /// others join through one of `seeds`. Repeats until that succeeds.
    pub fn enter(&self, seeds: Vec<Address>, founder: bool, role: Role) {
        let node = self.node.clone();
        drop(self.host.spawn(async move {
            let timeout = Duration::from_secs(5);
            loop {
                let came = match node.resume(timeout).await {
                    Err(StartError::Vacant(_)) if founder => node.bootstrap(role, timeout).await,
                    Err(StartError::Vacant(_)) => node.join(&seeds, role, timeout).await,
                    resumed => resumed,
                };
                match came {
                    Ok(_) => return,
                    Err(error) => tracing::debug!(%error, "not in yet"),
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }));
    }
}

/// The data folder of a machine: one record in its memory, which outlives its processes.
#[derive(Debug)]
struct SimFolder(Arc<SimHost>);

impl FolderStorage for SimFolder {
    fn load(&self) -> Result<Option<Vec<u8>>, StartError> {
        Ok(self.0.sim_disk().folder())
    }

    /// Within one boot the former process is gone: one process runs on a machine at a time.
    fn take_over(&self) -> io::Result<bool> {
        let boot = self.0.boot_id();
        Ok(self.0.sim_disk().opener(boot) == Some(boot))
    }

    fn save(&self, bytes: &[u8]) -> io::Result<()> {
        self.0.sim_disk().set_folder(bytes.to_vec());
        Ok(())
    }
}

/// The ledger of a process. Its notes are observations of the world.
#[derive(Debug)]
struct SimLedger(Arc<SimHost>);

impl Sink for SimLedger {
    fn note(&self, note: Note) {
        self.0.tell(Observation::Noted(note));
    }

    fn close(&self) -> BoxFuture<'_, bool> {
        Box::pin(std::future::ready(true))
    }
}
