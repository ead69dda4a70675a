//! Clients that wait for a lock, at a real node: granted, too late, gone, asked again; and nothing stays in line.

use std::sync::Arc;
use std::time::Duration;

use quorate_membership::{Command, Holder, Nonce, Rejection, Request, Revision, Role, SessionId, apply};
use quorate_raft_core::{Node, View};
use quorate_transport_grpc::Server;
use tonic::{Code, Status};

use crate::fake::*;
use crate::nodes::{node, until};
use crate::outside::{failure, started};
use crate::pb;
use crate::pb::failure::Kind;
use crate::pb::store_client::StoreClient;
use crate::stored::{kept, name, pb_session};
use crate::story::id;
use crate::values::*;

type Client = StoreClient<Plain>;

/// One node that leads itself, and what is asked of it.
struct Alone {
    node: Node,
    server: Server,
    _folder: tempfile::TempDir,
}

impl Alone {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (node, server) = node(1, folder.path()).await;
        node.bootstrap(Role::Voter, LIVENESS).await.unwrap();
        Self { node, server, _folder: folder }
    }

    async fn client(&self) -> Client {
        store(self.server.local_addr()).await
    }

    /// Waits until so many are in line for `vm/100`.
    async fn in_line(&self, count: usize) {
        let waiting = |lock: Option<&quorate_membership::Lock>| lock.map_or(0, |lock| lock.waiters().len());
        let claim = format!("{count} in line");
        until(&self.node, &claim, |cluster| waiting(cluster.store().lock(&name("vm/100"))) == count).await;
    }

    async fn held_by(&self, session: u64) {
        let of = |lock: Option<&quorate_membership::Lock>| lock.and_then(|lock| lock.grant).map(|grant| grant.holder);
        let expected = Holder::Session(SessionId::new(session));
        let claim = format!("s{session} has it");
        until(&self.node, &claim, |cluster| of(cluster.store().lock(&name("vm/100"))) == Some(expected)).await;
    }

    async fn stop(self) {
        tokio::time::timeout(LIVENESS, self.node.shutdown()).await.unwrap();
        self.server.shutdown().await;
    }
}

async fn session(client: &mut Client) -> u64 {
    let request = pb::OpenSessionRequest { name: None, ttl_ms: 600_000, lock_delay_ms: 0, label: "a test".into() };
    client.open_session(request).await.unwrap().into_inner().session
}

fn asked(session: u64, wait: Duration) -> pb::LockRequest {
    let wait_ms = u64::try_from(wait.as_millis()).unwrap();
    pb::LockRequest { request: None, session, name: "vm/100".into(), wait_ms }
}

fn named(session: u64, wait: Duration, nonce: u128) -> pb::LockRequest {
    pb::LockRequest { request: Some(pb::RequestName { nonce: id(nonce), since: 1 }), ..asked(session, wait) }
}

async fn lock(client: &Client, request: pb::LockRequest) -> Result<u64, Status> {
    let mut client = client.clone();
    let answer = tokio::time::timeout(2 * LIVENESS, client.lock(request)).await.expect("an answer");
    answer.map(|answer| answer.into_inner().token)
}

