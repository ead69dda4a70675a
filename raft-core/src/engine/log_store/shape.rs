//! What the records of the log look like on the disk. Each goes through [`quorate_membership::codec`].
//!
//! ```text
//!   entry ─▶ StoredEntry      vote ─▶ StoredVote      snapshot ─▶ SnapshotMeta, and the envelope given by the machine
//!   committed, purged ─▶ StoredPosition               how they stand in a group: `group.rs`
//! ```

use std::fmt;

use quorate_membership::codec::{Enveloped, Kind};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::rpc::{Ballot, Body, LogEntry, Payload, Position, VoterSets};

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredEntry {
    at: Position,
    body: StoredBody,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum StoredBody {
    Blank,
    Command(Bytes),
    Configuration(VoterSets),
}

impl From<LogEntry> for StoredEntry {
    fn from(entry: LogEntry) -> Self {
        let body = match entry.body {
            Body::Blank => StoredBody::Blank,
            Body::Command(payload) => StoredBody::Command(Bytes(payload)),
            Body::Configuration(voters) => StoredBody::Configuration(voters),
        };
        Self { at: entry.at, body }
    }
}

impl From<StoredEntry> for LogEntry {
    fn from(entry: StoredEntry) -> Self {
        let body = match entry.body {
            StoredBody::Blank => Body::Blank,
            StoredBody::Command(Bytes(payload)) => Body::Command(payload),
            StoredBody::Configuration(voters) => Body::Configuration(voters),
        };
        Self { at: entry.at, body }
    }
}

impl Enveloped for StoredEntry {
    const KIND: Kind = Kind::Entry;
}

/// The vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredVote(pub(crate) Ballot);

impl Enveloped for StoredVote {
    const KIND: Kind = Kind::Vote;
}

/// A place in the log, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredPosition(pub(crate) Option<Position>);

impl Enveloped for StoredPosition {
    const KIND: Kind = Kind::Position;
}

/// A payload written in one piece. The bytes on the disk are those of a sequence of `u8`; only the work is less.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bytes(Payload);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0.as_bytes())
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AsBytes;
        impl<'de> Visitor<'de> for AsBytes {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the bytes of a command")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(Payload::new(bytes)))
            }

            fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
                Ok(Bytes(Payload::new(bytes)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Bytes, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = seq.next_element()? {
                    bytes.push(byte);
                }
                Ok(Bytes(Payload::new(bytes)))
            }
        }
        deserializer.deserialize_byte_buf(AsBytes)
    }
}
