//! What a round trip to a peer takes when nothing waits in the queues between.
//!
//! A connection that opens on a busy link takes as long as its queues are. Taken for the length of the way, that would fill
//! them even more. So the shortest of the last ten minutes counts, as in LEDBAT (RFC 6817, the base delay).

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How long a measurement counts: in that time the way may have changed.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_moment_does_not_make_the_way_longer_and_a_new_way_counts_in_the_end() {
        let (round_trip, ms, now) = (RoundTrip::default(), Duration::from_millis, Instant::now());
        assert_eq!(round_trip.note(ms(20), now), ms(20));
        assert_eq!(round_trip.note(ms(3), now), ms(3));
        assert_eq!(round_trip.note(ms(200), now + COUNTS / 2), ms(3), "the link is busy");
        assert_eq!(round_trip.note(ms(90), now + COUNTS), ms(90), "it is longer now");
    }
}
