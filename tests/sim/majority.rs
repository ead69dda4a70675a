//! While other nodes fail, a majority that is whole goes on: it commits, and none of its members loses its lease.
//!
//! ```text
//!   whole: run, do not pause, have a good disk,          judged once it has been whole for a while:
//!          reach each other both ways, hold a lease        commits go on              nobody is warned, lapses, or is ended
//! ```
//!
//! A node outside it that some of its members reach and others do not is another matter for the leases: who leads decides
//! then which of two majorities goes on, and the other's odd member loses its lease. Commits go on in any case. A split vote
//! takes a second election, and so does a leader outside of it that is lost as soon as it leads. A lease need not outlast two
//! elections (I15 is about one).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate::lease::LeaseStage;
use quorate::lease::ledger::Note;
use quorate::testing::sim::{Durable, Observation, TraceEntry, World};
use quorate::{Config, Event, Identity, NodeId};
use tokio::time::Instant;

use crate::coverage::Tally;
use crate::faults::{Deed, Then};
use crate::judge::is_active;
use crate::oracle::Verdict;

struct Window {
    began: Instant,
    /// Since when leases are judged.
    leases: Option<Instant>,
    /// The lives of its members, which nobody orders to be fenced.
    lives: BTreeSet<Identity>,
    /// The last index that a member had applied, and when it grew.
    applied: u64,
    grew: Instant,
}

/// Every whole majority, since when it is one, and how it went on.
pub(crate) struct Majorities {
    windows: BTreeMap<BTreeSet<NodeId>, Window>,
    settled: Duration,
    commits_within: Duration,
    looked: Instant,
    /// The newest term that somebody stood in, who it was, and when two had stood in the same.
    stood: (u64, NodeId),
    split: Option<Instant>,
    /// Who was elected last, and when.
    elected: Option<(NodeId, Instant)>,
    /// Who is asked to go, and until when that may take. Nobody: a change of the members or of their votes.
    orders: Vec<(Instant, Option<NodeId>)>,
    orders_take: Duration,
    /// Whether the timing is too fast for thin ways: their queues delay a message by 36 ms, more than its heartbeat.
    is_fast: bool,
    /// How long there was one whose commits, and whose leases, were judged.
    judged: [Duration; 2],
}

impl Majorities {
    pub(crate) fn new(config: &Config) -> Self {
        let elections = config.election_max() * 4;
        // Clients wait for a leader for so long, and only then write again.
        let commits_within = elections + config.propose_timeout;
        let settled = elections + config.fence_after();
        Self {
            windows: BTreeMap::new(),
            settled,
            commits_within,
            looked: Instant::now(),
            stood: (0, NodeId::default()),
            split: None,
            elected: None,
            orders: vec![],
            orders_take: config.propose_timeout * 2,
            is_fast: config.heartbeat() < Duration::from_millis(36),
            judged: [Duration::ZERO; 2],
        }
    }

    /// Notes what the director itself asks of members.
    pub(crate) fn expect(&mut self, deed: &Deed) {
        let whom = match deed {
            Deed::HandOver | Deed::Add => return,
            Deed::Leave(who) | Deed::ShutDown(who) => Some(*who),
            Deed::Remove(_) | Deed::SetRole(..) => None,
        };
        self.orders.push((Instant::now() + self.orders_take, whom));
    }

    /// Who is not well by what the director did or asked for. `None` if that concerns everybody.
    fn ill(&mut self, due: &[(Instant, Then)], now: Instant) -> Option<BTreeSet<NodeId>> {
        self.orders.retain(|(until, _)| *until > now);
        let asked = self.orders.iter().map(|(_, who)| *who);
        let struck = due.iter().filter_map(|(_, then)| match then {
            Then::OpenPort(node)
            | Then::Resume(node)
            | Then::Stutter(node, _)
            | Then::Quicken(node)
            | Then::SyncAgain(node) => Some(Some(*node)),
            Then::Calm | Then::QuickenAll => Some(None),
            Then::WidenAll if self.is_fast => Some(None),
            Then::MendAll | Then::Mend(..) | Then::Flip { .. } | Then::GoodDevice | Then::WidenAll => None,
        });
        asked.chain(struck).collect()
    }

    /// The end of the faults.
    pub(crate) fn tell(self, tally: &mut Tally) {
        let [commits, leases] = self.judged.map(|judged| judged.as_secs());
        tally.add("second of a whole majority among faults: commits judged", commits);
        tally.add("second of a whole majority among faults: leases judged", leases);
    }

