//! Real nodes over the wire: they form a cluster, commit commands that any of them was given, hold leases that the one
//! which leads grants to them, and carry on without one.

use std::sync::Arc;
use std::time::Duration;

use quorate_membership::{Address, Phase, Role};
use quorate_raft_core::rpc::{Caller, RenewRefusal, Renewal, Renewed};
use quorate_raft_core::{Config, LeaseStage, Node, NodeSettings, Refusal, TransportError, TransportExt, View};
use quorate_transport_grpc::{GrpcTransport, Server};

use crate::pb;
use crate::values::*;

pub(crate) async fn node(number: u64, folder: &std::path::Path) -> (Node, Server) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::new(listener.local_addr().unwrap().to_string()).unwrap();
    let settings = NodeSettings {
        node: n(number),
        data: folder.join(number.to_string()),
        addresses: vec![address],
        config: Config::default(),
        transport: Arc::new(GrpcTransport::new()),
        fencer: None,
        stop: None,
        trust_vm_clock: false,
    };
    let node = Node::start(settings).await.unwrap();
    let server = Server::start(listener, node.service()).unwrap();
    (node, server)
}

pub(crate) async fn until(node: &Node, claim: &str, what: impl Fn(&quorate_membership::ClusterState) -> bool) {
    until_seen(node, claim, |view| what(&view.cluster)).await;
}

async fn until_seen(node: &Node, claim: &str, what: impl Fn(&View) -> bool) {
    let mut view = node.watch();
    let waited = tokio::time::timeout(LIVENESS, view.wait_for(what)).await;
    assert!(waited.is_ok(), "{claim}: never, at {:?}", node.view());
}

