//! Clusters in one process, for quorate's tests and for yours (feature `testing`).
//!
//! ```text
//!   TestCluster ── node(3).stop() ─ start() ─ isolate(3) ─ heal() ─ until("…", |state| …)
//!        │ real engine, real durable log in a temporary folder
//!        └── MemoryNetwork: a network in memory whose links can be cut, one way or both
//! ```
//!
//! The code that runs is the shipped one. Only the wire and the fencing device are stand-ins.

mod cluster;
pub mod disk;
mod fencer;
mod network;
mod node;
pub mod sim;
mod stop;

pub use cluster::{TestCluster, fast};
pub use fencer::{DeviceBehaviour, TestFencer};
pub use network::MemoryNetwork;
pub use node::TestNode;
pub use stop::{StopCalls, TestStop};
