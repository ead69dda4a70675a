//! The leader's side: who asked last and when, which read confirms it, and whose time is up.
//!
//! ```text
//!   handle_gain(nonce) ─▶ Activate(self, nonce) proposed ─▶ applied: A set, last := now for every life that is not over
//!
//!   renewal ─▶ last := now, waiting ──poll_read──▶ round (closed to what comes later) ──handle_read──▶ grants
//!   silence ─▶ now − last ≥ D: Expiring, for good within this activation ──poll_expiries──▶ Expire proposed
//! ```
//!
//! Why it holds: if the activation A is current, every grant ever made was *sent* no later than `last`. One made under A,
//! because `last` is noted after the receipt; one under an earlier activation, because its read saw that activation and
//! so lies before A was applied, which is where `last` begins; one under a later activation cannot be, for A would not be
//! current, and then nothing that is proposed under A takes effect. No clock is used for that. The wait D then covers
//! what the clocks may be off (see [`Contract`](crate::Contract)).

use std::collections::BTreeMap;
use std::time::Duration;

use super::Reading;
use crate::cluster::ClusterState;
use crate::contract::Drift;
use crate::id::{Activation, Identity, NodeId, Nonce};
use crate::member::Phase;

/// The number of a read that the renewals of one round wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Round(u64);

/// A life whose time is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Expiry {
    /// Which.
    pub target: Identity,
    /// Under which activation this may be proposed.
    pub under: Activation,
    /// For how long nothing was received of it, on the leader's clock.
    pub waited: Duration,
}

/// Why a renewal was not even taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum NotRenewed {
    /// This node has no activation: it does not lead, or not yet.
    #[error("this node has not been activated as leader")]
    NotActivated,
    /// The life may not hold a lease: it is not active, is being fenced, is over, or a newer one of its node has joined.
    #[error("{0} may not hold a lease: it is not active, or a newer life of its node has joined")]
    NotLive(Identity),
    /// Its time was up, which cannot be taken back.
    #[error("the time of {0} was up before this renewal came")]
    Expiring(Identity),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Watched {
    last: Reading,
    wait: Option<Duration>,
    /// Whether the rules would let it end now: the others still hold a majority.
    dispensable: bool,
    expiring: bool,
}

/// Grants leases and notices their end, for as long as its activation is the current one. One a process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Grantor {
    me: NodeId,
    drift: Drift,
    wanted: Option<Nonce>,
    activation: Option<Activation>,
    watched: BTreeMap<Identity, Watched>,
    waiting: BTreeMap<Identity, u64>,
    round: Option<(Round, BTreeMap<Identity, u64>)>,
    rounds: u64,
}

impl Grantor {
    /// A grantor of node `me`, whose clock may be off by `drift`. It grants nothing and ends nobody.
    pub fn new(me: NodeId, drift: Drift) -> Self {
        let (watched, waiting) = (BTreeMap::new(), BTreeMap::new());
        Self { me, drift, wanted: None, activation: None, watched, waiting, round: None, rounds: 0 }
    }

    /// This node has gained leadership, or has started as leader (P4): from here on it waits for the activation with
    /// that nonce, which must never have been used before. Until it is applied nothing is granted and nobody is ended.
    pub fn handle_gain(&mut self, nonce: Nonce) {
        self.forget();
        self.wanted = Some(nonce);
    }

    /// Leadership is lost, as far as anybody can tell. Only saves work: nothing rests on it.
    pub fn handle_loss(&mut self) {
        self.forget();
        self.wanted = None;
    }

    fn forget(&mut self) {
        self.activation = None;
        self.watched.clear();
        self.waiting.clear();
        self.round = None;
    }

    /// The nonce to be activated with, while it is not.
    pub fn poll_activation(&self) -> Option<Nonce> {
        self.wanted.filter(|_| self.activation.is_none())
    }

    /// The activation that this grantor acts under.
    pub fn activation(&self) -> Option<Activation> {
        self.activation
    }

    /// The state has moved on, and `now` is after it was applied here.
    pub fn handle_applied(&mut self, state: &ClusterState, now: Reading) {
        let current = state.leadership();
        if cfg!(quorate_mutant = "no_activation") {
            // Whatever is current counts as one's own.
            self.activation = self.wanted.and(current.map(|l| l.activation));
        } else if cfg!(quorate_mutant = "activation_kept_over_restart") {
            self.activation = current.filter(|l| l.leader == self.me && self.wanted.is_some()).map(|l| l.activation);
        } else {
            let own = current.filter(|l| l.leader == self.me && Some(l.nonce) == self.wanted).map(|l| l.activation);
            if own != self.activation {
                // Superseded: another gain, with another nonce, has to come before this node grants again.
                let superseded = self.activation.is_some() && own.is_none();
                self.forget();
                self.activation = own;
                self.wanted = self.wanted.filter(|_| !superseded);
            }
        }
        if self.activation.is_none() {
            return;
        }
        let (drift, needed) = (self.drift, state.needed());
        // A life that may not work yet holds no lease and renews none: its silence begins when it may.
        self.watched.retain(|who, _| state.life(*who).is_some_and(|life| life.phase.may_work()));
        for (who, life) in state.lives().filter(|(_, life)| life.phase.may_work()) {
            let wait = life.contract.wait(drift);
            let spare = !needed.contains(&who.node) || state.newest(who.node) != Some(who);
            let dispensable = spare || life.phase == Phase::Fencing;
            let fresh = Watched { last: now, wait, dispensable, expiring: false };
            let watched = self.watched.entry(who).or_insert(fresh);
            watched.dispensable = dispensable;
            if cfg!(quorate_mutant = "new_leader_does_not_wait") && watched.last == now {
                watched.last = Reading::default();
            }
        }
    }

