//! TCP: the system's. With the feature `testing`, and inside a turmoil simulation only, the simulated one.

#[cfg(feature = "testing")]
mod simulated;

#[cfg(feature = "testing")]
pub(crate) use simulated::{TcpListener, TcpStream, lookup_host};
#[cfg(not(feature = "testing"))]
pub(crate) use tokio::net::{TcpListener, TcpStream, lookup_host};
