//! This node's own right to act: held, used, and ended in time.
//!
//! ```text
//!   handle     Lease, Protection: what the consumer sees            ─┐
//!   keeper     a thread that renews, gives notice, ends the lease    ├─▶ stop    the mechanism that ends the work
//!   protected  the work that runs under the lease                   ─┘    ledger  what was held, granted and proved
//! ```
//!
//! This room does not know openraft.

mod error;
pub(crate) mod handle;
pub(crate) mod keeper;
pub mod ledger;
pub(crate) mod message;
mod protected;
pub(crate) mod renewals;
pub(crate) mod status;
pub mod stop;

pub use self::error::{NotHeld, ProtectError};
pub use self::handle::{Lease, Protection};
pub use self::status::{LeaseStage, LeaseView};
