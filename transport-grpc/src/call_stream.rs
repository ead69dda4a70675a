//! Small calls to one node, many in flight on one stream.
//!
//! ```text
//!   call ──▶ queue ──▶ message: whatever has gathered ~~~ stream ~~~▶ server
//!    ▲                    │ noted under its number                      │
//!    └─ answer ◀── table ◀┴──────────── answers, in any order ◀─────────┘
//! ```
//!
//! A unary call costs both sides a stream of HTTP/2, its headers and its end. Here one stream stays open, and calls that are
//! made at the same time share a message. A call that was never taken from the queue did not leave this process
//! ([`TransportError::Unreachable`]); any other may have arrived when the stream ends ([`TransportError::Broken`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::{self, StreamExt};
use parking_lot::Mutex;
use quorate_raft_core::TransportError;
use quorate_raft_core::rpc::{Answer, Call, Caller};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::connection::Connection;
use crate::convert::{self, FromWire};
use crate::grpc_errors::{transport_error, unreadable};
use crate::pb;
use crate::pb::raft_client::RaftClient;

/// The most calls in one message: a small part of what a message may have.
const BATCH: usize = 64;

type Reply = oneshot::Sender<Result<Answer, TransportError>>;

/// A call in the queue.
#[derive(Debug)]
struct Queued {
    caller: Caller,
    call: pb::NumberedCall,
}

/// The calls without an answer, by their numbers.
#[derive(Debug, Default)]
struct Table {
    last: u64,
    waiting: BTreeMap<u64, Waiting>,
    /// The stream has ended.
    ended: bool,
}

#[derive(Debug)]
struct Waiting {
    reply: Reply,
    /// It may have left this process.
    sent: bool,
}

/// A stream of calls on one connection. It ends when the last clone is gone and every call has its answer.
#[derive(Debug, Clone)]
pub(crate) struct CallStream {
    connection: Connection,
    queue: mpsc::UnboundedSender<Queued>,
    table: Arc<Mutex<Table>>,
}

/// Takes a call out of the table whose caller waits no more.
struct GivenUp<'a> {
    table: &'a Mutex<Table>,
    number: u64,
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        self.table.lock().waiting.remove(&self.number);
    }
}

/// A call as it travels on a stream; `None` for one that has a call of its own.
pub(crate) fn small(call: &Call) -> Option<pb::numbered_call::Call> {
    use pb::numbered_call::Call as Out;
    match call {
        Call::Propose(command) if call.lane() == quorate_raft_core::Lane::Control => {
            Some(Out::Propose(convert::bytes(command.clone())))
        }
        // A heartbeat, or the confirmation of a read.
        Call::Append(append) if append.entries.is_empty() => Some(Out::Append(append.clone().into())),
        Call::ReadIndex => Some(Out::ReadIndex(pb::Done {})),
        Call::Renew(renewal) => Some(Out::Renew((*renewal).into())),
        Call::KeepAlive(session) => Some(Out::KeepAlive(session.get())),
        Call::Propose(_)
        | Call::Append(_)
        | Call::Vote(_)
        | Call::PreVote(_)
        | Call::Snapshot(_)
        | Call::Transfer(_)
        | Call::CanFence(_)
        | Call::Refuses(_)
        | Call::Receipts(_) => None,
    }
}

impl CallStream {
    /// Opens a stream on a connection, in the background. It ends when its link is `lost`, and does not wait for the connection to
    /// end: another link is there for the next calls.
    pub(crate) fn open(connection: Connection, lost: impl Future<Output = ()> + Send + 'static) -> Self {
        let (queue, queued) = mpsc::unbounded_channel();
        let table = Arc::<Mutex<Table>>::default();
        tokio::spawn(run(connection.raft(), queued, table.clone(), lost));
        Self { connection, queue, table }
    }

    /// Whether it is a stream on this connection, and takes calls.
    pub(crate) fn is_open_on(&self, connection: &Connection) -> bool {
        self.connection.is_same(connection) && !self.table.lock().ended
    }

    /// Makes a call, and waits at most `left` for its answer. `deadline` is what the caller had given it.
    pub(crate) async fn call(
        &self,
        caller: Caller,
        call: pb::numbered_call::Call,
        left: Duration,
        deadline: Duration,
    ) -> Result<Answer, TransportError> {
        let (reply, answer) = oneshot::channel();
        let number = {
            let mut table = self.table.lock();
            if table.ended {
                return Err(never_sent());
            }
            table.last += 1;
            let number = table.last;
            table.waiting.insert(number, Waiting { reply, sent: false });
            number
        };
        let _given_up = GivenUp { table: &self.table, number };
        let timeout_ms = convert::millis(left).max(1);
        let call = pb::NumberedCall { number, timeout_ms, call: Some(call) };
        self.queue.send(Queued { caller, call }).map_err(|_| never_sent())?;
        match timeout(left, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(never_sent()),
            Err(_) => Err(TransportError::Timeout(deadline)),
        }
    }
}

