//! This node's lease, its right to act: how it is held and used, and how the work under it is ended in time.
//!
//! ```text
//!   handle     Lease, Protection: what the consumer uses         stop    the mechanism that ends the work: dead-man,
//!      │                                                                 watchdog, children
//!      ▼                                                         ledger  what was held, granted and proved, and its audit
//!   message ──▶ keeper ──▶ protected ──▶ stop, ledger
//!                  └─────▶ stage: what handle reads
//! ```
//!
//! Nothing here knows openraft, or any other node.

mod error;
pub(crate) mod handle;
pub(crate) mod keeper;
pub mod ledger;
pub(crate) mod message;
mod protected;
pub(crate) mod renewals;
pub(crate) mod slow_disk;
pub(crate) mod stage;
pub mod stop;

pub use self::error::{NotHeld, ProtectError};
pub use self::handle::{Lease, Protection};
pub use self::stage::{LeaseStage, LeaseView};
