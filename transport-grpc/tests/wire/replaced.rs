//! Credentials that are replaced while calls are made, and connections that show nothing, or too little, for long.

use std::sync::Arc;
use std::time::Duration;

use quorate_membership::{ClusterState, Command, Revision};
use quorate_raft_core::{Local, TransportExt, View};
use quorate_transport_grpc::ServerSettings;
use quorate_transport_grpc::tls::{Authority, CallerRole, Credentials, CredentialsError, Issued, Tls};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::fake::*;
use crate::pb;
use crate::pki::*;
use crate::stored::kept;
use crate::values::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_and_the_authority_are_replaced_ten_times_while_calls_are_made() {
    let mut now = blue();
    let (fake, ours, theirs) = (Fake::new(), tls(&now, node(1)), tls(&now, node(2)));
    let server = serve_tls(&fake, &theirs);
    let peer = peer(server.local_addr());
    // One transport that makes calls all the time.
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
        // It would speak to the server, which does not trust it any more.
        let old = now.issue(node(1), &[], DAY).unwrap().credentials(&both).unwrap();
        let old = transport(Tls::new(old).unwrap());
        old.request(&peer, caller(), vote_request(), Duration::from_secs(5)).await.unwrap_err();
        now = next;
    }
    stop.cancel();
    let calls = calling.await.unwrap();
    assert!(calls > 10, "{calls} calls, none of which failed");
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
    // A label, or a key, that is not the authority's.
    for (label, key) in [("amber", blue.key()), ("blue", other.key())] {
        let kept = Authority::from_pem(label, blue.certificate(), &key);
        assert!(matches!(kept, Err(CredentialsError::Unfit(_))), "{kept:?}");
    }
    assert!(Authority::from_pem("blue", blue.certificate(), &blue.key()).is_ok());
    for host in ["*.blue.quorate.internal", "n3.blue.quorate.internal", "N3.blue.quorate.internal."] {
        let made = blue.issue(node(1), &[host], DAY);
        assert!(matches!(made, Err(CredentialsError::Issue(_))), "{made:?}");
    }
    let for_ever = blue.issue(node(1), &["db1.example.net", "10.0.0.1"], Duration::MAX);
    assert!(matches!(for_ever, Err(CredentialsError::Issue(_))), "{for_ever:?}");
    for (authority, role) in [("Blue", node(1)), ("", node(1)), ("blue", CallerRole::Operator("al ice".into()))] {
        let made = Authority::new(authority).and_then(|made| made.issue(role, &[], DAY));
        assert!(matches!(made, Err(CredentialsError::Issue(_))), "{made:?}");
    }
    // The former credentials are in use.
    assert_eq!(vote(&transport(tls(&blue, node(1))), &peer(server.local_addr())).await, Ok(vote_answer()));
}

#[tokio::test]
async fn who_is_connected_loses_what_its_certificate_allowed_when_its_authority_is_not_trusted_any_more() {
    let (old, new) = (blue(), blue());
    let (fake, ours) = (Fake::new(), tls(&old, node(2)));
    let server = serve_tls(&fake, &ours);
    let mut alice = outside_with(&server, &old, operator()).await;
    let status = pb::StatusRequest::default;
    alice.status(status()).await.unwrap();
    let both = format!("{}{}", old.certificate(), new.certificate());
    let shown = new.issue(node(2), &[], DAY).unwrap();
    ours.replace(shown.credentials(&both).unwrap()).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    alice.status(status()).await.unwrap();
    ours.replace(shown.credentials(new.certificate()).unwrap()).unwrap();
    let closed = async {
        while alice.status(status()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIVENESS, closed).await.unwrap();
}

#[tokio::test]
async fn who_shows_nothing_is_closed_in_time_and_nodes_get_in_beside_hundreds_of_them() {
    let blue = blue();
    let (fake, ours) = (Fake::new(), tls(&blue, node(2)));
    let within = Duration::from_millis(300);
    let settings = ServerSettings { max_connections: 16, handshake_timeout: within, ..ServerSettings::default() };
    let server = serve_tls_with(&fake, &ours, settings);
    let mut silent = vec![];
    for _ in 0..300 {
        silent.push(TcpStream::connect(server.local_addr()).await.unwrap());
    }
    let (first, peer) = (transport(tls(&blue, node(1))), peer(server.local_addr()));
    let gets_in = async {
        // While every place is taken, a connection is closed at once, and the next call opens another.
        while vote(&first, &peer).await != Ok(vote_answer()) {}
    };
    tokio::time::timeout(LIVENESS, gets_in).await.unwrap();
    for mut stream in silent {
        let mut heard = vec![];
        // Closed, or reset.
        let _either = tokio::time::timeout(LIVENESS, stream.read_to_end(&mut heard)).await.unwrap();
        assert_eq!(heard, []);
    }
}

#[tokio::test]
async fn clients_that_hold_all_their_connections_leave_the_reserve_to_nodes() {
    let blue = blue();
    let (fake, ours) = (Fake::new(), tls(&blue, node(2)));
    // Nobody is closed for being slow.
    let settings = ServerSettings { max_connections: 16, handshake_timeout: LIVENESS, ..ServerSettings::default() };
    let server = serve_tls_with(&fake, &ours, settings);
    let mut held = vec![];
    for _ in 0..16 {
        let mut client = outside_with(&server, &blue, client()).await;
        client.status(pb::StatusRequest::default()).await.unwrap();
        held.push(client);
    }
    let issued = blue.issue(client(), &[], DAY).unwrap();
    let mut more = vec![];
    for _ in 0..200 {
        // In the reserve, which is not for it: more of them than the reserve has places, and all of them kept.
        more.push(dial(server.local_addr(), blue.certificate(), Some(&issued)).await);
    }
    let first = transport(tls(&blue, node(1)));
    assert_eq!(vote(&first, &peer(server.local_addr())).await, Ok(vote_answer()));
    for client in &mut held {
        client.status(pb::StatusRequest::default()).await.unwrap();
    }
}

#[tokio::test]
async fn a_server_stops_in_time_while_somebody_is_silent() {
    let blue = blue();
    let settings =
        ServerSettings { handshake_timeout: LIVENESS, shutdown_grace: LIVENESS * 2, ..ServerSettings::default() };
    let server = serve_tls_with(&Fake::new(), &tls(&blue, node(2)), settings);
    let _silent = TcpStream::connect(server.local_addr()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    tokio::time::timeout(LIVENESS / 2, server.shutdown()).await.unwrap();
}

#[tokio::test]
async fn what_a_node_had_opened_is_closed_when_it_is_removed() {
    let blue = blue();
    let (fake, ours) = (Fake::new(), tls(&blue, node(2)));
    let server = serve_tls(&fake, &ours);
    let (mut state, _) = kept();
    let shows = |state: &ClusterState| View::new(Arc::new(state.clone()), Local::unknown(n(2)));
    fake.set(|script| script.view = shows(&state));
    let mut third = outside_with(&server, &blue, node(3)).await;
    let status = pb::StatusRequest::default;
    third.status(status()).await.unwrap();
    let at = Revision::new(state.revision().get() + 1);
    quorate_membership::apply(&mut state, at, &Command::Remove { node: n(3), by: None }).unwrap();
    fake.set(|script| script.view = shows(&state));
    let closed = async {
        // It is told so, until the connection is closed.
        while third.status(status()).await.unwrap_err().message().contains("n3 was removed") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIVENESS, closed).await.unwrap();
}
