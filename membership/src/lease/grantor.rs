//! The leader's side of leases: when each life last renewed, which read confirms it, and which lives are to expire.
//!
//! ```text
//!   handle_gain(nonce) ─▶ ActivateLeader(self, nonce) proposed ─▶ applied: A set, last := now for every life at work
//!
//!   renewal ─▶ last := now, waiting ──poll_read──▶ round (closed to what comes later) ──handle_read──▶ grants
//!   receipts of a quorum ─▶ last := when the voters heard of it last, if nothing was received under A
//!   silence ─▶ now − last ≥ D: Expiring, finally within this activation ──poll_expiries──▶ Expire proposed
//! ```
//!
//! Why it is safe: while the activation A is current, every grant ever made was *sent* no later than `last`.
//!
//! * A grant under A: `last` is noted after the renewal is received.
//! * A grant under an earlier activation: its read saw that activation, so it lies before A was applied, and that is
//!   where `last` begins. `last` may be moved back to what a quorum of the voters noted of such grants (`receipts.rs`).
//! * A grant under a later activation: then A is not current, and nothing proposed under A takes effect.
//!
//! This argument uses no clock. The wait D covers the drift of clocks (see [`Contract`](crate::Contract)).

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Reading, Receipts};
use crate::cluster::ClusterState;
use crate::contract::Drift;
use crate::id::{Activation, Identity, NodeId, Nonce};
use crate::member::Phase;
use crate::quorum::Configuration;

/// The number of one linearizable read, which confirms all renewals received before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Round(u64);

/// A life that is to expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Expiry {
    /// The life to expire.
    pub target: Identity,
    /// The activation under which the expiry may be proposed.
    pub under: Activation,
    /// For how long the leader received nothing of it, on its own clock. At least D of the contract.
    pub waited: Duration,
}

/// Why a renewal was refused. It was not noted, and will not be granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum NotRenewed {
    /// This node has no activation: it does not lead, or its activation is not applied yet.
    #[error("this node is not activated as leader; ask the leader")]
    NotActivated,
    /// The life may not hold a lease: it is not active, is being fenced, has ended, or a newer life of its node has
    /// joined.
    #[error("{0} may not hold a lease: it is not active, or a newer life of its node has joined")]
    NotLive(Identity),
    /// The leader has begun to expire the life, which is final within this activation.
    #[error("{0} is being expired; its renewal came too late")]
    Expiring(Identity),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Watched {
    last: Reading,
    /// Whether `last` is the beginning of the activation: nothing was received of it since.
    unheard: bool,
    wait: Option<Duration>,
    /// Whether the rules would accept its end now: the others hold a majority without it.
    dispensable: bool,
    /// Whether it is spared, because nobody waits for anything of it.
    spared: bool,
    expiring: bool,
}

