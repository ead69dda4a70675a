//! Three decisions in order: how we speak, how we fence, how we come in.
//!
//! ```text
//!   Cluster::builder(n3) ─▶ .data(folder) ─▶ .listen_plaintext(addr) ─▶ .fencing(yours)      ─▶ .bootstrap()
//!                                            (or in memory, for tests)   .without_fencing()      .join([...])
//!                                                                          .self_fencing(…)       .resume()
//! ```
//!
//! Each decision is a type, so a program that forgot one does not compile, and the risky choice of each has a name that
//! a reader sees.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quorate_membership::{Address, Identity, NodeId, Role, Timing};
use quorate_raft_core::{Config, Fencer, Node, NodeSettings, StartError, StopMechanism, Transport};
use quorate_transport_grpc::{GrpcTransport, Server, ServerSettings};

use crate::cluster::Cluster;

/// How long a node tries to come in unless [`Ready::timeout`] says otherwise.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A node that has a number; it needs a data folder.
pub struct Builder {
    node: NodeId,
}

/// Needs to be told how to speak.
pub struct WantsWire {
    node: NodeId,
    data: PathBuf,
}

/// Needs to be told how to fence.
pub struct WantsFencing {
    node: NodeId,
    data: PathBuf,
    wire: Wire,
}

/// Has everything but its way in. What may be set here has a default.
pub struct Ready {
    node: NodeId,
    data: PathBuf,
    wire: Wire,
    fencer: Option<Arc<dyn Fencer>>,
    stop: Option<Box<dyn StopMechanism>>,
    trust_vm_clock: bool,
    advertised: Vec<String>,
    config: Config,
    role: Role,
    timeout: Duration,
}

macro_rules! opaque {
    ($($type:ident),*) => { $(impl std::fmt::Debug for $type {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct(stringify!($type)).field("node", &self.node).finish_non_exhaustive()
        }
    })* };
}

opaque!(Builder, WantsWire, WantsFencing, Ready);

enum Wire {
    Plaintext(SocketAddr),
    #[cfg(feature = "testing")]
    Memory(quorate_raft_core::testing::MemoryNetwork),
}

/// What listens for a node.
pub(crate) enum Listening {
    Socket(Server),
    #[cfg(feature = "testing")]
    Memory(quorate_raft_core::testing::MemoryNetwork, NodeId),
    /// The simulated world does.
    #[cfg(feature = "testing")]
    World,
}

impl Listening {
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Socket(server) => Some(server.local_addr()),
            #[cfg(feature = "testing")]
            Self::Memory(..) | Self::World => None,
        }
    }

    pub(crate) async fn shut_down(self) {
        match self {
            Self::Socket(server) => server.shutdown().await,
            #[cfg(feature = "testing")]
            Self::Memory(board, node) => board.disconnect(node),
            #[cfg(feature = "testing")]
            Self::World => {}
        }
    }
}

impl Builder {
    pub(crate) fn new(node: NodeId) -> Self {
        Self { node }
    }

    /// Where the node keeps its log: a folder of its own on a disk whose fsync is real. Made if it is not there.
    pub fn data(self, folder: impl Into<PathBuf>) -> WantsWire {
        WantsWire { node: self.node, data: folder.into() }
    }
}

impl WantsWire {
    /// Listens on `address`, without encryption and without knowing who calls: only for a network on which everybody
    /// is trusted with the cluster. Port 0 takes a free one. TLS comes with an issue of its own.
    pub fn listen_plaintext(self, address: SocketAddr) -> WantsFencing {
        WantsFencing { node: self.node, data: self.data, wire: Wire::Plaintext(address) }
    }

    /// Speaks over a network in memory: for tests within one process.
    #[cfg(feature = "testing")]
    pub fn in_memory(self, network: &quorate_raft_core::testing::MemoryNetwork) -> WantsFencing {
        WantsFencing { node: self.node, data: self.data, wire: Wire::Memory(network.clone()) }
    }
}

