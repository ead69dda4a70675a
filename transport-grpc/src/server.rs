//! The server: accepts connections, bounds them, and shuts them down in order.
//!
//! ```text
//!   listener ──▶ a place? (places.rs) ──▶ TLS (tls/) ──▶ HandshakeTimeout ──▶ HTTP/2 ──▶ Router ──▶ Service
//!      │                                                            │
//!      └── shutdown: no new ones ──▶ event streams end, calls in progress finish ──▶ after the grace: all are aborted
//! ```
//!
//! tonic's own server is not used, for three reasons: it bounds neither the connections nor the silent ones, its
//! shutdown may never end, and it has no place for TLS certificates that can be replaced while it runs.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use quorate_raft_core::{PeerService, Service};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::descriptors::fit_descriptors;
use crate::handshake::HandshakeTimeout;
use crate::net::{TcpListener, TcpStream};
use crate::places::{Place, Places};
use crate::router::Router;
use crate::settings::{PortUse, ServerSettings};
use crate::stalled::Stalled;
use crate::tls::{CallerRole, Shown, Tls};

/// A running server. Dropping it aborts every call at once; [`Server::shutdown`] lets them finish first.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    accepting: JoinHandle<()>,
    grace: Duration,
}

impl Server {
    /// Listens on `address` and serves `service` there. With port 0 the system chooses one; [`Server::local_addr`]
    /// returns it.
    ///
    /// Must be called on a tokio runtime with I/O and time, like every constructor here.
    ///
    /// # Errors
    /// The system's error if it cannot listen on the address.
    pub async fn bind(address: SocketAddr, service: Arc<dyn Service>) -> io::Result<Self> {
        Self::run(TcpListener::bind(address).await?, service, ServerSettings::default(), None)
    }

    /// Serves on a listener that is bound already, because its address had to be known before there was a service, or
    /// because an init system passed the socket.
    ///
    /// # Errors
    /// The system's error if the listener cannot be used.
    pub fn start(listener: std::net::TcpListener, service: Arc<dyn Service>) -> io::Result<Self> {
        Self::start_with(listener, service, ServerSettings::default(), None)
    }

    /// [`Server::start`] with other settings; values outside their bounds are moved to the nearest bound. With `tls`, whoever
    /// calls shows a certificate first, and may do what its role allows ([`CallerRole`]). Without, anybody may do anything.
    ///
    /// # Errors
    /// The system's error if the listener cannot be used.
    pub fn start_with(
        listener: std::net::TcpListener,
        service: Arc<dyn Service>,
        settings: ServerSettings,
        tls: Option<Tls>,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Self::run(TcpListener::from_std(listener)?, service, settings, tls)
    }

    fn run(
        listener: TcpListener,
        service: Arc<dyn Service>,
        settings: ServerSettings,
        tls: Option<Tls>,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let settings = fit_descriptors(settings.bounded())?;
        let stop = CancellationToken::new();
        let places = Places::new(settings);
        let router = Router::new(service, settings, tls.clone(), places.clone(), stop.clone());
        let serving = Serving { router, places, settings, tls, refused: Arc::default(), stop: stop.clone() };
        let accepting = tokio::spawn(accept(listener, serving));
        tracing::info!(%address, "listening");
        Ok(Self { address, stop, accepting, grace: settings.shutdown_grace })
    }

    /// The address on which it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Accepts no more connections or calls, ends the streams of events, lets other calls finish for at most
    /// [`ServerSettings::shutdown_grace`], and then aborts the rest. The port is free again when this returns.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        if timeout(self.grace, &mut self.accepting).await.is_err() {
            tracing::warn!(address = %self.address, grace = ?self.grace, "aborting calls that outlasted the grace of the shutdown");
            self.accepting.abort();
            let _ = (&mut self.accepting).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
        self.stop.cancel();
    }
}

/// What every connection of a server shares.
#[derive(Clone)]
struct Serving {
    router: Router,
    places: Places,
    settings: ServerSettings,
    tls: Option<Tls>,
    /// When a refused handshake was last told of.
    refused: Arc<Mutex<WarningLimit>>,
    stop: CancellationToken,
}

