//! Why a command was refused, and what to do instead.
//!
//! A rejection changes nothing: [`decide`](crate::decide()) takes the state by shared reference. Each text completes
//! the phrase "failed to ..." and names a remedy where there is one. The scenarios in `tests/scripts/` show
//! most of them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bounded_text::TextError;
use crate::contract::ContractError;
use crate::id::{Activation, ClusterId, DiskId, FenceId, Identity, ItemId, NodeId, Revision, SessionId};
use crate::member::{Disk, Phase};
use crate::store::lock::{Holder, Name};
use crate::store::record::Key;
use crate::store::request::Request;

/// A refused command. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Rejection {
    /// The cluster has been founded under this id.
    #[error("the cluster is already founded as {0}; join it instead")]
    AlreadyFounded(ClusterId),
    /// No command is accepted before the cluster is founded.
    #[error("the cluster is not founded yet; bootstrap it on one node first")]
    NotFounded,
    /// The cluster has no such member.
    #[error("{0} is not a member of this cluster; add it first")]
    UnknownNode(NodeId),
    /// The number belonged to a node that was removed. Numbers are never reused.
    #[error("{0} was removed from this cluster and its number is never reused; add the node under a new number")]
    RetiredNode(NodeId),
    /// The cluster knows the node with another disk: the disk was wiped, or two nodes were given one number.
    #[error(
        "{node} is known with disk {known}, not {got}: a wiped disk is a new node; remove {node} and add this one under a new number"
    )]
    OtherDisk {
        /// The node that asked to join.
        node: NodeId,
        /// The disk of its last join.
        known: DiskId,
        /// The disk that it shows now.
        got: DiskId,
    },
    /// The disk has not been opened more often than at the last join, so it is a copy or an older state of it.
    #[error("the disk of {node} was opened {} times, but had been opened {} times when {node} last joined: this is a copy or an old state of it; use the original, or wipe this one and add it under a new number", got.opened, known.opened)]
    ClonedDisk {
        /// The node that asked to join.
        node: NodeId,
        /// The disk at its last join.
        known: Disk,
        /// The disk that it shows now.
        got: Disk,
    },
    /// The cluster has reached [`MAX_NODES`](crate::cluster::MAX_NODES).
    #[error(
        "the cluster has had {limit} nodes, removed ones included, which is the limit; no further node can be added"
    )]
    TooManyNodes {
        /// [`MAX_NODES`](crate::cluster::MAX_NODES).
        limit: u64,
    },
    /// A node needs at least one address, and at most [`MAX_ADDRESSES`](crate::cluster::MAX_ADDRESSES).
    #[error("{got} addresses were given; a node needs between 1 and {limit}")]
    Addresses {
        /// How many were given.
        got: u64,
        /// [`MAX_ADDRESSES`](crate::cluster::MAX_ADDRESSES).
        limit: u64,
    },
    /// A text in the command is blank or too long.
    #[error("{0}")]
    Text(TextError),
    /// The node exists, but has not had such a life.
    #[error("the cluster knows no life {0}")]
    UnknownLife(Identity),
    /// The life is in a phase in which the command does not apply.
    #[error("{who} is in phase {phase}, in which the command does not apply")]
    Phase {
        /// The life that the command names.
        who: Identity,
        /// Its phase.
        phase: Phase,
    },
    /// The life has ended and is no longer remembered, or was replaced before it worked. Its node has a newer life.
    #[error("{who} has ended and was replaced by {newest}")]
    Replaced {
        /// The life that the command names.
        who: Identity,
        /// The newest life of the same node.
        newest: Identity,
    },
    /// The end of a former life of the node is not proved yet.
    #[error(
        "{who} may not work before {former} is proved to have ended; fence {former}, or vouch as an operator that it is off"
    )]
    FormerLife {
        /// The life that was to be activated.
        who: Identity,
        /// The life whose end is not proved.
        former: Identity,
    },
    /// The node does not receive the log yet, or its role votes and it has no vote yet.
    #[error(
        "{0} does not receive the log yet, or does not have the vote of its role; wait until the leader has added it"
    )]
    NotConfigured(NodeId),
    /// The rest of the cluster would have no majority. Counted are voters whose newest life neither ended nor is being
    /// fenced.
    #[error(
        "without {without} only {standing} of {voters} voters would remain, fewer than a majority; bring another voter back first"
    )]
    Majority {
        /// The node that would no longer count.
        without: NodeId,
        /// How many voters would remain.
        standing: u64,
        /// How many voters there are, in both sets of a change together.
        voters: u64,
    },
    /// The order has ended, or never existed.
    #[error("fence order {0} is not open")]
    UnknownOrder(FenceId),
    /// The confirmation names another life than the order.
    #[error("fence order {order} is against {target}, not {got}")]
    OtherTarget {
        /// The order that the confirmation names.
        order: FenceId,
        /// The life that the order is against.
        target: Identity,
        /// The life that the confirmation names.
        got: Identity,
    },
    /// The command names an attempt that was not begun, or that is no longer the latest. Another leader may have gone
    /// on.
    #[error("attempt {got} is out of turn: fence order {order} has had {at} attempts")]
    Attempt {
        /// The order that the command names.
        order: FenceId,
        /// How many attempts were begun.
        at: u32,
        /// The attempt that the command names.
        got: u32,
    },
    /// A life of the node may still be working.
    #[error("{0} has not ended; let it leave, or fence it, before its node is removed")]
    StillLives(Identity),
    /// The cluster needs at least one member of role `voter`: learners do not vote, and witnesses are given no work.
    #[error("{0} is the last voter; promote another first")]
    LastVoter(NodeId),
    /// The contract of a joining life is out of bounds.
    #[error("{0}")]
    Contract(ContractError),
    /// A leader's conclusion names an activation that is not the current one.
    #[error("{under} is not the current activation ({}); conclusions drawn under it are void", current.map_or("none".to_string(), |a| a.to_string()))]
    OtherActivation {
        /// The activation that the command names.
        under: Activation,
        /// The current activation; `None` before the first.
        current: Option<Activation>,
    },
    /// A leader's order for silence or return that names no activation.
    #[error("a leader's order has to name the activation that it was made under, and this one names none")]
    WithoutActivation,
    /// The contract of the life has no bound, so no wait proves its end.
    #[error("{0} has no stop mechanism with a time bound, so it never expires; fence it, or vouch for its end")]
    NeverExpires(Identity),
    /// The leader waited for less time than the contract of the life requires.
    #[error("no renewal of {who} was received for {waited:?}, but its contract requires {need:?}; keep waiting")]
    TooEarly {
        /// The life that was to expire.
        who: Identity,
        /// For how long the leader received nothing of it.
        waited: Duration,
        /// D of its contract (E1).
        need: Duration,
    },
    /// The former life did not declare that its work dies with its process, so its process being gone proves nothing.
    #[error("{0} has not declared that its work dies with its process; fence it, or vouch for its end")]
    NotProcessBound(Identity),
    /// Only the newest life of the same node on the same boot can inherit, and only while it is joining.
    #[error("{who} cannot inherit from {former}: it is not the next life of the same node on the same boot")]
    NotItsSuccessor {
        /// The life that asked to inherit.
        who: Identity,
        /// The life that it named as its predecessor.
        former: Identity,
    },
    /// The request was settled before it took effect, so it never will.
    #[error("request {0} was settled before it took effect; make a new one")]
    Void(Request),
    /// The request was committed more than [`WINDOW`](crate::request::WINDOW) entries after it was made, or claims to
    /// have been made later than it was committed. Whether an earlier copy of it took effect is no longer known.
    #[error("request {request} was committed at {at}, outside the window in which it counts; make a new one")]
    Outdated {
        /// The request as it was made.
        request: Request,
        /// The entry that carries it.
        at: Revision,
    },
    /// The holder can be granted nothing, now or later: its life is not its node's newest active one, or its session is
    /// not open.
    #[error(
        "{0} may not hold anything: its life is not active, is being fenced or was replaced, or its session is not open"
    )]
    MayNotHold(Holder),
    /// The lock is held, and the request did not ask to wait.
    #[error("lock `{name}` is held by {holder} under {token}")]
    LockHeld {
        /// The lock that was asked for.
        name: Name,
        /// Its holder.
        holder: Holder,
        /// The token of its grant.
        token: Revision,
    },
    /// The lock is in the lock-delay of a session that expired, and the request did not ask to wait.
    #[error("lock `{name}` is held back because the session that held it under {token} expired; wait in line for it")]
    LockHeldBack {
        /// The lock that was asked for.
        name: Name,
        /// The token under which the session held it.
        token: Revision,
    },
    /// A bound of the store is reached.
    #[error("the limit of {limit} {what} is reached; {remedy}")]
    Full {
        /// What the bound counts, in words: "locks", "items in queue `x`".
        what: String,
        /// The bound.
        limit: u64,
        /// What makes room, as an imperative: "release some".
        remedy: String,
    },
    /// The lock is not held under the token that the command shows. It may be free, or have another holder.
    #[error("lock `{name}` is not held under {token} ({}); start nothing more under that token", current.map_or("it is free".to_string(), |now| format!("it is held under {now}")))]
    NotHolder {
        /// The lock that the command names.
        name: Name,
        /// The token that the command shows.
        token: Revision,
        /// The token under which the lock is held; `None` if it is free.
        current: Option<Revision>,
    },
    /// A record does not have the version that the write expects.
    #[error("record `{key}` {}, but the write expects that it {}; read it again", version_of(*found), version_of(*expected))]
    Version {
        /// The record that the check names.
        key: Key,
        /// The version that the check expects; `None`: no such record.
        expected: Option<Revision>,
        /// The version that the record has; `None`: there is no such record.
        found: Option<Revision>,
    },
    /// A record does not have the value that the write expects.
    #[error("record `{key}` {}, but not the value that the write expects; read it again", version_of(*found))]
    Value {
        /// The record that the check names.
        key: Key,
        /// The version that the record has; `None`: there is no such record.
        found: Option<Revision>,
    },
    /// The end of a life is not proved.
    #[error("{0} is not proved to have ended; wait for its end")]
    NotOver(Identity),
    /// A write has too many checks, changes or bytes.
    #[error("the write has {got} {what}, more than the limit of {limit}; split it")]
    WriteTooLarge {
        /// What the bound counts: "checks", "changes" or "bytes".
        what: String,
        /// How many the write has.
        got: u64,
        /// The bound.
        limit: u64,
    },
    /// One write changes the same record or item twice.
    #[error("the write changes `{0}` twice; name it once")]
    Twice(String),
    /// A value is larger than [`MAX_VALUE`](crate::record::MAX_VALUE).
    #[error("the value has {got} bytes, more than the limit of {limit}; store it elsewhere and a reference to it here")]
    ValueTooLarge {
        /// The size of the value, in bytes.
        got: u64,
        /// [`MAX_VALUE`](crate::record::MAX_VALUE), in bytes.
        limit: u64,
    },
    /// The item is not in the queue, or was not taken under this token.
    #[error("{item} was not taken from `{queue}` under {token}; take it first")]
    NotTaken {
        /// The queue that the command names.
        queue: Name,
        /// The item that was to be acknowledged.
        item: ItemId,
        /// The token that the command shows.
        token: Revision,
    },
    /// The queue has no item that was not already taken under this token.
    #[error("queue `{0}` has no item left to take")]
    QueueEmpty(Name),
    /// The session has ended, or never existed.
    #[error("session {0} is not open; open another")]
    UnknownSession(SessionId),
    /// A time of a session is out of bounds.
    #[error("the session's {what} is {got:?}; it must lie between {from:?} and {to:?}")]
    SessionTimes {
        /// Which time, in words: "time to live" or "lock-delay".
        what: String,
        /// The time that was given.
        got: Duration,
        /// The shortest allowed.
        from: Duration,
        /// The longest allowed.
        to: Duration,
    },
    /// The leader waited for less time than a session or a lock-delay requires.
    #[error("{what} requires a wait of {need:?}, but only {waited:?} have passed; keep waiting")]
    WaitOn {
        /// What was waited for, in words: "session s77", "lock `x`".
        what: String,
        /// How long the leader waited, on its clock.
        waited: Duration,
        /// The wait that is required.
        need: Duration,
    },
}

fn version_of(version: Option<Revision>) -> String {
    version.map_or("does not exist".into(), |version| format!("has version {version}"))
}
