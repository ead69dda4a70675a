//! The event feed, outgoing only.

use quorate_membership::{Event, Holder, Name, Nonce, Release, Revision};
use quorate_raft_core::FeedItem;

use super::cluster::{state, texts};
use super::store::{bytes, opened};
use super::{id_to, nanos};
use crate::pb;
use crate::pb::event::Kind;

/// One item of the feed. `Err` with the newest revision for a reader that is ahead of it.
pub(crate) fn item(item: &FeedItem) -> Result<pb::EventsResponse, Revision> {
    use pb::events_response::Item as Out;
    let item = match item {
        FeedItem::Event { revision, event: what } => Out::Event(event(*revision, what)),
        FeedItem::Gap { state: current } => Out::Gap(pb::Gap { state: Some(state(current)) }),
        FeedItem::Ahead { newest, .. } => return Err(*newest),
    };
    Ok(pb::EventsResponse { item: Some(item) })
}

/// An event, with its revision and its text.
pub(crate) fn event(revision: Revision, event: &Event) -> pb::Event {
    let asked_by = event.asked_by().map(ToString::to_string);
    pb::Event { revision: revision.get(), text: event.to_string(), asked_by, kind: kind(event) }
}

/// `None` for an event that this build has no message for: it still has its revision and its text.
fn kind(event: &Event) -> Option<Kind> {
    Some(match event {
        Event::Founded { cluster } => Kind::Founded(id_to(cluster.get())),
        Event::Joined { who, role, addresses, disk, boot, nonce, contract, hint } => Kind::Joined(pb::Joined {
            who: Some((*who).into()),
            role: pb::Role::from(*role).into(),
            addresses: texts(addresses),
            disk: Some((*disk).into()),
            boot: id_to(boot.get()),
            nonce: id_to(nonce.get()),
            contract: Some((*contract).into()),
            hint: hint.as_ref().map(ToString::to_string),
        }),
        Event::Activated { who } => Kind::Activated((*who).into()),
        Event::FenceOrdered { order, target, cause } => Kind::FenceOrdered(pb::FenceOrdered {
            order: order.get(),
            target: Some((*target).into()),
            cause: Some(cause.into()),
        }),
        Event::FenceStarted { order, target, by, attempt } => Kind::FenceStarted(pb::FenceStarted {
            order: order.get(),
            target: Some((*target).into()),
            by: by.get(),
            attempt: *attempt,
        }),
        Event::FenceFailed { order, target, attempt, reason } => Kind::FenceFailed(pb::FenceFailed {
            order: order.get(),
            target: Some((*target).into()),
            attempt: *attempt,
            reason: reason.to_string(),
        }),
        Event::Fenced { order, who, proof, token } => Kind::Fenced(pb::Fenced {
            order: order.get(),
            who: Some((*who).into()),
            proof: Some(proof.into()),
            token: token.get(),
        }),
        Event::Left { who, token } => Kind::Left(pb::Left { who: Some((*who).into()), token: token.get() }),
        Event::Superseded { who } => Kind::Superseded((*who).into()),
        Event::RoleChanged { node, role, by: _ } => {
            Kind::RoleChanged(pb::RoleChanged { node: node.get(), role: pb::Role::from(*role).into() })
        }
        Event::Readdressed { node, addresses, by: _ } => {
            Kind::Readdressed(pb::Readdressed { node: node.get(), addresses: texts(addresses) })
        }
        Event::Removed { node, by: _ } => Kind::Removed(node.get()),
        Event::Configured { configuration } => Kind::Configured(configuration.into()),
        Event::LeaderActivated { leadership } => Kind::LeaderActivated((*leadership).into()),
        Event::Corroborated { order, who, proof } => Kind::Corroborated(pb::Corroborated {
            order: order.get(),
            who: Some((*who).into()),
            proof: Some(proof.into()),
        }),
        Event::DeclaredProcessBound { who } => Kind::DeclaredProcessBound((*who).into()),
        other => return of_the_store(other),
    })
}

/// The message of an event of locks, records, queues, sessions or requests.
fn of_the_store(event: &Event) -> Option<Kind> {
    Some(match event {
        Event::Answered { request } => Kind::Answered(id_to(request.get())),
        Event::Voided { request } => Kind::Voided(id_to(request.get())),
        Event::LockGranted { name, holder, token, request } => Kind::LockGranted(pb::LockGranted {
            name: name.to_string(),
            holder: Some((*holder).into()),
            token: token.get(),
            request: id_to(request.get()),
        }),
        Event::LockQueued { name, holder, request } => Kind::LockQueued(waiting(name, *holder, *request)),
        Event::LockWithdrawn { name, holder, request } => Kind::LockWithdrawn(waiting(name, *holder, *request)),
        Event::LockReleased { name, holder, token, why } => Kind::LockReleased(pb::LockReleased {
            name: name.to_string(),
            holder: Some((*holder).into()),
            token: token.get(),
            why: pb::Release::from(*why).into(),
        }),
        Event::LockDelayed { name, token, at_least } => Kind::LockDelayed(pb::LockDelayed {
            name: name.to_string(),
            token: token.get(),
            at_least_ns: nanos(*at_least),
        }),
        Event::LockLifted { name, token } => {
            Kind::LockLifted(pb::LockToken { name: name.to_string(), token: token.get() })
        }
        Event::Put { key, value, bound } => {
            Kind::Put(pb::RecordPut { key: key.to_string(), value: bytes(value), bound: bound.map(Into::into) })
        }
        Event::Deleted { key } => Kind::Deleted(key.to_string()),
        Event::Pushed { queue, item, value } => {
            Kind::Pushed(pb::ItemPushed { queue: queue.to_string(), item: item.get(), value: bytes(value) })
        }
        Event::Taken { queue, item, token, request } => Kind::Taken(pb::ItemTaken {
            queue: queue.to_string(),
            item: item.get(),
            token: token.get(),
            request: id_to(request.get()),
        }),
        Event::Acknowledged { queue, item } => {
            Kind::Acknowledged(pb::ItemAcknowledged { queue: queue.to_string(), item: item.get() })
        }
        Event::SessionOpened { id, session } => Kind::SessionOpened(opened(*id, session)),
        Event::SessionEnded { id, clean } => Kind::SessionEnded(pb::SessionEnded { session: id.get(), clean: *clean }),
        _ => return None,
    })
}

fn waiting(name: &Name, holder: Holder, request: Nonce) -> pb::LockWaiting {
    pb::LockWaiting { name: name.to_string(), holder: Some(holder.into()), request: id_to(request.get()) }
}

impl From<Release> for pb::Release {
    fn from(why: Release) -> Self {
        match why {
            Release::Unlocked => Self::Unlocked,
            Release::HolderEnded => Self::HolderEnded,
        }
    }
}
