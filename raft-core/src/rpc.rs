//! What nodes say to each other, in plain types: neither openraft's nor protobuf's, so that each can change alone.
//!
//! ```text
//!   openraft ◀──types.rs──▶ these ◀──convert.rs──▶ proto/quorate/v1 (another crate)
//! ```

mod call;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use quorate_membership::{ClusterId, Configuration, Disk, Identity, NodeId, Nonce, Rejection, Revision};
use serde::{Deserialize, Serialize};

pub use self::call::{
    Answer, AskReceipts, Call, CanFence, FencerReach, KeepAlive, Lane, PreVote, ReadIndex, Refused, Refuses, Rpc,
};

/// A place in the log: which leader's entry, and where. Printed `t3.i42`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The term of the leader that wrote the entry.
    pub term: u64,
    /// The index of the entry; the first is 0.
    pub index: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}.i{}", self.term, self.index)
    }
}

/// A vote: for whom, in which term, and whether a quorum gave it (then it is a leader's).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ballot {
    /// The term.
    pub term: u64,
    /// Whom the vote is for.
    pub node: NodeId,
    /// Whether a quorum gave it.
    pub committed: bool,
}

/// A command as it stands in the log: an envelope of [`quorate_membership::codec`], opened only when it is applied.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Payload(Arc<[u8]>);

impl Payload {
    /// Takes bytes that are, or claim to be, an envelope.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

/// Raft's own configuration as it stands in the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoterSets {
    /// One set of voters, or two while a change is under way (the outgoing set first).
    pub sets: Vec<BTreeSet<NodeId>>,
    /// Everybody who receives the log: the voters and the learners.
    pub nodes: BTreeSet<NodeId>,
}

impl VoterSets {
    /// The same in the core's terms.
    pub fn configuration(&self) -> Configuration {
        let voters: BTreeSet<NodeId> = self.sets.iter().flatten().copied().collect();
        let learners = self.nodes.difference(&voters).copied();
        match self.sets.as_slice() {
            [] => Configuration::uniform([], learners),
            [only] => Configuration::uniform(only.iter().copied(), learners),
            [outgoing, .., incoming] => {
                Configuration::joint(outgoing.iter().copied(), incoming.iter().copied(), learners)
            }
        }
    }
}

/// What an entry holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Nothing: written by a leader at the start of its term.
    Blank,
    /// A command.
    Command(Payload),
    /// A new configuration.
    Configuration(VoterSets),
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Where it stands.
    pub at: Position,
    /// What it holds.
    pub body: Body,
}

/// Entries for a follower, or a heartbeat when there are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// The leader's vote.
    pub ballot: Ballot,
    /// The entry before the first of `entries`.
    pub prev: Option<Position>,
    /// Consecutive entries.
    pub entries: Vec<LogEntry>,
    /// How far the leader knows the log to be committed.
    pub commit: Option<Position>,
    /// The lives whose renewals an acceptance of this confirms; each is noted first. `None` from a leader that does not say.
    pub renewed: Option<Arc<[Identity]>>,
}

/// The answer to one [`Append`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// Everything is durable here.
    Success,
    /// Durable up to this place.
    Partial(Option<Position>),
    /// The entry before is not here, or another one is.
    Conflict,
    /// A higher vote was seen.
    HigherBallot(Ballot),
}

/// The answer to one [`Append`] of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamAppended {
    /// Durable here up to this place.
    Flushed(Option<Position>),
    /// The entry that should be at this place is not here. Ends the stream.
    Conflict(Position),
    /// A higher vote was seen. Ends the stream.
    HigherBallot(Ballot),
}

/// A request for a vote, or (as pre-vote) the question whether one would be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VoteRequest {
    /// The vote asked for.
    pub ballot: Ballot,
    /// The end of the candidate's log.
    pub last: Option<Position>,
    /// Whether the leader itself asked the candidate to stand.
    pub transfer: bool,
}

/// The answer to a [`VoteRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VoteAnswer {
    /// The vote that the answerer holds now.
    pub ballot: Ballot,
    /// Whether the request was granted.
    pub granted: bool,
    /// The end of the answerer's log.
    pub last: Option<Position>,
}

/// What a snapshot covers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotMeta {
    /// The last entry in it.
    pub last: Option<Position>,
    /// Where the configuration in it stands in the log.
    pub configured: Option<Position>,
    /// The configuration in it.
    pub voters: VoterSets,
}

