//! A world of leaders, members, clocks and a network around the production `Holder`, `Grantor` and `ClusterState`, for
//! `lease_model.rs`.
//!
//! ```text
//!   members n1, n2: Holder, work, mechanism       leaders n1, n2, n3: Grantor        the log: decide, evolve
//!        │   ▲                                       │         ▲        │                    ▲
//!        │   └── grants ◀── wire, for ever ◀── EndRead         │        └── pending ─▶ Append ─▶ Commit
//!        └────── renewals ──▶ wire, for ever ──▶ Receive ──────┘ Apply: when it likes
//!
//!   clocks: one a node, each advances by its slowest or fastest rate with every tick, whichever is worse
//! ```
//!
//! Between any two steps of a process any number of others may come: a pause is nothing but that. `lease_steps.rs` lists
//! what may come next, `lease_view.rs` says which worlds are the same.

use std::sync::Arc;

use quorate_membership::*;

use crate::leader_side::{LeaderSide, Read};
use crate::log::{Entry, MEMBERS, NODES, State, Votes, id, target, under};
use crate::member::{Job, Member, Renewal, at};
use crate::steps::Step;

/// What the world does that it must not: each has to be found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// A virtual machine stands still, and its clocks with it.
    FrozenClock,
    /// The mechanism that the contract names does nothing.
    NothingStops,
    /// A job passes on once its owner is *to be* fenced.
    ToldBeforeTheProof,
    /// The new owner works before its token is the floor of the resource.
    WorkBeforeTheFloor,
}

/// One configuration: the contract of the members, their clocks, and what keeps the exploration finite.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) name: &'static str,
    /// L, in units of the member's clock.
    pub(crate) lease: u64,
    pub(crate) stop: Stop,
    pub(crate) drift: Drift,
    /// How far a clock goes in one tick, at its slowest and at its fastest.
    pub(crate) rates: [u8; 2],
    /// Who may lead at the beginning.
    pub(crate) leaders: &'static [usize],
    pub(crate) terms: u8,
    pub(crate) activations: u8,
    /// Lives of each member, the first included.
    pub(crate) lives: [u64; MEMBERS],
    /// How many renewals a member has on the wire, and how many it sends in all.
    pub(crate) renewals: usize,
    pub(crate) sends: [u8; MEMBERS],
    /// Entries of one log that are not committed.
    pub(crate) room: usize,
    pub(crate) crashes: u8,
    /// Starts of n3 anew, while it leads.
    pub(crate) restarts: u8,
    pub(crate) orders: u8,
    pub(crate) takeovers: u8,
    /// Whether grants that were delivered are delivered again.
    pub(crate) doubles: bool,
    /// Whether a member may lay its work down and live on.
    pub(crate) rests: bool,
    /// Whether leaders hear that they lead no more, and that they stood still.
    pub(crate) hears: bool,
    /// Whether leaders conclude anything from time.
    pub(crate) timed: bool,
    /// Whether voters note what leaders grant, and new leaders ask them for it.
    pub(crate) receipts: bool,
    pub(crate) mistake: Option<Mistake>,
    /// What must be seen, or the run has shown nothing.
    pub(crate) reaches: &'static [Situation],
}

impl Bounds {
    pub(crate) fn contract(&self) -> Contract {
        let (lease, in_flight) = (crate::member::ms(self.lease), std::time::Duration::ZERO);
        Contract { lease, stop: self.stop, in_flight, drift: self.drift }
    }
}

/// What must never be seen. Judged when it happens; the rest is read off the world by the properties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    Token,
    Expiry,
    ReadAfterEnd,
    OtherLife,
    StaleConclusion,
    SecondOfOne,
    Effects,
}

