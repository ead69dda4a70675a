//! Rejections: every case with its own code and its own fields, both ways.

use std::time::Duration;

use quorate_membership::{
    Activation, ClusterId, ContractError, DiskId, FenceId, Holder, Identity, ItemId, Key, Name, NodeId, Phase,
    Rejection, Request, Revision, SessionId, TextError,
};

use super::refusal::{life, matched, mismatch};
use super::store::{key, name};
use super::{FromWire, Malformed, clip, id_from, id_to, nanos, need};
use crate::pb;
use crate::pb::rejection::Kind;

impl From<&Rejection> for pb::Rejection {
    fn from(rejection: &Rejection) -> Self {
        let message = clip(&rejection.to_string());
        match of_members(rejection).or_else(|| of_the_store(rejection)) {
            Some((code, kind)) => Self { code: code.into(), message, kind: Some(kind) },
            None => Self { code: "unknown".into(), message, kind: None },
        }
    }
}

/// The case of a rejection that is about members; `None` for any other.
fn of_members(rejection: &Rejection) -> Option<(&'static str, Kind)> {
    let two =
        |who: &Identity, other: &Identity| pb::TwoLives { who: Some((*who).into()), other: Some((*other).into()) };
    Some(match rejection {
        Rejection::AlreadyFounded(cluster) => ("already_founded", Kind::AlreadyFounded(id_to(cluster.get()))),
        Rejection::NotFounded => ("not_founded", Kind::NotFounded(pb::Done {})),
        Rejection::UnknownNode(node) => ("unknown_node", Kind::UnknownNode(node.get())),
        Rejection::RetiredNode(node) => ("retired_node", Kind::RetiredNode(node.get())),
        Rejection::OtherDisk { node, known, got } => {
            let (known, got) = (id_to(known.get()), id_to(got.get()));
            ("other_disk", Kind::OtherDisk(pb::DiskIds { node: node.get(), known, got }))
        }
        Rejection::ClonedDisk { node, known, got } => ("cloned_disk", Kind::ClonedDisk(mismatch(*node, *known, *got))),
        Rejection::TooManyNodes { limit } => ("too_many_nodes", Kind::TooManyNodes(*limit)),
        Rejection::Addresses { got, limit } => {
            ("addresses", Kind::Addresses(pb::OutOfBounds { got: *got, limit: *limit }))
        }
        Rejection::Text(fault) => ("text", Kind::Text(fault.into())),
        Rejection::UnknownLife(who) => ("unknown_life", Kind::UnknownLife((*who).into())),
        Rejection::Phase { who, phase } => {
            let phase = pb::Phase::from(*phase).into();
            ("phase", Kind::Phase(pb::InPhase { who: Some((*who).into()), phase }))
        }
        Rejection::Replaced { who, newest } => ("replaced", Kind::Replaced(two(who, newest))),
        Rejection::FormerLife { who, former } => ("former_life", Kind::FormerLife(two(who, former))),
        Rejection::NotConfigured(node) => ("not_configured", Kind::NotConfigured(node.get())),
        Rejection::Majority { without, standing, voters } => {
            let counts = pb::NoMajority { without: without.get(), standing: *standing, voters: *voters };
            ("majority", Kind::Majority(counts))
        }
        Rejection::UnknownOrder(order) => ("unknown_order", Kind::UnknownOrder(order.get())),
        Rejection::OtherTarget { order, target, got } => {
            let (target, got) = (Some((*target).into()), Some((*got).into()));
            ("other_target", Kind::OtherTarget(pb::OrderMismatch { order: order.get(), target, got }))
        }
        Rejection::Attempt { order, at, got } => {
            ("attempt", Kind::Attempt(pb::AttemptMismatch { order: order.get(), at: *at, got: *got }))
        }
        Rejection::StillLives(who) => ("still_lives", Kind::StillLives((*who).into())),
        Rejection::LastVoter(node) => ("last_voter", Kind::LastVoter(node.get())),
        Rejection::Contract(fault) => ("contract", Kind::Contract(fault.into())),
        Rejection::OtherActivation { under, current } => {
            let both = pb::OtherActivation { under: under.get(), current: current.map(Activation::get) };
            ("other_activation", Kind::OtherActivation(both))
        }
        Rejection::WithoutActivation => ("without_activation", Kind::WithoutActivation(pb::Done {})),
        Rejection::NeverExpires(who) => ("never_expires", Kind::NeverExpires((*who).into())),
        Rejection::TooEarly { who, waited, need } => {
            let (waited_ns, need_ns) = (nanos(*waited), nanos(*need));
            ("too_early", Kind::TooEarly(pb::TooEarly { who: Some((*who).into()), waited_ns, need_ns }))
        }
        Rejection::NotProcessBound(who) => ("not_process_bound", Kind::NotProcessBound((*who).into())),
        Rejection::NotItsSuccessor { who, former } => ("not_its_successor", Kind::NotItsSuccessor(two(who, former))),
        Rejection::NotOver(who) => ("not_over", Kind::NotOver((*who).into())),
        _ => return None,
    })
}