/// Grants leases and finds lives to expire, for as long as its activation is the current one. One for each process.
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
    /// A grantor for node `me`, whose clock may be off by `drift`. Without an activation it grants and expires nothing.
    pub fn new(me: NodeId, drift: Drift) -> Self {
        let (watched, waiting) = (BTreeMap::new(), BTreeMap::new());
        Self { me, drift, wanted: None, activation: None, watched, waiting, round: None, rounds: 0 }
    }

    /// This node has gained leadership, or has started as leader (P4). It waits for the activation with that nonce,
    /// which must never have been used before. Until that is applied it grants and expires nothing.
    pub fn handle_gain(&mut self, nonce: Nonce) {
        self.forget();
        self.wanted = Some(nonce);
    }

    /// This node has lost leadership, as far as it knows. This only saves work; safety does not depend on it.
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

    /// The nonce to propose an activation with, while one is wanted.
    pub fn poll_activation(&self) -> Option<Nonce> {
        self.wanted.filter(|_| self.activation.is_none())
    }

    /// The activation that this grantor acts under.
    pub fn activation(&self) -> Option<Activation> {
        self.activation
    }

    /// A newer state was applied here, and `now` was read after that.
    pub fn handle_applied(&mut self, state: &ClusterState, now: Reading) {
        let current = state.leadership();
        // Whether this is the beginning of the activation. Of lives that come later no leader before has granted anything.
        let mut unheard = false;
        if mutant!("no_activation") {
            // The mistake: any current activation counts as its own.
            self.activation = self.wanted.and(current.map(|l| l.activation));
        } else {
            let kept = mutant!("activation_kept_over_restart") && self.wanted.is_some();
            let asked = |l: &crate::Leadership| Some(l.nonce) == self.wanted || kept;
            let own = current.filter(|l| l.leader == self.me && asked(l)).map(|l| l.activation);
            if own != self.activation {
                unheard = own.is_some();
                // Superseded: this node grants again only after another gain, with another nonce.
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
        // A joining life has no lease and renews none: its silence is counted from its activation.
        self.watched.retain(|who, _| state.life(*who).is_some_and(|life| life.phase.may_work()));
        for (who, life) in state.lives().filter(|(_, life)| life.phase.may_work()) {
            let wait = life.contract.wait(drift);
            let spare = !needed.contains(&who.node) || state.newest(who.node) != Some(who);
            let dispensable = spare || life.phase == Phase::Fencing;
            let fresh = Watched { last: now, unheard, wait, dispensable, spared: false, expiring: false };
            let watched = self.watched.entry(who).or_insert(fresh);
            watched.dispensable = dispensable;
            if mutant!("new_leader_does_not_wait") && watched.last == now {
                watched.last = Reading::default();
            }
        }
    }

    /// A renewal was received, and `now` was read after that (P7).
    ///
    /// # Errors
    /// [`NotRenewed`]: the renewal was not noted, and will not be granted.
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
        if watched.expiring && !mutant!("grant_after_expiring") {
            return Err(NotRenewed::Expiring(who));
        }
        if !state.may_renew(who) {
            return Err(NotRenewed::NotLive(who));
        }
        (watched.last, watched.unheard) = (now, false);
        let waiting = self.waiting.entry(who).or_insert(seq);
        *waiting = seq.max(*waiting);
        Ok(())
    }

    /// Begins a round, if renewals wait and no round is under way. The caller must begin a linearizable read after this
    /// call, and report its end with [`Self::handle_read`] or [`Self::handle_read_failed`]. Renewals received from here
    /// on wait for the next round.
    pub fn poll_read(&mut self) -> Option<Round> {
        if self.round.is_some() || self.waiting.is_empty() {
            return None;
        }
        self.rounds += 1;
        let round = Round(self.rounds);
        self.round = Some((round, std::mem::take(&mut self.waiting)));
        Some(round)
    }

    /// The read has failed. Its renewals are not granted, and no further read is made for them (P8). Returns them.
    pub fn handle_read_failed(&mut self, round: Round) -> Vec<(Identity, u64)> {
        match self.round.take_if(|(number, _)| *number == round) {
            Some((_, taken)) => taken.into_iter().collect(),
            None => vec![],
        }
    }

    /// The read has succeeded, and `state` is at least as new as what it read (P8). Returns each renewal of the round,
    /// and whether it is granted.
    pub fn handle_read(&mut self, round: Round, state: &ClusterState) -> Vec<(Identity, u64, bool)> {
        let is_it = |number: Round| number == round || mutant!("any_read_ends_the_round");
        let Some((_, mut taken)) = self.round.take_if(|(number, _)| is_it(*number)) else { return vec![] };
        if mutant!("read_before_receipt") {
            taken.extend(std::mem::take(&mut self.waiting));
        }
        let stands = self.activation.is_some() && state.leadership().map(|l| l.activation) == self.activation;
        let expiring = |who| self.watched.get(&who).is_none_or(|w| w.expiring);
        let granted = |who| {
            let ok = !expiring(who) || mutant!("grant_after_expiring");
            stands && ok && state.may_renew(who)
        };
        taken.into_iter().map(|(who, seq)| (who, seq, granted(who))).collect()
    }

    /// Grants all waiting renewals without a read. Only the seeded mistake of that name uses it.
    #[cfg(quorate_mutants)]
    pub fn poll_unread(&mut self) -> Vec<(Identity, u64, bool)> {
        std::mem::take(&mut self.waiting).into_iter().map(|(who, seq)| (who, seq, true)).collect()
    }

    /// This node itself was paused until `now`, so it may have missed renewals. The waits begin again; that is always
    /// safe.
    pub fn handle_pause(&mut self, now: Reading) {
        for watched in self.watched.values_mut().filter(|watched| !watched.expiring) {
            (watched.last, watched.unheard) = (now, false);
        }
    }

    /// What voters remember of the renewals that earlier leaders granted, and for each a reading of this node's clock after its
    /// answer came. Each must have accepted the vote of this leader before it answered, and must know the activation and
    /// `configuration`. Moves back the waits that began with the activation, if a quorum has answered and one of them was told
    /// of the life. From `now` on a life still has a quarter of its wait: after a time without any leader it may renew first.
    /// Returns from when on silence is counted of any life; `None` if the answers do not suffice, and then nothing has changed.
    pub fn handle_receipts(
        &mut self,
        under: Activation,
        answers: &BTreeMap<NodeId, (Receipts, Reading)>,
        configuration: &Configuration,
        now: Reading,
    ) -> Option<Reading> {
        let quorum = configuration.has_quorum(&answers.keys().copied().collect());
        if self.activation != Some(under) || !(quorum || mutant!("receipts_not_awaited")) {
            return None;
        }
        let drift = self.drift;
        for (who, watched) in self.watched.iter_mut().filter(|(_, watched)| watched.unheard && !watched.expiring) {
            watched.unheard = false;
            // Where nobody was told of it, it may have just begun.
            let told = answers.values().any(|(receipts, _)| receipts.of.contains_key(who));
            let Some(wait) = watched.wait.filter(|_| told) else { continue };
            let noted = answers.values().map(|(said, at)| at.before(drift.on_another_clock(said.age(*who))));
            let noted = noted.reduce(Reading::later).unwrap_or(now).later(now.before(wait - wait / 4));
            watched.last = watched.last.earlier(noted);
        }
        Some(self.watched.values().map(|watched| watched.last).fold(now, Reading::earlier))
    }

    /// Spares the silent lives that `idle` says have nothing that others wait for: they are not marked, and may renew again.
    /// Call it before [`Self::poll_expiries`]. The wait for a life that is spared no longer begins anew; that is always safe.
    pub fn spare(&mut self, mut idle: impl FnMut(Identity) -> bool, now: Reading) {
        for (who, watched) in &mut self.watched {
            let silent = watched.wait.is_some_and(|wait| now.shortest_since(watched.last) >= wait / 2);
            let spared = silent && idle(*who);
            if watched.spared && !spared && silent {
                (watched.last, watched.unheard) = (now, false);
            }
            watched.spared = spared;
        }
    }

    /// The lives to expire at `now` (P10). Each is marked in this step, finally within this activation, and proposed
    /// only after that. A marked life is returned again until it has ended, because a proposal may be lost. A life
    /// without which the others would have no majority is not marked, since the rules would reject its end; it may
    /// still renew.
    pub fn poll_expiries(&mut self, now: Reading) -> Vec<Expiry> {
        let Some(under) = self.activation else { return vec![] };
        let mut due = vec![];
        for (target, watched) in &mut self.watched {
            let waited = now.shortest_since(watched.last);
            if watched.dispensable && !watched.spared && watched.wait.is_some_and(|wait| waited >= wait) {
                watched.expiring = true;
            }
            if watched.expiring {
                due.push(Expiry { target: *target, under, waited });
            }
        }
        due
    }

    /// How long it takes at least from `now` until another life is to be expired; `None` if none can be.
    pub fn next_expiry(&self, now: Reading) -> Option<Duration> {
        self.watched.iter().filter(|(_, of)| !of.expiring).filter_map(|(who, _)| self.expires_in(*who, now)).min()
    }

    /// How long it takes at least from `now` until `who` may be expired; `None` if it cannot be.
    pub fn expires_in(&self, who: Identity, now: Reading) -> Option<Duration> {
        let watched = self.watched.get(&who).filter(|watched| watched.dispensable && !watched.spared)?;
        Some(watched.wait?.saturating_sub(now.shortest_since(watched.last)))
    }

    /// For how long nothing was received of `who` at `now`. `None` if it is not watched.
    pub fn silence(&self, who: Identity, now: Reading) -> Option<Duration> {
        self.watched.get(&who).map(|watched| now.shortest_since(watched.last))
    }

    /// The watched lives: those that may be working.
    pub fn watched(&self) -> impl Iterator<Item = Identity> + '_ {
        self.watched.keys().copied()
    }

    /// Whether nothing was received of `who` since the activation, so that its wait may be moved back.
    pub fn is_unheard(&self, who: Identity) -> bool {
        self.watched.get(&who).is_some_and(|watched| watched.unheard)
    }

    /// Whether there is such a life.
    pub fn has_unheard(&self) -> bool {
        self.watched.values().any(|watched| watched.unheard)
    }

    /// Whether `who` is being expired.
    pub fn is_expiring(&self, who: Identity) -> bool {
        self.watched.get(&who).is_some_and(|watched| watched.expiring)
    }

    /// The renewals that wait for the next read, and the read under way with its number of renewals.
    pub fn renewals(&self) -> (impl Iterator<Item = (Identity, u64)> + '_, Option<(Round, usize)>) {
        let waiting = self.waiting.iter().map(|(who, seq)| (*who, *seq));
        (waiting, self.round.as_ref().map(|(round, taken)| (*round, taken.len())))
    }

    /// The renewals that wait for the end of the read under way.
    pub fn taken(&self) -> impl Iterator<Item = (Identity, u64)> + '_ {
        self.round.iter().flat_map(|(_, taken)| taken.iter().map(|(who, seq)| (*who, *seq)))
    }
}