fn never_sent() -> TransportError {
    TransportError::Unreachable("the connection closed before the call was sent".into())
}

/// One stream, from its opening to its end.
async fn run(
    mut raft: RaftClient<Connection>,
    queued: mpsc::UnboundedReceiver<Queued>,
    table: Arc<Mutex<Table>>,
    lost: impl Future<Output = ()> + Send,
) {
    // Once an answer has begun, hyper goes on sending although no one reads.
    let ended = CancellationToken::new();
    let _ends = ended.clone().drop_guard();
    let outgoing = messages(queued, table.clone()).take_until(ended.cancelled_owned());
    let answering = async {
        let mut answers = match raft.call_stream(outgoing).await {
            Ok(answers) => answers.into_inner(),
            Err(status) => return status,
        };
        loop {
            match answers.message().await {
                Ok(Some(message)) => message.answers.into_iter().for_each(|answer| deliver(&table, answer)),
                Ok(None) => return Status::unavailable("the stream of calls ended"),
                Err(status) => return status,
            }
        }
    };
    let why = tokio::select! { biased;
        why = answering => why,
        () = lost => Status::unavailable("its link was lost; another one is used now"),
    };
    let waiting = {
        let mut table = table.lock();
        table.ended = true;
        std::mem::take(&mut table.waiting)
    };
    for Waiting { reply, sent } in waiting.into_values() {
        let error = if sent { transport_error(&why, Duration::ZERO) } else { never_sent() };
        // The caller may have gone.
        let _gone = reply.send(Err(error));
    }
}

/// The messages: the calls that have gathered since the one before.
fn messages(
    queued: mpsc::UnboundedReceiver<Queued>,
    table: Arc<Mutex<Table>>,
) -> impl Stream<Item = pb::CallStreamRequest> + Send + 'static {
    struct Sending {
        queued: mpsc::UnboundedReceiver<Queued>,
        table: Arc<Mutex<Table>>,
        taken: Vec<Queued>,
        named: Option<Caller>,
    }
    let sending = Sending { queued, table, taken: vec![], named: None };
    stream::unfold(sending, |mut sending| async move {
        if sending.taken.is_empty() && sending.queued.recv_many(&mut sending.taken, BATCH).await == 0 {
            return None;
        }
        let caller = sending.taken.first().map(|first| first.caller)?;
        // One caller in a message; it changes when this node learns more of the other.
        let same = sending.taken.iter().take_while(|queued| queued.caller == caller).count();
        let mut table = sending.table.lock();
        let mut message = pb::CallStreamRequest::default();
        if sending.named != Some(caller) {
            message.caller = Some(caller.into());
            sending.named = Some(caller);
        }
        for Queued { call, .. } in sending.taken.drain(..same) {
            // One that was given up meanwhile need not be sent.
            if let Some(waiting) = table.waiting.get_mut(&call.number) {
                waiting.sent = true;
                message.calls.push(call);
            }
        }
        drop(table);
        Some((message, sending))
    })
}

fn deliver(table: &Mutex<Table>, answer: pb::NumberedAnswer) {
    // One that was given up has none.
    let Some(waiting) = table.lock().waiting.remove(&answer.number) else { return };
    // The caller may have gone.
    let _gone = waiting.reply.send(read(answer.answer));
}

fn read(answer: Option<pb::numbered_answer::Answer>) -> Result<Answer, TransportError> {
    use pb::numbered_answer::Answer as In;
    match convert::need(answer, "the answer").map_err(unreadable)? {
        In::Propose(answer) => FromWire::from_wire(answer).map(Answer::Propose).map_err(unreadable),
        In::Append(answer) => FromWire::from_wire(answer).map(Answer::Append).map_err(unreadable),
        In::ReadIndex(answer) => FromWire::from_wire(answer).map(Answer::ReadIndex).map_err(unreadable),
        In::Renew(answer) => FromWire::from_wire(answer).map(Answer::Renew).map_err(unreadable),
        In::KeepAlive(answer) => FromWire::from_wire(answer).map(Answer::KeepAlive).map_err(unreadable),
        In::Refused(refusal) => Err(TransportError::Refused(refusal.into())),
    }
}
