//! The conversions between openraft's types and [`crate::rpc`]. Only this file names openraft's generic types.
//!
//! ```text
//!   rpc::Ballot, Position, LogEntry …  ──*_to──▶  openraft's Vote, LogId, Entry …
//!                                      ◀─*_from──
//! ```

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use openraft::entry::{EntryPayload, RaftEntry};
use openraft::raft::{StreamAppendError, TransferLeaderError};
use openraft::type_config::alias::{EntryOf, LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf};
use openraft::vote::leader_id_std::CommittedLeaderId;
use openraft::{Membership, OptionalSend, RaftTypeConfig, Vote};
use quorate_membership::{NodeId, Rejection};

use crate::engine::in_flight::Responder;
use crate::engine::runtime::Runtime;
use crate::rpc::{
    Append, Appended, Ballot, Body, LogEntry, Payload, Position, SnapshotMeta, StreamAppended, Transferred, VoterSets,
};

impl std::fmt::Display for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "command of {} bytes", self.as_bytes().len())
    }
}

/// The answer of a committed entry to its proposer: `Err` if the rules refused it.
pub(crate) type Reply = Result<(), Rejection>;

/// openraft as quorate uses it: one leader per term, nodes known by number, addresses kept elsewhere.
///
/// Written out, because `declare_raft_types` takes no type with a parameter, such as the responder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Types;

