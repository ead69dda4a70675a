//! The wire of quorate: nodes speak gRPC with each other, and so may anybody who has something to ask of one.
//!
//! ```text
//!   raft-core ──▶ GrpcTransport ──links.rs──▶ connection: Control ═╗
//!   (asks a peer)   client.rs     per peer    connection: Log ═════╬═ HTTP/2 ═▶ Server ──router.rs──▶ Service ──▶ raft-core
//!                                 and lane    connection: Snapshot ╣            server.rs            (another node)
//!                                             connection: Lease ═══╝
//!                                             any language, Cluster, Store ═══▶
//! ```
//!
//! The protocol is `proto/quorate/v1`: `raft.proto` between nodes, `cluster.proto` and `store.proto` for everybody. Its generated types
//! stay inside this crate; `convert` stands between them and those of [`quorate_raft_core::rpc`].
//!
//! What a caller can rely on:
//!
//! * Each call says how it ended: it never arrived ([`TransportError::Unreachable`]), it may have arrived
//!   ([`TransportError::Timeout`], [`TransportError::Broken`]), or it was refused and nothing changed
//!   ([`TransportError::Refused`], the very value that the other side gave).
//! * What arrives is checked before it is passed on: sizes, required fields, the checksum of every command and snapshot.
//! * A dead peer is tried a few times a second however often it is called, and a revived one is found by the next try.
//! * Nobody at the port can make a server panic, or keep it from serving others, by what they send or fail to send.
//!
//! What it does not do: authenticate anybody, or hide anything. Without TLS, whoever reaches the port can give commands,
//! an operator's word included; [`Refusal`](quorate_raft_core::Refusal) guards against mistakes, not against malice.
//!
//! [`TransportError::Unreachable`]: quorate_raft_core::TransportError::Unreachable
//! [`TransportError::Timeout`]: quorate_raft_core::TransportError::Timeout
//! [`TransportError::Broken`]: quorate_raft_core::TransportError::Broken
//! [`TransportError::Refused`]: quorate_raft_core::TransportError::Refused

mod client;
mod cluster_service;
mod connection;
mod convert;
mod greeting;
mod links;
mod net;
mod pipeline;
mod raft_service;
mod router;
mod server;
mod status;
mod store_service;

#[expect(
    unreachable_pub,
    clippy::allow_attributes,
    clippy::large_enum_variant,
    reason = "generated from proto/quorate/v1, and private to this crate"
)]
mod pb {
    tonic::include_proto!("quorate.v1");
}

pub use client::{ClientSettings, GrpcTransport};
pub use server::{Server, ServerSettings};

use quorate_membership::codec;

/// The largest batch of entries in one message, in bytes. A larger one is refused on both sides, before it is sent.
pub const APPEND_LIMIT: usize = 16 << 20;

/// The largest message of any other kind, in bytes.
pub const MESSAGE_LIMIT: usize = 4 << 20;

/// The largest snapshot, in bytes: the largest payload of an envelope, and its header of 16 bytes.
pub const SNAPSHOT_LIMIT: usize = codec::LIMIT + 16;

/// The largest piece of a snapshot in one message, in bytes: small enough to let other streams through in between.
pub const CHUNK_LIMIT: usize = 256 << 10;
