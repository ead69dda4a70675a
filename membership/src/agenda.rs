//! The leader's agenda: which work it should be doing now, from the committed state and from what it sees itself.
//!
//! ```text
//!   ClusterState ── duties ──▶ ┐                    each is dropped or put off if it
//!   Outlook: silent nodes ───▶ ├──▶ agenda ──▶      · would be refused by the rules now
//!   Outlook: own disk, role ─▶ ┘    [Work]          · could not be committed by the voters just heard
//!                                                   · may become unnecessary without a device
//! ```
//!
//! Nothing here is safety: each piece of work ends in a command that the rules check again, or in a change of voters
//! that names the one it follows on. The agenda decides what is worth trying, so that the log is not filled with
//! commands that are refused, and so that no change of voters is begun that could not be finished. It remembers
//! nothing: two leaders that see the same have the same agenda.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::cluster::ClusterState;
use crate::command::Command;
use crate::decide::decide;
use crate::detector::Moment;
use crate::duty::{Duty, duties};
use crate::fencing::Cause;
use crate::former_lives::FormerLives;
use crate::id::{Activation, FenceId, Identity, NodeId, Revision};
use crate::member::{Phase, Role};

/// How many entries a learner may lag behind when it gets its vote, and a joining life when it is activated.
const CLOSE_ENOUGH: u64 = 64;

/// Within how many heartbeats a node must have been heard to be counted on for a change of voters.
const HEARD_WITHIN: u32 = 3;

/// A piece of work for the leader. One task at a time carries out each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Work {
    /// Carry out a duty.
    Duty(Duty),
    /// Ask for a fence order against a life whose node is silent, or whose machine refuses connections.
    Suspect(Identity),
    /// Hand leadership over: this node should not lead.
    HandOver,
    /// Ask the other voters whose fencer can carry out an order, and hand leadership over to one that says so. The order goes
    /// with it, because only the leader makes attempts.
    MoveOrder(FenceId),
}

impl Work {
    /// Whether it changes Raft's voters or learners. Raft makes one such change at a time, so only one may run.
    pub const fn changes_voters(self) -> bool {
        matches!(
            self,
            Self::Duty(Duty::FinishChange | Duty::CatchUp(_) | Duty::Promote(_) | Duty::Demote(_) | Duty::Expel(_))
        )
    }
}

/// What a leader sees beside the committed state.
#[derive(Debug, Clone)]
pub struct Outlook {
    /// The leader itself.
    pub me: NodeId,
    /// The present, on the clock that `heard` and the [`FormerLives`] were noted on.
    pub now: Moment,
    /// The activation that the leader acts under; `None` until its own is applied. Its opinions are refused until then.
    pub under: Option<Activation>,
    /// Whether this node has a fencer. Without one, an open order waits for time, an operator, or another leader.
    pub can_fence: bool,
    /// The open orders that this node's fencer has failed at several times in a row; all of them where it has none.
    pub given_up: BTreeSet<FenceId>,
    /// The least time until this leader's own clock proves the end that an open order is for. Absent: time never does
    /// here, or it is not known yet.
    pub proved_in: BTreeMap<FenceId, Duration>,
    /// Whether that fencer ends one life and leaves later lives of the same node alone.
    pub tells_lives_apart: bool,
    /// Whether a silent life is left alone that has nothing that others wait for, see [`ClusterState::is_idle`].
    pub spares_idle: bool,
    /// When each other node was last heard.
    pub heard: BTreeMap<NodeId, Moment>,
    /// The nodes that the failure detector calls [`Silent`](crate::detector::Signal::Silent), or
    /// [`Refused`](crate::detector::Signal::Refused).
    pub silent: BTreeSet<NodeId>,
    /// How far the log of each other node is known to match the leader's. Absent: not known yet.
    pub matched: BTreeMap<NodeId, Revision>,
    /// The last entry of the leader's own log; `None` while it is empty.
    pub last: Option<Revision>,
    /// Whether another should lead: the leader's disk is in trouble, or the others cannot reach it, while enough of them
    /// answer to elect another.
    pub should_make_way: bool,
    /// H of the timing.
    pub heartbeat: Duration,
    /// The longest election timeout.
    pub election_max: Duration,
    /// How long a returned life gets to declare the end of its predecessor. As long as a proposal may take.
    pub successor_timeout: Duration,
}

