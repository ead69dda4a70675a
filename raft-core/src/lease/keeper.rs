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
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::time::Duration;

use quorate_membership::lease::{MemberLease, Reading, Stage};
use quorate_membership::{Identity, Plan, Revision};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Notify, oneshot, watch};

use crate::host::clock;
use crate::host::{self, Work};
use crate::lease::handle::{
    Closed, Lease, LeaseStage, LeaseView, Limits, NotHeld, Offer, ProtectError, Protection, seen,
};
use crate::lease::ledger::{Ledger, Note};
use crate::lease::protected::ProtectedWork;
use crate::lease::stop::StopMechanism;
use crate::rpc::Renewal;

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
        reply: oneshot::Sender<Result<Offer, ProtectError>>,
    },
    /// It has stopped.
    Stopped { id: u64 },
    /// The node is shut down: no renewal any more.
    Close,
}

/// The way to the keeper.
#[derive(Clone)]
pub(crate) struct KeeperHandle {
    inbox: Sender<Message>,
    /// Rings for each message, for a keeper that is a task of a simulated machine.
    bell: Arc<Notify>,
}

impl KeeperHandle {
    pub(crate) fn send(&self, message: Message) -> Result<(), Closed> {
        self.inbox.send(message).map_err(|_| Closed)?;
        self.bell.notify_one();
        Ok(())
    }
}

/// What others hold of the keeper.
pub(crate) struct Keeper {
    pub(crate) post: KeeperHandle,
    limits: Arc<Limits>,
    views: watch::Receiver<LeaseView>,
    /// Whether this life says that its work dies with its process: then no child is bound to it.
    pub(crate) alone: bool,
}

struct Thread {
    inbox: Receiver<Message>,
    plan: Plan,
    holder: Option<MemberLease>,
    works: ProtectedWork,
    /// The lease was given up, or the node is shut down: for good, whatever is granted or begun later.
    given_up: bool,
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
        let post = KeeperHandle { inbox: post, bell: Arc::default() };
        let thread = Thread {
            inbox,
            plan,
            holder: None,
            works: ProtectedWork::new(mechanism, ledger.clone()),
            given_up: false,
            closed: false,
            limits: limits.clone(),
            views,
            outbox,
            ledger,
        };
        host::current().run("quorate-keeper", Box::new(thread), post.bell.clone())?;
        Ok(Self { post, limits, views: watched, alone: false })
    }

    pub(crate) fn lease(&self, who: Identity) -> Lease {
        Lease {
            who,
            alone: self.alone,
            limits: self.limits.clone(),
            views: self.views.clone(),
            post: self.post.clone(),
        }
    }

    pub(crate) fn view(&self) -> LeaseView {
        seen(&self.views)
    }

    /// Gives the lease up before this life says that it has stopped. Answers what is still protected; `None` when the
    /// keeper does not answer.
    pub(crate) async fn surrender(&self, timeout: Duration) -> Option<Vec<String>> {
        let (reply, replied) = oneshot::channel();
        self.post.send(Message::Surrender { reply }).ok()?;
        tokio::time::timeout(timeout, replied).await.ok()?.ok()
    }
}

impl Work for Thread {
    fn turn(&mut self) -> Duration {
        self.keep()
    }

    fn wait(&mut self, nap: Duration) {
        match self.inbox.recv_timeout(nap) {
            Ok(message) => self.handle(message),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(nap),
        }
    }

    fn handle_messages(&mut self) -> bool {
        loop {
            match self.inbox.try_recv() {
                Ok(message) => self.handle(message),
                Err(TryRecvError::Empty) => break,
                // No message can report a stop any more: what is armed acts at the end of the lease.
                Err(TryRecvError::Disconnected) => {
                    self.closed = true;
                    break;
                }
            }
        }
        !self.has_ended()
    }
}

impl Thread {
    /// Whether nothing is left to keep. Says so to whoever still holds a handle.
    fn has_ended(&self) -> bool {
        let over = self.closed && self.works.is_empty();
        if over {
            self.limits.set(None);
            // Whoever holds a handle still learns that there is no lease any more, and that none will come.
            self.views.send_modify(|view| view.stage = LeaseStage::Lapsed);
        }
        over
    }

    fn handle(&mut self, message: Message) {
        let now = clock::reading();
        match message {
            Message::Begin { who } => {
                let Plan { lease, margin, renew, .. } = self.plan;
                if self.holder.as_ref().is_none_or(|holder| holder.who() != who) {
                    self.holder = Some(MemberLease::new(who, lease, margin, renew));
                }
                if self.given_up {
                    self.condemn();
                }
            }
            Message::Granted(Renewal { who, seq }) => {
                let Some(holder) = &mut self.holder else { return };
                if holder.handle_grant(who, seq, now)
                    && let Some(from) = holder.held_from()
                {
                    self.ledger.note(Note::Held { who, seq, from });
                    self.works.extended();
                }
            }
            Message::Again => {
                if let Some(holder) = &mut self.holder {
                    holder.handle_refusal();
                }
            }
            Message::Condemned => self.condemn(),
            Message::Surrender { reply } => {
                self.give_up();
                let _nobody_waits = reply.send(self.works.names());
            }
            Message::Protect { what, token, at_end, lease, reply } => {
                let made = match &self.holder {
                    Some(holder) if !self.given_up => self.works.protect(holder, what, token, at_end),
                    Some(_) | None => Err(NotHeld.into()),
                };
                // Who has it sees it, too.
                self.views
                    .send_modify(|view| (view.armed, view.protecting) = (self.works.are_armed(), self.works.names()));
                // One that nobody takes says by itself that it has stopped: it was never begun.
                let made = made.map(|(id, what)| Offer::new(Protection { id, what, token, lease }));
                let _nobody_waits = reply.send(made);
            }
            Message::Stopped { id } => self.works.stopped(id),
            Message::Close => {
                self.closed = true;
                self.give_up();
            }
        }
    }