/// Owns the listener and every connection, which end with it.
async fn accept(listener: TcpListener, serving: Serving) {
    let Serving { places, stop, .. } = &serving;
    let mut connections = JoinSet::new();
    let (mut full, mut failing) = (WarningLimit::default(), WarningLimit::default());
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Most likely out of file descriptors. Trying again at once would only use the processor.
                if failing.is_due() {
                    tracing::warn!(%error, open = ?places.open(), "cannot accept a connection");
                }
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        match places.take(from.ip()) {
            Some(place) => {
                connections.spawn(serve(stream, from, place, serving.clone()));
            }
            None if full.is_due() => {
                tracing::warn!(%from, open = ?places.open(), "closed a connection: too many are open");
            }
            None => {}
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Tells the service when a node has closed its last connection.
struct Closing {
    place: Arc<Place>,
    service: Arc<dyn PeerService>,
}

impl Drop for Closing {
    fn drop(&mut self) {
        if let Some(node) = self.place.close() {
            self.service.disconnected(node);
        }
    }
}

/// Serves one connection, from its handshake to its end.
async fn serve(stream: TcpStream, from: SocketAddr, place: Arc<Place>, serving: Serving) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%from, %error, "cannot set TCP_NODELAY");
    }
    let began = Instant::now();
    // No sooner than a peer that answers no ping is given up.
    let stream = Stalled::new(stream, serving.settings.ping_every + serving.settings.ping_timeout);
    let Some(tls) = &serving.tls else { return converse(stream, from, place, None, began, serving).await };
    let shown = tokio::select! {
        shown = tls.accept(stream, serving.settings.handshake_timeout) => shown,
        () = serving.stop.cancelled() => return,
    };
    match shown {
        Ok((stream, shown)) => {
            match shown.role {
                CallerRole::Node(node) if !serving.router.is_retired(node) => place.is_of_a_peer(),
                // One that was removed is told so, unless only the reserve is left.
                CallerRole::Node(_) if !place.is_on_trial() => {}
                CallerRole::Joiner
                    if serving.settings.port_use != PortUse::Clients && place.is_of_caller(&shown.role) => {}
                CallerRole::Operator(_) | CallerRole::Client(_)
                    if serving.settings.port_use != PortUse::Nodes && place.is_of_caller(&shown.role) => {}
                CallerRole::Operator(_) | CallerRole::Client(_) | CallerRole::Joiner => {
                    if serving.refused.lock().is_due() {
                        tracing::warn!(%from, caller = %shown.role, open = ?serving.places.open(), "closed a connection: its caller has no place here");
                    }
                    return;
                }
                // The reserve is for members.
                CallerRole::Node(_) => return,
            }
            converse(stream, from, place, Some(shown), began, serving).await;
        }
        // Who only looks whether the port is open says nothing.
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof && serving.refused.lock().is_due() => {
            tracing::warn!(%from, %error, "refused a connection");
        }
        Err(error) => tracing::debug!(%from, %error, "refused a connection"),
    }
}

/// HTTP/2 with a caller, who has shown a certificate if there is TLS. The connection was accepted when it `began`.
async fn converse<T>(
    stream: T,
    from: SocketAddr,
    place: Arc<Place>,
    shown: Option<Shown>,
    began: Instant,
    serving: Serving,
) where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Serving { router, settings, tls, stop, .. } = serving;
    let role = shown.as_ref().map(|shown| shown.role.clone());
    let left = settings.handshake_timeout.saturating_sub(began.elapsed()).max(LEAST);
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(if role == Some(CallerRole::Joiner) { 1 } else { settings.max_streams })
        .keep_alive_interval(settings.ping_every)
        .keep_alive_timeout(settings.ping_timeout);
    let stream = HandshakeTimeout::new(stream, left);
    let connection = builder.serve_connection(TokioIo::new(stream), router.at(place.clone(), role));
    let service = router.peers();
    tokio::pin!(connection);
    let trial = async {
        sleep(left).await;
        if !place.is_on_trial() {
            std::future::pending::<()>().await;
        }
    };
    // Whatever way this task ends, what the connection's node holds is counted.
    let _closing = Closing { place: place.clone(), service };
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = trial, if place.is_on_trial() => {
            tracing::debug!(%from, "closed a connection in the reserve that is no peer's");
            return;
        }
        why = revoked(tls.as_ref(), shown.as_ref(), &router) => {
            tracing::info!(%from, %why, "closed a connection whose caller may do nothing any more");
            connection.as_mut().graceful_shutdown();
            // What does not end by then, such as a stream, ends with the connection.
            timeout(FINISH, connection).await.unwrap_or(Ok(()))
        }
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%from, %error, "connection closed");
    }
}

/// Why a caller may do nothing any more that could do something when it connected, once that is so.
async fn revoked(tls: Option<&Tls>, shown: Option<&Shown>, router: &Router) -> String {
    let (Some(tls), Some(shown)) = (tls, shown) else { return std::future::pending().await };
    let removed = async {
        match shown.role {
            CallerRole::Node(node) if !router.is_retired(node) => router.retired(node).await,
            // Who was removed before is told so, call by call.
            _ => std::future::pending().await,
        }
    };
    tokio::select! {
        why = tls.withdrawn(shown), if shown.role != CallerRole::Joiner => format!("the certificate of {}: {why}", shown.role),
        () = removed => format!("{} was removed", shown.role),
    }
}

/// The least time for the HTTP/2 preface, however long the TLS handshake took.
const LEAST: Duration = Duration::from_millis(50);

/// How long calls in progress may go on whose caller's certificate does not count any more.
const FINISH: Duration = Duration::from_secs(1);

/// Limits a warning to one every ten seconds.
#[derive(Debug, Default)]
struct WarningLimit(Option<Instant>);

impl WarningLimit {
    fn is_due(&mut self) -> bool {
        let due = self.0.is_none_or(|last| last.elapsed() >= Duration::from_secs(10));
        if due {
            self.0 = Some(Instant::now());
        }
        due
    }
}
