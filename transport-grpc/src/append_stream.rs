//! Opens a stream of appends, and ends it when its entries should go over another link.
//!
//! ```text
//!   entries ──▶ until another link is chosen ──▶ Pipeline ~~~▶ peer
//!               (addresses.rs)                     └─ all that was sent is answered ──▶ end, without an error
//! ```
//!
//! The engine opens the next stream, which goes over the link that is chosen then, from the last entry that was answered. What is
//! on its way on a link that has failed is not waited for.

use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::{BoxStream, StreamExt};
use quorate_raft_core::TransportError;
use quorate_raft_core::rpc::{Append, Caller};
use quorate_raft_core::transport::AppendReplies;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::grpc_errors::transport_error;
use crate::links::Link;
use crate::pipeline::Pipeline;

/// Opens a stream of appends on a link.
pub(crate) async fn open(
    link: Arc<Link>,
    caller: Caller,
    requests: BoxStream<'static, Append>,
    idle: Duration,
) -> Result<AppendReplies, TransportError> {
    let (connection, left) = link.connect(idle).await?;
    let (moved, lost) = (link.clone().moves_from(&connection), link.clone().lost_from(&connection));
    let silent = connection.clone();
    let pipeline = Pipeline::new(idle, move || link.replace(&silent));
    // Once an answer has begun, hyper goes on sending although no one reads. The guard ends the messages when
    // the reader of the answers drops it, and that resets the call.
    let ended = CancellationToken::new();
    let guard = ended.clone().drop_guard();
    let draining = pipeline.clone();
    let moved = async move {
        moved.await;
        draining.end();
    };
    let outgoing = until(pipeline.outgoing(caller, requests), ended, moved);
    match timeout(left, connection.raft().append_stream(outgoing)).await {
        Ok(Ok(answers)) => Ok(pipeline.answers(answers.into_inner(), guard, Box::pin(lost))),
        Ok(Err(status)) => Err(transport_error(&status, idle)),
        Err(_) => Err(TransportError::Timeout(idle)),
    }
}

/// The messages of a stream, until it has `ended` or `moved`.
fn until<M: Send + 'static>(
    messages: impl Stream<Item = M> + Send + 'static,
    ended: CancellationToken,
    moved: impl Future<Output = ()> + Send + 'static,
) -> impl Stream<Item = M> + Send + 'static {
    let end = async move {
        tokio::select! { () = ended.cancelled() => {}, () = moved => {} }
    };
    messages.take_until(end)
}
