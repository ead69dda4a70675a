//! Events for a watcher, and the current state in place of events that are no longer kept.
//!
//! ```text
//!   FeedItem::Event ─▶ Event
//!   FeedItem::Gap   ─▶ WatchGap{cluster} ─▶ GapPart{locks} ─▶ GapPart{locks, records} ─▶ … ─▶ GapEnd{revision}
//!   FeedItem::Ahead ─▶ OUT_OF_RANGE, `revision_ahead`, and the stream ends
//! ```
//!
//! The parts are made when they are sent. A watcher that reads slowly keeps one copy of the state, which costs almost
//! nothing, and not a list of messages.

use std::collections::BTreeSet;
use std::sync::Arc;

use prost::Message;
use quorate_membership::{ClusterState, Revision, Topic};
use quorate_raft_core::{FeedItem, Filter};
use tonic::Status;

use super::{FRAME, PAGE};
use crate::convert::{self, FromWire, Malformed};
use crate::grpc_errors::revision_ahead;
use crate::pb;
use crate::pb::watch_response::Item as Out;

/// The number of ended fence orders in a gap, the newest ones.
const HISTORY: u32 = 32;

/// The events that a watcher asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) after: Revision,
    topics: BTreeSet<Topic>,
    prefix: String,
}

impl FromWire<pb::WatchRequest> for Subscription {
    fn from_wire(request: pb::WatchRequest) -> Result<Self, Malformed> {
        let pb::WatchRequest { after_revision, topics, prefix } = request;
        let read = |number: i32| {
            let unknown = || Malformed(format!("topic {number} is unknown here; leave it out, or upgrade the node"));
            pb::Topic::try_from(number).ok().and_then(topic).ok_or_else(unknown)
        };
        let topics: BTreeSet<_> = topics.into_iter().map(read).collect::<Result<_, _>>()?;
        let topics = if topics.is_empty() { Topic::ALL.into() } else { topics };
        Ok(Self { after: Revision::new(after_revision), topics, prefix })
    }
}

fn topic(topic: pb::Topic) -> Option<Topic> {
    Some(match topic {
        pb::Topic::Unspecified => return None,
        pb::Topic::Membership => Topic::Membership,
        pb::Topic::Fencing => Topic::Fencing,
        pb::Topic::Leadership => Topic::Leadership,
        pb::Topic::Locks => Topic::Locks,
        pb::Topic::Records => Topic::Records,
        pb::Topic::Queues => Topic::Queues,
        pb::Topic::Sessions => Topic::Sessions,
        pb::Topic::Requests => Topic::Requests,
    })
}

impl Subscription {
    pub(super) fn filter(&self) -> Filter {
        Filter::all().topics(self.topics.iter().copied()).prefix(self.prefix.clone())
    }
}

/// The messages to the watcher for one item of the feed.
pub(super) fn messages(
    subscription: &Arc<Subscription>,
    item: &FeedItem,
) -> impl Iterator<Item = Result<pb::WatchResponse, Status>> + use<> {
    let (first, state) = match item {
        FeedItem::Event { revision, event } => (Ok(Out::Event(convert::event(*revision, event))), None),
        FeedItem::Gap { state } => {
            (Ok(Out::Gap(pb::WatchGap { state: Some(convert::recent(state, HISTORY)) })), Some(state.clone()))
        }
        FeedItem::Ahead { newest, .. } => (Err(revision_ahead(*newest)), None),
    };
    let end = state.as_ref().map(|state| Out::GapEnd(pb::GapEnd { revision: state.revision().get() }));
    let parts =
        state.map(|state| Parts { state, subscription: subscription.clone(), topic: Some(Topic::Locks), done: 0 });
    let rest = parts.into_iter().flatten().map(Out::GapPart).chain(end);
    let all = std::iter::once(first).chain(rest.map(Ok));
    all.map(|item| item.map(|item| pb::WatchResponse { item: Some(item) }))
}

/// The current state, as far as the watcher asked for it, in parts.
struct Parts {
    state: Arc<ClusterState>,
    subscription: Arc<Subscription>,
    /// The topic of the next part; `None` after the last.
    topic: Option<Topic>,
    /// The number of items of this topic in earlier parts.
    done: usize,
}

impl Iterator for Parts {
    type Item = pb::GapPart;

    fn next(&mut self) -> Option<pb::GapPart> {
        let (mut part, mut room) = (pb::GapPart::default(), PAGE);
        while let Some(topic) = self.topic {
            if self.subscription.topics.contains(&topic) && !self.fill(topic, &mut part, &mut room) {
                break;
            }
            (self.topic, self.done) = (next(topic), 0);
        }
        (part != pb::GapPart::default()).then_some(part)
    }
}

/// The topic after this one.
const fn next(topic: Topic) -> Option<Topic> {
    match topic {
        Topic::Locks => Some(Topic::Records),
        Topic::Records => Some(Topic::Queues),
        Topic::Queues => Some(Topic::Sessions),
        _ => None,
    }
}

impl Parts {
    /// Adds the items of a topic. `false` if the part is full and there may be more.
    fn fill(&mut self, topic: Topic, part: &mut pb::GapPart, room: &mut usize) -> bool {
        let (store, prefix) = (self.state.store(), self.subscription.prefix.as_str());
        match topic {
            Topic::Locks => {
                let locks = store.locks().filter(|(name, _)| name.as_str().starts_with(prefix)).skip(self.done);
                let locks = locks.map(|(name, lock)| convert::lock(name, Some(lock)));
                append(locks, &mut part.locks, room, &mut self.done)
            }
            Topic::Records => {
                let records = store.records(prefix).skip(self.done);
                append(records.map(|(key, r)| convert::record(key, r)), &mut part.records, room, &mut self.done)
            }
            Topic::Queues => {
                let queues = store.queues().filter(|name| name.as_str().starts_with(prefix));
                let items = queues.flat_map(|name| store.queue(name).map(move |(id, item)| (name, id, item)));
                let items = items.skip(self.done);
                let items = items.map(|(name, id, item)| convert::queued(name, id, item, item.taken.is_some()));
                append(items, &mut part.items, room, &mut self.done)
            }
            _ => {
                let sessions = store.sessions().skip(self.done).map(|(id, session)| convert::opened(id, session));
                append(sessions, &mut part.sessions, room, &mut self.done)
            }
        }
    }
}

/// Moves messages into a part until it is full. `false` if any are left.
fn append<M: Message>(from: impl Iterator<Item = M>, into: &mut Vec<M>, room: &mut usize, done: &mut usize) -> bool {
    for message in from {
        if *room == 0 {
            return false;
        }
        *room = room.saturating_sub(message.encoded_len() + FRAME);
        into.push(message);
        *done += 1;
    }
    true
}
