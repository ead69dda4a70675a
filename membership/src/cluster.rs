//! The state of the cluster: the same on every replica at the same revision.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::codec::{Enveloped, Kind};
use crate::fencing::Fences;
use crate::id::{Activation, ClusterId, Epoch, Identity, NodeId, Nonce, Revision};
pub use crate::member::{Disk, Life, MAX_ADDRESSES, Member, Phase, Role};
use crate::quorum::Configuration;
use crate::store::Store;
use crate::store::lock::Holder;

/// The most nodes that one cluster may ever have had members or retired, so that its state stays bounded.
pub const MAX_NODES: usize = 4096;

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

impl Enveloped for ClusterState {
    const KIND: Kind = Kind::ClusterState;
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

    /// Whether something may be granted to that holder: a life that may act and is its node's newest (P13), or an open
    /// session. One that may not now never will again.
    pub fn may_hold(&self, holder: Holder) -> bool {
        match holder {
            Holder::Life(who) => self.may_renew(who),
            Holder::Session(session) => self.store.sessions.contains_key(&session),
        }
    }

    /// Whether it is proved that this life can do no more harm: fenced, left, or replaced before it ever worked. A life
    /// that has not begun is not over.
    pub fn has_ended(&self, who: Identity) -> bool {
        if let Some(life) = self.life(who) {
            return life.phase.has_ended();
        }
        // Forgotten are only lives that ended; a node is removed only when none of its lives may work any more.
        let replaced = self.newest(who.node).is_some_and(|newest| newest > who);
        who.incarnation.get() > 0 && (replaced || self.retired.contains(&who.node))
    }
}
