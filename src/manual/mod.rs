//! The manual: what is promised and what is not, how it is built, how to fence, how to run it.

#[doc = include_str!("guarantees.md")]
pub mod guarantees {}

#[doc = include_str!("fencing.md")]
pub mod fencing {}

#[doc = include_str!("operations.md")]
pub mod operations {}

#[doc = include_str!("architecture.md")]
pub mod architecture {}
