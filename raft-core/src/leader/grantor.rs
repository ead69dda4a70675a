//! The leader's side of leases: a task that drives the pure [`Grantor`] with real renewals, reads and the clock.
//!
//! ```text
//!   renewals (from the wire, and this node's own) ──▶ ┐
//!   applied entries ────────────────────────────────▶ ├─ Grantor ─▶ one ReadIndex a heartbeat ─▶ grants
//!   leadership gained: Activate(self, nonce) ◀─────── │         └─▶ Expire, proposed on this node's own engine
//!   the clock ──────────────────────────────────────▶ ┘
//! ```
//!
//! Nothing here relies on this node being the leader. The engine's belief only triggers an activation. A grant rests on
//! a read that a quorum confirmed, and an expiry takes effect only if its activation is still current when the entry is
//! applied (P21).

mod reads;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use quorate_membership::detector::Moment;
use quorate_membership::lease::{Expiry, Grantor, NotRenewed, Reading, Round};
use quorate_membership::{Activation, Command, Configuration, Epoch, Identity, Leadership, Nonce, Revision};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::engine::receipts::Answers;
use crate::error::ProposeError;
use crate::host;
use crate::host::clock;
use crate::host::random;
use crate::leader::reach::Reach;
use crate::lease::ledger::{Ledger, Note};
use crate::lease::renewals::{GrantorQueue, PendingRenewal};
use crate::rpc::{RenewRefusal, Renewal, Renewed};

/// Who waits for the answer to one renewal: the callers of it and of its copies, which came by other networks.
type Waiters = Vec<oneshot::Sender<Renewed>>;

/// How many of them there may be.
const COPIES: usize = 8;

/// The purpose of a proposal that has ended.
enum Proposal {
    Activation,
    Expiry { target: Identity, refused: bool },
}

struct Task {
    engine: Engine,
    ledger: Ledger,
    reach: Arc<Reach>,
    activation: watch::Sender<Option<Activation>>,
    grantor: Grantor,
    /// The members that wait for an answer, by life and sequence number, and when their renewals were received.
    waiting: BTreeMap<(Identity, u64), (Waiters, Reading)>,
    /// The term in which this node leads, according to the engine.
    leading: Option<u64>,
    /// The reads under way, and for which renewals each is. One that an earlier activation began may still run.
    reads: JoinSet<(Round, bool)>,
    /// What voters say of the renewals that earlier leaders granted.
    receipts: JoinSet<Option<(Activation, Answers, Configuration)>>,
    read_begun: Option<Instant>,
    proposals: JoinSet<Proposal>,
    activating: bool,
    /// The clocks at the last tick, to notice when this process stood still.
    ticked: Reading,
    /// The part of the state that the grantor has seen last.
    seen: Option<(Epoch, Option<Leadership>)>,
    /// The lives whose expiry is being proposed.
    expiring: BTreeSet<Identity>,
    /// The lives whose expiry was noted in the ledger, with the activation, so that each is noted once.
    announced: BTreeSet<(Identity, Activation)>,
    /// When the next life may have to be expired, or the next read may begin, if that is before the next tick.
    due: Option<Instant>,
    /// What of silent lives is known to be idle, as of a revision.
    idle: (Revision, BTreeMap<Identity, bool>),
}

/// Runs until `stop`.
pub(crate) async fn run(
    engine: Engine,
    ledger: Ledger,
    reach: Arc<Reach>,
    queue: GrantorQueue,
    stop: CancellationToken,
) {
    let GrantorQueue { mut renewals, activation } = queue;
    let mut standing = engine.standing();
    let (mut pace, mut leadership) = (engine.beat().every(1), engine.watch_leadership());
    let grantor = Grantor::new(engine.node(), engine.config().timing.plan().drift);
    let mut task = Task {
        engine,
        ledger,
        reach,
        activation,
        grantor,
        waiting: BTreeMap::new(),
        leading: None,
        reads: JoinSet::new(),
        receipts: JoinSet::new(),
        read_begun: None,
        proposals: JoinSet::new(),
        activating: false,
        ticked: clock::reading(),
        seen: None,
        expiring: BTreeSet::new(),
        announced: BTreeSet::new(),
        due: None,
        idle: (Revision::default(), BTreeMap::new()),
    };
    loop {
        // Received renewals are noted before the tick looks for expired leases.
        tokio::select! { biased;
            () = stop.cancelled() => break,
            changed = standing.changed() => match changed {
                Ok(()) => task.applied(),
                Err(_) => break,
            },
            Some(ask) = renewals.recv() => task.received(ask),
            Some(read) = task.reads.join_next() => task.read(read.ok()),
            Some(asked) = task.receipts.join_next() => task.receipts(asked.ok().flatten()),
            Some(done) = task.proposals.join_next() => task.proposed(done.ok()),
            true = leadership.next() => task.tick(),
            () = sleep_until(task.due.unwrap_or_else(Instant::now)), if task.due.is_some() => task.tick(),
            _ = pace.tick() => task.tick(),
        }
    }
    task.activation.send_replace(None);
}

impl Task {
    /// P4: every gain of leadership, recognised by its term, begins with an activation under a fresh nonce.
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

    /// Requests an activation under a fresh nonce. Every wait starts again with it.
    fn begin_anew(&mut self) {
        self.forget();
        match random() {
            Ok(bits) => self.grantor.handle_gain(Nonce::new(bits)),
            Err(error) => {
                tracing::error!(%error, "no randomness for the nonce of an activation; trying again");
                self.leading = None;
            }
        }
    }

    fn publish(&self) {
        let activation = self.grantor.activation();
        self.activation.send_if_modified(|known| std::mem::replace(known, activation) != activation);
    }

