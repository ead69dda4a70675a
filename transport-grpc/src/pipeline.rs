//! A stream of appends on the client's side: many in flight, answered in order, with a timeout on silence.
//!
//! ```text
//!   appends ──▶ outgoing: size checked, count + 1 ──▶ network ──▶ answers: count - 1 ──▶ the engine
//!                                     │                              │
//!                                     └── count, time of the last ───┘──▶ count > 0 and no answer for `idle`: Timeout
//! ```
//!
//! Each append has one answer, so a count is enough. Silence while the count is 0 is allowed: a leader with nothing to
//! send may keep the stream open for days.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use prost::Message;
use quorate_raft_core::TransportError;
use quorate_raft_core::rpc::{Append, Caller, StreamAppended};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::DropGuard;
use tonic::Streaming;

use crate::convert::FromWire;
use crate::grpc_errors::{check_size, transport_error, unreadable};
use crate::pb;
use crate::settings::APPEND_LIMIT;

#[derive(Debug)]
struct Waiting {
    /// The number of appends that were sent and are not answered.
    count: u64,
    /// The time of the last answer, or of the first append that waits.
    since: Instant,
    /// The reason why no more appends are sent, if one could not be.
    fault: Option<TransportError>,
}

/// One stream of appends.
#[derive(Debug, Clone)]
pub(crate) struct Pipeline {
    idle: Duration,
    waiting: Arc<Mutex<Waiting>>,
    /// Notified when the count leaves 0.
    began: Arc<Notify>,
}

impl Pipeline {
    pub(crate) fn new(idle: Duration) -> Self {
        let waiting = Waiting { count: 0, since: Instant::now(), fault: None };
        Self { idle, waiting: Arc::new(Mutex::new(waiting)), began: Arc::default() }
    }

    /// Counts one more append that waits for an answer.
    fn sent(&self) {
        let mut waiting = self.waiting.lock();
        if waiting.count == 0 {
            waiting.since = Instant::now();
            self.began.notify_one();
        }
        waiting.count += 1;
    }

    /// Counts one answer. `false` if no append was waiting for it.
    fn answered(&self) -> bool {
        let mut waiting = self.waiting.lock();
        waiting.since = Instant::now();
        let expected = waiting.count > 0;
        waiting.count = waiting.count.saturating_sub(1);
        expected
    }

    /// The messages to send. Ends before an append that is too large.
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
            let fit = check_size(append.encoded_len(), APPEND_LIMIT - MARGIN, "the append");
            // An append that is not sent counts as well: the server now owes the end of the stream, and gets no more time
            // for it than for an answer.
            pipeline.sent();
            if let Err(fault) = fit {
                pipeline.waiting.lock().fault = Some(fault);
                return std::future::ready(None);
            }
            std::future::ready(Some(message(Message::Append(append))))
        });
        stream::iter([message(Message::Caller(caller.into()))]).chain(appends)
    }

    /// The answers, in the order of the appends. Dropping them drops `guard`, which ends the messages.
    pub(crate) fn answers(
        self,
        answers: Streaming<pb::AppendStreamResponse>,
        guard: DropGuard,
    ) -> BoxStream<'static, Result<StreamAppended, TransportError>> {
        let ongoing = Some((self, answers, guard));
        stream::unfold(ongoing, |ongoing| async move {
            let (pipeline, mut answers, guard) = ongoing?;
            let answer = pipeline.next(&mut answers).await?;
            let goes_on = matches!(answer, Ok(StreamAppended::Flushed(_)));
            Some((answer, goes_on.then_some((pipeline, answers, guard))))
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
            Ok(Some(_)) => Some(Err(TransportError::Broken("an answer arrived that no append was waiting for".into()))),
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

    /// Ends when an append has waited for `idle` without any answer.
    async fn silence(&self) {
        loop {
            let ends = {
                let waiting = self.waiting.lock();
                (waiting.count > 0).then(|| waiting.since.checked_add(self.idle))
            };
            match ends {
                Some(Some(ends)) if ends <= Instant::now() => return,
                Some(Some(ends)) => sleep_until(ends).await,
                // The sum is beyond the clock's range: wait for ever.
                Some(None) => std::future::pending().await,
                None => self.began.notified().await,
            }
        }
    }
}

/// The most that the message adds around an append, in bytes.
const MARGIN: usize = 16;
