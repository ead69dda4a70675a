//! Simulated worlds: whole clusters of the shipped code in one thread and in their own time, with one seed for all chance.
//!
//! ```text
//!   world ─┬─ host      tasks of one process: paused, ended between any two polls
//!          ├─ clocks    CLOCK_BOOTTIME and CLOCK_MONOTONIC_RAW of each machine, at their own rates
//!          ├─ sim_disk  its disk: slow, hung, full, torn by a power cut (log_writer: the log on it)
//!          ├─ net       delay, loss, repetition, cuts one way or both (transport: calls, stream: batches)
//!          ├─ stop      its dead-man          ├─ device   what fences it
//!          └─ observation   what happened, in order: for oracles, and as a trace
//! ```
//!
//! A node may also use another network ([`World::begin`]); `bound_service` keeps its answers on its machine. The time of a world whose
//! machines have a runtime each is moved by its owner (`time`).
//!
//! Engine, log, keeper, grantor, locks and records are the shipped ones. The wire, the content of the disk, the kernel's
//! timer and the clocks are simulated (`host` implements the product's `Host`). The keeper and the writer of the log run as
//! tasks instead of threads, because with a second thread no two runs would be the same.

mod bound_service;
mod clocks;
mod device;
mod host;
mod log_writer;
mod net;
mod observation;
mod process;
mod refusals;
mod rng;
mod sim_disk;
mod stop;
mod stream;
mod thin_way;
mod time;
mod transport;
mod world;

pub use clocks::Rate;
pub use device::{Device, DeviceFaults};
pub use host::SimHost;
pub use net::{FaultCounts, Net, NetConditions};
pub use observation::{Durable, End, Observation, Stored, TraceEntry};
pub use process::{Process, Running, Setting};
pub use rng::Rng;
pub use sim_disk::Pace;
pub use time::ManualTime;
pub use world::World;
