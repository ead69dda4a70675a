//! The pure core of quorate: what is true of a cluster, and what follows from a command.
//!
//! ```text
//!                   ┌──────────────────── no clock, no socket, no task, no randomness ────────────────┐
//!   Command ──────▶ │ decide(&state, revision, &command) ─▶ Ok(Vec<Event>) │ Err(Rejection)           │
//!   (from the log)  │ evolve(&mut state, revision, &event)                                             │ ──▶ Event
//!                   │ duties(&state) ─▶ what the leader still owes                                     │
//!                   └──────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! There are three verbs. [`decide()`] answers a command and does not change the state, [`evolve()`] applies an event,
//! and [`duties`] computes from the state what the leader has yet to bring about. Every replica runs them on the same
//! log, and so holds the same [`ClusterState`]. The model checker, the property tests and the scripts in `tests/` use
//! these very types.
//!
//! A file names only files of its own layer and of the layers below, and no files name each other in a circle:
//!
//! ```text
//!   policy   agenda · awaited · candidacy · former_lives · session · lease/ · proved_end      what a leader or a member does now
//!   verbs    apply ──▶ decide/ ──▶ evolve/ · duty                          what follows from a command, an event, a state
//!   state    cluster · command · event, topic · rejection                  what is committed, asked and answered
//!   types    member · proof, fencing · store/                              what the state is made of
//!   ground   id · text · quorum · contract, timing · detector · codec · collections      numbers, bounds, arithmetic, bytes
//! ```
//!
//! Where to read on: [`member`](mod@member) for the phases of a life, [`fencing`] for orders, [`FenceProof`] for
//! proofs, [`lease`] for the right to act, [`timing`] for its arithmetic, [`quorum`] for majorities, [`agenda()`] for
//! what a leader does next; [`lock`], [`record`], [`work_queue`] and [`session`] for what consumers store.
//!
//! ```
//! use quorate_membership::*;
//!
//! let mut state = ClusterState::new();
//! let founded = apply(&mut state, Revision::new(1), &Command::Found { cluster: ClusterId::new(7) })?;
//! assert_eq!(founded[0].to_string(), "founded 00000000000000000000000000000007");
//!
//! // A rejection names a remedy, and changes nothing.
//! let error = apply(&mut state, Revision::new(2), &Command::Remove { node: NodeId::new(3), by: None }).unwrap_err();
//! assert_eq!(error.to_string(), "n3 is not a member of this cluster; add it first");
//! # Ok::<(), Rejection>(())
//! ```

/// Whether the seeded mistake of this name is switched on: never, outside the build of `make mutants`. That build has all
/// of them, and the environment variable `QUORATE_MUTANT` chooses one for a run of a test.
#[cfg(not(quorate_mutants))]
#[doc(hidden)]
#[macro_export]
macro_rules! mutant {
    ($name:literal) => {
        false
    };
}

/// The same, in the build of `make mutants`.
#[cfg(quorate_mutants)]
#[doc(hidden)]
#[macro_export]
macro_rules! mutant {
    ($name:literal) => {{
        static CHOSEN: std::sync::LazyLock<bool> =
            std::sync::LazyLock::new(|| std::env::var_os("QUORATE_MUTANT").is_some_and(|name| name == $name));
        *CHOSEN
    }};
}

mod agenda;
mod apply;
mod awaited;
mod bounded_text;
mod candidacy;
pub mod cluster;
pub mod codec;
mod collections;
mod command;
mod contract;
mod decide;
pub mod detector;
mod duty;
mod event;
mod evolve;
pub mod fencing;
mod former_lives;
mod id;
pub mod lease;
pub mod member;
mod principal;
mod proof;
mod proved_end;
pub mod quorum;
mod reachability;
mod rejection;
pub mod session;
mod shared;
mod store;
pub mod timing;
mod topic;

pub use agenda::{Outlook, Work, agenda, fencers_for, proved_soon};
pub use apply::apply;
pub use awaited::{Awaited, NextProof, awaited};
pub use bounded_text::{Reason, TextError};
pub use candidacy::Candidacy;
pub use cluster::{ClusterState, Leadership};
pub use command::Command;
pub use contract::{Contract, ContractError, ContractPart, Drift, Stop};
pub use decide::decide;
pub use duty::{Duty, duties};
pub use event::Event;
pub use evolve::evolve;
pub use fencing::{Cause, FenceOrder, FenceRecord, Fences, Progress};
pub use former_lives::{FormerLives, due_declaration};
pub use id::{
    Activation, BootId, ClusterId, DiskId, Epoch, FenceId, Identity, Incarnation, ItemId, NodeId, Nonce, ParseIdError,
    Revision, SessionId,
};
pub use member::{Address, Disk, FenceHint, Life, Member, Phase, Role};
pub use principal::Principal;
pub use proof::{Confirmation, Evidence, FenceProof, Operator};
pub use proved_end::ProvedEnd;
pub use quorum::{Configuration, majority};
pub use reachability::{LargeMessages, LeaderContact, Reachability};
pub use rejection::Rejection;
pub use store::lock::{Holder, Lock, Name, Release};
pub use store::record::{Change, Check, Key, Record, Value};
pub use store::request::{Fate, Request};
pub use store::session::Session;
pub use store::{MAX_BYTES, Store, lock, record, request, work_queue};
pub use timing::{Plan, Profile, Timing, TimingError};
pub use topic::Topic;