impl RaftTypeConfig for Types {
    type D = Payload;
    type R = Reply;
    type NodeId = u64;
    type Node = ();
    type Term = u64;
    type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>;
    type Vote = Vote<Self::LeaderId>;
    type Payload = EntryPayload<Payload, u64, ()>;
    type Entry = openraft::Entry<CommittedLeaderId<u64>, Self::Payload>;
    type Responder<T>
        = Responder<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type AsyncRuntime = Runtime;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

pub(crate) type OrVote = VoteOf<Types>;
pub(crate) type OrLogId = LogIdOf<Types>;
pub(crate) type OrEntry = EntryOf<Types>;
pub(crate) type OrMembership = Membership<u64, ()>;
pub(crate) type OrStoredMembership = StoredMembershipOf<Types>;
pub(crate) type OrSnapshotMeta = SnapshotMetaOf<Types>;
pub(crate) type OrSnapshot = SnapshotOf<Types, Arc<[u8]>>;
pub(crate) type OrAppend = openraft::raft::AppendEntriesRequest<Types>;
pub(crate) type OrAppended = openraft::raft::AppendEntriesResponse<Types>;
pub(crate) type OrVoteRequest = openraft::raft::VoteRequest<Types>;
pub(crate) type OrVoteResponse = openraft::raft::VoteResponse<Types>;
pub(crate) type OrStreamResult = Result<Option<OrLogId>, StreamAppendError<Types>>;
pub(crate) type OrTransfer = openraft::raft::TransferLeaderRequest<Types>;

pub(crate) fn vote_to(ballot: Ballot) -> OrVote {
    let Ballot { term, node, committed } = ballot;
    match committed {
        true => Vote::new_committed(term, node.get()),
        false => Vote::new(term, node.get()),
    }
}

pub(crate) fn vote_from(vote: &OrVote) -> Ballot {
    Ballot { term: vote.leader_id.term, node: NodeId::new(vote.leader_id.voted_for), committed: vote.committed }
}

pub(crate) fn log_id_to(at: Position) -> OrLogId {
    OrLogId { leader_id: CommittedLeaderId::new(at.term), index: at.index }
}

pub(crate) fn log_id_from(id: &OrLogId) -> Position {
    Position { term: id.leader_id.term, index: id.index }
}

fn sets_to(sets: &[BTreeSet<NodeId>]) -> Vec<BTreeSet<u64>> {
    sets.iter().map(|set| set.iter().map(|n| n.get()).collect()).collect()
}

/// # Errors
/// If a voter is missing from the nodes, which openraft does not allow.
pub(crate) fn membership_to(voters: &VoterSets) -> io::Result<OrMembership> {
    let nodes: std::collections::BTreeMap<u64, ()> = voters.nodes.iter().map(|n| (n.get(), ())).collect();
    Membership::new(sets_to(&voters.sets), nodes).map_err(io::Error::other)
}

pub(crate) fn membership_from(membership: &OrMembership) -> VoterSets {
    let set = |ids: &BTreeSet<u64>| ids.iter().copied().map(NodeId::new).collect();
    VoterSets {
        sets: membership.get_joint_config().iter().map(set).collect(),
        nodes: membership.nodes().map(|(id, ())| NodeId::new(*id)).collect(),
    }
}

/// # Errors
/// As [`membership_to`].
pub(crate) fn entry_to(entry: LogEntry) -> io::Result<OrEntry> {
    let payload = match entry.body {
        Body::Blank => EntryPayload::Blank,
        Body::Command(payload) => EntryPayload::Normal(payload),
        Body::Configuration(voters) => EntryPayload::Membership(membership_to(&voters)?),
    };
    Ok(OrEntry::new(log_id_to(entry.at), payload))
}

pub(crate) fn entry_from(entry: &OrEntry) -> LogEntry {
    let body = match &entry.payload {
        EntryPayload::Blank => Body::Blank,
        EntryPayload::Normal(payload) => Body::Command(payload.clone()),
        EntryPayload::Membership(membership) => Body::Configuration(membership_from(membership)),
    };
    LogEntry { at: log_id_from(&entry.log_id), body }
}

/// # Errors
/// As [`membership_to`].
pub(crate) fn append_to(request: Append) -> io::Result<OrAppend> {
    Ok(OrAppend {
        vote: vote_to(request.ballot),
        prev_log_id: request.prev.map(log_id_to),
        entries: request.entries.into_iter().map(entry_to).collect::<io::Result<_>>()?,
        leader_commit: request.commit.map(log_id_to),
    })
}

pub(crate) fn append_from(request: &OrAppend) -> Append {
    Append {
        renewed: None,
        ballot: vote_from(&request.vote),
        prev: request.prev_log_id.as_ref().map(log_id_from),
        entries: request.entries.iter().map(entry_from).collect(),
        commit: request.leader_commit.as_ref().map(log_id_from),
    }
}

pub(crate) fn appended_to(answer: Appended) -> OrAppended {
    match answer {
        Appended::Success => OrAppended::Success,
        Appended::Partial(at) => OrAppended::PartialSuccess(at.map(log_id_to)),
        Appended::Conflict => OrAppended::Conflict,
        Appended::HigherBallot(ballot) => OrAppended::HigherVote(vote_to(ballot)),
    }
}

pub(crate) fn appended_from(answer: &OrAppended) -> Appended {
    match answer {
        OrAppended::Success => Appended::Success,
        OrAppended::PartialSuccess(at) => Appended::Partial(at.as_ref().map(log_id_from)),
        OrAppended::Conflict => Appended::Conflict,
        OrAppended::HigherVote(vote) => Appended::HigherBallot(vote_from(vote)),
    }
}

pub(crate) fn stream_to(answer: StreamAppended) -> OrStreamResult {
    match answer {
        StreamAppended::Flushed(at) => Ok(at.map(log_id_to)),
        StreamAppended::Conflict(at) => Err(StreamAppendError::Conflict(log_id_to(at))),
        StreamAppended::HigherBallot(ballot) => Err(StreamAppendError::HigherVote(vote_to(ballot))),
    }
}

pub(crate) fn stream_from(answer: &OrStreamResult) -> StreamAppended {
    match answer {
        Ok(at) => StreamAppended::Flushed(at.as_ref().map(log_id_from)),
        Err(StreamAppendError::Conflict(at)) => StreamAppended::Conflict(log_id_from(at)),
        Err(StreamAppendError::HigherVote(vote)) => StreamAppended::HigherBallot(vote_from(vote)),
    }
}

pub(crate) fn transferred_from(answer: Result<(), TransferLeaderError<Types>>) -> Transferred {
    match answer {
        Ok(()) => Transferred::Accepted,
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            Transferred::BallotChanged { expected: vote_from(&expected), actual: vote_from(&actual) }
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => Transferred::NotFlushed {
            expected: expected.as_ref().map(log_id_from),
            actual: actual.as_ref().map(log_id_from),
        },
    }
}

pub(crate) fn transferred_to(answer: Transferred) -> Result<(), TransferLeaderError<Types>> {
    match answer {
        Transferred::Accepted => Ok(()),
        Transferred::BallotChanged { expected, actual } => {
            Err(TransferLeaderError::VoteChanged { expected: vote_to(expected), actual: vote_to(actual) })
        }
        Transferred::NotFlushed { expected, actual } => {
            Err(TransferLeaderError::LogNotFlushed { expected: expected.map(log_id_to), actual: actual.map(log_id_to) })
        }
    }
}

/// # Errors
/// As [`membership_to`].
pub(crate) fn snapshot_meta_to(meta: &SnapshotMeta) -> io::Result<OrSnapshotMeta> {
    Ok(OrSnapshotMeta {
        last_log_id: meta.last.map(log_id_to),
        last_membership: OrStoredMembership::new(meta.configured.map(log_id_to), membership_to(&meta.voters)?),
    })
}

pub(crate) fn snapshot_meta_from(meta: &OrSnapshotMeta) -> SnapshotMeta {
    SnapshotMeta {
        last: meta.last_log_id.as_ref().map(log_id_from),
        configured: meta.last_membership.log_id().as_ref().map(log_id_from),
        voters: membership_from(meta.last_membership.membership()),
    }
}
