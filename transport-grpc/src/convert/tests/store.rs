//! What is about locks, records, queues and sessions: both ways without a loss, and nothing that arrives makes it panic.

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use prost::Message;
use quorate_membership::{
    Change, Check, Holder, ItemId, Key, Name, Nonce, Rejection, Request, Revision, Session, SessionId,
};
use quorate_raft_core::rpc::KeptAlive;

use super::{life, node, time, travelled};
use crate::convert::FromWire;
use crate::pb;

fn revision() -> impl Strategy<Value = Revision> {
    any::<u64>().prop_map(Revision::new)
}

fn name() -> impl Strategy<Value = Name> {
    "[a-zé/]{1,60}".prop_map(|text| Name::new(text).unwrap())
}

fn key() -> impl Strategy<Value = Key> {
    "[a-zé/]{1,200}".prop_map(|text| Key::new(text).unwrap())
}

fn holder() -> impl Strategy<Value = Holder> {
    prop_oneof![life().prop_map(Holder::Life), any::<u64>().prop_map(|number| SessionId::new(number).into())]
}

fn request() -> impl Strategy<Value = Request> {
    (any::<u128>(), revision()).prop_map(|(nonce, since)| Request { nonce: Nonce::new(nonce), since })
}

fn kept() -> impl Strategy<Value = KeptAlive> {
    prop_oneof![
        time().prop_map(|ttl| KeptAlive::Alive { ttl }),
        Just(KeptAlive::Ended),
        of(node()).prop_map(|leader| KeptAlive::NotLeader { leader }),
    ]
}

fn rejection() -> impl Strategy<Value = Rejection> {
    let text = || "[a-z ]{0,80}";
    let item = || any::<u64>().prop_map(ItemId::new);
    let of_locks = prop_oneof![
        request().prop_map(Rejection::Void),
        (request(), revision()).prop_map(|(request, at)| Rejection::Outdated { request, at }),
        holder().prop_map(Rejection::MayNotHold),
        (name(), holder(), revision()).prop_map(|(name, holder, token)| Rejection::LockHeld { name, holder, token }),
        (name(), revision()).prop_map(|(name, token)| Rejection::LockHeldBack { name, token }),
        (name(), revision(), of(revision())).prop_map(|(name, token, current)| Rejection::NotHolder {
            name,
            token,
            current
        }),
        (text(), time(), time()).prop_map(|(what, waited, need)| Rejection::WaitOn { what, waited, need }),
    ];
    let of_records = prop_oneof![
        (key(), of(revision()), of(revision())).prop_map(|(key, expected, found)| Rejection::Version {
            key,
            expected,
            found
        }),
        (key(), of(revision())).prop_map(|(key, found)| Rejection::Value { key, found }),
        (text(), any::<u64>(), text()).prop_map(|(what, limit, remedy)| Rejection::Full { what, limit, remedy }),
        (text(), any::<u64>(), any::<u64>()).prop_map(|(what, got, limit)| Rejection::WriteTooLarge {
            what,
            got,
            limit
        }),
        text().prop_map(Rejection::Twice),
        any::<(u64, u64)>().prop_map(|(got, limit)| Rejection::ValueTooLarge { got, limit }),
        (name(), item(), revision()).prop_map(|(queue, item, token)| Rejection::NotTaken { queue, item, token }),
        name().prop_map(Rejection::QueueEmpty),
        any::<u64>().prop_map(|number| Rejection::UnknownSession(SessionId::new(number))),
        (text(), time(), time(), time()).prop_map(|(what, got, from, to)| Rejection::SessionTimes {
            what,
            got,
            from,
            to
        }),
        life().prop_map(Rejection::NotOver),
        life().prop_map(Rejection::NotProcessBound),
        (life(), life()).prop_map(|(who, former)| Rejection::NotItsSuccessor { who, former }),
    ];
    prop_oneof![of_locks, of_records]
}

proptest! {
    #[test]
    fn it_travels_without_a_loss(
        (holder, request, kept, rejection) in (holder(), request(), kept(), rejection()),
    ) {
        prop_assert_eq!(travelled::<_, pb::Holder>(holder).unwrap(), holder);
        prop_assert_eq!(travelled::<_, pb::RequestName>(request).unwrap(), request);
        prop_assert_eq!(travelled::<_, pb::RelayKeepAliveResponse>(kept).unwrap(), kept);
        let bytes = pb::Rejection::from(&rejection).encode_to_vec();
        let read = Rejection::from_wire(pb::Rejection::decode(bytes.as_slice()).unwrap());
        prop_assert_eq!(read.unwrap(), rejection);
    }

    #[test]
    fn any_bytes_are_read_or_refused_and_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        fn read<T: FromWire<P>, P: Message + Default>(bytes: &[u8]) {
            if let Ok(message) = P::decode(bytes) {
                let _ = T::from_wire(message);
            }
        }
        read::<Check, pb::Check>(&bytes);
        read::<Change, pb::Change>(&bytes);
        read::<Holder, pb::Holder>(&bytes);
        read::<Request, pb::RequestName>(&bytes);
        read::<Rejection, pb::Rejection>(&bytes);
        read::<KeptAlive, pb::RelayKeepAliveResponse>(&bytes);
        if let Ok(pb::OpenSessionRequest { name, ttl_ms, lock_delay_ms, label }) = pb::OpenSessionRequest::decode(&bytes[..]) {
            let _ = crate::convert::named(name);
            let _ = crate::convert::session(ttl_ms, lock_delay_ms, label, None);
        }
    }

    /// A client's milliseconds arrive as they are; whether a session may live so, the rules say.
    #[test]
    fn a_session_is_read_and_not_judged((ttl_ms, delay_ms) in any::<(u64, u64)>()) {
        let Session { ttl, lock_delay, label, .. } = crate::convert::session(ttl_ms, delay_ms, "backup".into(), None).unwrap();
        prop_assert_eq!((crate::convert::millis(ttl), crate::convert::millis(lock_delay), label.as_str()), (ttl_ms, delay_ms, "backup"));
    }
}

#[test]
fn a_name_of_zeros_is_no_name_and_revision_0_says_nothing() {
    let name = |nonce: u128, since| Some(pb::RequestName { nonce: crate::convert::id_to(nonce), since });
    assert!(crate::convert::named(name(0, 1)).unwrap_err().0.contains("all zeros"));
    assert_eq!(crate::convert::named(None).unwrap(), None);
    assert_eq!(crate::convert::named(name(1, 0)).unwrap().unwrap().since, None);
    assert_eq!(crate::convert::named(name(1, 9)).unwrap().unwrap().since, Some(Revision::new(9)));
}
