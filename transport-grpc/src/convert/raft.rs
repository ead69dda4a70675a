//! The calls between nodes.

use std::collections::BTreeSet;

use bytes::Bytes;
use quorate_membership::{ClusterId, Disk, NodeId, Nonce, Rejection, Revision, codec};
use quorate_raft_core::rpc::{
    Append, Appended, Ballot, Body, Caller, LogEntry, Payload, Position, Proposed, SnapshotMeta, StreamAppended,
    Transfer, Transferred, VoteAnswer, VoteRequest, VoterSets,
};

use super::{FromWire, Malformed, id_from, id_to, need};
use crate::pb;

/// Lets a message refer to the bytes of a payload without a copy.
struct Owned(Payload);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// The bytes of a payload, for a message.
pub(crate) fn bytes(payload: Payload) -> Bytes {
    Bytes::from_owner(Owned(payload))
}

/// A command whose envelope is intact. Its contents are decoded only when it is applied.
pub(crate) fn payload(bytes: &Bytes, what: impl std::fmt::Display) -> Result<Payload, Malformed> {
    codec::inspect(bytes).map_err(|error| Malformed(format!("{what}: {error}")))?;
    Ok(Payload::new(&bytes[..]))
}

impl From<Caller> for pb::Caller {
    fn from(Caller { cluster, from, to, disk, process, callee, timing }: Caller) -> Self {
        Self {
            cluster: id_to(cluster.get()),
            from: from.get(),
            to: to.get(),
            disk: Some(disk.into()),
            timing,
            process: id_to(process.get()),
            callee: callee.map(Into::into),
        }
    }
}

impl FromWire<pb::Caller> for Caller {
    fn from_wire(caller: pb::Caller) -> Result<Self, Malformed> {
        let pb::Caller { cluster, from, to, disk, timing, process, callee } = caller;
        Ok(Self {
            cluster: ClusterId::new(id_from(&cluster, "the cluster id")?),
            from: NodeId::new(from),
            to: NodeId::new(to),
            disk: Disk::from_wire(need(disk, "the caller's disk")?)?,
            process: Nonce::new(id_from(&process, "the caller's process")?),
            callee: callee.map(Disk::from_wire).transpose()?,
            timing,
        })
    }
}

impl From<Position> for pb::Position {
    fn from(Position { term, index }: Position) -> Self {
        Self { term, index }
    }
}

impl From<pb::Position> for Position {
    fn from(pb::Position { term, index }: pb::Position) -> Self {
        Self { term, index }
    }
}

impl From<Ballot> for pb::Ballot {
    fn from(Ballot { term, node, committed }: Ballot) -> Self {
        Self { term, node: node.get(), committed }
    }
}

impl From<pb::Ballot> for Ballot {
    fn from(pb::Ballot { term, node, committed }: pb::Ballot) -> Self {
        Self { term, node: NodeId::new(node), committed }
    }
}

pub(crate) fn ballot(field: Option<pb::Ballot>) -> Result<Ballot, Malformed> {
    need(field, "the ballot").map(Ballot::from)
}

pub(super) fn numbers<'a>(nodes: impl IntoIterator<Item = &'a NodeId>) -> Vec<u64> {
    nodes.into_iter().map(|node| node.get()).collect()
}

fn nodes(numbers: Vec<u64>) -> BTreeSet<NodeId> {
    numbers.into_iter().map(NodeId::new).collect()
}

impl From<VoterSets> for pb::VoterSets {
    fn from(voters: VoterSets) -> Self {
        let sets = voters.sets.iter().map(|set| pb::NodeSet { nodes: numbers(set) }).collect();
        Self { sets, nodes: numbers(&voters.nodes) }
    }
}

impl From<pb::VoterSets> for VoterSets {
    fn from(voters: pb::VoterSets) -> Self {
        Self { sets: voters.sets.into_iter().map(|set| nodes(set.nodes)).collect(), nodes: nodes(voters.nodes) }
    }
}

impl From<LogEntry> for pb::Entry {
    fn from(LogEntry { at, body }: LogEntry) -> Self {
        use pb::entry::Body as Out;
        let body = match body {
            Body::Blank => Out::Blank(pb::Blank {}),
            Body::Command(payload) => Out::Command(bytes(payload)),
            Body::Configuration(voters) => Out::Configuration(voters.into()),
        };
        Self { at: Some(at.into()), body: Some(body) }
    }
}

impl FromWire<pb::Entry> for LogEntry {
    fn from_wire(entry: pb::Entry) -> Result<Self, Malformed> {
        use pb::entry::Body as In;
        let at = Position::from(need(entry.at, "the position of an entry")?);
        let body = match need(entry.body, "the body of an entry")? {
            In::Blank(pb::Blank {}) => Body::Blank,
            In::Command(bytes) => Body::Command(payload(&bytes, format_args!("the command at {at}"))?),
            In::Configuration(voters) => Body::Configuration(voters.into()),
        };
        Ok(Self { at, body })
    }
}

