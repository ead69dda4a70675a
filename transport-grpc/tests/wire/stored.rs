//! A cluster in which much is kept, what of it was told, and why more was refused.

use std::time::Duration;

use quorate_membership::Principal;
use quorate_membership::{
    Activation, Change, Check, ClusterState, Command, Event, Holder, ItemId, Key, Name, Nonce, Rejection, Request,
    Revision, Session, SessionId, Value, apply,
};

use crate::pb;
use crate::pb::event::Kind;
use crate::story::*;
use crate::values::*;

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

pub(crate) fn request(nonce: u128) -> Request {
    Request { nonce: Nonce::new(nonce), since: Revision::new(20) }
}

pub(crate) fn session(number: u64) -> Holder {
    SessionId::new(number).into()
}

pub(crate) fn pb_session(number: u64) -> Option<pb::Holder> {
    Some(pb::Holder { holder: Some(pb::holder::Holder::Session(number)) })
}

pub(crate) fn pb_first() -> Option<pb::Holder> {
    Some(pb::Holder { holder: Some(pb::holder::Holder::Life(pb_life(1, 1))) })
}

/// [`eventful`], and what clients did then: s21 had vm/100 and ran out, n1#1 has it now; s22 has vm/200.
pub(crate) fn kept() -> (ClusterState, Vec<(Revision, Event)>) {
    let (mut state, mut told) = eventful();
    let (r, s) = (Revision::new, Duration::from_secs);
    let open = |nonce, ttl, lock_delay, label| Command::OpenSession {
        request: request(nonce),
        session: Session {
            ttl: s(ttl),
            lock_delay: s(lock_delay),
            label: reason(label),
            owner: Principal::new(format!("{label}.clients")).ok(),
        },
    };
    let lock = |nonce, lock, holder, wait| Command::Lock { request: request(nonce), name: name(lock), holder, wait };
    let write = |nonce, changes| Command::Write { request: request(nonce), checks: vec![], changes };
    let put = |at: &str, what: &str, bound| Change::Put { key: key(at), value: what.into(), bound };
    let push = |what: &str| Change::Push { queue: name("vm/100"), value: what.into() };
    let first = Holder::Life(life(1, 1));
    let under = Activation::new(8);
    let acknowledge = Change::Acknowledge { queue: name("vm/100"), item: ItemId::new(1), token: r(23) };
    let commands = [
        open(1, 10, 2, "backup"),
        open(2, 5, 0, "console"),
        lock(3, "vm/100", session(21), false),
        lock(4, "vm/100", session(22), true),
        lock(5, "vm/100", first, true),
        write(6, vec![put("services/100", "n1", None), put("intents/7", "?", Some(session(21))), push("start")]),
        write(7, vec![put("services/101", "n2", None), push("stop")]),
        Command::Take { request: request(8), queue: name("vm/100"), token: r(23) },
        write(9, vec![acknowledge]),
        Command::Settle { request: request(4), lock: Some(name("vm/100")) },
        Command::Settle { request: request(10), lock: None },
        Command::ExpireSession { session: SessionId::new(21), under, waited: s(20) },
        Command::LiftDelay { name: name("vm/100"), token: r(23), under, waited: s(5) },
        lock(11, "vm/200", session(22), false),
        lock(12, "vm/200", first, true),
        lock(13, "vm/300", session(22), false),
        Command::Unlock { name: name("vm/300"), holder: session(22), token: r(36) },
        open(14, 1, 0, "cron"),
    ];
    for (command, revision) in commands.iter().zip(21..) {
        let applied = apply(&mut state, r(revision), command).unwrap_or_else(|error| panic!("{command:?}: {error}"));
        told.extend(applied.into_iter().map(|event| (r(revision), event)));
    }
    (state, told)
}

/// What of it a reader is told, one of each kind.
pub(crate) fn stored_kinds() -> Vec<Kind> {
    let (lock, queue) = (|| "vm/100".to_owned(), || "vm/100".to_owned());
    let waiting = |holder, request| pb::LockWaiting { name: lock(), holder, request: id(request) };
    vec![
        Kind::Answered(id(3)),
        Kind::Voided(id(10)),
        Kind::LockGranted(pb::LockGranted { name: lock(), holder: pb_session(21), token: 23, request: id(3) }),
        Kind::LockGranted(pb::LockGranted { name: lock(), holder: pb_first(), token: 33, request: id(5) }),
        Kind::LockQueued(waiting(pb_session(22), 4)),
        Kind::LockWithdrawn(waiting(pb_session(22), 4)),
        Kind::LockReleased(pb::LockReleased {
            name: lock(),
            holder: pb_session(21),
            token: 23,
            why: pb::Release::HolderEnded.into(),
        }),
        Kind::LockReleased(pb::LockReleased {
            name: "vm/300".into(),
            holder: pb_session(22),
            token: 36,
            why: pb::Release::Unlocked.into(),
        }),
        Kind::LockDelayed(pb::LockDelayed { name: lock(), token: 23, at_least_ns: 2_000_000_000 }),
        Kind::LockLifted(pb::LockToken { name: lock(), token: 23 }),
        Kind::Put(pb::RecordPut { key: "services/100".into(), value: "n1".into(), bound: None }),
        Kind::Put(pb::RecordPut { key: "intents/7".into(), value: "?".into(), bound: pb_session(21) }),
        Kind::Deleted("intents/7".into()),
        Kind::Pushed(pb::ItemPushed { queue: queue(), item: 1, value: "start".into() }),
        Kind::Taken(pb::ItemTaken { queue: queue(), item: 1, token: 23, request: id(8) }),
        Kind::Acknowledged(pb::ItemAcknowledged { queue: queue(), item: 1 }),
        Kind::SessionOpened(pb::SessionOpened {
            session: 21,
            ttl_ns: 10_000_000_000,
            lock_delay_ns: 2_000_000_000,
            label: "backup".into(),
            owner: Some("backup.clients".into()),
        }),
        Kind::SessionEnded(pb::SessionEnded { session: 21, clean: false }),
    ]
}