impl WantsFencing {
    /// Fences with `fencer`, a type of your own or a closure; see [`Fencer`] for what it must promise.
    pub fn fencing(self, fencer: impl Fencer) -> Ready {
        self.ready(Some(Arc::new(fencer)))
    }

    /// Fences with nothing: the work of a lost node waits until an operator vouches for its end, or until a node with
    /// a fencer leads.
    pub fn without_fencing(self) -> Ready {
        self.ready(None)
    }

    fn ready(self, fencer: Option<Arc<dyn Fencer>>) -> Ready {
        let Self { node, data, wire } = self;
        let (advertised, config) = (vec![], Config::default());
        let (stop, role, timeout) = (None, Role::Voter, TIMEOUT);
        Ready { node, data, wire, fencer, stop, trust_vm_clock: false, advertised, config, role, timeout }
    }
}

impl Ready {
    /// Where the others reach this node, most preferred first, at most 8. Default: the address it listens on, which is
    /// of no use when that is a wildcard.
    pub fn advertise(mut self, addresses: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.advertised = addresses.into_iter().map(Into::into).collect();
        self
    }

    /// What stops this node's own work at the end of its lease, whatever state its process is in: a
    /// [`Deadman`](crate::Deadman), a [`Watchdog`](crate::Watchdog), [`TokensOnly`](crate::TokensOnly), or one of your
    /// own. With it, time alone proves the end of this node's lives, even where no fencer reaches.
    ///
    /// Default: nothing. Then only a fencer, an operator or a clean leave proves it. The manual's page on fencing says
    /// what each of them leaves open; nothing is armed before [`Lease::protect`](crate::Lease::protect).
    pub fn self_fencing(mut self, mechanism: impl StopMechanism) -> Self {
        self.stop = Some(Box::new(mechanism));
        self
    }

    /// Says that the clock of this virtual machine counts all the time, because its host neither freezes nor migrates
    /// it while it runs protected work. Without it a mechanism that rests on time is refused in a virtual machine: a
    /// frozen guest does not notice that its lease has ended.
    pub fn trust_vm_clock(mut self) -> Self {
        self.trust_vm_clock = true;
        self
    }

    /// How the node behaves in time: a [`Profile`](crate::Profile), or a [`Timing`] made from a target or a plan. The
    /// same on every node of a cluster. Overrides that of [`Self::config`].
    pub fn timing(mut self, timing: impl Into<Timing>) -> Self {
        self.config.timing = timing.into();
        self
    }

    /// How the node behaves in time, and everything else that can be set. The same on every node of a cluster.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// What the node is to be for when it first comes in. Default: voter. Later, [`Cluster::set_role`] changes it.
    pub fn role(mut self, role: Role) -> Self {
        self.role = role;
        self
    }

    /// How long the node tries to come in before it gives up. Default: 2 minutes.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Founds a new cluster of this one node. The data folder must not belong to one.
    ///
    /// # Errors
    /// [`StartError`]. After a crash in the middle it may be repeated and goes on where it was; once the folder belongs
    /// to the new cluster it says [`StartError::Occupied`], and `resume` goes on.
    pub async fn bootstrap(self) -> Result<Cluster, StartError> {
        let (role, timeout) = (self.role, self.timeout);
        let (node, listening) = self.open().await?;
        let entered = node.bootstrap(role, timeout).await;
        finish(node, listening, entered).await
    }

    /// Adds this node to the cluster of which the nodes at `seeds` (`10.0.0.1:7400`) are members. One that answers is
    /// enough. The data folder must not belong to a cluster.
    ///
    /// # Errors
    /// [`StartError::Join`] with what the last of them said.
    pub async fn join(self, seeds: impl IntoIterator<Item = impl Into<String>>) -> Result<Cluster, StartError> {
        let seeds = addresses("a seed", seeds.into_iter().map(Into::into))?;
        if matches!(self.wire, Wire::Plaintext(_)) {
            reachable("a seed", &seeds)?;
        }
        let (role, timeout) = (self.role, self.timeout);
        let (node, listening) = self.open().await?;
        let entered = node.join(&seeds, role, timeout).await;
        finish(node, listening, entered).await
    }

