//! What a program reads of a node: the latest picture, and every event in order.
//!
//! ```text
//!   Watch    level: what is so now; pictures in between may be skipped
//!   Events   edge:  what happened, each once, in the order of the log; a gap is said where a reader was too slow
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

/// The latest picture, again and again. Pictures in between may be skipped; events never are.
#[derive(Debug)]
pub struct Watch {
    pub(crate) views: watch::Receiver<View>,
}

impl Watch {
    /// The picture after the one seen last; `None` once the node is gone. Cancel-safe.
    pub async fn changed(&mut self) -> Option<View> {
        self.views.changed().await.ok()?;
        Some(self.views.borrow_and_update().clone())
    }

    /// Waits until a picture satisfies `what`; `None` if the node is gone before one does. Cancel-safe.
    pub async fn until(&mut self, what: impl FnMut(&View) -> bool) -> Option<View> {
        self.views.wait_for(what).await.ok().map(|view| view.clone())
    }
}

/// Committed events in the order of the log, the same on every node.
///
/// Read it with [`Self::next`], or as a [`Stream`] with the combinators of `futures`. The stream ends where the node has
/// stopped; a gap is an error after which the stream goes on.
pub struct Events {
    pub(crate) items: BoxStream<'static, FeedItem>,
    pub(crate) revision: Revision,
}

impl Events {
    /// The next event. Cancel-safe: an event is never lost by dropping the future.
    ///
    /// # Errors
    /// [`EventsError::Gap`] once where events were missed: reading on is possible. [`EventsError::Stopped`] at the end.
    pub async fn next(&mut self) -> Result<Event, EventsError> {
        StreamExt::next(self).await.unwrap_or(Err(EventsError::Stopped))
    }

    /// The revision of the event that came last: where to resume after a restart of the reader. Events of one entry
    /// share a revision, so resume only from one whose events were all dealt with.
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
            })
        })
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("revision", &self.revision).finish_non_exhaustive()
    }
}
