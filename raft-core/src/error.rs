//! What can go wrong, and for each: what it did or did not change, and what to do.

use std::path::PathBuf;
use std::time::Duration;

use quorate_membership::codec::CodecError;
use quorate_membership::{ClusterId, Disk, Identity, NodeId, Rejection, TextError};

/// Why a node did not take a call from another process. Nothing was changed by the refused call, unless a
/// variant says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The caller belongs to another cluster.
    #[error(
        "the caller belongs to cluster {theirs}, this node to {ours}; correct the address, or wipe the data folder that came from elsewhere"
    )]
    OtherCluster {
        /// This node's cluster.
        ours: ClusterId,
        /// The caller's.
        theirs: ClusterId,
    },
    /// The caller meant another node.
    #[error(
        "the call was meant for {meant}, this is {here}; the addresses of the two are mixed up: set the address of {meant}"
    )]
    OtherNode {
        /// Whom the caller meant.
        meant: NodeId,
        /// Who was reached.
        here: NodeId,
    },
    /// The caller's number was given up when its node was removed.
    #[error("{0} was removed from this cluster; wipe its data folder and add it under a new number")]
    Retired(NodeId),
    /// The caller's number belongs to another disk: a wiped disk or a number used twice.
    #[error("{node} is known with disk {}, not {}: a wiped disk is a new node; remove {node} and add this one under a new number", known.id, got.id)]
    OtherDisk {
        /// The caller's node.
        node: NodeId,
        /// The disk that the cluster knows.
        known: Disk,
        /// The disk that called.
        got: Disk,
    },
    /// The caller's disk was opened less often than one that called before under this number: an old state, or a copy.
    #[error("{node} calls from a disk opened {} times, but it has called from opening {} before: a copy or an old state of it is running; stop one of the two", got.opened, known.opened)]
    ClonedDisk {
        /// The caller's node.
        node: NodeId,
        /// What is known.
        known: Disk,
        /// What called.
        got: Disk,
    },
    /// Two processes call under this number with equal disks: copies of one folder, both running.
    #[error(
        "two processes call as {0} from copies of one disk; stop one of them, wipe its folder, and add it under a new number"
    )]
    TwoProcesses(NodeId),
    /// The caller runs with other timing, which would break the leader lease that both rely on.
    #[error("the caller's timing profile differs from this node's; give every node of a cluster the same one")]
    OtherTiming,
    /// A voter gives no vote so soon after its start.
    #[error(
        "no vote before {remaining:?} have passed since this node started: the promise it gave before its restart may still hold"
    )]
    Embargo {
        /// How much longer.
        remaining: Duration,
    },
    /// This node has not joined a cluster yet.
    #[error("this node belongs to no cluster yet; try again once it has joined")]
    NotReady,
    /// This node has stopped for good.
    #[error("this node has stopped: {0}")]
    Stopped(String),
    /// The call does not make sense.
    #[error("malformed: {0}")]
    Malformed(String),
    /// A join was refused by the rules.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The node could not do it just now. A join that ends so may or may not have been taken in: it may be repeated.
    #[error("{0}; try again")]
    Unavailable(String),
}

/// Why a call to another node gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// It did not arrive: no connection could be made. Nothing changed there.
    #[error("{0}")]
    Unreachable(String),
    /// No answer in time. It may have arrived.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The connection broke in the middle. It may have arrived.
    #[error("{0}")]
    Broken(String),
    /// It arrived and was refused. Nothing changed there.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// The node has stopped for good and must be started again. Its disk is as it was when it stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fatal {
    /// Storage failed. What was acknowledged before is durable; the state of what was under way is unknown, and is
    /// found out by the next start. A failed fsync is never retried: the kernel may have dropped the pages.
    #[error(
        "storage failed, and this node has stopped so as not to acknowledge what is not durable: {0}; check the disk, then start the node again"
    )]
    Storage(String),
    /// An entry that this build cannot read. It was not skipped.
    #[error("an entry of the log cannot be applied: {0}")]
    Entry(#[from] CodecError),
    /// It was shut down by its user.
    #[error("this node was shut down")]
    Shutdown,
    /// The engine ended unexpectedly.
    #[error("the engine ended: {0}")]
    Engine(String),
}

