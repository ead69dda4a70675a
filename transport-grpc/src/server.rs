//! The answering side: accepts connections, and ends them in an orderly way.
//!
//! ```text
//!   listener ──▶ at most max_connections ──▶ greeting in time ──▶ HTTP/2 ──▶ Router ──▶ Service
//!      │                                                            │
//!      └── shutdown: no new ones ──▶ event streams end, calls under way may finish ──▶ grace is over: all is cut off
//! ```
//!
//! The loop is ours and not tonic's, for three reasons: a bound on connections and on silent ones, an end that is
//! certain to come, and a place for TLS whose certificates can be exchanged while it runs (it goes between `accept` and
//! [`Greeted`]).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use quorate_raft_core::Service;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use crate::greeting::Greeted;
use crate::net::{TcpListener, TcpStream};
use crate::router::Router;

/// What a server trades.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerSettings {
    /// How many connections are held at a time; further ones are closed at once. A peer needs four, and every reader
    /// from outside one. 16 to 65 536, default 1 024.
    pub max_connections: usize,
    /// How many calls one connection may have under way. 8 to 1 024, default 128.
    pub max_streams: u32,
    /// How long a new connection may take to greet. 100 ms to 1 min, default 5 s.
    pub greeting_timeout: Duration,
    /// How long a client may wait in line for a lock in one call, whatever it asks for. Longer saves calls of clients that
    /// wait for long, each of which holds one of `max_streams`. 0 s to 1 day, default 1 h.
    pub max_lock_wait: Duration,
    /// How long one call may take, streams, snapshots and waits for locks aside. It must exceed `propose_timeout` of the node, or a slow
    /// command is given up while its end could still be told. 1 s to 2 h, default 1 min.
    pub call_timeout: Duration,
    /// How long one snapshot may take to arrive and be installed. 1 s to 1 h, default 2 min.
    pub snapshot_timeout: Duration,
    /// How many snapshots may arrive at a time; each takes up to 64 MiB of memory. 1 to 64, default 4.
    pub max_snapshots: usize,
    /// How often a silent connection is tested. 100 ms to 10 min, default 5 s.
    pub ping_every: Duration,
    /// How long the test may take before the connection is closed. 100 ms to 10 min, default 10 s.
    pub ping_timeout: Duration,
    /// How long calls under way may go on when the server is shut down. 0 s to 1 h, default 5 s.
    pub shutdown_grace: Duration,
}

impl Default for ServerSettings {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self {
            max_connections: 1024,
            max_streams: 128,
            greeting_timeout: s(5),
            max_lock_wait: s(3600),
            call_timeout: s(60),
            snapshot_timeout: s(120),
            max_snapshots: 4,
            ping_every: s(5),
            ping_timeout: s(10),
            shutdown_grace: s(5),
        }
    }
}

impl ServerSettings {
    /// The same, each value moved into its bounds.
    fn bounded(self) -> Self {
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        Self {
            max_connections: self.max_connections.clamp(16, 65_536),
            max_streams: self.max_streams.clamp(8, 1024),
            greeting_timeout: self.greeting_timeout.clamp(ms(100), s(60)),
            max_lock_wait: self.max_lock_wait.min(s(86_400)),
            call_timeout: self.call_timeout.clamp(s(1), s(7200)),
            snapshot_timeout: self.snapshot_timeout.clamp(s(1), s(3600)),
            max_snapshots: self.max_snapshots.clamp(1, 64),
            ping_every: self.ping_every.clamp(ms(100), s(600)),
            ping_timeout: self.ping_timeout.clamp(ms(100), s(600)),
            shutdown_grace: self.shutdown_grace.min(s(3600)),
        }
    }
}

/// Told once, when the server is to end.
pub(crate) type Stop = watch::Receiver<bool>;

/// Waits for the end of the server.
pub(crate) async fn stopped(mut stop: Stop) {
    // An error means that the server is gone altogether.
    let _ = stop.wait_for(|stopped| *stopped).await;
}

