//! Whether a host says that no process listens: every address of a node refuses connections, and does so again.
//!
//! ```text
//!   connect ─▶ refused at every address ─▶ 2 ms ─▶ connect ─▶ refused at every address ─▶ true
//!      └ accepted, unreachable, silent ─▶ false       └ anything else ─▶ false
//! ```
//!
//! A queue of connections that is full drops them, and does not refuse them. A network that is cut is silent. A process that
//! listens sees one connection that is closed at once, so whoever asks again and again pauses in between.

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
    if !attempt(peer).await {
        return false;
    }
    sleep(PAUSE).await;
    attempt(peer).await
}

/// Whether every address refuses.
async fn attempt(peer: &Peer) -> bool {
    let mut tried = false;
    for address in &peer.addresses {
        let Ok(Ok(places)) = timeout(SOON, lookup_host(address.as_str())).await else { return false };
        for place in places {
            tried = true;
            match timeout(SOON, TcpStream::connect(place)).await {
                Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {}
                Ok(_) | Err(_) => return false,
            }
        }
    }
    tried
}

#[cfg(test)]
mod tests {
    use quorate_membership::{Address, NodeId};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_peer_without_an_address_refuses_nothing() {
        assert!(!refuses(&Peer { node: NodeId::new(2), addresses: vec![] }).await);
    }

    #[tokio::test]
    async fn one_that_listens_sees_a_single_connection_and_one_that_ended_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: Address = listener.local_addr().unwrap().to_string().parse().unwrap();
        let peer = Peer { node: NodeId::new(2), addresses: vec![address] };
        assert!(!refuses(&peer).await);
        let (_first, _) = listener.accept().await.unwrap();
        assert!(timeout(Duration::from_millis(50), listener.accept()).await.is_err(), "a second connection was made");
        drop(listener);
        assert!(refuses(&peer).await);
    }
}
