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

pub mod config;
mod engine;
pub mod error;
pub mod feed;
mod folder;
mod host;
mod inner;
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

pub use config::Config;
pub use error::{Fatal, HandOverError, ProposeError, ReadError, Refusal, StartError, SucceedError, TransportError};
pub use feed::{FeedItem, Filter};
pub use leader::fencer::{FenceRequest, Fencer, Fencing, Returned};
pub use lease::stop::{BoundChild, Deadman, StopMechanism, TokensOnly, Watchdog};
pub use lease::{Lease, LeaseStage, LeaseView, NotHeld, ProtectError, Protection, ledger, stop};
pub use member::locks::{LockError, LockGuard, NotPermitted, Permit};
pub use member::queue::Delivery;
pub use member::records::{AsOf, Records, Write};
pub use node::{Committed, Node, NodeSettings};
pub use probe::{Probe, probe};
pub use token_gate::{GateError, TokenGate};
pub use transport::{ClientService, Lane, Peer, PeerService, PeerServiceExt, Service, Transport, TransportExt};
pub use view::{Local, Sighting, View};
