//! Why a command was refused. A rejection changes nothing: `decide` never held the state but by shared reference.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::contract::ContractError;
use crate::id::{Activation, ClusterId, DiskId, FenceId, Identity, ItemId, NodeId, Revision, SessionId};
use crate::member::{Disk, Phase};
use crate::store::lock::{Holder, Name};
use crate::store::record::Key;
use crate::store::request::Request;
use crate::text::TextError;

/// A refusal, with what to do instead. None of them changed anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Rejection {
    /// The cluster has a name already.
    #[error("the cluster is founded already, as {0}; join it instead")]
    AlreadyFounded(ClusterId),
    /// Nothing can happen before the cluster has a name.
    #[error("the cluster is not founded yet; bootstrap it on one node first")]
    NotFounded,
    /// No such member.
    #[error("{0} is not a member of this cluster; add it first")]
    UnknownNode(NodeId),
    /// The number belonged to a node that was removed.
    #[error("{0} was removed from this cluster and its number is not given again; add the node under a new number")]
    RetiredNode(NodeId),
    /// The node is known with another disk: it was wiped, or the number was given twice.
    #[error(
        "{node} is known with disk {known}, not {got}: a wiped disk is a new node; remove {node} and add this one under a new number"
    )]
    OtherDisk {
        /// The node.
        node: NodeId,
        /// The disk that the cluster knows.
        known: DiskId,
        /// The disk that asked.
        got: DiskId,
    },
    /// The disk was opened no more often than when the node last joined: it is an older state of it, or a copy.
    #[error("the disk of {node} was opened {} times, but had been opened {} times when {node} last joined: this is a copy or an old state of it; use the original, or wipe this one and add it under a new number", got.opened, known.opened)]
    ClonedDisk {
        /// The node.
        node: NodeId,
        /// What the cluster knows.
        known: Disk,
        /// What asked.
        got: Disk,
    },
    /// So many nodes cannot be kept.
    #[error("the cluster has had {limit} nodes, the most it can keep")]
    TooManyNodes {
        /// The bound.
        limit: u64,
    },
    /// A node must be reachable somewhere, and at not too many places.
    #[error("{got} addresses given, between 1 and {limit} needed")]
    Addresses {
        /// How many were given.
        got: u64,
        /// The bound.
        limit: u64,
    },
    /// A text is blank or too long.
    #[error("{0}")]
    Text(TextError),
    /// No such life.
    #[error("no life {0} is known")]
    UnknownLife(Identity),
    /// The life is not in the phase that this needs.
    #[error("{who} is {phase}")]
    Phase {
        /// The life.
        who: Identity,
        /// Where it stands.
        phase: Phase,
    },
    /// The life is over and forgotten, or was dropped before it worked: a newer one of its node exists.
    #[error("{who} is over and was replaced by {newest}")]
    Replaced {
        /// The life.
        who: Identity,
        /// The newest of the same node.
        newest: Identity,
    },
    /// A former life of the node has not been proved to have ended.
    #[error(
        "{who} may not work before {former} is proved to have ended: fence it, or confirm by an operator that it is off"
    )]
    FormerLife {
        /// The life that waits.
        who: Identity,
        /// The life that has to end.
        former: Identity,
    },
    /// The node does not receive the log yet, or has not been given its vote.
    #[error("{0} has not been taken into the configuration that its role needs")]
    NotConfigured(NodeId),
    /// What would be left could not decide anything.
    #[error(
        "without {without} only {standing} of {voters} voters would stand, fewer than a majority; bring another voter back first"
    )]
    Majority {
        /// The node that would be missing.
        without: NodeId,
        /// How many voters would stand.
        standing: u64,
        /// How many voters there are.
        voters: u64,
    },
    /// No such open order: it never was, or it is confirmed.
    #[error("no fence order {0} is open")]
    UnknownOrder(FenceId),
    /// The order is against another life.
    #[error("fence order {order} is against {target}, not {got}")]
    OtherTarget {
        /// The order.
        order: FenceId,
        /// Whom it is against.
        target: Identity,
        /// Who was named.
        got: Identity,
    },
    /// The attempt is not the one that this needs: somebody else has gone on.
    #[error("fence order {order} is at attempt {at}, {got} does not fit")]
    Attempt {
        /// The order.
        order: FenceId,
        /// How many attempts were begun.
        at: u32,
        /// What was named.
        got: u32,
    },
    /// The member still has a life that may act.
    #[error("{0} has not ended: let it leave, or fence it, before its node is removed")]
    StillLives(Identity),
    /// The cluster needs at least one node that votes and can be given work.
    #[error("{0} is the last voter; promote another first")]
    LastVoter(NodeId),
    /// The contract of a joining life cannot be kept.
    #[error("{0}")]
    Contract(ContractError),
    /// It was concluded under an activation that is not the current one: another leader counts now, or none yet.
    #[error("{under} is not the current activation ({}): what was concluded under it does not count", current.map_or("there is none".to_string(), |a| a.to_string()))]
    OtherActivation {
        /// Under which.
        under: Activation,
        /// The current one.
        current: Option<Activation>,
    },
    /// An opinion of a leader that does not say under which activation it is held.
    #[error("a leader's opinion counts only under its activation, and none was named")]
    WithoutActivation,
    /// No wait proves the end of this life: nothing stops it that could be relied on.
    #[error("{0} has no stop mechanism with a bound: fence it, or vouch for its end")]
    NeverExpires(Identity),
    /// The wait was shorter than the life's contract asks for.
    #[error("nothing was received of {who} for {waited:?}, and its contract asks for {need:?}; wait on")]
    TooEarly {
        /// The life.
        who: Identity,
        /// For how long nothing was received.
        waited: Duration,
        /// D of its contract.
        need: Duration,
    },
    /// A life has not declared that its work dies with its process.
    #[error("{0} has not declared that its work dies with its process; fence it, or vouch for its end")]
    NotMortal(Identity),
    /// A life cannot stand in for one of another boot, or node.
    #[error("{who} cannot stand in for {former}: it is not the next life of the same node on the same boot")]
    NotItsSuccessor {
        /// The life that asked.
        who: Identity,
        /// The life that it named.
        former: Identity,
    },
    /// The request was settled before it took effect, and never will.
    #[error("request {0} was settled before it took effect; make a new one")]
    Void(Request),
    /// The request was under way for too long: whether a copy of it took effect is not remembered for ever.
    #[error("request {request} came to stand at {at}, too late or from nowhere; make a new one")]
    Outdated {
        /// The request.
        request: Request,
        /// Where it came to stand.
        at: Revision,
    },
    /// The holder may be granted nothing: its life does not stand, or its session is not open.
    #[error(
        "{0} may hold nothing: its life is not active, is being fenced or was replaced, or its session is not open"
    )]
    MayNotHold(Holder),
    /// The lock is not free, and the request was not to wait.
    #[error("lock `{name}` is held by {holder} under {token}")]
    LockHeld {
        /// Which lock.
        name: Name,
        /// By whom.
        holder: Holder,
        /// Under which token.
        token: Revision,
    },
    /// The lock is held back after the unclean end of a session, and the request was not to wait.
    #[error("lock `{name}` is held back after its session ended uncleanly ({token}); wait in line for it")]
    LockHeldBack {
        /// Which lock.
        name: Name,
        /// The token of the session that ended.
        token: Revision,
    },
    /// A bound was reached.
    #[error("there are {limit} {what} already, the most there may be; {remedy}")]
    Full {
        /// What there are too many of.
        what: String,
        /// The bound.
        limit: u64,
        /// What can be done.
        remedy: String,
    },
    /// The lock is not held under that token: somebody else may hold it, or nobody.
    #[error("lock `{name}` is not held under {token} ({}); begin nothing under that token any more", current.map_or("it is free".to_string(), |now| format!("it is held under {now}")))]
    NotHolder {
        /// Which lock.
        name: Name,
        /// The token that was shown.
        token: Revision,
        /// The token that it is held under.
        current: Option<Revision>,
    },
    /// A record has another version than was named.
    #[error("record `{key}` {}, and the write expects that it {}; read it again", version_of(*found), version_of(*expected))]
    Version {
        /// Which record.
        key: Key,
        /// The version that was named; `None` for no such record.
        expected: Option<Revision>,
        /// The version that it has.
        found: Option<Revision>,
    },
    /// A record has another value than was named.
    #[error("record `{key}` {}, and not the value that the write expects; read it again", version_of(*found))]
    Value {
        /// Which record.
        key: Key,
        /// The version that it has; `None` for no such record.
        found: Option<Revision>,
    },
    /// A life is not proved to be over.
    #[error("{0} is not proved to be over; wait for its end")]
    NotOver(Identity),
    /// A write has too many checks or changes, names a record twice, or is too large.
    #[error("the write has {got} {what}, and {limit} is the most; split it")]
    WriteTooLarge {
        /// What there is too much of.
        what: String,
        /// How much.
        got: u64,
        /// The bound.
        limit: u64,
    },
    /// One write names the same thing twice.
    #[error("the write changes `{0}` twice; a key may occur once")]
    Twice(String),
    /// A value is too large.
    #[error("a value of {got} bytes was given, and {limit} is the most; store it elsewhere and its place here")]
    ValueTooLarge {
        /// Its size in bytes.
        got: u64,
        /// The bound in bytes.
        limit: u64,
    },
    /// The item is not in the queue, or was not taken under that token.
    #[error("{item} was not taken from `{queue}` under {token}; take it first")]
    NotTaken {
        /// The queue.
        queue: Name,
        /// Which item.
        item: ItemId,
        /// The token that was shown.
        token: Revision,
    },
    /// Nothing waits in the queue that was not taken under this token already.
    #[error("nothing waits in `{0}`")]
    QueueEmpty(Name),
    /// No such session is open.
    #[error("session {0} is not open; open another")]
    UnknownSession(SessionId),
    /// A session cannot live so.
    #[error("a session's {what} of {got:?} is not between {from:?} and {to:?}")]
    SessionTimes {
        /// Which of its times.
        what: String,
        /// What was given.
        got: Duration,
        /// The least.
        from: Duration,
        /// The most.
        to: Duration,
    },
    /// The wait of a leader was shorter than needed.
    #[error("{what} asks for a wait of {need:?}, and {waited:?} was waited; wait on")]
    WaitOn {
        /// What was waited for.
        what: String,
        /// For how long.
        waited: Duration,
        /// What is needed.
        need: Duration,
    },
}

fn version_of(version: Option<Revision>) -> String {
    version.map_or("is not there".into(), |version| format!("has version {version}"))
}
