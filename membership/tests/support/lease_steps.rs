//! The steps of the lease model: what may come next. `lease_moves.rs` says what each does.

use quorate_membership::*;

use crate::log::{Entry, MEMBERS, NODES, id};
use crate::member::{at, units};
use crate::world::{Bounds, Mistake, World};

/// A step of the world. Nodes and members are numbered from 0, as n1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Real time passes: so far goes the clock of each node, and that of each member's watchdog.
    Tick([u8; NODES], [u8; MEMBERS]),
    /// A node wins an election; entries of another log may have come to it before.
    Elect {
        node: usize,
        voter: usize,
        from: Option<usize>,
    },
    /// A grantor hears at last that its node leads in a later term.
    Gain(usize),
    /// A grantor hears that its node does not lead.
    Lose(usize),
    /// A grantor hears that its own process stood still.
    Pause(usize),
    /// The process of a leader starts anew and goes on leading in the same term.
    RestartLeader(usize),
    ProposeActivation(usize),
    /// Something concluded reaches the leader's own log.
    Append(usize, usize),
    Commit(usize),
    Apply(usize),
    Send(usize),
    /// A renewal reaches a leader: the first time, or again. The state that it is held against is the one that its
    /// grantor was told of, or the newest.
    Receive {
        node: usize,
        renewal: usize,
        newest: bool,
    },
    BeginRead(usize),
    ConfirmRead(usize),
    /// One voter beside the leader confirms its read, and notes the lives that it is for.
    ConfirmReadBy {
        node: usize,
        voter: usize,
    },
    /// A voter that follows a leader tells it what it has noted.
    AskForReceipts {
        node: usize,
        voter: usize,
    },
    TakeReceipts(usize),
    /// The process of a voter without work starts anew, and knows of no renewal any more.
    RestartVoter(usize),
    EndRead {
        node: usize,
        newest: bool,
    },
    FailRead(usize),
    /// A read ends that was begun before the grantor heard of another gain.
    EndFormerRead(usize),
    /// Only the mistake of granting without a read has this step.
    GrantUnread(usize),
    Deliver(usize),
    Expire(usize),
    Begin(usize, usize),
    LayDown(usize),
    LookBeforeFeeding(usize),
    Feed(usize),
    StartEffect(usize, usize),
    LandEffect(usize, usize),
    Crash(usize),
    /// A new process of a member starts and joins: the next life.
    Rejoin(usize),
    ActivateLife(Identity),
    Order(usize, Identity),
    CallFencer(FenceId),
    Shoot,
    ConfirmFence,
    HearOfFencing(usize),
    TakeOver(usize, Identity),
}

impl World {
    /// Every step that may come next.
    pub(crate) fn steps(&self, bounds: &Bounds, steps: &mut Vec<Step>) {
        self.ticks(bounds, steps);
        self.consensus(bounds, steps);
        (0..NODES).for_each(|node| self.leading(node, bounds, steps));
        (0..MEMBERS).for_each(|member| self.acting(member, bounds, steps));
        for (at, renewal) in self.wire.iter().enumerate() {
            if renewal.granted && (bounds.doubles || !renewal.delivered) {
                steps.push(Step::Deliver(at));
            }
        }
        self.ending(bounds, steps);
    }

    /// A clock on which nothing is measured just now goes at one rate.
    fn ticks(&self, bounds: &Bounds, steps: &mut Vec<Step>) {
        let living = self.members.iter().any(Option::is_some);
        let returns = |at| self.newest(at) < bounds.lives[at];
        if !living && !(0..MEMBERS).any(returns) {
            return; // nobody is left who could do harm
        }
        let [slow, fast] = bounds.rates;
        let choices = |measured: bool| if measured && slow != fast { vec![slow, fast] } else { vec![slow] };
        let nodes: [Vec<u8>; NODES] = std::array::from_fn(|node| {
            let on_wire = self.wire.iter().any(|r| r.who.node == id(node) && self.now[node] - r.sent < bounds.lease);
            let held = node < MEMBERS && self.members[node].as_ref().is_some_and(|m| m.left(self.now[node]) > 0);
            let noted = bounds.receipts && self.is_noting(node);
            let mut rates = choices(on_wire || held || self.is_waiting(node) || noted);
            if bounds.mistake == Some(Mistake::FrozenClock) && node < MEMBERS && self.members[node].is_some() {
                rates.push(0);
            }
            rates
        });
        let dogs: [Vec<u8>; MEMBERS] =
            std::array::from_fn(|m| choices(self.members[m].as_ref().is_some_and(|member| member.dog > 0)));
        for a in &nodes[0] {
            for b in &nodes[1] {
                for c in &nodes[2] {
                    for d in &dogs[0] {
                        steps.extend(dogs[1].iter().map(|e| Step::Tick([*a, *b, *c], [*d, *e])));
                    }
                }
            }
        }
    }

