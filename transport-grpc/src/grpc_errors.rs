//! Errors in gRPC's richer error model, which other languages read with their own libraries.
//!
//! ```text
//!   Refusal ──▶ grpc-status, grpc-message                          for people and for generic clients
//!               grpc-status-details-bin: google.rpc.Status          the exact case with all its values
//!                  └─ details[0]: Any{ ".../quorate.v1.Refusal" }
//! ```
//!
//! A caller that receives a [`Refusal`] knows that nothing was changed. Any other error leaves that open.

use std::error::Error;
use std::time::Duration;

use prost::Message;
use prost_types::Any;
use quorate_membership::Revision;
use quorate_raft_core::{HandOverError, ProposeError, ReadError, Refusal, TransportError};
use tonic::{Code, Status};

use crate::connection::NeverSent;
use crate::convert::{self, Malformed};
use crate::pb;

const REFUSAL: &str = "type.googleapis.com/quorate.v1.Refusal";
const FAILURE: &str = "type.googleapis.com/quorate.v1.Failure";

fn with_detail(code: Code, message: String, type_url: &str, detail: &impl Message) -> Status {
    let any = Any { type_url: type_url.into(), value: detail.encode_to_vec() };
    let rich = tonic_types::Status { code: code as i32, message: message.clone(), details: vec![any] };
    Status::with_details(code, message, rich.encode_to_vec().into())
}

/// A refusal as a status.
pub(crate) fn refused(refusal: &Refusal) -> Status {
    let code = match refusal {
        Refusal::OtherCluster { .. }
        | Refusal::OtherNode { .. }
        | Refusal::Retired(_)
        | Refusal::OtherDisk { .. }
        | Refusal::ClonedDisk { .. }
        | Refusal::TwoProcesses(_)
        | Refusal::OtherTiming
        | Refusal::Rejected(_) => Code::FailedPrecondition,
        Refusal::Embargo { .. } | Refusal::NotReady | Refusal::Stopped(_) | Refusal::Unavailable(_) => {
            Code::Unavailable
        }
        Refusal::Malformed(_) => Code::InvalidArgument,
        Refusal::NotAllowed(_) => Code::PermissionDenied,
        _ => Code::FailedPrecondition,
    };
    let refusal = pb::Refusal::from(refusal);
    with_detail(code, refusal.message.clone(), REFUSAL, &refusal)
}

/// A request that cannot be understood, as a status.
pub(crate) fn malformed(why: impl Into<String>) -> Status {
    refused(&Refusal::Malformed(why.into()))
}

/// A failure as a status.
pub(crate) fn failed(code: Code, text: &str, kind: pb::failure::Kind) -> Status {
    let failure = convert::failure(text, kind);
    with_detail(code, failure.message.clone(), FAILURE, &failure)
}

/// A failed linearizable read as a status.
pub(crate) fn read_failed(error: &ReadError) -> Status {
    failed(Code::Unavailable, &error.to_string(), error.into())
}

/// The end of the stream of a reader that asked for events after a revision that does not exist yet.
pub(crate) fn revision_ahead(newest: Revision) -> Status {
    let text = format!(
        "that revision does not exist yet, the newest is {newest}: another cluster gave it, or this one was founded anew; read the state, and continue after its revision"
    );
    failed(Code::OutOfRange, &text, pb::failure::Kind::RevisionAhead(newest.get()))
}

/// A failed command as a status.
pub(crate) fn command_failed(error: &ProposeError) -> Status {
    let code = match error {
        ProposeError::Rejected(_) | ProposeError::Refused(_) => Code::FailedPrecondition,
        ProposeError::NoLeader { .. } | ProposeError::Stopped(_) => Code::Unavailable,
        ProposeError::Encoding(_) => Code::InvalidArgument,
        ProposeError::OutcomeUnknown { .. } => Code::Unknown,
        _ => Code::Unknown,
    };
    failed(code, &error.to_string(), error.into())
}

/// A failed hand-over as a status.
pub(crate) fn hand_over_failed(error: &HandOverError) -> Status {
    let code = match error {
        HandOverError::NotLeader { .. } | HandOverError::NotAVoter(_) | HandOverError::Nobody => {
            Code::FailedPrecondition
        }
        HandOverError::TimedOut { .. } => Code::DeadlineExceeded,
        HandOverError::Stopped(_) => Code::Unavailable,
        _ => Code::Unknown,
    };
    failed(code, &error.to_string(), error.into())
}

/// The refusal in a status, if it carries one.
pub(crate) fn refusal(status: &Status) -> Option<Refusal> {
    let rich = tonic_types::Status::decode(status.details()).ok()?;
    let any = rich.details.iter().find(|any| any.type_url == REFUSAL)?;
    pb::Refusal::decode(any.value.as_slice()).ok().map(Refusal::from)
}

/// Fails for a message that the receiver would refuse because of its size, before it is sent.
pub(crate) fn check_size(length: usize, limit: usize, what: &str) -> Result<(), TransportError> {
    let why = || format!("{what} is {length} bytes, more than the {limit} that may be sent; nothing was sent");
    if length <= limit { Ok(()) } else { Err(Refusal::Malformed(why()).into()) }
}

/// An answer that cannot be read. What was asked for may have happened.
pub(crate) fn unreadable(Malformed(why): Malformed) -> TransportError {
    TransportError::Broken(format!("the answer cannot be read: {why}; both nodes should run the same version"))
}

/// The error of a failed call, by whether the call may have arrived. `waited` is the deadline that was given.
pub(crate) fn transport_error(status: &Status, waited: Duration) -> TransportError {
    if let Some(refusal) = refusal(status) {
        return TransportError::Refused(refusal);
    }
    let mut chain = String::from(status.message());
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<NeverSent>() {
            return TransportError::Unreachable(format!("the connection closed before the call was sent: {error}"));
        }
        let text = error.to_string();
        if !chain.contains(&text) {
            chain = format!("{chain}: {text}");
        }
        source = error.source();
    }
    match status.code() {
        Code::DeadlineExceeded => TransportError::Timeout(waited),
        Code::Unimplemented => TransportError::Refused(Refusal::Malformed(format!(
            "the server at this address does not speak this version of quorate ({chain}); correct the address, or upgrade it"
        ))),
        code => TransportError::Broken(format!("the call broke off ({code:?}): {chain}")),
    }
}
