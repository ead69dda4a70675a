//! A service that records every call, and what the tests say to it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use quorate_membership::lease::Receipts;
use quorate_membership::{ClusterState, Command, NodeId, Nonce, Request, Revision, SessionId};
use quorate_raft_core::Committed;
use quorate_raft_core::rpc::{
    self, Answer, Append, Appended, Caller, FencerReach, KeptAlive, Position, Proposed, Refused, Renewed,
    StreamAppended, Transferred, VoteAnswer,
};
use quorate_raft_core::transport::{JoinAnswer, JoinRequest, RequestName};
use quorate_raft_core::{
    ClientService, FeedItem, Filter, HandOverError, Local, MakeCommand, PeerService, ProposeError, ReadError, Refusal,
    View,
};
use tokio::sync::watch;

pub(crate) use crate::script::{Call, Script, Streams};
use crate::values::{LIVENESS, ballot, joined, n, vote_answer};

pub(crate) struct Fake {
    pub(crate) script: Mutex<Script>,
    calls: Mutex<Vec<Call>>,
    pub(crate) applied: watch::Sender<Revision>,
    changed: tokio::sync::Notify,
}

/// Notes when a call that hangs is dropped.
struct Hanging(Arc<Fake>);

impl Drop for Hanging {
    fn drop(&mut self) {
        self.0.note(Call::GivenUp);
    }
}

/// What the fake offers: an [`Arc`], so that calls may outlive the borrow.
#[derive(Clone)]
pub(crate) struct FakeService(pub(crate) Arc<Fake>);

impl Fake {
    pub(crate) fn new() -> Arc<Self> {
        let mut local = Local::unknown(n(2));
        (local.quorate, local.leader, local.term) = (true, Some(n(1)), 3);
        local.applied = Revision::new(9);
        let script = Script {
            refuse: None,
            hang: false,
            appended: Appended::Success,
            transferred: Transferred::Accepted,
            proposed: Proposed::Applied { revision: Revision::new(42) },
            not_renewed: None,
            streams: Streams::AtOnce,
            view: View::new(Arc::new(ClusterState::new()), local),
            command: ProposeError::OutcomeUnknown { reason: "never".into() },
            hand_over: Ok(n(3)),
            feed: Vec::new(),
            kept_alive: KeptAlive::Ended,
            reach: FencerReach::Fails,
            receipts: Receipts::default(),
            refuses: Refused {
                refuses: true,
                connected: false,
                follows: true,
                last: Some(Position { term: 3, index: 7 }),
                may_stand: true,
            },
            once: Ok(Revision::new(77)),
            barrier: Ok(Revision::new(9)),
        };
        let applied = watch::Sender::new(Revision::new(9));
        let changed = tokio::sync::Notify::new();
        Arc::new(Self { script: Mutex::new(script), calls: Mutex::default(), applied, changed })
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().unwrap());
    }

    /// What was called. That a node has gone is no call.
    pub(crate) fn calls(&self) -> Vec<Call> {
        let mut calls = self.calls.lock().unwrap().clone();
        calls.retain(|call| !matches!(call, Call::Disconnected(_)));
        calls
    }

    /// Waits until a node has closed its last connection.
    pub(crate) async fn gone(&self, node: NodeId) {
        while !self.calls.lock().unwrap().contains(&Call::Disconnected(node)) {
            let _ = tokio::time::timeout(Duration::from_millis(20), self.changed.notified()).await;
        }
    }

    fn note(&self, call: Call) {
        self.calls.lock().unwrap().push(call);
        self.changed.notify_waiters();
    }

    /// Waits until the calls satisfy `enough`.
    pub(crate) async fn until(&self, enough: impl Fn(&[Call]) -> bool) {
        let satisfied = async {
            loop {
                let changed = self.changed.notified();
                if enough(&self.calls()) {
                    return;
                }
                let _ = tokio::time::timeout(Duration::from_millis(20), changed).await;
            }
        };
        let waited = tokio::time::timeout(LIVENESS, satisfied).await;
        assert!(waited.is_ok(), "never satisfied by {:?}", self.calls());
    }

    fn read<T>(&self, read: impl FnOnce(&Script) -> T) -> T {
        read(&self.script.lock().unwrap())
    }
}

