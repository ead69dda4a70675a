//! How a program observes a node: its latest view, and every event in order.
//!
//! ```text
//!   Watch    level: what holds now; views in between may be skipped
//!   Events   edge:  what happened, each once, in the order of the log; a reader that is too slow gets an explicit gap
//! ```

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use futures_util::stream::Stream;
use quorate_membership::{Event, Revision};
use quorate_raft_core::{FeedItem, View};
use tokio::sync::watch;

use crate::error::EventsError;

/// Follows the view of a node. It always yields the latest view and may skip earlier ones; use [`Events`] to skip
/// nothing.
#[derive(Debug)]
pub struct Watch {
    pub(crate) views: watch::Receiver<View>,
}

impl Watch {
    /// Waits for a view newer than the last one returned. `None` once the node has stopped. Cancel-safe.
    pub async fn changed(&mut self) -> Option<View> {
        self.views.changed().await.ok()?;
        Some(self.views.borrow_and_update().clone())
    }

    /// Waits for a view that satisfies `what`; the current one counts. `None` if the node stops first. Cancel-safe.
    pub async fn until(&mut self, what: impl FnMut(&View) -> bool) -> Option<View> {
        self.views.wait_for(what).await.ok().map(|view| view.clone())
    }
}

/// Committed events in the order of the log. The order is the same on every node.
///
/// Read it with [`Self::next`], or as a [`Stream`] with the combinators of `futures`. The stream ends when the node
/// stops. A gap is an error item after which the stream continues.
pub struct Events {
    pub(crate) items: BoxStream<'static, FeedItem>,
    pub(crate) revision: Revision,
}

impl Events {
    /// Waits for the next event. Cancel-safe: dropping the future loses no event.
    ///
    /// # Errors
    /// [`EventsError::Gap`] once for each gap; reading on is possible. [`EventsError::Ahead`] for a revision that does
    /// not exist yet, after which nothing follows. [`EventsError::Stopped`] once the node has stopped.
    pub async fn next(&mut self) -> Result<Event, EventsError> {
        StreamExt::next(self).await.unwrap_or(Err(EventsError::Stopped))
    }

    /// The revision of the last event returned. A reader that restarts resumes after it with `events_since`. All events
    /// of one log entry share a revision, so resume only from a revision whose events have all been handled.
    pub fn revision(&self) -> Revision {
        self.revision
    }
}

impl Stream for Events {
    type Item = Result<Event, EventsError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.items.poll_next_unpin(cx).map(|item| {
            item.map(|item| match item {
                FeedItem::Event { revision, event } => {
                    self.revision = revision;
                    Ok(event)
                }
                FeedItem::Gap { state } => {
                    self.revision = state.revision();
                    Err(EventsError::Gap { state })
                }
                FeedItem::Ahead { after, newest } => Err(EventsError::Ahead { after, newest }),
            })
        })
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("revision", &self.revision).finish_non_exhaustive()
    }
}
