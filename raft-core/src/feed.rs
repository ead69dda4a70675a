//! The ordered event feed: every committed event, in the log's order, from a revision on.
//!
//! ```text
//!   apply ──▶ history (bounded) ──▶ reader A at r1040 … r1042 ▶ waits for more
//!                            └────▶ reader B at r12: too far behind ▶ Gap{snapshot at r1042} ▶ goes on from there
//! ```
//!
//! Nothing is dropped silently. A reader that is behind the history gets a [`FeedItem::Gap`] with a whole state to go on
//! from. After a restart the history is empty, so a reader that resumes from before it gets a gap, too.

mod filter;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use parking_lot::{Mutex, MutexGuard};
use quorate_membership::{ClusterState, Event, Revision};
use tokio::sync::watch;

pub use self::filter::Filter;

/// An item of the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedItem {
    /// A committed event.
    Event {
        /// The revision of its entry in the log. Events of one entry share it.
        revision: Revision,
        /// The event.
        event: Event,
    },
    /// The history of this node does not have the events after the reader's revision (any more).
    Gap {
        /// The state to go on from, as of [`ClusterState::revision`]. The events after it follow.
        state: Arc<ClusterState>,
    },
    /// The reader asked for events after a revision that does not exist yet, so it was given by another cluster, or is
    /// mistaken. No item follows.
    Ahead {
        /// The revision that the reader named.
        after: Revision,
        /// The newest revision, confirmed by a quorum after the reader had asked.
        newest: Revision,
    },
}

impl fmt::Display for FeedItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event { revision, event } => write!(f, "{revision} {event}"),
            Self::Gap { state } => write!(f, "gap, go on from {}", state.revision()),
            Self::Ahead { after, newest } => write!(f, "{after} does not exist yet, the newest is {newest}"),
        }
    }
}

#[derive(Debug)]
struct History {
    /// Everything after this revision is in `events`.
    complete_after: Revision,
    events: VecDeque<(Revision, Event)>,
    state: Arc<ClusterState>,
    limit: usize,
    /// The size of the events, in bytes, and the most of it that is kept, whatever their number.
    weight: usize,
    max_weight: usize,
}

/// The feed of a node, where events are published and read.
#[derive(Debug, Clone)]
pub(crate) struct Feed {
    history: Arc<Mutex<History>>,
    grew: Arc<watch::Sender<u64>>,
}

impl Feed {
    pub(crate) fn new(limit: usize, max_weight: usize) -> Self {
        let state = Arc::new(ClusterState::new());
        let (complete_after, events) = (Revision::default(), VecDeque::new());
        let history = History { complete_after, events, state, limit, weight: 0, max_weight };
        Self { history: Arc::new(Mutex::new(history)), grew: Arc::new(watch::Sender::new(0)) }
    }