    /// Takes membership up again after a stop, as a new life. The data folder must belong to a cluster.
    ///
    /// # Errors
    /// [`StartError::Vacant`] when it does not; [`StartError::Propose`] when no majority came up in time.
    pub async fn resume(self) -> Result<Cluster, StartError> {
        let timeout = self.timeout;
        if !self.data.join("node").exists() {
            return Err(StartError::Vacant(self.data)); // and is not made, should its name be mistyped
        }
        let (node, listening) = self.open().await?;
        let entered = node.resume(timeout).await;
        finish(node, listening, entered).await
    }

    async fn open(self) -> Result<(Node, Listening), StartError> {
        let Self { node, data, wire, fencer, stop, trust_vm_clock, advertised, config, .. } = self;
        match wire {
            Wire::Plaintext(address) => {
                let failed = |source| StartError::Listen { address: address.to_string(), source };
                let listener = std::net::TcpListener::bind(address).map_err(failed)?;
                let bound = listener.local_addr().map_err(failed)?;
                let own = if advertised.is_empty() { vec![bound.to_string()] } else { advertised };
                let addresses = addresses("an advertised address", own)?;
                reachable("an advertised address", &addresses)?;
                let transport: Arc<dyn Transport> = Arc::new(GrpcTransport::new());
                // A command's own end comes before its call is given up.
                let call_timeout = config.propose_timeout + Duration::from_secs(30);
                let settings = NodeSettings { node, data, addresses, config, transport, fencer, stop, trust_vm_clock };
                let node = Node::start(settings).await?;
                // The node is stopped before its server is: what is still under way then cannot succeed any more.
                let shutdown_grace = Duration::from_millis(200);
                let settings = ServerSettings { shutdown_grace, call_timeout, ..Default::default() };
                let server = Server::start_with(listener, node.service(), settings).map_err(failed)?;
                Ok((node, Listening::Socket(server)))
            }
            #[cfg(feature = "testing")]
            Wire::Memory(board) => {
                let own = quorate_raft_core::testing::MemoryNetwork::address(node);
                let addresses = vec![own.map_err(|e| invalid("the address", &node.to_string(), &e))?];
                let transport = board.transport(node);
                let settings = NodeSettings { node, data, addresses, config, transport, fencer, stop, trust_vm_clock };
                let started = Node::start(settings).await?;
                board.connect(node, started.service());
                Ok((started, Listening::Memory(board, node)))
            }
        }
    }
}

fn invalid(what: &'static str, value: &str, why: &dyn std::fmt::Display) -> StartError {
    StartError::Config { what, value: value.into(), why: why.to_string() }
}

fn addresses(what: &'static str, given: impl IntoIterator<Item = String>) -> Result<Vec<Address>, StartError> {
    given.into_iter().map(|text| Address::new(text.clone()).map_err(|e| invalid(what, &text, &e))).collect()
}

/// What is wrong with a place that others shall reach by TCP, if anything is.
pub(crate) fn unreachable(address: &Address) -> Option<&'static str> {
    let text = address.as_str();
    if text.parse::<SocketAddr>().is_ok_and(|a| a.ip().is_unspecified()) {
        return Some("others cannot reach a wildcard; say with `advertise` where they reach this node");
    }
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty() && !host.contains(char::is_whitespace));
    let named = port.is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port != 0));
    (!named).then_some("a host and a port are needed, like 10.0.0.3:7400 or [fd00::3]:7400")
}

fn reachable(what: &'static str, given: &[Address]) -> Result<(), StartError> {
    given.iter().try_for_each(|address| match unreachable(address) {
        Some(why) => Err(invalid(what, address.as_str(), &why)),
        None => Ok(()),
    })
}

/// Hands the running node out, or stops it again if it did not come in.
async fn finish(
    node: Node,
    listening: Listening,
    entered: Result<Identity, StartError>,
) -> Result<Cluster, StartError> {
    match entered {
        Ok(identity) => Ok(Cluster { node: Arc::new(node), identity, listening }),
        Err(error) => {
            node.shutdown().await;
            listening.shut_down().await;
            Err(error)
        }
    }
}
