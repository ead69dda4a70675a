//! Whose a session is: the certificate that opened it, and no other client's; and in whose name an operator confirms.

use std::sync::Arc;

use http::Uri;
use quorate_membership::Command;
use quorate_raft_core::{Local, View};
use quorate_transport_grpc::Server;
use quorate_transport_grpc::tls::{Authority, CallerRole};
use tonic::{Code, Status};

use crate::fake::*;
use crate::outside::failure;
use crate::pb;
use crate::pb::failure::Kind;
use crate::pb::store_client::StoreClient;
use crate::pki::*;
use crate::stored::{kept, pb_first, pb_session};
use crate::values::*;

/// What `console.clients` has opened in [`kept`], under which it holds `vm/200` by this token.
const SESSION: u64 = 22;
const TOKEN: u64 = 34;

async fn store_as(server: &Server, of: &Authority, role: CallerRole) -> StoreClient<Plain> {
    let issued = of.issue(role, &[], DAY).unwrap();
    let plain = dial(server.local_addr(), of.certificate(), Some(&issued)).await.unwrap();
    StoreClient::with_origin(plain, Uri::from_static("http://anybody"))
}

fn bound_to(bound: Option<pb::Holder>) -> pb::WriteRequest {
    let put = pb::Put { key: "intents/7".into(), value: "?".into(), bound };
    let changes = vec![pb::Change { change: Some(pb::change::Change::Put(put)) }];
    pb::WriteRequest { changes, ..pb::WriteRequest::default() }
}

/// Every call that names a session or a token, and what came of it.
async fn each(client: &mut StoreClient<Plain>, session: u64, token: u64) -> Vec<(&'static str, Result<(), Status>)> {
    let (lock, queue) = (|| "vm/200".to_owned(), || "vm/200".to_owned());
    let acknowledge = pb::Acknowledge { queue: queue(), item: 1, token };
    let changes = vec![pb::Change { change: Some(pb::change::Change::Acknowledge(acknowledge)) }];
    let acknowledged = pb::WriteRequest { changes, ..pb::WriteRequest::default() };
    let locked = pb::LockRequest { request: None, session, name: lock(), wait_ms: 0 };
    vec![
        ("keep_alive", client.keep_alive(pb::KeepAliveRequest { session }).await.map(drop)),
        ("lock", client.lock(locked).await.map(drop)),
        ("unlock", client.unlock(pb::UnlockRequest { session, name: lock(), token }).await.map(drop)),
        ("bound", client.write(bound_to(pb_session(session))).await.map(drop)),
        ("acknowledge", client.write(acknowledged).await.map(drop)),
        ("take", client.take(pb::TakeRequest { name: None, queue: queue(), token }).await.map(drop)),
        ("close", client.close_session(pb::CloseSessionRequest { session }).await.map(drop)),
    ]
}

fn with_kept() -> Arc<Fake> {
    let fake = Fake::new();
    let (state, _) = kept();
    fake.applied.send_replace(state.revision());
    fake.set(|script| script.view = View::new(Arc::new(state), Local::unknown(n(2))));
    fake
}

#[tokio::test]
async fn a_client_uses_the_sessions_that_its_certificate_has_opened_and_no_others() {
    let blue = blue();
    let fake = with_kept();
    let server = serve_tls(&fake, &tls(&blue, node(2)));
    let mut other = store_as(&server, &blue, client()).await;
    for (call, answer) in each(&mut other, SESSION, TOKEN).await {
        let refused = answer.expect_err(call);
        assert_eq!(refused.code(), Code::PermissionDenied, "{call}: {refused}");
        let why = "s22 is that of console.clients, and the certificate is that of billing.clients";
        assert!(refused.message().contains(why), "{call}: {refused}");
    }
    let refused = other.write(bound_to(pb_first())).await.unwrap_err();
    assert!(refused.message().contains("would be bound to n1#1"), "{refused}");
    assert_eq!(fake.calls(), [], "nothing of it arrived");
    // Its owner, an operator and a node may.
    for (role, calls) in [(CallerRole::Client("console".into()), 7), (operator(), 7), (node(1), 7)] {
        let before = fake.calls().len();
        for (call, answer) in each(&mut store_as(&server, &blue, role).await, SESSION, TOKEN).await {
            assert_ne!(answer.map_err(|status| status.code()), Err(Code::PermissionDenied), "{call}");
        }
        assert_eq!(fake.calls().len(), before + calls, "{:?}", fake.calls());
    }
}

