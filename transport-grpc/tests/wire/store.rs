//! Records, queues and sessions as another language sees them: what is asked arrives as what it says, what is kept is told
//! whole, and what fails says what it did and did not do.

use std::sync::Arc;
use std::time::Duration;

use quorate_membership::{
    Change, ClusterId, ClusterState, Command, ItemId, Nonce, Rejection, Request, Revision, Session, SessionId, apply,
};
use quorate_raft_core::rpc::KeptAlive;
use quorate_raft_core::transport::RequestName;
use quorate_raft_core::{Fatal, ProposeError, ReadError, View};
use tonic::Code;

use crate::fake::*;
use crate::outside::{failure, started};
use crate::pb;
use crate::pb::failure::Kind;
use crate::stored::*;
use crate::story::*;
use crate::values::*;

fn show(fake: &Fake, state: &ClusterState) {
    fake.set(|script| script.view = View::new(Arc::new(state.clone()), script.view.local.clone()));
}

fn said(nonce: u128, since: u64) -> Option<pb::RequestName> {
    Some(pb::RequestName { nonce: id(nonce), since })
}

#[tokio::test]
async fn every_request_arrives_as_what_it_says_under_the_name_that_it_was_given() {
    let (fake, server) = started().await;
    let mut client = store(server.local_addr()).await;
    let (checks, changes) = (checks(), changes());
    let open = |name| pb::OpenSessionRequest { name, ttl_ms: 1500, lock_delay_ms: 0, label: "backup".into() };
    assert_eq!(client.open_session(open(None)).await.unwrap().into_inner().session, 77);
    assert_eq!(client.open_session(open(said(5, 12))).await.unwrap().into_inner().session, 77);
    let write = pb::WriteRequest { name: said(6, 0), checks: checks.0, changes: changes.0 };
    assert_eq!(client.write(write).await.unwrap().into_inner().revision, 77);
    let _ = client.take(pb::TakeRequest { name: None, queue: "vm/100".into(), token: 4 }).await;
    let _ = client.close_session(pb::CloseSessionRequest { session: 77 }).await;
    let _ = client.unlock(pb::UnlockRequest { session: 77, name: "vm/100".into(), token: 78 }).await;

    let (r, drawn) = (Revision::new, Request { nonce: DRAWN, since: Revision::new(9) });
    let session =
        Session { ttl: Duration::from_millis(1500), lock_delay: Duration::ZERO, label: reason("backup"), owner: None };
    let named = |nonce, since| RequestName { nonce: Nonce::new(nonce), since };
    let five = Request { nonce: Nonce::new(5), since: r(12) };
    let six = Request { nonce: Nonce::new(6), since: r(9) };
    let expected = [
        Call::Once(None, Command::OpenSession { request: drawn, session: session.clone() }),
        Call::Once(Some(named(5, Some(r(12)))), Command::OpenSession { request: five, session }),
        Call::Once(Some(named(6, None)), Command::Write { request: six, checks: checks.1, changes: changes.1 }),
        Call::Once(None, Command::Take { request: drawn, queue: name("vm/100"), token: r(4) }),
        Call::Command(Command::CloseSession { session: SessionId::new(77) }),
        Call::Command(Command::Unlock { name: name("vm/100"), holder: crate::stored::session(77), token: r(78) }),
    ];
    assert_eq!(fake.calls(), expected);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_the_reason_and_never_seen() {
    let (fake, server) = started().await;
    let mut client = store(server.local_addr()).await;
    let open = |name, label: &str| pb::OpenSessionRequest { name, ttl_ms: 1500, lock_delay_ms: 0, label: label.into() };
    let short = Some(pb::RequestName { nonce: vec![1; 15].into(), since: 0 });
    let change = |change| pb::WriteRequest { changes: vec![pb::Change { change }], ..pb::WriteRequest::default() };
    let check = |check| pb::WriteRequest { checks: vec![pb::Check { check }], ..pb::WriteRequest::default() };
    let put = |key: String, bound| Some(pb::change::Change::Put(pb::Put { key, value: "".into(), bound }));
    let nobody = Some(pb::Holder { holder: None });
    let at_zero = Some(pb::check::Check::Version(pb::VersionIs { key: "k".into(), version: Some(0) }));
    let cases = [
        (client.open_session(open(None, " ")).await.map(drop), "the label of a session: a reason must not be empty"),
        (client.open_session(open(short, "x")).await.map(drop), "the nonce of a request has 15 bytes"),
        (client.open_session(open(said(0, 4), "x")).await.map(drop), "all zeros"),
        (client.write(change(None)).await.map(drop), "what a change does is missing"),
        (client.write(check(None)).await.map(drop), "what a check is about is missing"),
        (client.write(check(at_zero)).await.map(drop), "the version of the check of `k` is 0"),
        (client.write(change(put("".into(), None))).await.map(drop), "a key must not be empty"),
        (client.write(change(put("k".repeat(513), None))).await.map(drop), "a key has 513 bytes"),
        (client.write(change(put("k".into(), nobody))).await.map(drop), "the kind of a holder"),
        (
            client.lock(pb::LockRequest { name: "n".repeat(256), ..pb::LockRequest::default() }).await.map(drop),
            "a name has 256 bytes",
        ),
        (client.take(pb::TakeRequest::default()).await.map(drop), "a name must not be empty"),
        (client.get(pb::GetRequest::default()).await.map(drop), "a key must not be empty"),
        (client.get_lock(pb::GetLockRequest::default()).await.map(drop), "a name must not be empty"),
        (client.unlock(pb::UnlockRequest::default()).await.map(drop), "a name must not be empty"),
        (
            client.watch(pb::WatchRequest { topics: vec![4, 9], ..pb::WatchRequest::default() }).await.map(drop),
            "topic 9 is unknown",
        ),
        (
            client.watch(pb::WatchRequest { topics: vec![0], ..pb::WatchRequest::default() }).await.map(drop),
            "topic 0 is unknown",
        ),
    ];
    for (answer, expected) in cases {
        let status = answer.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(expected), "{expected}: {status}");
    }
    assert_eq!(fake.calls(), []);
}

