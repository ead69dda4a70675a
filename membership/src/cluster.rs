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

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::contract::Contract;
use crate::fencing::Fences;
use crate::id::{Activation, BootId, ClusterId, DiskId, Epoch, Identity, Incarnation, NodeId, Nonce, Revision};
use crate::quorum::Configuration;
use crate::store::Store;
use crate::text::Address;

/// The most nodes that one cluster may ever have had members or retired, so that its state stays bounded.
pub const MAX_NODES: usize = 4096;

/// The most addresses of one node.
pub const MAX_ADDRESSES: usize = 8;

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

/// The leader whose conclusions from time count (P4, P5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Leadership {
    /// Its number.
    pub activation: Activation,
    /// The leader.
    pub leader: NodeId,
    /// Drawn by the leader for this activation: by it the leader knows its own.
    pub nonce: Nonce,
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
    fn stands(&self) -> bool {
        self.newest().is_some_and(|(_, life)| matches!(life.phase, Phase::Joining | Phase::Active))
    }
}

/// The state of the cluster: the same on every replica at the same revision.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterState {
    pub(crate) id: Option<ClusterId>,
    pub(crate) revision: Revision,
    pub(crate) epoch: Epoch,
    pub(crate) members: BTreeMap<NodeId, Member>,
    pub(crate) retired: BTreeSet<NodeId>,
    pub(crate) configuration: Configuration,
    pub(crate) fences: Fences,
    pub(crate) leadership: Option<Leadership>,
    pub(crate) store: Store,
}

impl crate::codec::Enveloped for ClusterState {
    const KIND: crate::codec::Kind = crate::codec::Kind::ClusterState;
}

impl ClusterState {
    /// A cluster that has not been founded.
    pub fn new() -> Self {
        Self::default()
    }

    /// Which cluster this is; `None` before it is founded.
    pub fn id(&self) -> Option<ClusterId> {
        self.id
    }

    /// The entry that last changed anything here.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The number of the membership view.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The members, by node.
    pub fn members(&self) -> &BTreeMap<NodeId, Member> {
        &self.members
    }

    /// The member `node`.
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.get(&node)
    }

    /// Nodes that were removed. Their numbers are never given again.
    pub fn retired(&self) -> &BTreeSet<NodeId> {
        &self.retired
    }

    /// Who votes, as the log has it.
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// The fence orders, open and ended.
    pub fn fences(&self) -> &Fences {
        &self.fences
    }

    /// The locks, records, queues and sessions.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The current activation; `None` before the first.
    pub fn leadership(&self) -> Option<Leadership> {
        self.leadership
    }

    /// Whether a lease may be granted to that life: it is active, no order to end it is open, and no newer life of its
    /// node has joined (P2: then it is closing, and neither renewed nor taken for dead).
    pub fn may_renew(&self, who: Identity) -> bool {
        let active = self.life(who).is_some_and(|life| life.phase == Phase::Active);
        active && self.newest(who.node) == Some(who)
    }

    /// The life of that name, if it is still remembered: not ended, or its node's newest.
    pub fn life(&self, who: Identity) -> Option<&Life> {
        self.members.get(&who.node)?.lives.get(&who.incarnation)
    }

    /// The newest life of `node`.
    pub fn newest(&self, node: NodeId) -> Option<Identity> {
        let (incarnation, _) = self.members.get(&node)?.newest()?;
        Some(Identity::new(node, incarnation))
    }

    /// The newest life of `node` if it was begun by the process with that nonce: how a joining process finds its name.
    pub fn life_of(&self, node: NodeId, nonce: Nonce) -> Option<Identity> {
        let (incarnation, life) = self.members.get(&node)?.newest()?;
        (life.nonce == nonce).then_some(Identity::new(node, incarnation))
    }

    /// Every remembered life with its phase, in the order of nodes and incarnations.
    pub fn lives(&self) -> impl Iterator<Item = (Identity, &Life)> {
        self.members.iter().flat_map(|(node, member)| {
            member.lives.iter().map(|(incarnation, life)| (Identity::new(*node, *incarnation), life))
        })
    }

    /// The lives that may be given work, in order.
    pub fn active(&self) -> impl Iterator<Item = Identity> + '_ {
        self.lives().filter(|(_, life)| life.phase == Phase::Active).map(|(who, _)| who)
    }

    /// The nodes whose newest life stands: neither ended nor being ended. Who else could hold a majority?
    pub fn standing(&self) -> BTreeSet<NodeId> {
        let struck: BTreeSet<NodeId> = self.fences.open().map(|order| order.target.node).collect();
        let stands = |(node, member): (&NodeId, &Member)| (member.stands() && !struck.contains(node)).then_some(*node);
        self.members.iter().filter_map(stands).collect()
    }

    /// The nodes without which no majority would stand; every member when none stands already.
    pub fn needed(&self) -> BTreeSet<NodeId> {
        let standing = self.standing();
        if !self.configuration.has_quorum(&standing) {
            return self.members.keys().copied().collect();
        }
        let decides_without = |node: &NodeId| {
            let mut rest = standing.clone();
            rest.remove(node);
            self.configuration.has_quorum(&rest)
        };
        self.configuration.voters().into_iter().filter(|node| !decides_without(node)).collect()
    }

    /// How many more nodes may be lost before no majority stands; `None` when none stands already.
    pub fn failure_tolerance(&self) -> Option<usize> {
        self.configuration.failure_tolerance(&self.standing())
    }
}