    /// The number of that member's newest life.
    fn newest(&self, at: usize) -> u64 {
        self.committed.cluster.newest(id(at)).map_or(0, |who| who.incarnation.get())
    }

    /// Whether a leader on that node waits for anybody's time to be up.
    fn is_waiting(&self, node: usize) -> bool {
        let grantor = &self.desks[node].grantor;
        grantor.activation().is_some()
            && grantor
                .watched()
                .filter(|who| who.node != id(2))
                .any(|who| grantor.silence(who, at(self.now[node])).is_some_and(|silence| units(silence) < self.wait))
    }

    fn consensus(&self, bounds: &Bounds, steps: &mut Vec<Step>) {
        let votes = &self.votes;
        if votes.next_term() <= bounds.terms {
            // Where receipts are asked for, the second leader is always the voter that does not work.
            let stands = |node: &usize| votes.voters[*node].up && !(bounds.receipts && *node != 2);
            for node in (0..NODES).filter(stands) {
                for voter in (0..NODES).filter(|voter| *voter != node && votes.voters[*voter].up) {
                    steps.push(Step::Elect { node, voter, from: None });
                    steps.extend(votes.sources(node).map(|from| Step::Elect { node, voter, from: Some(from) }));
                }
            }
        }
        if let Some(captain) = votes.captain() {
            if !votes.voters[captain].uncommitted.is_empty() {
                steps.push(Step::Commit(captain));
            }
            let joining = self.committed.cluster.lives().filter(|(_, life)| life.phase == Phase::Joining);
            steps.extend(joining.map(|(who, _)| Step::ActivateLife(who)));
        }
    }

    fn leading(&self, node: usize, bounds: &Bounds, steps: &mut Vec<Step>) {
        let (voter, leader_side) = (&self.votes.voters[node], &self.desks[node]);
        if bounds.receipts && self.used.crashes < bounds.crashes && node == 0 && self.desks[2].gained > 0 {
            steps.push(Step::RestartVoter(node));
        }
        let grantor = &leader_side.grantor;
        let activation = grantor.activation();
        if voter.leads > leader_side.gained && self.used.gains < bounds.activations {
            steps.push(Step::Gain(node));
        }
        if bounds.hears && voter.leads == 0 && (activation.is_some() || grantor.poll_activation().is_some()) {
            steps.push(Step::Lose(node));
        }
        if node >= MEMBERS
            && voter.leads > 0
            && self.used.restarts < bounds.restarts
            && leader_side.gained == voter.leads
        {
            steps.push(Step::RestartLeader(node));
        }
        if let Some(nonce) = grantor.poll_activation() {
            let said = |e: &Entry| matches!(e.command, Command::ActivateLeader { nonce: other, .. } if other == nonce);
            if self.votes.may_append(node, bounds.room) && !voter.uncommitted.iter().any(said) {
                steps.push(Step::ProposeActivation(node));
            }
        }
        if self.votes.may_append(node, bounds.room) {
            steps.extend((0..leader_side.pending.len()).map(|at| Step::Append(node, at)));
        }
        let news = leader_side.applied.version < self.committed.version || !leader_side.told;
        if news && (activation.is_some() || leader_side.gained > 0) {
            steps.push(Step::Apply(node));
        }
        if activation.is_none() {
            return;
        }
        if bounds.hears {
            steps.push(Step::Pause(node));
        }
        // Where receipts are asked for, what a leader looks at is what it has applied.
        let lags = leader_side.applied.version < self.committed.version && !bounds.receipts;
        for (at, renewal) in self.wire.iter().enumerate() {
            let asks = (renewal.who, renewal.seq);
            let known = || grantor.renewals().0.chain(grantor.taken()).any(|known| known == asks);
            if bounds.doubles || (!renewal.granted && !known()) {
                steps.push(Step::Receive { node, renewal: at, newest: false });
                if lags {
                    steps.push(Step::Receive { node, renewal: at, newest: true });
                }
            }
        }
        if bounds.receipts && leader_side.is_current(&self.committed) && grantor.has_unheard() {
            if leader_side.asked.is_none() {
                steps.extend(self.followers(node).map(|voter| Step::AskForReceipts { node, voter }));
            }
            steps.push(Step::TakeReceipts(node));
        }
        let waits = grantor.renewals().0.next().is_some();
        if waits && grantor.renewals().1.is_none() {
            steps.push(Step::BeginRead(node));
        }
        if waits && quorate_membership::mutant!("grant_without_read") {
            steps.push(Step::GrantUnread(node));
        }
        if leader_side.former.as_ref().is_some_and(|read| read.confirmed) {
            steps.push(Step::EndFormerRead(node));
        }
        if let Some(read) = &leader_side.read {
            if !read.confirmed && !bounds.receipts && self.votes.is_followed(node) {
                steps.push(Step::ConfirmRead(node));
            }
            if !read.confirmed && bounds.receipts && self.votes.voters[node].promised == voter.leads {
                steps.extend(self.followers(node).map(|voter| Step::ConfirmReadBy { node, voter }));
            }
            if leader_side.may_end(&leader_side.applied) {
                steps.push(Step::EndRead { node, newest: false });
            }
            if leader_side.may_end(&self.committed) && lags {
                steps.push(Step::EndRead { node, newest: true });
            }
            if !read.confirmed && !bounds.receipts {
                steps.push(Step::FailRead(node));
            }
        }
        if bounds.timed && grantor.watched().count() > 0 {
            steps.push(Step::Expire(node));
        }
        if self.used.orders < bounds.orders && leader_side.is_current(&self.committed) {
            let targets = self.committed.cluster.active().filter(|who| who.node != id(2) && who.node != id(node));
            steps.extend(targets.map(|who| Step::Order(node, who)));
        }
    }

