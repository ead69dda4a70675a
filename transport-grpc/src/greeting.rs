//! A connection on which nobody says anything is closed: whoever opens one has to greet within a time.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// The length of the greeting of HTTP/2, with which every connection begins.
const GREETING: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();

/// A stream of bytes whose first ones have to come in time. Afterwards pings take over.
#[derive(Debug)]
pub(crate) struct Greeted<T> {
    io: T,
    awaited: Option<Awaited>,
}

#[derive(Debug)]
struct Awaited {
    missing: usize,
    until: Pin<Box<Sleep>>,
}

impl<T> Greeted<T> {
    pub(crate) fn new(io: T, within: Duration) -> Self {
        Self { io, awaited: Some(Awaited { missing: GREETING, until: Box::pin(sleep(within)) }) }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Greeted<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        let Some(awaited) = &mut self.awaited else { return read };
        if read.is_pending() {
            ready!(awaited.until.as_mut().poll(cx));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "no greeting in time")));
        }
        awaited.missing = awaited.missing.saturating_sub(buf.filled().len() - before);
        if awaited.missing == 0 {
            self.awaited = None;
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Greeted<T> {
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
