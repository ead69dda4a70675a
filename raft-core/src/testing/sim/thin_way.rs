//! A way out of a machine that carries little: what goes on lanes for much waits for what went before, small messages wait
//! behind what the transport leaves in the queue.
//!
//! ```text
//!   entries, snapshots ─▶ ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒ one after the other, to all nodes together
//!   heartbeats ─────────▶ ░ behind 9 KiB of them at the most
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_membership::NodeId;
use tokio::time::Instant;

/// What the transport leaves in the queue of a thin way, in bytes: what `quorate-transport-grpc` was measured to leave there
/// with two streams at 1 Mbit/s.
const QUEUE: u64 = 9 << 10;

/// The bytes of a message beside what it carries.
pub(super) const FRAME: usize = 150;

/// How large a message is, in bytes, and whether it goes on a lane for much, whose messages wait for each other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) size: usize,
    pub(super) bulk: bool,
}

impl Load {
    /// A message that carries next to nothing.
    pub(super) const SMALL: Self = Self { size: FRAME, bulk: false };
}

/// The way out of a machine.
#[derive(Debug)]
pub(super) struct ThinWay {
    /// Bytes a second.
    rate: u64,
    /// For each other node, when what was sent to it on lanes for much has been carried.
    free: BTreeMap<NodeId, Instant>,
}

impl ThinWay {
    /// One that carries `rate` bytes a second, at least 1.
    pub(super) fn new(rate: u64) -> Self {
        Self { rate: rate.max(1), free: BTreeMap::new() }
    }

    fn takes(&self, bytes: u64) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.rate as f64)
    }

    /// How long a message takes that is sent now.
    pub(super) fn send(&mut self, to: NodeId, load: Load) -> Duration {
        let (now, own) = (Instant::now(), self.takes(load.size as u64));
        self.free.retain(|_, free| *free > now);
        if load.bulk {
            // Connections share the way.
            let others = self.free.keys().filter(|node| **node != to).count() as u32;
            let free = self.free.entry(to).or_insert(now);
            *free += own * (others + 1);
            return *free - now;
        }
        let queue = self.takes(QUEUE);
        self.free.values().map(|free| (*free - now).min(queue)).max().unwrap_or_default() + own
    }
}
