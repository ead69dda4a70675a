//! What happened: every change of the cluster's state, in the order of the log, the same on every node.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::cluster::{Disk, Leadership, Role};
use crate::contract::Contract;
use crate::fencing::{Cause, FenceProof};
use crate::id::{BootId, ClusterId, FenceId, Identity, NodeId, Nonce, Revision};
use crate::quorum::Configuration;
use crate::text::{Address, Reason};

/// A committed fact. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Event {
    /// The cluster has its name.
    Founded {
        /// The name.
        cluster: ClusterId,
    },
    /// A new life began. It may not work yet.
    Joined {
        /// The life.
        who: Identity,
        /// What its node is for.
        role: Role,
        /// Where it can be reached.
        addresses: Vec<Address>,
        /// Its disk.
        disk: Disk,
        /// Its boot.
        boot: BootId,
        /// The nonce of its process.
        nonce: Nonce,
        /// What it promises about its own end.
        contract: Contract,
    },
    /// A life may be given work.
    Activated {
        /// The life.
        who: Identity,
    },
    /// A life is to be ended.
    FenceOrdered {
        /// The order.
        order: FenceId,
        /// The life.
        target: Identity,
        /// Why.
        cause: Cause,
    },
    /// A leader is carrying an order out.
    FenceStarted {
        /// The order.
        order: FenceId,
        /// The life.
        target: Identity,
        /// Which leader.
        by: NodeId,
        /// Which attempt, from 1.
        attempt: u32,
    },
    /// An attempt failed. The order stays open.
    FenceFailed {
        /// The order.
        order: FenceId,
        /// The life.
        target: Identity,
        /// Which attempt.
        attempt: u32,
        /// What the fencer said.
        reason: Reason,
    },
    /// A life can do no more harm: its work may be taken over.
    Fenced {
        /// The order.
        order: FenceId,
        /// The life.
        who: Identity,
        /// How it is known.
        proof: FenceProof,
        /// The fencing token for whoever takes its work over.
        token: Revision,
    },
    /// A life said that it had stopped everything: its work may be taken over.
    Left {
        /// The life.
        who: Identity,
        /// The fencing token for whoever takes its work over.
        token: Revision,
    },
    /// A life that never worked was replaced by a newer one of the same node.
    Superseded {
        /// The life.
        who: Identity,
    },
    /// A node is for something else now.
    RoleChanged {
        /// The node.
        node: NodeId,
        /// What for.
        role: Role,
    },
    /// A node can be reached elsewhere.
    Readdressed {
        /// The node.
        node: NodeId,
        /// Where.
        addresses: Vec<Address>,
    },
    /// A node was taken out for good.
    Removed {
        /// The node.
        node: NodeId,
    },
    /// Others vote now.
    Configured {
        /// Who.
        configuration: Configuration,
    },
    /// A leader's conclusions from time count from here on, and no other's.
    LeaderActivated {
        /// Which, and under which number.
        leadership: Leadership,
    },
    /// A second proof of an end that was proved already: timed expiry and device fencing run side by side.
    Corroborated {
        /// The order.
        order: FenceId,
        /// The life.
        who: Identity,
        /// The second proof.
        proof: FenceProof,
    },
}

impl Event {
    /// The life that this event is about, if it is about one.
    pub fn who(&self) -> Option<Identity> {
        match self {
            Self::Joined { who, .. }
            | Self::Activated { who }
            | Self::Fenced { who, .. }
            | Self::Left { who, .. }
            | Self::Superseded { who } => Some(*who),
            Self::FenceOrdered { target, .. }
            | Self::FenceStarted { target, .. }
            | Self::FenceFailed { target, .. } => Some(*target),
            Self::Corroborated { who, .. } => Some(*who),
            Self::Founded { .. }
            | Self::RoleChanged { .. }
            | Self::Readdressed { .. }
            | Self::Removed { .. }
            | Self::Configured { .. }
            | Self::LeaderActivated { .. } => None,
        }
    }
}

fn list(addresses: &[Address]) -> String {
    addresses.iter().map(Address::as_str).collect::<Vec<_>>().join(" ")
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Founded { cluster } => write!(f, "founded {cluster}"),
            Self::Joined { who, role, addresses, .. } => write!(f, "joined {who} as {role} at {}", list(addresses)),
            Self::Activated { who } => write!(f, "activated {who}"),
            Self::FenceOrdered { order, target, cause } => write!(f, "fence ordered {order} against {target}: {cause}"),
            Self::FenceStarted { order, target, by, attempt } => {
                write!(f, "fence started {order} against {target} by {by}, attempt {attempt}")
            }
            Self::FenceFailed { order, target, attempt, reason } => {
                write!(f, "fence failed {order} against {target} in attempt {attempt}: {reason}")
            }
            Self::Fenced { order, who, proof, token } => write!(f, "fenced {who} by {order}, token {token}: {proof}"),
            Self::Left { who, token } => write!(f, "left {who}, token {token}"),
            Self::Superseded { who } => write!(f, "superseded {who}"),
            Self::RoleChanged { node, role } => write!(f, "role of {node} is {role}"),
            Self::Readdressed { node, addresses } => write!(f, "{node} is at {}", list(addresses)),
            Self::Removed { node } => write!(f, "removed {node}"),
            Self::Configured { configuration } => write!(f, "configured {configuration}"),
            Self::LeaderActivated { leadership } => {
                write!(f, "activated leader {} as {}", leadership.leader, leadership.activation)
            }
            Self::Corroborated { order, who, proof } => write!(f, "corroborated {order}, the end of {who}: {proof}"),
        }
    }
}
