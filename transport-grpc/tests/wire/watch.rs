//! The feed as a client watches it: from a revision on, only what it wants, and all that holds where events are gone.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use quorate_membership::{Change, ClusterState, Command, Event, NodeId, Revision, Topic, apply};
use quorate_raft_core::{FeedItem, Filter};

use crate::fake::*;
use crate::outside::started;
use crate::pb;
use crate::pb::watch_response::Item;
use crate::stored::*;
use crate::values::*;

async fn watching(
    server: &quorate_transport_grpc::Server,
    request: pb::WatchRequest,
) -> tonic::Streaming<pb::WatchResponse> {
    store(server.local_addr()).await.watch(request).await.unwrap().into_inner()
}

async fn next(watch: &mut tonic::Streaming<pb::WatchResponse>) -> Item {
    tokio::time::timeout(LIVENESS, watch.message()).await.unwrap().unwrap().unwrap().item.unwrap()
}

#[tokio::test]
async fn a_watch_says_what_it_wants_and_from_when() {
    let (fake, server) = started().await;
    let event = Event::Removed { node: NodeId::new(4), by: None };
    fake.set(|script| script.feed = vec![FeedItem::Event { revision: Revision::new(42), event }]);
    let topics = vec![pb::Topic::Locks.into(), pb::Topic::Queues.into()];
    let all = pb::WatchRequest::default();
    let some = pb::WatchRequest { after_revision: 41, topics, prefix: "vm/".into() };
    for request in [all, some] {
        let mut watch = watching(&server, request).await;
        let Item::Event(event) = next(&mut watch).await else { panic!("no event") };
        assert_eq!((event.revision, event.kind), (42, Some(pb::event::Kind::Removed(4))));
    }
    let all = Filter::all().topics(Topic::ALL);
    let some = Filter::all().topics([Topic::Locks, Topic::Queues]).prefix("vm/");
    assert_eq!(fake.calls(), [Call::Events(Revision::default(), all), Call::Events(Revision::new(41), some)]);
}

/// No event can come without a majority. Whoever watches is told, and told again when there is one.
#[tokio::test]
async fn a_watch_says_that_its_node_has_lost_the_majority() {
    use pb::events_response::Item as Read;
    let (fake, server) = started().await;
    let stands = |quorate| {
        fake.set(|script| {
            script.view.local.quorate = quorate;
            script.view.local.leader = None;
        });
    };
    stands(false);
    let mut watch = watching(&server, pb::WatchRequest::default()).await;
    let mut read = outside(server.local_addr()).await.events(pb::EventsRequest::default()).await.unwrap().into_inner();
    for quorate in [false, true, false] {
        stands(quorate);
        let revision = fake.script.lock().unwrap().view.local.applied.get();
        let standing = pb::Standing { quorate, leader: None, revision };
        assert_eq!(next(&mut watch).await, Item::Standing(standing));
        let item = tokio::time::timeout(LIVENESS, read.message()).await.unwrap().unwrap().unwrap().item;
        assert_eq!(item, Some(Read::Standing(standing)));
    }
}

#[tokio::test]
async fn a_watch_after_a_revision_that_does_not_exist_is_refused_with_the_newest() {
    let (fake, server) = started().await;
    let (after, newest) = (Revision::new(1_000_000_000), Revision::new(42));
    fake.set(|script| script.feed = vec![FeedItem::Ahead { after, newest }]);
    let watch = pb::WatchRequest { after_revision: after.get(), ..pb::WatchRequest::default() };
    let watched = watching(&server, watch).await.message().await.unwrap_err();
    let events = pb::EventsRequest { after_revision: after.get() };
    let mut read = outside(server.local_addr()).await.events(events).await.unwrap().into_inner();
    for refused in [watched, read.message().await.unwrap_err()] {
        assert_eq!(refused.code(), tonic::Code::OutOfRange);
        let failure = crate::outside::failure(&refused);
        assert_eq!(
            (failure.code.as_str(), failure.kind),
            ("revision_ahead", Some(pb::failure::Kind::RevisionAhead(42)))
        );
    }
}

#[tokio::test]
async fn each_answer_names_the_cluster_and_a_call_for_another_one_is_refused() {
    let (fake, server) = started().await;
    fake.set(|script| script.view = quorate_raft_core::View::new(Arc::new(kept().0), script.view.local.clone()));
    let call = |header: Option<&str>| {
        let mut request = tonic::Request::new(pb::StatusRequest { history_limit: 0 });
        header.map(|text| request.metadata_mut().insert("quorate-cluster", text.parse().unwrap()));
        let address = server.local_addr();
        async move { outside(address).await.status(request).await }
    };
    let answer = call(None).await.unwrap();
    let ours = answer.metadata().get("quorate-cluster").unwrap().to_str().unwrap().to_string();
    assert_eq!(ours, format!("{:032x}", 7));
    call(Some(&ours)).await.unwrap();
    let other = call(Some(&"f".repeat(32))).await.unwrap_err();
    assert_eq!(other.code(), tonic::Code::FailedPrecondition);
    assert!(other.message().contains("ffffffff") && other.message().contains(&ours), "{other}");
    let garbled = call(Some("seven")).await.unwrap_err();
    assert_eq!(garbled.code(), tonic::Code::InvalidArgument);
    assert!(garbled.message().contains("quorate-cluster") && garbled.message().contains("`seven`"), "{garbled}");
}

