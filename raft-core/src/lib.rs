//! The engine room of quorate.
//!
//! ```text
//!             ┌──────────────────────────── Node ─────────────────────────────┐
//!   propose ─▶│  openraft ──▶ log_store (redb, one writer, one fsync a group) │
//!             │     │ committed                                               │
//!             │     ▼                                                         │
//!             │  machine ──▶ membership::apply ──▶ feed (ordered, resumable)  │──▶ events, view
//!             │                     │ duties                                  │
//!             │  monitor ──▶ reconcile ──▶ fencer (yours)                     │
//!             └──────│────────────────────────────────────────────────────────┘
//!                    └── Transport / Service (any network)
//! ```
//!
//! openraft decides the order of entries; [`quorate_membership`] decides what they mean. Nothing in this crate acts on
//! openraft's idea of who leads: an isolated leader believes in itself for ever. It only triggers work whose every
//! effect is a committed entry.

mod client_service;
pub mod config;
mod engine;
pub mod error;
pub mod feed;
pub mod fencer;
mod folder;
mod host;
mod leader;
mod lease;
mod member;
pub mod node;
pub mod probe;
pub mod rpc;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod token_gate;
pub mod transport;
mod view;

pub use client_service::{ClientService, MakeCommand, Service};
pub use config::Config;
pub use error::{Fatal, HandOverError, ProposeError, ReadError, Refusal, StartError, SucceedError, TransportError};
pub use feed::{FeedItem, Filter};
pub use fencer::{FenceFuture, FenceRequest, Fencer, Returned};
pub use lease::stop::{BoundChild, Deadman, StopMechanism, TokensOnly, Watchdog};
pub use lease::{Lease, LeaseStage, LeaseView, NotHeld, ProtectError, Protection, ledger, stop};
pub use member::locks::{LockError, LockGuard, NotPermitted, Permit};
pub use member::queue::Delivery;
pub use member::records::{AsOf, Records, Write};
pub use node::{Node, NodeSettings};
pub use probe::{Probe, probe};
pub use rpc::Committed;
pub use token_gate::{GateError, TokenGate};
pub use transport::{Lane, Peer, PeerService, PeerServiceExt, RequestName, Transport, TransportExt};
pub use view::{Local, Sighting, View};
