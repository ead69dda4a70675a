//! What every member does for itself.
//!
//! ```text
//!   enter       bootstrap, join, resume            gate        which callers are let in
//!   renewer     renewals to the leader             succession  the locks of a former life
//!   locks, releaser, queue, records                what a consumer holds and stores
//! ```

pub(crate) mod enter;
pub(crate) mod gate;
pub(crate) mod locks;
pub(crate) mod queue;
pub(crate) mod records;
pub(crate) mod releaser;
pub(crate) mod renewer;
pub(crate) mod succession;
