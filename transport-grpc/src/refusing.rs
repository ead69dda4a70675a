//! Whether a host says that no process listens: every address of a node refuses connections, and does so again.
//!
//! ```text
//!   connect ─▶ refused at every address ─▶ 2 ms ─▶ connect ─▶ refused at every address ─▶ true
//!      │ accepted: again, a few times           └ accepted: again
//!      └ unreachable, silent ─────────────────────────────────────────────────────────────▶ false
//! ```
//!
//! The kernel closes the sockets of a process that has ended one after the other. The one that listens may be the last, so a
//! connection that is accepted is tried again for a moment. A queue of connections that is full drops them, and does not refuse
//! them. A network that is cut is silent.

use std::io::ErrorKind;
use std::time::Duration;

use quorate_raft_core::Peer;
use tokio::time::{sleep, timeout};

use crate::net::{TcpStream, lookup_host};

/// Between two attempts: a server that is being replaced within this is not gone.
const PAUSE: Duration = Duration::from_millis(2);

/// How many attempts there are. Two in a row have to be refused.
const ATTEMPTS: u32 = 12;

/// A host on the same network answers sooner, or does not refuse.
const SOON: Duration = Duration::from_millis(200);

pub(crate) async fn refuses(peer: &Peer) -> bool {
    let mut before = false;
    for _ in 0..ATTEMPTS {
        match attempt(peer).await {
            Some(true) if before => return true,
            Some(refused) => before = refused,
            None => return false,
        }
        sleep(PAUSE).await;
    }
    false
}

/// Whether every address refuses; `None` if one says nothing at all.
async fn attempt(peer: &Peer) -> Option<bool> {
    let (mut tried, mut refused) = (false, true);
    for address in &peer.addresses {
        let Ok(Ok(places)) = timeout(SOON, lookup_host(address.as_str())).await else { return None };
        for place in places {
            tried = true;
            match timeout(SOON, TcpStream::connect(place)).await {
                Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {}
                Ok(Ok(_)) => refused = false,
                Ok(Err(_)) | Err(_) => return None,
            }
        }
    }
    tried.then_some(refused)
}

#[cfg(test)]
mod tests {
    use quorate_membership::NodeId;

    use super::*;

    #[tokio::test]
    async fn a_peer_without_an_address_refuses_nothing() {
        assert!(!refuses(&Peer { node: NodeId::new(2), addresses: vec![] }).await);
    }
}
