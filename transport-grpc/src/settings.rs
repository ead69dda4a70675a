//! The settings of both sides: timeouts, limits and intervals, each with its bounds and its default.
//!
//! A value outside its bounds is moved to the nearest bound when the transport or the server is made.

use std::time::Duration;

use quorate_membership::codec;

/// The largest batch of entries in one message, in bytes. Both sides refuse a larger one, the sender before it sends.
pub const APPEND_LIMIT: usize = 16 << 20;

/// The largest message of any other kind, in bytes.
pub const MESSAGE_LIMIT: usize = 4 << 20;

/// The largest snapshot, in bytes: the largest payload of an envelope, and its header of 16 bytes.
pub const SNAPSHOT_LIMIT: usize = codec::LIMIT + 16;

/// The largest piece of a snapshot in one message, in bytes: small enough that other streams are sent in between.
pub const CHUNK_LIMIT: usize = 256 << 10;

/// How a [`GrpcTransport`](crate::GrpcTransport) connects, and how it notices a dead connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientSettings {
    /// How long one address may take to open a connection, TLS included, before the next is tried. A short timeout reaches the next
    /// address sooner, and fails on slow networks. 50 ms to 10 s, default 500 ms.
    pub connect_timeout: Duration,
    /// The interval between pings on a silent connection. 100 ms to 1 min, default 500 ms. Four times as long on the lanes of entries
    /// and snapshots: who waits for an answer there has limits of its own.
    pub ping_every: Duration,
    /// How long the answer to a ping may take before the connection is replaced. A short timeout finds a healed network
    /// sooner, and drops connections to a machine that only stalls for a moment. Ten times as long on the lanes of
    /// entries and snapshots, where a ping queues behind the data. 100 ms to 1 min, default 1 s.
    pub ping_timeout: Duration,
    /// How often each address of a node that has several is probed. Each eighth probe is large, and those are all where a node has one
    /// address. 50 ms to 1 min, default 250 ms.
    pub probe_every: Duration,
    /// How long the answer to a probe may take before the link counts as down; three times as long for a large one, which is tried
    /// twice. 50 ms to 1 min,
    /// default 600 ms.
    pub probe_timeout: Duration,
}

impl Default for ClientSettings {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            connect_timeout: ms(500),
            ping_every: ms(500),
            ping_timeout: ms(1000),
            probe_every: ms(250),
            probe_timeout: ms(600),
        }
    }
}

impl ClientSettings {
    /// The defaults for a cluster with this heartbeat: nobody needs to know sooner than in six of them that a silent connection
    /// is dead, and with a thousand members each ping counts. With a long heartbeat a peer may also take longer to answer.
    pub fn for_heartbeat(heartbeat: Duration) -> Self {
        let Self { connect_timeout, ping_every, ping_timeout, probe_every, probe_timeout } = Self::default();
        let longer = |least: Duration, heartbeats: u32| least.max(heartbeat.saturating_mul(heartbeats));
        Self {
            connect_timeout: longer(connect_timeout, 2),
            ping_every: longer(ping_every, 6),
            ping_timeout: longer(ping_timeout, 6),
            probe_every: longer(probe_every, 2),
            probe_timeout: longer(probe_timeout, 4),
        }
        .bounded()
    }

    /// The same settings, each moved into its bounds.
    pub(crate) fn bounded(self) -> Self {
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        Self {
            connect_timeout: self.connect_timeout.clamp(ms(50), s(10)),
            ping_every: self.ping_every.clamp(ms(100), s(60)),
            ping_timeout: self.ping_timeout.clamp(ms(100), s(60)),
            probe_every: self.probe_every.clamp(ms(50), s(60)),
            probe_timeout: self.probe_timeout.clamp(ms(50), s(60)),
        }
    }
}

/// Whom a port is for. With a port for each, a firewall can tell them apart, and each has its own bounds on connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PortUse {
    /// Everybody.
    #[default]
    All,
    /// Other nodes: the service Raft, and `Join`.
    Nodes,
    /// Clients and operators: everything else.
    Clients,
}

