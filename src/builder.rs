//! The builder of a node. It asks for three decisions in order: the network, fencing, and the way into a cluster.
//!
//! ```text
//!   Cluster::builder(n3) ─▶ .data(folder) ─▶ .listen(addr)                  ─▶ .fencing(yours)      ─▶ .bootstrap()
//!                                            .listen_tls(addr, credentials)    .without_fencing()      .join_with(token)
//!                                            .listen_plaintext(addr)             .self_fencing(…)      .join([...])
//!                                            (or in memory, for tests)                                 .resume()
//! ```
//!
//! Each step has its own type, so a program that leaves out a decision does not compile. The risky choice of each step
//! has a name that stands out in a review.

mod enter;
mod open;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quorate_membership::{FenceHint, NodeId, Role, Timing};
use quorate_raft_core::{Config, Fencer, StopMechanism};
use quorate_transport_grpc::tls::{Credentials, Tls};

use crate::cluster::Cluster;
use crate::listening::ClientPort;

/// The default of [`Ready::timeout`].
const TIMEOUT: Duration = Duration::from_secs(120);

/// The first step: a node with a number. It needs a data folder.
pub struct Builder {
    node: NodeId,
}

/// The second step. It needs a network to listen on.
pub struct WantsWire {
    node: NodeId,
    data: PathBuf,
}

/// The third step. It needs a decision about fencing.
pub struct WantsFencing {
    node: NodeId,
    data: PathBuf,
    wire: Wire,
}

/// The last step: optional settings, then [`bootstrap`](Self::bootstrap), [`join`](Self::join) or
/// [`resume`](Self::resume). Every setting has a default.
pub struct Ready {
    node: NodeId,
    data: PathBuf,
    wire: Wire,
    clients: ClientPort,
    /// Whether plaintext beyond loopback was said twice.
    plaintext_anywhere: bool,
    fencer: Option<Arc<dyn Fencer>>,
    stop: Option<Box<dyn StopMechanism>>,
    trust_vm_clock: bool,
    hint: Option<FenceHint>,
    tells_lives_apart: bool,
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
    Socket(SocketAddr, Security),
    #[cfg(feature = "testing")]
    Memory(quorate_raft_core::testing::MemoryNetwork),
}

/// What protects the connections of a node.
enum Security {
    Plaintext,
    /// Certificates that the program has.
    Shown(Credentials),
    /// Those that the cluster makes itself; `None` until the way in is known.
    Own(Option<Tls>),
}

impl Cluster {
    /// Begins to describe a node; see [`Builder`].
    pub fn builder(node: NodeId) -> Builder {
        Builder { node }
    }
}

impl Builder {
    /// Sets the data folder, which holds the log and belongs to this node alone. It is created if it does not exist.
    /// Its disk must honour fsync: a disk that acknowledges writes before they are durable breaks every guarantee.
    pub fn data(self, folder: impl Into<PathBuf>) -> WantsWire {
        WantsWire { node: self.node, data: folder.into() }
    }
}

impl WantsWire {
    /// Listens on `address` with mutual TLS 1.3, with certificates that the cluster makes itself. [`Ready::bootstrap`] makes an
    /// authority of the cluster, [`Cluster::invite`] gives a token to each further node, and [`Ready::join_with`] gets a certificate
    /// with it. They are in the folder `tls` below the data folder, with the key of the authority on voters only, and are renewed
    /// while the node runs. Port 0 takes a free port.
    pub fn listen(self, address: SocketAddr) -> WantsFencing {
        let wire = Wire::Socket(address, Security::Own(None));
        WantsFencing { node: self.node, data: self.data, wire }
    }

    /// Listens on `address` with mutual TLS 1.3, with a certificate of your own authority, and calls other nodes over it. The certificate has to be that of this node; see
    /// [`Subject`](crate::tls::Subject). Whoever calls shows a certificate of a CA in `credentials`, and may do what its role
    /// allows; see [`CallerRole`](crate::tls::CallerRole). Every node of a cluster has to use TLS, or none. Port 0 takes a free port.
    pub fn listen_tls(self, address: SocketAddr, credentials: Credentials) -> WantsFencing {
        WantsFencing { node: self.node, data: self.data, wire: Wire::Socket(address, Security::Shown(credentials)) }
    }

    /// Listens on `address` without encryption or authentication. Anyone who can reach the port can control the cluster, fence its
    /// nodes, and vouch for ends that have not happened. So beyond loopback it has to be said twice: see
    /// [`Ready::plaintext_beyond_loopback`]. Port 0 takes a free port.
    pub fn listen_plaintext(self, address: SocketAddr) -> WantsFencing {
        WantsFencing { node: self.node, data: self.data, wire: Wire::Socket(address, Security::Plaintext) }
    }

    /// Uses a network in memory, for tests within one process.
    #[cfg(feature = "testing")]
    pub fn in_memory(self, network: &quorate_raft_core::testing::MemoryNetwork) -> WantsFencing {
        WantsFencing { node: self.node, data: self.data, wire: Wire::Memory(network.clone()) }
    }
}

impl WantsFencing {
    /// Fences lost nodes with `fencer`: a type that implements [`Fencer`], or a closure. [`Fencer`] states what it must
    /// guarantee.
    pub fn fencing(self, fencer: impl Fencer) -> Ready {
        self.ready(Some(Arc::new(fencer)))
    }

