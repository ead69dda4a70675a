//! A connection for much data whose send buffer follows the rate of its link, so that little of it waits in queues.
//!
//! ```text
//!   entries ──▶ HTTP/2 ──▶ send buffer: the rate × 12 ms ──▶ queue of the network ──▶ peer
//!                                                              ▲
//!   heartbeats, renewals ── on connections of their own ───────┘   wait behind some 12 ms of each stream
//! ```
//!
//! TCP fills whatever queue the network has, and then every heartbeat waits in it for as long as it is. On a link of 1 Mbit/s a
//! queue of 50 KB is 0.4 s, an election timeout. What is not acknowledged is never more than the send buffer, so a buffer of
//! what the link carries in 12 ms bounds the wait. The idea is that of LEDBAT (RFC 6817), by other means: the rate is what the
//! kernel takes while the buffer is full.
//!
//! A connection that opens on a busy link takes as long as its queues are. Taken for the length of the way, that would fill
//! them even more. So the shortest of the last ten minutes counts, as in LEDBAT (the base delay).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::net::{SendBuffer, TcpStream};

/// How long what is in the buffer may take. The kernel doubles the size that it is given, and a leader sends to several
/// followers on one link, so that heartbeats wait for a few times as long.
const QUEUE: Duration = Duration::from_millis(12);

/// The longest round trip that is believed.
const LONGEST: Duration = Duration::from_millis(250);

/// Bounds of the buffer, in bytes.
const LEAST: usize = 2 << 10;
const MOST: usize = 4 << 20;

/// Where it begins: small, because a thin link shows itself only when its queue is full already. On a round trip of 1 ms it
/// passes 8 MB/s, and twice as much after each measurement.
const FIRST: usize = 4 << 10;

/// How long one measurement takes. Not less: a token bucket lets tens of kilobytes pass at once before it shows its rate.
const WINDOW: Duration = Duration::from_millis(200);

/// How many parts of a message one call takes. The system refuses more than 1 024.
const PARTS: usize = 64;

/// How long a round trip that was measured counts: in that time the way may have changed.
const COUNTS: Duration = Duration::from_secs(600);

/// The shortest round trip to one peer.
#[derive(Debug, Default)]
pub(crate) struct RoundTrip(Mutex<Option<(Duration, Instant)>>);

impl RoundTrip {
    /// Notes what the opening of a connection took. Returns what counts now.
    pub(crate) fn note(&self, opening: Duration, now: Instant) -> Duration {
        let mut shortest = self.0.lock();
        let counts = |(took, at): &(Duration, Instant)| *took < opening && now.saturating_duration_since(*at) < COUNTS;
        let counted = shortest.filter(counts).unwrap_or((opening, now));
        *shortest = Some(counted);
        counted.0
    }
}

/// A connection whose send buffer follows the rate of its link.
#[derive(Debug)]
pub(crate) struct Paced {
    stream: TcpStream,
    size: usize,
    /// What a round trip takes while the queues are empty, as far as it is known.
    round_trip: Duration,
    /// When the buffer was full last.
    full_at: Option<Instant>,
    /// Since when the rate is measured, which begins and ends with a full buffer; `None` before it was full.
    since: Option<Instant>,
    /// What was taken since.
    taken: usize,
}

impl Paced {
    /// `round_trip`: what one takes while the queues are empty.
    pub(crate) fn new(stream: TcpStream, round_trip: Duration) -> Self {
        let round_trip = round_trip.min(LONGEST);
        let paced = Self { stream, size: FIRST, round_trip, full_at: None, since: None, taken: 0 };
        paced.stream.set_send_buffer(FIRST);
        paced
    }

