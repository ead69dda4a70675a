//! What may be asked of the cluster. A command is proposed to the log; once committed, [`decide`](crate::decide()) answers it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cluster::{Disk, Role};
use crate::contract::Contract;
use crate::fencing::{Cause, Confirmation};
use crate::id::{Activation, BootId, ClusterId, FenceId, Identity, NodeId, Nonce};
use crate::quorum::Configuration;
use crate::text::{Address, Reason};

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
}

impl crate::codec::Record for Command {
    const KIND: crate::codec::Kind = crate::codec::Kind::Command;
}
