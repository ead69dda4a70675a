//! Events: every change of the cluster's state, in the order of the log and the same on every node.
//!
//! [`decide`](crate::decide()) answers a command with events, [`evolve`](crate::evolve()) applies them, and consumers
//! read them. The printed forms are in `event/text.rs`; topics, for readers that want only some events, are in
//! `topic.rs`.

mod text;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bounded_text::Reason;
use crate::cluster::Leadership;
use crate::contract::Contract;
use crate::fencing::Cause;
use crate::id::{BootId, ClusterId, FenceId, Identity, ItemId, NodeId, Nonce, Revision, SessionId};
use crate::member::{Address, Disk, FenceHint, Role};
use crate::principal::Principal;
use crate::proof::FenceProof;
use crate::quorum::Configuration;
use crate::store::lock::{Holder, Name, Release};
use crate::store::record::{Key, Value};
use crate::store::session::Session;

/// A committed change. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Event {
    /// The cluster was founded.
    Founded {
        /// Its id.
        cluster: ClusterId,
    },
    /// A new life began. It may not work yet.
    Joined {
        /// The new life.
        who: Identity,
        /// The role of its node.
        role: Role,
        /// Where other nodes reach it, most preferred first.
        addresses: Vec<Address>,
        /// The disk that holds its data folder.
        disk: Disk,
        /// The boot of its machine.
        boot: BootId,
        /// Drawn at random by its process: by it the process recognizes its own join.
        nonce: Nonce,
        /// Its lease and stop mechanism.
        contract: Contract,
        /// By what a fencer tells it from other lives of its node.
        hint: Option<FenceHint>,
    },
    /// A life may be given work.
    Activated {
        /// The life that may work now.
        who: Identity,
    },
    /// A life is to be fenced. It may still be working.
    FenceOrdered {
        /// The number of the order.
        order: FenceId,
        /// The life to be fenced.
        target: Identity,
        /// Why it is to be fenced.
        cause: Cause,
    },
    /// A leader is carrying out an order.
    FenceStarted {
        /// The number of the order.
        order: FenceId,
        /// The life to be fenced.
        target: Identity,
        /// The leader that calls its fencer.
        by: NodeId,
        /// The number of the attempt, from 1.
        attempt: u32,
    },
    /// An attempt failed. The order stays open.
    FenceFailed {
        /// The number of the order.
        order: FenceId,
        /// The life to be fenced.
        target: Identity,
        /// The number of the attempt, from 1.
        attempt: u32,
        /// What the fencer reported.
        reason: Reason,
    },
    /// A life can do no more harm. Its work may be taken over.
    Fenced {
        /// The number of the order that this ends.
        order: FenceId,
        /// The life that has ended.
        who: Identity,
        /// What proves it.
        proof: FenceProof,
        /// The fencing token for taking over its work.
        token: Revision,
    },
    /// A life reported that it had stopped all its work. Its work may be taken over.
    Left {
        /// The life that has ended.
        who: Identity,
        /// The fencing token for taking over its work.
        token: Revision,
    },
    /// A life that never worked was dropped, because its node has a newer one or was removed.
    Superseded {
        /// The life that was dropped.
        who: Identity,
    },
    /// The role of a node changed.
    RoleChanged {
        /// The node whose role changed.
        node: NodeId,
        /// Its new role.
        role: Role,
        /// Who asked for it. `None` for a caller without a certificate.
        by: Option<Principal>,
    },
    /// The addresses of a node changed.
    Readdressed {
        /// The node whose addresses changed.
        node: NodeId,
        /// Its new addresses, most preferred first.
        addresses: Vec<Address>,
        /// Who asked for it. `None` for a caller without a certificate.
        by: Option<Principal>,
    },
    /// A node was removed for good.
    Removed {
        /// The node. Its number is retired.
        node: NodeId,
        /// Who asked for it. `None` for a caller without a certificate.
        by: Option<Principal>,
    },
    /// The voters or learners of Raft changed.
    Configured {
        /// The new configuration.
        configuration: Configuration,
    },
    /// An activation began: from here on the conclusions of this leader from time count, and those of no other.
    LeaderActivated {
        /// The leader and the number of its activation.
        leadership: Leadership,
    },
    /// A second proof arrived of an end that was already proved: timed expiry and device fencing run side by side.
    Corroborated {
        /// The number of the ended order.
        order: FenceId,
        /// The life that had ended.
        who: Identity,
        /// The second proof, of another kind than the first.
        proof: FenceProof,
    },
    /// A life declared that its work dies with its process.
    DeclaredProcessBound {
        /// The life that declared it.
        who: Identity,
    },
    /// A request took effect. What it did are the other events of the same revision.
    Answered {
        /// The nonce of the request.
        request: Nonce,
    },
    /// A request was settled before it took effect, so it never will.
    Voided {
        /// The nonce of the request.
        request: Nonce,
    },
    /// A lock was granted.
    LockGranted {
        /// The lock.
        name: Name,
        /// Its new holder.
        holder: Holder,
        /// The fencing token: the revision of this grant.
        token: Revision,
        /// The nonce of the request that asked for it.
        request: Nonce,
    },
    /// A request began to wait for a lock.
    LockQueued {
        /// The lock.
        name: Name,
        /// The life or session that waits.
        holder: Holder,
        /// The nonce of the request.
        request: Nonce,
    },
    /// A request stopped waiting for a lock, because it was settled.
    LockWithdrawn {
        /// The lock.
        name: Name,
        /// The life or session that waited.
        holder: Holder,
        /// The nonce of the request.
        request: Nonce,
    },
    /// A lock was released.
    LockReleased {
        /// The lock.
        name: Name,
        /// Its former holder.
        holder: Holder,
        /// The token of the grant that ended.
        token: Revision,
        /// Why it was released.
        why: Release,
    },
    /// A lock-delay began, because the session that held the lock expired. The lock is granted to no one until it ends.
    LockDelayed {
        /// The lock.
        name: Name,
        /// The token under which the session held it.
        token: Revision,
        /// How long the delay lasts at least.
        at_least: Duration,
    },
    /// A lock-delay ended.
    LockLifted {
        /// The lock.
        name: Name,
        /// The token under which the expired session had held it.
        token: Revision,
    },
    /// A record was stored. Its version is this revision.
    Put {
        /// The key of the record.
        key: Key,
        /// Its new value.
        value: Value,
        /// The holder with whose end it is deleted; `None`: it stays.
        bound: Option<Holder>,
    },
    /// A record was deleted, by a write or with the holder that it was bound to.
    Deleted {
        /// The key of the record.
        key: Key,
    },
    /// An item was appended to a queue.
    Pushed {
        /// The queue, by the name of its lock.
        queue: Name,
        /// The number of the item.
        item: ItemId,
        /// Its value.
        value: Value,
    },
    /// An item was taken by the holder of the lock. It stays in the queue until it is acknowledged.
    Taken {
        /// The queue, by the name of its lock.
        queue: Name,
        /// The number of the item.
        item: ItemId,
        /// The token of the lock's holder.
        token: Revision,
        /// The nonce of the request that took it.
        request: Nonce,
    },
    /// An item was acknowledged, and has left its queue.
    Acknowledged {
        /// The queue, by the name of its lock.
        queue: Name,
        /// The number of the item.
        item: ItemId,
    },
    /// A session was opened.
    SessionOpened {
        /// Its number: the number of this revision.
        id: SessionId,
        /// Its times and its label.
        session: Session,
    },
    /// A session ended.
    SessionEnded {
        /// Its number.
        id: SessionId,
        /// `true` if it was closed, `false` if it expired.
        clean: bool,
    },
}

impl Event {
    /// Who asked for this change, where an operator decides on it and somebody with a certificate did.
    pub fn asked_by(&self) -> Option<&Principal> {
        match self {
            Self::FenceOrdered { cause: Cause::Requested { by, .. }, .. }
            | Self::Fenced { proof: FenceProof::Operator { by, .. }, .. }
            | Self::Corroborated { proof: FenceProof::Operator { by, .. }, .. }
            | Self::RoleChanged { by, .. }
            | Self::Readdressed { by, .. }
            | Self::Removed { by, .. } => by.as_ref(),
            _ => None,
        }
    }

    /// The life that this event is about; `None` for other events.
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
