//! The state of the cluster: the same on every replica at the same revision.
//!
//! ```text
//!   ClusterState
//!     members        n3: role, addresses, disk, lives #1 #2 …      member.rs
//!     configuration  who votes, as Raft has it                     quorum.rs
//!     fences         open orders, and the history of ended ones    fencing.rs
//!     leadership     the activation whose conclusions count        here
//!     store          locks, records, queues, sessions              store.rs
//! ```
//!
//! Only [`evolve`](crate::evolve()) changes it, one committed event at a time.

use std::collections::BTreeSet;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use crate::codec::{Enveloped, Kind};
use crate::fencing::Fences;
use crate::id::{Activation, ClusterId, Epoch, Identity, NodeId, Nonce, Revision};
pub use crate::member::{Disk, Life, MAX_ADDRESSES, Member, Phase, Role};
use crate::quorum::Configuration;
use crate::shared::Shared;
use crate::store::Store;
use crate::store::lock::{Holder, Lock};

/// The most nodes that one cluster may have, removed ones included, so that its state stays bounded.
pub const MAX_NODES: usize = 4096;

/// The activation that is current: the leader whose conclusions from time count (P4, P5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Leadership {
    /// The number of the activation.
    pub activation: Activation,
    /// The node that leads.
    pub leader: NodeId,
    /// Drawn at random by the leader for this activation. By it the leader recognizes its own.
    pub nonce: Nonce,
}

/// The state of the cluster: the same on every replica at the same revision.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterState {
    pub(crate) id: Option<ClusterId>,
    pub(crate) revision: Revision,
    pub(crate) epoch: Epoch,
    /// A change copies the member that it is of, and a part of the map.
    #[serde(deserialize_with = "crate::collections::map")]
    pub(crate) members: OrdMap<NodeId, Shared<Member>>,
    pub(crate) retired: Shared<BTreeSet<NodeId>>,
    pub(crate) configuration: Shared<Configuration>,
    pub(crate) fences: Shared<Fences>,
    pub(crate) leadership: Option<Leadership>,
    pub(crate) store: Store,
}

impl Enveloped for ClusterState {
    const KIND: Kind = Kind::ClusterState;
}

impl ClusterState {
    /// The state of a cluster that is not founded yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The id of the cluster; `None` before it is founded.
    pub fn id(&self) -> Option<ClusterId> {
        self.id
    }

    /// The revision that last changed this state.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The number of the membership view.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// All members, in the order of nodes.
    pub fn members(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.members.iter().map(|(node, member)| (*node, &**member))
    }

    /// The member with that number.
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.get(&node).map(|member| &**member)
    }

    /// The nodes that were removed. Their numbers are never reused.
    pub fn retired(&self) -> &BTreeSet<NodeId> {
        &self.retired
    }

    /// The voters and learners, as committed in the log.
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// The fence orders: open ones, and the history of ended ones.
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

    /// Whether a lease may be granted to that life: it is active, and no newer life of its node has joined. Once a
    /// newer one has joined the life is closing (P2): its lease is not renewed, and its end still has to be proved.
    pub fn may_renew(&self, who: Identity) -> bool {
        let active = self.life(who).is_some_and(|life| life.phase == Phase::Active);
        active && self.newest(who.node) == Some(who)
    }

    /// Whether that life has nothing that others wait for: it holds no lock, waits for none, and owns no bound record. What it
    /// took from a queue, it took under a lock. Looks through all locks and records.
    pub fn is_idle(&self, who: Identity) -> bool {
        let (store, holder) = (self.store(), Holder::Life(who));
        let involved = |lock: &Lock| {
            lock.grant.is_some_and(|grant| grant.holder == holder)
                || lock.waiters().any(|waiter| waiter.holder == holder)
        };
        !store.locks().any(|(_, lock)| involved(lock)) && !store.records("").any(|(_, r)| r.bound == Some(holder))
    }

    /// The life of that identity. Remembered are lives that have not ended, and the newest of each node.
    pub fn life(&self, who: Identity) -> Option<&Life> {
        self.members.get(&who.node)?.lives.get(&who.incarnation)
    }

    /// The newest life of `node`.
    pub fn newest(&self, node: NodeId) -> Option<Identity> {
        let (incarnation, _) = self.members.get(&node)?.newest()?;
        Some(Identity::new(node, incarnation))
    }

    /// The newest life of `node`, if the process with that nonce began it. A joining process learns its identity by
    /// this.
    pub fn life_of(&self, node: NodeId, nonce: Nonce) -> Option<Identity> {
        let (incarnation, life) = self.members.get(&node)?.newest()?;
        (life.nonce == nonce).then_some(Identity::new(node, incarnation))
    }

    /// Every remembered life, in the order of nodes and incarnations.
    pub fn lives(&self) -> impl Iterator<Item = (Identity, &Life)> {
        self.members.iter().flat_map(|(node, member)| {
            member.lives.iter().map(|(incarnation, life)| (Identity::new(*node, *incarnation), life))
        })
    }

    /// The lives that may be given work, in order.
    pub fn active(&self) -> impl Iterator<Item = Identity> + '_ {
        self.lives().filter(|(_, life)| life.phase == Phase::Active).map(|(who, _)| who)
    }

    /// The standing nodes: those whose newest life has neither ended nor is being fenced, and none of whose lives an
    /// open fence order is against. Only they are counted on for a majority.
    pub fn standing(&self) -> BTreeSet<NodeId> {
        let targets: BTreeSet<NodeId> = self.fences.open().map(|order| order.target.node).collect();
        let stands = |(node, member): (NodeId, &Member)| (member.stands() && !targets.contains(&node)).then_some(node);
        self.members().filter_map(stands).collect()
    }

    /// The voters whose newest life has not ended.
    pub fn voters_not_ended(&self) -> BTreeSet<NodeId> {
        let newest = |node: &NodeId| self.member(*node).and_then(Member::newest);
        let ended = |node: &NodeId| newest(node).is_some_and(|(_, life)| life.phase.has_ended());
        self.configuration.voters().into_iter().filter(|node| !ended(node)).collect()
    }

    /// Whether the lives of so many voters have ended, by leaving or by a fence, that the others are no majority: nothing can be
    /// committed before one comes back.
    pub fn majority_has_ended(&self) -> bool {
        !self.configuration.voters().is_empty() && !self.configuration.has_quorum(&self.voters_not_ended())
    }

    /// The nodes without which the standing nodes would have no majority. Every member if they have none already.
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

    /// How many more standing nodes may be lost, whichever they are, before no majority is left. `None` if none is left
    /// now.
    pub fn failure_tolerance(&self) -> Option<usize> {
        self.configuration.failure_tolerance(&self.standing())
    }

    /// Whether something may be granted to that holder: an active life that is the newest of its node (P13), or an open
    /// session. A holder that has lost this right never regains it.
    pub fn may_hold(&self, holder: Holder) -> bool {
        match holder {
            Holder::Life(who) => self.may_renew(who),
            Holder::Session(session) => self.store.sessions.contains_key(&session),
        }
    }

    /// Whether it is proved that this life can do no more harm: it was fenced, has left, or was replaced before it ever
    /// worked. `false` for a life that has not begun.
    pub fn has_ended(&self, who: Identity) -> bool {
        if let Some(life) = self.life(who) {
            return life.phase.has_ended();
        }
        // Only ended lives are forgotten, and a node is removed only when none of its lives may be working.
        let replaced = self.newest(who.node).is_some_and(|newest| newest > who);
        who.incarnation.get() > 0 && (replaced || self.retired.contains(&who.node))
    }
}
