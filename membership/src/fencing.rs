//! Fence orders: how a life is ended by others, and what counts as proof that it has ended.
//!
//! ```text
//!                                      ┌──────────── FenceFailed ────────────┐
//!                                      ▼                                     │
//!   OrderFence ──▶ Ordered ──FenceStarted(n1, 1)──▶ Executing(n1, attempt 1) ┴──▶ Failed(attempt 1, why)
//!                     │                                   │      ▲                       │
//!                     │                                   │      └── FenceStarted(n2, 2) ┘   any leader, next attempt
//!                     └── operator's word, clean leave ───┴──── proof ──▶ confirmed: the life is Fenced, kept in history
//! ```
//!
//! An order is a committed entry, so only a quorum can shoot, and a leader that dies in the middle leaves it to the next.
//! A [`FenceProof`] is made from something seen or said, never from an absence: there is no constructor for "timed out".

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{FenceId, Identity, NodeId, Revision};
pub use crate::proof::{Confirmation, FenceProof};
use crate::text::Reason;

/// How many ended orders are remembered. Older ones fall out, oldest first.
pub const HISTORY: usize = 500;

/// Why a life is to be ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Cause {
    /// Nobody has heard of it for so long, in milliseconds of the leader's clock. An opinion of the failure detector.
    Silent {
        /// For how long, in milliseconds.
        for_ms: u64,
    },
    /// The same node has come back as a new life, and nothing proves yet that this one has ended.
    Returned {
        /// The life that came back.
        as_life: Identity,
    },
    /// Somebody asked for it.
    Requested {
        /// Who and why.
        reason: Reason,
    },
    /// Its lease has run out, as far as the leader received renewals of it. It may be there and well otherwise.
    Lapsed,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent { for_ms } => write!(f, "silent for {for_ms} ms"),
            Self::Returned { as_life } => write!(f, "its node came back as {as_life}"),
            Self::Requested { reason } => write!(f, "requested: {reason}"),
            Self::Lapsed => f.write_str("its lease ran out"),
        }
    }
}

/// How far an order has come.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Progress {
    /// Committed; nobody has begun.
    Ordered,
    /// A leader is carrying it out, or was when it died.
    Executing {
        /// Which leader.
        by: NodeId,
    },
    /// The last attempt failed. The order stays open: it is tried again, or an operator speaks.
    Failed {
        /// What the fencer said.
        reason: Reason,
    },
}

/// An open order to end one life.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FenceOrder {
    /// Its number.
    pub id: FenceId,
    /// The life to be ended.
    pub target: Identity,
    /// Why.
    pub cause: Cause,
    /// The entry that ordered it.
    pub ordered: Revision,
    /// How many attempts were begun.
    pub attempts: u32,
    /// How far it has come.
    pub progress: Progress,
}

/// An order that has ended, as history keeps it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FenceRecord {
    /// The order's number.
    pub id: FenceId,
    /// The life that was ended.
    pub target: Identity,
    /// Why it was ordered.
    pub cause: Cause,
    /// The entry that ordered it.
    pub ordered: Revision,
    /// How many attempts were begun.
    pub attempts: u32,
    /// The entry that ended it: the fencing token of those who take over.
    pub confirmed: Revision,
    /// What ended it.
    pub proof: FenceProof,
    /// A second proof of another kind, if one came after it: timed expiry and device fencing run side by side.
    pub second: Option<FenceProof>,
}

/// All orders: the open ones, and what is remembered of the ended.
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

    /// The open order of that number.
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

    /// The ended order against `target`, as far as history reaches.
    pub fn ended(&self, target: Identity) -> Option<&FenceRecord> {
        self.history.iter().rev().find(|record| record.target == target)
    }

    /// Records a second proof of an ended order. Silently nothing if history does not reach so far.
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

    /// Moves an order to history. Silently nothing if it is not open, since events are only ever replayed in order.
    pub(crate) fn close(&mut self, id: FenceId, confirmed: Revision, proof: FenceProof) {
        let Some(order) = self.open.remove(&id) else { return };
        let FenceOrder { id, target, cause, ordered, attempts, progress: _ } = order;
        self.history.push_back(FenceRecord { id, target, cause, ordered, attempts, confirmed, proof, second: None });
        while self.history.len() > HISTORY {
            self.history.pop_front();
        }
    }
}
