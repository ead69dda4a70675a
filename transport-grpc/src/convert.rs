//! Conversions between the types of the engine and those of the protocol.
//!
//! ```text
//!   rpc::Append ──From──▶ pb::Append ~~~ bytes ~~~ pb::Append ──FromWire──▶ Ok(rpc::Append) │ Err(Malformed)
//! ```
//!
//! An outgoing conversion is a [`From`] and cannot fail. An incoming one is a [`FromWire`]: a missing field, an id of the
//! wrong length or a damaged command is [`Malformed`], with the name of the field. No value is guessed, and no input
//! causes a panic.

mod cluster;
mod command;
mod contract;
mod event;
mod raft;
mod refusal;
mod rejection;
mod renewal;
mod store;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use quorate_membership::{ClusterId, Disk, DiskId, Identity, Incarnation, NodeId};
use quorate_raft_core::Refusal;

use crate::pb;

pub(crate) use self::cluster::{members, recent, status};
pub(crate) use self::command::{join_command, join_request};
pub(crate) use self::event::{event, item};
pub(crate) use self::raft::{ballot, bytes, payload};
pub(crate) use self::refusal::{failure, millis};
pub(crate) use self::store::{item as queued, key, lock, name, named, opened, record, session};

/// The longest text in an error, in bytes. It has to fit into the headers of an HTTP/2 answer.
pub(crate) const TEXT_LIMIT: usize = 1024;

/// Why a message cannot be read: which field, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) String);

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed.0)
    }
}

/// A type that is read from a message, if the message is valid.
pub(crate) trait FromWire<P>: Sized {
    /// Reads the message `P`.
    fn from_wire(message: P) -> Result<Self, Malformed>;
}

/// A required field. `what` names it in the error.
pub(crate) fn need<T>(field: Option<T>, what: &str) -> Result<T, Malformed> {
    field.ok_or_else(|| Malformed(format!("{what} is missing, or of a kind that this build does not know")))
}

/// The 16 bytes of a 128-bit id.
pub(crate) fn id_to(bits: u128) -> Bytes {
    Bytes::copy_from_slice(&bits.to_be_bytes())
}

/// A 128-bit id of exactly 16 bytes.
pub(crate) fn id_from(bytes: &[u8], what: &str) -> Result<u128, Malformed> {
    let wrong = |_| Malformed(format!("{what} has {} bytes where 16 are needed", bytes.len()));
    bytes.try_into().map(u128::from_be_bytes).map_err(wrong)
}

/// A cluster id that may be absent.
pub(crate) fn cluster_from(bytes: Option<Bytes>) -> Result<Option<ClusterId>, Malformed> {
    bytes.map(|bytes| id_from(&bytes, "the cluster id").map(ClusterId::new)).transpose()
}

/// A duration in nanoseconds. One that does not fit, of more than 584 years, becomes the longest that does; no contract and
/// no wait allows either.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Cuts a text at [`TEXT_LIMIT`].
pub(crate) fn clip(text: &str) -> String {
    let mut end = text.len().min(TEXT_LIMIT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

impl From<Identity> for pb::Identity {
    fn from(Identity { node, incarnation }: Identity) -> Self {
        Self { node: node.get(), incarnation: incarnation.get() }
    }
}

impl From<pb::Identity> for Identity {
    fn from(pb::Identity { node, incarnation }: pb::Identity) -> Self {
        Self::new(NodeId::new(node), Incarnation::new(incarnation))
    }
}

impl From<Disk> for pb::Disk {
    fn from(Disk { id, opened }: Disk) -> Self {
        Self { id: id_to(id.get()), opened }
    }
}

impl FromWire<pb::Disk> for Disk {
    fn from_wire(pb::Disk { id, opened }: pb::Disk) -> Result<Self, Malformed> {
        Ok(Self { id: DiskId::new(id_from(&id, "the disk id")?), opened })
    }
}
