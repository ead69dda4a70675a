//! What the fuzz targets call: everything that reads bytes from outside, before anybody is known to be trusted.
//!
//! ```text
//!   codec         bytes of a record, in an envelope that is right ──▶ commands, applied to a state; snapshots
//!   conversions   bytes of a message ──▶ prost ──▶ the types of raft-core and membership
//!   token         a join token as somebody types it
//!   request       a certificate signing request, of a machine without a certificate
//! ```
//!
//! None of them may panic, or take memory without a bound, whatever the bytes are. `fuzz/` runs them with libFuzzer, and a test here
//! with each file of the committed corpus.

use prost::Message;
use quorate_membership::codec::{self, Enveloped};
use quorate_membership::lease::Receipts;
use quorate_membership::{
    Change, Check, ClusterState, Command, Contract, ContractError, Holder, Rejection, Request, Revision, Role, Stop,
    apply,
};
use quorate_raft_core::Refusal;
use quorate_raft_core::rpc::{
    Append, Appended, AskReceipts, Ballot, Caller, FencerReach, KeptAlive, LogEntry, Proposed, Refused, Renewal,
    Renewed, SnapshotMeta, StreamAppended, Transferred, VoteAnswer,
};
use quorate_raft_core::transport::JoinAnswer;

use crate::convert::{self, FromWire};
use crate::pb;
use crate::tls::{JoinToken, key_hash};

/// Commands of the log, one after the other, and the state that a snapshot brings. The bytes are payloads: each gets an envelope
/// with the right length and checksum, or no fuzzer would get beyond that.
pub fn codec(bytes: &[u8]) {
    let _damaged = codec::inspect(bytes);
    let _other = codec::decode::<Command>(bytes);
    if let Some(state) = enveloped::<ClusterState>(bytes) {
        let again = codec::encode(&state).map(|bytes| codec::decode::<ClusterState>(&bytes));
        assert!(matches!(again, Ok(Ok(read)) if read == state), "what was read is written the same");
    }
    let mut state = ClusterState::new();
    for (payload, revision) in pieces(bytes).zip(1..) {
        let Some(command) = enveloped::<Command>(payload) else { continue };
        let before = state.clone();
        if apply(&mut state, Revision::new(revision), &command).is_err() {
            assert!(state == before, "a rejected command changes nothing");
        }
    }
}

/// The payload in an envelope that is right.
fn enveloped<T: Enveloped>(payload: &[u8]) -> Option<T> {
    // The envelope of something small of any kind, with another kind, length and checksum.
    let mut bytes = codec::encode(&ClusterState::new()).ok()?;
    bytes.truncate(16);
    bytes[6..8].copy_from_slice(&(T::KIND as u16).to_le_bytes());
    bytes[8..12].copy_from_slice(&u32::try_from(payload.len()).ok()?.to_le_bytes());
    let sum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), payload);
    bytes[12..16].copy_from_slice(&sum.to_le_bytes());
    bytes.extend_from_slice(payload);
    codec::decode(&bytes).ok()
}

/// The bytes in pieces: the first byte of each is its length.
fn pieces(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first()?;
        let (piece, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        bytes = rest;
        Some(piece)
    })
}

fn read<T: FromWire<P>, P: Message + Default>(bytes: &[u8]) {
    if let Ok(message) = P::decode(bytes) {
        let _malformed = T::from_wire(message);
    }
}

/// A message of any kind, as it may arrive. The first byte says which.
pub fn conversions(bytes: &[u8]) {
    let Some((which, bytes)) = bytes.split_first() else { return };
    let readers: [fn(&[u8]); 33] = [
        read::<Caller, pb::Caller>,
        read::<LogEntry, pb::Entry>,
        read::<Append, pb::Append>,
        read::<Appended, pb::AppendResponse>,
        read::<StreamAppended, pb::AppendStreamResponse>,
        read::<VoteAnswer, pb::VoteResponse>,
        read::<SnapshotMeta, pb::SnapshotMeta>,
        read::<Ballot, pb::SnapshotResponse>,
        read::<Transferred, pb::TransferResponse>,
        read::<Proposed, pb::ProposeResponse>,
        read::<Revision, pb::ReadIndexResponse>,
        read::<Renewal, pb::Renewal>,
        read::<Renewed, pb::RenewResponse>,
        read::<FencerReach, pb::CanFenceResponse>,
        read::<Refused, pb::RefusesResponse>,
        read::<AskReceipts, pb::ReceiptsRequest>,
        read::<Receipts, pb::ReceiptsResponse>,
        read::<JoinAnswer, pb::JoinResponse>,
        read::<KeptAlive, pb::RelayKeepAliveResponse>,
        read::<Contract, pb::Contract>,
        read::<ContractError, pb::ContractFault>,
        read::<Stop, pb::Stop>,
        read::<Command, pb::ConfirmFenceRequest>,
        read::<Rejection, pb::Rejection>,
        read::<Check, pb::Check>,
        read::<Change, pb::Change>,
        read::<Holder, pb::Holder>,
        read::<Request, pb::RequestName>,
        read::<Command, pb::SetRoleRequest>,
        read::<Command, pb::SetAddressesRequest>,
        read::<Command, pb::RemoveRequest>,
        read::<Command, pb::OrderFenceRequest>,
        read::<Command, pb::VouchRequest>,
    ];
    let others: [fn(&[u8]); 3] = [
        |bytes| {
            if let Ok(message) = pb::Refusal::decode(bytes) {
                let refusal = Refusal::from(message);
                let _text = pb::Refusal::from(&refusal);
            }
        },
        |bytes| {
            if let Ok(message) = pb::JoinRequest::decode(bytes) {
                let _malformed = convert::join_command(message);
            }
        },
        |bytes| {
            if let Ok(message) = pb::OpenSessionRequest::decode(bytes) {
                let _malformed = convert::named(message.name);
                let _malformed = convert::session(message.ttl_ms, message.lock_delay_ms, message.label, None);
            }
        },
    ];
    let all: Vec<_> = readers.into_iter().chain(others).collect();
    all[usize::from(*which) % all.len()](bytes);
    let _role = Role::from_wire(pb::Role::try_from(i32::from(*which)).unwrap_or_default());
}

/// A join token. What is read is written the same.
pub fn token(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // A fuzzer does not find a checksum by itself.
    let right = format!("{text}_{:08x}", crc32c::crc32c(text.as_bytes()));
    for text in [text, &right] {
        if let Ok(token) = text.parse::<JoinToken>() {
            assert_eq!(token.to_string(), text.trim(), "what is read is written the same");
        }
    }
}

/// A certificate signing request.
pub fn request(bytes: &[u8]) {
    let _malformed = key_hash(bytes);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// The committed corpus, and what was found with it before.
    #[test]
    fn no_file_of_the_corpus_makes_anything_panic() {
        type Target = fn(&[u8]);
        let targets: [(&str, Target); 4] = [
            ("codec", super::codec),
            ("conversions", super::conversions),
            ("token", super::token),
            ("request", super::request),
        ];
        for (name, target) in targets {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
            let files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
            assert!(files.len() >= 10, "{name} has a corpus of {} files", files.len());
            for file in files {
                target(&std::fs::read(file).unwrap());
            }
        }
    }
}
