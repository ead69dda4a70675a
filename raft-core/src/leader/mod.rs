//! The tasks of the leader. They run on every node, and do something only on the one that leads.
//!
//! ```text
//!   ended ── refused by a machine ─▶ monitor
//!   monitor ──silent nodes──▶ reconciler ──▶ fence_runner ──▶ the consumer's fencer ◀── reach: can another member?
//!                                 └──▶ changes of voters, commands
//!   fitness         says whether this node should lead
//!   grantor         grants renewals of leases, and proposes the expiry of a lease that was not renewed
//!   standing_log    each change of this node's own standing, once
//!   session_table   answers keep-alives of sessions, and proposes their expiry
//! ```
//!
//! A node's belief that it leads only starts work here. Every effect is a committed entry, or a read that a quorum has
//! confirmed, so a leader that was deposed without noticing changes nothing.
//!
//! The policy is pure code in [`quorate_membership`]; these files run it with real clocks, calls and tasks.

pub(crate) mod ended;
pub(crate) mod fence_runner;
mod fitness;
pub(crate) mod grantor;
pub(crate) mod monitor;
pub(crate) mod reach;
pub(crate) mod reconciler;
pub(crate) mod session_table;
mod standing_log;