/// Everything that the leader should be doing, in the order in which to begin: duties in the order of [`duties`], then
/// silent lives in the order of nodes, then orders that should move, then handing over. Work may occur twice.
pub fn agenda(state: &ClusterState, outlook: &Outlook, former_lives: &FormerLives) -> Vec<Work> {
    Agenda { state, outlook, former_lives }.all()
}

/// The voters beside `me` that might carry out an open order, were they to lead: they stand, they carry work, and it is not
/// against them.
pub fn fencers_for(order: FenceId, state: &ClusterState, me: NodeId) -> impl Iterator<Item = NodeId> {
    let open = state.fences().get(order).is_some();
    let voter = move |node: &NodeId| state.member(*node).is_some_and(|member| member.role == Role::Voter);
    let lasting = move |node: &NodeId| state.configuration().is_lasting_voter(*node);
    // Who is to be fenced does not stand.
    state.standing().into_iter().filter(move |node| open && *node != me && voter(node) && lasting(node))
}

/// Whether an order should stay with its leader, because time proves the end that it is for within the longest election timeout.
/// `proved_in` is that of the [`Outlook`].
pub fn proved_soon(order: FenceId, proved_in: &BTreeMap<FenceId, Duration>, election_max: Duration) -> bool {
    proved_in.get(&order).is_some_and(|left| *left <= election_max)
}

struct Agenda<'a> {
    state: &'a ClusterState,
    outlook: &'a Outlook,
    former_lives: &'a FormerLives,
}

