//! Clients of three real nodes: what one of them did, all of them tell; what was asked twice, happened once.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Code;

use crate::nodes::three;
use crate::outside::failure;
use crate::pb;
use crate::pb::event::Kind;
use crate::pb::failure::Kind as Failed;
use crate::stored::pb_session;
use crate::story::id;
use crate::values::*;

fn named(nonce: u128, since: u64) -> Option<pb::RequestName> {
    Some(pb::RequestName { nonce: id(nonce), since })
}

fn put(key: &str, value: &str) -> pb::Change {
    let put = pb::Put { key: key.into(), value: bytes::Bytes::copy_from_slice(value.as_bytes()), bound: None };
    pb::Change { change: Some(pb::change::Change::Put(put)) }
}

fn check(check: pb::check::Check) -> pb::Check {
    pb::Check { check: Some(check) }
}

fn newest() -> Option<pb::Reading> {
    Some(pb::Reading { linearizable: true, timeout_ms: 60_000 })
}

/// The next event. That a node has lost its majority for a moment, on a busy machine, is passed over.
async fn event(events: &mut tonic::Streaming<pb::WatchResponse>) -> pb::Event {
    loop {
        match tokio::time::timeout(LIVENESS, events.message()).await.unwrap().unwrap().unwrap().item {
            Some(pb::watch_response::Item::Event(event)) => return event,
            Some(pb::watch_response::Item::Standing(_)) => {}
            other => panic!("a gap: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_serves_any_client() {
    use pb::keep_alive_response::Result as Kept;
    use pb::take_response::Result as Took;
    let folder = tempfile::tempdir().unwrap();
    let nodes = three(folder.path()).await;
    let mut clients = Vec::new();
    for (_, server) in &nodes {
        clients.push(store(server.local_addr()).await);
    }
    let [first, second, third] = &mut clients[..] else { panic!("three") };

    // Asked at one, and again at another: one session.
    let open = pb::OpenSessionRequest { name: named(1, 1), ttl_ms: 60_000, lock_delay_ms: 0, label: "a test".into() };
    let session = second.open_session(open.clone()).await.unwrap().into_inner().session;
    assert_eq!(third.open_session(open).await.unwrap().into_inner().session, session);
    for client in [&mut *first, &mut *second, &mut *third] {
        let kept = client.keep_alive(pb::KeepAliveRequest { session }).await.unwrap().into_inner();
        assert_eq!(kept.result, Some(Kept::AliveTtlMs(60_000)));
    }
    let lock = pb::LockRequest { request: None, session, name: "vm/100".into(), wait_ms: 60_000 };
    let token = third.lock(lock).await.unwrap().into_inner().token;
    let holds = || check(pb::check::Check::Holds(pb::LockToken { name: "vm/100".into(), token }));

    // Written at one, and again at another: once, and both are told where.
    let push = pb::Push { queue: "vm/100".into(), value: "start".into() };
    let changes = vec![put("services/100", "n1"), pb::Change { change: Some(pb::change::Change::Push(push)) }];
    let write = pb::WriteRequest { name: named(2, token), checks: vec![holds()], changes };
    let version = first.write(write.clone()).await.unwrap().into_inner().revision;
    assert_eq!(second.write(write).await.unwrap().into_inner().revision, version);
    for client in [&mut *first, &mut *second, &mut *third] {
        let get = pb::GetRequest { key: "services/100".into(), reading: newest() };
        let record = client.get(get).await.unwrap().into_inner().record.unwrap();
        assert_eq!((record.version, record.value.as_ref()), (version, &b"n1"[..]));
    }
    // Compared with what it is not any more: refused, with what it is.
    let stale = pb::VersionIs { key: "services/100".into(), version: Some(version - 1) };
    let write = |checks, nonce| pb::WriteRequest {
        name: named(nonce, token),
        checks,
        changes: vec![put("services/100", "n2")],
    };
    let status = second.write(write(vec![check(pb::check::Check::Version(stale))], 3)).await.unwrap_err();
    let Some(Failed::Rejected(rejection)) = failure(&status).kind else { panic!("{status}") };
    let found = pb::OtherVersion { key: "services/100".into(), expected: Some(version - 1), found: Some(version) };
    assert_eq!(rejection.kind, Some(pb::rejection::Kind::Version(found)));

    // A record that goes with a life is its cluster's own affair.
    let owner = pb::holder::Holder::Life(pb::Identity { node: 1, incarnation: 1 });
    let bound = Some(pb::Holder { holder: Some(owner) });
    let change = pb::change::Change::Put(pb::Put { key: "services/101".into(), value: "n1".into(), bound });
    let changes = vec![put("services/102", "n1"), pb::Change { change: Some(change) }];
    let status = second.write(pb::WriteRequest { name: None, checks: vec![], changes }).await.unwrap_err();
    assert!(status.message().contains("only a member may bind a record to n1#1"), "{status}");

    // Taken once, however often it is asked under one name; done with in the entry that stores the outcome.
    let take = |nonce| pb::TakeRequest { name: named(nonce, token), queue: "vm/100".into(), token };
    let Some(Took::Item(item)) = first.take(take(4)).await.unwrap().into_inner().result else { panic!("no item") };
    assert_eq!((item.value.as_ref(), item.again), (&b"start"[..], false));
    let Some(Took::Item(same)) = third.take(take(4)).await.unwrap().into_inner().result else { panic!("no item") };
    assert_eq!((same.item, same.again), (item.item, true));
    assert_eq!(second.take(take(5)).await.unwrap().into_inner().result, Some(Took::Empty(pb::Done {})));
    let done = pb::Acknowledge { queue: "vm/100".into(), item: item.item, token };
    let changes = vec![pb::Change { change: Some(pb::change::Change::Acknowledge(done)) }, put("done/100", "started")];
    third.write(pb::WriteRequest { name: None, checks: vec![holds()], changes }).await.unwrap();
    let barrier = pb::GetLockRequest { name: "vm/100".into(), reading: newest() };
    assert_eq!(first.get_lock(barrier).await.unwrap().into_inner().lock.unwrap().token, Some(token));
    assert_eq!(first.take(take(4)).await.unwrap().into_inner().result, Some(Took::Acknowledged(pb::Done {})));

    // A superseded holder's write is refused, and the session that is gone says so.
    second.close_session(pb::CloseSessionRequest { session }).await.unwrap();
    let status = third.write(write(vec![holds()], 6)).await.unwrap_err();
    let Some(Failed::Rejected(rejection)) = failure(&status).kind else { panic!("{status}") };
    let other = pb::OtherToken { name: "vm/100".into(), token, current: None };
    assert_eq!(
        (status.code(), rejection.kind),
        (Code::FailedPrecondition, Some(pb::rejection::Kind::NotHolder(other)))
    );
    let kept = first.keep_alive(pb::KeepAliveRequest { session }).await.unwrap().into_inner();
    assert_eq!(kept.result, Some(Kept::Ended(pb::Done {})));
    for (node, server) in nodes {
        tokio::time::timeout(LIVENESS, node.shutdown()).await.unwrap();
        server.shutdown().await;
    }
}

/// Half of the events from one node and half from another: every one once. A session ends by time, never early.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_at_another_node_and_a_session_ends_by_time() {
    let folder = tempfile::tempdir().unwrap();
    let nodes = three(folder.path()).await;
    let mut first = store(nodes[0].1.local_addr()).await;
    let ttl = Duration::from_millis(1500);
    let sent = Instant::now();
    let open = pb::OpenSessionRequest { name: None, ttl_ms: 1500, lock_delay_ms: 100, label: "a test".into() };
    let session = first.open_session(open).await.unwrap().into_inner().session;
    let lock = pb::LockRequest { request: None, session, name: "jobs/1".into(), wait_ms: 0 };
    let token = first.lock(lock).await.unwrap().into_inner().token;
    let mut written = vec![];
    for number in 0..6 {
        let changes =
            vec![put(&format!("jobs/{number}/a"), "x"), put(&format!("jobs/{number}/b"), "x"), put("else", "")];
        let revision = first.write(pb::WriteRequest { name: None, checks: vec![], changes }).await.unwrap();
        let revision = revision.into_inner().revision;
        written.extend([(revision, format!("jobs/{number}/a")), (revision, format!("jobs/{number}/b"))]);
    }
    let watch = |after_revision| pb::WatchRequest {
        after_revision,
        topics: vec![pb::Topic::Locks.into(), pb::Topic::Records.into()],
        prefix: "jobs/".into(),
    };
    // Broken off in the middle of an entry: goes on before it, and skips what was seen of it.
    let (mut seen, mut after, mut skip) = (vec![], token, 0);
    for (_, server) in &nodes {
        let mut events = store(server.local_addr()).await.watch(watch(after)).await.unwrap().into_inner();
        while seen.len() < written.len() {
            let event = event(&mut events).await;
            if skip > 0 {
                skip -= 1;
                continue;
            }
            let Some(Kind::Put(put)) = event.kind else { panic!("{}", event.text) };
            seen.push((event.revision, put.key));
            if seen.len() % 5 == 0 {
                after = event.revision - 1;
                skip = seen.iter().filter(|(revision, _)| *revision == event.revision).count();
                break;
            }
        }
    }
    assert_eq!(seen, written);

    // Nobody keeps the session alive: the lock is held back, and then free.
    let mut events = store(nodes[1].1.local_addr()).await.watch(watch(token)).await.unwrap().into_inner();
    let mut ended = None;
    loop {
        let event = event(&mut events).await;
        match event.kind {
            Some(Kind::LockReleased(released)) => {
                assert_eq!((released.holder, released.token), (pb_session(session), token));
                assert!(sent.elapsed() >= ttl, "it ended after {:?}", sent.elapsed());
                ended = Some(Instant::now());
            }
            Some(Kind::LockLifted(lifted)) => {
                assert_eq!((lifted.token, ended.is_some()), (token, true));
                break;
            }
            _ => {}
        }
    }
    for (node, server) in nodes {
        tokio::time::timeout(LIVENESS, node.shutdown()).await.unwrap();
        server.shutdown().await;
    }
}
