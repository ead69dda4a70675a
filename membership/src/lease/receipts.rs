//! Receipts: what each voter remembers of the renewals that leaders have granted, so that a new leader need not begin every
//! wait anew.
//!
//! ```text
//!   leader: renewal received ─▶ names the life in the calls that confirm its read ─▶ voter: note(life, now), then answers
//!   new leader: activated ─▶ asks a quorum ─▶ receipts(now): how old each note is ─▶ last := the newest of them
//! ```
//!
//! Why it is safe. A grant needs a quorum that confirmed its read. Each voter of that quorum noted the life before it
//! confirmed, and so after the renewal was sent. The new leader asks a quorum under its own vote, and a voter that has
//! accepted this vote confirms nothing for an earlier leader. The two quorums share a voter, and its note is as late as the
//! sending of that renewal, or later. So the latest time that a quorum names is late enough, whichever voter it is.
//!
//! Two things are lost with a note, and then a time stands in its place that is certainly later. What a voter noted before
//! its process began was sent before that. And where the voters were changed, so that the two quorums share none, what the
//! earlier voters confirmed was sent before the change came to any of the later ones (`begin_anew`).

use std::collections::BTreeMap;
use std::time::Duration;

use super::Reading;
use crate::cluster::ClusterState;
use crate::id::Identity;

/// How many lives are remembered. Beyond it all are forgotten, which costs a wait and nothing else.
const MOST: usize = 65_536;

/// What a voter says of the renewals that it was told of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Receipts {
    /// For how long it has noted every life that it was told of, on its own clock.
    pub since: Duration,
    /// For each life, how long ago it was told of it last, on its own clock.
    pub of: BTreeMap<Identity, Duration>,
}

impl Receipts {
    /// How long ago the last renewal of `who` was granted at the least, as far as this voter is concerned.
    pub fn age(&self, who: Identity) -> Duration {
        let noted = self.of.get(&who).copied();
        if mutant!("lost_receipt_counts_as_old") {
            return noted.unwrap_or(Duration::MAX);
        }
        noted.map_or(self.since, |noted| noted.min(self.since))
    }
}

/// The receipts that a voter keeps, in memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ReceiptLog {
    began: Reading,
    of: BTreeMap<Identity, Reading>,
}

impl ReceiptLog {
    /// Of a process that has begun, and confirmed nothing before `now`.
    pub fn new(now: Reading) -> Self {
        Self { began: now, of: BTreeMap::new() }
    }

    /// A leader says that it has received renewals of these lives, and `now` was read after that. Note it before anything is
    /// answered.
    pub fn note(&mut self, lives: impl IntoIterator<Item = Identity>, now: Reading) {
        for who in lives {
            self.of.insert(who, now);
        }
        if self.of.len() > MOST {
            *self = Self::new(now);
        }
    }

    /// A change of the voters was received, and `now` was read after that: earlier voters may have confirmed what this one was
    /// not told of.
    pub fn begin_anew(&mut self, now: Reading) {
        if !mutant!("receipts_outlive_voters") {
            self.began = now;
        }
    }

    /// Forgets the lives that have ended in `state`: nothing is granted to them any more.
    pub fn forget_ended(&mut self, state: &ClusterState) {
        self.of.retain(|who, _| {
            let superseded = state.newest(who.node).is_some_and(|newest| newest.incarnation > who.incarnation);
            state.life(*who).map_or(!superseded, |life| !life.phase.has_ended())
        });
    }

