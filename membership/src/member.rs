//! Members, and the phases of their lives.
//!
//! ```text
//!            Join                    Activate                     OrderFence
//!   (none) ────────▶ Joining ─────────────────────▶ Active ─────────────────────▶ Fencing
//!                      │     caught up, has its       │                             │
//!                      │     vote, and no former      │ Leave                       │ ConfirmFence (its own order)
//!                      │     life is unproven         ▼                             │ or Leave
//!                      └───────────── Leave ───────▶ Left          Fenced ◀─────────┘
//!                      (or a newer life: it never worked)
//! ```
//!
//! A life is in exactly one phase and never goes back. An *Active* life may be given work. *Left* and *Fenced* are the
//! two ends, and both are proved. A node that comes back is a new life, `n3#2`. It stays *Joining* until the end of
//! each former life is proved: neither a restarted daemon nor a new boot id proves it, because a cloned disk boots too.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bounded_text::text;
use crate::contract::Contract;
use crate::id::{BootId, DiskId, Incarnation, Nonce, Revision};

/// The most addresses that one node may have.
pub const MAX_ADDRESSES: usize = 8;

text!(
    /// Where a node can be reached, as its transport understands it (`10.0.0.3:7400`). A name is resolved again on
    /// every connect. At most 255 bytes, the longest name that DNS allows.
    Address, "an address", 255
);

text!(
    /// By what a fencer tells a life from others of the same node: a process group, a control group, the invocation id of
    /// a unit. At most 255 bytes.
    FenceHint, "a fence hint", 255
);

/// What a node does in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Votes and may be given work.
    Voter,
    /// Receives the log and may be given work, but does not vote.
    Learner,
    /// Votes, and hands leadership over as soon as a voter can lead. Meant for a small machine: consumers give it no
    /// work, although its lives become active like all others.
    Witness,
}

impl Role {
    /// Whether nodes of this role vote.
    pub const fn votes(self) -> bool {
        match self {
            Self::Voter | Self::Witness => true,
            Self::Learner => false,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Voter => "voter",
            Self::Learner => "learner",
            Self::Witness => "witness",
        })
    }
}

/// How far a life has come; see the drawing above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// The life has begun, and may not work yet.
    Joining,
    /// The life may be given work.
    Active,
    /// A fence order against the life is open. It may still be working.
    Fencing,
    /// A proof shows that the life can do no more harm.
    Fenced,
    /// The life itself reported that it had stopped all its work.
    Left,
}

impl Phase {
    /// Whether a life in this phase has ended.
    pub const fn has_ended(self) -> bool {
        match self {
            Self::Joining | Self::Active | Self::Fencing => false,
            Self::Fenced | Self::Left => true,
        }
    }

    /// Whether a life in this phase may be working, as far as the cluster knows.
    pub const fn may_work(self) -> bool {
        match self {
            Self::Active | Self::Fencing => true,
            Self::Joining | Self::Fenced | Self::Left => false,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Joining => "joining",
            Self::Active => "active",
            Self::Fencing => "fencing",
            Self::Fenced => "fenced",
            Self::Left => "left",
        })
    }
}

/// One life of a member.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Life {
    /// How far it has come.
    pub phase: Phase,
    /// The boot of the machine in which it runs. Information for operators and fencers; it proves nothing.
    pub boot: BootId,
    /// Drawn at random by its process at start.
    pub nonce: Nonce,
    /// The revision of the join that began it.
    pub since: Revision,
    /// Where it is, or was, reached. A former life may have run on another machine than its successor.
    pub addresses: Vec<Address>,
    /// Its lease and stop mechanism, fixed for as long as it lasts.
    pub contract: Contract,
    /// Whether it has declared that its work dies with its process.
    pub process_bound: bool,
    /// By what a fencer tells it from other lives of its node. Information for fencers; it proves nothing.
    pub hint: Option<FenceHint>,
}

/// A disk as a node shows it: its id, and how often its data folder has been opened.
///
/// A copy of a disk has the same id. Once either is opened again, the count tells the copy from the original: the
/// cluster accepts a join only with a higher count than that of the last join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Disk {
    /// Drawn at random when the data folder was created.
    pub id: DiskId,
    /// How often the data folder has been opened, including this time.
    pub opened: u64,
}

/// A node that belongs to the cluster, and its lives.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Member {
    /// Its role. Whether it votes already, or still, is in the [`Configuration`](crate::Configuration).
    pub role: Role,
    /// Where it is reached, most preferred first. 1 to [`MAX_ADDRESSES`].
    pub addresses: Vec<Address>,
    /// Its disk at its last join.
    pub disk: Disk,
    /// Its lives by incarnation: the newest, and all earlier ones that have not ended.
    pub lives: BTreeMap<Incarnation, Life>,
}

impl Member {
    /// The newest life. Every member has one; `None` only between two events of one entry.
    pub fn newest(&self) -> Option<(Incarnation, &Life)> {
        self.lives.last_key_value().map(|(incarnation, life)| (*incarnation, life))
    }

    /// Whether the newest life has neither ended nor is being fenced.
    pub(crate) fn stands(&self) -> bool {
        self.newest().is_some_and(|(_, life)| matches!(life.phase, Phase::Joining | Phase::Active))
    }
}

#[cfg(test)]
impl Member {
    /// A member whose first life is in this phase, for unit tests.
    pub(crate) fn with_one_life(role: Role, phase: Phase) -> Self {
        let life = Life {
            phase,
            boot: BootId::new(1),
            nonce: Nonce::new(1),
            since: Revision::new(1),
            addresses: vec![],
            contract: Contract::default(),
            process_bound: false,
            hint: None,
        };
        let disk = Disk { id: DiskId::new(1), opened: 1 };
        Self { role, addresses: vec![], disk, lives: BTreeMap::from([(Incarnation::new(1), life)]) }
    }
}