/// A situation that a run must reach; otherwise it has shown nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Situation {
    TwoLeaders,
    TwoInFlight,
    Voided,
    Survived,
    GrantAfterChange,
    LaterExpiry,
    StaleReadRefused,
    ExpiringRefused,
    ClosingRefused,
    LapsedAndRegained,
    Stopped,
    DoubledGrant,
    RestartedInTerm,
    SecondLifeHolds,
    SecondProof,
    SecondMember,
    MinorityKept,
    TookOver,
    FloorRefused,
    WaitMovedBack,
    LostReceipts,
}

impl Situation {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::TwoLeaders => "two nodes believe to lead at once",
            Self::TwoInFlight => "two renewals of one member are in flight",
            Self::Voided => "a conclusion of an earlier activation is committed, and void (I9)",
            Self::Survived => "an expiry that one leader appended is committed by another",
            Self::GrantAfterChange => "a leader grants that was activated after another",
            Self::LaterExpiry => "a life is expired by a later activation than the first",
            Self::StaleReadRefused => "a read ends, and shows that the leader is superseded or the life is not live",
            Self::ExpiringRefused => "a renewal comes after the time was up",
            Self::ClosingRefused => "a renewal of a closing life is refused",
            Self::LapsedAndRegained => "a lease lapses, and the same life is granted another",
            Self::Stopped => "the stop mechanism ends a process",
            Self::DoubledGrant => "a grant arrives for the second time",
            Self::RestartedInTerm => "a leader starts anew within its term, and is activated again",
            Self::SecondLifeHolds => "the second life holds a lease after the first was fenced",
            Self::SecondProof => "device and expiry both prove an end, and the second proof is recorded",
            Self::SecondMember => "each of the two members is fenced in some course of things",
            Self::MinorityKept => "an expiry is refused because no majority would stand",
            Self::TookOver => "the job of a fenced life is worked on by another",
            Self::FloorRefused => "the floor refuses an effect of a fenced life",
            Self::WaitMovedBack => "the receipts of a quorum move a wait back",
            Self::LostReceipts => "a voter answers that has lost its receipts",
        }
    }
}

/// How often each bounded thing has happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Used {
    pub(crate) gains: u8,
    pub(crate) activated: u8,
    pub(crate) sends: [u8; MEMBERS],
    pub(crate) crashes: u8,
    pub(crate) restarts: u8,
    pub(crate) orders: u8,
    pub(crate) takeovers: u8,
}

/// The fencer, called once for an order.
#[derive(Debug, Clone, Copy, PartialEq, Hash)]
pub(crate) struct Call {
    pub(crate) order: FenceId,
    pub(crate) target: Identity,
    pub(crate) by: usize,
    /// It was verified that the target is off.
    pub(crate) verified: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct World {
    pub(crate) committed: Arc<State>,
    pub(crate) votes: Arc<Votes>,
    pub(crate) now: [u64; NODES],
    pub(crate) desks: [Arc<LeaderSide>; NODES],
    pub(crate) members: [Option<Arc<Member>>; MEMBERS],
    /// What the process of each voter has noted of renewals.
    pub(crate) receipts: [Arc<lease::ReceiptLog>; NODES],
    pub(crate) wire: Vec<Renewal>,
    pub(crate) jobs: [Job; MEMBERS],
    pub(crate) call: Option<Call>,
    pub(crate) used: Used,
    pub(crate) wrong: u16,
    /// Whether new leaders ask for receipts.
    pub(crate) asks: bool,
    /// L and D of the members, in whole units: beyond these an age changes nothing.
    pub(crate) lease: u64,
    pub(crate) wait: u64,
    /// Of the last step only.
    pub(crate) seen: u32,
}

impl World {
    pub(crate) fn leader_side(&mut self, node: usize) -> &mut LeaderSide {
        Arc::make_mut(&mut self.desks[node])
    }

    pub(crate) fn votes(&mut self) -> &mut Votes {
        Arc::make_mut(&mut self.votes)
    }

    pub(crate) fn member(&mut self, member: usize) -> Option<&mut Member> {
        self.members[member].as_mut().map(Arc::make_mut)
    }

