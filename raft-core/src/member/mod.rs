//! What every member does for itself: entering a cluster, admitting callers, renewing its lease, and serving its
//! consumer.
//!
//! ```text
//!   enter       bootstrap, join, resume            gate        admits callers, or refuses them with a reason
//!   renewer     sends renewals to the leader       succession  inherits the locks of a former life
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
