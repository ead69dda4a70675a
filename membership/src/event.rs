//! What happened: every change of the cluster's state, in the order of the log, the same on every node.

mod text;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cluster::Leadership;
use crate::contract::Contract;
use crate::fencing::Cause;
use crate::id::{BootId, ClusterId, FenceId, Identity, ItemId, NodeId, Nonce, Revision, SessionId};
use crate::member::{Address, Disk, Role};
use crate::proof::FenceProof;
use crate::quorum::Configuration;
use crate::store::lock::{Holder, Name, Release};
use crate::store::record::{Key, Value};
use crate::store::session::Session;
use crate::text::Reason;

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
    /// A life has said that its work dies with its process.
    DeclaredProcessBound {
        /// The life.
        who: Identity,
    },
    /// A request took effect: the events of the same revision are what it did.
    Answered {
        /// The request.
        request: Nonce,
    },
    /// A request was settled before it took effect: it never will.
    Voided {
        /// The request.
        request: Nonce,
    },
    /// A lock is held. Its token is this revision.
    LockGranted {
        /// Which lock.
        name: Name,
        /// By whom.
        holder: Holder,
        /// The fencing token.
        token: Revision,
        /// The request that asked for it.
        request: Nonce,
    },
    /// Somebody waits for a lock.
    LockQueued {
        /// Which lock.
        name: Name,
        /// Who.
        holder: Holder,
        /// Under which request.
        request: Nonce,
    },
    /// Somebody waits for a lock no more.
    LockWithdrawn {
        /// Which lock.
        name: Name,
        /// Who.
        holder: Holder,
        /// Under which request.
        request: Nonce,
    },
    /// A lock is not held any more under that token.
    LockReleased {
        /// Which lock.
        name: Name,
        /// By whom it was held.
        holder: Holder,
        /// Under which token.
        token: Revision,
        /// Why it is not any more.
        why: Release,
    },
    /// A lock is held back: the session that held it ended without having been closed.
    LockDelayed {
        /// Which lock.
        name: Name,
        /// The session's token.
        token: Revision,
        /// For at least how long.
        at_least: Duration,
    },
    /// A lock is held back no more.
    LockLifted {
        /// Which lock.
        name: Name,
        /// The token of the session that had ended.
        token: Revision,
    },
    /// A record was stored. Its version is this revision.
    Put {
        /// Where.
        key: Key,
        /// What.
        value: Value,
        /// With whom it vanishes.
        bound: Option<Holder>,
    },
    /// A record was removed, or vanished with the holder that it was bound to.
    Deleted {
        /// Which.
        key: Key,
    },
    /// An item was appended to a queue.
    Pushed {
        /// The lock that the queue belongs to.
        queue: Name,
        /// Its number.
        item: ItemId,
        /// What.
        value: Value,
    },
    /// An item was taken by the holder of the lock. It stays in the queue until it is acknowledged.
    Taken {
        /// The lock that the queue belongs to.
        queue: Name,
        /// Which item.
        item: ItemId,
        /// Under which token.
        token: Revision,
        /// By which request.
        request: Nonce,
    },
    /// An item is done with.
    Acknowledged {
        /// The lock that the queue belongs to.
        queue: Name,
        /// Which item.
        item: ItemId,
    },
    /// A session was opened. Its number is this revision.
    SessionOpened {
        /// Its number.
        id: SessionId,
        /// How it lives, and whose it is.
        session: Session,
    },
    /// A session has ended.
    SessionEnded {
        /// Which.
        id: SessionId,
        /// Whether its client said so.
        clean: bool,
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
            Self::Corroborated { who, .. } | Self::DeclaredProcessBound { who } => Some(*who),
            Self::LockGranted { .. }
            | Self::LockQueued { .. }
            | Self::LockWithdrawn { .. }
            | Self::LockReleased { .. }
            | Self::LockDelayed { .. }
            | Self::LockLifted { .. }
            | Self::Put { .. }
            | Self::Deleted { .. }
            | Self::Pushed { .. }
            | Self::Taken { .. }
            | Self::Acknowledged { .. }
            | Self::SessionOpened { .. }
            | Self::SessionEnded { .. }
            | Self::Answered { .. }
            | Self::Voided { .. }
            | Self::Founded { .. }
            | Self::RoleChanged { .. }
            | Self::Readdressed { .. }
            | Self::Removed { .. }
            | Self::Configured { .. }
            | Self::LeaderActivated { .. } => None,
        }
    }
}
