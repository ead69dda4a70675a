//! The errors of a node. Each says what happened, what it did or did not change, and the remedy.
//!
//! ```text
//!   StartError       the node does not run, or is not in its cluster
//!   ProposeError     a command has no result             ReadError       a read is not linearizable now
//!   HandOverError    leadership did not move             SucceedError    this node does not take the lead over
//!   TransportError   a call to another node failed  ◀──  Refusal         that node refused it
//!   Fatal            the node has stopped for good
//! ```

use std::path::PathBuf;
use std::time::Duration;

use quorate_membership::codec::CodecError;
use quorate_membership::{ClusterId, Disk, Identity, NodeId, Rejection, TextError};

/// Why a node refused a call from another process. The refused call changed nothing, unless a variant says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The caller belongs to another cluster.
    #[error(
        "the caller belongs to cluster {theirs}, this node to {ours}; correct the address, or wipe the data folder that came from elsewhere"
    )]
    OtherCluster {
        /// The cluster of this node.
        ours: ClusterId,
        /// The cluster of the caller.
        theirs: ClusterId,
    },
    /// The call was addressed to another node.
    #[error("the call was meant for {meant}, this is {here}; their addresses are mixed up: set the address of {meant}")]
    OtherNode {
        /// The node that the caller addressed.
        meant: NodeId,
        /// The node that was reached.
        here: NodeId,
    },
    /// The caller's number belonged to a node that was removed. A number is not given twice.
    #[error("{0} was removed from this cluster; wipe its data folder and add it under a new number")]
    Retired(NodeId),
    /// The caller's number belongs to another disk: the disk was wiped, or the number is used twice.
    #[error("{node} is known with disk {}, not {}; a wiped disk is a new node: remove {node}, and add this one under a new number", known.id, got.id)]
    OtherDisk {
        /// The caller's number.
        node: NodeId,
        /// The disk on record in the cluster.
        known: Disk,
        /// The disk of the caller.
        got: Disk,
    },
    /// The caller's disk was opened less often than the one that called under this number before: a copy, or an old state.
    #[error("{node} calls from a disk opened {} times, and has called from one opened {} times before: a copy or an old state of it is running; stop one of the two", got.opened, known.opened)]
    ClonedDisk {
        /// The caller's number.
        node: NodeId,
        /// The disk that called last.
        known: Disk,
        /// The disk of the caller.
        got: Disk,
    },
    /// Two processes call under one number with equal disks: copies of one folder that both run.
    #[error(
        "two processes call as {0} from copies of one disk; stop one of them, wipe its folder, and add it under a new number"
    )]
    TwoProcesses(NodeId),
    /// The caller runs with another timing. That would break the leader lease, which both rely on.
    #[error("the caller's timing profile differs from this node's; give every node of the cluster the same one")]
    OtherTiming,
    /// A restarted voter does not vote yet (P22).
    #[error(
        "no vote before {remaining:?} have passed: a promise that this node gave before its restart may still hold; try again then"
    )]
    Embargo {
        /// The time until it may vote.
        remaining: Duration,
    },
    /// This node has joined no cluster yet.
    #[error("this node belongs to no cluster yet; try again once it has joined")]
    NotReady,
    /// This node has stopped for good.
    #[error("this node has stopped: {0}")]
    Stopped(String),
    /// The call breaks the rules of the protocol.
    #[error("malformed: {0}")]
    Malformed(String),
    /// The rules of the cluster refuse the join.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The caller's certificate does not allow the call.
    #[error("not allowed: {0}")]
    NotAllowed(String),
    /// The node cannot do it at the moment. A join with this answer may have taken effect all the same; it may be repeated.
    #[error("{0}; try again")]
    Unavailable(String),
}

