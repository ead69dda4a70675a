//! The keeper of this node's lease: a thread of the operating system's, so that neither a blocked async runtime nor a
//! slow task keeps it from giving notice and from letting the stop mechanism act in time.
//!
//! ```text
//!   renewer (async) ◀── renewals, each noted before it leaves ── keeper ──▶ Limits (atomics): check()
//!          └── grants, refusals, condemned ─────────────────────▶  │   └──▶ LeaseView (watch): held(), lost(), status
//!   consumer ── protect, stopped ───────────────────────────────▶  │
//!                                                        sustain(left) │ disarm │ fire ──▶ StopMechanism
//! ```
//!
//! It waits for messages and for the clock, for nothing else: the ledger has a thread of its own, and the network is the
//! renewer's. Should this thread itself stand still, nobody sustains the mechanism, and it acts.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use quorate_membership::lease::{Holder, Reading, Stage};
use quorate_membership::{Identity, Plan, Revision, Stop};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{oneshot, watch};

use crate::clock;
use crate::lease::{Closed, Lease, LeaseStage, LeaseView, Limits, NotHeld, ProtectError, Protection};
use crate::ledger::{Ledger, Note};
use crate::rpc::Renewal;
use crate::stop::StopMechanism;

/// What the keeper is told.
pub(crate) enum Message {
    /// This life may hold a lease from here on.
    Begin { who: Identity },
    /// A renewal was granted.
    Granted(Renewal),
    /// A renewal was not granted, or another leader is known by now: ask again.
    Again,
    /// The log says that this life is being fenced, or is over.
    Condemned,
    /// This life is about to say that it has stopped: it holds no lease from here on. Answers what is still protected.
    Surrender { reply: oneshot::Sender<Vec<String>> },
    /// Work is to run.
    Protect {
        what: String,
        token: Revision,
        at_end: Option<Box<dyn FnMut() + Send>>,
        lease: Lease,
        reply: oneshot::Sender<Result<Protection, ProtectError>>,
    },
    /// It has stopped.
    Stopped { id: u64 },
    /// The node is shut down: no renewal any more.
    Close,
}

/// The way to the keeper.
#[derive(Clone)]
pub(crate) struct Post(Sender<Message>);

impl Post {
    pub(crate) fn send(&self, message: Message) -> Result<(), Closed> {
        self.0.send(message).map_err(|_| Closed)
    }
}

/// What others hold of the keeper.
pub(crate) struct Keeper {
    pub(crate) post: Post,
    limits: Arc<Limits>,
    views: watch::Receiver<LeaseView>,
}

struct Work {
    id: u64,
    what: String,
    token: Revision,
    at_end: Option<Box<dyn FnMut() + Send>>,
}

struct Thread {
    plan: Plan,
    mechanism: Box<dyn StopMechanism>,
    holder: Option<Holder>,
    works: Vec<Work>,
    next_id: u64,
    sustained: Option<Reading>,
    fired: bool,
    trouble: Option<String>,
    closed: bool,
    limits: Arc<Limits>,
    views: watch::Sender<LeaseView>,
    outbox: UnboundedSender<Renewal>,
    ledger: Ledger,
}

/// The longest sleep, so that a clock that jumps (a resumed machine) is noticed soon.
const NAP: Duration = Duration::from_millis(100);

impl Keeper {
    /// Starts the thread. Renewals that are due come out of `outbox`.
    pub(crate) fn start(
        plan: Plan,
        mechanism: Box<dyn StopMechanism>,
        outbox: UnboundedSender<Renewal>,
        ledger: Ledger,
    ) -> std::io::Result<Self> {
        let (post, inbox) = channel();
        let limits = Arc::new(Limits::default());
        let (views, watched) = watch::channel(LeaseView { stop: mechanism.stop(), ..LeaseView::default() });
        let thread = Thread {
            plan,
            mechanism,
            holder: None,
            works: vec![],
            next_id: 1,
            sustained: None,
            fired: false,
            trouble: None,
            closed: false,
            limits: limits.clone(),
            views,
            outbox,
            ledger,
        };
        std::thread::Builder::new().name("quorate-keeper".into()).spawn(move || thread.run(&inbox))?;
        Ok(Self { post: Post(post), limits, views: watched })
    }

