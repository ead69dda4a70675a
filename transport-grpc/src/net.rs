//! TCP: that of the system. With the feature `testing`, and inside a turmoil simulation only, the simulated one.
//!
//! ```text
//!   server, links ──▶ TcpListener, TcpStream, lookup_host ──▶ tokio::net
//!                                                        └──▶ turmoil::net   if turmoil::in_simulation()
//! ```

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
#[cfg(feature = "testing")]
pub(crate) use simulated::{TcpListener, TcpStream, lookup_host};
use tokio::io::Interest;
#[cfg(not(feature = "testing"))]
pub(crate) use tokio::net::{TcpListener, TcpStream, lookup_host};

/// Bounds what the system holds of what was written, until it is acknowledged.
pub(crate) trait SendBuffer {
    /// A hint: a system that refuses it keeps what it had.
    fn set_send_buffer(&self, size: usize);

    /// Writes some of it, as a record of its own. Linux checks the bound only where a segment begins, and merges what is
    /// written into the last one for as long as that waits, up to 64 KiB. What ends a record is not merged into.
    fn poll_write_record(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>>;
}

impl SendBuffer for tokio::net::TcpStream {
    fn set_send_buffer(&self, size: usize) {
        if let Err(error) = rustix::net::sockopt::set_socket_send_buffer_size(self, size) {
            tracing::debug!(%error, size, "the send buffer keeps its size");
        }
    }

    fn poll_write_record(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let stream = &*self;
        let mut flags = SendFlags::EOR | SendFlags::NOSIGNAL;
        flags.set(SendFlags::EOR, !quorate_membership::mutant!("records_merged"));
        let send = || Ok(sendmsg(stream, bufs, &mut SendAncillaryBuffer::default(), flags)?);
        loop {
            ready!(stream.poll_write_ready(cx))?;
            match stream.try_io(Interest::WRITABLE, send) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
    }
}

/// The part of `tokio::net` that this crate uses, chosen at run time.
#[cfg(feature = "testing")]
mod simulated {
    use std::io::{self, IoSlice};
    use std::net::SocketAddr;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    /// A connection.
    #[derive(Debug)]
    pub(crate) enum TcpStream {
        System(tokio::net::TcpStream),
        Simulated(turmoil::net::TcpStream),
    }

    /// A port that accepts them.
    pub(crate) enum TcpListener {
        System(tokio::net::TcpListener),
        Simulated(turmoil::net::TcpListener),
    }

    /// Asks the resolver.
    pub(crate) async fn lookup_host(host: &str) -> io::Result<impl Iterator<Item = SocketAddr> + use<>> {
        let found: Vec<SocketAddr> = match turmoil::in_simulation() {
            true => turmoil::net::lookup_host(host).await?.collect(),
            false => tokio::net::lookup_host(host).await?.collect(),
        };
        Ok(found.into_iter())
    }

    impl TcpStream {
        pub(crate) async fn connect(to: SocketAddr) -> io::Result<Self> {
            match turmoil::in_simulation() {
                true => turmoil::net::TcpStream::connect(to).await.map(Self::Simulated),
                false => tokio::net::TcpStream::connect(to).await.map(Self::System),
            }
        }

        pub(crate) fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
            match self {
                Self::System(stream) => stream.set_nodelay(nodelay),
                Self::Simulated(stream) => stream.set_nodelay(nodelay),
            }
        }
    }

    impl super::SendBuffer for TcpStream {
        fn set_send_buffer(&self, size: usize) {
            match self {
                Self::System(stream) => stream.set_send_buffer(size),
                Self::Simulated(_) => {}
            }
        }

        fn poll_write_record(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
            match self {
                Self::System(stream) => stream.poll_write_record(cx, bufs),
                Self::Simulated(stream) => {
                    let first = bufs.iter().find(|buf| !buf.is_empty());
                    first.map_or(Poll::Ready(Ok(0)), |buf| Pin::new(stream).poll_write(cx, buf))
                }
            }
        }
    }

    impl TcpListener {
        pub(crate) async fn bind(address: SocketAddr) -> io::Result<Self> {
            match turmoil::in_simulation() {
                true => turmoil::net::TcpListener::bind(address).await.map(Self::Simulated),
                false => tokio::net::TcpListener::bind(address).await.map(Self::System),
            }
        }

        pub(crate) fn from_std(listener: std::net::TcpListener) -> io::Result<Self> {
            tokio::net::TcpListener::from_std(listener).map(Self::System)
        }

        pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
            match self {
                Self::System(listener) => listener.local_addr(),
                Self::Simulated(listener) => listener.local_addr(),
            }
        }

        pub(crate) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
            match self {
                Self::System(listener) => {
                    listener.accept().await.map(|(stream, from)| (TcpStream::System(stream), from))
                }
                Self::Simulated(listener) => {
                    listener.accept().await.map(|(stream, from)| (TcpStream::Simulated(stream), from))
                }
            }
        }
    }

    impl AsyncRead for TcpStream {
        fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            match self.get_mut() {
                Self::System(stream) => Pin::new(stream).poll_read(cx, buf),
                Self::Simulated(stream) => Pin::new(stream).poll_read(cx, buf),
            }
        }
    }

    impl AsyncWrite for TcpStream {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            match self.get_mut() {
                Self::System(stream) => Pin::new(stream).poll_write(cx, buf),
                Self::Simulated(stream) => Pin::new(stream).poll_write(cx, buf),
            }
        }

        fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            match self.get_mut() {
                Self::System(stream) => Pin::new(stream).poll_flush(cx),
                Self::Simulated(stream) => Pin::new(stream).poll_flush(cx),
            }
        }

        fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            match self.get_mut() {
                Self::System(stream) => Pin::new(stream).poll_shutdown(cx),
                Self::Simulated(stream) => Pin::new(stream).poll_shutdown(cx),
            }
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            match self.get_mut() {
                Self::System(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
                Self::Simulated(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            }
        }

        fn is_write_vectored(&self) -> bool {
            match self {
                Self::System(stream) => stream.is_write_vectored(),
                Self::Simulated(stream) => stream.is_write_vectored(),
            }
        }
    }
}
