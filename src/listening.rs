//! Where a node is reached: the server that listens for it, and the addresses that others are told.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use quorate_membership::{Address, NodeId};
use quorate_raft_core::StartError;
use quorate_transport_grpc::tls::{CallerRole, Credentials, Subject, Tls};
use quorate_transport_grpc::{PortUse, Server};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// The servers of a node.
pub(crate) struct Sockets {
    /// For nodes, and for everybody if there is no other.
    pub(crate) nodes: Server,
    /// For clients and operators, if they have a port of their own.
    pub(crate) clients: Option<Server>,
    pub(crate) tls: Option<Tls>,
    /// What renews its certificate. Ends with it.
    pub(crate) _upkeep: JoinSet<()>,
}

/// Where clients and operators reach a node.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ClientPort {
    /// At the port for nodes.
    Same,
    At(SocketAddr),
    Nowhere,
}

impl ClientPort {
    /// The address of a port of their own.
    pub(crate) fn address(self) -> Option<SocketAddr> {
        match self {
            Self::At(address) => Some(address),
            Self::Same | Self::Nowhere => None,
        }
    }

    /// Whom the port is for at which other nodes reach this one.
    pub(crate) fn of_the_other(self) -> PortUse {
        match self {
            Self::Same => PortUse::All,
            Self::At(_) | Self::Nowhere => PortUse::Nodes,
        }
    }
}

/// What receives calls for a node.
pub(crate) enum Listening {
    Sockets(Sockets),
    /// Nothing any more.
    Closed,
    #[cfg(feature = "testing")]
    Memory(quorate_raft_core::testing::MemoryNetwork, NodeId),
    /// A simulated world or a test cluster, which delivers the calls itself.
    #[cfg(feature = "testing")]
    World,
}

impl Listening {
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Sockets(sockets) => Some(sockets.nodes.local_addr()),
            Self::Closed => None,
            #[cfg(feature = "testing")]
            Self::Memory(..) | Self::World => None,
        }
    }

    /// Where clients and operators reach it.
    pub(crate) fn client_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Sockets(Sockets { clients: Some(clients), .. }) => Some(clients.local_addr()),
            _ => None,
        }
    }

    /// The TLS of the server and of the calls; `None` without.
    pub(crate) fn tls(&self) -> Option<&Tls> {
        match self {
            Self::Sockets(sockets) => sockets.tls.as_ref(),
            Self::Closed => None,
            #[cfg(feature = "testing")]
            Self::Memory(..) | Self::World => None,
        }
    }

    pub(crate) async fn shut_down(self) {
        match self {
            Self::Sockets(Sockets { nodes, clients, .. }) => {
                let clients = async {
                    if let Some(clients) = clients {
                        clients.shutdown().await;
                    }
                };
                tokio::join!(nodes.shutdown(), clients);
            }
            Self::Closed => {}
            #[cfg(feature = "testing")]
            Self::Memory(board, node) => board.disconnect(node),
            #[cfg(feature = "testing")]
            Self::World => {}
        }
    }
}

/// The TLS of a node, whose certificate has to be its own.
pub(crate) fn tls_of(node: NodeId, credentials: Credentials) -> Result<Tls, StartError> {
    let subject = credentials.subject().clone();
    let own = Subject { role: CallerRole::Node(node), ..subject.clone() };
    if subject != own {
        let why = format!("{node} needs its own, with the DNS name {}", own.dns_name());
        return Err(invalid("the certificate", &format!("that of {subject}"), &why));
    }
    Tls::new(credentials).map_err(|error| invalid("the certificate", &format!("that of {subject}"), &error))
}

/// How long a port that is taken is waited for: a start that was dropped gives it back a moment later.
const FREE_WITHIN: Duration = Duration::from_secs(2);

/// Listens on an address.
pub(crate) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let give_up = Instant::now() + FREE_WITHIN;
    loop {
        match TcpListener::bind(address) {
            Err(taken) if taken.kind() == io::ErrorKind::AddrInUse && Instant::now() < give_up => {
                sleep(Duration::from_millis(20)).await;
            }
            bound => return bound,
        }
    }
}

/// A setting that cannot work.
pub(crate) fn invalid(what: &'static str, value: &str, why: &dyn std::fmt::Display) -> StartError {
    StartError::Config { what, value: value.into(), why: why.to_string() }
}

/// Parses addresses, and names the first that is none.
pub(crate) fn addresses(
    what: &'static str,
    given: impl IntoIterator<Item = String>,
) -> Result<Vec<Address>, StartError> {
    given.into_iter().map(|text| Address::new(text.clone()).map_err(|e| invalid(what, &text, &e))).collect()
}

/// Why other nodes cannot reach `address` over TCP; `None` for a host and a port.
pub(crate) fn unreachable(address: &Address) -> Option<&'static str> {
    let text = address.as_str();
    if text.parse::<SocketAddr>().is_ok_and(|a| a.ip().is_unspecified()) {
        return Some("other nodes cannot reach a wildcard address; set the addresses of this node with `advertise`");
    }
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty() && !host.contains(char::is_whitespace));
    let named = port.is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port != 0));
    (!named).then_some("a host and a port are needed, such as 10.0.0.3:7400 or [fd00::3]:7400")
}

/// Checks that other nodes can reach each address over TCP.
pub(crate) fn reachable(what: &'static str, given: &[Address]) -> Result<(), StartError> {
    given.iter().try_for_each(|address| match unreachable(address) {
        Some(why) => Err(invalid(what, address.as_str(), &why)),
        None => Ok(()),
    })
}