async fn unlock(client: &mut Client, session: u64, token: u64) {
    client.unlock(pb::UnlockRequest { session, name: "vm/100".into(), token }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_passes_on_in_the_order_of_asking_and_a_late_one_leaves_the_line() {
    let alone = Alone::start().await;
    let mut client = alone.client().await;
    let (one, two, three) = (session(&mut client).await, session(&mut client).await, session(&mut client).await);
    let first = lock(&client, asked(one, Duration::ZERO)).await.unwrap();

    // Who does not wait is told at once who has it; who waits for a while, after that.
    let status = lock(&client, asked(two, Duration::ZERO)).await.unwrap_err();
    let Some(Kind::Rejected(rejection)) = failure(&status).kind else { panic!("{status}") };
    let held = pb::LockIsHeld { name: "vm/100".into(), holder: pb_session(one), token: first };
    assert_eq!(rejection.kind, Some(pb::rejection::Kind::LockHeld(held)));
    let status = lock(&client, asked(two, Duration::from_millis(200))).await.unwrap_err();
    let Some(Kind::LockTimedOut(late)) = failure(&status).kind else { panic!("{status}") };
    assert_eq!((status.code(), late.holder, late.token), (Code::DeadlineExceeded, pb_session(one), Some(first)));
    assert!(late.waited_ms >= 200, "{late:?}");
    let look = pb::GetLockRequest { name: "vm/100".into(), reading: None };
    let seen = client.get_lock(look.clone()).await.unwrap().into_inner().lock.unwrap();
    assert_eq!((seen.holder, seen.token, seen.waiters), (pb_session(one), Some(first), vec![]));

    let second = tokio::spawn({
        let client = client.clone();
        async move { lock(&client, asked(two, LIVENESS)).await }
    });
    alone.in_line(1).await;
    let third = tokio::spawn({
        let client = client.clone();
        async move { lock(&client, asked(three, LIVENESS)).await }
    });
    alone.in_line(2).await;
    unlock(&mut client, one, first).await;
    let second = second.await.unwrap().unwrap();
    assert!(second > first && !third.is_finished());
    // Late, under a token that is none any more: nothing happens.
    unlock(&mut client, one, first).await;
    alone.held_by(two).await;
    // A session that is closed passes on what it had at once.
    client.close_session(pb::CloseSessionRequest { session: two }).await.unwrap();
    assert!(third.await.unwrap().unwrap() > second);
    alone.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_cancelled_leaves_nothing_in_line() {
    let alone = Alone::start().await;
    let mut client = alone.client().await;
    let (one, two) = (session(&mut client).await, session(&mut client).await);
    let token = lock(&client, asked(one, Duration::ZERO)).await.unwrap();
    // Given up by the client, with its connection, by its deadline.
    let cancelled = tokio::spawn({
        let client = client.clone();
        async move { lock(&client, asked(two, LIVENESS)).await }
    });
    let lost = tokio::spawn({
        let client = alone.client().await;
        async move { lock(&client, named(two, LIVENESS, 7)).await }
    });
    alone.in_line(2).await;
    cancelled.abort();
    alone.in_line(1).await;
    lost.abort();
    alone.in_line(0).await;
    let mut hasty = tonic::Request::new(asked(two, LIVENESS));
    hasty.set_timeout(Duration::from_millis(300));
    assert_eq!(client.clone().lock(hasty).await.unwrap_err().code(), Code::DeadlineExceeded);
    alone.in_line(0).await;
    // What was cancelled takes no effect under its name any more.
    let status = lock(&client, named(two, Duration::ZERO, 7)).await.unwrap_err();
    assert_eq!(failure(&status).code, "lock_request_over", "{status}");

    // Cancelled at any moment, before and after it is granted: nobody waits in the end. Whose answer was on its way when
    // the call was cancelled, finds out by asking.
    unlock(&mut client, one, token).await;
    for pause in 0..25 {
        let call = tokio::spawn({
            let client = client.clone();
            async move { lock(&client, asked(two, LIVENESS)).await }
        });
        tokio::time::sleep(Duration::from_micros(pause * 400)).await;
        call.abort();
        if let Ok(Ok(token)) = call.await {
            unlock(&mut client, two, token).await;
        }
    }
    alone.in_line(0).await;
    let look = pb::GetLockRequest { name: "vm/100".into(), reading: None };
    if let Some(token) = client.get_lock(look).await.unwrap().into_inner().lock.unwrap().token {
        unlock(&mut client, two, token).await;
    }
    until(&alone.node, "it is free", |cluster| cluster.store().lock(&name("vm/100")).is_none()).await;
    alone.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_with_a_name_may_be_asked_again() {
    let alone = Alone::start().await;
    let mut client = alone.client().await;
    let (one, two) = (session(&mut client).await, session(&mut client).await);
    let token = lock(&client, named(one, Duration::ZERO, 1)).await.unwrap();
    assert_eq!(lock(&client, named(one, Duration::ZERO, 1)).await.unwrap(), token);
    // In line once, however often it is asked; and both are told the same.
    let waiting = |client: Client| tokio::spawn(async move { lock(&client, named(two, LIVENESS, 2)).await });
    let (first, again) = (waiting(alone.client().await), waiting(alone.client().await));
    alone.in_line(1).await;
    unlock(&mut client, one, token).await;
    let second = first.await.unwrap().unwrap();
    assert_eq!(again.await.unwrap().unwrap(), second);
    // What it was granted is over now, and is not granted again.
    unlock(&mut client, two, second).await;
    let status = lock(&client, named(two, LIVENESS, 2)).await.unwrap_err();
    assert_eq!((status.code(), failure(&status).code.as_str()), (Code::FailedPrecondition, "lock_request_over"));
    // A rejection ends a request as well: no copy of it that is still under way takes effect.
    let third = lock(&client, named(one, Duration::ZERO, 3)).await.unwrap();
    let refused = lock(&client, named(two, Duration::ZERO, 4)).await.unwrap_err();
    let Some(Kind::Rejected(rejection)) = failure(&refused).kind else { panic!("{refused}") };
    assert_eq!(rejection.code, "lock_held");
    unlock(&mut client, one, third).await;
    let status = lock(&client, named(two, Duration::ZERO, 4)).await.unwrap_err();
    let Some(Kind::Rejected(rejection)) = failure(&status).kind else { panic!("{status}") };
    assert_eq!(rejection.code, "void");
    alone.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_is_told_that_its_session_or_its_node_has_ended() {
    let alone = Alone::start().await;
    let mut client = alone.client().await;
    let (one, two, three) = (session(&mut client).await, session(&mut client).await, session(&mut client).await);
    lock(&client, asked(one, Duration::ZERO)).await.unwrap();
    let closed = tokio::spawn({
        let client = client.clone();
        async move { lock(&client, asked(two, LIVENESS)).await }
    });
    alone.in_line(1).await;
    let ended = tokio::spawn({
        let client = client.clone();
        async move { lock(&client, asked(three, LIVENESS)).await }
    });
    alone.in_line(2).await;
    client.close_session(pb::CloseSessionRequest { session: two }).await.unwrap();
    let status = closed.await.unwrap().unwrap_err();
    let Some(Kind::Rejected(rejection)) = failure(&status).kind else { panic!("{status}") };
    assert_eq!(
        (rejection.code.as_str(), rejection.kind),
        ("may_not_hold", pb_session(two).map(pb::rejection::Kind::MayNotHold))
    );
    let refused = lock(&client, asked(two, Duration::ZERO)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    alone.stop().await;
    assert!(ended.await.unwrap().is_err());
}

/// Granted in the moment in which the call was given up: given back, unless somebody may have been told elsewhere.
#[tokio::test]
async fn what_was_granted_to_a_call_that_is_gone_is_given_back_unless_it_has_a_name() {
    for nonce in [None, Some(5_u128)] {
        let (fake, server) = started().await;
        let (state, _) = kept();
        let mut state = state;
        let holder = Holder::Session(SessionId::new(22));
        let mut asked = Request { nonce: nonce.map_or(DRAWN, Nonce::new), since: Revision::new(9) };
        let granted = Command::Lock {
            request: Request { since: Revision::new(38), ..asked },
            name: name("x"),
            holder,
            wait: true,
        };
        apply(&mut state, Revision::new(39), &granted).unwrap();
        fake.set(|script| {
            script.view = View::new(Arc::new(state), script.view.local.clone());
            script.hang = true;
            // It was settled long ago, as far as the rules are concerned.
            script.command = Rejection::Void(asked).into();
        });
        let mut client = store(server.local_addr()).await;
        let named = nonce.map(|nonce| pb::RequestName { nonce: id(nonce), since: 1 });
        asked.since = Revision::new(if named.is_some() { 1 } else { 9 });
        let request = pb::LockRequest { request: named, session: 22, name: "x".into(), wait_ms: 60_000 };
        let call = tokio::spawn(async move { client.lock(request).await });
        fake.until(|calls| matches!(calls, [Call::Once(..)])).await;
        call.abort();
        fake.until(|calls| calls.len() >= 4).await;
        let settle = Command::Settle { request: asked, lock: Some(name("x")) };
        let unlock = Command::Unlock { name: name("x"), holder, token: Revision::new(39) };
        let expected = match nonce {
            None => vec![Call::GivenUp, Call::Command(settle), Call::Command(unlock)],
            // A name may be another's: whose it is, the newest state says.
            Some(_) => vec![Call::GivenUp, Call::Barrier(BARRIER), Call::Command(settle)],
        };
        assert_eq!(fake.calls()[1..], expected);
    }
}

/// How long a node may take until a quorum confirms that its state is the newest.
const BARRIER: Duration = Duration::from_secs(5);

/// Who gives up a request under the name of another's withdraws nothing: neither one in line nor one that was granted.
#[tokio::test]
async fn a_request_that_is_given_up_withdraws_nobody_elses() {
    for waits in [false, true] {
        let (fake, server) = started().await;
        let (mut state, _) = kept();
        let lock = |nonce, session| Command::Lock {
            request: Request { nonce: Nonce::new(nonce), since: state.revision() },
            name: name("x"),
            holder: Holder::Session(SessionId::new(session)),
            wait: true,
        };
        // s22 is granted it, or waits behind s38, under the name 605.
        let commands = if waits { vec![lock(604, 38), lock(605, 22)] } else { vec![lock(605, 22)] };
        for command in commands {
            let at = Revision::new(state.revision().get() + 1);
            let told = apply(&mut state, at, &command).unwrap();
            assert!(!told.is_empty(), "{command:?} changed nothing");
        }
        fake.set(|script| {
            script.view = View::new(Arc::new(state), script.view.local.clone());
            script.hang = true;
        });
        let mut client = store(server.local_addr()).await;
        let named = Some(pb::RequestName { nonce: id(605), since: 1 });
        let request = pb::LockRequest { request: named, session: 38, name: "x".into(), wait_ms: 60_000 };
        let call = tokio::spawn(async move { client.lock(request).await });
        fake.until(|calls| matches!(calls, [Call::Once(..)])).await;
        call.abort();
        fake.until(|calls| calls.contains(&Call::Barrier(BARRIER))).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(fake.calls()[1..], [Call::GivenUp, Call::Barrier(BARRIER)], "waits: {waits}");
    }
}