    pub(crate) fn is_wrong(&self, what: Wrong) -> bool {
        self.wrong & (1 << what as u16) != 0
    }

    pub(crate) fn wrong_if(&mut self, bad: bool, what: Wrong) {
        self.wrong |= u16::from(bad) << what as u16;
    }

    pub(crate) fn seen_if(&mut self, reached: bool, what: Situation) {
        self.seen |= u32::from(reached) << what as u32;
    }

    /// The process on that node has ended, and with it all that only it knew.
    pub(crate) fn end(&mut self, node: usize, bounds: &Bounds) {
        if node < MEMBERS {
            self.members[node] = None;
        }
        let voter = &mut self.votes().voters[node];
        (voter.up, voter.leads) = (false, 0);
        self.receipts[node] = Arc::new(lease::ReceiptLog::new(at(self.now[node])));
        self.desks[node] = Arc::new(LeaderSide::new(node, self.committed.clone(), bounds));
        self.reads_ended(node);
    }

    /// No read of that leader is under way any more.
    pub(crate) fn reads_ended(&mut self, node: usize) {
        self.wire.iter_mut().for_each(|renewal| renewal.after_read &= !(1 << node));
    }

    /// A leader has noted a life: whatever it sent up to now came before.
    pub(crate) fn noted(&mut self, node: usize, who: Identity) {
        let of_it = self.wire.iter_mut().filter(|renewal| renewal.who == who);
        of_it.for_each(|renewal| renewal.after_last &= !(1 << node));
        if self.desks[node].overtaken.contains(&who) {
            self.leader_side(node).overtaken.retain(|other| *other != who);
        }
    }

    pub(crate) fn apply(&mut self, node: usize) {
        let (state, now) = (self.committed.clone(), self.now[node]);
        let before = self.desks[node].grantor.activation();
        let noted = self.leader_side(node).apply(state, now);
        noted.into_iter().for_each(|who| self.noted(node, who));
        let activated = self.desks[node].grantor.activation().filter(|_| before.is_none());
        self.seen_if(activated.is_some() && self.used.restarts > 0 && node == 2, Situation::RestartedInTerm);
    }

    /// The grantor hears that its node leads.
    pub(crate) fn gain(&mut self, node: usize) {
        self.used.gains += 1;
        let (nonce, term) = (Nonce::new(self.used.gains.into()), self.votes.voters[node].leads);
        let leader_side = self.leader_side(node);
        leader_side.grantor.handle_gain(nonce);
        leader_side.asked = None;
        leader_side.former = leader_side.read.take();
        leader_side.gained = term;
    }

    /// Everything that stands in the leader's log, and then the command.
    pub(crate) fn commit_after_all(&mut self, leader: usize, command: &Command) {
        while let Some(Entry { term, command }) = self.votes().take(leader) {
            self.commit(leader, term, &command);
        }
        self.votes().displace(leader, None);
        self.commit(leader, self.votes.voters[leader].leads, command);
    }