impl quorate_membership::codec::Enveloped for SnapshotMeta {
    const KIND: quorate_membership::codec::Kind = quorate_membership::codec::Kind::SnapshotMeta;
}

/// A whole snapshot for a node that the log no longer reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallSnapshot {
    /// The leader's vote.
    pub ballot: Ballot,
    /// What it covers.
    pub meta: SnapshotMeta,
    /// An envelope with a [`quorate_membership::ClusterState`].
    pub data: Arc<[u8]>,
}

/// A leader's request to another node to take over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// The leader's vote.
    pub from: Ballot,
    /// Who shall lead.
    pub to: NodeId,
    /// The end of the leader's log.
    pub last: Option<Position>,
}

/// What became of a [`Transfer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transferred {
    /// Accepted.
    Accepted,
    /// The vote here is another by now.
    BallotChanged {
        /// What the leader had.
        expected: Ballot,
        /// What stands here.
        actual: Ballot,
    },
    /// The log here is not as far, or not durable as far.
    NotFlushed {
        /// What was asked for.
        expected: Option<Position>,
        /// What stands here.
        actual: Option<Position>,
    },
}

/// What became of a proposed command, as the leader answers a node that forwarded it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proposed {
    /// Committed and applied on the leader.
    Applied {
        /// Where it stands. The events are in every node's feed under this revision.
        revision: Revision,
    },
    /// Committed, and refused by the rules. Nothing changed.
    Rejected {
        /// Where it stands.
        revision: Revision,
        /// Why.
        rejection: Rejection,
    },
    /// The node asked does not lead. Nothing was proposed.
    NotLeader {
        /// Who does, as far as it knows.
        leader: Option<NodeId>,
    },
    /// The command was proposed, and leadership was lost before its end was known. It may or may not take effect.
    Unknown {
        /// What happened.
        reason: String,
    },
}

/// Where a command that was carried out stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Committed {
    /// Its revision. Its events are in the feed under this revision, and the node that was asked has applied it.
    pub revision: Revision,
}

/// A member's request for its lease: to hold it for L from the instant at which it sent this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Renewal {
    /// Which life asks.
    pub who: Identity,
    /// Which of its requests this is. Never used twice by one life.
    pub seq: u64,
}

/// What became of a [`Renewal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Renewed {
    /// A linearizable read, begun after the renewal was received, showed that the life stands. Counts for this request
    /// of this life and for no other.
    Granted(Renewal),
    /// It was not granted. The same request will not be; another may be.
    Refused {
        /// Why.
        refusal: RenewRefusal,
        /// Who leads, as far as the answerer knows.
        leader: Option<NodeId>,
    },
}

/// Why a [`Renewal`] was not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum RenewRefusal {
    /// The node asked does not lead, or has not been activated as leader yet.
    NotActivated,
    /// The life is not active, is being fenced, has ended, or a newer life of its node has joined.
    NotLive,
    /// Nothing was received of the life for too long: its end is being committed.
    Expiring,
    /// No quorum confirmed that the node asked still leads.
    NotConfirmed,
}

impl fmt::Display for RenewRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotActivated => "the node asked is not activated as leader",
            Self::NotLive => "the life may not hold a lease",
            Self::Expiring => "the time of the life was up",
            Self::NotConfirmed => "no quorum confirmed the leader",
        })
    }
}

/// What became of a keep-alive of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeptAlive {
    /// A linearizable read, begun after the keep-alive was received, showed that the session is open: it will be for at
    /// least this long, counted from the sending.
    Alive {
        /// How long.
        ttl: std::time::Duration,
    },
    /// The session has ended, or never was. What it held may have passed on.
    Ended,
    /// No leader answered that a quorum confirmed. Nothing is known; ask again.
    NotLeader {
        /// Who leads, as far as the answerer knows.
        leader: Option<NodeId>,
    },
}

/// Who calls: stands in front of every call between nodes, and is checked on every one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The caller's cluster.
    pub cluster: ClusterId,
    /// The caller.
    pub from: NodeId,
    /// Whom the caller means to speak to.
    pub to: NodeId,
    /// The caller's disk.
    pub disk: Disk,
    /// Drawn by the caller's process at its start: two processes with copies of one disk differ in it.
    pub process: Nonce,
    /// The disk that the caller's log knows the callee by. An older state of it, or another disk, must not answer.
    pub callee: Option<Disk>,
    /// A hash of the timing that both must share, see [`Timing::hash`](quorate_membership::Timing::hash).
    pub timing: u64,
}
