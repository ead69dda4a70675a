//! A stream of calls of one client: many in flight, each answered as the unary call of its name is.
//!
//! ```text
//!   CallsRequest ──▶ calls ──▶ StoreService, many at a time ──▶ answers that are ready, together ──▶ CallsResponse
//! ```
//!
//! All of it is one task, and no call costs headers of its own. When the client goes, the calls in progress are dropped, as
//! those of a closed connection are.

use std::time::Duration;

use futures_util::Stream;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::time::timeout;
use tonic::{Request, Status, Streaming};

use super::StoreService;
use crate::convert::need;
use crate::grpc_errors::refused;
use crate::pb;
use crate::pb::client_answer::Answer as Out;
use crate::pb::client_call::Call as In;
use crate::pb::store_server::Store;
use crate::router::{limit_of, overdue};

/// The most answers in one message, unless one is large.
const BATCH: usize = 64;

/// An answer as large as this has a message of its own, so that no message exceeds what a client accepts.
const LARGE: usize = 32 << 10;

/// The answers to a stream of calls. It ends with the calls, once each is answered.
pub(super) fn answers(
    service: &StoreService,
    messages: Streaming<pb::CallsRequest>,
) -> BoxStream<'static, Result<pb::CallsResponse, Status>> {
    let stop = service.stop.clone();
    let calls = calls(service.clone(), messages).take_until(stop.cancelled_owned());
    let answered = calls.buffer_unordered(service.max_calls).ready_chunks(BATCH);
    answered.flat_map(|answers| stream::iter(in_messages(answers)).map(Ok)).boxed()
}

/// The answers in as few messages as they fit into.
fn in_messages(answers: Vec<pb::ClientAnswer>) -> Vec<pb::CallsResponse> {
    let (large, small): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| {
        let may_be_large = !matches!(answer.answer, Some(Out::Write(_) | Out::Lock(_) | Out::Unlock(_)));
        may_be_large && prost::Message::encoded_len(answer) >= LARGE
    });
    let small = (!small.is_empty()).then_some(small);
    large.into_iter().map(|answer| vec![answer]).chain(small).map(|answers| pb::CallsResponse { answers }).collect()
}

fn calls(
    service: StoreService,
    messages: Streaming<pb::CallsRequest>,
) -> impl Stream<Item = BoxFuture<'static, pb::ClientAnswer>> + Send + 'static {
    let batches = stream::unfold((service, messages), |(service, mut messages)| async move {
        // The stream has ended, or broken off: nobody waits for what a message would say.
        let Ok(Some(pb::CallsRequest { calls })) = messages.message().await else { return None };
        let answers: Vec<BoxFuture<'static, pb::ClientAnswer>> =
            calls.into_iter().map(|call| Box::pin(answer(service.clone(), call)) as _).collect();
        Some((stream::iter(answers), (service, messages)))
    });
    batches.flatten()
}

async fn answer(service: StoreService, call: pb::ClientCall) -> pb::ClientAnswer {
    let pb::ClientCall { number, timeout_ms, call } = call;
    let longest = match call {
        // The wait for a lock has its own limit, and ends with an answer.
        Some(In::Lock(_)) => service.max_lock_wait + service.call_timeout,
        _ => service.call_timeout,
    };
    let asked = (timeout_ms > 0).then(|| Duration::from_millis(timeout_ms));
    let limit = limit_of(asked, longest, !matches!(call, Some(In::Lock(_))));
    let answer = match timeout(limit, made(&service, call)).await {
        Ok(answer) => answer,
        Err(_) => Err(Status::deadline_exceeded(overdue(limit, &service.service.view().local))),
    };
    let answer = answer.unwrap_or_else(|status| {
        let (code, message) = (status.code() as i32, status.message().to_owned());
        Out::Failed(pb::CallFailed { code, message, details: status.details().to_vec().into() })
    });
    pb::ClientAnswer { number, answer: Some(answer) }
}

async fn made(service: &StoreService, call: Option<In>) -> Result<Out, Status> {
    macro_rules! unary {
        ($method:ident($request:expr) as $answer:ident) => {
            service.$method(Request::new($request)).await.map(|answer| Out::$answer(answer.into_inner()))
        };
    }
    match need(call, "the call").map_err(|malformed| refused(&malformed.into()))? {
        In::OpenSession(request) => unary!(open_session(request) as OpenSession),
        In::KeepAlive(request) => unary!(keep_alive(request) as KeepAlive),
        In::CloseSession(request) => unary!(close_session(request) as CloseSession),
        In::Lock(request) => unary!(lock(request) as Lock),
        In::Unlock(request) => unary!(unlock(request) as Unlock),
        In::GetLock(request) => unary!(get_lock(request) as GetLock),
        In::Write(request) => unary!(write(request) as Write),
        In::Get(request) => unary!(get(request) as Get),
        In::List(request) => unary!(list(request) as List),
        In::Take(request) => unary!(take(request) as Take),
    }
}