    fn give_up(&mut self) {
        self.given_up = true;
        self.condemn();
        self.limits.set(None);
    }

    fn condemn(&mut self) {
        if let Some(holder) = &mut self.holder {
            holder.handle_condemned();
        }
    }

    /// Does what the clock asks for, and returns how long it may sleep.
    fn keep(&mut self) -> Duration {
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
        self.works.sustain(now, left);
        let stage = match stage {
            Stage::Held { .. } if self.works.trouble().is_none() => LeaseStage::Held,
            Stage::Held { .. } | Stage::Notice { .. } => LeaseStage::Notice,
            Stage::Lapsed => LeaseStage::Lapsed,
        };
        let usable = self.plan.lease.saturating_sub(self.plan.margin);
        let until = from.filter(|_| stage == LeaseStage::Held);
        self.limits.set(until.map(|from| Reading::new(from.boottime() + usable, from.raw() + usable)));
        self.publish(who, stage, left, condemned);
        match stage {
            LeaseStage::Lapsed => self.works.end(),
            LeaseStage::Held => self.works.held(),
            LeaseStage::Notice => {}
        }
        let next_stage = match stage {
            LeaseStage::Held => left.saturating_sub(self.plan.margin),
            LeaseStage::Notice => left,
            LeaseStage::Lapsed => NAP,
        };
        until_renewal.min(next_stage).min(self.works.until_due(now).unwrap_or(NAP)).clamp(Duration::from_millis(1), NAP)
    }

    fn publish(&mut self, who: Identity, stage: LeaseStage, left: Duration, condemned: bool) {
        let view = LeaseView {
            stage,
            stop: self.works.stop(),
            armed: self.works.are_armed(),
            protecting: self.works.names(),
            trouble: self.works.trouble().map(str::to_string),
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

#[cfg(test)]
mod tests {
    use quorate_membership::{NodeId, Stop, Timing};

    use super::*;
    use crate::testing::TestStop;

    /// A keeper whose every renewal is granted at once.
    fn kept() -> (Keeper, TestStop, Identity, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path(), NodeId::new(3)).unwrap();
        let stop = TestStop::new(Stop::Own { bound: Duration::from_millis(100) });
        let (sent, mut outbox) = tokio::sync::mpsc::unbounded_channel();
        let plan = *Timing::default().plan();
        let keeper = Keeper::start(plan, Box::new(stop.clone()), sent, ledger).unwrap();
        let post = keeper.post.clone();
        std::thread::spawn(move || {
            while let Some(renewal) = outbox.blocking_recv() {
                let _keeper_gone = post.send(Message::Granted(renewal));
            }
        });
        (keeper, stop, "n3#1".parse().unwrap(), folder)
    }

    /// P19. A life that said that it gives its lease up, and begins only then, must not get one behind its own back.
    #[tokio::test]
    async fn a_lease_that_was_given_up_is_not_held_again() {
        let (keeper, stop, who, _folder) = kept();
        let lease = keeper.lease(who);
        assert_eq!(keeper.surrender(Duration::from_secs(60)).await, Some(vec![]));
        keeper.post.send(Message::Begin { who }).unwrap();
        keeper.post.send(Message::Granted(Renewal { who, seq: 1 })).unwrap();
        assert_eq!(lease.protect("worker", Revision::new(7)).await.unwrap_err(), NotHeld.into());
        assert!(lease.check().is_err() && stop.seen().sustained == 0);
    }

    /// Whoever holds a handle to a node that is shut down learns that there is no lease, and does not spin.
    #[tokio::test]
    async fn after_the_end_of_the_keeper_nothing_is_held() {
        let (keeper, _, who, _folder) = kept();
        let lease = keeper.lease(who);
        keeper.post.send(Message::Begin { who }).unwrap();
        lease.held().await;
        keeper.post.send(Message::Close).unwrap();
        lease.lost().await;
        while keeper.post.send(Message::Again).is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!((lease.view().stage, lease.check()), (LeaseStage::Lapsed, Err(NotHeld)));
        assert_eq!(lease.protect("worker", Revision::new(7)).await.unwrap_err(), ProtectError::Closed);
        let held = tokio::time::timeout(Duration::from_millis(50), lease.held()).await;
        assert!(held.is_err(), "no lease will ever come");
    }
}
