//! A stream of batches between two simulated machines: in order, like one connection.
//!
//! ```text
//!   requests ─▶ pump here ──in order, each after its leg──▶ service there ─▶ pump there ──▶ answers
//!                  │ a message on a cut link, or lost: the connection stalls for good, and the idle time ends it
//! ```

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{BoxStream, unfold};
use quorate_membership::NodeId;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::net::{Leg, Net, REFUSED};
use crate::error::{Refusal, TransportError};
use crate::host;
use crate::rpc::{Append, Caller, StreamAppended};
use crate::transport::AppendReplies;

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How many requests wait for an answer, and since when nothing has come although one does.
type Waiting = Arc<Mutex<(i64, Instant)>>;

/// The least that is waited between two looks.
const TICK: Duration = Duration::from_millis(5);

/// Counts, and says how it stands.
fn note(waiting: &Waiting, more: i64) -> (i64, Instant) {
    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    if more < 0 || (more > 0 && waiting.0 == 0) {
        waiting.1 = Instant::now();
    }
    waiting.0 += more;
    *waiting
}

/// One direction of the connection: what goes in comes out in order, each after its leg, until the link is cut.
struct Pipe {
    net: Net,
    from: NodeId,
    to: NodeId,
    /// Whether it carries the requests, which a closed port loses.
    calls: bool,
    arrives: Instant,
    stalled: bool,
}

impl Pipe {
    fn new(net: Net, from: NodeId, to: NodeId, calls: bool) -> Self {
        Self { net, from, to, calls, arrives: Instant::now(), stalled: false }
    }

    /// When something sent now arrives; `None`: never.
    fn send(&mut self) -> Option<Instant> {
        let leg = if self.calls { self.net.call_leg(self.from, self.to) } else { self.net.leg(self.from, self.to) };
        match leg {
            Leg::Takes(takes) if !self.stalled => {
                self.arrives = self.arrives.max(Instant::now() + takes);
                Some(self.arrives)
            }
            Leg::Takes(_) | Leg::Lost => {
                self.stalled = true;
                None
            }
        }
    }
}

/// An answer, or the orderly end of them.
type Reply = Option<Result<StreamAppended, Refusal>>;

/// What is on its way: when it arrives, and what it is.
type OnItsWay<T> = (Instant, T);

fn arriving<T: Send + 'static>(
    net: Net,
    from: NodeId,
    to: NodeId,
    received: UnboundedReceiver<OnItsWay<T>>,
) -> BoxStream<'static, T> {
    let start = (received, net, false);
    let stream = unfold(start, move |(mut received, net, mut stalled)| async move {
        loop {
            let (at, what) = received.recv().await?;
            sleep_until(at).await;
            stalled |= net.is_cut(from, to);
            if !stalled {
                return Some((what, (received, net, stalled)));
            }
        }
    });
    stream.boxed()
}

/// Opens a stream; see [`Transport::append_stream`](crate::transport::Transport::append_stream).
pub(super) async fn open(
    net: Net,
    from: NodeId,
    to: NodeId,
    caller: Caller,
    mut requests: BoxStream<'static, Append>,
    idle: Duration,
) -> Result<AppendReplies, TransportError> {
    // To connect takes a way there and back.
    tokio::time::sleep(REFUSED).await;
    let found = net.service(to);
    if net.loses_call(from, to) || net.is_cut(to, from) {
        tokio::time::sleep(idle).await;
        return Err(TransportError::Timeout(idle));
    }
    let Some((service, machine)) = found else {
        return Err(TransportError::Unreachable(format!("{to} is down")));
    };
    let (send_request, requests_sent) = mpsc::unbounded_channel::<OnItsWay<Append>>();
    let (send_answer, answers_sent) = mpsc::unbounded_channel::<OnItsWay<Reply>>();
    let waiting = Arc::new(Mutex::new((0, Instant::now())));
    let (mut there, asked) = (Pipe::new(net.clone(), from, to, true), waiting.clone());
    let pump = AbortOnDrop(host::spawn(async move {
        while let Some(request) = requests.next().await {
            note(&asked, 1);
            let Some(at) = there.send() else { continue };
            if send_request.send((at, request)).is_err() {
                return;
            }
        }
    }));
    let mut back = Pipe::new(net.clone(), to, from, false);
    let there = net.clone();
    drop(machine.spawn(async move {
        let mut answers = service.append_stream(caller, arriving(there, from, to, requests_sent));
        while let Some(answer) = answers.next().await {
            let Some(at) = back.send() else { continue };
            if send_answer.send((at, Some(answer))).is_err() {
                return;
            }
        }
        if let Some(at) = back.send() {
            let _nobody_listens = send_answer.send((at, None));
        }
    }));
    Ok(answers(arriving(net, to, from, answers_sent), pump, waiting, idle, to))
}

fn answers(
    stream: BoxStream<'static, Reply>,
    pump: AbortOnDrop,
    waiting: Waiting,
    idle: Duration,
    to: NodeId,
) -> AppendReplies {
    let start = Some((stream, pump, waiting));
    let answers = unfold(start, move |state| async move {
        let (mut stream, pump, waiting) = state?;
        loop {
            let (count, since) = note(&waiting, 0);
            let look = if count > 0 { since + idle } else { Instant::now() + idle };
            match timeout_at(look.max(Instant::now() + TICK), stream.next()).await {
                Ok(Some(None)) => return None,
                Ok(Some(Some(answer))) => {
                    note(&waiting, -1);
                    return Some((answer.map_err(TransportError::from), Some((stream, pump, waiting))));
                }
                // Whoever answered is gone.
                Ok(None) => {
                    tokio::time::sleep(REFUSED).await;
                    return Some((Err(TransportError::Broken(format!("{to} went down"))), None));
                }
                Err(_) => match note(&waiting, 0) {
                    (1.., since) if since.elapsed() >= idle => return Some((Err(TransportError::Timeout(idle)), None)),
                    // Nothing waits, or not for so long yet.
                    _ => {}
                },
            }
        }
    });
    answers.boxed()
}