/// A server that runs. Dropping it cuts everything off at once; [`Server::shutdown`] lets calls finish first.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
    grace: Duration,
}

impl Server {
    /// Listens on `address` and serves `service` there. With port 0 the system chooses; [`Server::local_addr`] tells.
    ///
    /// Must be called on a tokio runtime with I/O and time, like every constructor here.
    ///
    /// # Errors
    /// What the system says when the address cannot be listened on.
    pub async fn bind(address: SocketAddr, service: Arc<dyn Service>) -> io::Result<Self> {
        Self::run(TcpListener::bind(address).await?, service, ServerSettings::default())
    }

    /// Serves on a listener that somebody else has bound: one who had to know the address before there was a service,
    /// or was handed the socket by an init system.
    ///
    /// # Errors
    /// What the system says when the listener cannot be used.
    pub fn start(listener: std::net::TcpListener, service: Arc<dyn Service>) -> io::Result<Self> {
        Self::start_with(listener, service, ServerSettings::default())
    }

    /// [`Server::start`] with other settings; values outside their bounds are moved to the nearest bound.
    ///
    /// # Errors
    /// What the system says when the listener cannot be used.
    pub fn start_with(
        listener: std::net::TcpListener,
        service: Arc<dyn Service>,
        settings: ServerSettings,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Self::run(TcpListener::from_std(listener)?, service, settings)
    }

    fn run(listener: TcpListener, service: Arc<dyn Service>, settings: ServerSettings) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let settings = settings.bounded();
        let (stop, told) = watch::channel(false);
        let router = Router::new(service, settings, told.clone());
        let accepting = tokio::spawn(accept(listener, router, settings, told));
        tracing::info!(%address, "listening");
        Ok(Self { address, stop, accepting, grace: settings.shutdown_grace })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections or calls, ends the streams of events, lets other calls finish for at most
    /// [`ServerSettings::shutdown_grace`], and then cuts off what is left. The port is free again when this returns.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        if timeout(self.grace, &mut self.accepting).await.is_err() {
            tracing::warn!(address = %self.address, grace = ?self.grace, "calls went on for longer than the grace, and are cut off");
            self.accepting.abort();
            let _ = (&mut self.accepting).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Owns the listener and every connection: when it ends, or is aborted, they end.
async fn accept(listener: TcpListener, router: Router, settings: ServerSettings, stop: Stop) {
    let free = Arc::new(Semaphore::new(settings.max_connections));
    let mut connections = JoinSet::new();
    let mut full = Complaint::default();
    let end = stopped(stop.clone());
    tokio::pin!(end);
    loop {
        let accepted = tokio::select! {
            () = &mut end => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: trying again at once would only burn the processor.
                tracing::warn!(%error, "cannot accept a connection");
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        match free.clone().try_acquire_owned() {
            Ok(place) => {
                let serving = serve(stream, from, router.clone(), settings, stop.clone());
                connections.spawn(async move {
                    serving.await;
                    drop(place);
                });
            }
            Err(_) if full.is_due() => {
                tracing::warn!(%from, limit = settings.max_connections, "closed a connection: too many are open");
            }
            Err(_) => {}
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn serve(stream: TcpStream, from: SocketAddr, router: Router, settings: ServerSettings, stop: Stop) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%from, %error, "cannot set TCP_NODELAY");
    }
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.max_streams)
        .keep_alive_interval(settings.ping_every)
        .keep_alive_timeout(settings.ping_timeout);
    let stream = Greeted::new(stream, settings.greeting_timeout);
    let connection = builder.serve_connection(TokioIo::new(stream), router);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stopped(stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%from, %error, "connection closed");
    }
}

/// Speaks up at most once every ten seconds.
#[derive(Debug, Default)]
struct Complaint(Option<Instant>);

impl Complaint {
    fn is_due(&mut self) -> bool {
        let due = self.0.is_none_or(|last| last.elapsed() >= Duration::from_secs(10));
        if due {
            self.0 = Some(Instant::now());
        }
        due
    }
}