/// Why a command has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// Refused by the rules of the cluster. Nothing changed.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// No leader was found in time. Nothing was proposed.
    #[error("no leader was found within {waited:?}; nothing was proposed; check that a majority of the voters is up")]
    NoLeader {
        /// For how long it was tried.
        waited: Duration,
    },
    /// It was proposed, and its end is not known: it may take effect, now or later, or never. Every command may be
    /// repeated safely.
    #[error("the outcome is unknown: {reason}; look at the state, or repeat the command")]
    OutcomeUnknown {
        /// What happened.
        reason: String,
    },
    /// The command is too large or cannot be written. Nothing was proposed.
    #[error("the command cannot be written to the log: {0}")]
    Encoding(#[from] CodecError),
    /// A name or a key is not one. Nothing was proposed.
    #[error("{0}; nothing was proposed")]
    Text(#[from] TextError),
    /// The other node refused to deal with this one. Nothing was proposed.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// This node has stopped. Nothing was proposed.
    #[error(transparent)]
    Stopped(#[from] Fatal),
}

/// Why a linearizable read is not possible now. Reading changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// No quorum confirmed a leader in time: what this node has may be stale.
    #[error("no quorum confirmed within {waited:?}; what this node holds may be stale")]
    MaybeStale {
        /// For how long it was tried.
        waited: Duration,
    },
    /// This node has stopped.
    #[error(transparent)]
    Stopped(#[from] Fatal),
}

/// Why this node did not stand in place of a leader that has ended. Nothing was changed; the ordinary election comes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SucceedError {
    /// The life that ended does not lead, as far as this node knows.
    #[error("{who} does not lead ({})", leader.map_or("nobody is known to".to_string(), |leader| format!("{leader} does")))]
    NotTheLeader {
        /// The life.
        who: Identity,
        /// Who leads.
        leader: Option<NodeId>,
    },
    /// This voter has been started again so lately that a promise of its former life may still hold.
    #[error("this node was started lately and may stand for election in {remaining:?}")]
    Embargo {
        /// For how long.
        remaining: Duration,
    },
    /// A node that can make nothing durable cannot lead.
    #[error("this node cannot lead now: {0}")]
    Disk(String),
    /// A node that does not vote cannot lead.
    #[error("{0} does not vote; say it to a voter")]
    NoVoter(NodeId),
    /// The node has stopped.
    #[error(transparent)]
    Stopped(#[from] Fatal),
}

/// Why leadership did not move.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandOverError {
    /// Only the leader can hand over. Nothing changed.
    #[error("this node does not lead; ask {}", leader.map_or("the leader".into(), |l| l.to_string()))]
    NotLeader {
        /// Who leads, as far as this node knows.
        leader: Option<NodeId>,
    },
    /// Nobody can take it. Nothing changed.
    #[error("{0} cannot take leadership over: it is not a voter that stands")]
    NotAVoter(NodeId),
    /// There is nobody else.
    #[error("no other voter could take leadership over")]
    Nobody,
    /// It was asked for, and had not happened in time. It may still happen.
    #[error("leadership had not moved within {waited:?}; it may still move")]
    TimedOut {
        /// For how long it was waited.
        waited: Duration,
    },
    /// This node has stopped.
    #[error(transparent)]
    Stopped(#[from] Fatal),
}

/// Why a node did not start. Unless said otherwise the data folder is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting that cannot work.
    #[error("{what} is {value}: {why}")]
    Config {
        /// Which setting.
        what: &'static str,
        /// What was given.
        value: String,
        /// What it must be.
        why: String,
    },
    /// The data folder cannot be used.
    #[error("cannot use the data folder {}: {source}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process has the data folder open.
    #[error("the data folder {} is in use by another process, or by a node of this one that has not finished stopping; stop it first", .0.display())]
    InUse(PathBuf),
    /// The data folder belongs to another node.
    #[error("the data folder {} belongs to {found}, not {wanted}; use that number, or another folder", path.display())]
    OtherNode {
        /// Which folder.
        path: PathBuf,
        /// Whose it is.
        found: NodeId,
        /// Who was to start.
        wanted: NodeId,
    },
    /// The data folder belongs to a cluster already.
    #[error("the data folder {} belongs to cluster {cluster} already; resume it, or use an empty folder", path.display())]
    Occupied {
        /// Which folder.
        path: PathBuf,
        /// Its cluster.
        cluster: ClusterId,
    },
    /// The data folder belongs to no cluster.
    #[error("the data folder {} belongs to no cluster yet; bootstrap one, or join one", .0.display())]
    Vacant(PathBuf),
    /// What is on the disk cannot be read.
    #[error("the data in {} is damaged: {why}; remove this node, wipe the folder, and add it under a new number", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// No member let this node in.
    #[error("could not join through {tried}: {last}")]
    Join {
        /// The addresses that were asked.
        tried: String,
        /// What the last said.
        last: String,
    },
    /// The node was let in and then something failed.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// It did not become active in time. It is a member: start it again with `resume`.
    #[error("{who} had not become active within {waited:?}: {why}")]
    NotActive {
        /// Which node.
        who: NodeId,
        /// For how long it was waited.
        waited: Duration,
        /// What it waits for.
        why: String,
    },
    /// The network could not be used.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The engine did not start.
    #[error("the engine did not start: {0}")]
    Engine(String),
}
