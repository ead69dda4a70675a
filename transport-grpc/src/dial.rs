//! Opens a connection to one address: resolved anew each time, then TCP, TLS and HTTP/2, all within one timeout.
//!
//! ```text
//!   n2.example:7400 ──▶ 10.0.0.2, 10.1.0.2 … ──▶ TCP ──▶ TLS: is it n2? ──▶ HTTP/2 ──▶ Connection
//!                       one after the other       └ its time counts as a round trip (paced.rs)
//! ```

use std::sync::Arc;
use std::time::Duration;

use quorate_membership::NodeId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::broadcast;
use tokio::time::{Instant, timeout, timeout_at};

use crate::connection::Connection;
use crate::net::{TcpStream, lookup_host};
use crate::paced::{Paced, RoundTrip};
use crate::settings::ClientSettings;
use crate::tls::Tls;

/// How long the resolver may take for one name.
const RESOLVE: Duration = Duration::from_secs(2);

/// How many addresses of one name are tried.
const PER_NAME: usize = 8;

/// What a link is for. The default is a single call.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// Whether it carries much, of which little may wait in the queues of the network.
    pub(crate) paced: bool,
    pub(crate) round_trip: Arc<RoundTrip>,
    /// Which node it is, and who hears that a connection to it has closed.
    pub(crate) closed: Option<(NodeId, broadcast::Sender<NodeId>)>,
}

/// Opens a connection to one address.
pub(crate) async fn dial(
    address: &str,
    settings: &ClientSettings,
    tls: Option<&Tls>,
    traffic: &Traffic,
) -> Result<Connection, String> {
    let connect_timeout = settings.connect_timeout;
    let found = match timeout(RESOLVE, lookup_host(address)).await {
        Ok(found) => found.map_err(|error| format!("cannot be resolved: {error}"))?,
        Err(_) => return Err(format!("not resolved within {RESOLVE:?}")),
    };
    let mut last = "the name has no address".to_owned();
    for place in found.take(PER_NAME) {
        let deadline = Instant::now() + connect_timeout;
        let opened = timeout_at(deadline, async {
            let began = Instant::now();
            let stream = TcpStream::connect(place).await.map_err(|error| error.to_string())?;
            let round_trip = traffic.round_trip.note(began.elapsed(), Instant::now());
            stream.set_nodelay(true).map_err(|error| error.to_string())?;
            match traffic.paced {
                true => open(Paced::new(stream, round_trip), settings, tls, traffic).await,
                false => open(stream, settings, tls, traffic).await,
            }
        });
        match opened.await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(why)) => last = why,
            Err(_) => last = format!("no connection within {connect_timeout:?}"),
        }
    }
    Err(last)
}

/// Begins TLS, if there is any, and HTTP/2.
async fn open<T>(
    stream: T,
    settings: &ClientSettings,
    tls: Option<&Tls>,
    traffic: &Traffic,
) -> Result<Connection, String>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let ClientSettings { ping_every, ping_timeout, .. } = *settings;
    let closed = traffic.closed.clone();
    let node = closed.as_ref().map(|(node, _)| *node);
    let ended = move || {
        // Perhaps nobody listens.
        let _heard = closed.map(|(node, closed)| closed.send(node));
    };
    let opened = match tls {
        None => Connection::open(stream, ping_every, ping_timeout, ended).await,
        Some(tls) => {
            let stream = tls.connect(node, stream).await.map_err(|error| format!("TLS: {error}"))?;
            Connection::open(stream, ping_every, ping_timeout, ended).await
        }
    };
    opened.map_err(|error| error.to_string())
}
