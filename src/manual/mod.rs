//! The manual: what is promised and what is not, how it is built, how to fence, how a
//! node stops by itself, what it keeps for you, how to run it.

#[doc = include_str!("guarantees.md")]
pub mod guarantees {}

#[doc = include_str!("fencing.md")]
pub mod fencing {}

#[doc = include_str!("leases.md")]
pub mod leases {}

#[doc = include_str!("locks.md")]
pub mod locks {}

#[doc = include_str!("operations.md")]
pub mod operations {}

#[doc = include_str!("architecture.md")]
pub mod architecture {}