impl From<Append> for pb::Append {
    fn from(Append { ballot, prev, entries, commit, renewed }: Append) -> Self {
        Self {
            ballot: Some(ballot.into()),
            prev: prev.map(Into::into),
            entries: entries.into_iter().map(Into::into).collect(),
            commit: commit.map(Into::into),
            renewed: renewed.map(|lives| pb::RenewedLives { lives: lives.iter().map(|who| (*who).into()).collect() }),
        }
    }
}

impl FromWire<pb::Append> for Append {
    fn from_wire(append: pb::Append) -> Result<Self, Malformed> {
        Ok(Self {
            ballot: ballot(append.ballot)?,
            prev: append.prev.map(Into::into),
            entries: append.entries.into_iter().map(LogEntry::from_wire).collect::<Result<_, _>>()?,
            commit: append.commit.map(Into::into),
            renewed: append.renewed.map(|renewed| renewed.lives.into_iter().map(Into::into).collect()),
        })
    }
}

fn flushed(up_to: Option<Position>) -> pb::Flushed {
    pb::Flushed { up_to: up_to.map(Into::into) }
}

impl From<Appended> for pb::AppendResponse {
    fn from(appended: Appended) -> Self {
        use pb::appended::Result as Out;
        let result = match appended {
            Appended::Success => Out::Success(pb::Done {}),
            Appended::Partial(up_to) => Out::Partial(flushed(up_to)),
            Appended::Conflict => Out::Conflict(pb::Done {}),
            Appended::HigherBallot(ballot) => Out::HigherBallot(ballot.into()),
        };
        Self { result: Some(pb::Appended { result: Some(result) }) }
    }
}

impl FromWire<pb::AppendResponse> for Appended {
    fn from_wire(response: pb::AppendResponse) -> Result<Self, Malformed> {
        use pb::appended::Result as In;
        Ok(match need(response.result.and_then(|inner| inner.result), "the result of an append")? {
            In::Success(pb::Done {}) => Self::Success,
            In::Partial(pb::Flushed { up_to }) => Self::Partial(up_to.map(Into::into)),
            In::Conflict(pb::Done {}) => Self::Conflict,
            In::HigherBallot(ballot) => Self::HigherBallot(ballot.into()),
        })
    }
}

impl From<StreamAppended> for pb::AppendStreamResponse {
    fn from(appended: StreamAppended) -> Self {
        use pb::stream_appended::Result as Out;
        let result = match appended {
            StreamAppended::Flushed(up_to) => Out::Flushed(flushed(up_to)),
            StreamAppended::Conflict(at) => Out::Conflict(at.into()),
            StreamAppended::HigherBallot(ballot) => Out::HigherBallot(ballot.into()),
        };
        Self { result: Some(pb::StreamAppended { result: Some(result) }) }
    }
}

impl FromWire<pb::AppendStreamResponse> for StreamAppended {
    fn from_wire(response: pb::AppendStreamResponse) -> Result<Self, Malformed> {
        use pb::stream_appended::Result as In;
        Ok(match need(response.result.and_then(|inner| inner.result), "the result of an append")? {
            In::Flushed(pb::Flushed { up_to }) => Self::Flushed(up_to.map(Into::into)),
            In::Conflict(at) => Self::Conflict(at.into()),
            In::HigherBallot(ballot) => Self::HigherBallot(ballot.into()),
        })
    }
}

/// Without its caller.
impl From<VoteRequest> for pb::VoteRequest {
    fn from(VoteRequest { ballot, last, transfer }: VoteRequest) -> Self {
        Self { caller: None, ballot: Some(ballot.into()), last: last.map(Into::into), transfer }
    }
}

impl From<VoteAnswer> for pb::VoteResponse {
    fn from(VoteAnswer { ballot, granted, last }: VoteAnswer) -> Self {
        Self { ballot: Some(ballot.into()), granted, last: last.map(Into::into) }
    }
}

impl FromWire<pb::VoteResponse> for VoteAnswer {
    fn from_wire(response: pb::VoteResponse) -> Result<Self, Malformed> {
        let pb::VoteResponse { ballot: field, granted, last } = response;
        Ok(Self { ballot: ballot(field)?, granted, last: last.map(Into::into) })
    }
}

impl From<SnapshotMeta> for pb::SnapshotMeta {
    fn from(SnapshotMeta { last, configured, voters }: SnapshotMeta) -> Self {
        Self { last: last.map(Into::into), configured: configured.map(Into::into), voters: Some(voters.into()) }
    }
}

