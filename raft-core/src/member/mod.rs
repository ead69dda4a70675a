//! What every member does for itself: entering a cluster, admitting callers, renewing its lease, and serving its
//! consumer.
//!
//! ```text
//!   bootstrap   founds a cluster                   gate        admits callers, or refuses them with a reason
//!   join        joins one, or resumes membership   departure   leaves: gives up, notes it, commits it
//!   renewer     sends renewals to the leader       succession  inherits the locks of a former life
//!   locks, releaser, queue, records                what a consumer holds and stores
//!   guarded_child   processes under a lock, which is released when none is left
//! ```

mod bootstrap;
pub(crate) mod departure;
pub(crate) mod gate;
mod guarded_child;
pub(crate) mod join;
pub(crate) mod lock_error;
pub(crate) mod locks;
pub(crate) mod queue;
pub(crate) mod records;
pub(crate) mod releaser;
pub(crate) mod renewer;
pub(crate) mod succession;
