//! Majorities: of one set of voters, and of two while the cluster changes from one set to the other.
//!
//! ```text
//!   uniform   {n1 n2 n3}                    a quorum holds 2 of 3
//!   joint     {n1 n2 n3} and {n1 n2 n4}     a quorum holds 2 of each (Raft, section 6)
//! ```
//!
//! Learners receive the log and do not count. The design follows the `quorum` package of etcd-io/raft: small, complete,
//! and tested against counting by hand.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::NodeId;

/// The smallest number that is more than half of `voters`. Of 0 it is 1, so an empty set never has a majority.
pub const fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// The voters and learners of Raft, as committed in the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Configuration {
    voters: BTreeSet<NodeId>,
    outgoing: Option<BTreeSet<NodeId>>,
    learners: BTreeSet<NodeId>,
}

impl Configuration {
    /// A configuration with one set of voters, the usual case.
    pub fn uniform(voters: impl IntoIterator<Item = NodeId>, learners: impl IntoIterator<Item = NodeId>) -> Self {
        Self { voters: voters.into_iter().collect(), outgoing: None, learners: learners.into_iter().collect() }
    }

    /// A change from the voters `outgoing` to `voters`. Until it is finished, every decision needs a majority of both
    /// sets.
    pub fn joint(
        outgoing: impl IntoIterator<Item = NodeId>,
        voters: impl IntoIterator<Item = NodeId>,
        learners: impl IntoIterator<Item = NodeId>,
    ) -> Self {
        Self { outgoing: Some(outgoing.into_iter().collect()), ..Self::uniform(voters, learners) }
    }

    /// Whether a change of voters was begun and is not finished.
    pub fn is_joint(&self) -> bool {
        self.outgoing.is_some()
    }

    /// Whether `node` votes, in either set.
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.sets().any(|set| set.contains(&node))
    }

    /// Whether `node` votes now, and still votes after an unfinished change.
    pub fn is_lasting_voter(&self, node: NodeId) -> bool {
        self.sets().all(|set| set.contains(&node))
    }

    /// Whether `node` receives the log without voting.
    pub fn is_learner(&self, node: NodeId) -> bool {
        self.learners.contains(&node) && !self.is_voter(node)
    }

    /// Whether `node` receives the log at all.
    pub fn contains(&self, node: NodeId) -> bool {
        self.is_voter(node) || self.learners.contains(&node)
    }

    /// All voters, of either set.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        self.sets().flatten().copied().collect()
    }

    /// All nodes that receive the log: voters and learners.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.voters().into_iter().chain(self.learners.iter().copied()).collect()
    }

    /// The sets that each need a majority: one, or two during a change.
    pub fn sets(&self) -> impl Iterator<Item = &BTreeSet<NodeId>> {
        std::iter::once(&self.voters).chain(self.outgoing.as_ref())
    }

    /// Whether the nodes `up` hold a majority of every set. An empty set has no majority.
    pub fn has_quorum(&self, up: &BTreeSet<NodeId>) -> bool {
        self.sets().all(|set| set.intersection(up).count() >= majority(set.len()))
    }

    /// How many more of the voters `up` may be lost, whichever they are, before no majority is left. `None` if none is
    /// left now.
    pub fn failure_tolerance(&self, up: &BTreeSet<NodeId>) -> Option<usize> {
        let spare = |set: &BTreeSet<NodeId>| set.intersection(up).count().checked_sub(majority(set.len()));
        self.sets().map(spare).min().flatten()
    }

    /// The configuration in which `node` is a learner and no longer votes: what a demotion would lead to.
    pub fn without_voter(&self, node: NodeId) -> Self {
        let less = |set: &BTreeSet<NodeId>| set.iter().copied().filter(|n| *n != node).collect();
        let mut learners = self.learners.clone();
        learners.insert(node);
        Self { voters: less(&self.voters), outgoing: self.outgoing.as_ref().map(less), learners }
    }

    /// A table for operators: one line for each node, with `x` if it is in `up`.
    ///
    /// ```text
    /// voters 2 of 3 up, quorum 2, may lose 0 more
    ///   x n1
    ///   x n2
    ///   . n3
    /// ```
    pub fn describe(&self, up: &BTreeSet<NodeId>) -> String {
        let mut picture = String::new();
        let mark = |node: &NodeId| if up.contains(node) { 'x' } else { '.' };
        for (name, set) in ["voters", "outgoing voters"].iter().zip(self.sets()) {
            let (there, needed) = (set.intersection(up).count(), majority(set.len()));
            let spare = match there.checked_sub(needed) {
                Some(spare) => format!("may lose {spare} more"),
                None => format!("{} short of a majority", needed - there),
            };
            picture += &format!("{name} {there} of {} up, quorum {needed}, {spare}\n", set.len());
            picture.extend(set.iter().map(|node| format!("  {} {node}\n", mark(node))));
        }
        if !self.learners.is_empty() {
            picture += "learners\n";
            picture.extend(self.learners.iter().map(|node| format!("  {} {node}\n", mark(node))));
        }
        picture
    }
}

impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |set: &BTreeSet<NodeId>| set.iter().map(NodeId::to_string).collect::<Vec<_>>().join(" ");
        if let Some(outgoing) = &self.outgoing {
            write!(f, "{{{}}} to ", list(outgoing))?;
        }
        write!(f, "{{{}}}", list(&self.voters))?;
        if !self.learners.is_empty() {
            write!(f, " learners {{{}}}", list(&self.learners))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(bits: u32) -> BTreeSet<NodeId> {
        (0..8).filter(|bit| bits & (1 << bit) != 0).map(NodeId::new).collect()
    }

    /// Every pair of sets over five nodes, every choice of who is up, against counting by hand.
    #[test]
    fn quorum_and_tolerance_agree_with_counting_by_hand() {
        for (old, new, up) in (0..1 << 15).map(|x| (x & 31, (x >> 5) & 31, x >> 10)) {
            let half = |set: u32| 2 * (set & up).count_ones() > set.count_ones();
            let config = Configuration::joint(nodes(old), nodes(new), []);
            assert_eq!(config.has_quorum(&nodes(up)), half(old) && half(new), "{config} up {up:05b}");
            let by_hand = (0..=5u32).rfind(|k| {
                (0..32u32).filter(|lost| lost.count_ones() == *k && lost & !up == 0).all(|lost| {
                    let up = up & !lost;
                    let half = |set: u32| 2 * (set & up).count_ones() > set.count_ones();
                    half(old) && half(new)
                }) && (0..32u32).any(|lost| lost.count_ones() == *k && lost & !up == 0)
            });
            if by_hand.is_none() {
                assert_eq!(config.failure_tolerance(&nodes(up)), None);
            } else if up & !(old & new) == 0 {
                // Where all nodes up vote in both sets, losing any k is the worst case for both at once.
                assert_eq!(config.failure_tolerance(&nodes(up)), by_hand.map(|k| k as usize), "{config} {up:05b}");
            }
        }
    }

    #[test]
    fn the_picture_shows_who_is_missing() {
        let config = Configuration::uniform(nodes(0b1110), nodes(0b1_0000));
        assert_eq!(
            config.describe(&nodes(0b110)),
            "voters 2 of 3 up, quorum 2, may lose 0 more\n  x n1\n  x n2\n  . n3\nlearners\n  . n4\n"
        );
        assert_eq!(config.to_string(), "{n1 n2 n3} learners {n4}");
    }
}
