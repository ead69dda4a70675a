//! The keeper of this node's lease. It is a thread of the operating system, so that neither a blocked async runtime nor a
//! slow task delays its notice or the stop mechanism.
//!
//! ```text
//!   renewer (async) ◀── renewals, each noted before it leaves ── keeper ──▶ Limits (atomics): check()
//!          └── grants, refusals, condemned ─────────────────────▶  │   └──▶ LeaseView (watch): held(), lost(), status
//!   consumer ── protect, stopped ───────────────────────────────▶  │
//!                                                        sustain(left) │ disarm │ fire ──▶ StopMechanism
//! ```
//!
//! It waits for messages and for the clock, and for nothing else: the ledger has a thread of its own, and the renewer uses
//! the network. If this thread itself stands still, the mechanism is not sustained, and acts.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use quorate_membership::lease::{MemberLease, Reading, Stage};
use quorate_membership::{Identity, Plan};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{oneshot, watch};

use crate::host::clock;
use crate::host::{self, TurnTaker};
use crate::lease::error::NotHeld;
use crate::lease::handle::Lease;
use crate::lease::ledger::{Ledger, Note};
use crate::lease::message::{KeeperHandle, Message, Offer};
use crate::lease::protected::ProtectedWork;
use crate::lease::stage::{LeaseStage, LeaseView, Limits, latest};
use crate::lease::stop::StopMechanism;
use crate::rpc::Renewal;

/// The keeper, as the rest of the node uses it.
pub(crate) struct Keeper {
    pub(crate) handle: KeeperHandle,
    limits: Arc<Limits>,
    views: watch::Receiver<LeaseView>,
    /// Whether this life declares that its work dies with its process. Then no child is bound to its lease.
    pub(crate) process_bound: bool,
}

struct Thread {
    inbox: Receiver<Message>,
    plan: Plan,
    holder: Option<MemberLease>,
    works: ProtectedWork,
    /// The lease was given up, or the node is shut down. That is final, whatever is granted or begun later.
    given_up: bool,
    closed: bool,
    limits: Arc<Limits>,
    views: watch::Sender<LeaseView>,
    outbox: UnboundedSender<Renewal>,
    ledger: Ledger,
}

/// The longest sleep. It bounds how late a clock that jumps is noticed, as on a machine that was resumed.
const NAP: Duration = Duration::from_millis(100);

impl Keeper {
    /// Starts the thread. It sends the renewals that are due to `outbox`.
    pub(crate) fn start(
        plan: Plan,
        mechanism: Box<dyn StopMechanism>,
        outbox: UnboundedSender<Renewal>,
        ledger: Ledger,
    ) -> std::io::Result<Self> {
        let (handle, inbox) = KeeperHandle::new();
        let limits = Arc::new(Limits::default());
        let (views, watched) = watch::channel(LeaseView { stop: mechanism.stop(), ..LeaseView::default() });
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
        host::current().run("quorate-keeper", Box::new(thread), handle.bell())?;
        Ok(Self { handle, limits, views: watched, process_bound: false })
    }

    pub(crate) fn lease(&self, who: Identity) -> Lease {
        Lease {
            who,
            process_bound: self.process_bound,
            limits: self.limits.clone(),
            views: self.views.clone(),
            keeper: self.handle.clone(),
        }
    }

    pub(crate) fn view(&self) -> LeaseView {
        latest(&self.views)
    }

    /// Gives the lease up, before this life reports that it has stopped. Returns the names of what is still protected;
    /// `None` when the keeper does not answer within `timeout`.
    pub(crate) async fn surrender(&self, timeout: Duration) -> Option<Vec<String>> {
        let (reply, replied) = oneshot::channel();
        self.handle.send(Message::Surrender { reply }).ok()?;
        tokio::time::timeout(timeout, replied).await.ok()?.ok()
    }
}