/// Why a call to another node has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// No connection could be made. The call did not arrive, and changed nothing.
    #[error("{0}")]
    Unreachable(String),
    /// No answer came in time. The call may have arrived.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The connection broke during the call. The call may have arrived.
    #[error("{0}")]
    Broken(String),
    /// The call arrived and was refused. It changed nothing.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Why a node has stopped for good. It has to be started again; its disk is as it was when it stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fatal {
    /// Storage failed. What was acknowledged before is durable. What was being written may be durable or not; the next
    /// start finds out. A failed fsync is never retried, because the kernel may have dropped the pages.
    #[error(
        "storage failed, and this node has stopped rather than acknowledge what is not durable: {0}; check the disk, then start the node again"
    )]
    Storage(String),
    /// This build cannot read an entry of the log. The entry was not skipped.
    #[error("an entry of the log cannot be applied: {0}; upgrade this node if another runs a newer version")]
    Entry(#[from] CodecError),
    /// The node was shut down by its user.
    #[error("this node was shut down")]
    Shutdown,
    /// The engine ended for a reason of its own.
    #[error("the engine ended: {0}; start the node again")]
    Engine(String),
}

/// Why a command has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// The rules of the cluster refuse the command. Nothing changed.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// No leader was found in time. Nothing was proposed.
    #[error("no leader was found within {waited:?}; nothing was proposed; check that a majority of the voters is up")]
    NoLeader {
        /// How long this node tried.
        waited: Duration,
    },
    /// The command was proposed. It may take effect now, later or never. Every command may be repeated safely.
    #[error("the outcome is unknown: {reason}; look at the state, or repeat the command")]
    OutcomeUnknown {
        /// What kept the result from this node.
        reason: String,
    },
    /// The command is too large, or cannot be encoded. Nothing was proposed.
    #[error("the command cannot be written to the log: {0}; nothing was proposed")]
    Encoding(#[from] CodecError),
    /// A name or a key is not one. Nothing was proposed.
    #[error("{0}; nothing was proposed")]
    Text(#[from] TextError),
    /// The leader refuses calls of this node. Nothing was proposed.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// This node has stopped for good. Nothing was proposed.
    #[error(transparent)]
    Stopped(#[from] Fatal),
}

/// Why a linearizable read is not possible now. Reading changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// No quorum confirmed a leader in time. The state of this node may be stale.
    #[error(
        "no quorum confirmed a leader within {waited:?}, so the state of this node may be stale; check that a majority of the voters is up"
    )]
    MaybeStale {
        /// How long this node tried.
        waited: Duration,
    },
    /// This node has stopped for good.
    #[error(transparent)]
    Stopped(#[from] Fatal),
}

/// Why this node did not stand for election at once in place of a leader that has ended. Nothing changed; the ordinary
/// election takes place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SucceedError {
    /// The life that ended did not lead, as far as this node knows.
    #[error("{who} does not lead ({}); there is nothing to take over", leader.map_or("no leader is known".to_string(), |leader| format!("{leader} does")))]
    NotTheLeader {
        /// The life that ended.
        who: Identity,
        /// The leader that this node knows.
        leader: Option<NodeId>,
    },
    /// This voter was restarted recently, and a promise of its former life may still hold (P22).
    #[error("this node was restarted recently and may stand for election only in {remaining:?}")]
    Embargo {
        /// The time until it may stand.
        remaining: Duration,
    },
    /// The disk of this node takes no writes. A node that can make nothing durable cannot lead.
    #[error("this node cannot lead now: {0}")]
    Disk(String),
    /// This node does not vote. Only a voter can lead.
    #[error("{0} does not vote and cannot lead; call this on a voter")]
    NoVoter(NodeId),
    /// This node has stopped for good.
    #[error(transparent)]
    Stopped(#[from] Fatal),
}

