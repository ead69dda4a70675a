//! The network of quorate: nodes speak gRPC with each other, and clients in any language speak it with a node.
//!
//! ```text
//!   raft-core ──▶ GrpcTransport ──links.rs──▶ connection: Control ═╗
//!   (asks a peer)   client.rs     per peer    connection: Log ═════╬═ HTTP/2 ═▶ Server ──router.rs──▶ Service ──▶ raft-core
//!                                 and lane    connection: Snapshot ╣            server.rs            (another node)
//!                                             connection: Lease ═══╝
//!                                             any language, Cluster, Store ═══▶
//! ```
//!
//! The protocol is `proto/quorate/v1`: `raft.proto` between nodes, `cluster.proto` and `store.proto` for clients, `types.proto` for
//! all. Its generated types stay inside this crate; `convert` translates between them and the types of [`quorate_raft_core::rpc`].
//!
//! What a caller can rely on:
//!
//! * Each failed call tells how it failed: it never arrived ([`TransportError::Unreachable`]), it may have arrived
//!   ([`TransportError::Timeout`], [`TransportError::Broken`]), or it was refused and nothing changed
//!   ([`TransportError::Refused`], with the exact value that the peer gave).
//! * Everything that arrives is checked before it is passed on: sizes, required fields, the checksum of every command
//!   and snapshot.
//! * A dead peer is tried a few times a second however often it is called, and a revived one is found by the next try.
//! * No client can make a server panic, or keep it from serving others, by what it sends or fails to send.
//!
//! With [`tls`], each side proves who it is, and may do what its certificate allows. Without it, nobody is authenticated and nothing
//! is encrypted: anyone who reaches the port can give commands, an operator's confirmation included. A
//! [`Refusal`](quorate_raft_core::Refusal) then protects from mistakes, not from attacks.
//!
//! [`TransportError::Unreachable`]: quorate_raft_core::TransportError::Unreachable
//! [`TransportError::Timeout`]: quorate_raft_core::TransportError::Timeout
//! [`TransportError::Broken`]: quorate_raft_core::TransportError::Broken
//! [`TransportError::Refused`]: quorate_raft_core::TransportError::Refused

mod addresses;
mod append_stream;
mod both_ways;
mod call_service;
mod call_stream;
mod client;
mod cluster_service;
mod connection;
mod convert;
mod descriptors;
mod dial;
pub mod enrollment;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod fuzzing;
mod grpc_errors;
mod handshake;
mod link_table;
mod links;
mod net;
mod of_connection;
mod paced;
mod pipeline;
mod places;
mod probes;
mod progress;
mod raft_service;
mod refusing;
mod rights;
mod router;
mod server;
mod settings;
mod stalled;
mod standing;
mod store_service;
pub mod tls;

#[expect(
    unreachable_pub,
    clippy::allow_attributes,
    clippy::large_enum_variant,
    reason = "generated from proto/quorate/v1, and private to this crate"
)]
mod pb {
    tonic::include_proto!("quorate.v1");
}

pub use client::GrpcTransport;
pub use server::Server;
pub use settings::{APPEND_LIMIT, CHUNK_LIMIT, ClientSettings, MESSAGE_LIMIT, PortUse, SNAPSHOT_LIMIT, ServerSettings};
