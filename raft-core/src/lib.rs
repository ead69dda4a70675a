//! The running node of quorate: openraft, leases, the leader's tasks and the member's tasks.
//!
//! The crate has six rooms. An arrow means "uses"; no arrow points up.
//!
//! ```text
//!   testing/   a simulated world, a network in memory, disks that fail
//!      │       knows everything; the product never names it
//!      ▼
//!   node/      puts a node together, and answers its callers
//!      │       knows every room below
//!      ▼
//!   leader/    what the leader does for the cluster: monitor, reconciler, grantor, sessions, fence runner
//!   member/    what every member does for itself: bootstrap, join, gate, renewals, locks, records
//!      │       neither knows the other; both know the two rooms below
//!      ├─────────────────────────────────┐
//!      ▼                                 ▼
//!   engine/    openraft behind plain     lease/    keeper, lease, stop mechanisms, ledger
//!      │       types, log, reads, feed      │      knows clocks and threads, not openraft
//!      │       knows nothing of leases      │
//!      ▼                                    ▼
//!   quorate-membership    the meaning of every committed entry: pure, without time, I/O or tasks
//! ```
//!
//! Files beside the rooms hold what several of them share: [`config`], [`error`], [`feed`], [`rpc`], [`transport`], the
//! data folder, and the host that provides clocks, tasks and randomness.
//!
//! openraft decides the order of entries, and [`quorate_membership`] decides what they mean. No decision here relies on
//! openraft's view of who leads, because an isolated leader keeps believing in itself. That view only triggers work,
//! and the effect of all work is a committed entry.

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

pub use client_service::{ClientService, ClientServiceExt, MakeCommand, Service};
pub use config::Config;
pub use error::{Fatal, HandOverError, ProposeError, ReadError, Refusal, StartError, SucceedError, TransportError};
pub use feed::{FeedItem, Filter};
pub use fencer::{FenceFuture, FenceRequest, Fencer, ReachFuture, Returned};
pub use lease::stop::{BoundChild, Deadman, StopMechanism, TokensOnly, Watchdog};
pub use lease::{Lease, LeaseStage, LeaseView, NotHeld, ProtectError, Protection, ledger, stop};
pub use member::departure::Departure;
pub use member::lock_error::{LockError, LockWait, NotPermitted};
pub use member::locks::{LockGuard, Permit};
pub use member::queue::Delivery;
pub use member::records::{AsOf, Records, Write};
pub use node::{Node, NodeSettings};
pub use probe::{Probe, probe};
pub use rpc::Committed;
pub use token_gate::{GateError, TokenGate};
pub use transport::{
    Lane, LinkState, LinkView, NodeLinks, Peer, PeerService, PeerServiceExt, RequestName, Transport, TransportExt,
};
pub use view::{Local, Sighting, View};
