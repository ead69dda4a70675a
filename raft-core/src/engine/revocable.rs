//! A stream of appends that can be taken back from the transport that sends it.
//!
//! ```text
//!   openraft's requests ─▶ Revocable ─▶ transport, connection, queue …      may be kept there for long, and not be polled
//!                             ▲
//!   the call is over ─ Hold ──┘ the requests are dropped now
//! ```
//!
//! openraft makes its requests under a lock that a request on its way keeps, also while there is nothing to send. The next
//! stream to that follower begins with taking the lock. So a stream that lies in the queue of a dead connection would keep the
//! follower without entries for as long as that connection takes to end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::Stream;
use futures_util::stream::BoxStream;
use parking_lot::Mutex;

type Slot<T> = Arc<Mutex<Option<BoxStream<'static, T>>>>;

/// The stream, as the transport has it. It ends when it is taken back.
pub(super) struct Revocable<T>(Slot<T>);

/// Takes the stream back when it is dropped.
pub(super) struct Hold<T>(Slot<T>);

/// The stream, and what takes it back.
pub(super) fn revocable<T>(stream: BoxStream<'static, T>) -> (Revocable<T>, Hold<T>) {
    let slot = Arc::new(Mutex::new(Some(stream)));
    (Revocable(slot.clone()), Hold(slot))
}

impl<T> Stream for Revocable<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut slot = self.0.lock();
        let Some(stream) = slot.as_mut() else { return Poll::Ready(None) };
        let next = stream.as_mut().poll_next(cx);
        if matches!(next, Poll::Ready(None)) {
            // openraft's stream panics when it is polled after its end.
            *slot = None;
        }
        next
    }
}

impl<T> Drop for Hold<T> {
    fn drop(&mut self) {
        if !quorate_membership::mutant!("streams_stay_with_the_transport") {
            let taken = self.0.lock().take();
            drop(taken);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt, stream};

    use super::*;

    #[tokio::test]
    async fn a_stream_that_is_taken_back_is_dropped_although_the_transport_keeps_it() {
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        let held = lock.clone();
        let requests = stream::unfold((), move |()| {
            let held = held.clone();
            async move {
                let _held = held.lock().await;
                std::future::pending::<Option<(u8, ())>>().await
            }
        });
        let (mut kept, hold) = revocable(stream::iter([7]).chain(requests).boxed());
        assert_eq!(kept.next().await, Some(7));
        assert_eq!(kept.next().now_or_never(), None);
        assert!(lock.try_lock().is_err(), "the request on its way holds it");
        drop(hold);
        assert!(lock.try_lock().is_ok());
        assert_eq!(kept.next().await, None);
    }
}
