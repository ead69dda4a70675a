//! Mutual TLS: who is let in, as whom, and how certificates are replaced while calls are made.
//!
//! Real sockets, and an authority of its own for each test.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use http::Uri;
use quorate_raft_core::rpc::{Caller, ReadIndex};
use quorate_raft_core::transport::JoinRequest;
use quorate_raft_core::{Refusal, Transport, TransportError, TransportExt};
use quorate_transport_grpc::tls::{Authority, CallerRole, Credentials, CredentialsError, Issued, Tls};
use quorate_transport_grpc::{GrpcTransport, Server, ServerSettings};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

use crate::fake::*;
use crate::pb;
use crate::pb::cluster_client::ClusterClient;
use crate::values::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn node(number: u64) -> CallerRole {
    CallerRole::Node(n(number))
}

fn operator() -> CallerRole {
    CallerRole::Operator("alice".into())
}

fn client() -> CallerRole {
    CallerRole::Client("billing".into())
}

fn blue() -> Authority {
    Authority::new("blue").unwrap()
}

fn credentials(of: &Authority, role: CallerRole) -> Credentials {
    of.issue(role, &[], DAY).unwrap().credentials(of.certificate()).unwrap()
}

fn tls(of: &Authority, role: CallerRole) -> Tls {
    Tls::new(credentials(of, role)).unwrap()
}

fn transport(tls: Tls) -> GrpcTransport {
    GrpcTransport::over_tls(unhurried(), tls)
}

fn serve_tls(fake: &Arc<Fake>, tls: &Tls) -> Server {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let service = Arc::new(FakeService(fake.clone()));
    Server::start_with(listener, service, ServerSettings::default(), Some(tls.clone())).unwrap()
}

/// A server of n2, whom all calls are for.
fn second(of: &Authority) -> (Arc<Fake>, Server) {
    let fake = Fake::new();
    let server = serve_tls(&fake, &tls(of, node(2)));
    (fake, server)
}

