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

mod ask;
mod clock;
pub mod config;
mod confirm;
mod engine;
#[cfg(test)]
mod engine_tests;
mod enter;
pub mod error;
pub mod feed;
pub mod fencer;
mod folder;
mod gate;
mod grantor;
mod host;
mod inner;
mod keeper;
mod lead;
pub mod lease;
pub mod ledger;
pub mod locks;
mod log_store;
mod machine;
mod monitor;
mod network;
pub mod node;
pub mod probe;
mod propose;
pub mod queue;
mod reconcile;
pub mod records;
mod renewer;
pub mod rpc;
#[cfg(any(test, feature = "testing"))]
mod runtime;
mod service;
mod sessions;
pub mod stop;
mod successor;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod token_gate;
pub mod transport;
mod types;
mod view;

pub use config::Config;
pub use error::{Fatal, HandOverError, ProposeError, ReadError, Refusal, StartError, SucceedError, TransportError};
pub use feed::{FeedItem, Filter};
pub use fencer::{FenceRequest, Fencer, Fencing, Returned};
pub use lease::{Lease, LeaseStage, LeaseView, NotHeld, ProtectError, Protection};
pub use locks::{LockError, LockGuard, NotPermitted, Permit};
pub use node::{Committed, Node, NodeSettings};
pub use probe::{Probe, probe};
pub use queue::Delivery;
pub use records::{AsOf, Records, Write};
pub use stop::{BoundChild, Deadman, StopMechanism, TokensOnly, Watchdog};
pub use token_gate::{GateError, TokenGate};
pub use transport::{Lane, Peer, Service, Transport};
pub use view::{Local, Sighting, View};
