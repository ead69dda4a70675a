//! Queues: items from any node for the holder of the lock of the same name.
//!
//! ```text
//!   Push ─▶ q7 waits ──Take (token r42)──▶ taken under r42 ──Acknowledge (r42)──▶ gone
//!                 ▲                              │
//!                 └── the lock passes on: r42 is no longer its token, and the next holder can take q7
//! ```
//!
//! An item leaves the queue only when it is acknowledged under the token that took it, while the lock is held under
//! that token. So an item is not lost with a holder that dies, and under one token it is taken once only. It may be
//! *carried out* twice: by a holder that died before it acknowledged, and by the next holder. To prevent that,
//! acknowledge in the same [`Write`](crate::Command::Write) that stores the outcome.

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use crate::id::{ItemId, Nonce, Revision};
use crate::store::record::Value;

/// The most items in one queue.
pub const MAX_QUEUE: usize = 1024;

/// The most items in all queues together.
pub const MAX_ITEMS: u64 = 16_384;

/// How an item was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Taken {
    /// The token of the holder that took it.
    pub token: Revision,
    /// The nonce of the request that took it.
    pub request: Nonce,
}

/// An item in a queue.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Item {
    /// Its value. At most [`MAX_VALUE`](crate::record::MAX_VALUE) bytes.
    pub value: Value,
    /// The revision that appended it.
    pub pushed: Revision,
    /// How it was taken last; `None` if it was not. It counts only while the lock is held under that token.
    pub taken: Option<Taken>,
}

impl Item {
    /// Whether it was taken under this token, and not under a later one.
    pub fn is_taken_under(&self, token: Revision) -> bool {
        self.taken.is_some_and(|taken| taken.token == token)
    }
}

/// The items for the holders of one lock.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Queue {
    #[serde(deserialize_with = "crate::collections::map")]
    pub(crate) items: OrdMap<ItemId, Item>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_that_an_earlier_holder_took_is_not_taken_for_the_next_one() {
        let taken = Taken { token: Revision::new(42), request: Nonce::new(1) };
        let item = Item { value: Value::from("start"), pushed: Revision::new(40), taken: Some(taken) };
        assert!(item.is_taken_under(Revision::new(42)) && !item.is_taken_under(Revision::new(51)));
    }
}
