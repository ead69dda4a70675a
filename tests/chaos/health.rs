//! Who was well at which time, by what was done to them: the ground on which ends and elections are judged.
//!
//! ```text
//!              n1 hurt ├──────────┤ n1 not up yet ├────┤
//!              n2 frayed n3  ├──────┤
//!                                    ├──── window ────┤● n2 is fenced: excused, its way to n3 was cut lately
//!                                    ├──── window ────┤● n4 is fenced: a violation, if a majority with it was well
//! ```
//!
//! A host is excused for as long as something was done to it, and while no majority of well hosts that reach each other
//! has it among them; and for one window longer, in which a lease runs out and somebody notices.

use std::collections::BTreeSet;

/// What holds from one moment to the next change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Hosts to which something is done.
    pub(crate) hurt: BTreeSet<u64>,
    /// Hosts whose process is not there, or has not come in yet.
    pub(crate) down: BTreeSet<u64>,
    /// Ways that are cut between two hosts that are otherwise left alone.
    pub(crate) frayed: BTreeSet<(u64, u64)>,
    /// The processors or the disk are busy with something else.
    pub(crate) busy: bool,
}

impl Moment {
    fn quiet(&self) -> bool {
        self.hurt.is_empty() && self.down.is_empty() && self.frayed.is_empty()
    }

    fn well(&self, host: u64) -> bool {
        !self.hurt.contains(&host) && !self.down.contains(&host)
    }

    fn reach(&self, one: u64, other: u64) -> bool {
        !self.frayed.contains(&(one, other)) && !self.frayed.contains(&(other, one))
    }

    /// Whether nothing is done to this host, and a majority is well with which it stands connected.
    fn stands(&self, host: u64, hosts: u64) -> bool {
        let alone = self.frayed.iter().all(|(from, to)| *from != host && *to != host);
        let groups = 0..1_u32 << hosts;
        let has = |group: u32, host: u64| group >> (host - 1) & 1 == 1;
        let fine = |group: u32| {
            let members: Vec<_> = (1..=hosts).filter(|host| has(group, *host)).collect();
            members.iter().all(|one| self.well(*one) && members.iter().all(|other| self.reach(*one, *other)))
        };
        let majority = |group: &u32| u64::from(group.count_ones()) * 2 > hosts;
        alone && self.well(host) && groups.filter(majority).any(|group| has(group, host) && fine(group))
    }
}

/// How something that happened is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Something was done that explains it.
    Excused,
    /// Only that the machine was busy.
    Busy,
    /// Nothing.
    Unexplained,
}

/// The whole run, moment by moment.
#[derive(Debug)]
pub(crate) struct Health {
    hosts: u64,
    moments: Vec<(u64, Moment)>,
    /// When the machine itself stood still, or its disk did.
    pub(crate) stalls: Vec<(u64, u64)>,
}

impl Health {
    pub(crate) fn new(hosts: u64) -> Self {
        Self { hosts, moments: vec![], stalls: vec![] }
    }

    /// What holds from now on.
    pub(crate) fn note(&mut self, at: u64, moment: Moment) {
        if self.moments.last().is_none_or(|(_, last)| *last != moment) {
            self.moments.push((at, moment));
        }
    }

    /// Every moment of which something lies between the two.
    fn during(&self, from: u64, until: u64) -> impl Iterator<Item = &Moment> {
        let first = self.moments.partition_point(|(at, _)| *at <= from).saturating_sub(1);
        self.moments.iter().skip(first).take_while(move |(at, _)| *at <= until).map(|(_, moment)| moment)
    }

    fn busy(&self, from: u64, until: u64) -> bool {
        let stalled = self.stalls.iter().any(|(begun, ended)| *begun <= until && *ended >= from);
        stalled || self.during(from, until).any(|moment| moment.busy)
    }

    /// How the end of a host's life, or an order for it, is to be taken.
    pub(crate) fn of_host(&self, host: u64, at: u64, window: u64) -> Taken {
        let from = at.saturating_sub(window);
        if self.during(from, at).any(|moment| !moment.stands(host, self.hosts)) {
            return Taken::Excused;
        }
        if self.busy(from, at) { Taken::Busy } else { Taken::Unexplained }
    }

    /// How an election is to be taken.
    pub(crate) fn of_all(&self, at: u64, window: u64) -> Taken {
        let from = at.saturating_sub(window);
        if self.during(from, at).any(|moment| !moment.quiet()) {
            return Taken::Excused;
        }
        if self.busy(from, at) { Taken::Busy } else { Taken::Unexplained }
    }

    /// For how long every host was judged, together, in nanoseconds: how much the judgement of ends rests on.
    pub(crate) fn judged(&self, until: u64, window: u64) -> u64 {
        let mut total = 0;
        for host in 1..=self.hosts {
            let mut from = None;
            for (at, moment) in self.moments.iter().map(|(at, m)| (*at, Some(m))).chain([(until, None)]) {
                let stands = moment.is_some_and(|moment| moment.stands(host, self.hosts));
                match (from, stands) {
                    (None, true) => from = Some(at),
                    (Some(since), false) => {
                        total += at.saturating_sub(since + window);
                        from = None;
                    }
                    _ => {}
                }
            }
        }
        total
    }
}