    fn acting(&self, at: usize, bounds: &Bounds, steps: &mut Vec<Step>) {
        let Some(member) = &self.members[at] else {
            if self.newest(at) < bounds.lives[at] && self.votes.captain().is_some() {
                steps.push(Step::Rejoin(at));
            }
            return;
        };
        let left = member.left(self.now[at]);
        if self.used.sends[at] < bounds.sends[at] {
            steps.push(Step::Send(at));
        }
        for (job, resource) in self.jobs.iter().enumerate() {
            let works = member.works & (1 << job) != 0;
            if !works && resource.owner == member.who() && member.is_held(self.now[at]) {
                steps.push(Step::Begin(at, job));
            }
            if works && bounds.stop == Stop::Tokens && left > 0 && resource.under_way[at].is_none() {
                steps.push(Step::StartEffect(at, job));
            }
        }
        if bounds.rests && member.works != 0 && left > 0 {
            steps.push(Step::LayDown(at));
        }
        if member.dog > 0 && left > 0 && !member.feeding {
            steps.push(Step::LookBeforeFeeding(at));
        }
        if member.feeding {
            steps.push(Step::Feed(at));
        }
        if self.used.crashes < bounds.crashes && !bounds.receipts {
            steps.push(Step::Crash(at));
        }
        let phase = self.committed.cluster.life(member.who()).map(|life| life.phase);
        if phase == Some(Phase::Fencing) && !member.holder.is_condemned() {
            steps.push(Step::HearOfFencing(at));
        }
    }

    fn ending(&self, bounds: &Bounds, steps: &mut Vec<Step>) {
        let cluster = &self.committed.cluster;
        if self.votes.captain().is_some() {
            if self.call.is_none() {
                let open = cluster.fences().open().filter(|order| order.attempts == 0);
                steps.extend(open.map(|order| Step::CallFencer(order.id)));
            }
            if self.call.is_some_and(|call| call.verified) {
                steps.push(Step::ConfirmFence);
            }
        }
        if self.call.is_some_and(|call| !call.verified) {
            steps.push(Step::Shoot);
        }
        for (at, job) in self.jobs.iter().enumerate() {
            let under_way = (0..MEMBERS).filter(|member| job.under_way[*member].is_some());
            steps.extend(under_way.map(|member| Step::LandEffect(member, at)));
            let fencing = cluster.life(job.owner).is_some_and(|life| life.phase == Phase::Fencing);
            let told = bounds.mistake == Some(Mistake::ToldBeforeTheProof) && fencing;
            if (self.committed.over(job.owner) || told) && self.used.takeovers < bounds.takeovers {
                let successors = cluster.active().filter(|who| who.node != id(2));
                steps.extend(successors.map(|who| Step::TakeOver(at, who)));
            }
        }
    }
}
