//! A stream of appends as the caller sees it: many under way, answered in order, watched for silence.
//!
//! ```text
//!   appends ──▶ outgoing: sized, counted ──▶ wire ──▶ answers: counted off ──▶ the engine
//!                          │                              │
//!                          └──── waiting, since when ─────┘──▶ waiting > 0 and nothing for `idle`: Timeout
//! ```
//!
//! Each append has one answer, so a count is enough. Silence while nothing waits is no silence: a leader without
//! anything to say may keep the stream open for days.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use prost::Message;
use quorate_raft_core::TransportError;
use quorate_raft_core::rpc::{Append, Caller, StreamAppended};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tonic::Streaming;

use crate::client::{fits, unreadable};
use crate::connection::Tether;
use crate::convert::FromWire;
use crate::status::transport_error;
use crate::{APPEND_LIMIT, pb};

#[derive(Debug)]
struct Waiting {
    /// Appends that were sent and are not answered.
    count: u64,
    /// Since when nothing has come although something waits.
    since: Instant,
    /// Why no more appends are sent, if that is so.
    fault: Option<TransportError>,
}

/// One stream of appends.
#[derive(Debug, Clone)]
pub(crate) struct Pipeline {
    idle: Duration,
    waiting: Arc<Mutex<Waiting>>,
    /// Told when something waits that did not before.
    began: Arc<Notify>,
}

impl Pipeline {
    pub(crate) fn new(idle: Duration) -> Self {
        let waiting = Waiting { count: 0, since: Instant::now(), fault: None };
        Self { idle, waiting: Arc::new(Mutex::new(waiting)), began: Arc::default() }
    }

    /// Counts one more that waits for an answer.
    fn sent(&self) {
        let mut waiting = self.waiting.lock();
        if waiting.count == 0 {
            waiting.since = Instant::now();
            self.began.notify_one();
        }
        waiting.count += 1;
    }

    /// Counts one off. `false` if nothing was waiting: then this is no answer.
    fn answered(&self) -> bool {
        let mut waiting = self.waiting.lock();
        waiting.since = Instant::now();
        let expected = waiting.count > 0;
        waiting.count = waiting.count.saturating_sub(1);
        expected
    }

    /// The messages for the wire. Ends before an append that is too large to be taken.
    pub(crate) fn outgoing(
        &self,
        caller: Caller,
        appends: BoxStream<'static, Append>,
    ) -> impl futures_util::Stream<Item = pb::AppendStreamRequest> + Send + 'static {
        use pb::append_stream_request::Message;
        let message = |message| pb::AppendStreamRequest { message: Some(message) };
        let pipeline = self.clone();
        let appends = appends.scan((), move |(), append| {
            let append = pb::Append::from(append);
            let fit = fits(append.encoded_len(), APPEND_LIMIT - MARGIN, "the append");
            // Also for one that is not sent: the end that the other side owes us now is awaited no longer than an answer.
            pipeline.sent();
            if let Err(fault) = fit {
                pipeline.waiting.lock().fault = Some(fault);
                return std::future::ready(None);
            }
            std::future::ready(Some(message(Message::Append(append))))
        });
        stream::iter([message(Message::Caller(caller.into()))]).chain(appends)
    }

    /// The answers, in the order of the appends.
    pub(crate) fn answers(
        self,
        answers: Streaming<pb::AppendStreamResponse>,
        tether: Tether,
    ) -> BoxStream<'static, Result<StreamAppended, TransportError>> {
        let ongoing = Some((self, answers, tether));
        stream::unfold(ongoing, |ongoing| async move {
            let (pipeline, mut answers, tether) = ongoing?;
            let answer = pipeline.next(&mut answers).await?;
            let goes_on = matches!(answer, Ok(StreamAppended::Flushed(_)));
            Some((answer, goes_on.then_some((pipeline, answers, tether))))
        })
        .boxed()
    }

    async fn next(
        &self,
        answers: &mut Streaming<pb::AppendStreamResponse>,
    ) -> Option<Result<StreamAppended, TransportError>> {
        let answer = tokio::select! {
            biased;
            answer = answers.message() => answer,
            () = self.silence() => return Some(Err(self.waiting.lock().fault.take().unwrap_or(TransportError::Timeout(self.idle)))),
        };
        match answer {
            Ok(Some(answer)) if self.answered() => Some(StreamAppended::from_wire(answer).map_err(unreadable)),
            Ok(Some(_)) => Some(Err(TransportError::Broken("an answer came that no append was waiting for".into()))),
            Ok(None) => {
                let mut waiting = self.waiting.lock();
                let fault = waiting.fault.take();
                let unanswered =
                    || TransportError::Broken(format!("the stream ended, {} appends unanswered", waiting.count));
                fault.or_else(|| (waiting.count > 0).then(unanswered)).map(Err)
            }
            Err(status) => Some(Err(transport_error(&status, self.idle))),
        }
    }

    /// Ends when something has waited for `idle` without any answer.
    async fn silence(&self) {
        loop {
            let ends = {
                let waiting = self.waiting.lock();
                (waiting.count > 0).then(|| waiting.since.checked_add(self.idle))
            };
            match ends {
                Some(Some(ends)) if ends <= Instant::now() => return,
                Some(Some(ends)) => sleep_until(ends).await,
                // So long that no clock counts it: for ever.
                Some(None) => std::future::pending().await,
                None => self.began.notified().await,
            }
        }
    }
}

/// What the frame around an append adds to it in a message, at most.
const MARGIN: usize = 16;
