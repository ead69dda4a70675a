//! Rejections: every case with its own name and its own fields, both ways. Those that are about locks, records, queues,
//! sessions and requests are in `stored_rejection.rs`.

use std::time::Duration;

use quorate_membership::{
    Activation, ClusterId, ContractError, DiskId, FenceId, Identity, NodeId, Phase, Rejection, TextError,
};

use super::refusal::{life, matched, mismatch};
use super::{FromWire, Malformed, clip, id_from, id_to, nanos, need, stored_rejection as stored};
use crate::pb;

impl From<&Rejection> for pb::Rejection {
    fn from(rejection: &Rejection) -> Self {
        let message = clip(&rejection.to_string());
        match of_members(rejection).or_else(|| stored::rejection(rejection)) {
            Some((code, kind)) => Self { code: code.into(), message, kind: Some(kind) },
            None => Self { code: "unknown".into(), message, kind: None },
        }
    }
}

/// The case of a rejection that is about members; `None` for any other.
fn of_members(rejection: &Rejection) -> Option<(&'static str, pb::rejection::Kind)> {
    use pb::rejection::Kind as Out;
    let two =
        |who: &Identity, other: &Identity| pb::TwoLives { who: Some((*who).into()), other: Some((*other).into()) };
    Some(match rejection {
        Rejection::AlreadyFounded(cluster) => ("already_founded", Out::AlreadyFounded(id_to(cluster.get()))),
        Rejection::NotFounded => ("not_founded", Out::NotFounded(pb::Done {})),
        Rejection::UnknownNode(node) => ("unknown_node", Out::UnknownNode(node.get())),
        Rejection::RetiredNode(node) => ("retired_node", Out::RetiredNode(node.get())),
        Rejection::OtherDisk { node, known, got } => {
            let (known, got) = (id_to(known.get()), id_to(got.get()));
            ("other_disk", Out::OtherDisk(pb::DiskIds { node: node.get(), known, got }))
        }
        Rejection::ClonedDisk { node, known, got } => ("cloned_disk", Out::ClonedDisk(mismatch(*node, *known, *got))),
        Rejection::TooManyNodes { limit } => ("too_many_nodes", Out::TooManyNodes(*limit)),
        Rejection::Addresses { got, limit } => {
            ("addresses", Out::Addresses(pb::OutOfBounds { got: *got, limit: *limit }))
        }
        Rejection::Text(fault) => ("text", Out::Text(fault.into())),
        Rejection::UnknownLife(who) => ("unknown_life", Out::UnknownLife((*who).into())),
        Rejection::Phase { who, phase } => {
            let phase = pb::Phase::from(*phase).into();
            ("phase", Out::Phase(pb::InPhase { who: Some((*who).into()), phase }))
        }
        Rejection::Replaced { who, newest } => ("replaced", Out::Replaced(two(who, newest))),
        Rejection::FormerLife { who, former } => ("former_life", Out::FormerLife(two(who, former))),
        Rejection::NotConfigured(node) => ("not_configured", Out::NotConfigured(node.get())),
        Rejection::Majority { without, standing, voters } => {
            let counts = pb::NoMajority { without: without.get(), standing: *standing, voters: *voters };
            ("majority", Out::Majority(counts))
        }
        Rejection::UnknownOrder(order) => ("unknown_order", Out::UnknownOrder(order.get())),
        Rejection::OtherTarget { order, target, got } => {
            let (target, got) = (Some((*target).into()), Some((*got).into()));
            ("other_target", Out::OtherTarget(pb::OrderMismatch { order: order.get(), target, got }))
        }
        Rejection::Attempt { order, at, got } => {
            ("attempt", Out::Attempt(pb::AttemptMismatch { order: order.get(), at: *at, got: *got }))
        }
        Rejection::StillLives(who) => ("still_lives", Out::StillLives((*who).into())),
        Rejection::LastVoter(node) => ("last_voter", Out::LastVoter(node.get())),
        Rejection::Contract(fault) => ("contract", Out::Contract(fault.into())),
        Rejection::OtherActivation { under, current } => {
            let both = pb::OtherActivation { under: under.get(), current: current.map(Activation::get) };
            ("other_activation", Out::OtherActivation(both))
        }
        Rejection::WithoutActivation => ("without_activation", Out::WithoutActivation(pb::Done {})),
        Rejection::NeverExpires(who) => ("never_expires", Out::NeverExpires((*who).into())),
        Rejection::TooEarly { who, waited, need } => {
            let (waited_ns, need_ns) = (nanos(*waited), nanos(*need));
            ("too_early", Out::TooEarly(pb::TooEarly { who: Some((*who).into()), waited_ns, need_ns }))
        }
        Rejection::NotProcessBound(who) => ("not_process_bound", Out::NotProcessBound((*who).into())),
        Rejection::NotItsSuccessor { who, former } => ("not_its_successor", Out::NotItsSuccessor(two(who, former))),
        Rejection::NotOver(who) => ("not_over", Out::NotOver((*who).into())),
        _ => return None,
    })
}