/// Why leadership did not move.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandOverError {
    /// This node does not lead, and only the leader can hand over. Nothing changed.
    #[error("this node does not lead; ask {}", leader.map_or("the leader".into(), |l| l.to_string()))]
    NotLeader {
        /// The leader that this node knows.
        leader: Option<NodeId>,
    },
    /// The node named cannot lead. Nothing changed.
    #[error("{0} cannot take leadership over: it is not a voter that stands for election")]
    NotAVoter(NodeId),
    /// No other voter can lead. Nothing changed.
    #[error("no other voter can take leadership over; start or add one")]
    Nobody,
    /// The other voter was asked to take over, and had not done so in time. It still may.
    #[error("leadership had not moved within {waited:?}, and may still move; look at the state before asking again")]
    TimedOut {
        /// How long this node waited.
        waited: Duration,
    },
    /// This node has stopped for good.
    #[error(transparent)]
    Stopped(#[from] Fatal),
}

/// Why a node did not start, or did not come into its cluster. Unless a variant says otherwise, the data folder is as it
/// was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting cannot work.
    #[error("{what} is {value}: {why}")]
    Config {
        /// The name of the setting.
        what: &'static str,
        /// The value that was given.
        value: String,
        /// The values that would work, and why this one does not.
        why: String,
    },
    /// The data folder cannot be used.
    #[error("cannot use the data folder {}: {cause}", path.display())]
    Folder {
        /// The data folder.
        path: PathBuf,
        /// The error of the system.
        cause: std::io::Error,
    },
    /// Another process has the data folder open.
    #[error("the data folder {} is in use by another process, or by a node of this one that has not finished stopping; stop it first", .0.display())]
    InUse(PathBuf),
    /// The data folder belongs to another node.
    #[error("the data folder {} belongs to {found}, not {wanted}; start {found} on it, or use another folder", path.display())]
    OtherNode {
        /// The data folder.
        path: PathBuf,
        /// The node that it belongs to.
        found: NodeId,
        /// The node that was to start.
        wanted: NodeId,
    },
    /// The data folder belongs to a cluster already.
    #[error("the data folder {} belongs to cluster {cluster} already; resume the node, or use an empty folder", path.display())]
    Occupied {
        /// The data folder.
        path: PathBuf,
        /// The cluster that it belongs to.
        cluster: ClusterId,
    },
    /// The data folder belongs to no cluster.
    #[error("the data folder {} belongs to no cluster yet; bootstrap a cluster, or join one", .0.display())]
    Vacant(PathBuf),
    /// The data on the disk cannot be trusted. Nothing was overwritten.
    #[error("the data in {} is damaged: {why}; remove this node, wipe the folder, and add it under a new number", path.display())]
    Damaged {
        /// The damaged file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No member took this node in.
    #[error("could not join through {tried}: {last}")]
    Join {
        /// The addresses that were tried.
        tried: String,
        /// The error of the last one.
        last: String,
    },
    /// The command that announces this life failed. The node may be a member already: start it again with `resume`.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// The node did not become active in time. It is a member: start it again with `resume`.
    #[error("{who} had not become active within {waited:?}: {why}; it is a member: resume it")]
    NotActive {
        /// The node.
        who: NodeId,
        /// How long it waited.
        waited: Duration,
        /// What it was waiting for.
        why: String,
    },
    /// No leader confirmed the new life of this node in time. Its join may still take effect, and resuming again is
    /// safe.
    #[error(
        "no leader confirmed the new life of {node} within {waited:?}. Asked: {answers}. Start enough members for a majority; if they have moved, resume with their present addresses as seeds"
    )]
    Resume {
        /// This node.
        node: NodeId,
        /// How long it tried.
        waited: Duration,
        /// Each address that was asked, with its last answer.
        answers: String,
    },
    /// This process still protects work of a life that is over, so the next cannot begin in it. Nothing was changed.
    #[error("{0} still protects {1}: report it as stopped before the next life begins here, or end the process")]
    Protected(Identity, String),
    /// The node has failed, and no further life of it may begin in this process. Nothing was changed.
    #[error("{0}")]
    Stopped(Fatal),
    /// The node cannot listen on its address.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// The address.
        address: String,
        /// The error of the system.
        cause: std::io::Error,
    },
    /// The engine did not start.
    #[error("the engine did not start: {0}")]
    Engine(String),
}