/// What a [`Server`](crate::Server) allows its callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerSettings {
    /// Whom the port is for. Default: everybody.
    pub port_use: PortUse,
    /// The number of connections that clients may have open at a time. A client needs one. 16 to 65 536, default 1 024.
    /// The connections of peers, four for each, do not count, once they have shown whose they are.
    pub max_connections: usize,
    /// How many of them may come from one address. 8 to 65 536, default 512.
    pub max_per_address: usize,
    /// With TLS, how many connections one client or one operator may hold, whatever its addresses: those of its certificate's name.
    /// More are closed once they have shown it. Then `max_per_address` counts only those that have not shown theirs. 1 to 65 536,
    /// default 128.
    pub max_per_caller: usize,
    /// How many further connections may be open for as long as `handshake_timeout`, in case they are a peer's. What is not
    /// by then is closed, and more than these are closed at once. With TLS all operators together may hold as many, beside the
    /// clients. 4 to 1 024, default 64.
    pub peer_reserve: usize,
    /// The number of calls that one connection may have in progress. 8 to 1 024, default 128.
    pub max_streams: u32,
    /// How long a new connection may take for the TLS handshake and to send the HTTP/2 preface. 100 ms to 1 min, default 5 s.
    pub handshake_timeout: Duration,
    /// The longest wait for a lock in one call, whatever the client asks for. A long limit saves calls of clients that
    /// wait for long, and each wait occupies one of `max_streams`. 0 s to 1 day, default 1 h.
    pub max_lock_wait: Duration,
    /// How long one call may take, apart from streams, snapshots and waits for locks. It must exceed the node's
    /// `propose_timeout`, or a slow command is abandoned although its result could still be reported. 1 s to 2 h,
    /// default 1 min.
    pub call_timeout: Duration,
    /// How long one snapshot may take to arrive and be installed, while its pieces keep coming: a piece has to come within
    /// 15 s. 1 s to 12 h, default 12 h.
    pub snapshot_timeout: Duration,
    /// The number of snapshots that may arrive at a time. Each takes up to 64 MiB of memory. 1 to 64, default 4.
    pub max_snapshots: usize,
    /// The interval between pings on a silent connection. 100 ms to 10 min, default 5 s.
    pub ping_every: Duration,
    /// How long the answer to a ping may take before the connection is closed. 100 ms to 10 min, default 10 s. After this and
    /// `ping_every` together a connection is closed as well of whose data the other side takes nothing.
    pub ping_timeout: Duration,
    /// How long calls in progress may continue after the server was told to shut down. 0 s to 1 h, default 5 s.
    pub shutdown_grace: Duration,
}

impl Default for ServerSettings {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self {
            port_use: PortUse::All,
            max_connections: 1024,
            max_per_address: 512,
            max_per_caller: 128,
            peer_reserve: 64,
            max_streams: 128,
            handshake_timeout: s(5),
            max_lock_wait: s(3600),
            call_timeout: s(60),
            snapshot_timeout: s(12 * 3600),
            max_snapshots: 4,
            ping_every: s(5),
            ping_timeout: s(10),
            shutdown_grace: s(5),
        }
    }
}

impl ServerSettings {
    /// The same settings, each moved into its bounds.
    pub(crate) fn bounded(self) -> Self {
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        Self {
            port_use: self.port_use,
            max_connections: self.max_connections.clamp(16, 65_536),
            max_per_address: self.max_per_address.clamp(8, 65_536),
            max_per_caller: self.max_per_caller.clamp(1, 65_536),
            peer_reserve: self.peer_reserve.clamp(4, 1024),
            max_streams: self.max_streams.clamp(8, 1024),
            handshake_timeout: self.handshake_timeout.clamp(ms(100), s(60)),
            max_lock_wait: self.max_lock_wait.min(s(86_400)),
            call_timeout: self.call_timeout.clamp(s(1), s(7200)),
            snapshot_timeout: self.snapshot_timeout.clamp(s(1), s(12 * 3600)),
            max_snapshots: self.max_snapshots.clamp(1, 64),
            ping_every: self.ping_every.clamp(ms(100), s(600)),
            ping_timeout: self.ping_timeout.clamp(ms(100), s(600)),
            shutdown_grace: self.shutdown_grace.min(s(3600)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_follow_a_long_heartbeat_and_stay_in_their_bounds() {
        let of = |ms| ClientSettings::for_heartbeat(Duration::from_millis(ms));
        assert_eq!([25, 80, 300, 60_000].map(|ms| of(ms).ping_every.as_millis()), [500, 500, 1800, 60_000]);
        assert_eq!([25, 80, 300, 60_000].map(|ms| of(ms).ping_timeout.as_millis()), [1000, 1000, 1800, 60_000]);
        assert_eq!([25, 80, 300, 60_000].map(|ms| of(ms).connect_timeout.as_millis()), [500, 500, 600, 10_000]);
    }
}