    /// What this voter says at `now`. Ask it only after it has accepted the vote of the leader that asks.
    pub fn receipts(&self, now: Reading) -> Receipts {
        let of = self.of.iter().map(|(who, at)| (*who, now.shortest_since(*at))).collect();
        Receipts { since: now.shortest_since(self.began), of }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use crate::contract::{Contract, Drift, Stop};
    use crate::id::{Activation, BootId, ClusterId, DiskId, Incarnation, NodeId, Nonce};
    use crate::lease::Grantor;
    use crate::quorum::Configuration;
    use crate::{Address, Disk, Revision, Role, apply};

    fn at(ms: u64) -> Reading {
        Reading::steady(Duration::from_millis(ms))
    }

    fn who(node: u64) -> Identity {
        Identity::new(NodeId::new(node), Incarnation::new(1))
    }

    #[test]
    fn a_voter_vouches_for_no_time_before_its_start_or_before_a_change_of_the_voters() {
        let ms = Duration::from_millis;
        let mut log = ReceiptLog::new(at(100));
        log.note([who(1), who(2)], at(200));
        log.note([who(2)], at(300));
        let receipts = log.receipts(at(1000));
        assert_eq!([1, 2, 3].map(|node| receipts.age(who(node))), [ms(800), ms(700), ms(900)]);
        log.begin_anew(at(600));
        let receipts = log.receipts(at(1000));
        assert_eq!([1, 2, 3].map(|node| receipts.age(who(node))), [ms(400), ms(400), ms(400)]);
    }

    #[test]
    fn too_many_lives_are_forgotten_all_at_once() {
        let mut log = ReceiptLog::new(at(0));
        log.note((0..=MOST as u64).map(who), at(500));
        assert_eq!(log, ReceiptLog::new(at(500)));
    }

    /// A leader with an activation, whose clock shows ten seconds, and one voter beside it that works.
    fn activated() -> (Grantor, Activation) {
        let mut state = ClusterState::new();
        let contract = Contract { stop: Stop::Deadman { lateness: Duration::from_millis(250) }, ..Contract::default() };
        let mut commands = vec![Command::Found { cluster: ClusterId::new(1) }];
        commands.push(Command::Configure { configuration: Configuration::uniform([1, 2, 3].map(NodeId::new), []) });
        for number in 1..=3_u64 {
            let (node, addresses) = (NodeId::new(number), Address::new("host:1").into_iter().collect());
            let disk = Disk { id: DiskId::new(number.into()), opened: 1 };
            let (boot, nonce, role) = (BootId::new(1), Nonce::new(number.into()), Role::Voter);
            commands.push(Command::Join { node, role, addresses, disk, boot, nonce, contract, left: None, hint: None });
            commands.push(Command::Activate { who: who(number) });
        }
        commands.push(Command::ActivateLeader { leader: NodeId::new(1), nonce: Nonce::new(7) });
        for (command, revision) in commands.iter().zip(1..) {
            apply(&mut state, Revision::new(revision), command).unwrap();
        }
        let mut grantor = Grantor::new(NodeId::new(1), Drift::default());
        grantor.handle_gain(Nonce::new(7));
        grantor.handle_applied(&state, at(10_000));
        let activation = grantor.activation().unwrap();
        (grantor, activation)
    }

    #[test]
    fn a_wait_is_moved_back_by_a_quorum_and_by_no_more_than_both_clocks_allow() {
        let ms = Duration::from_millis;
        let voters = Configuration::uniform([1, 2, 3].map(NodeId::new), []);
        let told = |since, age| (Receipts { since: ms(since), of: [(who(2), ms(age))].into() }, at(10_000));
        let silence = |grantor: &Grantor| grantor.silence(who(2), at(10_000)).unwrap();
        let (mut grantor, activation) = activated();
        assert_eq!(silence(&grantor), ms(0));
        let alone = BTreeMap::from([(NodeId::new(1), told(9000, 5050))]);
        assert_eq!(grantor.handle_receipts(activation, &alone, &voters, at(10_000)), None, "one of three is no quorum");
        let other = Activation::new(99);
        let both = BTreeMap::from([(NodeId::new(1), told(9000, 5050)), (NodeId::new(3), told(9000, 2020))]);
        assert_eq!(grantor.handle_receipts(other, &both, &voters, at(10_000)), None, "another activation asked");
        assert_eq!(silence(&grantor), ms(0));
        let since = grantor.handle_receipts(activation, &both, &voters, at(10_000));
        assert_eq!(silence(&grantor), ms(1980), "2020 ms on a fast clock are 1980 on a slow one");
        assert_eq!(since, Some(at(8020)));
        assert!(!grantor.has_unheard());
        // Where nobody was told of it, it may have just begun.
        let (mut grantor, activation) = activated();
        let nobody =
            both.into_keys().map(|node| (node, (Receipts { since: ms(9000), of: BTreeMap::new() }, at(10_000))));
        let since = grantor.handle_receipts(activation, &nobody.collect(), &voters, at(10_400));
        assert_eq!(since, Some(at(10_000)), "these waits began with the activation");
        assert_eq!(silence(&grantor), ms(0));
        // What is received meanwhile counts more.
        let (mut grantor, activation) = activated();
        grantor.handle_pause(at(10_000));
        let old = || [1, 3].map(|node| (NodeId::new(node), told(9000, 5050))).into();
        assert!(grantor.handle_receipts(activation, &old(), &voters, at(10_000)).is_some());
        assert_eq!(silence(&grantor), ms(0));
        // Nobody led for long: it has a quarter of its wait of 3313 ms to say that it lives.
        let (mut grantor, activation) = activated();
        assert!(grantor.handle_receipts(activation, &old(), &voters, at(10_000)).is_some());
        assert_eq!(silence(&grantor).as_millis(), 2484);
        assert_eq!(grantor.poll_expiries(at(10_000)), []);
    }
}