impl FromWire<pb::SnapshotMeta> for SnapshotMeta {
    fn from_wire(pb::SnapshotMeta { last, configured, voters }: pb::SnapshotMeta) -> Result<Self, Malformed> {
        let voters = need(voters, "the configuration of a snapshot")?.into();
        Ok(Self { last: last.map(Into::into), configured: configured.map(Into::into), voters })
    }
}

/// Without its caller.
impl From<Transfer> for pb::TransferRequest {
    fn from(Transfer { from, to, last }: Transfer) -> Self {
        Self { caller: None, ballot: Some(from.into()), to: to.get(), last: last.map(Into::into) }
    }
}

impl From<Transferred> for pb::TransferResponse {
    fn from(transferred: Transferred) -> Self {
        use pb::transfer_response::Result as Out;
        let result = match transferred {
            Transferred::Accepted => Out::Accepted(pb::Done {}),
            Transferred::BallotChanged { expected, actual } => {
                Out::BallotChanged(pb::BallotChanged { expected: Some(expected.into()), actual: Some(actual.into()) })
            }
            Transferred::NotFlushed { expected, actual } => {
                Out::NotFlushed(pb::NotFlushed { expected: expected.map(Into::into), actual: actual.map(Into::into) })
            }
        };
        Self { result: Some(result) }
    }
}

impl FromWire<pb::TransferResponse> for Transferred {
    fn from_wire(response: pb::TransferResponse) -> Result<Self, Malformed> {
        use pb::transfer_response::Result as In;
        Ok(match need(response.result, "the result of a transfer")? {
            In::Accepted(pb::Done {}) => Self::Accepted,
            In::BallotChanged(pb::BallotChanged { expected, actual }) => {
                Self::BallotChanged { expected: ballot(expected)?, actual: ballot(actual)? }
            }
            In::NotFlushed(pb::NotFlushed { expected, actual }) => {
                Self::NotFlushed { expected: expected.map(Into::into), actual: actual.map(Into::into) }
            }
        })
    }
}

impl From<Proposed> for pb::ProposeResponse {
    fn from(proposed: Proposed) -> Self {
        use pb::propose_response::Result as Out;
        let result = match proposed {
            Proposed::Applied { revision } => Out::Applied(pb::Applied { revision: revision.get() }),
            Proposed::Rejected { revision, rejection } => {
                Out::Rejected(pb::Rejected { revision: revision.get(), rejection: Some((&rejection).into()) })
            }
            Proposed::NotLeader { leader } => Out::NotLeader(pb::NotLeader { leader: leader.map(NodeId::get) }),
            Proposed::Unknown { reason } => Out::Unknown(pb::OutcomeUnknown { reason: super::clip(&reason) }),
        };
        Self { result: Some(result) }
    }
}

impl FromWire<pb::ProposeResponse> for Proposed {
    fn from_wire(response: pb::ProposeResponse) -> Result<Self, Malformed> {
        use pb::propose_response::Result as In;
        Ok(match need(response.result, "the result of a proposal")? {
            In::Applied(pb::Applied { revision }) => Self::Applied { revision: Revision::new(revision) },
            In::Rejected(pb::Rejected { revision, rejection }) => {
                let rejection = need(rejection, "the rejection")?;
                let said = format!("the leader rejected it ({}): {}", rejection.code, rejection.message);
                match Rejection::from_wire(rejection) {
                    Ok(rejection) => Self::Rejected { revision: Revision::new(revision), rejection },
                    // A rule of a newer build, without a type here. To report less than is known does no harm.
                    Err(_) => Self::Unknown { reason: format!("{said}; upgrade this node") },
                }
            }
            In::NotLeader(pb::NotLeader { leader }) => Self::NotLeader { leader: leader.map(NodeId::new) },
            In::Unknown(pb::OutcomeUnknown { reason }) => Self::Unknown { reason },
        })
    }
}

impl From<Ballot> for pb::SnapshotResponse {
    fn from(ballot: Ballot) -> Self {
        Self { ballot: Some(ballot.into()) }
    }
}

impl FromWire<pb::SnapshotResponse> for Ballot {
    fn from_wire(response: pb::SnapshotResponse) -> Result<Self, Malformed> {
        ballot(response.ballot)
    }
}

impl From<Revision> for pb::ReadIndexResponse {
    fn from(revision: Revision) -> Self {
        Self { revision: revision.get() }
    }
}

impl FromWire<pb::ReadIndexResponse> for Revision {
    fn from_wire(response: pb::ReadIndexResponse) -> Result<Self, Malformed> {
        Ok(Self::new(response.revision))
    }
}
