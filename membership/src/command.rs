//! Commands: what the cluster can be asked to do.
//!
//! A command is proposed to the log. Once it is committed, every replica answers it with [`decide`](crate::decide()):
//! by events, or by a [`Rejection`](crate::Rejection) that changes nothing. Every command may be repeated.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bounded_text::Reason;
use crate::contract::Contract;
use crate::fencing::Cause;
use crate::id::{Activation, BootId, ClusterId, FenceId, Identity, Incarnation, NodeId, Nonce, Revision, SessionId};
use crate::member::{Address, Disk, FenceHint, Role};
use crate::principal::Principal;
use crate::proof::Confirmation;
use crate::quorum::Configuration;
use crate::store::lock::{Holder, Name};
use crate::store::record::{Change, Check};
use crate::store::request::Request;
use crate::store::session::Session;

/// A command to the cluster. Variants are only ever appended: their position is stored on disks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Command {
    /// Founds the cluster. No other command is accepted before it.
    Found {
        /// The id of the cluster, drawn at random by its first node.
        cluster: ClusterId,
    },
    /// Begins a new life of a node, because a process of it has started. Repeated with the same nonce it changes
    /// nothing.
    Join {
        /// The node whose process has started.
        node: NodeId,
        /// The role of the node. Counts at its first join only; later, [`Command::SetRole`] changes it.
        role: Role,
        /// Where other nodes reach it, most preferred first. 1 to [`MAX_ADDRESSES`](crate::cluster::MAX_ADDRESSES).
        addresses: Vec<Address>,
        /// The disk that holds its data folder, by which a wiped or copied disk is told from the known one.
        disk: Disk,
        /// The boot of its machine.
        boot: BootId,
        /// Drawn at random by the process, so that a repeated join begins one life only.
        nonce: Nonce,
        /// The lease and stop mechanism of this life, from which the wait before an expiry follows.
        contract: Contract,
        /// The former life of this node that had stopped all its work before it ended, and could not commit that, because
        /// no majority was left. It is a [`Command::Leave`] of that life, in the same entry as the join. A life that has
        /// ended already, or is not known, is passed over.
        left: Option<Incarnation>,
        /// By what a fencer tells this life from others of its node.
        hint: Option<FenceHint>,
    },
    /// Lets a joining life work, once it has caught up with the log.
    Activate {
        /// The joining life.
        who: Identity,
    },
    /// Orders that a life be fenced. While an order against it is open, another one changes nothing.
    OrderFence {
        /// The life to be fenced.
        target: Identity,
        /// Why it is to be fenced.
        cause: Cause,
        /// The activation of the leader that ordered it. `None` only if the cause is [`Cause::Requested`].
        under: Option<Activation>,
    },
    /// A leader is about to call the fencer. Committed *before* the call, so that no node is fenced without a quorum.
    StartFence {
        /// The open order.
        order: FenceId,
        /// The leader that calls its fencer.
        by: NodeId,
        /// The number of the attempt: one more than the attempts begun so far.
        attempt: u32,
    },
    /// The fencer failed, or did not answer in time. The order stays open.
    FailFence {
        /// The open order.
        order: FenceId,
        /// The attempt that failed: the latest one.
        attempt: u32,
        /// What the fencer reported.
        reason: Reason,
    },
    /// Proves that the target of an order can do no more harm.
    ConfirmFence {
        /// The order. The confirmation counts for no other one.
        order: FenceId,
        /// The life that the order is against.
        target: Identity,
        /// The proof.
        confirmation: Confirmation,
    },
    /// An operator vouches that a life can do no more harm, whether or not an order against it is open.
    Vouch {
        /// The life that can do no more harm.
        target: Identity,
        /// The name of the operator.
        name: Reason,
        /// How the operator knows.
        reason: Reason,
        /// Who asked: an operator, by its certificate, or the node whose program did. `None` for a caller without one.
        by: Option<Principal>,
    },
    /// A life reports that it has stopped all its work.
    Leave {
        /// The life itself. No other node may report this for it.
        who: Identity,
    },
    /// Changes the role of a node.
    SetRole {
        /// The member to change.
        node: NodeId,
        /// Its new role.
        role: Role,
        /// Who asked: an operator, by its certificate, or the node whose program did. `None` for a caller without one.
        by: Option<Principal>,
    },
    /// Changes the addresses of a node.
    SetAddresses {
        /// The member to change.
        node: NodeId,
        /// Its new addresses, most preferred first. 1 to [`MAX_ADDRESSES`](crate::cluster::MAX_ADDRESSES).
        addresses: Vec<Address>,
        /// Who asked: an operator, by its certificate, or the node whose program did. `None` for a caller without one.
        by: Option<Principal>,
    },
    /// Removes a node for good. Its number is retired.
    Remove {
        /// The member to remove. None of its lives may be working.
        node: NodeId,
        /// Who asked: an operator, by its certificate, or the node whose program did. `None` for a caller without one.
        by: Option<Principal>,
    },
    /// Raft's own configuration changed. Every replica derives this from the log; it is never proposed.
    Configure {
        /// The voters and learners from here on.
        configuration: Configuration,
    },
    /// Begins an activation: a node has gained leadership, or has started as leader. From here on its conclusions from
    /// time count, and those of no other leader.
    ActivateLeader {
        /// The node that leads.
        leader: NodeId,
        /// Drawn at random for this gain of leadership, and used for no other.
        nonce: Nonce,
    },
    /// Expires a life: the leader received no renewal for so long that the lease has run out and the stop mechanism has
    /// acted (E1).
    Expire {
        /// The life to expire.
        target: Identity,
        /// The activation of the leader that waited.
        under: Activation,
        /// For how long it received nothing, on its own clock. At least D of the contract.
        waited: Duration,
    },
    /// A life declares that its work dies with its process, whatever becomes of the machine. This allows the next life
    /// on the same boot to inherit from it ([`Command::Inherit`]).
    DeclareProcessBound {
        /// The life itself. No other node may declare this for it.
        who: Identity,
    },
    /// A new life, on the same boot and the same disk, reports that the process of the former life is gone, and takes
    /// over its locks (P3). Accepted only if the former life had declared that its work dies with its process.
    Inherit {
        /// The new life: the newest of its node, and still joining.
        who: Identity,
        /// The former life of the same node.
        former: Identity,
    },
    /// Asks for a lock.
    Lock {
        /// Makes the command take effect at most once.
        request: Request,
        /// The lock.
        name: Name,
        /// The life or session that is to hold it.
        holder: Holder,
        /// Whether to wait in line while it is not free.
        wait: bool,
    },
    /// Releases a lock. It changes nothing unless the lock is held under this token by this holder, so a late or
    /// repeated release is harmless.
    Unlock {
        /// The lock.
        name: Name,
        /// The life or session that holds it.
        holder: Holder,
        /// The token of the grant to end.
        token: Revision,
    },
    /// Settles a request of unknown outcome: from here on it has taken effect, or never will. If it waits for a lock,
    /// it leaves the line.
    Settle {
        /// The request to settle.
        request: Request,
        /// The lock that it asked for; `None` if it asked for something else.
        lock: Option<Name>,
    },
    /// Changes records and queues in one transaction, if every check holds.
    Write {
        /// Makes the command take effect at most once.
        request: Request,
        /// What has to hold. At most [`MAX_STEPS`](crate::record::MAX_STEPS).
        checks: Vec<Check>,
        /// What is changed then, in one entry. At most [`MAX_STEPS`](crate::record::MAX_STEPS).
        changes: Vec<Change>,
    },
    /// Takes the oldest item of a queue that was not taken under this token yet.
    Take {
        /// Makes the command take effect at most once: repeated, it takes one item.
        request: Request,
        /// The queue, by the name of its lock.
        queue: Name,
        /// The token under which the lock is held.
        token: Revision,
    },
    /// Opens a session for a client that is not a member.
    OpenSession {
        /// Makes the command take effect at most once.
        request: Request,
        /// The times and the label of the session.
        session: Session,
    },
    /// Closes a session: its locks pass on at once.
    CloseSession {
        /// The session. If it is not open, nothing changes.
        session: SessionId,
    },
    /// Expires a session: the leader received no keep-alive for longer than its time to live.
    ExpireSession {
        /// The session. If it is not open, nothing changes.
        session: SessionId,
        /// The activation of the leader that waited.
        under: Activation,
        /// For how long it received nothing, on its own clock.
        waited: Duration,
    },
    /// Ends the lock-delay of a lock whose session expired.
    LiftDelay {
        /// The lock.
        name: Name,
        /// The token under which the session held it.
        token: Revision,
        /// The activation of the leader that waited.
        under: Activation,
        /// For how long it waited, on its own clock.
        waited: Duration,
    },
}