#[tokio::test]
async fn what_fails_says_what_it_did_and_did_not_do() {
    let (fake, server) = started().await;
    let mut client = store(server.local_addr()).await;
    let why = || "n1 is away".to_owned();
    let conflict = Rejection::Version { key: key("a"), expected: None, found: Some(Revision::new(4)) };
    let cases = [
        (ProposeError::NoLeader { waited: Duration::from_secs(10) }, Code::Unavailable, "no_leader_ms"),
        (ProposeError::OutcomeUnknown { reason: why() }, Code::Unknown, "outcome_unknown"),
        (ProposeError::Stopped(Fatal::Shutdown), Code::Unavailable, "stopped"),
        (conflict.into(), Code::FailedPrecondition, "rejected"),
    ];
    for (error, code, case) in cases {
        fake.set(|script| script.once = Err(error.clone()));
        let status = client.write(pb::WriteRequest::default()).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (code, error.to_string().as_str()));
        let failure = failure(&status);
        assert_eq!(failure.code, case);
        if let Some(Kind::Rejected(rejection)) = failure.kind {
            let found = pb::OtherVersion { key: "a".into(), expected: None, found: Some(4) };
            assert_eq!(rejection.kind, Some(pb::rejection::Kind::Version(found)));
        }
    }
    // One that is refused because nothing waits is no failure.
    fake.set(|script| script.once = Err(Rejection::QueueEmpty(name("vm/100")).into()));
    let answer = client.take(pb::TakeRequest { name: None, queue: "vm/100".into(), token: 4 }).await.unwrap();
    assert_eq!(answer.into_inner().result, Some(pb::take_response::Result::Empty(pb::Done {})));
}

