//! The replicated log of the lease model: linearizable, and as unhelpful as Raft allows it to be.
//!
//! ```text
//!   committed ──▶ one `State` for all            a node: promised term, the term that it believes to lead in,
//!      ▲                                                 entries of its log that are not committed
//!      │ Commit: only the leader that a majority still
//!      │ follows; what stands elsewhere in that place is gone
//!   Append ◀── proposals of every node that believes it leads
//!   Elect  ◀── a majority promises; entries that were not committed may have been copied to the winner before
//! ```
//!
//! Leaders that were voted out do not hear of it and go on. An entry that one of them appended may be committed by
//! another long after, or vanish; it is committed before whatever the other appends, as in every Raft log.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use quorate_membership::*;

/// The voters, n1 to n3. The first two are members whose leases are watched; the third holds no lease.
pub(crate) const NODES: usize = 3;

/// The members with work.
pub(crate) const MEMBERS: usize = 2;

pub(crate) fn id(node: usize) -> NodeId {
    NodeId::new(node as u64 + 1)
}

/// The production state after some entry, with its fingerprint.
#[derive(Debug, PartialEq)]
pub(crate) struct State {
    pub(crate) cluster: ClusterState,
    /// How many entries changed anything before this one.
    pub(crate) version: u64,
    /// Of all that a rule reads but the numbers that only ever grow.
    pub(crate) digest: u64,
}

impl State {
    pub(crate) fn new(cluster: ClusterState, version: u64) -> Self {
        let mut hasher = DefaultHasher::new();
        for (who, life) in cluster.lives() {
            (who, life.phase).hash(&mut hasher);
        }
        for order in cluster.fences().open() {
            (order.target, order.attempts).hash(&mut hasher);
        }
        for record in cluster.fences().history() {
            (record.target, record.attempts, record.proof.kind(), record.second.is_some()).hash(&mut hasher);
        }
        cluster.leadership().map(|leadership| leadership.leader).hash(&mut hasher);
        Self { cluster, version, digest: hasher.finish() }
    }

    pub(crate) fn activation(&self) -> Option<Activation> {
        self.cluster.leadership().map(|leadership| leadership.activation)
    }

    /// Whether that life has ended by a proof. One that is forgotten has.
    pub(crate) fn over(&self, who: Identity) -> bool {
        self.cluster.life(who).is_none_or(|life| life.phase.has_ended())
    }
}

/// An entry in the log of a node that is not known to be committed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) term: u8,
    pub(crate) command: Command,
}

/// What a node's disk and its consensus say.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Voter {
    pub(crate) promised: u8,
    /// The term that it believes to lead in; 0 for none.
    pub(crate) leads: u8,
    /// Whether its process runs.
    pub(crate) up: bool,
    /// Beyond what is committed.
    pub(crate) uncommitted: Vec<Entry>,
}

/// The consensus of all.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Votes {
    pub(crate) voters: [Voter; NODES],
    /// The term of the entry that was committed last.
    pub(crate) latest: u8,
}

impl Votes {
    /// Term 1, with that leader.
    pub(crate) fn led_by(leader: usize) -> Self {
        let voter = |node| Voter { promised: 1, leads: u8::from(node == leader), up: true, uncommitted: vec![] };
        Self { voters: std::array::from_fn(voter), latest: 1 }
    }

    /// The one leader that a majority still follows, if it runs and believes it.
    pub(crate) fn captain(&self) -> Option<usize> {
        (0..NODES).find(|node| self.is_followed(*node))
    }

    pub(crate) fn is_followed(&self, node: usize) -> bool {
        let term = self.voters[node].leads;
        term > 0 && self.voters.iter().filter(|voter| voter.promised <= term).count() >= majority(NODES)
    }

    pub(crate) fn leaders(&self) -> usize {
        self.voters.iter().filter(|voter| voter.leads > 0).count()
    }

    pub(crate) fn next_term(&self) -> u8 {
        self.voters.iter().map(|voter| voter.promised).max().unwrap_or(0) + 1
    }

    /// Whose entries `node` may have received before it is elected: it had promised no later term than theirs.
    pub(crate) fn sources(&self, node: usize) -> impl Iterator<Item = usize> + '_ {
        let copied = move |from: &usize| {
            let last = self.voters[*from].uncommitted.last();
            last.is_some_and(|entry| entry.term >= self.voters[node].promised)
        };
        (0..NODES).filter(move |from| *from != node).filter(copied)
    }

    /// `node` wins with its own vote and that of `voter`, who steps down if it led.
    pub(crate) fn elect(&mut self, node: usize, voter: usize, from: Option<usize>) {
        let term = self.next_term();
        if let Some(from) = from {
            self.voters[node].uncommitted = self.voters[from].uncommitted.clone();
        }
        self.voters[node].promised = term;
        self.voters[voter].promised = term;
        self.voters[node].leads = term;
        self.voters[voter].leads = 0;
    }

    /// Whether an entry that `node` appends could ever be committed: it leads, and its log has no gap yet.
    pub(crate) fn may_append(&self, node: usize, room: usize) -> bool {
        let voter = &self.voters[node];
        voter.leads >= self.latest && voter.leads > 0 && voter.uncommitted.len() < room
    }

    pub(crate) fn append(&mut self, node: usize, command: Command) {
        let voter = &mut self.voters[node];
        voter.uncommitted.push(Entry { term: voter.leads, command });
    }

    /// Takes the first entry of `node`'s log that is not committed, for it to be. In every other log that place is
    /// held by the same entry, or by one that nobody will ever see again.
    pub(crate) fn take(&mut self, node: usize) -> Option<Entry> {
        let entry = (!self.voters[node].uncommitted.is_empty()).then(|| self.voters[node].uncommitted.remove(0))?;
        self.displace(node, Some(&entry));
        Some(entry)
    }

    /// Something is committed by `node`.
    pub(crate) fn displace(&mut self, node: usize, entry: Option<&Entry>) {
        self.latest = self.voters[node].leads;
        for (_, other) in self.voters.iter_mut().enumerate().filter(|(other, _)| *other != node) {
            match entry.is_some() && other.uncommitted.first() == entry {
                true => {
                    other.uncommitted.remove(0);
                }
                false => other.uncommitted.clear(),
            }
        }
    }
}

/// The life that a command is about, if it exists already.
pub(crate) fn target(command: &Command) -> Option<Identity> {
    match command {
        Command::Expire { target, .. } | Command::OrderFence { target, .. } | Command::ConfirmFence { target, .. } => {
            Some(*target)
        }
        Command::Activate { who } | Command::Leave { who } => Some(*who),
        _ => None,
    }
}

/// The activation that a command was concluded under.
pub(crate) fn under(command: &Command) -> Option<Activation> {
    match command {
        Command::Expire { under, .. } => Some(*under),
        Command::OrderFence { under, .. } => *under,
        _ => None,
    }
}
