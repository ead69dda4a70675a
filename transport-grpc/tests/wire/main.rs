//! The wire, over loopback: a transport on one side, a server with a service that records on the other.
//!
//! ```text
//!   GrpcTransport ──▶ 127.0.0.1 ──▶ Server ──▶ Fake: notes what arrived, answers what it was told to
//! ```

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that is surprised should say so at once"
)]

mod call_streams;
mod calls;
mod certificates;
mod clients;
mod enrollment;
mod events;
mod fake;
mod fencers;
mod hostile;
mod keep_alives;
mod leaks;
mod links;
mod locks;
mod nodes;
mod outside;
mod ownership;
mod pki;
mod probes;
mod refusals;
mod refusing;
mod renewals;
mod replaced;
mod script;
mod snapshots;
mod store;
mod stored;
mod story;
mod streams;
mod values;
mod watch;

#[expect(
    unreachable_pub,
    clippy::allow_attributes,
    clippy::large_enum_variant,
    reason = "the generated protocol, to speak it as somebody else would"
)]
mod pb {
    include!(concat!(env!("OUT_DIR"), "/quorate.v1.rs"));
}