/// [`kept`], and records of 3 MB more.
pub(crate) fn large() -> ClusterState {
    let (mut state, _) = kept();
    for round in 0..5_u64 {
        let put = |number: u64| Change::Put {
            key: key(&format!("large/{:03}", round * 10 + number)),
            value: vec![1; 60_000].into(),
            bound: None,
        };
        let changes = (0..10).map(put).collect();
        let write = Command::Write { request: request((100 + round).into()), checks: vec![], changes };
        apply(&mut state, Revision::new(40 + round), &write).unwrap();
    }
    state
}

/// Reads a whole gap, and what it brought.
async fn gap(watch: &mut tonic::Streaming<pb::WatchResponse>) -> (pb::ClusterState, pb::GapPart, usize, u64) {
    let Item::Gap(pb::WatchGap { state }) = next(watch).await else { panic!("no gap") };
    let (mut all, mut parts) = (pb::GapPart::default(), 0);
    loop {
        match next(watch).await {
            Item::GapPart(part) => {
                assert!(part.encoded_len() < 1 << 20, "a part of {} bytes", part.encoded_len());
                parts += 1;
                all.locks.extend(part.locks);
                all.records.extend(part.records);
                all.items.extend(part.items);
                all.sessions.extend(part.sessions);
            }
            Item::GapEnd(pb::GapEnd { revision }) => return (state.unwrap(), all, parts, revision),
            other @ (Item::Event(_) | Item::Gap(_) | Item::Standing(_)) => panic!("{other:?} in the middle of a gap"),
        }
    }
}

#[tokio::test]
async fn a_gap_brings_all_that_holds_and_then_the_events_go_on() {
    let (fake, server) = started().await;
    let (state, removed) = (Arc::new(large()), Event::Removed { node: NodeId::new(4), by: None });
    fake.set(|script| {
        let event = FeedItem::Event { revision: Revision::new(50), event: removed };
        script.feed = vec![FeedItem::Gap { state: state.clone() }, event];
    });
    let mut watch = watching(&server, pb::WatchRequest::default()).await;
    let (cluster, all, parts, end) = gap(&mut watch).await;
    assert_eq!((cluster.revision, end), (44, 44));
    assert_eq!(cluster.members.len(), 5);
    assert_eq!(all.locks.iter().map(|lock| lock.name.as_str()).collect::<Vec<_>>(), ["vm/100", "vm/200"]);
    let keys: Vec<_> = all.records.iter().map(|record| record.key.clone()).collect();
    let expected: Vec<_> = state.store().records("").map(|(key, _)| key.to_string()).collect();
    assert_eq!((keys.len(), keys), (52, expected));
    assert_eq!(
        all.items,
        [pb::Item { queue: "vm/100".into(), item: 2, value: "stop".into(), pushed: 27, again: false }]
    );
    assert_eq!(all.sessions.iter().map(|session| session.session).collect::<Vec<_>>(), [22, 38]);
    assert!((4..=5).contains(&parts), "{parts} parts");
    let Item::Event(event) = next(&mut watch).await else { panic!("no event after the gap") };
    assert_eq!(event.revision, 50);
}

#[tokio::test]
async fn a_gap_brings_nothing_that_is_not_wanted() {
    let (fake, server) = started().await;
    fake.set(|script| script.feed = vec![FeedItem::Gap { state: Arc::new(large()) }]);
    let request = |topics: &[pb::Topic], prefix: &str| pb::WatchRequest {
        topics: topics.iter().map(|topic| (*topic).into()).collect(),
        prefix: prefix.into(),
        ..pb::WatchRequest::default()
    };
    let (_, all, _, _) = gap(&mut watching(&server, request(&[pb::Topic::Records], "services/")).await).await;
    assert_eq!(
        all.records.iter().map(|record| record.key.as_str()).collect::<Vec<_>>(),
        ["services/100", "services/101"]
    );
    assert_eq!(all, pb::GapPart { records: all.records.clone(), ..pb::GapPart::default() });
    let (_, all, _, _) = gap(&mut watching(&server, request(&[pb::Topic::Locks], "vm/2")).await).await;
    assert_eq!((all.locks.len(), all.locks[0].token), (1, Some(34)));
    let (_, all, parts, end) = gap(&mut watching(&server, request(&[pb::Topic::Membership], "")).await).await;
    assert_eq!((all, parts, end), (pb::GapPart::default(), 0, 44));
}

#[tokio::test]
async fn shutting_down_ends_a_watch_without_an_error() {
    let (_fake, server) = started().await;
    let mut watch = watching(&server, pb::WatchRequest::default()).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    server.shutdown().await;
    assert_eq!(watch.message().await.unwrap(), None);
}
