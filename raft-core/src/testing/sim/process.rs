//! How a process begins on a simulated machine: over the network of the world, or over a transport that is brought along.
//!
//! ```text
//!   World::begin ──▶ Process ──start(transport, addresses)──▶ Running      on the runtime that its tasks are to have
//!                                                         └─▶ Service      what answers to the network, on that host
//! ```

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use quorate_membership::{Address, NodeId, Role};

use super::bound::Bound;
use super::device::Device;
use super::host::SimHost;
use super::stop::SimStop;
use super::world::Setting;
use super::{folder, ledger, log_writer};
use crate::client_service::Service;
use crate::error::StartError;
use crate::node::{Node, NodeSettings};
use crate::transport::Transport;

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
    /// Which node's it is.
    pub fn node(&self) -> NodeId {
        self.host.node()
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
            let folder = folder::open(&here)?;
            let store = log_writer::open(&here).map_err(|error| anyhow::anyhow!("{node}: {error}"))?;
            let ledger = ledger::open(&here);
            let stop = setting.stop.map(|stop| Box::new(SimStop::new(&here, stop)) as _);
            let settings = NodeSettings {
                node,
                data: folder.path().to_path_buf(),
                addresses,
                config: setting.config,
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
    /// Brings a started process in, as a service does: the first founds the cluster, who belongs to it resumes, others
    /// join at one of `seeds`; it tries until it has come in.
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
