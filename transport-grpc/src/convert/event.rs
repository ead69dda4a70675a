//! The event feed, outwards only. Events of locks, records, queues, sessions and requests are in `stored_event.rs`.

use quorate_membership::{Event, Revision};
use quorate_raft_core::FeedItem;

use super::cluster::{state, texts};
use super::{id_to, stored_event};
use crate::pb;

/// One thing that a reader of the feed is told.
pub(crate) fn item(item: &FeedItem) -> pb::EventsResponse {
    use pb::events_response::Item as Out;
    let item = match item {
        FeedItem::Event { revision, event: what } => Out::Event(event(*revision, what)),
        FeedItem::Gap { state: picture } => Out::Gap(pb::Gap { state: Some(state(picture)) }),
    };
    pb::EventsResponse { item: Some(item) }
}

/// An event, with its revision and its text.
pub(crate) fn event(revision: Revision, event: &Event) -> pb::Event {
    pb::Event { revision: revision.get(), text: event.to_string(), kind: kind(event) }
}

/// `None` for an event that this build has no message for: it still has its revision and its text.
fn kind(event: &Event) -> Option<pb::event::Kind> {
    use pb::event::Kind as Out;
    Some(match event {
        Event::Founded { cluster } => Out::Founded(id_to(cluster.get())),
        Event::Joined { who, role, addresses, disk, boot, nonce, contract } => Out::Joined(pb::Joined {
            who: Some((*who).into()),
            role: pb::Role::from(*role).into(),
            addresses: texts(addresses),
            disk: Some((*disk).into()),
            boot: id_to(boot.get()),
            nonce: id_to(nonce.get()),
            contract: Some((*contract).into()),
        }),
        Event::Activated { who } => Out::Activated((*who).into()),
        Event::FenceOrdered { order, target, cause } => Out::FenceOrdered(pb::FenceOrdered {
            order: order.get(),
            target: Some((*target).into()),
            cause: Some(cause.into()),
        }),
        Event::FenceStarted { order, target, by, attempt } => Out::FenceStarted(pb::FenceStarted {
            order: order.get(),
            target: Some((*target).into()),
            by: by.get(),
            attempt: *attempt,
        }),
        Event::FenceFailed { order, target, attempt, reason } => Out::FenceFailed(pb::FenceFailed {
            order: order.get(),
            target: Some((*target).into()),
            attempt: *attempt,
            reason: reason.to_string(),
        }),
        Event::Fenced { order, who, proof, token } => Out::Fenced(pb::Fenced {
            order: order.get(),
            who: Some((*who).into()),
            proof: Some(proof.into()),
            token: token.get(),
        }),
        Event::Left { who, token } => Out::Left(pb::Left { who: Some((*who).into()), token: token.get() }),
        Event::Superseded { who } => Out::Superseded((*who).into()),
        Event::RoleChanged { node, role } => {
            Out::RoleChanged(pb::RoleChanged { node: node.get(), role: pb::Role::from(*role).into() })
        }
        Event::Readdressed { node, addresses } => {
            Out::Readdressed(pb::Readdressed { node: node.get(), addresses: texts(addresses) })
        }
        Event::Removed { node } => Out::Removed(node.get()),
        Event::Configured { configuration } => Out::Configured(configuration.into()),
        Event::LeaderActivated { leadership } => Out::LeaderActivated((*leadership).into()),
        Event::Corroborated { order, who, proof } => Out::Corroborated(pb::Corroborated {
            order: order.get(),
            who: Some((*who).into()),
            proof: Some(proof.into()),
        }),
        Event::DeclaredProcessBound { who } => Out::DeclaredProcessBound((*who).into()),
        other => return stored_event::kind(other),
    })
}
