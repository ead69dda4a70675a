//! Simulated worlds: whole clusters of the shipped code in one thread and in their own time, all chance from one seed.
//!
//! ```text
//!   world ─┬─ host      tasks of one process: paused, ended between any two polls
//!          ├─ clocks    CLOCK_BOOTTIME and CLOCK_MONOTONIC_RAW of each machine, at their own rates
//!          ├─ sim_disk   its disk: slow, hung, torn by a power cut
//!          ├─ net       delay, loss, repetition, cuts one way or both (line: calls, stream: batches)
//!          ├─ stop      its dead-man          ├─ device   what fences it
//!          └─ seen      what happened, in order: for oracles, and as a trace
//! ```
//!
//! Nodes may also be given another network ([`World::begin`]): `bound` keeps what they answer on their machine, and a world
//! whose machines have a runtime each is moved on by hand (`time`).
//!
//! Engine, log, keeper, grantor, locks and records are the shipped ones. Simulated are the wire, the disk's sim_disk, the
//! kernel's timer and the clocks; the keeper and the log's writer run as tasks instead of threads, because a second thread
//! would make every run another.

mod bound;
mod clocks;
mod device;
mod host;
mod log_writer;
mod net;
mod observation;
mod process;
mod rng;
mod sim_disk;
mod stop;
mod stream;
mod time;
mod transport;
mod world;

pub use clocks::Rate;
pub use device::{Device, DeviceFaults};
pub use host::SimHost;
pub use net::{FaultCounts, Net, NetConditions};
pub use observation::{Durable, End, Observation, Sighting, Stored};
pub use process::{Process, Running, Setting};
pub use rng::Rng;
pub use sim_disk::Pace;
pub use time::ManualTime;
pub use world::World;