    /// A renewal has been received, and `now` is after that (P7).
    ///
    /// # Errors
    /// [`NotRenewed`]: it was not noted, and will not be granted.
    pub fn handle_renewal(
        &mut self,
        who: Identity,
        seq: u64,
        state: &ClusterState,
        now: Reading,
    ) -> Result<(), NotRenewed> {
        if self.activation.is_none() {
            return Err(NotRenewed::NotActivated);
        }
        let watched = self.watched.get_mut(&who).ok_or(NotRenewed::NotLive(who))?;
        if watched.expiring && !cfg!(quorate_mutant = "grant_after_expiring") {
            return Err(NotRenewed::Expiring(who));
        }
        if !state.may_renew(who) {
            return Err(NotRenewed::NotLive(who));
        }
        watched.last = now;
        let waiting = self.waiting.entry(who).or_insert(seq);
        *waiting = seq.max(*waiting);
        Ok(())
    }

    /// Begins a round if somebody waits and none is under way: a linearizable read has to be begun after this call, and
    /// its end told with [`Self::handle_read`] or [`Self::handle_read_failed`]. What is received from here on waits for
    /// the next round.
    pub fn poll_read(&mut self) -> Option<Round> {
        if self.round.is_some() || self.waiting.is_empty() {
            return None;
        }
        self.rounds += 1;
        let round = Round(self.rounds);
        self.round = Some((round, std::mem::take(&mut self.waiting)));
        Some(round)
    }

    /// The read has failed: its renewals are not granted, and it is not tried again for them (P8). Which they were.
    pub fn handle_read_failed(&mut self, round: Round) -> Vec<(Identity, u64)> {
        match self.round.take_if(|(number, _)| *number == round) {
            Some((_, taken)) => taken.into_iter().collect(),
            None => vec![],
        }
    }

    /// The read has succeeded, and `state` is at least as new as what it showed (P8). Answers each renewal of the round:
    /// whether it is granted.
    pub fn handle_read(&mut self, round: Round, state: &ClusterState) -> Vec<(Identity, u64, bool)> {
        let Some((_, mut taken)) = self.round.take_if(|(number, _)| *number == round) else { return vec![] };
        if cfg!(quorate_mutant = "read_before_receipt") {
            taken.extend(std::mem::take(&mut self.waiting));
        }
        let stands = self.activation.is_some() && state.leadership().map(|l| l.activation) == self.activation;
        let expiring = |who| self.watched.get(&who).is_none_or(|w| w.expiring);
        let granted = |who| {
            let ok = !expiring(who) || cfg!(quorate_mutant = "grant_after_expiring");
            stands && ok && state.may_renew(who)
        };
        taken.into_iter().map(|(who, seq)| (who, seq, granted(who))).collect()
    }

    /// Grants what waits without any read. Only the mistake of that name has a use for it.
    #[cfg(quorate_mutant = "grant_without_read")]
    pub fn poll_unread(&mut self) -> Vec<(Identity, u64, bool)> {
        std::mem::take(&mut self.waiting).into_iter().map(|(who, seq)| (who, seq, true)).collect()
    }

    /// This node itself stood still until `now`: what it did not receive meanwhile says nothing of the others. Only ever
    /// waits longer, so nothing rests on it.
    pub fn handle_pause(&mut self, now: Reading) {
        self.watched.values_mut().filter(|watched| !watched.expiring).for_each(|watched| watched.last = now);
    }

    /// The lives whose time is up at `now` (P10): each is marked in this very step, for good within this activation, and
    /// only then to be proposed. Those marked before are named again until they are over: a proposal may be lost. One
    /// that the rules would not let end now, because no majority would stand without it, is not marked: it may be
    /// renewed still.
    pub fn poll_expiries(&mut self, now: Reading) -> Vec<Expiry> {
        let Some(under) = self.activation else { return vec![] };
        let mut due = vec![];
        for (target, watched) in &mut self.watched {
            let waited = now.shortest_since(watched.last);
            if watched.dispensable && watched.wait.is_some_and(|wait| waited >= wait) {
                watched.expiring = true;
            }
            if watched.expiring {
                due.push(Expiry { target: *target, under, waited });
            }
        }
        due
    }

    /// For how long nothing was received of `who` at `now`; `None` if it is not watched.
    pub fn silence(&self, who: Identity, now: Reading) -> Option<Duration> {
        self.watched.get(&who).map(|watched| now.shortest_since(watched.last))
    }

    /// The lives that are watched.
    pub fn watched(&self) -> impl Iterator<Item = Identity> + '_ {
        self.watched.keys().copied()
    }

    /// Whether the time of `who` was found to be up.
    pub fn is_expiring(&self, who: Identity) -> bool {
        self.watched.get(&who).is_some_and(|watched| watched.expiring)
    }

    /// The renewals that wait for a read to be begun, and those that wait for the end of the one under way.
    pub fn renewals(&self) -> (impl Iterator<Item = (Identity, u64)> + '_, Option<(Round, usize)>) {
        let waiting = self.waiting.iter().map(|(who, seq)| (*who, *seq));
        (waiting, self.round.as_ref().map(|(round, taken)| (*round, taken.len())))
    }

    /// The renewals that the read under way is for.
    pub fn taken(&self) -> impl Iterator<Item = (Identity, u64)> + '_ {
        self.round.iter().flat_map(|(_, taken)| taken.iter().map(|(who, seq)| (*who, *seq)))
    }
}
