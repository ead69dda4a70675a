//! A stream of appends on the client's side: many in flight, answered in order, with a timeout on silence.
//!
//! ```text
//!   appends ──▶ outgoing: size checked, noted ──▶ network ──▶ answers: the oldest is done ──▶ the engine
//!                                     │                          │
//!                                     └─ sizes, last answer ─────┘──▶ some, and no answer for `idle` + their size: Timeout
//! ```
//!
//! Each append has one answer, in order. Silence while none waits is allowed: a leader with nothing to send may keep the
//! stream open for days. An append that is large takes long on a thin link, and cutting it off would send it again from
//! its beginning, and never end. So the limit grows with what is on its way, at the rate of the thinnest link that this
//! is meant for.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
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

/// The thinnest link, in bytes a second: 256 kbit/s.
const THINNEST: usize = 32 << 10;

#[derive(Debug)]
struct Waiting {
    /// The sizes of the appends that were sent and are not answered, oldest first, in bytes.
    sizes: VecDeque<usize>,
    /// The time of the last answer, or of the first append that waits.
    since: Instant,
    /// The reason why no more appends are sent, if one could not be.
    fault: Option<TransportError>,
    /// Nothing more is sent, and the stream ends with the last answer.
    ends: bool,
}

/// One stream of appends.
#[derive(Clone)]
pub(crate) struct Pipeline {
    idle: Duration,
    /// Called when the silence was too long.
    on_silence: Arc<dyn Fn() + Send + Sync>,
    waiting: Arc<Mutex<Waiting>>,
    /// Notified when the first append waits.
    began: Arc<Notify>,
    /// Notified when nothing more is sent.
    ending: Arc<Notify>,
}

impl Pipeline {
    pub(crate) fn new(idle: Duration, on_silence: impl Fn() + Send + Sync + 'static) -> Self {
        let waiting = Waiting { sizes: VecDeque::new(), since: Instant::now(), fault: None, ends: false };
        let (waiting, began, ending) = (Arc::new(Mutex::new(waiting)), Arc::default(), Arc::default());
        Self { idle, on_silence: Arc::new(on_silence), waiting, began, ending }
    }

    /// Notes one more append that waits for an answer.
    fn sent(&self, size: usize) {
        let mut waiting = self.waiting.lock();
        if waiting.sizes.is_empty() {
            waiting.since = Instant::now();
            self.began.notify_one();
        }
        waiting.sizes.push_back(size);
    }

    /// Notes that nothing more is sent: the stream ends once all that was sent is answered. It does not wait for its end from the
    /// server, which may not come: the link may be the reason.
    pub(crate) fn end(&self) {
        self.waiting.lock().ends = true;
        self.ending.notify_one();
    }

    /// Returns once nothing more is sent and nothing waits.
    async fn drained(&self) {
        let drained = || {
            let waiting = self.waiting.lock();
            waiting.ends && waiting.sizes.is_empty()
        };
        while !drained() {
            self.ending.notified().await;
        }
    }

    /// Notes one answer. `false` if no append was waiting for it.
    fn answered(&self) -> bool {
        let mut waiting = self.waiting.lock();
        waiting.since = Instant::now();
        waiting.sizes.pop_front().is_some()
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
            let size = append.encoded_len();
            let fit = check_size(size, APPEND_LIMIT - MARGIN, "the append");
            // An append that is not sent counts as well: the server now owes the end of the stream, and gets no more time
            // for it than for an answer.
            pipeline.sent(if fit.is_ok() { size } else { 0 });
            if let Err(fault) = fit {
                pipeline.waiting.lock().fault = Some(fault);
                return std::future::ready(None);
            }
            std::future::ready(Some(message(Message::Append(append))))
        });
        stream::iter([message(Message::Caller(caller.into()))]).chain(appends)
    }

    /// The answers, in the order of the appends. Dropping them drops `guard`, which ends the messages. Once the link is `lost`, no
    /// more is waited for.
    pub(crate) fn answers(
        self,
        answers: Streaming<pb::AppendStreamResponse>,
        guard: DropGuard,
        lost: BoxFuture<'static, ()>,
    ) -> BoxStream<'static, Result<StreamAppended, TransportError>> {
        let ongoing = Some((self, answers, guard, lost));
        stream::unfold(ongoing, |ongoing| async move {
            let (pipeline, mut answers, guard, mut lost) = ongoing?;
            let answer = pipeline.next(&mut answers, &mut lost).await?;
            let goes_on = matches!(answer, Ok(StreamAppended::Flushed(_)));
            Some((answer, goes_on.then_some((pipeline, answers, guard, lost))))
        })
        .fuse()
        .boxed()
    }

    async fn next(
        &self,
        answers: &mut Streaming<pb::AppendStreamResponse>,
        lost: &mut BoxFuture<'static, ()>,
    ) -> Option<Result<StreamAppended, TransportError>> {
        let answer = tokio::select! {
            biased;
            answer = answers.message() => answer,
            () = self.silence() => {
                (self.on_silence)();
                let fault = self.waiting.lock().fault.take();
                return Some(Err(fault.unwrap_or(TransportError::Timeout(self.idle))));
            }
            () = self.drained() => return None,
            () = lost => {
                let waits = !self.waiting.lock().sizes.is_empty();
                return waits.then(|| Err(TransportError::Broken("its link was lost; another one is used now".into())));
            }
        };
        match answer {
            Ok(Some(answer)) if self.answered() => Some(StreamAppended::from_wire(answer).map_err(unreadable)),
            Ok(Some(_)) => Some(Err(TransportError::Broken("an answer arrived that no append was waiting for".into()))),
            Ok(None) => {
                let mut waiting = self.waiting.lock();
                let fault = waiting.fault.take();
                let unanswered =
                    || TransportError::Broken(format!("the stream ended, {} appends unanswered", waiting.sizes.len()));
                fault.or_else(|| (!waiting.sizes.is_empty()).then(unanswered)).map(Err)
            }
            Err(status) => Some(Err(transport_error(&status, self.idle))),
        }
    }

    /// Ends when there was no answer for `idle`, and for as long as what waits takes on the thinnest link.
    async fn silence(&self) {
        loop {
            let ends = {
                let waiting = self.waiting.lock();
                let size: usize = waiting.sizes.iter().sum();
                let transfer = Duration::from_secs_f64(size as f64 / THINNEST as f64);
                let limit = self.idle.saturating_add(transfer);
                (!waiting.sizes.is_empty()).then(|| waiting.since.checked_add(limit))
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
