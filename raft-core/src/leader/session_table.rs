//! The leader's side of sessions, as a task: drives the pure [`Sessions`] with keep-alives, reads and the clock.
//!
//! ```text
//!   keep-alives (from any node) ──▶ noted on receipt ──▶ a read begun after it ──▶ "alive", while A is still current
//!   the clock ──▶ ExpireSession, LiftDelay, proposed on this node's own engine under A
//! ```
//!
//! Nothing here decides: an expiry counts if its activation is current and its wait long enough when it is applied.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quorate_membership::session::Sessions;
use quorate_membership::{Activation, Command, SessionId};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::host;
use crate::host::clock;
use crate::inner::Inner;
use crate::leader::reconciler::propose_as_leader;
use crate::rpc::KeptAlive;

/// How many keep-alives may wait to be looked at. What comes beyond is not answered, and sent again.
const QUEUE: usize = 8192;

/// How many keep-alives may wait for their reads at a time.
const CONFIRMING: usize = 4096;

/// One keep-alive, and who waits for the answer.
pub(crate) struct PendingKeepAlive {
    session: SessionId,
    answer: oneshot::Sender<KeptAlive>,
}

/// The way to the task.
pub(crate) struct SessionTable {
    asks: mpsc::Sender<PendingKeepAlive>,
    queue: Mutex<Option<mpsc::Receiver<PendingKeepAlive>>>,
}

impl Default for SessionTable {
    fn default() -> Self {
        let (asks, queue) = mpsc::channel(QUEUE);
        Self { asks, queue: Mutex::new(Some(queue)) }
    }
}

impl SessionTable {
    /// Answers a keep-alive, once a read that was begun after this call has confirmed it.
    pub(crate) async fn keep_alive(&self, session: SessionId) -> KeptAlive {
        let (answer, answered) = oneshot::channel();
        let nobody = KeptAlive::NotLeader { leader: None };
        if self.asks.try_send(PendingKeepAlive { session, answer }).is_err() {
            return nobody;
        }
        answered.await.unwrap_or(nobody)
    }
}

impl Inner {
    /// Keeps a session alive, through whoever leads. The time to live counts from when this was called.
    pub(crate) async fn keep_session(self: &Arc<Self>, session: SessionId, timeout: Duration) -> KeptAlive {
        let give_up = tokio::time::Instant::now() + timeout;
        loop {
            let left = give_up.saturating_duration_since(tokio::time::Instant::now());
            // A leader that hangs must not use all of the time up: another may be there soon.
            let once = left.min(self.config.election_max() * 2);
            let answer = match self.leader() {
                Some(leader) if leader == self.node => {
                    tokio::time::timeout(once, self.sessions.keep_alive(session)).await.ok()
                }
                Some(leader) => self.peers.keep_alive(leader, session, once).await.ok(),
                None => None,
            };
            match answer {
                Some(KeptAlive::NotLeader { .. }) | None if left.is_zero() => {
                    return KeptAlive::NotLeader { leader: self.leader() };
                }
                Some(KeptAlive::NotLeader { .. }) | None => tokio::time::sleep(self.config.heartbeat() / 2).await,
                Some(answer) => return answer,
            }
        }
    }
}

/// Runs until `stop`.
pub(crate) async fn run(inner: Arc<Inner>, mut stop: watch::Receiver<bool>) {
    let Some(mut queue) = inner.sessions.queue.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
    let mut progress = inner.machine.progress();
    let mut activation = inner.grantor.activation.subscribe();
    let mut pace = interval(inner.config.heartbeat());
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut task = Task {
        sessions: Sessions::default(),
        under: None,
        known: None,
        ticked: clock::reading(),
        proposals: JoinSet::new(),
        confirming: Arc::new(Semaphore::new(CONFIRMING)),
        proposed: BTreeSet::new(),
        inner,
    };
    let now = *activation.borrow_and_update();
    task.activated(now);
    loop {
        // However many keep-alives come, the clock is looked at.
        tokio::select! { biased;
            _ = stop.wait_for(|stop| *stop) => return,
            _ = pace.tick() => task.tick(),
            changed = activation.changed() => match changed {
                Ok(()) => task.activated(*activation.borrow_and_update()),
                Err(_) => return,
            },
            changed = progress.changed() => match changed {
                Ok(()) => task.applied(),
                Err(_) => return,
            },
            Some(ask) = queue.recv() => task.received(ask),
            Some(done) = task.proposals.join_next() => match done {
                Ok(command) => { task.proposed.remove(&command); }
                Err(_) => task.proposed.clear(),
            },
        }
    }
}

