//! Fence orders: how the cluster ends a life that may still be working.
//!
//! ```text
//!                                      ┌──────────── FenceFailed ────────────┐
//!                                      ▼                                     │
//!   OrderFence ──▶ Ordered ──FenceStarted(n1, 1)──▶ Executing(n1, attempt 1) ┴──▶ Failed(attempt 1, why)
//!                     │                                   │      ▲                       │
//!                     │                                   │      └── FenceStarted(n2, 2) ┘   any leader, next attempt
//!                     └── vouched for, left, expired ─────┴──── proof ──▶ the life is Fenced, kept in history
//! ```
//!
//! An order is a committed entry. So only a quorum can fence, and a leader that dies in the middle leaves the order to
//! the next one. What counts as proof is in `proof.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bounded_text::Reason;
use crate::id::{FenceId, Identity, NodeId, Revision};
use crate::principal::Principal;
pub use crate::proof::{Confirmation, FenceProof};

/// How many ended orders are remembered. The oldest are forgotten first.
pub const HISTORY: usize = 500;

/// Why a life is to be fenced. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Cause {
    /// The leader's failure detector has heard nothing of its node for too long.
    Silent {
        /// For how long it was silent, in milliseconds on the leader's clock.
        for_ms: u64,
    },
    /// Its node has come back as a new life, and nothing proves yet that this one has ended.
    Returned {
        /// The new life.
        as_life: Identity,
    },
    /// An operator or a consumer asked for it.
    Requested {
        /// Why, and for whom.
        reason: Reason,
        /// Who asked. `None` for a caller without a certificate.
        by: Option<Principal>,
    },
    /// The leader received no renewal of its lease in time. Its node may be healthy otherwise.
    Lapsed,
    /// The machine of its node closed its connections and refused new ones, to a quorum of the voters: its process has ended,
    /// or something answers in its place. An opinion, as silence is.
    Refused,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent { for_ms } => write!(f, "silent for {for_ms} ms"),
            Self::Returned { as_life } => write!(f, "its node came back as {as_life}"),
            Self::Requested { reason, by: None } => write!(f, "requested: {reason}"),
            Self::Requested { reason, by: Some(by) } => write!(f, "requested by {by}: {reason}"),
            Self::Lapsed => f.write_str("its lease ran out"),
            Self::Refused => f.write_str("no process of its node listens, as a quorum sees it"),
        }
    }
}

/// How far an open order has come.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Progress {
    /// Committed. No attempt was begun.
    Ordered,
    /// A leader is carrying it out, or was when that leader died.
    Executing {
        /// The leader that calls its fencer.
        by: NodeId,
    },
    /// The last attempt failed. The order stays open: it is tried again, until something proves the end.
    Failed {
        /// What the fencer reported.
        reason: Reason,
    },
}

/// An open order to fence one life.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FenceOrder {
    /// The number of the order.
    pub id: FenceId,
    /// The life to be fenced.
    pub target: Identity,
    /// Why it is to be fenced.
    pub cause: Cause,
    /// The revision of the order.
    pub ordered: Revision,
    /// How many attempts were begun.
    pub attempts: u32,
    /// How far the order has come.
    pub progress: Progress,
}

/// An order that has ended, as the history keeps it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FenceRecord {
    /// The number of the order.
    pub id: FenceId,
    /// The life that was fenced.
    pub target: Identity,
    /// Why it was to be fenced.
    pub cause: Cause,
    /// The revision of the order.
    pub ordered: Revision,
    /// How many attempts were begun.
    pub attempts: u32,
    /// The revision that ended it: the fencing token for taking over the work.
    pub confirmed: Revision,
    /// What proved the end.
    pub proof: FenceProof,
    /// A second proof of another kind, if one arrived later: timed expiry and device fencing run side by side.
    pub second: Option<FenceProof>,
}

/// All fence orders: the open ones, and the last [`HISTORY`] that have ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fences {
    last: FenceId,
    open: BTreeMap<FenceId, FenceOrder>,
    history: VecDeque<FenceRecord>,
}

impl Fences {
    /// The open orders, oldest first.
    pub fn open(&self) -> impl Iterator<Item = &FenceOrder> {
        self.open.values()
    }

    /// The open order with that number.
    pub fn get(&self, id: FenceId) -> Option<&FenceOrder> {
        self.open.get(&id)
    }

    /// The open order against `target`. There is at most one: further requests merge with it.
    pub fn against(&self, target: Identity) -> Option<&FenceOrder> {
        self.open.values().find(|order| order.target == target)
    }

    /// The ended orders, oldest first, at most [`HISTORY`].
    pub fn history(&self) -> impl DoubleEndedIterator<Item = &FenceRecord> {
        self.history.iter()
    }

    /// The latest ended order against `target`, as far as the history reaches.
    pub fn ended(&self, target: Identity) -> Option<&FenceRecord> {
        self.history.iter().rev().find(|record| record.target == target)
    }

    /// Records a second proof of an ended order. Does nothing if the history does not reach back to it.
    pub(crate) fn corroborate(&mut self, id: FenceId, proof: FenceProof) {
        if let Some(record) = self.history.iter_mut().rev().find(|record| record.id == id) {
            record.second.get_or_insert(proof);
        }
    }

    /// The number that the next order will have.
    pub(crate) fn upcoming(&self) -> FenceId {
        self.last.next()
    }

    pub(crate) fn insert(&mut self, order: FenceOrder) {
        self.last = self.last.max(order.id);
        self.open.insert(order.id, order);
    }

    pub(crate) fn get_mut(&mut self, id: FenceId) -> Option<&mut FenceOrder> {
        self.open.get_mut(&id)
    }

    /// Moves an order to the history. Does nothing if it is not open: [`evolve`](crate::evolve()) is total.
    pub(crate) fn close(&mut self, id: FenceId, confirmed: Revision, proof: FenceProof) {
        let Some(order) = self.open.remove(&id) else { return };
        let FenceOrder { id, target, cause, ordered, attempts, progress: _ } = order;
        self.history.push_back(FenceRecord { id, target, cause, ordered, attempts, confirmed, proof, second: None });
        while self.history.len() > HISTORY {
            self.history.pop_front();
        }
    }
}