/// A connection as a program in another language would make it: trusts `roots`, shows `issued` if there is one.
async fn dial(to: SocketAddr, roots: &str, issued: Option<&Issued>) -> std::io::Result<Plain> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut trusted = rustls::RootCertStore::empty();
    trusted.add(CertificateDer::from_pem_slice(roots.as_bytes()).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap().with_root_certificates(trusted);
    let mut config = match issued {
        Some(Issued { certificate, key }) => {
            let shown = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            config.with_client_auth_cert(shown, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from("blue.quorate.internal").unwrap();
    let stream = TcpStream::connect(to).await.unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    Ok(Plain::over(stream).await)
}

async fn outside_with(server: &Server, of: &Authority, role: CallerRole) -> ClusterClient<Plain> {
    let issued = of.issue(role, &[], DAY).unwrap();
    let plain = dial(server.local_addr(), of.certificate(), Some(&issued)).await.unwrap();
    ClusterClient::with_origin(plain, Uri::from_static("http://anybody"))
}

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
    let calls = fake.calls();
    // By a call of its own, on the stream of small calls, and on a stream of appends.
    let third = Caller { from: n(3), ..caller() };
    is_not_allowed(
        first.request(&peer, third, vote_request(), LIVENESS).await,
        "one of n3, and the certificate is that of node n1",
    );
    is_not_allowed(first.request(&peer, third, ReadIndex, LIVENESS).await, "one of n3");
    let mut answers = first.append_stream(&peer, third, stream::iter([append(0, 10)]).boxed(), LIVENESS).await.unwrap();
    is_not_allowed(answers.next().await.unwrap(), "one of n3");
    // It asks to be let in under another number.
    let command = quorate_membership::codec::encode(&join_command()).unwrap();
    let join = JoinRequest { cluster: None, command: quorate_raft_core::rpc::Payload::new(command), timing: 1 };
    is_not_allowed(first.join(&peer.addresses[0], join.clone(), LIVENESS).await, "one of n4");
    assert_eq!(fake.calls(), calls, "nothing of it arrived");
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

fn pb_life(node: u64, incarnation: u64) -> pb::Identity {
    pb::Identity { node, incarnation }
}

#[tokio::test]
async fn who_shows_no_certificate_of_the_cluster_is_not_let_in() {
    let (blue, other) = (blue(), blue());
    let (fake, server) = second(&blue);
    let (peer, address) = (peer(server.local_addr()), server.local_addr());
    let trusting = |issued: Issued| Tls::new(issued.credentials(blue.certificate()).unwrap()).unwrap();
    // Of another authority of the same name; of one that has expired; of another cluster under the same authority.
    let foreign = trusting(other.issue(node(1), &[], DAY).unwrap());
    let expired = trusting(blue.issue(node(1), &[], Duration::ZERO).unwrap());
    let amber = Authority::from_pem("amber", blue.certificate(), &blue.key()).unwrap();
    let amber = trusting(amber.issue(node(1), &[], DAY).unwrap());
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for (case, tls) in [("foreign", foreign), ("expired", expired), ("amber", amber)] {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_and_the_authority_are_replaced_ten_times_while_calls_are_made() {
    let mut now = blue();
    let (fake, ours, theirs) = (Fake::new(), tls(&now, node(1)), tls(&now, node(2)));
    let server = serve_tls(&fake, &theirs);
    let peer = peer(server.local_addr());
    // One connection that stays, and calls on it all the time.
    let standing = transport(ours.clone());
    vote(&standing, &peer).await.unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let calling = {
        let (stop, standing, peer) = (stop.clone(), standing.clone(), peer.clone());
        tokio::spawn(async move {
            let mut calls = 0;
            while !stop.is_cancelled() {
                vote(&standing, &peer).await.unwrap();
                calls += 1;
            }
            calls
        })
    };
    for _ in 0..10 {
        let next = blue();
        let both = format!("{}{}", now.certificate(), next.certificate());
        // Everybody trusts both, then everybody shows the new one, and then nobody trusts the old one.
        for (of, trust) in [(&now, both.as_str()), (&next, &both), (&next, next.certificate())] {
            for (tls, role) in [(&theirs, node(2)), (&ours, node(1))] {
                tls.replace(of.issue(role, &[], DAY).unwrap().credentials(trust).unwrap()).unwrap();
                assert_eq!(
                    vote(&transport(ours.clone()), &peer).await,
                    Ok(vote_answer()),
                    "a new connection at each step"
                );
            }
        }
        let old = transport(tls(&now, node(1)));
        old.request(&peer, caller(), vote_request(), Duration::from_secs(5)).await.unwrap_err();
        now = next;
    }
    stop.cancel();
    let calls = calling.await.unwrap();
    assert!(calls > 10, "{calls} calls on the connection that stayed");
}

#[tokio::test]
async fn credentials_that_do_not_fit_change_nothing_and_say_why() {
    let (blue, other) = (blue(), blue());
    let (fake, ours) = (Fake::new(), tls(&blue, node(2)));
    let server = serve_tls(&fake, &ours);
    let whose = ours.replace(credentials(&blue, node(3))).unwrap_err().to_string();
    assert!(whose.contains("is that of node n3 of cluster `blue`, and has to be that of node n2"), "{whose}");
    let (one, two) = (blue.issue(node(2), &[], DAY).unwrap(), other.issue(node(2), &[], DAY).unwrap());
    let mixed = Issued { key: two.key, ..one.clone() }.credentials(blue.certificate()).unwrap();
    assert!(matches!(ours.replace(mixed), Err(CredentialsError::Unfit(_))));
    for (trust, certificate, key) in [
        ("", &*one.certificate, &*one.key),
        (blue.certificate(), "", &*one.key),
        (blue.certificate(), &*one.certificate, "no key"),
    ] {
        let error = Credentials::from_pem(trust.as_bytes(), certificate.as_bytes(), key.as_bytes()).unwrap_err();
        assert!(matches!(error, CredentialsError::Pem { .. }), "{error}");
    }
    let unnamed =
        Credentials::from_pem(blue.certificate().as_bytes(), blue.certificate().as_bytes(), blue.key().as_bytes());
    assert!(matches!(unnamed, Err(CredentialsError::Subject(_))), "{unnamed:?}");
    let missing = Credentials::read("no/such.pem", "no/such.pem", "no/such.pem").unwrap_err().to_string();
    assert!(missing.contains("no/such.pem"), "{missing}");
    assert!(!format!("{one:?}{:?}{blue:?}", credentials(&blue, node(2))).contains("PRIVATE"));
    for (authority, role) in [("Blue", node(1)), ("", node(1)), ("blue", CallerRole::Operator("al ice".into()))] {
        let made = Authority::new(authority).and_then(|made| made.issue(role, &[], DAY));
        assert!(matches!(made, Err(CredentialsError::Issue(_))), "{made:?}");
    }
    // The former credentials are in use.
    assert_eq!(vote(&transport(tls(&blue, node(1))), &peer(server.local_addr())).await, Ok(vote_answer()));
}