impl Command {
    /// The same command, asked for by `asker`. Only what an operator decides says who asked; others are returned as they are.
    #[must_use]
    pub fn asked_by(mut self, asker: Option<Principal>) -> Self {
        if let Some(by) = self.asker_mut() {
            *by = asker;
        }
        self
    }

    /// Who asked for it, if it is an operator's to decide and somebody with a certificate did.
    pub fn asker(&self) -> Option<&Principal> {
        match self {
            Self::OrderFence { cause: Cause::Requested { by, .. }, .. }
            | Self::ConfirmFence { confirmation: Confirmation::Operator { by, .. }, .. }
            | Self::Vouch { by, .. }
            | Self::SetRole { by, .. }
            | Self::SetAddresses { by, .. }
            | Self::Remove { by, .. } => by.as_ref(),
            _ => None,
        }
    }

    fn asker_mut(&mut self) -> Option<&mut Option<Principal>> {
        match self {
            Self::OrderFence { cause: Cause::Requested { by, .. }, .. }
            | Self::ConfirmFence { confirmation: Confirmation::Operator { by, .. }, .. }
            | Self::Vouch { by, .. }
            | Self::SetRole { by, .. }
            | Self::SetAddresses { by, .. }
            | Self::Remove { by, .. } => Some(by),
            _ => None,
        }
    }
}

impl crate::codec::Enveloped for Command {
    const KIND: crate::codec::Kind = crate::codec::Kind::Command;
}