    fn applied(&mut self) {
        // Nothing else in the state matters to leases, and most entries change neither.
        let seen = Some(self.engine.look(|state| (state.epoch(), state.leadership())));
        if self.seen == seen {
            return;
        }
        let state = self.engine.state();
        self.seen = Some((state.epoch(), state.leadership()));
        let before = self.grantor.activation();
        let now = clock::reading();
        self.grantor.handle_applied(&state, now);
        if self.grantor.activation() != before {
            if let Some(activation) = self.grantor.activation() {
                tracing::info!(%activation, "activated as leader");
                self.ledger.note(Note::Activated { activation, since: now });
                self.ask_for_receipts(activation);
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
        let waits = self.waiting.get_mut(&(who, seq));
        if let Some((waiters, _)) = waits.filter(|_| !quorate_membership::mutant!("copy_replaces_a_renewal")) {
            // A copy, by another network. What is granted to the first is granted to this one: the lease is counted from the
            // sending, which was before both, and the read begins after the first.
            if waiters.len() < COPIES {
                waiters.push(answer);
            }
            return;
        }
        // P7: the clock is read after the receipt.
        let now = clock::reading();
        let taken = self.engine.look(|state| self.grantor.handle_renewal(who, seq, state, now));
        match taken {
            Ok(()) => {
                self.waiting.insert((who, seq), (vec![answer], now));
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
        for waiter in std::mem::take(&mut self.waiting).into_values().flat_map(|(waiters, _)| waiters) {
            let _gone = waiter.send(answer);
        }
    }

    fn is_due(&mut self, at: Instant) {
        self.due = Some(self.due.map_or(at, |other| other.min(at)));
    }

    fn tick(&mut self) {
        self.due = None;
        let now = clock::reading();
        let stood_still = now.longest_since(std::mem::replace(&mut self.ticked, now));
        if stood_still > self.engine.config().timing.plan().lease / 4 {
            if self.leading.is_some() {
                tracing::warn!(node = %self.engine.node(), ?stood_still, "this leader stood still; no lease is judged by that time");
            }
            self.grantor.handle_pause(now);
        }
        self.watch_leadership();
        self.begin_read();
        if let Some(nonce) = self.grantor.poll_activation().filter(|_| !self.activating) {
            let (engine, leader) = (self.engine.clone(), self.engine.node());
            // The founder leads before it is a member. At that time there is no lease to expire.
            if engine.look(|state| state.member(leader).is_some()) {
                self.activating = true;
                self.proposals.spawn(host::bound(async move {
                    let activated = engine.propose_as_leader(Command::ActivateLeader { leader, nonce }).await;
                    if let Err(error) = activated {
                        tracing::debug!(%error, "the activation was not committed");
                    }
                    Proposal::Activation
                }));
            }
        }
        if self.engine.config().spares_idle {
            // A picture: to look through all locks and records takes long.
            let state = self.engine.state();
            if self.idle.0 != state.revision() {
                self.idle = (state.revision(), BTreeMap::new());
            }
            let known = &mut self.idle.1;
            // Not a former life, for whose end its next one waits, nor one whose end was asked for.
            let idle = |who| state.may_renew(who) && state.is_idle(who);
            self.grantor.spare(|who| *known.entry(who).or_insert_with(|| idle(who)), now);
        }
        for expiry in self.grantor.poll_expiries(now) {
            self.expire(expiry);
        }
        self.say_when_time_proves(now);
        let pace = self.engine.config().heartbeat() / 2;
        if let Some(left) = self.grantor.next_expiry(now).filter(|left| *left < pace) {
            self.is_due(Instant::now() + left);
        }
    }

    /// Says when time may prove the ends that the open orders are for. Shortly before that, orders stay here.
    fn say_when_time_proves(&self, now: Reading) {
        let clock = clock::now().since_origin();
        let at = |left| Moment::new(clock.saturating_add(left));
        let ends = self.engine.look(|state| {
            let open = state.fences().open();
            open.filter_map(|order| Some((order.id, at(self.grantor.expires_in(order.target, now)?)))).collect()
        });
        self.reach.proved_at(ends);
    }

    fn expire(&mut self, expiry: Expiry) {
        let Expiry { target, under, waited } = expiry;
        if !self.expiring.insert(target) {
            return;
        }
        let engine = self.engine.clone();
        if self.announced.insert((target, under)) {
            self.ledger.note(Note::Expiring { who: target, under, waited });
            tracing::warn!(%target, ?waited, "no renewal in time; the lease has ended and its stop mechanism has acted");
        }
        self.proposals.spawn(host::bound(async move {
            match engine.propose_as_leader(Command::Expire { target, under, waited }).await {
                Ok(_) => Proposal::Expiry { target, refused: false },
                Err(error) => {
                    tracing::debug!(%target, %error, "the expiry was not committed");
                    tokio::time::sleep(engine.config().heartbeat()).await;
                    Proposal::Expiry { target, refused: matches!(error, ProposeError::Rejected(_)) }
                }
            }
        }));
    }

    /// Notes that a proposal has ended. If its purpose is still due, the next tick proposes it again.
    fn proposed(&mut self, done: Option<Proposal>) {
        match done {
            Some(Proposal::Activation) => self.activating = false,
            Some(Proposal::Expiry { target, refused }) => {
                self.expiring.remove(&target);
                // The rules refused the expiry, but under this activation the life stays marked as expiring and cannot
                // be renewed. A new activation marks no life.
                if refused && self.grantor.is_expiring(target) {
                    self.begin_anew();
                }
            }
            // A proposal panicked, and it is not known which.
            None => {
                self.activating = false;
                self.expiring.clear();
            }
        }
    }
}
