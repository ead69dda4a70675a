//! Streams of calls: each call is answered as the unary call of its name, whatever becomes of the others.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_membership::{Rejection, Revision};
use quorate_raft_core::rpc::{Append, Appended, KeepAlive, KeptAlive, ReadIndex};
use quorate_raft_core::{ProposeError, TransportError, TransportExt, View};
use tokio::sync::mpsc;
use tonic::{Code, Streaming};

use crate::fake::*;
use crate::links::Way;
use crate::outside::{failure, started};
use crate::pb;
use crate::pb::client_answer::Answer;
use crate::pb::client_call::Call as Asked;
use crate::stored::*;
use crate::values::*;

/// A client's end of a stream.
struct Stream {
    calls: mpsc::UnboundedSender<pb::CallsRequest>,
    answers: Streaming<pb::CallsResponse>,
}

impl Stream {
    async fn to(server: std::net::SocketAddr) -> Self {
        let (calls, mut sent) = mpsc::unbounded_channel();
        let messages = futures_util::stream::poll_fn(move |context| sent.poll_recv(context));
        let answers = store(server).await.calls(messages).await.unwrap().into_inner();
        Self { calls, answers }
    }

    fn send(&self, calls: Vec<(u64, u64, Option<Asked>)>) {
        let numbered = |(number, timeout_ms, call)| pb::ClientCall { number, timeout_ms, call };
        self.calls.send(pb::CallsRequest { calls: calls.into_iter().map(numbered).collect() }).unwrap();
    }

    /// So many answers, by their numbers.
    async fn answers(&mut self, count: usize) -> BTreeMap<u64, Answer> {
        let mut found = BTreeMap::new();
        while found.len() < count {
            let message = tokio::time::timeout(LIVENESS, self.answers.message()).await.unwrap().unwrap().unwrap();
            found.extend(message.answers.into_iter().map(|answer| (answer.number, answer.answer.unwrap())));
        }
        found
    }
}

#[tokio::test]
async fn each_call_of_a_stream_is_answered_as_the_unary_call_of_its_name() {
    let (fake, server) = started().await;
    let (state, _) = kept();
    fake.set(|script| script.view = View::new(std::sync::Arc::new(state), script.view.local.clone()));
    let mut unary = store(server.local_addr()).await;
    let open = || pb::OpenSessionRequest { name: None, ttl_ms: 1500, lock_delay_ms: 0, label: "backup".into() };
    let (alive, close) = (pb::KeepAliveRequest { session: 21 }, pb::CloseSessionRequest { session: 21 });
    let lock = || pb::LockRequest { request: None, session: 99, name: "vm/100".into(), wait_ms: 0 };
    let unlock = || pb::UnlockRequest { session: 21, name: "vm/100".into(), token: 4 };
    let get_lock = || pb::GetLockRequest { name: "vm/100".into(), reading: None };
    let write = || pb::WriteRequest { name: None, checks: checks().0, changes: changes().0 };
    let get = || pb::GetRequest { key: "a".into(), reading: Some(pb::Reading { linearizable: true, timeout_ms: 50 }) };
    let take = || pb::TakeRequest { name: None, queue: "vm/100".into(), token: 4 };
    let list = pb::ListRequest::default;
    macro_rules! both {
        ($($method:ident($request:expr) as $kind:ident),* $(,)?) => {{
            let mut due = vec![];
            $( due.push((
                Some(Asked::$kind($request)),
                unary.$method($request).await.map(|answer| Answer::$kind(answer.into_inner())),
            )); )*
            due
        }};
    }
    let due = both![
        open_session(open()) as OpenSession,
        keep_alive(alive) as KeepAlive,
        close_session(close) as CloseSession,
        lock(lock()) as Lock,
        unlock(unlock()) as Unlock,
        get_lock(get_lock()) as GetLock,
        write(write()) as Write,
        get(get()) as Get,
        list(list()) as List,
        take(take()) as Take,
        // What makes no sense, in the same words.
        get(pb::GetRequest::default()) as Get,
    ];
    let mut stream = Stream::to(server.local_addr()).await;
    let calls = due.iter().zip(1..).map(|((call, _), number)| (number, 0, call.clone())).collect();
    stream.send(calls);
    let answers = stream.answers(due.len()).await;
    let mut failed = 0;
    for ((call, due), number) in due.into_iter().zip(1..) {
        match (due, &answers[&number]) {
            (Ok(due), answer) => assert_eq!(&due, answer, "{call:?}"),
            (Err(due), Answer::Failed(answer)) => {
                failed += 1;
                let said = (answer.code, answer.message.as_str(), &answer.details[..]);
                assert_eq!((due.code() as i32, due.message(), due.details()), said, "{call:?}");
            }
            (due, answer) => panic!("{call:?}: {due:?}, and on a stream {answer:?}"),
        }
    }
    assert!(failed >= 2, "the lock and the read without a key");
}