    fn note(&mut self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Ready(Ok(taken)) => self.taken += taken,
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.full(),
        }
    }

    fn full(&mut self) {
        let now = Instant::now();
        // Time in which there was little to send says nothing about the link.
        if self.full_at.replace(now).is_none_or(|at| now.saturating_duration_since(at) > WINDOW) {
            self.since = None;
        }
        let since = *self.since.get_or_insert_with(|| {
            self.taken = 0;
            now
        });
        let passed = now.saturating_duration_since(since);
        if passed < WINDOW {
            return;
        }
        let size = sized(self.taken, passed, self.round_trip);
        if size.abs_diff(self.size) > self.size / 4 {
            self.size = size;
            self.stream.set_send_buffer(size);
        }
        (self.since, self.taken) = (Some(now), 0);
    }
}

/// The buffer for a link that has taken so much in that time: what is on its way for a round trip, and a little more. The kernel
/// doubles it, so that a buffer which is smaller than the link could fill at least doubles with each measurement.
fn sized(taken: usize, passed: Duration, round_trip: Duration) -> usize {
    let rate = taken as f64 / passed.as_secs_f64();
    // It fits: `as` keeps to the bounds of the type.
    ((rate * (QUEUE + round_trip).as_secs_f64()) as usize).clamp(LEAST, MOST)
}

impl AsyncRead for Paced {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Paced {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // The kernel takes a whole record more than its buffer holds.
        let mut room = this.size;
        let fitting = bufs.iter().map(|buf| {
            let fits = &buf[..buf.len().min(room)];
            room -= fits.len();
            IoSlice::new(fits)
        });
        let fitting: Vec<IoSlice<'_>> = fitting.filter(|buf| !buf.is_empty()).take(PARTS).collect();
        let written = this.stream.poll_write_record(cx, &fitting);
        this.note(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[test]
    fn the_buffer_holds_twelve_milliseconds_of_the_link() {
        let (second, near) = (Duration::from_secs(1), Duration::ZERO);
        assert_eq!(sized(2_500_000, second, near), 30_000, "20 Mbit/s");
        assert_eq!(sized(625_000, second, near), 7_500, "5 Mbit/s");
        assert_eq!(sized(1000, second, near), LEAST);
        assert_eq!(sized(25_000_000, WINDOW, near), 1_500_000, "1 Gbit/s");
    }

    /// With a round trip of 50 ms a buffer passes twice its size in each, whatever the link could carry.
    #[test]
    fn a_buffer_that_a_round_trip_limits_grows_until_it_does_not() {
        let (round_trip, mut size) = (Duration::from_millis(50), FIRST);
        for _ in 0..10 {
            let grown = sized(2 * size, round_trip, round_trip);
            assert!(grown >= (2 * size).min(MOST), "{size} became {grown}");
            size = grown;
        }
        assert_eq!(size, MOST);
    }

    #[test]
    fn a_busy_moment_does_not_make_the_way_longer_and_a_new_way_counts_in_the_end() {
        let (round_trip, ms, now) = (RoundTrip::default(), Duration::from_millis, Instant::now());
        assert_eq!(round_trip.note(ms(20), now), ms(20));
        assert_eq!(round_trip.note(ms(3), now), ms(3));
        assert_eq!(round_trip.note(ms(200), now + COUNTS / 2), ms(3), "the link is busy");
        assert_eq!(round_trip.note(ms(90), now + COUNTS), ms(90), "it is longer now");
    }

    /// The peer does not read. What is not in its buffer waits here.
    #[tokio::test]
    async fn no_more_waits_than_the_buffer_holds() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 32 << 10).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (peer, _) = listener.accept().unwrap();
        let mut paced = Paced::new(stream, Duration::ZERO);
        let mut taken = 0;
        while let Ok(written) = tokio::time::timeout(WINDOW, paced.write(&[7; 16 << 10])).await {
            taken += written.unwrap();
        }
        let waits = taken - rustix::io::ioctl_fionread(&peer).unwrap() as usize;
        assert!(waits > 0 && waits <= 8 << 10, "{waits} bytes wait of {taken}");
    }
}
