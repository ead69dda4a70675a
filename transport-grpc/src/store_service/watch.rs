//! Events for a watcher, and all that holds instead of events that are gone.
//!
//! ```text
//!   FeedItem::Event ─▶ Event
//!   FeedItem::Gap   ─▶ WatchGap{cluster} ─▶ GapPart{locks} ─▶ GapPart{locks, records} ─▶ … ─▶ GapEnd{revision}
//! ```
//!
//! The parts are made when they are sent: a watcher that reads slowly holds on to one picture, of which copies cost
//! nothing, and not to a list of messages.

use std::collections::BTreeSet;
use std::sync::Arc;

use prost::Message;
use quorate_membership::{ClusterState, Revision, Topic};
use quorate_raft_core::{FeedItem, Filter};

use super::{FRAME, PAGE};
use crate::convert::{self, FromWire, Malformed};
use crate::pb;
use crate::pb::watch_response::Item as Told;

/// Of the ended fence orders a gap brings only the newest so many.
const HISTORY: u32 = 32;

/// What a watcher wants to hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) after: Revision,
    topics: BTreeSet<Topic>,
    prefix: String,
}

impl FromWire<pb::WatchRequest> for Wanted {
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

impl Wanted {
    pub(super) fn filter(&self) -> Filter {
        Filter::all().topics(self.topics.iter().copied()).prefix(self.prefix.clone())
    }
}

/// What the watcher is told of one thing in the feed.
pub(super) fn messages(wanted: &Arc<Wanted>, item: &FeedItem) -> impl Iterator<Item = pb::WatchResponse> + use<> {
    let (first, state) = match item {
        FeedItem::Event { revision, event } => (Told::Event(convert::event(*revision, event)), None),
        FeedItem::Gap { state } => {
            (Told::Gap(pb::WatchGap { state: Some(convert::recent(state, HISTORY)) }), Some(state.clone()))
        }
    };
    let end = state.as_ref().map(|state| Told::GapEnd(pb::GapEnd { revision: state.revision().get() }));
    let parts = state.map(|state| Parts { state, wanted: wanted.clone(), topic: Some(Topic::Locks), done: 0 });
    let all = std::iter::once(first).chain(parts.into_iter().flatten().map(Told::GapPart)).chain(end);
    all.map(|item| pb::WatchResponse { item: Some(item) })
}

/// All that holds and is wanted, in parts.
struct Parts {
    state: Arc<ClusterState>,
    wanted: Arc<Wanted>,
    /// What is being told; `None` when all has been.
    topic: Option<Topic>,
    /// How much of it was told already.
    done: usize,
}

impl Iterator for Parts {
    type Item = pb::GapPart;

    fn next(&mut self) -> Option<pb::GapPart> {
        let (mut part, mut room) = (pb::GapPart::default(), PAGE);
        while let Some(topic) = self.topic {
            if self.wanted.topics.contains(&topic) && !self.fill(topic, &mut part, &mut room) {
                break;
            }
            (self.topic, self.done) = (next(topic), 0);
        }
        (part != pb::GapPart::default()).then_some(part)
    }
}

/// What is told after it.
const fn next(topic: Topic) -> Option<Topic> {
    match topic {
        Topic::Locks => Some(Topic::Records),
        Topic::Records => Some(Topic::Queues),
        Topic::Queues => Some(Topic::Sessions),
        _ => None,
    }
}

impl Parts {
    /// Adds what there is of a topic. `false` when there may be more than there was room for.
    fn fill(&mut self, topic: Topic, part: &mut pb::GapPart, room: &mut usize) -> bool {
        let (store, prefix) = (self.state.store(), self.wanted.prefix.as_str());
        match topic {
            Topic::Locks => {
                let locks = store.locks().filter(|(name, _)| name.as_str().starts_with(prefix)).skip(self.done);
                let locks = locks.map(|(name, lock)| convert::lock(name, Some(lock)));
                pour(locks, &mut part.locks, room, &mut self.done)
            }
            Topic::Records => {
                let records = store.records(prefix).skip(self.done);
                pour(records.map(|(key, r)| convert::record(key, r)), &mut part.records, room, &mut self.done)
            }
            Topic::Queues => {
                let queues = store.queues().filter(|name| name.as_str().starts_with(prefix));
                let items = queues.flat_map(|name| store.queue(name).map(move |(id, item)| (name, id, item)));
                let items = items.skip(self.done);
                let items = items.map(|(name, id, item)| convert::queued(name, id, item, item.taken.is_some()));
                pour(items, &mut part.items, room, &mut self.done)
            }
            _ => {
                let sessions = store.sessions().skip(self.done).map(|(id, session)| convert::opened(id, session));
                pour(sessions, &mut part.sessions, room, &mut self.done)
            }
        }
    }
}

fn pour<M: Message>(from: impl Iterator<Item = M>, into: &mut Vec<M>, room: &mut usize, done: &mut usize) -> bool {
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
