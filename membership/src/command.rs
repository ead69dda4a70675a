//! What may be asked of the cluster. A command is proposed to the log; once committed, [`decide`](crate::decide()) answers it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::contract::Contract;
use crate::fencing::Cause;
use crate::id::{Activation, BootId, ClusterId, FenceId, Identity, NodeId, Nonce, Revision, SessionId};
use crate::member::{Address, Disk, Role};
use crate::proof::Confirmation;
use crate::quorum::Configuration;
use crate::store::lock::{Holder, Name};
use crate::store::record::{Change, Check};
use crate::store::request::Request;
use crate::store::session::Session;
use crate::text::Reason;

/// A request to the cluster. Variants are only ever appended: their order is on disks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Command {
    /// Names the cluster; the first command of all.
    Found {
        /// Drawn by whoever founds it.
        cluster: ClusterId,
    },
    /// A process of a node has started: begins a new life. Repeated with the same nonce it changes nothing.
    Join {
        /// The node.
        node: NodeId,
        /// What the node is to be for. Only counts at its first join; later, [`Command::SetRole`] changes it.
        role: Role,
        /// Where it can be reached.
        addresses: Vec<Address>,
        /// Its disk.
        disk: Disk,
        /// Its boot.
        boot: BootId,
        /// Drawn by the process.
        nonce: Nonce,
        /// What this life promises about its own end.
        contract: Contract,
    },
    /// A joining life has caught up: it may be given work.
    Activate {
        /// Which life.
        who: Identity,
    },
    /// Ends a life by fencing it. Repeated for the same target it changes nothing.
    OrderFence {
        /// Which life.
        target: Identity,
        /// Why.
        cause: Cause,
        /// The activation of the leader whose opinion it is; `None` for what was requested.
        under: Option<Activation>,
    },
    /// A leader is about to call the fencer. Committed *before* the call, so that nobody is shot without a quorum.
    StartFence {
        /// Which order.
        order: FenceId,
        /// Which leader.
        by: NodeId,
        /// Which attempt: one more than were begun.
        attempt: u32,
    },
    /// The fencer did not succeed, or not in time.
    FailFence {
        /// Which order.
        order: FenceId,
        /// Which attempt.
        attempt: u32,
        /// What it said.
        reason: Reason,
    },
    /// It is certain that the target can do no more harm.
    ConfirmFence {
        /// Which order. A confirmation counts for no other.
        order: FenceId,
        /// The life that the order is against.
        target: Identity,
        /// How it is known.
        confirmation: Confirmation,
    },
    /// An operator says of a life that it can do no more harm, whether or not an order against it is open.
    Vouch {
        /// Which life.
        target: Identity,
        /// Who says so.
        name: Reason,
        /// How they know.
        reason: Reason,
    },
    /// A life says that it has stopped everything.
    Leave {
        /// Which life: only it may say so.
        who: Identity,
    },
    /// Changes what a node is for.
    SetRole {
        /// The node.
        node: NodeId,
        /// What it shall be for.
        role: Role,
    },
    /// Changes where a node can be reached.
    SetAddresses {
        /// The node.
        node: NodeId,
        /// Where.
        addresses: Vec<Address>,
    },
    /// Takes a node out for good. Its number is retired.
    Remove {
        /// The node.
        node: NodeId,
    },
    /// Raft's own configuration changed. Derived by every replica from the log, never proposed by anybody.
    Configure {
        /// Who votes now.
        configuration: Configuration,
    },
    /// A node has gained leadership, or started as leader: from here on its conclusions from time count, and no other's.
    ActivateLeader {
        /// The leader.
        leader: NodeId,
        /// Drawn for this gain of leadership, and never used for another.
        nonce: Nonce,
    },
    /// The lease of a life has run out, and its stop mechanism has acted: nothing was received of it for long enough.
    Expire {
        /// Which life.
        target: Identity,
        /// The activation of the leader that waited.
        under: Activation,
        /// For how long nothing was received, on that leader's clock.
        waited: Duration,
    },
    /// A life says that its work dies with its process, whatever becomes of the machine. Lets its successor on the same
    /// boot stand in for it ([`Command::Inherit`]).
    DeclareProcessBound {
        /// Which life: only it may say so.
        who: Identity,
    },
    /// A new life of a node, on the same boot and the same disk, says that the former one is gone with its process, and
    /// takes its locks up (P3). Only where the former one had declared that its work dies with it.
    Inherit {
        /// The new life.
        who: Identity,
        /// The former one.
        former: Identity,
    },
    /// Asks for a lock.
    Lock {
        /// The request.
        request: Request,
        /// Which lock.
        name: Name,
        /// Who is to hold it.
        holder: Holder,
        /// Whether to wait in line when it is not free.
        wait: bool,
    },
    /// Releases a lock. If it is not held under that token and by that holder nothing changes, so a late or repeated
    /// release is harmless.
    Unlock {
        /// Which lock.
        name: Name,
        /// Who holds it.
        holder: Holder,
        /// The token of the grant that ends.
        token: Revision,
    },
    /// Decides what became of a request: it took effect, or never will. Takes one that waits for a lock out of the line.
    Settle {
        /// The request.
        request: Request,
        /// The lock that it asked for, if it asked for one.
        lock: Option<Name>,
    },
    /// Changes records and queues, if every check holds.
    Write {
        /// The request.
        request: Request,
        /// What has to hold.
        checks: Vec<Check>,
        /// What is done then, in one entry.
        changes: Vec<Change>,
    },
    /// Takes the oldest item of a queue that was not taken under this token yet.
    Take {
        /// The request: said twice it takes one item.
        request: Request,
        /// The lock that the queue belongs to.
        queue: Name,
        /// The token that the lock is held under.
        token: Revision,
    },
    /// Opens a session for a client that is no member.
    OpenSession {
        /// The request.
        request: Request,
        /// How it lives, and whose it is.
        session: Session,
    },
    /// Ends a session cleanly: its locks pass on at once.
    CloseSession {
        /// Which.
        session: SessionId,
    },
    /// Nothing was heard of a session for long enough.
    ExpireSession {
        /// Which.
        session: SessionId,
        /// The activation of the leader that waited.
        under: Activation,
        /// For how long, on that leader's clock.
        waited: Duration,
    },
    /// A lock was held back for long enough after the unclean end of a session.
    LiftDelay {
        /// Which lock.
        name: Name,
        /// The token of the session that ended.
        token: Revision,
        /// The activation of the leader that waited.
        under: Activation,
        /// For how long, on that leader's clock.
        waited: Duration,
    },
}

impl crate::codec::Enveloped for Command {
    const KIND: crate::codec::Kind = crate::codec::Kind::Command;
}
