//! The manual: what is promised and what is not, how to fence, how a node stops by itself, what it stores for you, how to
//! run it, who may do what over the network, how it is built, the rules by number, and the words.

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

#[doc = include_str!("security.md")]
pub mod security {}

#[doc = include_str!("architecture.md")]
pub mod architecture {}

#[doc = include_str!("protocol.md")]
pub mod protocol {}

#[doc = include_str!("glossary.md")]
pub mod glossary {}
