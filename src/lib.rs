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

pub use builder::Builder;
pub use cluster::Cluster;
pub use dangerous::Dangerous;
pub use error::{EventsError, ProposeError, StartError};
pub use events::{Events, Watch};
pub use quorate_membership::{
    Address, Event, Evidence, Identity, Key, Name, NodeId, Operator, Profile, Reason, Revision, Role, Timing,
};
pub use quorate_raft_core::{
    Config, Deadman, FenceRequest, Fencer, Filter, Lease, LockError, LockGuard, Records, TokensOnly, View, Watchdog,
};

pub mod lock {
    //! Locks: what guards one, what may be begun under it, and what the committed state has of it.

    pub use quorate_membership::lock::*;
    pub use quorate_raft_core::{GateError, LockError, LockGuard, NotPermitted, Permit, TokenGate};
}

pub mod lease {
    //! This node's own right to act: the lease, the work under it, and the mechanisms that end the work.

    pub use quorate_membership::{Contract, ContractError, Drift, Stop};
    pub use quorate_raft_core::{
        BoundChild, Deadman, Lease, LeaseStage, LeaseView, NotHeld, Probe, ProtectError, Protection, StopMechanism,
        TokensOnly, Watchdog, ledger, probe,
    };
}

pub mod records {
    //! The consumer's own records, transactions on them, and queues.

    pub use quorate_membership::queue::*;
    pub use quorate_membership::record::*;
    pub use quorate_membership::{ItemId, MAX_BYTES};
    pub use quorate_raft_core::{AsOf, Delivery, Records, Write};
}

pub mod fencing {
    //! Fencing: the callback that ends lives, the orders it carries out, and the proofs that it gives.

    pub use quorate_membership::{
        Cause, Confirmation, Evidence, FenceId, FenceOrder, FenceProof, FenceRecord, Fences, Operator, Progress,
        ProvedEnd, Reason,
    };
    pub use quorate_raft_core::{FenceFuture, FenceRequest, Fencer, Returned};
}

pub mod state {
    //! What is true of the cluster, as the log has it, and what one node sees from where it stands.

    pub use quorate_membership::detector::Signal;
    pub use quorate_membership::request::*;
    pub use quorate_membership::session::*;
    pub use quorate_membership::{
        Activation, BootId, ClusterId, ClusterState, Configuration, Disk, DiskId, Duty, Epoch, Incarnation, Leadership,
        Life, Member, Nonce, ParseIdError, Phase, Rejection, SessionId, Store, TextError, Topic, duties, evolve,
        majority,
    };
    pub use quorate_raft_core::{Committed, Local, Sighting, View};
}

pub mod timing {
    //! Heartbeats, elections and leases as one value whose inequalities hold, and every other setting of a node.

    pub use quorate_membership::{Plan, Profile, Timing, TimingError};
    pub use quorate_raft_core::Config;
}

/// The program of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Clusters in one process and a network in memory, for tests of programs that embed quorate.
#[cfg(feature = "testing")]
pub use quorate_raft_core::testing;