impl FakeService {
    fn answer<T: Send + 'static>(
        &self,
        call: Call,
        read: impl FnOnce(&Script) -> T,
    ) -> BoxFuture<'static, Result<T, Refusal>> {
        self.0.note(call);
        let answer = self.0.read(|script| match &script.refuse {
            Some(refusal) => Err(refusal.clone()),
            None => Ok(read(script)),
        });
        let hanging = self.0.read(|script| script.hang).then(|| Hanging(self.0.clone()));
        Box::pin(async move {
            if let Some(_hanging) = hanging {
                std::future::pending::<()>().await;
            }
            answer
        })
    }
}

/// The last place in an append, or the one before it.
pub(crate) fn end(append: &Append) -> Option<Position> {
    append.entries.last().map(|entry| entry.at).or(append.prev)
}

impl PeerService for FakeService {
    fn call(&self, caller: Caller, call: rpc::Call) -> BoxFuture<'static, Result<Answer, Refusal>> {
        let noted = match call.clone() {
            rpc::Call::Append(append) => Call::Append(caller, append),
            rpc::Call::Vote(request) => Call::Vote(caller, request),
            rpc::Call::PreVote(request) => Call::PreVote(caller, request),
            rpc::Call::Snapshot(snapshot) => Call::Snapshot(caller, snapshot),
            rpc::Call::Transfer(transfer) => Call::Transfer(caller, transfer),
            rpc::Call::Propose(command) => Call::Propose(caller, command),
            rpc::Call::ReadIndex => Call::ReadIndex(caller),
            rpc::Call::Renew(renewal) => Call::Renew(caller, renewal),
            rpc::Call::KeepAlive(session) => Call::KeepAlive(caller, session),
            rpc::Call::CanFence(order) => Call::CanFence(caller, order),
            rpc::Call::Refuses(leader) => Call::Refuses(caller, leader),
            rpc::Call::Receipts(asked) => Call::Receipts(caller, asked),
        };
        self.answer(noted, |script| match call {
            rpc::Call::Append(_) => Answer::Append(script.appended),
            rpc::Call::Vote(_) => Answer::Vote(vote_answer()),
            rpc::Call::PreVote(_) => Answer::PreVote(VoteAnswer { granted: false, ..vote_answer() }),
            rpc::Call::Snapshot(_) => Answer::Snapshot(ballot(8, 2)),
            rpc::Call::Transfer(_) => Answer::Transfer(script.transferred),
            rpc::Call::Propose(_) => Answer::Propose(script.proposed.clone()),
            rpc::Call::ReadIndex => Answer::ReadIndex(Revision::new(1042)),
            rpc::Call::Renew(renewal) => Answer::Renew(match script.not_renewed {
                Some((refusal, leader)) => Renewed::Refused { refusal, leader },
                None => Renewed::Granted(renewal),
            }),
            rpc::Call::KeepAlive(_) => Answer::KeepAlive(script.kept_alive),
            rpc::Call::CanFence(_) => Answer::CanFence(script.reach),
            rpc::Call::Refuses(_) => Answer::Refuses(script.refuses),
            rpc::Call::Receipts(_) => Answer::Receipts(script.receipts.clone()),
        })
    }

    fn disconnected(&self, node: NodeId) {
        self.0.note(Call::Disconnected(node));
    }

    fn append_stream(
        &self,
        caller: Caller,
        requests: BoxStream<'static, Append>,
    ) -> BoxStream<'static, Result<StreamAppended, Refusal>> {
        self.0.note(Call::StreamBegan(caller));
        let (fake, at_end) = (self.0.clone(), Ended(self.0.clone()));
        if let Some(refusal) = fake.read(|script| script.refuse.clone()) {
            return stream::iter([Err(refusal)]).boxed();
        }
        let ends = requests.map(move |append| {
            let _ = &at_end;
            let end = end(&append);
            fake.note(Call::StreamAppend(append));
            end
        });
        let flushed = |end| Ok(StreamAppended::Flushed(end));
        match self.0.read(|script| script.streams.clone()) {
            Streams::AtOnce => ends.map(flushed).boxed(),
            Streams::After(count) => ends
                .ready_chunks(1)
                .scan((Vec::new(), count), move |(held, count), mut one| {
                    held.append(&mut one);
                    let release = held.len() >= *count;
                    if release {
                        *count = 0;
                    }
                    std::future::ready(Some(stream::iter(if release { std::mem::take(held) } else { Vec::new() })))
                })
                .flatten()
                .map(flushed)
                .boxed(),
            Streams::Slowly(pause) => ends
                .then(move |end| async move {
                    tokio::time::sleep(pause).await;
                    flushed(end)
                })
                .boxed(),
            Streams::Only(count) => ends
                .enumerate()
                .filter_map(move |(at, end)| std::future::ready((at < count).then(|| flushed(end))))
                .boxed(),
            Streams::Then(count, last) => ends
                .enumerate()
                .take(count + 1)
                .map(move |(at, end)| if at < count { flushed(end) } else { Ok(last) })
                .boxed(),
        }
    }

    fn join(&self, request: JoinRequest) -> BoxFuture<'static, Result<JoinAnswer, Refusal>> {
        self.answer(Call::Join(request), |_| joined())
    }
}

