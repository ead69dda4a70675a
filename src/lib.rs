//! Cluster membership, quorum, leases and fencing for programs that must run each piece of work *at most once*.
//!
//! quorate is a library for a handful of machines that share work: a hypervisor manager, a database failover daemon, a
//! scheduler. It keeps membership in a Raft log, has lost nodes fenced by a callback that you provide, and delivers the
//! same events in the same order on every node. An event that ends a node's life carries the proof of that end, and a
//! token under which its work may be taken over.
//!
//! ```text
//!   your program ──▶ Cluster ──▶ openraft, durable log, fencing ──▶ the same on the other nodes
//!        ▲              │
//!        └── events: Activated(n2#1) … Fenced{n3#1, proof, token} … Left{n1#4, token}
//! ```
//!
//! # A cluster of one node
//!
//! This program founds a cluster in memory, follows its events and leaves it. A production program differs in the two
//! commented lines.
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
//!     .in_memory(&MemoryNetwork::new())     // in production: .listen("10.0.0.1:7400".parse()?)
//!     .without_fencing()                  // in production: .fencing(your type, or a closure)
//!     .bootstrap()
//!     .await?;
//! assert_eq!(cluster.identity().to_string(), "n1#1");
//!
//! // Every event since the beginning, in the order of the log.
//! let mut events = cluster.events_since(quorate::Revision::default());
//! loop {
//!     match events.next().await? {
//!         Event::Activated { who } if who == cluster.identity() => break, // this node may now be given work
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
//! # Where to look
//!
//! Start with [`Cluster`]: its [builder] starts a node, and its methods observe and change the cluster. [`Fencer`] is
//! the callback that ends lost nodes. The [`manual`] states the guarantees and their limits. Everyday names are at the
//! root of the crate; the modules group the rest:
//!
//! | module      | what it holds                                                                               |
//! |-------------|---------------------------------------------------------------------------------------------|
//! | [`lock`]    | locks, the guard of one, the permit to begin a step under it, the gate that checks tokens   |
//! | [`lease`]   | this node's right to act, work that is bound to it, the mechanisms that stop that work      |
//! | [`records`] | your own keys and values, transactions on them, queues for the holders of locks             |
//! | [`fencing`] | the fencing callback, fence orders, and the proofs that a life has ended                    |
//! | [`state`]   | the committed state of the cluster, and what one node observes of it                        |
//! | [`tls`]     | mutual TLS: certificates, whom they name, and what their holders may do                     |
//! | [`timing`]  | heartbeats, elections and leases as one checked value, and all other settings               |
//! | [`error`]   | errors of starting, commands, reads and events, with what each changed                      |
//!
//! The feature `testing` adds the module `testing`: clusters in one process, a network in memory and a simulated world.

pub mod builder;
mod cluster;
mod dangerous;
pub mod error;
mod events;
#[cfg(feature = "testing")]
mod in_tests;
mod invitations;
mod listening;
pub mod manual;
mod next_life;

pub use builder::Builder;
pub use cluster::Cluster;
pub use dangerous::Dangerous;
pub use error::{EventsError, ProposeError, StartError};
pub use events::{Events, Watch};
pub use quorate_membership::{
    Address, Event, Evidence, Identity, Key, Name, NodeId, Operator, Profile, Reason, Revision, Role, Timing,
};
pub use quorate_raft_core::{
    Config, Deadman, Departure, FenceRequest, Fencer, Filter, Lease, LockError, LockGuard, Records, TokensOnly, View,
    Watchdog,
};

pub mod lock {
    //! Locks: the guard of a held lock, the permit to begin a step under it, and locks in the committed state.

    pub use quorate_membership::lock::*;
    pub use quorate_raft_core::{GateError, LockError, LockGuard, LockWait, NotPermitted, Permit, TokenGate};
}

pub mod lease {
    //! The lease: this node's right to act, the work that runs under it, and the mechanisms that stop that work.

    pub use quorate_membership::lease::Reading;
    pub use quorate_membership::{Contract, ContractError, Drift, Stop};
    pub use quorate_raft_core::{
        BoundChild, Deadman, Lease, LeaseStage, LeaseView, NotHeld, Probe, ProtectError, Protection, StopMechanism,
        TokensOnly, Watchdog, ledger, probe,
    };
}

pub mod records {
    //! Your own keys and values, transactions on them, and queues for the holders of locks.

    pub use quorate_membership::record::*;
    pub use quorate_membership::work_queue::*;
    pub use quorate_membership::{ItemId, MAX_BYTES};
    pub use quorate_raft_core::{AsOf, Delivery, Records, Write};
}

pub mod fencing {
    //! Fencing: the callback that ends a node's life, the orders that it carries out, and the proofs of an end.

    pub use quorate_membership::{
        Cause, Confirmation, Evidence, FenceHint, FenceId, FenceOrder, FenceProof, FenceRecord, Fences, Operator,
        Progress, ProvedEnd, Reason,
    };
    pub use quorate_raft_core::{FenceFuture, FenceRequest, Fencer, ReachFuture, Returned};
}

pub mod state {
    //! The committed state of the cluster, and what one node observes of it.

    pub use quorate_membership::detector::Signal;
    pub use quorate_membership::request::*;
    pub use quorate_membership::session::*;
    pub use quorate_membership::{
        Activation, Awaited, BootId, ClusterId, ClusterState, Configuration, Disk, DiskId, Duty, Epoch, Incarnation,
        Leadership, Life, Member, NextProof, Nonce, ParseIdError, Phase, Principal, Rejection, SessionId, Store,
        TextError, Topic, awaited, duties, evolve, majority,
    };
    pub use quorate_raft_core::{Committed, LinkState, LinkView, Local, NodeLinks, Sighting, View};
}

pub mod tls {
    //! Mutual TLS: certificates, whom they name, and what their holders may do.

    pub use quorate_transport_grpc::enrollment::{Invite, InviteError};
    pub use quorate_transport_grpc::tls::{
        Authority, CallerRole, Credentials, CredentialsError, Issued, JoinToken, Subject, TokenError,
    };
}

pub mod timing {
    //! Heartbeats, elections and leases as one value whose inequalities are checked, and every other setting of a node.

    pub use quorate_membership::{Plan, Profile, Timing, TimingError};
    pub use quorate_raft_core::Config;
}

/// Compiles the program in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Clusters in one process, a network in memory and a simulated world, for tests of programs that embed quorate.
#[cfg(feature = "testing")]
pub use quorate_raft_core::testing;