#[tokio::test]
async fn what_does_not_exist_yet_is_refused_and_what_has_ended_is_left_to_the_rules() {
    let blue = blue();
    let fake = with_kept();
    let server = serve_tls(&fake, &tls(&blue, node(2)));
    let mut client = store_as(&server, &blue, client()).await;
    // Or it could be another's by the time that the command is applied.
    let refused = client.close_session(pb::CloseSessionRequest { session: 9999 }).await.unwrap_err();
    let Some(Kind::Rejected(rejection)) = failure(&refused).kind else { panic!("{refused}") };
    assert_eq!(rejection.kind, Some(pb::rejection::Kind::UnknownSession(9999)));
    let taken = pb::TakeRequest { name: None, queue: "vm/200".into(), token: 9999 };
    let refused = client.take(taken).await.unwrap_err();
    let Some(Kind::Rejected(rejection)) = failure(&refused).kind else { panic!("{refused}") };
    assert!(matches!(rejection.kind, Some(pb::rejection::Kind::NotHolder(_))), "{rejection:?}");
    assert!(!fake.calls().iter().any(|call| matches!(call, Call::Command(_) | Call::Once(..))), "{:?}", fake.calls());
    // s21 has expired: the rules say so, in their own words.
    let _ = client.close_session(pb::CloseSessionRequest { session: 21 }).await;
    assert!(matches!(fake.calls().last(), Some(Call::Command(Command::CloseSession { .. }))), "{:?}", fake.calls());
}

#[tokio::test]
async fn a_session_says_in_the_log_whose_it_is() {
    let blue = blue();
    let (fake, server) = second(&blue);
    let open = pb::OpenSessionRequest { name: None, ttl_ms: 1500, lock_delay_ms: 0, label: "backup".into() };
    store_as(&server, &blue, client()).await.open_session(open).await.unwrap();
    let calls = fake.calls();
    let [Call::Once(_, Command::OpenSession { session, .. })] = calls.as_slice() else { panic!("{calls:?}") };
    assert_eq!(session.owner.as_ref().map(ToString::to_string).as_deref(), Some("billing.clients"));
}

#[tokio::test]
async fn the_log_has_who_asked_for_what_an_operator_decides() {
    let blue = blue();
    let fake = with_kept();
    let server = serve_tls(&fake, &tls(&blue, node(2)));
    let target = || Some(pb::Identity { node: 1, incarnation: 3 });
    for (role, asker) in [(operator(), "alice.operators"), (node(1), "n1")] {
        let word = || Some(pb::OperatorWord { name: "alice".into(), reason: "it burnt".into() });
        let mut client = outside_with(&server, &blue, role).await;
        let before = fake.calls().len();
        // The fake applies nothing, so each of them fails, after it was asked for.
        let _ = client.set_role(pb::SetRoleRequest { node: 1, role: pb::Role::Witness.into() }).await;
        let _ = client.set_addresses(pb::SetAddressesRequest { node: 1, addresses: vec!["a:1".into()] }).await;
        let _ = client.remove(pb::RemoveRequest { node: 1 }).await;
        let _ = client.order_fence(pb::OrderFenceRequest { target: target(), reason: "smoke".into() }).await;
        let _ = client.confirm_fence(pb::ConfirmFenceRequest { order: 1, target: target(), word: word() }).await;
        let _ = client.vouch(pb::VouchRequest { target: target(), word: word() }).await;
        let asked = fake.calls().split_off(before).into_iter().map(|call| match call {
            Call::Command(command) => command.asker().map(ToString::to_string),
            other => panic!("{other:?}"),
        });
        assert_eq!(asked.collect::<Vec<_>>(), vec![Some(asker.to_string()); 6], "who asked is in the log");
    }
}

#[tokio::test]
async fn an_operator_confirms_in_no_other_name() {
    let blue = blue();
    let (fake, server) = second(&blue);
    let mut alice = outside_with(&server, &blue, operator()).await;
    let word = |name: &str| Some(pb::OperatorWord { name: name.into(), reason: "it burnt".into() });
    let target = || Some(pb::Identity { node: 1, incarnation: 3 });
    let confirm = |name| pb::ConfirmFenceRequest { order: 1, target: target(), word: word(name) };
    let vouched = alice.vouch(pb::VouchRequest { target: target(), word: word("bob") }).await.unwrap_err();
    let confirmed = alice.confirm_fence(confirm("bob")).await.unwrap_err();
    for refused in [vouched, confirmed] {
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(
            refused.message().contains("the word is that of `bob`, and the certificate is that of operator `alice`")
        );
    }
    assert_eq!(fake.calls(), []);
    let _ = alice.confirm_fence(confirm("alice")).await;
    assert_eq!(fake.calls().len(), 1);
}
