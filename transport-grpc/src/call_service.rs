//! The server's side of a stream of small calls between nodes (`call_stream.rs`).
//!
//! ```text
//!   messages ──▶ calls, each checked for its caller ──▶ PeerService, many at a time ──▶ answers that are ready, together
//! ```
//!
//! All of it is one task: a call costs no stream, no task and no headers of its own. At most as many calls are in progress
//! as one connection may have; the rest waits in the stream.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use futures_util::{FutureExt, Stream};
use quorate_membership::SessionId;
use quorate_raft_core::rpc::{Answer, Append, Call, Caller, Renewal};
use quorate_raft_core::{PeerService, Refusal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use crate::convert::{self, FromWire, Malformed, need};
use crate::grpc_errors::refused;
use crate::pb;

/// The most answers in one message.
const BATCH: usize = 64;

/// An answer; `None` for a call that was given up.
type Answered = Result<Option<pb::NumberedAnswer>, Status>;

/// The answers to a stream of calls. It ends with the calls, once each is answered, or when a message cannot be understood.
pub(crate) fn answers(
    service: Arc<dyn PeerService>,
    messages: Streaming<pb::CallStreamRequest>,
    max_calls: usize,
    stop: CancellationToken,
) -> BoxStream<'static, Result<pb::CallStreamResponse, Status>> {
    let calls = calls(service, messages).take_until(stop.cancelled_owned());
    let answered = calls.buffer_unordered(max_calls).filter_map(|answer| std::future::ready(answer.transpose()));
    answered
        .ready_chunks(BATCH)
        .map(|answers| {
            let answers = answers.into_iter().collect::<Result<Vec<_>, Status>>()?;
            Ok(pb::CallStreamResponse { answers })
        })
        .boxed()
}

/// Each call as what answers it.
fn calls(
    service: Arc<dyn PeerService>,
    messages: Streaming<pb::CallStreamRequest>,
) -> impl Stream<Item = BoxFuture<'static, Answered>> + Send + 'static {
    struct Reading {
        service: Arc<dyn PeerService>,
        messages: Option<Streaming<pb::CallStreamRequest>>,
        caller: Option<Caller>,
    }
    let reading = Reading { service, messages: Some(messages), caller: None };
    let batches = stream::unfold(reading, |mut reading| async move {
        let messages = reading.messages.as_mut()?;
        let batch: Vec<BoxFuture<'static, Answered>> = match messages.message().await {
            Ok(Some(pb::CallStreamRequest { caller, calls })) => {
                let named = caller.map(Caller::from_wire).transpose();
                match named.and_then(|named| need(named.or(reading.caller), "the caller")) {
                    Ok(caller) => {
                        reading.caller = Some(caller);
                        calls.into_iter().map(|call| answer(&*reading.service, caller, call)).collect()
                    }
                    Err(malformed) => {
                        reading.messages = None;
                        vec![std::future::ready(Err(refused(&malformed.into()))).boxed()]
                    }
                }
            }
            // The stream has ended, or broken off: nobody waits for what a message would say.
            Ok(None) | Err(_) => return None,
        };
        Some((stream::iter(batch), reading))
    });
    batches.flatten()
}

fn answer(service: &dyn PeerService, caller: Caller, call: pb::NumberedCall) -> BoxFuture<'static, Answered> {
    let (number, limit) = (call.number, Duration::from_millis(call.timeout_ms));
    let answer = read(call).map(|call| service.call(caller, call));
    Box::pin(async move {
        let answer = match answer {
            Ok(answer) => match timeout(limit, answer).await {
                Ok(answer) => answer,
                // Nobody waits for it any more.
                Err(_) => return Ok(None),
            },
            Err(malformed) => Err(malformed.into()),
        };
        Ok(Some(pb::NumberedAnswer { number, answer: Some(to_wire(answer)) }))
    })
}

fn read(call: pb::NumberedCall) -> Result<Call, Malformed> {
    use pb::numbered_call::Call as In;
    Ok(match need(call.call, "the call")? {
        In::Propose(command) => Call::Propose(convert::payload(&command, "the command")?),
        In::Append(append) => Call::Append(Append::from_wire(append)?),
        In::ReadIndex(pb::Done {}) => Call::ReadIndex,
        In::Renew(renewal) => Call::Renew(Renewal::from_wire(renewal)?),
        In::KeepAlive(session) => Call::KeepAlive(SessionId::new(session)),
    })
}

fn to_wire(answer: Result<Answer, Refusal>) -> pb::numbered_answer::Answer {
    use pb::numbered_answer::Answer as Out;
    match answer {
        Ok(Answer::Propose(proposed)) => Out::Propose(proposed.into()),
        Ok(Answer::Append(appended)) => Out::Append(appended.into()),
        Ok(Answer::ReadIndex(revision)) => Out::ReadIndex(revision.into()),
        Ok(Answer::Renew(renewed)) => Out::Renew(renewed.into()),
        Ok(Answer::KeepAlive(kept)) => Out::KeepAlive(kept.into()),
        Ok(
            Answer::Vote(_)
            | Answer::PreVote(_)
            | Answer::Snapshot(_)
            | Answer::Transfer(_)
            | Answer::CanFence(_)
            | Answer::Refuses(_)
            | Answer::Receipts(_),
        ) => {
            let why = "the answer belongs to another kind of call; both nodes should run the same version";
            Out::Refused((&Refusal::Malformed(why.into())).into())
        }
        Err(refusal) => Out::Refused((&refusal).into()),
    }
}
