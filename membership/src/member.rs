//! What is true of the cluster: its members, the phase of each life, the voters, the open fence orders.
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
//! A life is in exactly one phase and never goes back. *Active* is the right to be given work; *Left* and *Fenced* are
//! the two ends, and both are proved. A node that comes back is a new life, `n3#2`; it stays *Joining* until each
//! former life has ended by a proof, because neither a restarted daemon nor a new boot id proves that: a cloned disk
//! boots too.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::contract::Contract;
use crate::id::{BootId, DiskId, Incarnation, Nonce, Revision};
use crate::text::text;

/// The most addresses of one node.
pub const MAX_ADDRESSES: usize = 8;

text!(
    /// Where a node can be reached, as its transport understands it (`10.0.0.3:7400`). A name is resolved again on every
    /// connect. At most 255 bytes, the longest name that DNS allows.
    Address, "an address", 255
);

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Votes and may be given work.
    Voter,
    /// Receives everything and may be given work, without a vote.
    Learner,
    /// Votes, and hands leadership over as soon as a voter can take it. Meant for a small machine: whoever places work
    /// gives it none, although its lives become active like all others.
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

/// Where a life stands; see the picture above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Known, not yet allowed to work.
    Joining,
    /// May be given work.
    Active,
    /// An order to end it is open. It may still be working.
    Fencing,
    /// Proved to do no more harm.
    Fenced,
    /// It said itself that it had stopped.
    Left,
}

impl Phase {
    /// Whether this phase is an end.
    pub const fn has_ended(self) -> bool {
        match self {
            Self::Joining | Self::Active | Self::Fencing => false,
            Self::Fenced | Self::Left => true,
        }
    }

    /// Whether a life in this phase may be working, as far as the cluster can know.
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
    /// Where it stands.
    pub phase: Phase,
    /// Which boot of the machine it runs in. For people and fencers; proves nothing.
    pub boot: BootId,
    /// Drawn by its process at start.
    pub nonce: Nonce,
    /// The entry that began it.
    pub since: Revision,
    /// Where it can be reached, or could: a former life on another machine is not where its successor is.
    pub addresses: Vec<Address>,
    /// What it promises about its own end.
    pub contract: Contract,
    /// Whether it has said that its work dies with its process.
    pub process_bound: bool,
}

/// A disk as a node shows it: which, and how often its data folder has been opened.
///
/// A copy of a disk has the same id. The count tells the copy from the original once either was opened again: the
/// cluster accepts only a higher count than the last that joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Disk {
    /// Drawn when the data folder was made.
    pub id: DiskId,
    /// How often the data folder has been opened, this time included.
    pub opened: u64,
}

/// A node that belongs to the cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Member {
    /// What it is for. What it *is* just now, the configuration says.
    pub role: Role,
    /// Where it can be reached, most preferred first. At most [`MAX_ADDRESSES`].
    pub addresses: Vec<Address>,
    /// Its disk, as of its last join.
    pub disk: Disk,
    /// Its lives: all that have not ended, and the newest, keyed by incarnation.
    pub lives: BTreeMap<Incarnation, Life>,
}

impl Member {
    /// The newest life. A member has one from its first join on.
    pub fn newest(&self) -> Option<(Incarnation, &Life)> {
        self.lives.last_key_value().map(|(incarnation, life)| (*incarnation, life))
    }

    /// Whether the newest life has begun and not ended and is not being ended.
    pub(crate) fn stands(&self) -> bool {
        self.newest().is_some_and(|(_, life)| matches!(life.phase, Phase::Joining | Phase::Active))
    }
}