    pub(crate) fn lease(&self, who: Identity) -> Lease {
        Lease { who, limits: self.limits.clone(), views: self.views.clone(), post: self.post.clone() }
    }

    pub(crate) fn view(&self) -> LeaseView {
        self.views.borrow().clone()
    }

    /// Gives the lease up before this life says that it has stopped. Answers what is still protected; `None` when the
    /// keeper does not answer.
    pub(crate) async fn surrender(&self, patience: Duration) -> Option<Vec<String>> {
        let (reply, replied) = oneshot::channel();
        self.post.send(Message::Surrender { reply }).ok()?;
        tokio::time::timeout(patience, replied).await.ok()?.ok()
    }
}

impl Thread {
    fn run(mut self, inbox: &Receiver<Message>) {
        loop {
            let nap = self.turn();
            match inbox.recv_timeout(nap) {
                Ok(message) => self.handle(message),
                Err(RecvTimeoutError::Timeout) => {}
                // Nobody can say any more that something has stopped: what is armed acts at the end of the lease.
                Err(RecvTimeoutError::Disconnected) => {
                    self.closed = true;
                    std::thread::sleep(nap);
                }
            }
            while let Ok(message) = inbox.try_recv() {
                self.handle(message);
            }
            if self.closed && self.works.is_empty() {
                self.limits.set(None);
                return;
            }
        }
    }

    fn handle(&mut self, message: Message) {
        let now = clock::reading();
        match message {
            Message::Begin { who } => {
                let Plan { lease, margin, renew, .. } = self.plan;
                if self.holder.as_ref().is_none_or(|holder| holder.who() != who) {
                    self.holder = Some(Holder::new(who, lease, margin, renew));
                }
            }
            Message::Granted(Renewal { who, seq }) => {
                let Some(holder) = &mut self.holder else { return };
                if holder.handle_grant(who, seq, now)
                    && let Some(from) = holder.held_from()
                {
                    self.ledger.note(Note::Held { who, seq, from });
                    self.sustained = None; // E has moved
                }
            }
            Message::Again => {
                if let Some(holder) = &mut self.holder {
                    holder.handle_refusal();
                }
            }
            Message::Condemned => self.condemn(),
            Message::Surrender { reply } => {
                self.condemn();
                self.limits.set(None);
                let _gave_up = reply.send(self.protecting());
            }
            Message::Protect { what, token, at_end, lease, reply } => {
                let made = self.protect(now, what, token, at_end, lease);
                // Nobody waits for it any more: it was never begun.
                if let Err(Ok(protection)) = reply.send(made) {
                    self.stopped(protection.id);
                }
            }
            Message::Stopped { id } => self.stopped(id),
            Message::Close => {
                self.closed = true;
                self.condemn();
            }
        }
    }

    fn condemn(&mut self) {
        if let Some(holder) = &mut self.holder {
            holder.handle_condemned();
        }
    }

    fn protecting(&self) -> Vec<String> {
        self.works.iter().map(|work| work.what.clone()).collect()
    }

    /// P14: armed before the work may begin.
    fn protect(
        &mut self,
        now: Reading,
        what: String,
        token: Revision,
        at_end: Option<Box<dyn FnMut() + Send>>,
        lease: Lease,
    ) -> Result<Protection, ProtectError> {
        let stage = self.holder.as_ref().map_or(Stage::Lapsed, |holder| holder.stage(now));
        let (Stage::Held { left }, Some(holder)) = (stage, &self.holder) else { return Err(NotHeld.into()) };
        if let Some(trouble) = &self.trouble {
            return Err(ProtectError::Mechanism(trouble.clone()));
        }
        let who = holder.who();
        if !cfg!(quorate_mutant = "never_armed") {
            self.mechanism.sustain(left).map_err(|e| ProtectError::Mechanism(e.to_string()))?;
        }
        self.sustained = Some(now);
        let id = self.next_id;
        self.next_id += 1;
        self.works.push(Work { id, what: what.clone(), token, at_end });
        self.ledger.note(Note::Protects { who, what: what.clone(), token });
        Ok(Protection { id, what, token, lease })
    }

