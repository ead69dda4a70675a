//! Refusals and failures of calls: every case with its own code and its own fields.
//!
//! The enums of the engine may grow. A case that this build does not know is sent and received as a code and a text.

use std::time::Duration;

use quorate_membership::{ClusterId, Disk, Identity, NodeId, Rejection};
use quorate_raft_core::{HandOverError, ProposeError, ReadError, Refusal};

use super::{FromWire, Malformed, clip, id_from, id_to, nanos, need};
use crate::pb;

/// A duration in milliseconds. One that does not fit becomes the longest that does.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn life(field: Option<pb::Identity>) -> Result<Identity, Malformed> {
    need(field, "the life").map(Identity::from)
}

pub(super) fn mismatch(node: NodeId, known: Disk, got: Disk) -> pb::DiskMismatch {
    pb::DiskMismatch { node: node.get(), known: Some(known.into()), got: Some(got.into()) }
}

pub(super) fn matched(mismatch: pb::DiskMismatch) -> Result<(NodeId, Disk, Disk), Malformed> {
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
            Refusal::NotAllowed(why) => ("not_allowed", Some(Out::NotAllowed(clip(why)))),
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
        In::NotAllowed(why) => Refusal::NotAllowed(why),
        In::Unavailable(why) => Refusal::Unavailable(why),
    })
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
            // A case of a newer engine. This build does not know whether it changed anything.
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

impl From<&ReadError> for pb::failure::Kind {
    fn from(error: &ReadError) -> Self {
        match error {
            ReadError::MaybeStale { waited } => Self::MaybeStaleMs(millis(*waited)),
            ReadError::Stopped(fatal) => Self::Stopped(clip(&fatal.to_string())),
            other => Self::OutcomeUnknown(pb::OutcomeUnknown { reason: clip(&other.to_string()) }),
        }
    }
}

/// The message of a failed call.
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
        Kind::MaybeStaleMs(_) => "maybe_stale_ms",
        Kind::LockTimedOut(_) => "lock_timed_out",
        Kind::LockRequestOver(_) => "lock_request_over",
        Kind::RevisionAhead(_) => "revision_ahead",
    };
    pb::Failure { code: code.into(), message: clip(message), kind: Some(kind) }
}
