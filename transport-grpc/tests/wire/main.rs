//! The wire, over loopback: a transport on one side, a server with a service that records on the other.
//!
//! ```text
//!   GrpcTransport ──▶ 127.0.0.1 ──▶ Server ──▶ Fake: notes what arrived, answers what it was told to
//! ```

mod calls;
mod fake;
mod hostile;
mod links;
mod nodes;
mod outside;
mod refusals;
mod snapshots;
mod streams;

#[expect(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::allow_attributes,
    clippy::large_enum_variant,
    reason = "the generated protocol, to speak it as somebody else would"
)]
mod pb {
    include!(concat!(env!("OUT_DIR"), "/quorate.v1.rs"));
}
