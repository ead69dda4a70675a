//! The leader's side of leases, as a task: drives the pure [`Grantor`] with real renewals, reads and the clock.
//!
//! ```text
//!   renewals (from the wire, and this node's own) ──▶ ┐
//!   applied entries ────────────────────────────────▶ ├─ Grantor ─▶ one ReadIndex a heartbeat ─▶ grants
//!   leadership gained: Activate(self, nonce) ◀─────── │         └─▶ Expire, proposed on this node's own engine
//!   the clock ──────────────────────────────────────▶ ┘
//! ```
//!
//! Nothing here asks whether this node leads. That the engine believes so only triggers an activation; a grant is a read
//! that a quorum confirmed, and an expiry counts if the activation is still the current one when it is applied (P21).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_membership::lease::{Expiry, Grantor, NotRenewed, Reading, Round};
use quorate_membership::{Activation, Command, Epoch, Identity, Leadership, Nonce};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::error::ProposeError;
use crate::host;
use crate::host::clock;
use crate::host::random;
use crate::lease::ledger::{Ledger, Note};
use crate::lease::renewals::{GrantorQueue, PendingRenewal};
use crate::rpc::{RenewRefusal, Renewal, Renewed};

/// What a proposal was for.
enum Proposal {
    Activation,
    Expiry { target: Identity, refused: bool },
}

struct Task {
    engine: Engine,
    ledger: Ledger,
    activation: watch::Sender<Option<Activation>>,
    grantor: Grantor,
    /// Who waits for which renewal, and when that was received.
    waiting: BTreeMap<(Identity, u64), (oneshot::Sender<Renewed>, Reading)>,
    /// The term that this node leads in, as far as the engine believes.
    leading: Option<u64>,
    reads: JoinSet<bool>,
    /// The round that the read under way is for.
    round: Option<Round>,
    read_begun: Option<Instant>,
    proposals: JoinSet<Proposal>,
    activating: bool,
    /// When it was looked at the clock last.
    ticked: Reading,
    /// What the grantor was told last of the state.
    seen: Option<(Epoch, Option<Leadership>)>,
    /// Whose expiry is being proposed.
    expiring: BTreeSet<Identity>,
    /// Whose expiry was noted, and under which activation: once each.
    announced: BTreeSet<(Identity, Activation)>,
}

/// Runs until `stop`.
pub(crate) async fn run(engine: Engine, ledger: Ledger, queue: GrantorQueue, stop: CancellationToken) {
    let GrantorQueue { mut renewals, activation } = queue;
    let mut progress = engine.progress();
    let mut pace = interval((engine.config().heartbeat() / 4).max(Duration::from_millis(1)));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let grantor = Grantor::new(engine.node(), engine.config().timing.plan().drift);
    let mut task = Task {
        engine,
        ledger,
        activation,
        grantor,
        waiting: BTreeMap::new(),
        leading: None,
        reads: JoinSet::new(),
        round: None,
        read_begun: None,
        proposals: JoinSet::new(),
        activating: false,
        ticked: clock::reading(),
        seen: None,
        expiring: BTreeSet::new(),
        announced: BTreeSet::new(),
    };
    loop {
        // What was received is noted before anybody's silence is judged.
        tokio::select! { biased;
            () = stop.cancelled() => break,
            changed = progress.changed() => match changed {
                Ok(()) => task.applied(),
                Err(_) => break,
            },
            Some(ask) = renewals.recv() => task.received(ask),
            Some(confirmed) = task.reads.join_next() => task.read(confirmed.unwrap_or(false)),
            Some(done) = task.proposals.join_next() => task.proposed(done.ok()),
            _ = pace.tick() => task.tick(),
        }
    }
    task.activation.send_replace(None);
}

impl Task {
    /// P4: every gain of leadership, known by its term, begins with an activation under a nonce of its own.
    fn watch_leadership(&mut self) {
        let leading = self.engine.leading_term();
        if leading == self.leading {
            return;
        }
        self.leading = leading;
        match leading {
            None => self.forget(),
            Some(_) => self.begin_anew(),
        }
    }

