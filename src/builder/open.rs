//! From the description of a node to a node that listens.
//!
//! ```text
//!   Ready ──▶ ports bound ──▶ Node, with its folder and its log ──▶ servers: one for all, or one for nodes and one for clients
//! ```
//!
//! The ports come first: with port 0 the addresses of the node are known only then.

use std::sync::Arc;
use std::time::Duration;

use quorate_raft_core::{Node, NodeSettings, StartError, Transport};
use quorate_transport_grpc::enrollment::keep_certificates;
use quorate_transport_grpc::{ClientSettings, GrpcTransport, PortUse, Server, ServerSettings};

use tokio::task::JoinSet;

use super::{Ready, Security, Wire};
use crate::listening::{self, ClientPort, Listening, Sockets, addresses, invalid, reachable};

impl Ready {
    /// Whether plaintext is used where only this machine reaches it, or was allowed elsewhere.
    fn said_twice(&self) -> Result<(), StartError> {
        let Wire::Socket(address, Security::Plaintext) = &self.wire else { return Ok(()) };
        let at = [Some(*address), self.clients.address()];
        match at.into_iter().flatten().find(|at| !at.ip().is_loopback()) {
            Some(open) if !self.plaintext_anywhere => {
                let why = "without TLS, whoever reaches it controls the cluster; use `listen`, or say it a second time with \
                           `plaintext_beyond_loopback`";
                Err(invalid("the address to listen on", &open.to_string(), &why))
            }
            _ => Ok(()),
        }
    }

    pub(super) async fn open(self) -> Result<(Node, Listening), StartError> {
        self.said_twice()?;
        let Self { node, data, wire, clients, fencer, stop, trust_vm_clock, advertised, mut config, timeout, .. } =
            self;
        config.fence_hint = self.hint.or(config.fence_hint);
        config.fencer_tells_lives_apart |= self.tells_lives_apart;
        match wire {
            Wire::Socket(address, security) => {
                let tls = match security {
                    Security::Plaintext => None,
                    Security::Shown(credentials) => Some(listening::tls_of(node, credentials)?),
                    Security::Own(tls) => tls,
                };
                let failed = |cause| StartError::Listen { address: address.to_string(), cause };
                let listener = listening::bind(address).await.map_err(failed)?;
                let for_clients = match clients {
                    ClientPort::At(at) => {
                        let failed = |cause| StartError::Listen { address: at.to_string(), cause };
                        Some(listening::bind(at).await.map_err(failed)?)
                    }
                    ClientPort::Same | ClientPort::Nowhere => None,
                };
                let bound = listener.local_addr().map_err(failed)?;
                let own = if advertised.is_empty() { vec![bound.to_string()] } else { advertised };
                let addresses = addresses("an advertised address", own)?;
                reachable("an advertised address", &addresses)?;
                let client = ClientSettings::for_heartbeat(config.timing.plan().heartbeat);
                let transport: Arc<dyn Transport> = match &tls {
                    Some(tls) => Arc::new(GrpcTransport::over_tls(client, tls.clone())),
                    None => Arc::new(GrpcTransport::with_settings(client)),
                };
                // A call outlives the command that it carries, so that the caller hears how the command ended.
                let call_timeout = config.propose_timeout + Duration::from_secs(30);
                let settings = NodeSettings { node, data, addresses, config, transport, fencer, stop, trust_vm_clock };
                let node = Node::start_within(settings, timeout).await?;
                // The node stops before its server does, so calls that are still running cannot succeed any more.
                let shutdown_grace = Duration::from_millis(200);
                let settings = ServerSettings { shutdown_grace, call_timeout, ..Default::default() };
                let serve = |listener, port_use| {
                    let settings = ServerSettings { port_use, ..settings };
                    Server::start_with(listener, node.service(), settings, tls.clone()).map_err(failed)
                };
                let nodes = serve(listener, clients.of_the_other())?;
                let clients = for_clients.map(|listener| serve(listener, PortUse::Clients)).transpose()?;
                let mut upkeep = JoinSet::new();
                if let Some(tls) = &tls {
                    upkeep.spawn(keep_certificates(node.service(), tls.clone()));
                }
                Ok((node, Listening::Sockets(Sockets { nodes, clients, tls, _upkeep: upkeep })))
            }
            #[cfg(feature = "testing")]
            Wire::Memory(board) => {
                let own = quorate_raft_core::testing::MemoryNetwork::address(node);
                let addresses = vec![own.map_err(|e| invalid("the address", &node.to_string(), &e))?];
                let transport = board.transport(node);
                let settings = NodeSettings { node, data, addresses, config, transport, fencer, stop, trust_vm_clock };
                let started = Node::start_within(settings, timeout).await?;
                board.connect(node, started.service());
                Ok((started, Listening::Memory(board, node)))
            }
        }
    }
}
