//! Whether the other nodes can reach this one: a leader that they cannot reach makes way, and does not stand for election
//! again before it is reached.
//!
//! ```text
//!   leader ── entries, heartbeats ──▶ others      answered: the leader can commit, and leads on for ever
//!   leader ◀── renewals, commands ─── others      blocked: their leases lapse, and their commands hang
//! ```
//!
//! Only the calls of the others show that they reach a leader. Answers to its own calls do not: a firewall that drops
//! what comes in lets them pass. Each active life renews its lease with the leader, so one that does not call for several
//! renewal intervals cannot reach it, or does not run. If too many are like this for a majority, and the others answer,
//! one of them should lead.
//!
//! This is policy: leading and standing for election are safe in any case.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::cluster::ClusterState;
use crate::detector::Moment;
use crate::id::NodeId;
use crate::quorum::Configuration;

/// How many renewal intervals without a call mean that a node cannot reach the leader.
const RENEWALS: u32 = 3;

/// After how many election timeouts a node stands again that has not been reached. Without an end, a cluster in which one
/// leader after the other was cut off would have no candidate left, even when it is whole again.
const STANDS_AGAIN: u32 = 20;

/// What a node sees of its own reachability, for one look at it.
#[derive(Debug, Clone)]
pub struct LeaderContact<'a> {
    /// The node itself.
    pub me: NodeId,
    /// The present, on the clock that `calls` were noted on.
    pub now: Moment,
    /// The term in which this node leads; `None` while it does not.
    pub leads: Option<u64>,
    /// When each other node last called this one. Answers do not count.
    pub calls: &'a BTreeMap<NodeId, Moment>,
    /// The other nodes that have answered this leader just now, within a few heartbeats.
    pub answering: &'a BTreeSet<NodeId>,
}

/// Follows whether the others reach this node.
#[derive(Debug, Clone)]
pub struct Reachability {
    /// The silence after which a node that should call cannot reach this one.
    limit: Duration,
    stands_again: Duration,
    /// The term in which this node leads, and since when.
    leads: Option<(u64, Moment)>,
    /// When it looked last.
    looked: Moment,
    /// Since when it is known that the others cannot reach this node.
    unreached: Option<Moment>,
}

impl Reachability {
    /// `renew` and `election_max`: R and the longest election timeout of the timing.
    pub fn new(renew: Duration, election_max: Duration) -> Self {
        let (limit, stands_again) = ((renew * RENEWALS).max(election_max), election_max * STANDS_AGAIN);
        Self { limit, stands_again, leads: None, looked: Moment::default(), unreached: None }
    }

    /// Looks again. Returns whether the others cannot reach this node: then it should not lead, and not stand for election.
    pub fn look(&mut self, state: &ClusterState, contact: &LeaderContact<'_>) -> bool {
        let LeaderContact { now, leads, calls, .. } = *contact;
        // What came in while this process stood still has not been looked at yet.
        let stood_still = now.since(self.looked) > self.limit / 3;
        if stood_still || leads != self.leads.map(|(term, _)| term) {
            self.leads = leads.map(|term| (term, now));
        }
        self.looked = now;
        let too_old = |since: Moment| now.since(since) >= self.stands_again;
        let reached = |since: Moment| calls.values().any(|at| *at > since);
        if self.unreached.is_some_and(|since| reached(since) || too_old(since)) {
            self.unreached = None;
        }
        if self.leads.is_some_and(|(_, since)| self.is_cut_off(state, contact, since)) {
            self.unreached.get_or_insert(now);
        }
        self.unreached.is_some() && !mutant!("unreached_leads_on")
    }