    fn forget(&mut self) {
        self.grantor.handle_loss();
        self.seen = None;
        self.publish();
        self.refuse_all(RenewRefusal::NotActivated);
    }

    /// Asks for an activation under a nonce that was never used. Every wait begins anew with it.
    fn begin_anew(&mut self) {
        self.forget();
        match random() {
            Ok(bits) => self.grantor.handle_gain(Nonce::new(bits)),
            Err(error) => {
                tracing::error!(%error, "no activation without randomness; tried again");
                self.leading = None;
            }
        }
    }

    fn publish(&self) {
        let activation = self.grantor.activation();
        self.activation.send_if_modified(|known| std::mem::replace(known, activation) != activation);
    }

    fn applied(&mut self) {
        let state = self.engine.state();
        // Nothing else in the state matters to leases, and an entry that changes neither is the rule.
        let seen = Some((state.epoch(), state.leadership()));
        if self.seen == seen {
            return;
        }
        self.seen = seen;
        let before = self.grantor.activation();
        let now = clock::reading();
        self.grantor.handle_applied(&state, now);
        if self.grantor.activation() != before {
            if let Some(activation) = self.grantor.activation() {
                tracing::info!(%activation, "activated as leader");
                self.ledger.note(Note::Activated { activation, since: now });
            } else {
                self.refuse_all(RenewRefusal::NotActivated);
            }
            self.publish();
        }
        self.announced.retain(|(who, _)| state.life(*who).is_some_and(|life| !life.phase.has_ended()));
    }

    fn received(&mut self, ask: PendingRenewal) {
        let PendingRenewal { renewal, answer } = ask;
        let Renewal { who, seq } = renewal;
        let state = self.engine.state();
        // P7: noted after the receipt.
        let now = clock::reading();
        let taken = self.grantor.handle_renewal(who, seq, &state, now);
        match taken {
            Ok(()) => {
                self.waiting.insert((who, seq), (answer, now));
                self.begin_read();
            }
            Err(why) => {
                let refusal = match why {
                    NotRenewed::NotLive(_) => RenewRefusal::NotLive,
                    NotRenewed::Expiring(_) => RenewRefusal::Expiring,
                    _ => RenewRefusal::NotActivated,
                };
                let _gone = answer.send(self.refusal(refusal));
            }
        }
    }

    fn refusal(&self, refusal: RenewRefusal) -> Renewed {
        Renewed::Refused { refusal, leader: self.engine.leader() }
    }

    fn refuse_all(&mut self, refusal: RenewRefusal) {
        let answer = self.refusal(refusal);
        for (waiter, _) in std::mem::take(&mut self.waiting).into_values() {
            let _gone = waiter.send(answer);
        }
    }

    /// P8: one read a heartbeat interval at the most, begun after the receipts that it serves.
    fn begin_read(&mut self) {
        let heartbeat = self.engine.config().heartbeat();
        if self.read_begun.is_some_and(|begun| begun.elapsed() < heartbeat) {
            return;
        }
        #[cfg(quorate_mutant = "grant_without_read")]
        for (who, seq, granted) in self.grantor.poll_unread() {
            self.answer(who, seq, granted);
        }
        let Some(round) = self.grantor.poll_read() else { return };
        (self.round, self.read_begun) = (Some(round), Some(Instant::now()));
        let engine = self.engine.clone();
        self.reads.spawn(host::bound(async move {
            let limit = engine.config().timing.plan().lease;
            let Some(index) = engine.read_index_here(limit).await else { return false };
            let reached =
                tokio::time::timeout(limit, async { engine.progress().wait_for(|at| *at >= index).await.is_ok() });
            reached.await.unwrap_or(false)
        }));
    }