impl ClientService for FakeService {
    fn view(&self) -> View {
        self.0.read(|script| script.view.clone())
    }

    fn command(&self, command: Command) -> BoxFuture<'static, Result<Committed, ProposeError>> {
        self.0.note(Call::Command(command));
        let error = self.0.read(|script| script.command.clone());
        Box::pin(async move { Err(error) })
    }

    fn hand_over(&self, to: Option<NodeId>) -> BoxFuture<'static, Result<NodeId, HandOverError>> {
        self.0.note(Call::HandOver(to));
        let answer = self.0.read(|script| script.hand_over.clone());
        Box::pin(async move { answer })
    }

    /// What the script has, and then nothing more, without an end.
    fn events_since(&self, revision: Revision, filter: Filter) -> BoxStream<'static, FeedItem> {
        self.0.note(Call::Events(revision, filter));
        stream::iter(self.0.read(|script| script.feed.clone())).chain(stream::pending()).boxed()
    }

    fn keep_session(&self, session: SessionId, _: Duration) -> BoxFuture<'static, KeptAlive> {
        self.0.note(Call::KeepSession(session));
        let kept = self.0.read(|script| script.kept_alive);
        Box::pin(async move { kept })
    }

    /// Draws the same nonce for each request without a name.
    fn once(
        &self,
        named: Option<RequestName>,
        make: MakeCommand,
    ) -> BoxFuture<'static, Result<(Request, Revision), ProposeError>> {
        let since = named.and_then(|named| named.since).unwrap_or(Revision::new(9));
        let request = Request { nonce: named.map_or(DRAWN, |named| named.nonce), since };
        self.0.note(Call::Once(named, make(request)));
        let done = self.0.read(|script| script.once.clone());
        let hanging = self.0.read(|script| script.hang).then(|| Hanging(self.0.clone()));
        Box::pin(async move {
            if let Some(_hanging) = hanging {
                std::future::pending::<()>().await;
            }
            done.map(|revision| (request, revision))
        })
    }

    fn read_barrier(&self, timeout: Duration) -> BoxFuture<'static, Result<Revision, ReadError>> {
        self.0.note(Call::Barrier(timeout));
        let reached = self.0.read(|script| script.barrier.clone());
        Box::pin(async move { reached })
    }

    fn applied(&self) -> watch::Receiver<Revision> {
        self.0.applied.subscribe()
    }
}

/// The nonce of requests that nobody has named.
pub(crate) const DRAWN: Nonce = Nonce::new(0xd4a0_0000);

/// Notes when the requests of a stream are over.
struct Ended(Arc<Fake>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.note(Call::StreamEnded);
    }
}
