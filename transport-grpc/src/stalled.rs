//! An end for a connection whose other side reads nothing any more: what is to be sent stands still for too long.
//!
//! ```text
//!   write ──▶ no room in the socket ──▶ a timer ──▶ some room: the timer is forgotten
//!                                         └── none until it ends: an error, and the connection closes
//! ```
//!
//! Pings do not do this. hyper answers one that is missed by announcing the end, and that has to be sent first: a client that reads
//! nothing would keep its connection, and what waits in it, for ever. This is below TLS, where each byte that leaves is seen, so a
//! slow network is not taken for a silent peer.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A stream of bytes that fails when nothing could be written for so long.
pub(crate) struct Stalled<T> {
    io: T,
    limit: Duration,
    /// Since there was no room.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<T> Stalled<T> {
    pub(crate) fn new(io: T, limit: Duration) -> Self {
        Self { io, limit, waiting: None }
    }

    /// What became of an attempt to write, unless it has waited for too long.
    fn judge<R>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let limit = self.limit;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(limit)));
        if waiting.as_mut().poll(cx).is_pending() || quorate_membership::mutant!("who_reads_nothing_stays") {
            return Poll::Pending;
        }
        let why = format!("the other side has read nothing for {limit:?}");
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Stalled<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, into)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Stalled<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(2);

    #[tokio::test]
    async fn who_reads_slowly_is_waited_for_and_who_reads_nothing_is_not() {
        let (near, mut far) = duplex(16);
        let mut stalled = Stalled::new(near, LIMIT);
        let sending = tokio::spawn(async move { stalled.write_all(&[7; 64]).await });
        // A byte now and then, for longer than the limit in all.
        for _ in 0..16 {
            tokio::time::sleep(LIMIT / 10).await;
            far.read_u8().await.unwrap();
        }
        assert!(!sending.is_finished(), "a slow reader is no silent one");
        let ended = tokio::time::timeout(LIMIT * 10, sending).await;
        let error = ended.expect("a connection that nobody reads ends").unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().contains("has read nothing for 2s"), "{error}");
    }
}