    fn stopped(&mut self, id: u64) {
        let Some(at) = self.works.iter().position(|work| work.id == id) else { return };
        let Work { what, token, .. } = self.works.remove(at);
        if let Some(who) = self.holder.as_ref().map(Holder::who) {
            self.ledger.note(Note::Stopped { who, what, token });
        }
        if self.works.is_empty() {
            self.sustained = None;
            self.fired = false;
            match self.mechanism.disarm() {
                Ok(()) => self.trouble = None,
                Err(error) => {
                    tracing::error!(%error, "the stop mechanism could not be disarmed and may act");
                    self.trouble = Some(format!("disarming it failed: {error}"));
                }
            }
        }
    }

    /// Does what the clock asks for, and says how long it may sleep.
    fn turn(&mut self) -> Duration {
        let now = clock::reading();
        let Some(holder) = &mut self.holder else { return NAP };
        let who = holder.who();
        if !self.closed
            && let Some(seq) = holder.poll_renewal(now)
        {
            // A renewer that is gone sends nothing: the lease lapses.
            let _runtime_gone = self.outbox.send(Renewal { who, seq });
        }
        let (stage, left, from) = (holder.stage(now), holder.left(now), holder.held_from());
        let condemned = holder.is_condemned();
        let until_renewal = if condemned || self.closed { NAP } else { holder.until_renewal(now) };
        self.sustain(now, left);
        let stage = match stage {
            Stage::Held { .. } if self.trouble.is_none() => LeaseStage::Held,
            Stage::Held { .. } | Stage::Notice { .. } => LeaseStage::Notice,
            Stage::Lapsed => LeaseStage::Lapsed,
        };
        let usable = self.plan.lease.saturating_sub(self.plan.margin);
        let until = from.filter(|_| stage == LeaseStage::Held);
        self.limits.set(until.map(|from| Reading::new(from.boottime() + usable, from.raw() + usable)));
        self.publish(who, stage, left, condemned);
        if stage == LeaseStage::Lapsed && !self.works.is_empty() && !self.fired {
            self.fired = true;
            self.works.iter_mut().filter_map(|work| work.at_end.as_mut()).for_each(|end| end());
            self.mechanism.fire();
        }
        let next_stage = match stage {
            LeaseStage::Held => left.saturating_sub(self.plan.margin),
            LeaseStage::Notice => left,
            LeaseStage::Lapsed => NAP,
        };
        let pace = if self.works.is_empty() { NAP } else { self.mechanism.pace() };
        until_renewal.min(next_stage).min(pace).clamp(Duration::from_millis(1), NAP)
    }

    fn sustain(&mut self, now: Reading, left: Duration) {
        let due = self.sustained.is_none_or(|at| now.longest_since(at) >= self.mechanism.pace());
        if self.works.is_empty() || left.is_zero() || !due || cfg!(quorate_mutant = "never_armed") {
            return;
        }
        self.sustained = Some(now);
        if let Err(error) = self.mechanism.sustain(left) {
            tracing::error!(%error, "the stop mechanism does not work; nothing further is begun");
            self.trouble.get_or_insert(error.to_string());
        }
    }

    fn publish(&mut self, who: Identity, stage: LeaseStage, left: Duration, condemned: bool) {
        let view = LeaseView {
            stage,
            stop: self.mechanism.stop(),
            armed: !self.works.is_empty() && self.mechanism.stop() != Stop::Unbounded,
            protecting: self.protecting(),
            trouble: self.trouble.clone(),
        };
        let before = self.views.borrow().stage;
        let protecting = view.protecting.clone();
        self.views.send_if_modified(|known| std::mem::replace(known, view.clone()) != view);
        if before == stage {
            return;
        }
        match stage {
            LeaseStage::Held => tracing::debug!(%who, "lease held"),
            // The reason is on its way to the disk before any reset (P16).
            LeaseStage::Notice => {
                let waiting = protecting.join(", ");
                tracing::warn!(%who, ?left, condemned, protecting = waiting, "the lease runs out; what runs has to stop");
                self.ledger.note(Note::Notice { who, left, condemned, protecting });
            }
            LeaseStage::Lapsed => {
                if !protecting.is_empty() {
                    tracing::error!(%who, protecting = protecting.join(", "), "the lease is over with work left; it is ended");
                }
                self.ledger.note(Note::Lapsed { who, protecting });
            }
        }
    }
}