    /// Runs this node without a fencer. While it leads, the work of a lost node is not taken over until time proves the
    /// end of that node (see [`Ready::self_fencing`]), an operator vouches for it, or a node with a fencer leads.
    pub fn without_fencing(self) -> Ready {
        self.ready(None)
    }

    fn ready(self, fencer: Option<Arc<dyn Fencer>>) -> Ready {
        let Self { node, data, wire } = self;
        let (advertised, config) = (vec![], Config::default());
        let (stop, role, timeout, hint) = (None, Role::Voter, TIMEOUT, None);
        let (trust_vm_clock, tells_lives_apart) = (false, false);
        Ready {
            node,
            data,
            wire,
            clients: ClientPort::Same,
            plaintext_anywhere: false,
            fencer,
            stop,
            trust_vm_clock,
            hint,
            tells_lives_apart,
            advertised,
            config,
            role,
            timeout,
        }
    }
}

impl Ready {
    /// Sets the addresses at which other nodes reach this one: 1 to 8, most preferred first. The default is the address
    /// that the node listens on. A wildcard address such as `0.0.0.0` cannot be advertised, so it needs this setting.
    ///
    /// With an address in each of two networks, heartbeats and renewals go over both at once, and everything else over the most
    /// preferred one that works: one network may fail. [`Local::links`](quorate_raft_core::Local::links) shows what does.
    pub fn advertise(mut self, addresses: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.advertised = addresses.into_iter().map(Into::into).collect();
        self
    }

    /// Serves clients and operators at this address, and other nodes alone at the first. So a firewall can tell them apart. Each
    /// port has bounds of its own on connections; both take file descriptors of this process. Port 0 takes a free port. The default
    /// is one port for all.
    pub fn clients_at(mut self, address: SocketAddr) -> Self {
        self.clients = ClientPort::At(address);
        self
    }

    /// Serves other nodes alone: clients and operators have to use other nodes, or the program that embeds this one.
    pub fn without_clients(mut self) -> Self {
        self.clients = ClientPort::Nowhere;
        self
    }

    /// Allows [`WantsWire::listen_plaintext`] on an address that other machines can reach: the second time that it is said. Use it only
    /// where every machine that reaches the port is trusted as an operator is. The status of the node says that it listens so.
    pub fn plaintext_beyond_loopback(mut self) -> Self {
        self.plaintext_anywhere = true;
        self
    }

    /// Sets the mechanism that stops this node's own work at the end of its lease, even when its process hangs: a
    /// [`Deadman`](crate::Deadman), a [`Watchdog`](crate::Watchdog), [`TokensOnly`](crate::TokensOnly), or your own
    /// implementation. With a mechanism, elapsed time alone proves the end of a silent life, so no fencer has to reach
    /// it.
    ///
    /// By default there is none, and only a fencer, an operator or a clean leave proves an end. The mechanism stays
    /// unarmed until [`Lease::protect`](crate::Lease::protect). The manual's page on fencing states the limits of each
    /// mechanism.
    pub fn self_fencing(mut self, mechanism: impl StopMechanism) -> Self {
        self.stop = Some(Box::new(mechanism));
        self
    }

    /// Declares that the clock of this virtual machine keeps counting, because its host neither freezes nor migrates it
    /// while it runs protected work. Without this declaration, a mechanism that relies on time is refused in a virtual
    /// machine, because a frozen guest does not notice that its lease has ended.
    pub fn trust_vm_clock(mut self) -> Self {
        self.trust_vm_clock = true;
        self
    }

    /// Sets by what a fencer tells this life from others of this node: a process group, or the invocation id of its unit.
    /// It is committed with the join, and fencers get it in [`FenceRequest::hint`](crate::FenceRequest::hint). Use the
    /// [`Config`] for the same, or for both.
    pub fn fence_hint(mut self, hint: FenceHint) -> Self {
        self.hint = Some(hint);
        self
    }

    /// Declares that the fencer of this node ends one life and leaves later lives of the same node alone, as one does that
    /// kills a process group, and not one that powers a machine off. What comes back is then ended as fast as what stays
    /// away; see [`Config::fencer_tells_lives_apart`].
    pub fn fencer_tells_lives_apart(mut self) -> Self {
        self.tells_lives_apart = true;
        self
    }

    /// Sets the timing: a [`Profile`](crate::Profile), or a [`Timing`] made from a target or a plan. Every node of a
    /// cluster needs the same timing; a node refuses calls from one with another. The failure detector follows it, unless
    /// the [`Config`] sets its own times. Replaces the timing in [`Self::config`].
    pub fn timing(mut self, timing: impl Into<Timing>) -> Self {
        self.config.timing = timing.into();
        self
    }

    /// Sets everything that can be configured, the timing included. Use the same values on every node of a cluster.
    /// Replaces an earlier [`Self::timing`].
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Sets the role that the node has when it first joins. The default is voter, and a founder must be one. It has no
    /// effect on [`Self::resume`]; [`Cluster::set_role`] changes the role of a member.
    pub fn role(mut self, role: Role) -> Self {
        self.role = role;
        self
    }

    /// Sets how long `bootstrap`, `join` or `resume` may take before it fails. The default is 2 minutes. A first start
    /// with [`Self::self_fencing`] waits within it for a disk that is too slow for the timing; a member starts at once, and
    /// protects no work until its disk is fast enough.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}