    /// Whether too many cannot reach this leader for a majority to renew, and the others could elect another one.
    fn is_cut_off(&self, state: &ClusterState, contact: &LeaderContact<'_>, leads_since: Moment) -> bool {
        let LeaderContact { me, now, calls, answering, .. } = *contact;
        let mut answering = answering.clone();
        answering.remove(&me);
        let silent = |node: &NodeId| {
            let renews = state.newest(*node).is_some_and(|who| state.may_renew(who));
            let last = calls.get(node).copied().unwrap_or_default().max(leads_since);
            *node != me && renews && now.since(last) >= self.limit
        };
        let configuration = state.configuration();
        let reach_me = configuration.voters().into_iter().filter(|node| !silent(node)).collect();
        !configuration.has_quorum(&reach_me) && configuration.has_quorum(&answering)
    }
}

/// To whom large messages pass, as far as a node knows: from itself, and from others, which say so of themselves.
///
/// A way may lose large packets without a word, because it has a smaller MTU somewhere and nobody says so (RFC 2923, section 2.1).
/// Heartbeats are small, so such a leader leads on for ever, and commits nothing that is large.
#[derive(Debug, Clone, Default)]
pub struct LargeMessages {
    /// The nodes to which none pass from this one. Also those that do not answer at all.
    pub lost: BTreeSet<NodeId>,
    /// To whom they have passed from each other node, as it has said just now. Nothing is said of nodes that do not answer.
    pub reach: BTreeMap<NodeId, BTreeSet<NodeId>>,
}