/// Every check and every change, as a client says them and as they arrive.
pub(crate) fn checks() -> (Vec<pb::Check>, Vec<Check>) {
    use pb::check::Check as Said;
    let said = [
        Said::Version(pb::VersionIs { key: "a".into(), version: Some(7) }),
        Said::Version(pb::VersionIs { key: "b".into(), version: None }),
        Said::Value(pb::ValueIs { key: "c".into(), value: "\0x".into() }),
        Said::Holds(pb::LockToken { name: "vm/100".into(), token: 23 }),
        Said::Over(pb_life(3, 1)),
        Said::Active(pb_life(1, 1)),
    ];
    let meant = vec![
        Check::Version { key: key("a"), version: Some(Revision::new(7)) },
        Check::Version { key: key("b"), version: None },
        Check::Value { key: key("c"), value: "\0x".into() },
        Check::Holds { lock: name("vm/100"), token: Revision::new(23) },
        Check::Over { who: life(3, 1) },
        Check::Active { who: life(1, 1) },
    ];
    (said.map(|check| pb::Check { check: Some(check) }).into(), meant)
}

pub(crate) fn changes() -> (Vec<pb::Change>, Vec<Change>) {
    use pb::change::Change as Said;
    let said = [
        Said::Put(pb::Put { key: "a".into(), value: vec![0, 255].into(), bound: None }),
        Said::Put(pb::Put { key: "b".into(), value: "".into(), bound: pb_session(21) }),
        Said::Put(pb::Put { key: "c".into(), value: "".into(), bound: pb_first() }),
        Said::Delete("d".into()),
        Said::Push(pb::Push { queue: "vm/100".into(), value: "go".into() }),
        Said::Acknowledge(pb::Acknowledge { queue: "vm/100".into(), item: 2, token: 23 }),
    ];
    let meant = vec![
        Change::Put { key: key("a"), value: Value::from(vec![0, 255]), bound: None },
        Change::Put { key: key("b"), value: "".into(), bound: Some(session(21)) },
        Change::Put { key: key("c"), value: "".into(), bound: Some(life(1, 1).into()) },
        Change::Delete { key: key("d") },
        Change::Push { queue: name("vm/100"), value: "go".into() },
        Change::Acknowledge { queue: name("vm/100"), item: ItemId::new(2), token: Revision::new(23) },
    ];
    (said.map(|change| pb::Change { change: Some(change) }).into(), meant)
}

/// One of each rejection that is about any of this.
pub(crate) fn rejections() -> Vec<Rejection> {
    let (r, ms) = (Revision::new, Duration::from_millis);
    vec![
        Rejection::Void(request(u128::MAX)),
        Rejection::Outdated { request: request(1), at: r(20_000) },
        Rejection::MayNotHold(session(77)),
        Rejection::MayNotHold(life(1, 2).into()),
        Rejection::LockHeld { name: name("vm/100"), holder: session(77), token: r(78) },
        Rejection::LockHeldBack { name: name("vm/100"), token: r(78) },
        Rejection::Full { what: "locks".into(), limit: 4096, remedy: "release some".into() },
        Rejection::NotHolder { name: name("vm/100"), token: r(78), current: Some(r(80)) },
        Rejection::NotHolder { name: name("vm/100"), token: r(78), current: None },
        Rejection::Version { key: key("a/b"), expected: Some(r(3)), found: None },
        Rejection::Version { key: key("a/b"), expected: None, found: Some(r(4)) },
        Rejection::Value { key: key("a/b"), found: Some(r(4)) },
        Rejection::Value { key: key("a/b"), found: None },
        Rejection::WriteTooLarge { what: "changes".into(), got: 129, limit: 128 },
        Rejection::Twice("a/b".into()),
        Rejection::ValueTooLarge { got: 65_537, limit: 65_536 },
        Rejection::NotTaken { queue: name("vm/100"), item: ItemId::new(12), token: r(78) },
        Rejection::QueueEmpty(name("vm/100")),
        Rejection::UnknownSession(SessionId::new(77)),
        Rejection::SessionTimes { what: "time to live".into(), got: ms(499), from: ms(500), to: ms(3_600_000) },
        Rejection::WaitOn { what: "session s77".into(), waited: ms(9), need: ms(10) },
    ]
}
