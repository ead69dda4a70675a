//! Who is in the cluster, who may act, and who has certainly stopped.
//!
//! quorate is what a program builds on that must run something *exactly once* on a handful of machines: a hypervisor
//! manager, a database failover daemon, a scheduler. It wraps Raft for membership and quorum, has lost nodes fenced by
//! a callback of yours, and tells every node, in the same order, whose work may be taken over and by which proof.
//!
//! ```text
//!   your program ──▶ Cluster ──▶ openraft, durable log, fencing ──▶ the same on the other nodes
//!        ▲              │
//!        └── events: Activated(n2#1) … Fenced{n3#1, proof, token} … Left{n1#4, token}
//! ```
//!
//! A cluster of one, in memory, from founding to leaving:
//!
//! ```
//! # #[cfg(feature = "testing")]
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use quorate::{Cluster, Event, NodeId, testing::MemoryNetwork};
//!
//! let folder = tempfile::tempdir()?;
//! let cluster = Cluster::builder(NodeId::new(1))
//!     .data(folder.path())
//!     .in_memory(&MemoryNetwork::new())     // in production: .listen_plaintext("10.0.0.1:7400".parse()?)
//!     .without_fencing()                  // in production: .fencing(your type, or a closure)
//!     .bootstrap()
//!     .await?;
//! assert_eq!(cluster.identity().to_string(), "n1#1");
//!
//! // Every event since the beginning, in the order of the log, the same on every node.
//! let mut events = cluster.events_since(quorate::Revision::default());
//! loop {
//!     match events.next().await? {
//!         Event::Activated { who } if who == cluster.identity() => break, // from here on it may be given work
//!         other => println!("{other}"),
//!     }
//! }
//! cluster.leave().await?;
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "testing"))]
//! # fn main() {}
//! ```
//!
//! Where to read on: [`Builder`](builder::Builder) for starting a node, [`Cluster`] for everything that it can be
//! asked, [`Fencer`] for ending the life of another, [`manual`] for what is promised and what is not.

pub mod builder;
mod cluster;
mod dangerous;
pub mod error;
mod events;
pub mod manual;

pub use cluster::Cluster;
pub use dangerous::Dangerous;
pub use error::{ActiveError, EventsError, Fatal, HandOverError, ProposeError, ReadError, StartError, SucceedError};
pub use events::{Events, Watch};
pub use quorate_membership::{
    Activation, Address, BootId, Cause, Change, Check, ClusterId, ClusterState, Configuration, Confirmation, Contract,
    ContractError, Disk, DiskId, Drift, Duty, Epoch, Event, Evidence, Fate, FenceId, FenceOrder, FenceProof,
    FenceRecord, Fences, Holder, Identity, Incarnation, ItemId, Key, Leadership, Life, Lock, Member, Name, NodeId,
    Nonce, ParseIdError, Phase, Plan, Profile, Progress, ProvedEnd, Reason, Record, Rejection, Release, Request,
    Revision, Role, Session, SessionId, Stop, Store, TextError, Timing, TimingError, Topic, Value, detector::Signal,
    duties, evolve, lock, majority, queue, record, request, session,
};
pub use quorate_raft_core::{
    AsOf, BoundChild, Committed, Config, Deadman, Delivery, FenceFuture, FenceRequest, Fencer, Filter, GateError,
    Lease, LeaseStage, LeaseView, Local, LockError, LockGuard, NotHeld, NotPermitted, Permit, Probe, ProtectError,
    Protection, Records, Returned, Sighting, StopMechanism, TokenGate, TokensOnly, View, Watchdog, Write, ledger,
    probe,
};

/// The program of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Clusters in one process and a network in memory, for tests of programs that embed quorate.
#[cfg(feature = "testing")]
pub use quorate_raft_core::testing;
