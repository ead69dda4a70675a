//! Records: a small key-value store for the consumer, written in transactions that take effect as a whole or not at
//! all.
//!
//! ```text
//!   Write { request,
//!           checks:  "services/100" has version r43 · lock "manager" is held under r40 · n1#3 has ended
//!           changes: put "services/100" = n2 · delete "intents/7" · push to "vm:100" · acknowledge q7 }
//!     every check holds ─▶ every change, in one entry
//!     one does not      ─▶ a rejection that names it and what was found instead; nothing changed
//! ```
//!
//! The version of a record is the revision that wrote it last. A record may be *bound* to a life or a session: then it
//! is deleted in the same entry that ends the life or session.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::bounded_text::text;
use crate::id::{Identity, ItemId, Revision};
use crate::store::lock::{Holder, Name};

/// The most bytes of one value.
pub const MAX_VALUE: usize = 64 << 10;

/// The most records in the store.
pub const MAX_RECORDS: usize = 65_536;

/// The most records that are bound to a holder. All of them may be deleted by one entry.
pub const MAX_BOUND: usize = 4096;

/// The most checks, and the most changes, of one write.
pub const MAX_STEPS: usize = 128;

/// The most bytes of one write: the keys and values of its checks and changes together.
pub const MAX_WRITE: usize = 1 << 20;

text!(
    /// The key of a record. At most 512 bytes. `/` separates its parts by convention only.
    Key, "a key", 512
);

/// Keys are ordered by their texts, so that those with the same prefix are next to each other.
impl std::borrow::Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Bytes whose meaning only the consumer knows. Clones share them. At most [`MAX_VALUE`].
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(Arc<[u8]>);

impl Value {
    /// Takes bytes. Their number is checked when they are written.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as text; `None` if they are not UTF-8.
    pub fn as_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self(text.into_bytes().into())
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

/// Printed as text if it is short, and by its size otherwise, so that stored data does not fill logs.
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
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

/// The value under a key, and its versions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Record {
    /// The bytes that were written last.
    pub value: Value,
    /// The revision that wrote it last. A [`Check::Version`] compares it.
    pub version: Revision,
    /// The revision that created it.
    pub created: Revision,
    /// The holder with whose end it is deleted; `None`: it stays.
    pub bound: Option<Holder>,
}

/// A condition for a write. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Check {
    /// The record has this version.
    Version {
        /// The key of the record.
        key: Key,
        /// The expected version; `None`: there is no such record.
        version: Option<Revision>,
    },
    /// The record has this value.
    Value {
        /// The key of the record.
        key: Key,
        /// The expected value.
        value: Value,
    },
    /// The lock is held under this token. So the write of a former holder is rejected.
    Holds {
        /// The name of the lock.
        lock: Name,
        /// The token of the holder that writes.
        token: Revision,
    },
    /// It is proved that the life can do no more harm.
    Over {
        /// The life that has to have ended.
        who: Identity,
    },
    /// The life may be given work.
    Active {
        /// The life that has to be active.
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

/// One change of a write. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Change {
    /// Stores a record.
    Put {
        /// The key of the record.
        key: Key,
        /// Its new value.
        value: Value,
        /// The holder with whose end it is deleted; `None`: it stays.
        bound: Option<Holder>,
    },
    /// Deletes a record. Does nothing if there is none.
    Delete {
        /// The key of the record.
        key: Key,
    },
    /// Appends an item to the queue of a lock, whether or not the lock is held.
    Push {
        /// The queue, by the name of its lock.
        queue: Name,
        /// The value of the item.
        value: Value,
    },
    /// Removes an item that was taken under the token under which the lock is held now.
    Acknowledge {
        /// The queue, by the name of its lock.
        queue: Name,
        /// The number of the item.
        item: ItemId,
        /// The token of the lock's holder.
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

    /// The value that it stores; `None` if it stores none.
    pub(crate) fn value(&self) -> Option<&Value> {
        match self {
            Self::Put { value, .. } | Self::Push { value, .. } => Some(value),
            Self::Delete { .. } | Self::Acknowledge { .. } => None,
        }
    }
}
