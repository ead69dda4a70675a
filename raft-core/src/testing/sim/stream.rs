//! A stream of batches between two simulated machines: in order, like one connection.
//!
//! ```text
//!   requests ─▶ pump here ──in order, each after its leg──▶ service there ─▶ pump there ──▶ answers
//!                  │ a message on a cut link, or lost: the connection stalls for good, and the idle time ends it
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{BoxStream, unfold};
use parking_lot::{Mutex, MutexGuard};
use quorate_membership::NodeId;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::net::{Leg, Net, REFUSED};
use super::thin_way::{FRAME, Load};
use crate::error::{Refusal, TransportError};
use crate::host;
use crate::rpc::{Append, Body, Caller, StreamAppended};
use crate::transport::AppendReplies;

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a stream waits for.
#[derive(Clone)]
struct Waiting(Arc<Mutex<Unanswered>>);

struct Unanswered {
    /// The sizes of the requests that wait for an answer, in bytes.
    sizes: VecDeque<usize>,
    /// Since when nothing has come although one does.
    since: Instant,
    /// Since when nothing passes on the connection, in one direction.
    stalled: Option<Instant>,
}

/// As `quorate-transport-grpc` has it: the silence that ends a stream grows with what is on its way, at so many bytes a
/// second; a ping that is not answered on a lane for much ends the connection after so long, whatever is on its way.
const THINNEST: usize = 32 << 10;
const PINGED: Duration = Duration::from_millis(10_500);

/// The least and the most that is waited between two looks.
const TICK: Duration = Duration::from_millis(5);
const LOOK: Duration = Duration::from_secs(1);

impl Waiting {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Unanswered { sizes: VecDeque::new(), since: Instant::now(), stalled: None })))
    }

    fn lock(&self) -> MutexGuard<'_, Unanswered> {
        self.0.lock()
    }

    /// Notes a request. Once nothing passes, flow control takes no more into the connection.
    fn sent(&self, size: usize) {
        let mut waiting = self.lock();
        if waiting.sizes.is_empty() {
            waiting.since = Instant::now();
        }
        let size = if waiting.stalled.is_some() { 0 } else { size };
        waiting.sizes.push_back(size);
    }

    fn stalled(&self) {
        self.lock().stalled.get_or_insert_with(Instant::now);
    }

    fn answered(&self) {
        let mut waiting = self.lock();
        waiting.sizes.pop_front();
        waiting.since = Instant::now();
    }

    /// When the silence is too long; `None` while nothing waits.
    fn ends(&self, idle: Duration) -> Option<Instant> {
        let waiting = self.lock();
        let bytes: usize = waiting.sizes.iter().sum();
        let limit = waiting.since + idle + Duration::from_secs_f64(bytes as f64 / THINNEST as f64);
        let pinged = waiting.stalled.map(|stalled| stalled + PINGED);
        (!waiting.sizes.is_empty()).then(|| pinged.map_or(limit, |pinged| pinged.min(limit)))
    }
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
    fn send(&mut self, load: Load) -> Option<Instant> {
        let leg = match self.calls {
            true => self.net.call_leg(self.from, self.to, load),
            false => self.net.leg(self.from, self.to, load),
        };
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

/// About as many bytes as an append takes.
fn size_of_append(append: &Append) -> usize {
    let size = |body: &Body| match body {
        Body::Command(command) => command.as_bytes().len(),
        Body::Blank | Body::Configuration(_) => 0,
    };
    append.entries.iter().map(|entry| FRAME + size(&entry.body)).sum::<usize>() + FRAME
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
    waiting: Waiting,
) -> BoxStream<'static, T> {
    let start = (received, net, waiting);
    let stream = unfold(start, move |(mut received, net, waiting)| async move {
        let mut stalled = false;
        loop {
            let (at, what) = received.recv().await?;
            sleep_until(at).await;
            stalled |= net.is_cut(from, to);
            if !stalled {
                return Some((what, (received, net, waiting)));
            }
            waiting.stalled();
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
    let found = net.service(from, to);
    if net.loses_call(from, to) || net.is_cut(to, from) {
        tokio::time::sleep(idle).await;
        return Err(TransportError::Timeout(idle));
    }
    let Some((service, machine)) = found else {
        return Err(TransportError::Unreachable(format!("{to} is down")));
    };
    let (send_request, requests_sent) = mpsc::unbounded_channel::<OnItsWay<Append>>();
    let (send_answer, answers_sent) = mpsc::unbounded_channel::<OnItsWay<Reply>>();
    let waiting = Waiting::new();
    let (mut there, asked) = (Pipe::new(net.clone(), from, to, true), waiting.clone());
    let pump = AbortOnDrop(host::spawn(async move {
        while let Some(request) = requests.next().await {
            let size = size_of_append(&request);
            asked.sent(size);
            let Some(at) = there.send(Load { size, bulk: true }) else {
                asked.stalled();
                continue;
            };
            if send_request.send((at, request)).is_err() {
                return;
            }
        }
    }));
    let mut back = Pipe::new(net.clone(), to, from, false);
    let (there, owed) = (net.clone(), waiting.clone());
    drop(machine.spawn(async move {
        let mut answers = service.append_stream(caller, arriving(there, from, to, requests_sent, owed.clone()));
        while let Some(answer) = answers.next().await {
            let Some(at) = back.send(Load::SMALL) else {
                owed.stalled();
                continue;
            };
            if send_answer.send((at, Some(answer))).is_err() {
                return;
            }
        }
        match back.send(Load::SMALL) {
            Some(at) => {
                let _nobody_listens = send_answer.send((at, None));
            }
            None => owed.stalled(),
        }
    }));
    Ok(answers(arriving(net, to, from, answers_sent, waiting.clone()), pump, waiting, idle, to))
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
            let look = waiting.ends(idle).unwrap_or_else(|| Instant::now() + idle);
            // A stall that begins meanwhile ends the wait sooner.
            let look = look.clamp(Instant::now() + TICK, Instant::now() + LOOK);
            match timeout_at(look, stream.next()).await {
                Ok(Some(None)) => return None,
                Ok(Some(Some(answer))) => {
                    waiting.answered();
                    return Some((answer.map_err(TransportError::from), Some((stream, pump, waiting))));
                }
                // Whoever answered is gone.
                Ok(None) => {
                    tokio::time::sleep(REFUSED).await;
                    return Some((Err(TransportError::Broken(format!("{to} went down"))), None));
                }
                Err(_) if waiting.ends(idle).is_some_and(|ends| ends <= Instant::now()) => {
                    return Some((Err(TransportError::Timeout(idle)), None));
                }
                // Nothing waits, or not for so long yet.
                Err(_) => {}
            }
        }
    });
    answers.boxed()
}
