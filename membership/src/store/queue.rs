//! Queues: commands from any node to whoever holds the lock of the same name.
//!
//! ```text
//!   Push ─▶ q7 waits ──Take (token r42)──▶ taken under r42 ──Acknowledge (r42)──▶ gone
//!                 ▲                              │
//!                 └── the lock passes on: r42 is no token any more, and q7 is there for the next one
//! ```
//!
//! An item leaves the queue only by an acknowledgement under the token that took it, while that token is the lock's. So a
//! holder that dies after taking one does not lose it, and under one token none is given out twice. It may be *carried
//! out* twice: by a holder that died before it could acknowledge, and by its successor. Acknowledging in the same
//! [`Write`](crate::Command::Write) that stores the outcome makes both one.

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use crate::id::{ItemId, Nonce, Revision};
use crate::store::record::Value;

/// The most items in one queue.
pub const MAX_QUEUE: usize = 1024;

/// The most items in all queues.
pub const MAX_ITEMS: u64 = 16_384;

/// Under which token an item was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Taken {
    /// The token of the lock's holder.
    pub token: Revision,
    /// The request that took it.
    pub request: Nonce,
}

/// Something that waits in a queue.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Item {
    /// What.
    pub value: Value,
    /// Since when.
    pub pushed: Revision,
    /// Who took it last, if anybody did. It counts only while that token is the lock's.
    pub taken: Option<Taken>,
}

/// What waits for the holders of one lock.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Queue {
    pub(crate) items: OrdMap<ItemId, Item>,
}