impl Agenda<'_> {
    fn all(&self) -> Vec<Work> {
        let all = duties(self.state);
        let me = self.outlook.me;
        let others = all.iter().any(|duty| matches!(duty, Duty::Condemn { former, .. } if former.node != me));
        let mut work: Vec<Work> = all.into_iter().filter_map(|duty| self.begin(duty, others)).collect();
        work.extend(self.suspects().map(Work::Suspect));
        work.extend(self.orders_to_move().map(Work::MoveOrder));
        if self.outlook.should_make_way {
            work.push(Work::HandOver);
        }
        if self.is_witness_with_a_successor() {
            work.push(Work::HandOver);
        }
        work
    }

    /// What to do about one duty now. `others`: whether the former life of another node is to be condemned too.
    fn begin(&self, duty: Duty, others: bool) -> Option<Work> {
        let me = self.outlook.me;
        let due = match duty {
            Duty::Fence(order) => return self.fence(order),
            // The former life of the leader's own node comes last: the fence may hit the leader.
            Duty::Condemn { former, .. } if former.node == me && others => false,
            // A device might hit the life that came back, unless it tells the two apart.
            Duty::Condemn { former, waiting } => {
                (self.outlook.tells_lives_apart || !self.may_end_by_itself(former))
                    && self.would_order(former, Cause::Returned { as_life: waiting })
            }
            // Another leader has to take the leader's own vote.
            Duty::Demote(node) if node == me => return Some(Work::HandOver),
            Duty::FinishChange => !mutant!("joint_left_half_done"),
            Duty::CatchUp(_) => true,
            // A change of voters that is begun and cannot be committed blocks everything: both sets have to be there.
            Duty::Promote(node) => self.caught_up(node) && self.could_commit_change_of(node),
            Duty::Demote(node) | Duty::Expel(node) => self.could_commit_change_of(node),
            Duty::Activate(who) => self.caught_up(who.node) && self.heard_since_end(who.node),
        };
        due.then_some(Work::Duty(duty))
    }

    /// The orders that another voter might carry out, where this node could not. There must be one that answers. One whose end
    /// time is about to prove stays: under another leader that wait may begin anew, and its fencer may fail as well.
    fn orders_to_move(&self) -> impl Iterator<Item = FenceId> {
        let heard = self.heard_lately();
        let soon = |order: &FenceId| proved_soon(*order, &self.outlook.proved_in, self.outlook.election_max);
        let another = move |order| fencers_for(order, self.state, self.outlook.me).any(|node| heard.contains(&node));
        let given_up = self.outlook.given_up.iter().copied();
        given_up.filter(move |order| !mutant!("order_stays_with_its_leader") && !soon(order) && another(*order))
    }

    /// A leader does not fence its own node, and without a fencer it makes no attempt.
    fn fence(&self, order: FenceId) -> Option<Work> {
        let open = self.state.fences().get(order)?;
        let own_machine = open.target.node == self.outlook.me;
        let former = self.state.newest(open.target.node) != Some(open.target);
        if own_machine && !(former && self.outlook.tells_lives_apart) {
            return Some(Work::HandOver);
        }
        self.outlook.can_fence.then_some(Work::Duty(Duty::Fence(order)))
    }

    /// The silent lives that an order would be accepted against.
    fn suspects(&self) -> impl Iterator<Item = Identity> {
        // One that was spared may ask for a lock the moment it is back: then it is silent no more, though the detector has not
        // looked since.
        let back = if self.outlook.spares_idle { self.heard_lately() } else { BTreeSet::new() };
        let silent = self.outlook.silent.iter().filter(move |node| !back.contains(node));
        let newest = silent.filter_map(|node| self.state.newest(*node));
        let for_ms = 0; // the rules do not look at it
        newest.filter(|who| self.can_forfeit(*who)).filter(move |who| self.would_order(*who, Cause::Silent { for_ms }))
    }

    /// Whether a fence order could take anything from this life. One that only joins has nothing to be fenced for, but
    /// it forfeits the locks that it took over from its former life.
    fn can_forfeit(&self, who: Identity) -> bool {
        match self.state.life(who).map(|life| life.phase) {
            Some(Phase::Active) => !(self.outlook.spares_idle && self.state.is_idle(who)),
            Some(Phase::Joining) => self.state.store().held_by(who.into()).next().is_some(),
            Some(Phase::Fencing | Phase::Fenced | Phase::Left) | None => false,
        }
    }

    /// A witness leads only while no voter stands that could, and is there. One that is dead and not yet fenced stands; handing
    /// over for its sake would move leadership to and fro between witnesses.
    fn is_witness_with_a_successor(&self) -> bool {
        let state = self.state;
        if state.member(self.outlook.me).is_none_or(|member| member.role != Role::Witness) {
            return false;
        }
        let standing = state.standing();
        let mut voters = state.members().filter(|(node, m)| m.role == Role::Voter && standing.contains(node));
        let heard = self.heard_lately();
        voters.any(|(node, _)| {
            state.configuration().is_lasting_voter(node)
                && (heard.contains(&node) || mutant!("handed_over_to_the_dead"))
        })
    }

    /// Whether the rules would accept this leader's order now.
    fn would_order(&self, target: Identity, cause: Cause) -> bool {
        let order = Command::OrderFence { target, cause, under: self.outlook.under };
        decide(self.state, self.state.revision().next(), &order).is_ok()
    }

    fn may_end_by_itself(&self, former: Identity) -> bool {
        self.former_lives.may_end_by_itself(self.state, former, self.outlook.now, self.outlook.successor_timeout)
    }

    fn heard_since_end(&self, node: NodeId) -> bool {
        let heard = self.outlook.heard.get(&node).copied();
        node == self.outlook.me || self.former_lives.heard_since_end(node, heard, self.outlook.heartbeat)
    }

    /// Whether `node` has the log up to its own join, and nearly all of it.
    fn caught_up(&self, node: NodeId) -> bool {
        if node == self.outlook.me {
            return true;
        }
        let joined = self.state.newest(node).and_then(|who| self.state.life(who)).map(|life| life.since);
        let Some(matched) = self.outlook.matched.get(&node) else { return false };
        let close = |last: Revision| last.get() <= matched.get().saturating_add(CLOSE_ENOUGH);
        self.outlook.last.is_none_or(close) && joined.is_none_or(|joined| *matched >= joined)
    }

    /// Whether the nodes heard just now could commit a change of voters that adds or takes the vote of `node`.
    fn could_commit_change_of(&self, node: NodeId) -> bool {
        let mut heard = self.heard_lately();
        heard.insert(self.outlook.me);
        let configuration = self.state.configuration();
        if !configuration.is_voter(node) {
            return configuration.has_quorum(&heard);
        }
        let before = configuration.has_quorum(&heard);
        heard.remove(&node);
        before && configuration.without_voter(node).has_quorum(&heard)
    }

    fn heard_lately(&self) -> BTreeSet<NodeId> {
        let Outlook { now, heartbeat, heard, .. } = self.outlook;
        heard.iter().filter(|(_, at)| now.since(**at) < *heartbeat * HEARD_WITHIN).map(|(node, _)| *node).collect()
    }
}