/// Three nodes that are active and vote. The first leads, unless the machine is busy.
pub(crate) async fn three(folder: &std::path::Path) -> [(Node, Server); 3] {
    let (first, at_first) = node(1, folder).await;
    let seed = Address::new(at_first.local_addr().to_string()).unwrap();
    first.bootstrap(Role::Voter, LIVENESS).await.unwrap();
    let (second, at_second) = node(2, folder).await;
    second.join(std::slice::from_ref(&seed), Role::Voter, LIVENESS).await.unwrap();
    let (third, at_third) = node(3, folder).await;
    third.join(&[seed], Role::Voter, LIVENESS).await.unwrap();
    for node in [&first, &second, &third] {
        until(node, "all are active", |cluster| cluster.active().count() == 3).await;
        until(node, "all vote", |cluster| cluster.configuration().voters().len() == 3).await;
    }
    [(first, at_first), (second, at_second), (third, at_third)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_form_a_cluster_and_any_of_them_takes_commands() {
    let folder = tempfile::tempdir().unwrap();
    let [(first, at_first), (second, at_second), (third, at_third)] = three(folder.path()).await;
    for node in [&first, &second, &third] {
        // Two of the three are granted theirs over the wire.
        until_seen(node, "holds its lease", |view| view.local.lease.stage == LeaseStage::Held).await;
    }

    // Given to a follower or to the leader: it is committed, and told to whoever reads anywhere.
    let mut reader = outside(at_third.local_addr()).await;
    let begin = third.view().cluster.revision().get();
    let mut events = reader.events(pb::EventsRequest { after_revision: begin }).await.unwrap().into_inner();
    for (server, address) in [(&at_first, "one:1"), (&at_second, "two:2"), (&at_third, "three:3")] {
        let own = first.view().cluster.member(n(3)).unwrap().addresses[0].to_string();
        let request = pb::SetAddressesRequest { node: 3, addresses: vec![own, address.into()] };
        let mut client = outside(server.local_addr()).await;
        let done = tokio::time::timeout(LIVENESS, client.set_addresses(request)).await.unwrap().unwrap().into_inner();
        loop {
            let item = tokio::time::timeout(LIVENESS, events.message()).await.unwrap().unwrap().unwrap().item;
            let event = match item {
                Some(pb::events_response::Item::Event(event)) => event,
                Some(pb::events_response::Item::Standing(_)) => continue,
                other => panic!("a gap: {other:?}"),
            };
            if event.revision == done.revision {
                assert!(event.text.contains(address), "{}", event.text);
                break;
            }
        }
    }

    // Without one of them the others go on: it left cleanly, so nobody has to be fenced.
    third.leave().await.unwrap();
    third.shutdown().await;
    at_third.shutdown().await;
    drop(third);
    until(&second, "n3 has left", |cluster| cluster.life(life(3, 1)).is_some_and(|life| life.phase == Phase::Left))
        .await;
    let mut client = outside(at_second.local_addr()).await;
    let request = pb::SetRoleRequest { node: 2, role: pb::Role::Voter.into() };
    let again = tokio::time::timeout(LIVENESS, client.set_role(request)).await.unwrap();
    assert!(again.is_ok(), "{again:?}");
    let status = client.status(pb::StatusRequest { history_limit: 0 }).await.unwrap().into_inner();
    assert_eq!(status.committed.unwrap().members.len(), 3);
    for (node, server) in [(first, at_first), (second, at_second)] {
        tokio::time::timeout(LIVENESS, node.shutdown()).await.unwrap();
        tokio::time::timeout(LIVENESS + Duration::from_secs(10), server.shutdown()).await.unwrap();
    }
}

/// A node asks for the leases of its own lives alone, and only while everything else that it says of itself is right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_renews_its_own_life_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (first, at_first) = node(1, folder.path()).await;
    let own = first.bootstrap(Role::Voter, LIVENESS).await.unwrap();
    let (transport, state) = (patient(), first.view().cluster);
    let peer = quorate_raft_core::Peer { node: n(1), ..peer(at_first.local_addr()) };
    let (member, cluster) = (state.member(n(1)).unwrap(), state.id().unwrap());
    let process = state.life(own).unwrap().nonce;
    let timing = Config::default().timing.hash();
    let itself = Caller { cluster, from: n(1), to: n(1), disk: member.disk, process, callee: None, timing };
    let stranger = Caller { from: n(2), disk: disk(2, 1), ..itself };
    // Higher than any that the node itself gets to in the time of a test.
    let renewal = |seq: u64| Renewal { who: own, seq: (1 << 32) + seq };

    for seq in 1.. {
        match transport.request(&peer, itself, renewal(seq), LIVENESS).await.unwrap() {
            Renewed::Granted(granted) => {
                assert_eq!(granted, renewal(seq));
                break;
            }
            // It leads, and its activation is being committed; or the machine is too busy for a round among one.
            Renewed::Refused { refusal: RenewRefusal::NotActivated | RenewRefusal::NotConfirmed, .. } if seq < 1000 => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            refused @ Renewed::Refused { .. } => panic!("{refused:?}"),
        }
    }
    let error = transport.request(&peer, stranger, renewal(2000), LIVENESS).await.unwrap_err();
    let TransportError::Refused(Refusal::Malformed(why)) = error else { panic!("{error}") };
    assert_eq!(why, format!("n2 may not renew the lease of {own}"));
    for (never, who) in [("nobody", life(2, 1)), ("a life to come", life(1, 2))] {
        let from = if who.node == n(2) { stranger } else { itself };
        let answer = transport.request(&peer, from, Renewal { who, seq: 1 }, LIVENESS).await.unwrap();
        let expected = Renewed::Refused { refusal: RenewRefusal::NotLive, leader: Some(n(1)) };
        assert_eq!(answer, expected, "{never}");
    }
    let others = [
        (Caller { timing: timing + 1, ..itself }, Refusal::OtherTiming),
        (Caller { to: n(7), ..itself }, Refusal::OtherNode { meant: n(7), here: n(1) }),
        (Caller { process: quorate_membership::Nonce::new(1), ..itself }, Refusal::TwoProcesses(n(1))),
    ];
    for (from, refusal) in others {
        let error = transport.request(&peer, from, renewal(3000), LIVENESS).await.unwrap_err();
        assert_eq!(error, TransportError::Refused(refusal));
    }
    tokio::time::timeout(LIVENESS, first.shutdown()).await.unwrap();
    at_first.shutdown().await;
}