    fn read(&mut self, confirmed: bool) {
        let Some(round) = self.round.take() else { return };
        let answers = match confirmed {
            true => self.grantor.handle_read(round, &self.engine.state()),
            false => self.grantor.handle_read_failed(round).into_iter().map(|(who, seq)| (who, seq, false)).collect(),
        };
        for (who, seq, granted) in answers {
            self.answer(who, seq, granted);
        }
        self.begin_read();
    }

    /// Answers a renewal, and those of the same life before it, which no read was begun for: they will not be granted.
    fn answer(&mut self, who: Identity, seq: u64, granted: bool) {
        let refused = self.refusal(RenewRefusal::NotConfirmed);
        let earlier: Vec<_> = self.waiting.range((who, 0)..(who, seq)).map(|(key, _)| *key).collect();
        for (waiter, _) in earlier.iter().filter_map(|key| self.waiting.remove(key)) {
            let _gone = waiter.send(refused);
        }
        let Some((waiter, received)) = self.waiting.remove(&(who, seq)) else { return };
        if let (true, Some(activation)) = (granted, self.grantor.activation()) {
            self.ledger.note(Note::Granted { who, seq, activation, received });
        }
        let _gone = waiter.send(if granted { Renewed::Granted(Renewal { who, seq }) } else { refused });
    }

    fn tick(&mut self) {
        let now = clock::reading();
        let stood_still = now.longest_since(std::mem::replace(&mut self.ticked, now));
        if stood_still > self.engine.config().timing.plan().lease / 4 {
            tracing::warn!(?stood_still, "this leader stood still; nobody's wait counts that");
            self.grantor.handle_pause(now);
        }
        self.watch_leadership();
        self.begin_read();
        if let Some(nonce) = self.grantor.poll_activation().filter(|_| !self.activating) {
            let (engine, leader) = (self.engine.clone(), self.engine.node());
            // The founder leads before it is a member; then there is nobody yet whose lease could be ended.
            if engine.state().member(leader).is_some() {
                self.activating = true;
                self.proposals.spawn(host::bound(async move {
                    let said = engine.propose_as_leader(Command::ActivateLeader { leader, nonce }).await;
                    if let Err(error) = said {
                        tracing::debug!(%error, "the activation was not committed");
                    }
                    Proposal::Activation
                }));
            }
        }
        for expiry in self.grantor.poll_expiries(now) {
            self.expire(expiry);
        }
    }

    fn expire(&mut self, expiry: Expiry) {
        let Expiry { target, under, waited } = expiry;
        if !self.expiring.insert(target) {
            return;
        }
        let engine = self.engine.clone();
        if self.announced.insert((target, under)) {
            self.ledger.note(Note::Expiring { who: target, under, waited });
            tracing::warn!(%target, ?waited, "no renewal; its lease is over and its stop mechanism has acted");
        }
        self.proposals.spawn(host::bound(async move {
            match engine.propose_as_leader(Command::Expire { target, under, waited }).await {
                Ok(()) => Proposal::Expiry { target, refused: false },
                Err(error) => {
                    tracing::debug!(%target, %error, "the expiry was not committed");
                    tokio::time::sleep(engine.config().heartbeat()).await;
                    Proposal::Expiry { target, refused: matches!(error, ProposeError::Rejected(_)) }
                }
            }
        }));
    }

    /// A proposal has ended: if what it was for is still owed, it is owed again.
    fn proposed(&mut self, done: Option<Proposal>) {
        match done {
            Some(Proposal::Activation) => self.activating = false,
            Some(Proposal::Expiry { target, refused }) => {
                self.expiring.remove(&target);
                // It is marked for good under this activation, and the rules do not let it end: another activation, under
                // which nobody is marked, lets it be renewed again.
                if refused && self.grantor.is_expiring(target) {
                    self.begin_anew();
                }
            }
            // A proposal that panicked: nothing is known of any of them any more.
            None => {
                self.activating = false;
                self.expiring.clear();
            }
        }
    }
}