    fn lock(&self) -> MutexGuard<'_, History> {
        self.history.lock()
    }

    /// Appends the events of some entries, in order; `state` is the state after them.
    pub(crate) fn publish(&self, events: Vec<(Revision, Event)>, state: Arc<ClusterState>) {
        let Some((newest, _)) = events.last() else { return };
        let newest = *newest;
        let mut history = self.lock();
        // Dropped after the lock: it may be the last copy.
        let _former = std::mem::replace(&mut history.state, state);
        history.weight += events.iter().map(|(_, event)| event.weight()).sum::<usize>();
        history.events.extend(events);
        // Events of one entry leave together, so that "after a revision" never cuts an entry in two.
        while history.events.len() > history.limit || history.weight > history.max_weight {
            let Some((oldest, _)) = history.events.front().cloned() else { break };
            if oldest == newest {
                break;
            }
            while history.events.front().is_some_and(|(at, _)| *at == oldest) {
                let gone = history.events.pop_front().map_or(0, |(_, event)| event.weight());
                history.weight = history.weight.saturating_sub(gone);
            }
            history.complete_after = oldest;
        }
        drop(history);
        self.grew.send_modify(grown);
    }

    /// Starts again from a whole state (a snapshot).
    pub(crate) fn reset(&self, state: Arc<ClusterState>) {
        let mut history = self.lock();
        history.events.clear();
        history.weight = 0;
        history.complete_after = state.revision();
        history.state = state;
        drop(history);
        self.grew.send_modify(grown);
    }

    /// The state after everything published.
    pub(crate) fn state(&self) -> Arc<ClusterState> {
        self.lock().state.clone()
    }

    fn read(&self, after: Revision, filter: &Filter) -> (Vec<FeedItem>, Revision) {
        let history = self.lock();
        if after < history.complete_after && !quorate_membership::mutant!("gap_dropped") {
            let state = history.state.clone();
            let at = state.revision();
            return (vec![FeedItem::Gap { state }], at.max(history.complete_after));
        }
        let from = history.events.partition_point(|(at, _)| *at <= after);
        let item =
            |(revision, event): &(Revision, Event)| FeedItem::Event { revision: *revision, event: event.clone() };
        let items = history.events.range(from..).filter(|(_, event)| filter.wants(event)).map(item).collect();
        let last = history.events.back().map_or(after, |(at, _)| (*at).max(after));
        (items, last)
    }

    /// Every wanted event after `revision`, then each as it is committed. Ends when the node has stopped. A reader from
    /// outside comes through [`Engine::events_since`](crate::engine::Engine::events_since).
    pub(crate) fn since(&self, revision: Revision, filter: Filter) -> BoxStream<'static, FeedItem> {
        struct Reader {
            feed: Feed,
            filter: Filter,
            grew: watch::Receiver<u64>,
            at: Revision,
            ready: VecDeque<FeedItem>,
            open: bool,
        }
        let reader = Reader {
            grew: self.grew.subscribe(),
            feed: self.clone(),
            filter,
            at: revision,
            ready: VecDeque::new(),
            open: true,
        };
        let items = futures_util::stream::unfold(reader, |mut reader| async move {
            loop {
                if let Some(item) = reader.ready.pop_front() {
                    return Some((item, reader));
                }
                if !reader.open {
                    return None;
                }
                let closed = *reader.grew.borrow_and_update() == CLOSED;
                let (items, at) = reader.feed.read(reader.at, &reader.filter);
                reader.at = at;
                reader.ready.extend(items);
                reader.open = !closed;
                if reader.ready.is_empty() && reader.open && reader.grew.changed().await.is_err() {
                    reader.open = false;
                }
            }
        });
        // A reader may poll again after the end.
        items.fuse().boxed()
    }

    /// Ends every reader once it has read what is there.
    pub(crate) fn close(&self) {
        self.grew.send_replace(CLOSED);
    }
}

const CLOSED: u64 = u64::MAX;

/// Counts one more. A closed feed stays closed, even if an entry is applied at the last moment.
fn grown(count: &mut u64) {
    if *count != CLOSED {
        *count += 1;
    }
}

#[cfg(test)]
mod tests {
    use quorate_membership::{ClusterId, Command, apply};

    use super::*;

    fn publish(feed: &Feed, state: &mut ClusterState, revision: u64, command: &Command) {
        let events = apply(state, Revision::new(revision), command).unwrap();
        let events = events.into_iter().map(|event| (Revision::new(revision), event));
        feed.publish(events.collect(), Arc::new(state.clone()));
    }

    fn learners(count: u64) -> Command {
        let learners = (1..=count).map(quorate_membership::NodeId::new);
        Command::Configure { configuration: quorate_membership::Configuration::uniform([], learners) }
    }

    #[tokio::test]
    async fn a_reader_resumes_after_a_revision_and_a_slow_one_is_told_of_the_gap() {
        let (feed, mut state) = (Feed::new(4, usize::MAX), ClusterState::new());
        publish(&feed, &mut state, 1, &Command::Found { cluster: ClusterId::new(1) });
        let mut slow = feed.since(Revision::default(), Filter::all());
        for revision in 2..=9 {
            publish(&feed, &mut state, revision, &learners(revision));
        }
        let mut resumed = feed.since(Revision::new(7), Filter::all());
        for expected in [8, 9] {
            let Some(FeedItem::Event { revision, .. }) = resumed.next().await else { panic!("an event") };
            assert_eq!(revision.get(), expected);
        }
        let Some(FeedItem::Gap { state: picture }) = slow.next().await else { panic!("a gap") };
        assert_eq!(*picture, state);
        publish(&feed, &mut state, 10, &learners(10));
        for reader in [&mut slow, &mut resumed] {
            let Some(FeedItem::Event { revision, .. }) = reader.next().await else { panic!("an event") };
            assert_eq!(revision.get(), 10);
        }
        feed.close();
        publish(&feed, &mut state, 11, &learners(11)); // applied while it was being closed
        while slow.next().await.is_some() {}
        assert!(slow.next().await.is_none());
    }
}
