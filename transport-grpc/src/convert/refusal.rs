//! Refusals and rejections: every case with its own name and its own fields, both ways.
//!
//! The enums of the engine may grow. What this build does not know travels, in either direction, as a name and a text.

use std::time::Duration;

use quorate_membership::{
    Activation, ClusterId, ContractError, Disk, DiskId, FenceId, Identity, NodeId, Phase, Rejection, TextError,
};
use quorate_raft_core::{HandOverError, ProposeError, Refusal};

use super::{FromWire, Malformed, clip, id_from, id_to, nanos, need};
use crate::pb;

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn life(field: Option<pb::Identity>) -> Result<Identity, Malformed> {
    need(field, "the life").map(Identity::from)
}

fn mismatch(node: NodeId, known: Disk, got: Disk) -> pb::DiskMismatch {
    pb::DiskMismatch { node: node.get(), known: Some(known.into()), got: Some(got.into()) }
}

fn matched(mismatch: pb::DiskMismatch) -> Result<(NodeId, Disk, Disk), Malformed> {
    let known = Disk::from_wire(need(mismatch.known, "the known disk")?)?;
    Ok((NodeId::new(mismatch.node), known, Disk::from_wire(need(mismatch.got, "the disk shown")?)?))
}

impl From<&Refusal> for pb::Refusal {
    fn from(refusal: &Refusal) -> Self {
        use pb::refusal::Kind as Out;
        let (code, kind) = match refusal {
            Refusal::OtherCluster { ours, theirs } => {
                let both = pb::OtherCluster { ours: id_to(ours.get()), theirs: id_to(theirs.get()) };
                ("other_cluster", Some(Out::OtherCluster(both)))
            }
            Refusal::OtherNode { meant, here } => {
                ("other_node", Some(Out::OtherNode(pb::OtherNode { meant: meant.get(), here: here.get() })))
            }
            Refusal::Retired(node) => ("retired", Some(Out::Retired(node.get()))),
            Refusal::OtherDisk { node, known, got } => {
                ("other_disk", Some(Out::OtherDisk(mismatch(*node, *known, *got))))
            }
            Refusal::ClonedDisk { node, known, got } => {
                ("cloned_disk", Some(Out::ClonedDisk(mismatch(*node, *known, *got))))
            }
            Refusal::TwoProcesses(node) => ("two_processes", Some(Out::TwoProcesses(node.get()))),
            Refusal::OtherTiming => ("other_timing", Some(Out::OtherTiming(pb::Done {}))),
            Refusal::Embargo { remaining } => ("embargo", Some(Out::Embargo(nanos(*remaining)))),
            Refusal::NotReady => ("not_ready", Some(Out::NotReady(pb::Done {}))),
            Refusal::Stopped(why) => ("stopped", Some(Out::Stopped(clip(why)))),
            Refusal::Malformed(why) => ("malformed", Some(Out::Malformed(clip(why)))),
            Refusal::Rejected(rejection) => ("rejected", Some(Out::Rejected(rejection.into()))),
            Refusal::Unavailable(why) => ("unavailable", Some(Out::Unavailable(clip(why)))),
            _ => ("unknown", None),
        };
        Self { code: code.into(), message: clip(&refusal.to_string()), kind }
    }
}

impl From<pb::Refusal> for Refusal {
    fn from(pb::Refusal { code, message, kind }: pb::Refusal) -> Self {
        let known = kind.map(refusal).transpose();
        let foreign = |why: String| {
            Self::Malformed(format!("refused for a reason that this build cannot read ({code}: {message}); {why}"))
        };
        match known {
            Ok(Some(refusal)) => refusal,
            Ok(None) => foreign("upgrade this node".into()),
            Err(Malformed(why)) => foreign(why),
        }
    }
}

fn refusal(kind: pb::refusal::Kind) -> Result<Refusal, Malformed> {
    use pb::refusal::Kind as In;
    Ok(match kind {
        In::OtherCluster(pb::OtherCluster { ours, theirs }) => Refusal::OtherCluster {
            ours: ClusterId::new(id_from(&ours, "a cluster id")?),
            theirs: ClusterId::new(id_from(&theirs, "a cluster id")?),
        },
        In::OtherNode(pb::OtherNode { meant, here }) => {
            Refusal::OtherNode { meant: NodeId::new(meant), here: NodeId::new(here) }
        }
        In::Retired(node) => Refusal::Retired(NodeId::new(node)),
        In::OtherDisk(disks) => {
            let (node, known, got) = matched(disks)?;
            Refusal::OtherDisk { node, known, got }
        }
        In::ClonedDisk(disks) => {
            let (node, known, got) = matched(disks)?;
            Refusal::ClonedDisk { node, known, got }
        }
        In::TwoProcesses(node) => Refusal::TwoProcesses(NodeId::new(node)),
        In::OtherTiming(pb::Done {}) => Refusal::OtherTiming,
        In::Embargo(nanos) => Refusal::Embargo { remaining: Duration::from_nanos(nanos) },
        In::NotReady(pb::Done {}) => Refusal::NotReady,
        In::Stopped(why) => Refusal::Stopped(why),
        In::Malformed(why) => Refusal::Malformed(why),
        In::Rejected(rejection) => Refusal::Rejected(Rejection::from_wire(rejection)?),
        In::Unavailable(why) => Refusal::Unavailable(why),
    })
}