#[tokio::test]
async fn a_session_is_kept_alive_or_it_is_said_that_nothing_is_known() {
    use pb::keep_alive_response::Result as Answer;
    let (fake, server) = started().await;
    let mut client = store(server.local_addr()).await;
    for (kept, answer) in [
        (KeptAlive::Alive { ttl: Duration::from_millis(1500) }, Answer::AliveTtlMs(1500)),
        (KeptAlive::Ended, Answer::Ended(pb::Done {})),
    ] {
        fake.set(|script| script.kept_alive = kept);
        let said = client.keep_alive(pb::KeepAliveRequest { session: 77 }).await.unwrap().into_inner();
        assert_eq!(said.result, Some(answer));
    }
    fake.set(|script| script.kept_alive = KeptAlive::NotLeader { leader: Some(n(3)) });
    let status = client.keep_alive(pb::KeepAliveRequest { session: 77 }).await.unwrap_err();
    assert_eq!((status.code(), failure(&status).kind), (Code::Unavailable, Some(Kind::NoLeaderMs(5000))));
    assert!(status.message().contains("n3 may lead"), "{status}");
    assert_eq!(fake.calls(), [const { Call::KeepSession(SessionId::new(77)) }; 3]);
}

#[tokio::test]
async fn what_is_kept_is_told_whole_and_as_of_when() {
    let (fake, server) = started().await;
    let (state, _) = kept();
    show(&fake, &state);
    let (mut client, at) = (store(server.local_addr()).await, state.revision().get());
    let mut get = async |key: &str| {
        let answer = client.get(pb::GetRequest { key: key.into(), reading: None }).await.unwrap().into_inner();
        assert_eq!(answer.at, at);
        answer.record
    };
    let record = pb::Record { key: "services/100".into(), value: "n1".into(), version: 26, created: 26, bound: None };
    assert_eq!(get("services/100").await, Some(record));
    assert_eq!(get("intents/7").await, None);

    let mut get_lock = async |name: &str| {
        let answer =
            client.get_lock(pb::GetLockRequest { name: name.into(), reading: None }).await.unwrap().into_inner();
        assert_eq!(answer.at, at);
        answer.lock.unwrap()
    };
    let first = pb::Holder { holder: Some(pb::holder::Holder::Life(pb_life(1, 1))) };
    let expected = pb::LockState {
        name: "vm/200".into(),
        holder: pb_session(22),
        token: Some(34),
        request: Some(id(11)),
        held_back: None,
        waiters: vec![pb::Waiter { holder: Some(first), request: id(12) }],
    };
    assert_eq!(get_lock("vm/200").await, expected);
    assert_eq!(get_lock("free").await, pb::LockState { name: "free".into(), ..pb::LockState::default() });
    // Nobody was asked anything: this is what the node has.
    assert_eq!(fake.calls(), []);
}

#[tokio::test]
async fn who_asks_for_what_is_newest_waits_for_it_or_is_told_that_it_may_be_stale() {
    let (fake, server) = started().await;
    let mut client = store(server.local_addr()).await;
    let reading = |timeout_ms| Some(pb::Reading { linearizable: true, timeout_ms });
    assert!(client.get(pb::GetRequest { key: "a".into(), reading: reading(0) }).await.is_ok());
    let list = pb::ListRequest { reading: reading(250), ..pb::ListRequest::default() };
    assert!(client.list(list.clone()).await.is_ok());
    assert!(client.get_lock(pb::GetLockRequest { name: "a".into(), reading: reading(7) }).await.is_ok());
    fake.set(|script| script.barrier = Err(ReadError::MaybeStale { waited: Duration::from_millis(250) }));
    let status = client.list(list).await.unwrap_err();
    assert_eq!((status.code(), failure(&status).kind), (Code::Unavailable, Some(Kind::MaybeStaleMs(250))));
    let ms = Duration::from_millis;
    assert_eq!(fake.calls(), [ms(5000), ms(250), ms(7), ms(250)].map(Call::Barrier));
}