impl FromWire<pb::Rejection> for Rejection {
    fn from_wire(rejection: pb::Rejection) -> Result<Self, Malformed> {
        let disk = |bytes: &[u8]| id_from(bytes, "a disk id").map(DiskId::new);
        Ok(match need(rejection.kind, "the case of a rejection")? {
            Kind::AlreadyFounded(cluster) => Self::AlreadyFounded(ClusterId::new(id_from(&cluster, "the cluster id")?)),
            Kind::NotFounded(pb::Done {}) => Self::NotFounded,
            Kind::UnknownNode(node) => Self::UnknownNode(NodeId::new(node)),
            Kind::RetiredNode(node) => Self::RetiredNode(NodeId::new(node)),
            Kind::OtherDisk(pb::DiskIds { node, known, got }) => {
                Self::OtherDisk { node: NodeId::new(node), known: disk(&known)?, got: disk(&got)? }
            }
            Kind::ClonedDisk(disks) => {
                let (node, known, got) = matched(disks)?;
                Self::ClonedDisk { node, known, got }
            }
            Kind::TooManyNodes(limit) => Self::TooManyNodes { limit },
            Kind::Addresses(pb::OutOfBounds { got, limit }) => Self::Addresses { got, limit },
            Kind::Text(fault) => Self::Text(TextError::from_wire(fault)?),
            Kind::UnknownLife(who) => Self::UnknownLife(who.into()),
            Kind::Phase(pb::InPhase { who, phase }) => {
                let phase = Phase::from_wire(pb::Phase::try_from(phase).unwrap_or_default())?;
                Self::Phase { who: life(who)?, phase }
            }
            Kind::Replaced(pb::TwoLives { who, other }) => Self::Replaced { who: life(who)?, newest: life(other)? },
            Kind::FormerLife(pb::TwoLives { who, other }) => Self::FormerLife { who: life(who)?, former: life(other)? },
            Kind::NotConfigured(node) => Self::NotConfigured(NodeId::new(node)),
            Kind::Majority(pb::NoMajority { without, standing, voters }) => {
                Self::Majority { without: NodeId::new(without), standing, voters }
            }
            Kind::UnknownOrder(order) => Self::UnknownOrder(FenceId::new(order)),
            Kind::OtherTarget(pb::OrderMismatch { order, target, got }) => {
                Self::OtherTarget { order: FenceId::new(order), target: life(target)?, got: life(got)? }
            }
            Kind::Attempt(pb::AttemptMismatch { order, at, got }) => {
                Self::Attempt { order: FenceId::new(order), at, got }
            }
            Kind::StillLives(who) => Self::StillLives(who.into()),
            Kind::LastVoter(node) => Self::LastVoter(NodeId::new(node)),
            Kind::Contract(fault) => Self::Contract(ContractError::from_wire(fault)?),
            Kind::OtherActivation(pb::OtherActivation { under, current }) => {
                Self::OtherActivation { under: Activation::new(under), current: current.map(Activation::new) }
            }
            Kind::WithoutActivation(pb::Done {}) => Self::WithoutActivation,
            Kind::NeverExpires(who) => Self::NeverExpires(who.into()),
            Kind::TooEarly(pb::TooEarly { who, waited_ns, need_ns }) => Self::TooEarly {
                who: life(who)?,
                waited: Duration::from_nanos(waited_ns),
                need: Duration::from_nanos(need_ns),
            },
            Kind::NotProcessBound(who) => Self::NotProcessBound(who.into()),
            Kind::NotItsSuccessor(pb::TwoLives { who, other }) => {
                Self::NotItsSuccessor { who: life(who)?, former: life(other)? }
            }
            Kind::NotOver(who) => Self::NotOver(who.into()),
            about_the_store => from_store(about_the_store)?,
        })
    }
}

/// The code and the fields of a rejection about locks, records, queues, sessions or requests; `None` for any other.
fn of_the_store(rejection: &Rejection) -> Option<(&'static str, Kind)> {
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

/// Reads such a rejection.
fn from_store(kind: Kind) -> Result<Rejection, Malformed> {
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

impl From<&TextError> for pb::TextFault {
    fn from(error: &TextError) -> Self {
        use pb::text_fault::Fault as Out;
        match error {
            TextError::Empty { what } => Self { what: clip(what), fault: Some(Out::Empty(pb::Done {})) },
            TextError::TooLong { what, length, limit } => {
                let bounds = pb::OutOfBounds { got: *length, limit: *limit };
                Self { what: clip(what), fault: Some(Out::TooLong(bounds)) }
            }
        }
    }
}

impl FromWire<pb::TextFault> for TextError {
    fn from_wire(pb::TextFault { what, fault }: pb::TextFault) -> Result<Self, Malformed> {
        use pb::text_fault::Fault as In;
        Ok(match need(fault, "what is wrong with a text")? {
            In::Empty(pb::Done {}) => Self::Empty { what },
            In::TooLong(pb::OutOfBounds { got, limit }) => Self::TooLong { what, length: got, limit },
        })
    }
}

impl From<Phase> for pb::Phase {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Joining => Self::Joining,
            Phase::Active => Self::Active,
            Phase::Fencing => Self::Fencing,
            Phase::Fenced => Self::Fenced,
            Phase::Left => Self::Left,
        }
    }
}

impl FromWire<pb::Phase> for Phase {
    fn from_wire(phase: pb::Phase) -> Result<Self, Malformed> {
        Ok(match phase {
            pb::Phase::Unspecified => return Err(Malformed("the phase is missing".into())),
            pb::Phase::Joining => Self::Joining,
            pb::Phase::Active => Self::Active,
            pb::Phase::Fencing => Self::Fencing,
            pb::Phase::Fenced => Self::Fenced,
            pb::Phase::Left => Self::Left,
        })
    }
}
