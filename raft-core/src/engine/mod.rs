//! openraft behind plain types.
//!
//! ```text
//!   propose, read ──▶ Engine ──▶ openraft ──▶ log_store (redb, one writer, one fsync a group)
//!                                   │ committed
//!                                   ▼
//!                             state_machine ──▶ membership::apply ──▶ feed (ordered, resumable)
//!   peers, network ◀── calls to the other nodes
//! ```
//!
//! No openraft type leaves this room.

pub(crate) mod confirm;
pub(crate) mod leadership;
pub(crate) mod log_store;
pub(crate) mod network;
pub(crate) mod open;
pub(crate) mod peers;
pub(crate) mod propose;
pub(crate) mod request;
mod runtime;
pub(crate) mod state_machine;
#[cfg(test)]
mod tests;
pub(crate) mod types;