/// As many records as three answers have room for, and in each answer no more than any client accepts.
#[tokio::test]
async fn records_are_listed_page_by_page() {
    let (fake, server) = started().await;
    let mut state = ClusterState::new();
    apply(&mut state, Revision::new(1), &Command::Found { cluster: ClusterId::new(7) }).unwrap();
    for round in 0..4_u64 {
        let put = |number: u64| Change::Put {
            key: key(&format!("large/{number:03}")),
            value: vec![7; 60_000].into(),
            bound: None,
        };
        let changes = (0..12).map(|number| put(round * 12 + number)).collect();
        let write = Command::Write { request: request((100 + round).into()), checks: vec![], changes };
        apply(&mut state, Revision::new(21 + round), &write).unwrap();
    }
    let other = Change::Put { key: key("other"), value: "x".into(), bound: None };
    let write = Command::Write { request: request(200), checks: vec![], changes: vec![other] };
    apply(&mut state, Revision::new(30), &write).unwrap();
    show(&fake, &state);
    let mut client = store(server.local_addr()).await;
    let mut list = async |prefix: &str, limit, after_key: &str| {
        let request = pb::ListRequest { prefix: prefix.into(), reading: None, limit, after_key: after_key.into() };
        client.list(request).await.unwrap().into_inner()
    };
    let (mut keys, mut after, mut pages) = (vec![], String::new(), 0);
    loop {
        let page = list("large/", 0, &after).await;
        assert!(prost::Message::encoded_len(&page) < 1 << 20 && page.at == 30, "a page is bounded");
        keys.extend(page.records.into_iter().map(|record| record.key));
        pages += 1;
        if !page.more {
            break;
        }
        after.clone_from(keys.last().unwrap());
    }
    assert_eq!(keys, (0..48).map(|number| format!("large/{number:03}")).collect::<Vec<_>>());
    assert_eq!(pages, 3);
    let two = list("", 2, "large/046").await;
    assert_eq!(two.records.iter().map(|record| record.key.as_str()).collect::<Vec<_>>(), ["large/047", "other"]);
    assert!(!two.more && list("", 1, "large/046").await.more);
    assert_eq!(list("none", 0, "").await, pb::ListResponse { at: 30, ..pb::ListResponse::default() });
}

/// The fake's answers are those of a request that took effect; what is told is what stands in the state.
#[tokio::test]
async fn an_item_is_told_with_whether_it_was_taken_before() {
    use pb::take_response::Result as Answer;
    let (fake, server) = started().await;
    let (mut state, _) = kept();
    let r = Revision::new;
    let mut say = |revision, command| apply(&mut state, r(revision), &command).unwrap();
    // vm/200 is held under 34.
    let push = |what: &str| Change::Push { queue: name("vm/200"), value: what.into() };
    say(39, Command::Write { request: request(50), checks: vec![], changes: vec![push("a"), push("b")] });
    say(40, Command::Take { request: request(51), queue: name("vm/200"), token: r(34) });
    show(&fake, &state);
    fake.applied.send_replace(r(40));
    let mut client = store(server.local_addr()).await;
    let mut take = async |nonce, token| {
        let request = pb::TakeRequest { name: said(nonce, 20), queue: "vm/200".into(), token };
        client.take(request).await
    };
    // Asked again: the very item, and that it may have been carried out.
    let item = pb::Item { queue: "vm/200".into(), item: 3, value: "a".into(), pushed: 39, again: true };
    assert_eq!(take(51, 34).await.unwrap().into_inner().result, Some(Answer::Item(item)));
    let acknowledge = Change::Acknowledge { queue: name("vm/200"), item: ItemId::new(3), token: r(34) };
    let write = Command::Write { request: request(52), checks: vec![], changes: vec![acknowledge] };
    apply(&mut state, r(41), &write).unwrap();
    show(&fake, &state);
    assert_eq!(take(51, 34).await.unwrap().into_inner().result, Some(Answer::Acknowledged(pb::Done {})));
    // Who does not hold the lock any more is told so, and not that the item is done with.
    let unlock = Command::Unlock { name: name("vm/200"), holder: crate::stored::session(22), token: r(34) };
    apply(&mut state, r(42), &unlock).unwrap();
    show(&fake, &state);
    let status = take(51, 34).await.unwrap_err();
    let Some(Kind::Rejected(rejection)) = failure(&status).kind else { panic!("{status}") };
    let other = pb::OtherToken { name: "vm/200".into(), token: 34, current: Some(42) };
    assert_eq!(rejection.kind, Some(pb::rejection::Kind::NotHolder(other)));
}