impl From<&Rejection> for pb::Rejection {
    fn from(rejection: &Rejection) -> Self {
        use pb::rejection::Kind as Out;
        let two =
            |who: &Identity, other: &Identity| pb::TwoLives { who: Some((*who).into()), other: Some((*other).into()) };
        let (code, kind) = match rejection {
            Rejection::AlreadyFounded(cluster) => ("already_founded", Out::AlreadyFounded(id_to(cluster.get()))),
            Rejection::NotFounded => ("not_founded", Out::NotFounded(pb::Done {})),
            Rejection::UnknownNode(node) => ("unknown_node", Out::UnknownNode(node.get())),
            Rejection::RetiredNode(node) => ("retired_node", Out::RetiredNode(node.get())),
            Rejection::OtherDisk { node, known, got } => {
                let (known, got) = (id_to(known.get()), id_to(got.get()));
                ("other_disk", Out::OtherDisk(pb::DiskIds { node: node.get(), known, got }))
            }
            Rejection::ClonedDisk { node, known, got } => {
                ("cloned_disk", Out::ClonedDisk(mismatch(*node, *known, *got)))
            }
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
            _ => return Self { code: "unknown".into(), message: clip(&rejection.to_string()), kind: None },
        };
        Self { code: code.into(), message: clip(&rejection.to_string()), kind: Some(kind) }
    }
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

impl From<&ProposeError> for pb::failure::Kind {
    fn from(error: &ProposeError) -> Self {
        match error {
            ProposeError::Rejected(rejection) => Self::Rejected(rejection.into()),
            ProposeError::NoLeader { waited } => Self::NoLeaderMs(millis(*waited)),
            ProposeError::OutcomeUnknown { reason } => {
                Self::OutcomeUnknown(pb::OutcomeUnknown { reason: clip(reason) })
            }
            ProposeError::Encoding(error) => Self::Encoding(clip(&error.to_string())),
            ProposeError::Refused(refusal) => Self::Refused(refusal.into()),
            ProposeError::Stopped(fatal) => Self::Stopped(clip(&fatal.to_string())),
            // A case of a newer engine: whether it changed anything is not known here.
            other => Self::OutcomeUnknown(pb::OutcomeUnknown { reason: clip(&other.to_string()) }),
        }
    }
}

impl From<&HandOverError> for pb::failure::Kind {
    fn from(error: &HandOverError) -> Self {
        match error {
            HandOverError::NotLeader { leader } => Self::NotLeader(pb::NotLeader { leader: leader.map(NodeId::get) }),
            HandOverError::NotAVoter(node) => Self::NotAVoter(node.get()),
            HandOverError::Nobody => Self::Nobody(pb::Done {}),
            HandOverError::TimedOut { waited } => Self::HandOverTimedOutMs(millis(*waited)),
            HandOverError::Stopped(fatal) => Self::Stopped(clip(&fatal.to_string())),
            other => Self::OutcomeUnknown(pb::OutcomeUnknown { reason: clip(&other.to_string()) }),
        }
    }
}

/// A failed command or hand-over as it travels.
pub(crate) fn failure(message: &str, kind: pb::failure::Kind) -> pb::Failure {
    use pb::failure::Kind;
    let code = match &kind {
        Kind::Rejected(_) => "rejected",
        Kind::NoLeaderMs(_) => "no_leader_ms",
        Kind::OutcomeUnknown(_) => "outcome_unknown",
        Kind::Encoding(_) => "encoding",
        Kind::Refused(_) => "refused",
        Kind::Stopped(_) => "stopped",
        Kind::NotLeader(_) => "not_leader",
        Kind::NotAVoter(_) => "not_a_voter",
        Kind::Nobody(_) => "nobody",
        Kind::HandOverTimedOutMs(_) => "hand_over_timed_out_ms",
    };
    pb::Failure { code: code.into(), message: clip(message), kind: Some(kind) }
}
