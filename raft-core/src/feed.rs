//! The committed state of a node, and the ordered event feed: every committed event, in the log's order, from a revision on.
//!
//! ```text
//!   apply ──▶ history (bounded) ──▶ reader A at r1040 … r1042 ▶ waits for more
//!     │                      └────▶ reader B at r12: too far behind ▶ Gap{picture at r1042} ▶ goes on from there
//!     └─────▶ state ──▶ a picture, made when somebody asks for one, and the same one until the state changes
//! ```
//!
//! Nothing is dropped silently. A reader that is behind the history gets a [`FeedItem::Gap`] with a whole state to go on
//! from. After a restart the history is empty, so a reader that resumes from before it gets a gap, too.
//!
//! A picture shares the state's trees, and each change after it copies the nodes that both have. So a busy node takes as few
//! as it can: who wants to know one thing looks at the state where it is (`Feed::look`).

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
    limit: usize,
    /// The size of the events, in bytes, and the most of it that is kept, whatever their number.
    weight: usize,
    max_weight: usize,
}

impl History {
    /// Appends the events of some entries, in order, and forgets the oldest ones beyond the limits.
    fn extend(&mut self, new: Vec<(Revision, Event)>) {
        let Some((newest, _)) = new.last() else { return };
        let newest = *newest;
        self.weight += new.iter().map(|(_, event)| event.weight()).sum::<usize>();
        self.events.extend(new);
        // Events of one entry leave together, so that "after a revision" never cuts an entry in two.
        while self.events.len() > self.limit || self.weight > self.max_weight {
            let Some((oldest, _)) = self.events.front() else { break };
            let oldest = *oldest;
            if oldest == newest {
                break;
            }
            while self.events.front().is_some_and(|(at, _)| *at == oldest) {
                let gone = self.events.pop_front().map_or(0, |(_, event)| event.weight());
                self.weight = self.weight.saturating_sub(gone);
            }
            self.complete_after = oldest;
        }
    }
}

/// What is committed and applied here. State and history change together, so nobody sees one without the other.
#[derive(Debug)]
struct Committed {
    state: ClusterState,
    /// The last picture, until the state changes.
    picture: Option<Arc<ClusterState>>,
    history: History,
}

impl Committed {
    fn picture(&mut self) -> Arc<ClusterState> {
        self.picture.get_or_insert_with(|| Arc::new(self.state.clone())).clone()
    }
}

/// The state of a node and its feed, where events are published and read.
#[derive(Debug, Clone)]
pub(crate) struct Feed {
    committed: Arc<Mutex<Committed>>,
    grew: Arc<watch::Sender<u64>>,
}

impl Feed {
    pub(crate) fn new(limit: usize, max_weight: usize) -> Self {
        let (complete_after, events) = (Revision::default(), VecDeque::new());
        let history = History { complete_after, events, limit, weight: 0, max_weight };
        let committed = Committed { state: ClusterState::new(), picture: None, history };
        Self { committed: Arc::new(Mutex::new(committed)), grew: Arc::new(watch::Sender::new(0)) }
    }