    /// Looks at one entry of the trace.
    pub(crate) fn see(&mut self, entry: &TraceEntry) -> Verdict {
        if let Observation::Durable(Durable::Vote(vote)) = &entry.seen
            && vote.node == entry.node
        {
            if vote.committed {
                self.elected = Some((vote.node, Instant::now()));
                return Ok(());
            }
            if vote.term == self.stood.0 && vote.node != self.stood.1 {
                self.split = Some(Instant::now());
            }
            self.stood = self.stood.max((vote.term, vote.node));
        }
        if let Observation::Ended { .. } = &entry.seen {
            // An order may come sooner than the next look.
            self.windows.retain(|members, _| !members.contains(&entry.node));
        }
        if self.split.is_some_and(|at| at.elapsed() < self.settled) {
            return Ok(());
        }
        let judged = |window: &Window| window.leases.is_some_and(|since| since.elapsed() > self.settled);
        let lost_twice = |members: &BTreeSet<NodeId>| {
            self.elected.is_some_and(|(leader, at)| !members.contains(&leader) && at.elapsed() < self.settled)
        };
        let harmed = |members: &BTreeSet<NodeId>, window: &Window| match &entry.seen {
            Observation::Fired | Observation::Noted(Note::Notice { .. } | Note::Lapsed { .. }) => {
                members.contains(&entry.node)
            }
            Observation::Applied { answer: Ok(events), .. } => events.iter().any(|event| match event {
                Event::FenceOrdered { target, .. } => window.lives.contains(target),
                _ => false,
            }),
            _ => false,
        };
        match self
            .windows
            .iter()
            .find(|(members, window)| judged(window) && !lost_twice(members) && harmed(members, window))
        {
            Some((members, window)) => Err(format!(
                "violated: no member of a whole majority loses its lease: {members:?} is whole for {:?}: {entry}",
                window.began.elapsed()
            )),
            None => Ok(()),
        }
    }

    /// Looks at the world as it is now, with the faults that are still to be taken back. After each change of it, so that no
    /// window outlasts what it stands for.
    pub(crate) fn look(&mut self, world: &World, due: &[(Instant, Then)]) -> Verdict {
        let now = Instant::now();
        let since = now - std::mem::replace(&mut self.looked, now);
        let whole = self.ill(due, now).map_or(vec![], |ill| whole(world, &ill));
        self.windows.retain(|members, _| whole.contains(members));
        let mut judged = [false; 2];
        for members in whole {
            let applied = members.iter().filter_map(|node| Some(world.process(*node)?.node.view().local.applied.get()));
            let applied = applied.max().unwrap_or_default();
            let holds = |node: &NodeId| {
                is_active(world, *node)
                    && world.process(*node).is_some_and(|r| r.node.view().local.lease.stage == LeaseStage::Held)
            };
            if !self.windows.contains_key(&members) && !members.iter().all(holds) {
                continue;
            }
            let apart = is_apart(world, &members);
            let lives = || members.iter().filter_map(|node| world.process(*node)?.node.identity()).collect();
            let fresh = || Window { began: now, leases: None, lives: lives(), applied, grew: now };
            let window = self.windows.entry(members.clone()).or_insert_with(fresh);
            window.leases = apart.then(|| window.leases.unwrap_or(now));
            if applied > window.applied {
                (window.applied, window.grew) = (applied, now);
            }
            let settled = window.began + self.settled;
            if now > window.grew.max(settled) + self.commits_within {
                return Err(format!(
                    "violated: a whole majority commits: {members:?} is whole for {:?}, and nothing is committed for {:?}",
                    now - window.began,
                    now - window.grew
                ));
            }
            judged[0] |= now > settled;
            judged[1] |= window.leases.is_some_and(|since| now > since + self.settled);
        }
        for (sum, judged) in self.judged.iter_mut().zip(judged) {
            *sum += if judged { since } else { Duration::ZERO };
        }
        Ok(())
    }
}

/// Every set of well nodes that reach each other both ways and have a majority of the votes.
fn whole(world: &World, ill: &BTreeSet<NodeId>) -> Vec<BTreeSet<NodeId>> {
    let well: Vec<NodeId> = world.running().map(|r| r.host.node()).filter(|node| !ill.contains(node)).collect();
    let subsets = (1_u32..1 << well.len()).map(|bits| {
        well.iter().enumerate().filter(move |(at, _)| bits & (1 << at) != 0).map(|(_, node)| *node).collect()
    });
    subsets.filter(|members: &BTreeSet<NodeId>| is_whole(world, members)).collect()
}

/// Whether what one says does not arrive at the other.
fn is_lost(world: &World, from: NodeId, to: NodeId) -> bool {
    world.net.is_cut(from, to) || world.net.is_rejected(from, to)
}

fn is_whole(world: &World, members: &BTreeSet<NodeId>) -> bool {
    let linked = |a: &NodeId| members.iter().all(|b| a == b || !is_lost(world, *a, *b));
    let majority = |node: &NodeId| {
        let Some(running) = world.process(*node) else { return false };
        let cluster = &running.node.view().cluster;
        let voters = cluster.configuration().voters();
        // Raft obeys a configuration before it is committed: what is wanted may be under way.
        let wanted = cluster.members().filter(|(_, member)| member.role.votes()).map(|(node, _)| node).collect();
        let majority_of = |set: &BTreeSet<NodeId>| set.intersection(members).count() * 2 > set.len();
        majority_of(&voters) && majority_of(&wanted) && members.is_subset(&voters)
    };
    members.iter().all(linked) && members.iter().all(majority)
}

/// Whether every other node that runs has open links with all members, or with none.
fn is_apart(world: &World, members: &BTreeSet<NodeId>) -> bool {
    world.running().map(|r| r.host.node()).filter(|node| !members.contains(node)).all(|other| {
        let mut cuts = members.iter().flat_map(|m| [is_lost(world, *m, other), is_lost(world, other, *m)]);
        let first = cuts.next();
        cuts.all(|cut| Some(cut) == first)
    })
}