#[tokio::test]
async fn a_call_that_hangs_or_fails_or_says_nothing_holds_up_no_other() {
    let (fake, server) = started().await;
    let mut stream = Stream::to(server.local_addr()).await;
    let conflict = Rejection::Version { key: key("a"), expected: None, found: Some(Revision::new(4)) };
    fake.set(|script| script.once = Err(ProposeError::from(conflict)));
    let write = || Some(Asked::Write(pb::WriteRequest::default()));
    let alive = Some(Asked::KeepAlive(pb::KeepAliveRequest { session: 77 }));
    stream.send(vec![(7, 0, write()), (9, 0, None), (8, 0, alive)]);
    let answers = stream.answers(3).await;
    let Answer::Failed(rejected) = &answers[&7] else { panic!("{answers:?}") };
    let status = tonic::Status::with_details(Code::from_i32(rejected.code), "", rejected.details.clone());
    assert_eq!((status.code(), failure(&status).code.as_str()), (Code::FailedPrecondition, "rejected"));
    let Answer::Failed(nothing) = &answers[&9] else { panic!("{answers:?}") };
    assert_eq!(nothing.code, Code::InvalidArgument as i32);
    assert!(nothing.message.contains("the call is missing"), "{}", nothing.message);
    assert!(matches!(answers[&8], Answer::KeepAlive(_)), "{answers:?}");
}

/// A heartbeat is a small call, with each answer that an append may have.
#[tokio::test]
async fn a_heartbeat_is_answered_on_the_stream_of_small_calls() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let (transport, peer) = (patient(), peer(server.local_addr()));
    let heartbeat = Append { entries: vec![], ..append(3, 0) };
    let answers = [
        Appended::Success,
        Appended::Partial(None),
        Appended::Partial(Some(at(6, 40))),
        Appended::Conflict,
        Appended::HigherBallot(ballot(9, 3)),
    ];
    for answer in answers {
        fake.set(|script| script.appended = answer);
        assert_eq!(transport.request(&peer, caller(), heartbeat.clone(), LIVENESS).await.unwrap(), answer);
    }
    let sent = Call::Append(caller(), heartbeat);
    assert_eq!(fake.calls(), vec![sent; answers.len()]);
}

/// Calls on one lane share a connection and a stream; one that is lost with the stream may have arrived.
#[tokio::test]
async fn calls_of_a_stream_that_breaks_may_have_arrived_and_the_next_ones_find_another() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let way = Way::to(server.local_addr()).await;
    let (transport, peer) = (patient(), peer(way.address));
    for _ in 0..20 {
        transport.request(&peer, caller(), ReadIndex, LIVENESS).await.unwrap();
        transport.request(&peer, caller(), KeepAlive(quorate_membership::SessionId::new(1)), LIVENESS).await.unwrap();
    }
    assert_eq!(way.connections.get(), 2, "one a lane");
    fake.set(|script| script.hang = true);
    let mut hanging = tokio::task::JoinSet::new();
    for _ in 0..5 {
        hanging.spawn(transport.request(&peer, caller(), ReadIndex, LIVENESS));
    }
    fake.until(|calls| calls.iter().filter(|call| matches!(call, Call::ReadIndex(_))).count() == 25).await;
    way.cut();
    while let Some(lost) = hanging.join_next().await {
        let lost = lost.unwrap();
        assert!(matches!(lost, Err(TransportError::Broken(_))), "it had arrived: {lost:?}");
    }
    fake.set(|script| script.hang = false);
    let again = transport.request(&peer, caller(), KeepAlive(quorate_membership::SessionId::new(1)), LIVENESS);
    assert_eq!(again.await, Ok(KeptAlive::Ended));
}

#[tokio::test]
async fn a_call_of_a_stream_is_given_up_at_its_deadline_on_both_sides() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let (transport, peer, deadline) = (patient(), peer(server.local_addr()), Duration::from_millis(200));
    fake.set(|script| script.hang = true);
    let late = transport.request(&peer, caller(), ReadIndex, deadline).await;
    assert_eq!(late, Err(TransportError::Timeout(deadline)));
    fake.until(|calls| calls.contains(&Call::GivenUp)).await;
}