    fn lock(&self) -> MutexGuard<'_, Committed> {
        self.committed.lock()
    }

    /// Changes the state by some entries, and publishes their events. Nobody sees the state before `change` returns, so it
    /// should be short, and must not ask for the state.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut ClusterState, &mut Vec<(Revision, Event)>) -> R) -> R {
        let mut events = vec![];
        let mut committed = self.lock();
        // A picture that nobody else has would be copied from for nothing.
        let former = committed.picture.take().filter(|picture| Arc::strong_count(picture) > 1);
        let result = change(&mut committed.state, &mut events);
        if events.is_empty() {
            committed.picture = former;
            return result;
        }
        committed.history.extend(events);
        drop(committed);
        self.grew.send_modify(grown);
        result
    }

    /// Starts again from a whole state (a snapshot).
    pub(crate) fn reset(&self, state: ClusterState) {
        let mut committed = self.lock();
        let history = &mut committed.history;
        history.events.clear();
        history.weight = 0;
        history.complete_after = state.revision();
        let former = (std::mem::replace(&mut committed.state, state), committed.picture.take());
        drop(committed);
        drop(former);
        self.grew.send_modify(grown);
    }

    /// A picture of the state after everything published.
    pub(crate) fn state(&self) -> Arc<ClusterState> {
        self.lock().picture()
    }

    /// Looks at the state after everything published. Nothing is applied meanwhile, so it should be short.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&ClusterState) -> R) -> R {
        look(&self.lock().state)
    }

    fn read(&self, after: Revision, filter: &Filter) -> (Vec<FeedItem>, Revision) {
        let mut committed = self.lock();
        let complete_after = committed.history.complete_after;
        if after < complete_after && !quorate_membership::mutant!("gap_dropped") {
            let state = committed.picture();
            let at = state.revision();
            return (vec![FeedItem::Gap { state }], at.max(complete_after));
        }
        let events = &committed.history.events;
        let from = events.partition_point(|(at, _)| *at <= after);
        let item =
            |(revision, event): &(Revision, Event)| FeedItem::Event { revision: *revision, event: event.clone() };
        let items = events.range(from..).filter(|(_, event)| filter.wants(event)).map(item).collect();
        let last = events.back().map_or(after, |(at, _)| (*at).max(after));
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

    /// Applies a command, and returns the state after it.
    fn publish(feed: &Feed, revision: u64, command: &Command) -> ClusterState {
        let at = Revision::new(revision);
        feed.change(|state, events| {
            events.extend(apply(state, at, command).unwrap().into_iter().map(|event| (at, event)));
            state.clone()
        })
    }

    fn found() -> Command {
        Command::Found { cluster: ClusterId::new(1) }
    }

    fn learners(count: u64) -> Command {
        let learners = (1..=count).map(quorate_membership::NodeId::new);
        Command::Configure { configuration: quorate_membership::Configuration::uniform([], learners) }
    }

    #[tokio::test]
    async fn a_reader_resumes_after_a_revision_and_a_slow_one_is_told_of_the_gap() {
        let feed = Feed::new(4, usize::MAX);
        publish(&feed, 1, &found());
        let mut slow = feed.since(Revision::default(), Filter::all());
        let states: Vec<_> = (2..=9).map(|revision| publish(&feed, revision, &learners(revision))).collect();
        let mut resumed = feed.since(Revision::new(7), Filter::all());
        for expected in [8, 9] {
            let Some(FeedItem::Event { revision, .. }) = resumed.next().await else { panic!("an event") };
            assert_eq!(revision.get(), expected);
        }
        let Some(FeedItem::Gap { state: picture }) = slow.next().await else { panic!("a gap") };
        assert_eq!(Some(&*picture), states.last());
        publish(&feed, 10, &learners(10));
        for reader in [&mut slow, &mut resumed] {
            let Some(FeedItem::Event { revision, .. }) = reader.next().await else { panic!("an event") };
            assert_eq!(revision.get(), 10);
        }
        feed.close();
        publish(&feed, 11, &learners(11)); // applied while it was being closed
        while slow.next().await.is_some() {}
        assert!(slow.next().await.is_none());
    }

    #[test]
    fn a_picture_stays_as_it_was_and_is_the_same_until_something_changes() {
        let feed = Feed::new(4, usize::MAX);
        let empty = feed.state();
        publish(&feed, 1, &found());
        let founded = feed.state();
        assert_eq!((empty.id(), founded.id()), (None, Some(ClusterId::new(1))));
        // It changes nothing.
        publish(&feed, 2, &found());
        assert!(Arc::ptr_eq(&founded, &feed.state()));
        let changed = publish(&feed, 3, &learners(3));
        assert_eq!(
            (&*feed.state(), founded.configuration().clone()),
            (&changed, quorate_membership::Configuration::default())
        );
        feed.reset(ClusterState::new());
        assert_eq!(feed.state(), empty);
        assert_eq!(feed.look(ClusterState::revision), Revision::default());
    }
}
