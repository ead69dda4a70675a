//! Closes a connection whose first bytes, the HTTP/2 preface, do not arrive in time.
//!
//! hyper has no such timeout for HTTP/2. Without one, a client that connects and stays silent would hold a connection for
//! ever. Once the preface has arrived, pings detect a dead peer.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// The length of the HTTP/2 connection preface (RFC 9113, section 3.4), with which every connection begins.
const PREFACE: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();

/// A stream of bytes that fails to read if its first ones do not arrive in time.
#[derive(Debug)]
pub(crate) struct HandshakeTimeout<T> {
    io: T,
    /// What is still missing; `None` once the preface has arrived.
    pending: Option<Pending>,
}

#[derive(Debug)]
struct Pending {
    /// Bytes of the preface that have not arrived.
    missing: usize,
    deadline: Pin<Box<Sleep>>,
}

impl<T> HandshakeTimeout<T> {
    pub(crate) fn new(io: T, within: Duration) -> Self {
        Self { io, pending: Some(Pending { missing: PREFACE, deadline: Box::pin(sleep(within)) }) }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for HandshakeTimeout<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        let Some(pending) = &mut self.pending else { return read };
        if read.is_pending() {
            ready!(pending.deadline.as_mut().poll(cx));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "no HTTP/2 preface in time")));
        }
        pending.missing = pending.missing.saturating_sub(buf.filled().len() - before);
        if pending.missing == 0 {
            self.pending = None;
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for HandshakeTimeout<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