impl FromWire<pb::Rejection> for Rejection {
    fn from_wire(rejection: pb::Rejection) -> Result<Self, Malformed> {
        use pb::rejection::Kind as In;
        let disk = |bytes: &[u8]| id_from(bytes, "a disk id").map(DiskId::new);
        Ok(match need(rejection.kind, "the case of a rejection")? {
            In::AlreadyFounded(cluster) => Self::AlreadyFounded(ClusterId::new(id_from(&cluster, "the cluster id")?)),
            In::NotFounded(pb::Done {}) => Self::NotFounded,
            In::UnknownNode(node) => Self::UnknownNode(NodeId::new(node)),
            In::RetiredNode(node) => Self::RetiredNode(NodeId::new(node)),
            In::OtherDisk(pb::DiskIds { node, known, got }) => {
                Self::OtherDisk { node: NodeId::new(node), known: disk(&known)?, got: disk(&got)? }
            }
            In::ClonedDisk(disks) => {
                let (node, known, got) = matched(disks)?;
                Self::ClonedDisk { node, known, got }
            }
            In::TooManyNodes(limit) => Self::TooManyNodes { limit },
            In::Addresses(pb::OutOfBounds { got, limit }) => Self::Addresses { got, limit },
            In::Text(fault) => Self::Text(TextError::from_wire(fault)?),
            In::UnknownLife(who) => Self::UnknownLife(who.into()),
            In::Phase(pb::InPhase { who, phase }) => {
                let phase = Phase::from_wire(pb::Phase::try_from(phase).unwrap_or_default())?;
                Self::Phase { who: life(who)?, phase }
            }
            In::Replaced(pb::TwoLives { who, other }) => Self::Replaced { who: life(who)?, newest: life(other)? },
            In::FormerLife(pb::TwoLives { who, other }) => Self::FormerLife { who: life(who)?, former: life(other)? },
            In::NotConfigured(node) => Self::NotConfigured(NodeId::new(node)),
            In::Majority(pb::NoMajority { without, standing, voters }) => {
                Self::Majority { without: NodeId::new(without), standing, voters }
            }
            In::UnknownOrder(order) => Self::UnknownOrder(FenceId::new(order)),
            In::OtherTarget(pb::OrderMismatch { order, target, got }) => {
                Self::OtherTarget { order: FenceId::new(order), target: life(target)?, got: life(got)? }
            }
            In::Attempt(pb::AttemptMismatch { order, at, got }) => {
                Self::Attempt { order: FenceId::new(order), at, got }
            }
            In::StillLives(who) => Self::StillLives(who.into()),
            In::LastVoter(node) => Self::LastVoter(NodeId::new(node)),
            In::Contract(fault) => Self::Contract(ContractError::from_wire(fault)?),
            In::OtherActivation(pb::OtherActivation { under, current }) => {
                Self::OtherActivation { under: Activation::new(under), current: current.map(Activation::new) }
            }
            In::WithoutActivation(pb::Done {}) => Self::WithoutActivation,
            In::NeverExpires(who) => Self::NeverExpires(who.into()),
            In::TooEarly(pb::TooEarly { who, waited_ns, need_ns }) => Self::TooEarly {
                who: life(who)?,
                waited: Duration::from_nanos(waited_ns),
                need: Duration::from_nanos(need_ns),
            },
            In::NotProcessBound(who) => Self::NotProcessBound(who.into()),
            In::NotItsSuccessor(pb::TwoLives { who, other }) => {
                Self::NotItsSuccessor { who: life(who)?, former: life(other)? }
            }
            In::NotOver(who) => Self::NotOver(who.into()),
            about_the_store => stored::from_wire(about_the_store)?,
        })
    }
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