struct Task {
    inner: Arc<Inner>,
    sessions: Sessions,
    under: Option<Activation>,
    /// What was followed last: most entries change neither locks nor sessions.
    known: Option<quorate_membership::Store>,
    ticked: quorate_membership::lease::Reading,
    proposals: JoinSet<Command>,
    /// How many keep-alives may wait for their reads at a time.
    confirming: Arc<Semaphore>,
    proposed: BTreeSet<Command>,
}

impl Task {
    fn activated(&mut self, under: Option<Activation>) {
        if std::mem::replace(&mut self.under, under) != under {
            self.sessions.handle_activation();
            self.known = None;
            self.applied();
        }
    }

    fn applied(&mut self) {
        let state = self.inner.feed.state();
        if self.known.as_ref().is_some_and(|known| known.same_holders(state.store())) {
            return;
        }
        self.known = Some(state.store().clone());
        self.sessions.handle_applied(&state, clock::reading());
    }

    fn received(&mut self, ask: PendingKeepAlive) {
        let PendingKeepAlive { session, answer } = ask;
        let Some(under) = self.under else {
            let _gone = answer.send(KeptAlive::NotLeader { leader: self.inner.leader() });
            return;
        };
        self.applied();
        let spared = self.sessions.handle_keep_alive(session, clock::reading());
        let room = self.confirming.clone().try_acquire_owned();
        let (true, Ok(room)) = (spared, room) else {
            // Its end is being decided, or too many wait: asked again soon.
            let _gone = answer.send(KeptAlive::NotLeader { leader: None });
            return;
        };
        let inner = self.inner.clone();
        host::spawn(async move {
            let nobody = KeptAlive::NotLeader { leader: None };
            let timeout = inner.config.election_max() * 2;
            let confirmed = async {
                let index = inner.read_index_here(timeout).await?;
                inner.machine.progress().wait_for(|at| *at >= index).await.ok()?;
                let state = inner.feed.state();
                state.leadership().is_some_and(|current| current.activation == under).then_some(state)
            };
            let answered = match tokio::time::timeout(timeout, confirmed).await {
                Ok(Some(state)) => match state.store().session(session) {
                    Some(open) => KeptAlive::Alive { ttl: open.ttl },
                    None => KeptAlive::Ended,
                },
                Ok(None) | Err(_) => nobody,
            };
            let _gone = answer.send(answered);
            drop(room);
        });
    }

    fn tick(&mut self) {
        let now = clock::reading();
        let stood_still = now.longest_since(std::mem::replace(&mut self.ticked, now));
        if stood_still > self.inner.config.timing.plan().lease / 4 {
            self.sessions.handle_pause(now);
        }
        let Some(under) = self.under else { return };
        for command in self.sessions.poll(&self.inner.feed.state(), under, now) {
            // The wait is part of the command; what it is for, is what makes it the same.
            let same = |known: &Command| match (known, &command) {
                (Command::ExpireSession { session: a, .. }, Command::ExpireSession { session: b, .. }) => a == b,
                (Command::LiftDelay { token: a, name: n, .. }, Command::LiftDelay { token: b, name: m, .. }) => {
                    (a, n) == (b, m)
                }
                _ => false,
            };
            if self.proposed.iter().any(same) {
                continue;
            }
            self.proposed.insert(command.clone());
            let inner = self.inner.clone();
            self.proposals.spawn(host::bound(async move {
                if let Err(error) = propose_as_leader(&inner, command.clone()).await {
                    tracing::debug!(?command, %error, "not committed");
                    tokio::time::sleep(inner.config.heartbeat()).await;
                }
                command
            }));
        }
    }
}
