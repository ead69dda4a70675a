//! The feed of events as another language reads it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use quorate_membership::{
    Activation, Address, Cause, Configuration, Event, FenceId, FenceProof, Principal, Revision, Role,
};
use quorate_raft_core::{FeedItem, Filter};

use crate::fake::*;
use crate::outside::started;
use crate::pb;
use crate::refusals::{name, variants};
use crate::stored::{kept, stored_kinds};
use crate::story::*;
use crate::values::*;

fn alice() -> Option<Principal> {
    Some(Principal::new("alice.operators").unwrap())
}

#[tokio::test]
async fn events_come_in_order_with_all_their_fields_and_a_gap_brings_the_state() {
    use pb::event::Kind;
    use pb::events_response::Item;
    let (fake, server) = started().await;
    let (state, mut told) = kept();
    let r = Revision::new;
    told.push((r(20), Event::Superseded { who: life(4, 1) }));
    told.push((r(21), Event::RoleChanged { node: n(4), role: Role::Witness, by: alice() }));
    told.push((r(22), Event::Readdressed { node: n(4), addresses: vec![Address::new("x:1").unwrap()], by: alice() }));
    told.push((r(23), Event::Removed { node: n(4), by: alice() }));
    let joint = Configuration::joint([n(1), n(2)], [n(1), n(3)], [n(4)]);
    told.push((r(24), Event::Configured { configuration: joint }));
    let proof = FenceProof::Operator { name: reason("ada"), reason: reason("cable in my hand"), by: alice() };
    told.push((r(25), Event::Fenced { order: FenceId::new(2), who: life(2, 1), proof, token: r(25) }));
    let cause = Cause::Returned { as_life: life(2, 2) };
    told.push((r(26), Event::FenceOrdered { order: FenceId::new(3), target: life(2, 1), cause }));
    told.push((r(27), Event::FenceOrdered { order: FenceId::new(4), target: life(1, 1), cause: Cause::Lapsed }));
    let proof = FenceProof::Succeeded { by: life(2, 2) };
    told.push((r(27), Event::Fenced { order: FenceId::new(3), who: life(2, 1), proof, token: r(27) }));
    let proof = FenceProof::Expired { under: Activation::new(8), waited: Duration::from_millis(700) };
    told.push((r(27), Event::Fenced { order: FenceId::new(4), who: life(1, 1), proof, token: r(27) }));
    // An event added elsewhere has to be told here, and to be given a message.
    let told_of: BTreeSet<_> = told.iter().map(|(_, event)| name(event)).collect();
    assert_eq!(told_of, variants(include_str!("../../../membership/src/event.rs"), "pub enum Event {"));
    let gap = FeedItem::Gap { state: Arc::new(state.clone()) };
    let items = told.iter().map(|(revision, event)| FeedItem::Event { revision: *revision, event: event.clone() });
    let feed = items.chain([gap]).collect();
    fake.set(|script| script.feed = feed);
    let mut client = outside(server.local_addr()).await;
    let mut events = client.events(pb::EventsRequest { after_revision: 3 }).await.unwrap().into_inner();
    let (mut kinds, mut asked) = (Vec::new(), 0);
    for (revision, event) in &told {
        let Some(Item::Event(got)) = events.message().await.unwrap().unwrap().item else { panic!("no event") };
        assert_eq!((got.revision, got.text), (revision.get(), event.to_string()));
        assert_eq!(got.asked_by, event.asked_by().map(ToString::to_string));
        asked += u32::from(got.asked_by.as_deref() == Some("alice.operators"));
        kinds.push(got.kind.unwrap_or_else(|| panic!("{event} has no message")));
    }
    assert_eq!(asked, 5);
    let Some(Item::Gap(pb::Gap { state: Some(picture) })) = events.message().await.unwrap().unwrap().item else {
        panic!("no gap")
    };
    assert_eq!((picture.revision, picture.members.len()), (state.revision().get(), 5));
    assert_eq!(fake.calls(), [Call::Events(r(3), Filter::all())]);

    let set = |nodes: &[u64]| Some(pb::NodeSet { nodes: nodes.to_vec() });
    let operator = pb::OperatorProof {
        name: "ada".into(),
        reason: "cable in my hand".into(),
        given_by: alice().map(|by| by.to_string()),
    };
    let proved = |proof| Some(pb::FenceProof { proof: Some(proof) });
    let device = pb::DeviceProof { by: 1, attempt: 2, evidence: "read back: off".into() };
    let caused = |cause| Some(pb::Cause { cause: Some(cause), requested_by: None });
    let (third, second) = (Some(pb_life(3, 1)), Some(pb_life(2, 1)));
    let expected = [
        Kind::Founded(id(7)),
        Kind::Joined(pb::Joined {
            who: third,
            role: pb::Role::Learner.into(),
            addresses: vec!["10.0.0.3:7400".into()],
            disk: Some(pb::Disk { id: id(3), opened: 1 }),
            boot: id(103),
            nonce: id(203),
            contract: Some(pb_contract()),
            hint: Some("unit/3".into()),
        }),
        Kind::Configured(pb::Configuration { voters: set(&[1, 2, 4]), outgoing: None, learners: set(&[3, 5]) }),
        Kind::Activated(pb_life(3, 1)),
        Kind::FenceOrdered(pb::FenceOrdered {
            order: 1,
            target: third,
            cause: caused(pb::cause::Cause::SilentMs(1500)),
        }),
        Kind::FenceStarted(pb::FenceStarted { order: 1, target: third, by: 1, attempt: 2 }),
        Kind::FenceFailed(pb::FenceFailed {
            order: 1,
            target: third,
            attempt: 1,
            reason: "no power to the device".into(),
        }),
        Kind::Fenced(pb::Fenced {
            order: 1,
            who: third,
            proof: proved(pb::fence_proof::Proof::Device(device)),
            token: 16,
        }),
        Kind::Left(pb::Left { who: Some(pb_life(5, 1)), token: 17 }),
        Kind::Superseded(pb_life(4, 1)),
        Kind::RoleChanged(pb::RoleChanged { node: 4, role: pb::Role::Witness.into() }),
        Kind::Readdressed(pb::Readdressed { node: 4, addresses: vec!["x:1".into()] }),
        Kind::Removed(4),
        Kind::Configured(pb::Configuration { voters: set(&[1, 3]), outgoing: set(&[1, 2]), learners: set(&[4]) }),
        Kind::Fenced(pb::Fenced {
            order: 2,
            who: second,
            proof: proved(pb::fence_proof::Proof::Operator(operator)),
            token: 25,
        }),
        Kind::FenceOrdered(pb::FenceOrdered {
            order: 3,
            target: second,
            cause: caused(pb::cause::Cause::ReturnedAs(pb_life(2, 2))),
        }),
        Kind::LeaderActivated(pb::Leadership { activation: 8, leader: 1, nonce: id(300) }),
        Kind::Corroborated(pb::Corroborated { order: 1, who: third, proof: Some(expired()) }),
        Kind::FenceOrdered(pb::FenceOrdered {
            order: 4,
            target: Some(pb_life(1, 1)),
            cause: caused(pb::cause::Cause::Lapsed(pb::Done {})),
        }),
        Kind::Fenced(pb::Fenced { order: 4, who: Some(pb_life(1, 1)), proof: Some(expired()), token: 27 }),
        Kind::Fenced(pb::Fenced {
            order: 3,
            who: second,
            proof: proved(pb::fence_proof::Proof::SucceededBy(pb_life(2, 2))),
            token: 27,
        }),
        Kind::DeclaredProcessBound(pb_life(1, 1)),
    ];
    for kind in expected.into_iter().chain(stored_kinds()) {
        assert!(kinds.contains(&kind), "{kind:?} is not among {kinds:#?}");
    }
}

#[tokio::test]
async fn shutting_down_ends_the_readers_and_waits_for_calls() {
    let (fake, server) = started().await;
    fake.set(|script| {
        script.feed =
            vec![FeedItem::Event { revision: Revision::new(1), event: Event::Removed { node: n(4), by: None } }]
    });
    let mut client = outside(server.local_addr()).await;
    let mut events = client.events(pb::EventsRequest { after_revision: 0 }).await.unwrap().into_inner();
    assert!(events.message().await.unwrap().is_some());
    let address = server.local_addr();
    server.shutdown().await;
    assert_eq!(events.message().await.unwrap(), None);
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
