//! Events of locks, records, queues, sessions and requests, outwards only.

use quorate_membership::{Event, Holder, Name, Nonce, Release};

use super::store::{bytes, opened};
use super::{id_to, nanos};
use crate::pb;
use crate::pb::event::Kind;

/// `None` for an event that this build has no message for: it still has its revision and its text.
pub(super) fn kind(event: &Event) -> Option<Kind> {
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
