//! Locks, records, queues and sessions: requests of clients, incoming, and the stored state, outgoing.
//!
//! Keys, names and labels are checked here, because their types require it. The rules check everything else, so that
//! every node decides alike.

use std::time::Duration;

use bytes::Bytes;
use quorate_membership::Principal;
use quorate_membership::lock::{Delay, Grant, Waiter};
use quorate_membership::work_queue::Item;
use quorate_membership::{
    Change, Check, Holder, ItemId, Key, Lock, Name, Nonce, Reason, Record, Request, Revision, Session, SessionId, Value,
};
use quorate_raft_core::transport::RequestName;

use super::refusal::millis;
use super::{FromWire, Malformed, id_from, id_to, need};
use crate::pb;

/// The name of a lock, or of its queue.
pub(crate) fn name(text: String) -> Result<Name, Malformed> {
    Name::new(text).map_err(|error| Malformed(error.to_string()))
}

/// The key of a record.
pub(crate) fn key(text: String) -> Result<Key, Malformed> {
    Key::new(text).map_err(|error| Malformed(error.to_string()))
}

/// The bytes of a value, for a message.
pub(super) fn bytes(value: &Value) -> Bytes {
    Bytes::copy_from_slice(value.as_bytes())
}

fn value(bytes: &Bytes) -> Value {
    Value::new(&bytes[..])
}

impl From<Holder> for pb::Holder {
    fn from(holder: Holder) -> Self {
        use pb::holder::Holder as Out;
        let holder = match holder {
            Holder::Life(who) => Out::Life(who.into()),
            Holder::Session(session) => Out::Session(session.get()),
        };
        Self { holder: Some(holder) }
    }
}

impl FromWire<pb::Holder> for Holder {
    fn from_wire(holder: pb::Holder) -> Result<Self, Malformed> {
        use pb::holder::Holder as In;
        Ok(match need(holder.holder, "the kind of a holder")? {
            In::Life(who) => Self::Life(who.into()),
            In::Session(session) => Self::Session(SessionId::new(session)),
        })
    }
}

impl From<Request> for pb::RequestName {
    fn from(Request { nonce, since }: Request) -> Self {
        Self { nonce: id_to(nonce.get()), since: since.get() }
    }
}

impl FromWire<pb::RequestName> for Request {
    fn from_wire(pb::RequestName { nonce, since }: pb::RequestName) -> Result<Self, Malformed> {
        Ok(Self { nonce: Nonce::new(id_from(&nonce, "the nonce of a request")?), since: Revision::new(since) })
    }
}

/// The name that a client gave to its request, if any. Revision 0 is before every entry, and means "unknown".
pub(crate) fn named(name: Option<pb::RequestName>) -> Result<Option<RequestName>, Malformed> {
    let Some(name) = name else { return Ok(None) };
    let Request { nonce, since } = Request::from_wire(name)?;
    if nonce == Nonce::default() {
        return Err(Malformed("the nonce of a request is all zeros; draw it at random".into()));
    }
    Ok(Some(RequestName { nonce, since: (since > Revision::default()).then_some(since) }))
}

/// A session as a client asks for it, which has shown that it is `owner`.
pub(crate) fn session(
    ttl_ms: u64,
    lock_delay_ms: u64,
    label: String,
    owner: Option<Principal>,
) -> Result<Session, Malformed> {
    let label = Reason::new(label).map_err(|error| Malformed(format!("the label of a session: {error}")))?;
    let (ttl, lock_delay) = (Duration::from_millis(ttl_ms), Duration::from_millis(lock_delay_ms));
    Ok(Session { ttl, lock_delay, label, owner })
}

impl FromWire<pb::Check> for Check {
    fn from_wire(check: pb::Check) -> Result<Self, Malformed> {
        use pb::check::Check as In;
        Ok(match need(check.check, "what a check is about")? {
            In::Version(pb::VersionIs { version: Some(0), key: which }) => {
                let why = "which no record has; leave the version out if there must be no such record";
                return Err(Malformed(format!("the version of the check of `{which}` is 0, {why}")));
            }
            In::Version(pb::VersionIs { key: which, version }) => {
                Self::Version { key: key(which)?, version: version.map(Revision::new) }
            }
            In::Value(pb::ValueIs { key: which, value: what }) => Self::Value { key: key(which)?, value: value(&what) },
            In::Holds(pb::LockToken { name: lock, token }) => {
                Self::Holds { lock: name(lock)?, token: Revision::new(token) }
            }
            In::Over(who) => Self::Over { who: who.into() },
            In::Active(who) => Self::Active { who: who.into() },
        })
    }
}

impl FromWire<pb::Change> for Change {
    fn from_wire(change: pb::Change) -> Result<Self, Malformed> {
        use pb::change::Change as In;
        Ok(match need(change.change, "what a change does")? {
            In::Put(pb::Put { key: which, value: what, bound }) => {
                let bound = bound.map(Holder::from_wire).transpose()?;
                Self::Put { key: key(which)?, value: value(&what), bound }
            }
            In::Delete(which) => Self::Delete { key: key(which)? },
            In::Push(pb::Push { queue, value: what }) => Self::Push { queue: name(queue)?, value: value(&what) },
            In::Acknowledge(pb::Acknowledge { queue, item, token }) => {
                Self::Acknowledge { queue: name(queue)?, item: ItemId::new(item), token: Revision::new(token) }
            }
        })
    }
}

/// A record.
pub(crate) fn record(key: &Key, record: &Record) -> pb::Record {
    let Record { value, version, created, bound } = record;
    pb::Record {
        key: key.as_str().into(),
        value: bytes(value),
        version: version.get(),
        created: created.get(),
        bound: bound.map(Into::into),
    }
}

/// A lock. One that is not in the state is free.
pub(crate) fn lock(name: &Name, lock: Option<&Lock>) -> pb::LockState {
    let mut state = pb::LockState { name: name.as_str().into(), ..pb::LockState::default() };
    let Some(lock @ Lock { grant, delay, .. }) = lock else { return state };
    if let Some(Grant { holder, token, request }) = *grant {
        state.holder = Some(holder.into());
        (state.token, state.request) = (Some(token.get()), Some(id_to(request.get())));
    }
    let held_back =
        |Delay { token, at_least }: Delay| pb::HeldBack { token: token.get(), at_least_ms: millis(at_least) };
    let waiter = |Waiter { holder, request }: &Waiter| pb::Waiter {
        holder: Some((*holder).into()),
        request: id_to(request.get()),
    };
    state.held_back = delay.map(held_back);
    state.waiters = lock.waiters().map(waiter).collect();
    state
}

/// An item of a queue.
pub(crate) fn item(queue: &Name, id: ItemId, item: &Item, again: bool) -> pb::Item {
    let Item { value, pushed, taken: _ } = item;
    pb::Item { queue: queue.as_str().into(), item: id.get(), value: bytes(value), pushed: pushed.get(), again }
}

/// An open session.
pub(crate) fn opened(id: SessionId, Session { ttl, lock_delay, label, owner }: &Session) -> pb::SessionOpened {
    pb::SessionOpened {
        session: id.get(),
        ttl_ns: super::nanos(*ttl),
        lock_delay_ns: super::nanos(*lock_delay),
        label: label.to_string(),
        owner: owner.as_ref().map(ToString::to_string),
    }
}
