//! What the node that leads does on behalf of the cluster.
//!
//! ```text
//!   monitor ──who is silent──▶ reconciler ──▶ fencer (the consumer's), changes of voters, commands
//!   grantor ──grants and expiries of leases        session_table ──keep-alives and expiries of sessions
//! ```
//!
//! Believing to lead only starts work here. Each effect is a committed entry or a read that a quorum confirmed.

pub(crate) mod fence_runner;
pub(crate) mod grantor;
pub(crate) mod monitor;
pub(crate) mod reconciler;
pub(crate) mod session_table;
