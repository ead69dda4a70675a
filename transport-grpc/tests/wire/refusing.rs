//! Signs that the process of a peer has ended: its side closes connections, and refuses new ones.

use std::time::Duration;

use futures_util::StreamExt;
use quorate_raft_core::rpc::{Position, Refused, Refuses};
use quorate_raft_core::{Peer, Refusal, Transport, TransportExt};
use quorate_transport_grpc::GrpcTransport;

use crate::fake::*;
use crate::links::{Way, at_all, free};
use crate::renewals::answering;
use crate::values::*;

#[tokio::test]
async fn a_peer_refuses_where_nobody_listens_at_any_of_its_addresses_and_only_there() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let transport = GrpcTransport::new();
    let cases = [
        (at_all(&[free()]), true, "nobody listens"),
        (at_all(&[free(), free()]), true, "nobody listens at either"),
        (at_all(&[server.local_addr()]), false, "a server listens"),
        (at_all(&[free(), server.local_addr()]), false, "a server listens at the second"),
        (Peer { node: n(2), addresses: vec![] }, false, "no address is known"),
    ];
    for (peer, refuses, case) in cases {
        assert_eq!(transport.refuses(&peer).await, refuses, "{case}");
    }
}

#[tokio::test]
async fn a_connection_that_the_other_side_closes_is_told_with_its_node() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let way = Way::to(server.local_addr()).await;
    let (transport, peer) = (patient(), peer(way.address));
    let mut closed = transport.closed();
    transport.request(&peer, caller(), vote_request(), LIVENESS).await.unwrap();
    let quiet = tokio::time::timeout(Duration::from_millis(100), closed.next()).await;
    assert!(quiet.is_err(), "nothing was closed");
    way.cut();
    let told = tokio::time::timeout(LIVENESS, closed.next()).await.unwrap();
    assert_eq!(told, Some(n(2)));
}

#[tokio::test]
async fn a_voter_says_whether_the_leader_refuses_it_and_an_empty_answer_says_no() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let (transport, peer_of_it) = (patient(), peer(server.local_addr()));
    for said in [
        Refused {
            refuses: true,
            connected: false,
            follows: true,
            last: Some(Position { term: 3, index: 7 }),
            may_stand: true,
        },
        Refused { refuses: false, connected: true, follows: false, last: None, may_stand: false },
    ] {
        fake.set(|script| script.refuses = said);
        assert_eq!(transport.request(&peer_of_it, caller(), Refuses(n(1)), LIVENESS).await.unwrap(), said);
    }
    assert_eq!(fake.calls(), [Call::Refuses(caller(), n(1)), Call::Refuses(caller(), n(1))]);
    let empty = peer(answering(vec![]).await);
    let said = transport.request(&empty, caller(), Refuses(n(1)), LIVENESS).await.unwrap();
    assert_eq!(said, Refused { refuses: false, connected: false, follows: false, last: None, may_stand: false });
}

#[tokio::test]
async fn a_node_has_gone_with_the_last_connection_on_which_a_call_of_it_was_admitted() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let ways = [Way::to(server.local_addr()).await, Way::to(server.local_addr()).await];
    let (first, second) = (patient(), patient());
    let refused = patient();
    for (transport, way) in [(&first, &ways[0]), (&second, &ways[1])] {
        transport.request(&peer(way.address), caller(), vote_request(), LIVENESS).await.unwrap();
    }
    fake.set(|script| script.refuse = Some(Refusal::NotReady));
    let not_admitted = refused.request(&peer(server.local_addr()), caller(), vote_request(), LIVENESS).await;
    assert!(not_admitted.is_err());
    drop(refused);
    ways[0].cut();
    let soon = tokio::time::timeout(Duration::from_millis(200), fake.gone(caller().from)).await;
    assert!(soon.is_err(), "it holds another connection, and one that was refused does not count");
    ways[1].cut();
    tokio::time::timeout(LIVENESS, fake.gone(caller().from)).await.unwrap();
}
