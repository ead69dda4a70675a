//! Which votes are due: the promotion of a learner, the demotion of a voter, and the removal of a node that was retired.
//!
//! ```text
//!   a member that stands, without the log ─▶ CatchUp: it becomes a learner
//!   a learner whose role votes            ─▶ Promote: it gets its vote
//!   a voter whose role does not vote      ─▶ Demote, if the others hold a majority without it
//!   a node of the log that was retired    ─▶ Expel, likewise
//! ```
//!
//! These follow from the committed state alone. Whether a promotion begins *now* also depends on what the leader sees: the
//! learner must have caught up, and the nodes heard lately must be able to commit the change. The agenda decides that
//! ([`agenda`](crate::agenda())), and the engine of raft-core makes the change.

use super::Duty;
use crate::cluster::ClusterState;
use crate::id::NodeId;

/// The duties about the configuration, in the order of nodes. None of them is due while a change of voters is unfinished.
pub(super) fn due(state: &ClusterState) -> Vec<Duty> {
    let standing = state.standing();
    let of_member = state.members.iter().filter_map(|(node, member)| {
        let (votes, stands) = (state.configuration.is_voter(*node), standing.contains(node));
        let spare = || {
            let rest = standing.iter().copied().filter(|other| other != node).collect();
            state.configuration.without_voter(*node).has_quorum(&rest)
        };
        match (member.role.votes(), votes) {
            (_, false) if !state.configuration.contains(*node) => stands.then_some(Duty::CatchUp(*node)),
            (true, false) => stands.then_some(Duty::Promote(*node)),
            // Orders that were accepted since may have taken the majority that the demotion was granted on: then it
            // waits.
            (false, true) => spare().then_some(Duty::Demote(*node)),
            (true, true) | (false, false) => None,
        }
    });
    let strangers = state.configuration.nodes().into_iter().filter(|node| !state.members.contains_key(node));
    // Before the first join the founder votes without being a member yet; only a number that was retired is expelled.
    let spared = |node: &NodeId| {
        let configuration = &state.configuration;
        !configuration.is_voter(*node) || configuration.without_voter(*node).has_quorum(&standing)
    };
    let retired = strangers.filter(|node| state.retired.contains(node) && spared(node));
    let expelled = retired.map(Duty::Expel);
    of_member.chain(expelled).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::{Member, Phase, Role};
    use crate::quorum::Configuration;

    const N4: NodeId = NodeId::new(4);

    /// Four members with one active life each: n1, n2 and n3 have the role of a voter, n4 has this one.
    fn four(role: Role, configuration: Configuration) -> ClusterState {
        let member = |role| Member::with_one_life(role, Phase::Active);
        let voters = (1..=3).map(|node| (NodeId::new(node), member(Role::Voter)));
        let members: std::collections::BTreeMap<_, _> = voters.chain([(N4, member(role))]).collect();
        ClusterState { members: members.into(), configuration: configuration.into(), ..ClusterState::new() }
    }

    fn nodes(numbers: &[u32]) -> Vec<NodeId> {
        numbers.iter().map(|number| NodeId::new((*number).into())).collect()
    }

    #[test]
    fn a_node_becomes_a_learner_before_it_votes() {
        let voters = || nodes(&[1, 2, 3]);
        assert_eq!(due(&four(Role::Voter, Configuration::uniform(voters(), []))), [Duty::CatchUp(N4)]);
        assert_eq!(due(&four(Role::Voter, Configuration::uniform(voters(), [N4]))), [Duty::Promote(N4)]);
        assert_eq!(due(&four(Role::Learner, Configuration::uniform(voters(), [N4]))), []);
    }

    #[test]
    fn a_vote_is_taken_only_if_the_others_hold_a_majority_without_it() {
        let mut state = four(Role::Learner, Configuration::uniform(nodes(&[1, 2, 3, 4]), []));
        assert_eq!(due(&state), [Duty::Demote(N4)]);
        for node in [2, 3] {
            let lives = &mut state.members.get_mut(&NodeId::new(node)).unwrap().lives;
            lives.values_mut().for_each(|life| life.phase = Phase::Fencing);
        }
        assert_eq!(due(&state), [], "n1 alone is no majority of n1, n2 and n3");
    }

    #[test]
    fn a_node_that_was_removed_leaves_the_configuration_and_a_stranger_stays() {
        let mut state = four(Role::Voter, Configuration::uniform(nodes(&[1, 2, 3, 4]), [NodeId::new(5)]));
        assert_eq!(due(&state), [], "n5 may be the founder of the cluster, before it has joined");
        state.retired.insert(NodeId::new(5));
        assert_eq!(due(&state), [Duty::Expel(NodeId::new(5))]);
    }
}
