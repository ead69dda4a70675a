//! Mutual TLS: who is let in, as whom, and how certificates are replaced while calls are made.
//!
//! Real sockets, and an authority of its own for each test.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use http::Uri;
use quorate_membership::{Command, Revision};
use quorate_raft_core::rpc::{Append, Caller, ReadIndex, VoteRequest};
use quorate_raft_core::transport::JoinRequest;
use quorate_raft_core::{Local, Refusal, Transport, TransportError, TransportExt, View};
use quorate_transport_grpc::tls::{Authority, Tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

use crate::fake::*;
use crate::pb;
use crate::pb::cluster_client::ClusterClient;
use crate::pb::raft_client::RaftClient;
use crate::pki::*;
use crate::refusals::pb_caller;
use crate::stored::kept;
use crate::values::*;

fn is_not_allowed<T: std::fmt::Debug>(answer: Result<T, TransportError>, why: &str) {
    match answer {
        Err(TransportError::Refused(Refusal::NotAllowed(text))) => assert!(text.contains(why), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_node_speaks_as_itself_and_as_nobody_else() {
    let blue = blue();
    let (fake, server) = second(&blue);
    let (first, peer) = (transport(tls(&blue, node(1))), peer(server.local_addr()));
    assert_eq!(vote(&first, &peer).await, Ok(vote_answer()));
    // By a call of its own, on the stream of small calls, and on a stream of appends.
    let third = Caller { from: n(3), ..caller() };
    is_not_allowed(
        first.request(&peer, third, vote_request(), LIVENESS).await,
        "one of n3, and the certificate is that of node n1",
    );
    is_not_allowed(first.request(&peer, third, ReadIndex, LIVENESS).await, "one of n3");
    let mut answers = first.append_stream(&peer, third, stream::iter([append(0, 10)]).boxed(), LIVENESS).await.unwrap();
    is_not_allowed(answers.next().await.unwrap(), "one of n3");
    // As the follower of another leader, or a candidate of another name.
    let ballot = ballot(7, 3);
    is_not_allowed(
        first.request(&peer, caller(), VoteRequest { ballot, ..vote_request() }, LIVENESS).await,
        "one of n3",
    );
    let foreign = Append { ballot, ..append(0, 10) };
    let appends = stream::iter([foreign]).chain(stream::pending()).boxed();
    let mut answers = first.append_stream(&peer, caller(), appends, Duration::from_secs(5)).await.unwrap();
    assert!(!matches!(answers.next().await, Some(Ok(_))));
    let answer = first.request(&peer, caller(), Append { entries: vec![], ..append(0, 10) }, LIVENESS).await;
    assert!(answer.is_ok(), "a heartbeat of its own: {answer:?}");
    let calls: Vec<Call> =
        fake.calls().into_iter().filter(|call| !matches!(call, Call::StreamBegan(_) | Call::StreamEnded)).collect();
    // It asks to be let in under another number.
    let command = quorate_membership::codec::encode(&join_command()).unwrap();
    let join = JoinRequest { cluster: None, command: quorate_raft_core::rpc::Payload::new(command), timing: 1 };
    is_not_allowed(first.join(&peer.addresses[0], join.clone(), LIVENESS).await, "one of n4");
    let arrived: Vec<Call> =
        fake.calls().into_iter().filter(|call| !matches!(call, Call::StreamBegan(_) | Call::StreamEnded)).collect();
    assert_eq!(arrived, calls, "nothing of it arrived");
    assert!(calls.iter().all(|call| !matches!(call, Call::StreamAppend(_))));
    let fourth = transport(tls(&blue, node(4)));
    assert_eq!(fourth.join(&peer.addresses[0], join, LIVENESS).await, Ok(joined()));
}

#[tokio::test]
async fn operators_and_clients_take_no_part_in_raft_and_clients_command_nothing() {
    let blue = blue();
    let (fake, server) = second(&blue);
    let peer = peer(server.local_addr());
    for role in [operator(), client()] {
        is_not_allowed(vote(&transport(tls(&blue, role)), &peer).await, "is for a node");
    }
    let word = pb::OperatorWord { name: "alice".into(), reason: "it burnt".into() };
    let vouch = || pb::VouchRequest { target: Some(pb_life(1, 3)), word: Some(word.clone()) };
    let mut by_client = outside_with(&server, &blue, client()).await;
    by_client.status(pb::StatusRequest::default()).await.unwrap();
    let refused = by_client.vouch(vouch()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("`Vouch` is for an operator, and the certificate is that of client `billing`"));
    assert_eq!(fake.calls(), []);
    let mut by_operator = outside_with(&server, &blue, operator()).await;
    // The fake answers every command so: it has arrived.
    assert_eq!(by_operator.vouch(vouch()).await.unwrap_err().code(), Code::Unknown);
    assert_eq!(fake.calls().len(), 1);
}

#[tokio::test]
async fn a_node_that_was_removed_and_one_that_never_joined_command_nothing() {
    let blue = blue();
    let (fake, server) = second(&blue);
    let (mut state, _) = kept();
    let at = Revision::new(state.revision().get() + 1);
    quorate_membership::apply(&mut state, at, &Command::Remove { node: n(3), by: None }).unwrap();
    fake.set(|script| script.view = View::new(Arc::new(state), Local::unknown(n(2))));
    let vouch = || {
        let word = pb::OperatorWord { name: "alice".into(), reason: "it burnt".into() };
        pb::VouchRequest { target: Some(pb_life(1, 3)), word: Some(word) }
    };
    for (number, why) in [(3, "n3 was removed"), (9, "n9 is no member")] {
        let mut client = outside_with(&server, &blue, node(number)).await;
        let refused = client.vouch(vouch()).await.unwrap_err();
        assert!(refused.message().contains(why), "{why}: {refused}");
        client.status(pb::StatusRequest::default()).await.unwrap_err();
    }
    assert_eq!(fake.calls(), []);
    let mut member = outside_with(&server, &blue, node(1)).await;
    member.vouch(vouch()).await.unwrap_err();
    assert_eq!(fake.calls().len(), 1, "the fake has it");
}

fn pb_life(node: u64, incarnation: u64) -> pb::Identity {
    pb::Identity { node, incarnation }
}

#[tokio::test]
async fn who_shows_no_certificate_of_the_cluster_is_not_let_in() {
    let (blue, other) = (blue(), blue());
    let (fake, server) = second(&blue);
    let (peer, address) = (peer(server.local_addr()), server.local_addr());
    // Of another cluster, by the same authority.
    let amber = signed_by(&blue, &["n1.amber.quorate.internal"]);
    // Signed as it should be, but for two nodes at once.
    let two = signed_by(&blue, &["n1.blue.quorate.internal", "n3.blue.quorate.internal"]);
    for issued in [amber, two] {
        if let Ok(plain) = dial(address, blue.certificate(), Some(&issued)).await {
            let mut raft = RaftClient::with_origin(plain, Uri::from_static("http://anybody"));
            // A question that is answered with yes, were it let in.
            let ballot = Some(pb::Ballot { term: 7, node: 1, committed: false });
            raft.vote(pb::VoteRequest { caller: Some(pb_caller()), ballot, last: None, transfer: false })
                .await
                .unwrap_err();
        }
    }
    // Of another authority of the same name; and one that has expired.
    let both = format!("{}{}", blue.certificate(), other.certificate());
    let foreign = Tls::new(other.issue(node(1), &[], DAY).unwrap().credentials(&both).unwrap()).unwrap();
    let brief = blue.issue(node(1), &[], Duration::from_secs(8)).unwrap().credentials(blue.certificate()).unwrap();
    let expired = Tls::new(brief).unwrap();
    tokio::time::sleep(Duration::from_secs(9)).await;
    for (case, tls) in [("foreign", foreign), ("expired", expired)] {
        let answer = transport(tls).request(&peer, caller(), vote_request(), Duration::from_secs(5)).await;
        assert!(
            matches!(answer, Err(TransportError::Unreachable(_) | TransportError::Broken(_))),
            "{case}: {answer:?}"
        );
    }
    // None at all: in TLS 1.3 that shows when the first call is made.
    if let Ok(plain) = dial(address, blue.certificate(), None).await {
        let mut nobody = ClusterClient::with_origin(plain, Uri::from_static("http://anybody"));
        nobody.status(pb::StatusRequest::default()).await.unwrap_err();
    }
    assert_eq!(fake.calls(), []);
}

#[tokio::test]
async fn a_node_is_not_spoken_to_under_another_certificate() {
    let blue = blue();
    for (case, shown) in [
        ("another node", tls(&blue, node(3))),
        ("an operator", tls(&blue, operator())),
        ("another CA", {
            let other = Authority::new("blue").unwrap();
            let both = format!("{}{}", blue.certificate(), other.certificate());
            Tls::new(other.issue(node(2), &[], DAY).unwrap().credentials(&both).unwrap()).unwrap()
        }),
    ] {
        let fake = Fake::new();
        let server = serve_tls(&fake, &shown);
        let first = transport(tls(&blue, node(1)));
        let answer = first.request(&peer(server.local_addr()), caller(), vote_request(), Duration::from_secs(5)).await;
        match answer {
            Err(TransportError::Unreachable(why)) => assert!(why.contains("TLS: "), "{case}: {why}"),
            other => panic!("{case}: {other:?}"),
        }
        assert_eq!(fake.calls(), []);
    }
}

#[tokio::test]
async fn plaintext_and_older_tls_are_refused_on_either_side() {
    let blue = blue();
    let (fake, server) = second(&blue);
    let in_clear =
        patient().request(&peer(server.local_addr()), caller(), vote_request(), Duration::from_secs(5)).await;
    assert!(matches!(in_clear, Err(TransportError::Unreachable(_) | TransportError::Broken(_))), "{in_clear:?}");
    let plain = serve(&fake).await;
    let first = transport(tls(&blue, node(1)));
    let to_clear = first.request(&peer(plain.local_addr()), caller(), vote_request(), Duration::from_secs(5)).await;
    assert!(matches!(to_clear, Err(TransportError::Unreachable(_))), "{to_clear:?}");
    assert_eq!(fake.calls(), []);
    // A greeting of TLS 1.2: two of its cipher suites, and as extensions a signature algorithm, a group and a point format.
    let mut hello = vec![0x16, 3, 1, 0, 71, 1, 0, 0, 67, 3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 4, 0xc0, 0x2f, 0xc0, 0x2b, 1, 0, 0, 22]);
    hello.extend([0, 13, 0, 4, 0, 2, 4, 3, 0, 10, 0, 4, 0, 2, 0, 29, 0, 11, 0, 2, 1, 0]);
    let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
    stream.write_all(&hello).await.unwrap();
    let mut answer = vec![];
    tokio::time::timeout(LIVENESS, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    // A fatal alert (2), protocol_version (70).
    assert!(answer.starts_with(&[0x15, 3]) && answer.ends_with(&[2, 70]), "{answer:?}");
}