impl TurnTaker for Thread {
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
                // No message can report a stop any more. What is armed acts at the end of the lease.
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
    /// Whether nothing is left to keep. If so, every handle is told that there is no lease.
    fn has_ended(&self) -> bool {
        let ended = self.closed && self.works.is_empty();
        if ended {
            self.limits.set(None);
            self.views.send_modify(|view| view.stage = LeaseStage::Lapsed);
        }
        ended
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
                let _caller_gone = reply.send(self.works.names());
            }
            Message::Protect { what, token, at_end, keeper, reply } => {
                let made = match &self.holder {
                    Some(holder) if !self.given_up => self.works.protect(holder, what, token, at_end),
                    Some(_) | None => Err(NotHeld.into()),
                };
                // Before the reply: a caller that has its protection also sees it in the view.
                self.views
                    .send_modify(|view| (view.armed, view.protecting) = (self.works.are_armed(), self.works.names()));
                // An offer that is not taken reports by itself that the work has stopped.
                let _caller_gone = reply.send(made.map(|id| Offer::new(id, keeper)));
            }
            Message::Stopped { id } => self.works.stopped(id),
            Message::Unfit(why) => self.works.set_unfit(why),
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
            // Without a renewer nothing is sent, and the lease lapses.
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
                match protecting.is_empty() {
                    true => tracing::debug!(%who, ?left, condemned, "the lease is about to end; nothing is protected"),
                    false => {
                        tracing::warn!(%who, ?left, condemned, protecting = waiting, "the lease is about to end; what runs has to stop");
                    }
                }
                self.ledger.note(Note::Notice { who, left, condemned, protecting });
            }
            LeaseStage::Lapsed => {
                if !protecting.is_empty() {
                    let left = protecting.join(", ");
                    tracing::error!(%who, protecting = left, "the lease has ended with work left; the stop mechanism ends it");
                }
                self.ledger.note(Note::Lapsed { who, protecting });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use quorate_membership::{NodeId, Revision, Stop, Timing};

    use super::*;
    use crate::lease::error::ProtectError;
    use crate::testing::TestStop;

    /// A keeper whose every renewal is granted at once.
    fn kept() -> (Keeper, TestStop, Identity, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path(), NodeId::new(3)).unwrap();
        let stop = TestStop::new(Stop::Own { bound: Duration::from_millis(100) });
        let (sent, mut outbox) = tokio::sync::mpsc::unbounded_channel();
        let plan = *Timing::default().plan();
        let keeper = Keeper::start(plan, Box::new(stop.clone()), sent, ledger).unwrap();
        let handle = keeper.handle.clone();
        std::thread::spawn(move || {
            while let Some(renewal) = outbox.blocking_recv() {
                let _keeper_gone = handle.send(Message::Granted(renewal));
            }
        });
        (keeper, stop, "n3#1".parse().unwrap(), folder)
    }

    /// P19. A life that gave its lease up, and begins only then, must not get one all the same.
    #[tokio::test]
    async fn a_lease_that_was_given_up_is_not_held_again() {
        let (keeper, stop, who, _folder) = kept();
        let lease = keeper.lease(who);
        assert_eq!(keeper.surrender(Duration::from_secs(60)).await, Some(vec![]));
        keeper.handle.send(Message::Begin { who }).unwrap();
        keeper.handle.send(Message::Granted(Renewal { who, seq: 1 })).unwrap();
        assert_eq!(lease.protect("worker", Revision::new(7)).await.unwrap_err(), NotHeld.into());
        assert!(lease.check().is_err() && stop.seen().sustained == 0);
    }

    /// The holder of a handle to a node that is shut down learns that there is no lease, and does not spin.
    #[tokio::test]
    async fn after_the_end_of_the_keeper_nothing_is_held() {
        let (keeper, _, who, _folder) = kept();
        let lease = keeper.lease(who);
        keeper.handle.send(Message::Begin { who }).unwrap();
        lease.held().await;
        keeper.handle.send(Message::Close).unwrap();
        lease.lost().await;
        while keeper.handle.send(Message::Again).is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!((lease.view().stage, lease.check()), (LeaseStage::Lapsed, Err(NotHeld)));
        assert_eq!(lease.protect("worker", Revision::new(7)).await.unwrap_err(), ProtectError::Closed);
        let held = tokio::time::timeout(Duration::from_millis(50), lease.held()).await;
        assert!(held.is_err(), "no lease will ever come");
    }
}
