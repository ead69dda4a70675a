//! Records: a small store of the consumer's own, written in transactions that happen whole or not at all.
//!
//! ```text
//!   Write { request,
//!           checks:  "services/100" has version r43 · lock "manager" is held under r40 · n1#3 is over
//!           changes: put "services/100" = n2 · delete "intents/7" · push to "vm:100" · acknowledge q7 }
//!     every check holds ─▶ every change, in one entry
//!     one does not      ─▶ a rejection that says which and what there is instead; nothing changed
//! ```
//!
//! The version of a record is the revision that wrote it last. A record may be *bound* to a holder: it vanishes with the
//! life, or the session, that it is bound to, in the very entry that proves the end.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::{Identity, ItemId, Revision};
use crate::store::lock::{Holder, Name};
use crate::text::text;

/// The most bytes of one value.
pub const MAX_VALUE: usize = 64 << 10;

/// The most records.
pub const MAX_RECORDS: usize = 65_536;

/// The most records that are bound to a holder: they may all vanish in one entry.
pub const MAX_BOUND: usize = 4096;

/// The most checks, and the most changes, of one write.
pub const MAX_STEPS: usize = 128;

/// The most bytes of one write: its keys and values together.
pub const MAX_WRITE: usize = 1 << 20;

text!(
    /// The key of a record. At most 512 bytes; `/` parts it by custom, and by custom only.
    Key, "a key", 512
);

/// Keys are in the order of their texts, so that those with one prefix are next to each other.
impl std::borrow::Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Bytes that mean something to the consumer alone. Clones share them. At most [`MAX_VALUE`].
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(Arc<[u8]>);

impl Value {
    /// Takes bytes; whether they are too many is checked where they are written.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as text, if they are.
    pub fn as_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().into())
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

/// Shown as text where it is one, shortened; never whole, for a log is no place for what others store.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 40;
        match self.as_text() {
            Some(text) if text.len() <= SHOWN => write!(f, "{text:?}"),
            _ => write!(f, "{} bytes", self.0.len()),
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl serde::de::Visitor<'_> for Bytes {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Value, E> {
                Ok(Value(bytes.into()))
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Value, E> {
                Ok(Value(bytes.into()))
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}

/// What is stored under a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Record {
    /// What.
    pub value: Value,
    /// The revision that wrote it last: what a comparison names.
    pub version: Revision,
    /// The revision that made it.
    pub created: Revision,
    /// With whom it vanishes.
    pub bound: Option<Holder>,
}

/// What has to hold for a write to happen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Check {
    /// The record has that version; `None`: there is no such record.
    Version {
        /// Which record.
        key: Key,
        /// The version.
        version: Option<Revision>,
    },
    /// The record has that value.
    Value {
        /// Which record.
        key: Key,
        /// The value.
        value: Value,
    },
    /// The lock is held under that token: the write of a holder that was superseded is refused.
    Holds {
        /// Which lock.
        lock: Name,
        /// The token of its grant.
        token: Revision,
    },
    /// It is proved that the life can do no more harm.
    Over {
        /// Which life.
        who: Identity,
    },
    /// The life may be given work.
    Active {
        /// Which life.
        who: Identity,
    },
}

impl Check {
    /// The bytes of its keys and values.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Version { key, .. } => key.as_str().len(),
            Self::Value { key, value } => key.as_str().len() + value.0.len(),
            Self::Holds { lock, .. } => lock.as_str().len(),
            Self::Over { .. } | Self::Active { .. } => 0,
        }
    }
}

/// What a write does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Change {
    /// Stores a value.
    Put {
        /// Where.
        key: Key,
        /// What.
        value: Value,
        /// With whom it vanishes; `None`: it stays.
        bound: Option<Holder>,
    },
    /// Removes a record. One that is not there stays so.
    Delete {
        /// Which.
        key: Key,
    },
    /// Appends to the queue of a lock, whether or not anybody holds it.
    Push {
        /// The lock.
        queue: Name,
        /// What.
        value: Value,
    },
    /// Removes an item that was taken under the token that the lock is held under now.
    Acknowledge {
        /// The lock.
        queue: Name,
        /// Which item.
        item: ItemId,
        /// The holder's token.
        token: Revision,
    },
}

impl Change {
    /// The bytes of its key and value.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Put { key, value, .. } => key.as_str().len() + value.0.len(),
            Self::Push { queue, value } => queue.as_str().len() + value.0.len(),
            Self::Delete { .. } | Self::Acknowledge { .. } => 0,
        }
    }

    /// The value that it stores.
    pub(crate) fn value(&self) -> Option<&Value> {
        match self {
            Self::Put { value, .. } | Self::Push { value, .. } => Some(value),
            Self::Delete { .. } | Self::Acknowledge { .. } => None,
        }
    }
}