impl LargeMessages {
    /// Whether a leader could commit them in place of `me`, which cannot: they pass from `me` to no majority, and from a voter that
    /// answers `me` to one. Where no node is better off, it is better to stay.
    pub fn should_others_lead(&self, configuration: &Configuration, me: NodeId, answering: &BTreeSet<NodeId>) -> bool {
        let voters = configuration.voters();
        let from_here = voters.iter().copied().filter(|node| *node == me || !self.lost.contains(node)).collect();
        let from = |node: NodeId, reach: &BTreeSet<NodeId>| {
            let to: BTreeSet<NodeId> = reach.iter().copied().chain([node]).collect();
            voters.contains(&node) && node != me && answering.contains(&node) && configuration.has_quorum(&to)
        };
        !configuration.has_quorum(&from_here)
            && self.reach.iter().any(|(node, reach)| from(*node, reach))
            && !mutant!("large_messages_lost")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::{Member, Phase, Role};
    use crate::quorum::Configuration;

    const R: Duration = Duration::from_millis(300);
    const ELECTION: Duration = Duration::from_millis(800);

    fn n(number: u64) -> NodeId {
        NodeId::new(number)
    }

    fn at(ms: u64) -> Moment {
        Moment::new(Duration::from_millis(ms))
    }

    /// So many voters, each with one active life.
    fn voters(count: u64) -> ClusterState {
        let member = || Member::with_one_life(Role::Voter, Phase::Active);
        let configuration = Configuration::uniform((1..=count).map(n), []);
        ClusterState {
            members: (1..=count).map(|number| (n(number), member())).collect::<BTreeMap<_, _>>().into(),
            configuration: configuration.into(),
            ..ClusterState::new()
        }
    }

    /// What n1 sees: these called then, and these answer.
    struct Scene<'a>(bool, &'a [(u64, u64)], &'a [u64]);

    /// What it concludes at an instant.
    fn look(watch: &mut Reachability, state: &ClusterState, ms: u64, seen: &Scene<'_>) -> bool {
        let calls = seen.1.iter().map(|(node, ms)| (n(*node), at(*ms))).collect();
        let answering = seen.2.iter().map(|node| n(*node)).collect();
        let leads = seen.0.then_some(4);
        watch.look(state, &LeaderContact { me: n(1), now: at(ms), leads, calls: &calls, answering: &answering })
    }

    /// The same, after looks at a steady pace since `from`.
    fn until(watch: &mut Reachability, state: &ClusterState, from: u64, ms: u64, seen: &Scene<'_>) -> bool {
        for earlier in (from..ms).step_by(40) {
            look(watch, state, earlier, seen);
        }
        look(watch, state, ms, seen)
    }

    #[test]
    fn a_leader_makes_way_that_too_many_others_do_not_call_although_they_answer() {
        let (state, fresh) = (voters(3), Reachability::new(R, ELECTION));
        let cut_off = |ms, seen: &Scene<'_>| until(&mut fresh.clone(), &state, 1000, ms, seen);
        assert!(!cut_off(1899, &Scene(true, &[], &[2, 3])), "three renewals may be missing since it leads");
        assert!(cut_off(1900, &Scene(true, &[], &[2, 3])));
        assert!(!cut_off(1900, &Scene(false, &[], &[2, 3])), "it does not lead");
        assert!(!cut_off(1900, &Scene(true, &[(2, 1500)], &[2, 3])), "n1 and n2 are a majority");
        assert!(!cut_off(9000, &Scene(true, &[], &[2])), "n2 alone elects nobody");
    }

    #[test]
    fn it_does_not_stand_again_before_it_is_called_or_a_long_time_has_passed() {
        let (state, mut watch) = (voters(5), Reachability::new(R, ELECTION));
        let calls = [(2, 1900)];
        assert!(until(&mut watch, &state, 1000, 1900, &Scene(true, &[], &[2, 3, 4, 5])));
        assert!(until(&mut watch, &state, 1900, 9000, &Scene(false, &[(2, 1900)], &[])), "that call was before");
        assert!(!look(&mut watch.clone(), &state, 9000, &Scene(false, &[(3, 8990)], &[])));
        assert!(until(&mut watch, &state, 9000, 17_899, &Scene(false, &calls, &[])));
        assert!(!look(&mut watch, &state, 17_900, &Scene(false, &calls, &[])));
    }

    #[test]
    fn a_leader_that_stood_still_first_looks_at_what_came_in_meanwhile() {
        let (state, mut watch) = (voters(3), Reachability::new(R, ELECTION));
        let seen = Scene(true, &[(2, 1000)], &[2, 3]);
        look(&mut watch, &state, 1000, &seen);
        assert!(!until(&mut watch, &state, 1950, 2849, &seen));
        assert!(look(&mut watch, &state, 2850, &seen));
    }

    #[test]
    fn a_life_that_does_not_renew_is_not_expected_to_call() {
        let mut state = voters(3);
        for node in [2, 3] {
            let lives = &mut state.members.get_mut(&n(node)).unwrap().lives;
            lives.values_mut().for_each(|life| life.phase = Phase::Joining);
        }
        let mut watch = Reachability::new(R, ELECTION);
        assert!(!until(&mut watch, &state, 1000, 9000, &Scene(true, &[], &[2, 3])));
    }

    #[test]
    fn others_lead_where_large_messages_pass_from_one_of_them_to_a_majority_and_from_here_to_none() {
        let configuration = Configuration::uniform((1..=3).map(n), []);
        let set = |nodes: &[u64]| -> BTreeSet<NodeId> { nodes.iter().map(|node| n(*node)).collect() };
        let others_lead = |lost: &[u64], reach: &[(u64, &[u64])], answering: &[u64]| {
            let reach = reach.iter().map(|(node, to)| (n(*node), set(to))).collect();
            LargeMessages { lost: set(lost), reach }.should_others_lead(&configuration, n(1), &set(answering))
        };
        assert!(others_lead(&[2, 3], &[(2, &[3]), (3, &[2])], &[2, 3]));
        assert!(!others_lead(&[2, 3], &[(2, &[]), (3, &[])], &[2, 3]), "nobody is better off");
        assert!(!others_lead(&[3], &[(2, &[3])], &[2, 3]), "n1 and n2 are a majority");
        assert!(!others_lead(&[2, 3], &[(2, &[3])], &[3]), "n2 does not answer");
        assert!(!others_lead(&[2, 3], &[(4, &[2, 3])], &[2, 3, 4]), "n4 is no voter");
    }
}