    /// What the shipped rules make of a committed command, and what that may never be.
    pub(crate) fn commit(&mut self, leader: usize, term: u8, command: &Command) {
        let before = self.committed.clone();
        let (mut after, revision) = (before.cluster.clone(), Revision::new(before.version + 1));
        let answer = apply(&mut after, revision, command);
        let stale = under(command).is_some_and(|under| Some(under) != before.activation());
        self.seen_if(matches!(answer, Err(Rejection::OtherActivation { .. })), Situation::Voided);
        let minority = matches!(answer, Err(Rejection::Majority { .. })) && matches!(command, Command::Expire { .. });
        self.seen_if(minority, Situation::MinorityKept);
        let Ok(events) = answer else { return };
        if events.is_empty() {
            return;
        }
        self.wrong_if(stale, Wrong::StaleConclusion);
        if let Some(target) = target(command) {
            let phase = |cluster: &ClusterState, who| cluster.life(who).map(|life| life.phase);
            let others = before.cluster.lives().filter(|(who, life)| *who != target && !life.phase.has_ended());
            let moved = others.into_iter().any(|(who, life)| phase(&after, who) != Some(life.phase));
            self.wrong_if(moved, Wrong::OtherLife);
        }
        for event in &events {
            match event {
                Event::Fenced { who, proof, .. } => {
                    self.wrong_if(before.over(*who), Wrong::SecondOfOne);
                    let expired = matches!(proof, FenceProof::Expired { .. });
                    self.seen_if(expired && self.used.activated > 1, Situation::LaterExpiry);
                    let survived = expired && term < self.votes.voters[leader].leads;
                    self.seen_if(survived, Situation::Survived);
                    self.seen_if(who.node == id(1), Situation::SecondMember);
                }
                Event::Corroborated { .. } => self.seen_if(true, Situation::SecondProof),
                Event::LeaderActivated { .. } => self.used.activated += 1,
                _ => {}
            }
        }
        self.committed = Arc::new(State::new(after, revision.get()));
    }

    /// A read has ended, or was left out: the grants are on the wire.
    pub(crate) fn answered(&mut self, node: usize, answers: &[(Identity, u64, bool)], read: Option<&Read>) {
        self.seen_if(answers.iter().any(|(_, _, granted)| !granted), Situation::StaleReadRefused);
        for (who, seq, _) in answers.iter().filter(|(_, _, granted)| *granted) {
            let begun = read.map_or(&self.committed, |read| &read.begun).clone();
            self.wrong_if(begun.over(*who), Wrong::ReadAfterEnd);
            self.seen_if(self.used.activated > 1, Situation::GrantAfterChange);
            let Some(renewal) = self.wire.iter_mut().find(|r| (r.who, r.seq) == (*who, *seq)) else { continue };
            renewal.granted = true;
            let renewal = *renewal;
            self.wrong_if(read.is_some() && renewal.after_read & (1 << node) != 0, Wrong::Expiry);
            for leader in 0..NODES {
                let leader_side = &self.desks[leader];
                let watches = leader_side.grantor.watched().any(|watched| watched == *who);
                if watches && renewal.after_last & (1 << leader) != 0 && !leader_side.overtaken.contains(who) {
                    self.leader_side(leader).overtaken.push(*who);
                }
            }
        }
        self.reads_ended(node);
    }

    /// A grant reaches the process that its node runs now, whichever life that is (P9).
    pub(crate) fn deliver(&mut self, renewal: usize) -> Option<()> {
        let Renewal { who, seq, sent, delivered, .. } = self.wire[renewal];
        let node = (0..MEMBERS).find(|node| id(*node) == who.node)?;
        let now = self.now[node];
        let had = self.members[node].as_ref()?.left(now);
        let member = self.member(node)?;
        let (regains, prolonged) = (member.holder.held_from().is_some(), member.holder.handle_grant(who, seq, at(now)));
        let (own, from) = (member.who() == who, member.holder.held_from());
        let has = member.left(now);
        self.wrong_if(prolonged && (!own || from != Some(at(sent))), Wrong::Expiry);
        self.wrong_if(prolonged && delivered, Wrong::SecondOfOne);
        self.wrong_if(has < had, Wrong::Expiry);
        self.seen_if(delivered, Situation::DoubledGrant);
        self.seen_if(regains && had == 0 && has > 0, Situation::LapsedAndRegained);
        let second = has > 0 && who.incarnation > Incarnation::new(1);
        self.seen_if(second, Situation::SecondLifeHolds);
        self.wire[renewal].delivered = true;
        Some(())
    }

    pub(crate) fn step(&self, step: Step, bounds: &Bounds) -> Option<Self> {
        let mut next = Self { seen: 0, ..self.clone() };
        next.take(step, bounds)?;
        next.seen_if(next.votes.leaders() > 1, Situation::TwoLeaders);
        Some(next)
    }
}
