//! Whether a host says that no process listens: every address of a node refuses connections, and does so again.
//!
//! ```text
//!   connect ─▶ refused at every address ─▶ 2 ms ─▶ connect ─▶ refused at every address ─▶ true
//!      └ accepted, unreachable, silent ────────────────┴──────────────────────────────────▶ false
//! ```
//!
//! A queue of connections that is full drops them, and does not refuse them. A network that is cut is silent.

use std::io::ErrorKind;
use std::time::Duration;

use quorate_raft_core::Peer;
use tokio::time::{sleep, timeout};

use crate::net::{TcpStream, lookup_host};

/// Between the two attempts: a server that is being replaced within this is not gone.
const PAUSE: Duration = Duration::from_millis(2);

/// A host on the same network answers sooner, or does not refuse.
const SOON: Duration = Duration::from_millis(200);

pub(crate) async fn refuses(peer: &Peer) -> bool {
    if !all_refuse(peer).await {
        return false;
    }
    sleep(PAUSE).await;
    all_refuse(peer).await
}

async fn all_refuse(peer: &Peer) -> bool {
    let mut tried = false;
    for address in &peer.addresses {
        let Ok(Ok(places)) = timeout(SOON, lookup_host(address.as_str())).await else { return false };
        for place in places {
            tried = true;
            match timeout(SOON, TcpStream::connect(place)).await {
                Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {}
                Ok(Ok(_) | Err(_)) | Err(_) => return false,
            }
        }
    }
    tried
}
