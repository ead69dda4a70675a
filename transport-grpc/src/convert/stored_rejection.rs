//! Rejections that are about locks, records, queues, sessions and requests, both ways.

use std::time::Duration;

use quorate_membership::{Holder, ItemId, Key, Name, Rejection, Request, Revision, SessionId};

use super::store::{key, name};
use super::{FromWire, Malformed, clip, nanos, need};
use crate::pb;
use crate::pb::rejection::Kind;

/// The name of the case and its fields; `None` for a rejection that is about something else.
pub(super) fn rejection(rejection: &Rejection) -> Option<(&'static str, Kind)> {
    let text = |name: &Name| name.as_str().to_owned();
    let revision = |revision: &Option<Revision>| revision.map(Revision::get);
    Some(match rejection {
        Rejection::Void(request) => ("void", Kind::Void((*request).into())),
        Rejection::Outdated { request, at } => {
            ("outdated", Kind::Outdated(pb::LateRequest { request: Some((*request).into()), at: at.get() }))
        }
        Rejection::MayNotHold(holder) => ("may_not_hold", Kind::MayNotHold((*holder).into())),
        Rejection::LockHeld { name, holder, token } => {
            let held = pb::LockIsHeld { name: text(name), holder: Some((*holder).into()), token: token.get() };
            ("lock_held", Kind::LockHeld(held))
        }
        Rejection::LockHeldBack { name, token } => {
            ("lock_held_back", Kind::LockHeldBack(pb::LockToken { name: text(name), token: token.get() }))
        }
        Rejection::Full { what, limit, remedy } => {
            ("full", Kind::Full(pb::Full { what: clip(what), limit: *limit, remedy: clip(remedy) }))
        }
        Rejection::NotHolder { name, token, current } => {
            let other = pb::OtherToken { name: text(name), token: token.get(), current: revision(current) };
            ("not_holder", Kind::NotHolder(other))
        }
        Rejection::Version { key, expected, found } => {
            let (expected, found) = (revision(expected), revision(found));
            ("version", Kind::Version(pb::OtherVersion { key: key.as_str().into(), expected, found }))
        }
        Rejection::Value { key, found } => {
            ("value", Kind::Value(pb::OtherValue { key: key.as_str().into(), found: revision(found) }))
        }
        Rejection::WriteTooLarge { what, got, limit } => {
            ("write_too_large", Kind::WriteTooLarge(pb::TooMuch { what: clip(what), got: *got, limit: *limit }))
        }
        Rejection::Twice(what) => ("twice", Kind::Twice(clip(what))),
        Rejection::ValueTooLarge { got, limit } => {
            ("value_too_large", Kind::ValueTooLarge(pb::OutOfBounds { got: *got, limit: *limit }))
        }
        Rejection::NotTaken { queue, item, token } => {
            let not = pb::NotTaken { queue: text(queue), item: item.get(), token: token.get() };
            ("not_taken", Kind::NotTaken(not))
        }
        Rejection::QueueEmpty(queue) => ("queue_empty", Kind::QueueEmpty(text(queue))),
        Rejection::UnknownSession(session) => ("unknown_session", Kind::UnknownSession(session.get())),
        Rejection::SessionTimes { what, got, from, to } => {
            let (got_ns, from_ns, to_ns) = (nanos(*got), nanos(*from), nanos(*to));
            ("session_times", Kind::SessionTimes(pb::SessionTime { what: clip(what), got_ns, from_ns, to_ns }))
        }
        Rejection::WaitOn { what, waited, need } => {
            let (waited_ns, need_ns) = (nanos(*waited), nanos(*need));
            ("wait_on", Kind::WaitOn(pb::WaitOn { what: clip(what), waited_ns, need_ns }))
        }
        _ => return None,
    })
}

/// Reads such a case.
pub(super) fn from_wire(kind: Kind) -> Result<Rejection, Malformed> {
    let time = Duration::from_nanos;
    let revision = |number: Option<u64>| number.map(Revision::new);
    Ok(match kind {
        Kind::Void(request) => Rejection::Void(Request::from_wire(request)?),
        Kind::Outdated(pb::LateRequest { request, at }) => {
            let request = Request::from_wire(need(request, "the request")?)?;
            Rejection::Outdated { request, at: Revision::new(at) }
        }
        Kind::MayNotHold(holder) => Rejection::MayNotHold(Holder::from_wire(holder)?),
        Kind::LockHeld(pb::LockIsHeld { name: which, holder, token }) => {
            let holder = Holder::from_wire(need(holder, "the holder of a lock")?)?;
            Rejection::LockHeld { name: name(which)?, holder, token: Revision::new(token) }
        }
        Kind::LockHeldBack(pb::LockToken { name: which, token }) => {
            Rejection::LockHeldBack { name: name(which)?, token: Revision::new(token) }
        }
        Kind::Full(pb::Full { what, limit, remedy }) => Rejection::Full { what, limit, remedy },
        Kind::NotHolder(pb::OtherToken { name: which, token, current }) => {
            Rejection::NotHolder { name: name(which)?, token: Revision::new(token), current: revision(current) }
        }
        Kind::Version(pb::OtherVersion { key: which, expected, found }) => {
            Rejection::Version { key: key(which)?, expected: revision(expected), found: revision(found) }
        }
        Kind::Value(pb::OtherValue { key: which, found }) => {
            let key: Key = key(which)?;
            Rejection::Value { key, found: revision(found) }
        }
        Kind::WriteTooLarge(pb::TooMuch { what, got, limit }) => Rejection::WriteTooLarge { what, got, limit },
        Kind::Twice(what) => Rejection::Twice(what),
        Kind::ValueTooLarge(pb::OutOfBounds { got, limit }) => Rejection::ValueTooLarge { got, limit },
        Kind::NotTaken(pb::NotTaken { queue, item, token }) => {
            Rejection::NotTaken { queue: name(queue)?, item: ItemId::new(item), token: Revision::new(token) }
        }
        Kind::QueueEmpty(queue) => Rejection::QueueEmpty(name(queue)?),
        Kind::UnknownSession(session) => Rejection::UnknownSession(SessionId::new(session)),
        Kind::SessionTimes(pb::SessionTime { what, got_ns, from_ns, to_ns }) => {
            Rejection::SessionTimes { what, got: time(got_ns), from: time(from_ns), to: time(to_ns) }
        }
        Kind::WaitOn(pb::WaitOn { what, waited_ns, need_ns }) => {
            Rejection::WaitOn { what, waited: time(waited_ns), need: time(need_ns) }
        }
        other => return Err(Malformed(format!("{other:?} is no rejection that is known here"))),
    })
}
