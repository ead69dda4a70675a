//! The leader's side of client sessions: a task that drives the pure [`Sessions`] with keep-alives, reads and the
//! clock.
//!
//! ```text
//!   keep-alives (from any node) ──▶ noted on receipt ──▶ a read begun after it ──▶ "alive", while activation A is current
//!   the clock ──▶ ExpireSession, LiftDelay, proposed on this node's own engine under A
//! ```
//!
//! Nothing here decides. An expiry takes effect only if its activation is still current, and its wait long enough, when
//! the entry is applied.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use quorate_membership::session::Sessions;
use quorate_membership::{Activation, Command, SessionId, Store};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::host;
use crate::host::clock;
use crate::rpc::KeptAlive;

/// The maximum number of keep-alives that wait to be handled. The client of a further one is told to try again.
const QUEUE: usize = 8192;

/// The maximum number of keep-alives that wait for a confirmed read at a time.
const CONFIRMING: usize = 4096;

/// One keep-alive, and the channel to the client that waits for the answer.
struct PendingKeepAlive {
    session: SessionId,
    answer: oneshot::Sender<KeptAlive>,
}

/// Sends keep-alives to the task. Clones reach the same task.
#[derive(Clone)]
pub(crate) struct SessionTable {
    keep_alives: mpsc::Sender<PendingKeepAlive>,
}

/// The task's end of the channel.
pub(crate) struct SessionQueue(mpsc::Receiver<PendingKeepAlive>);

impl SessionTable {
    /// A table, and the queue that its task reads.
    pub(crate) fn new() -> (Self, SessionQueue) {
        let (keep_alives, queue) = mpsc::channel(QUEUE);
        (Self { keep_alives }, SessionQueue(queue))
    }

    /// Answers a keep-alive, once a read that began after this call has confirmed it.
    pub(crate) async fn keep_alive(&self, session: SessionId) -> KeptAlive {
        let (answer, answered) = oneshot::channel();
        let unknown = KeptAlive::NotLeader { leader: None };
        if self.keep_alives.try_send(PendingKeepAlive { session, answer }).is_err() {
            return unknown;
        }
        answered.await.unwrap_or(unknown)
    }

    /// Keeps a session alive through the leader, within `limit`. The client may count the time to live from this call.
    pub(crate) async fn keep_session(&self, engine: &Engine, session: SessionId, limit: Duration) -> KeptAlive {
        let give_up = Instant::now() + limit;
        loop {
            let left = give_up.saturating_duration_since(Instant::now());
            // A leader that hangs must not use up the whole time, because another may be elected soon.
            let once = left.min(engine.config().election_max() * 2);
            let answer = match engine.leader() {
                Some(leader) if leader == engine.node() => timeout(once, self.keep_alive(session)).await.ok(),
                Some(leader) => engine.peers().keep_alive(leader, session, once).await.ok(),
                None => None,
            };
            match answer {
                Some(KeptAlive::NotLeader { .. }) | None if left.is_zero() => {
                    return KeptAlive::NotLeader { leader: engine.leader() };
                }
                Some(KeptAlive::NotLeader { .. }) | None => sleep(engine.config().heartbeat() / 2).await,
                Some(answer) => return answer,
            }
        }
    }
}

/// Runs until `stop`.
pub(crate) async fn run(
    engine: Engine,
    mut activation: watch::Receiver<Option<Activation>>,
    queue: SessionQueue,
    stop: CancellationToken,
) {
    let SessionQueue(mut queue) = queue;
    let mut standing = engine.standing();
    let mut pace = engine.beat().every(2);
    let mut task = Task {
        sessions: Sessions::default(),
        under: None,
        known: None,
        ticked: clock::reading(),
        proposals: JoinSet::new(),
        confirming: Arc::new(Semaphore::new(CONFIRMING)),
        proposed: BTreeSet::new(),
        engine,
    };
    let now = *activation.borrow_and_update();
    task.activated(now);
    loop {
        // The clock is checked however many keep-alives arrive.
        tokio::select! { biased;
            () = stop.cancelled() => return,
            _ = pace.tick() => task.tick(),
            changed = activation.changed() => match changed {
                Ok(()) => task.activated(*activation.borrow_and_update()),
                Err(_) => return,
            },
            changed = standing.changed() => match changed {
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
    engine: Engine,
    sessions: Sessions,
    /// The activation of this leader; `None` while it does not lead.
    under: Option<Activation>,
    /// The store that `sessions` has seen last. Most entries change neither locks nor sessions, and are skipped.
    known: Option<quorate_membership::Store>,
    /// The clocks at the last tick, to notice when this process stood still.
    ticked: quorate_membership::lease::Reading,
    proposals: JoinSet<Command>,
    /// Limits the keep-alives that wait for a confirmed read; see [`CONFIRMING`].
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
        let same = |known: &Store| self.engine.look(|state| known.same_holders(state.store()));
        if self.known.as_ref().is_some_and(same) {
            return;
        }
        let state = self.engine.state();
        self.known = Some(state.store().clone());
        self.sessions.handle_applied(&state, clock::reading());
    }

    fn received(&mut self, ask: PendingKeepAlive) {
        let PendingKeepAlive { session, answer } = ask;
        let Some(under) = self.under else {
            let _gone = answer.send(KeptAlive::NotLeader { leader: self.engine.leader() });
            return;
        };
        self.applied();
        let spared = self.sessions.handle_keep_alive(session, clock::reading());
        let room = self.confirming.clone().try_acquire_owned();
        let (true, Ok(room)) = (spared, room) else {
            // The session is expiring, or too many keep-alives wait. The client tries again soon.
            let _gone = answer.send(KeptAlive::NotLeader { leader: None });
            return;
        };
        let engine = self.engine.clone();
        host::spawn(async move {
            let unconfirmed = KeptAlive::NotLeader { leader: None };
            let limit = engine.config().election_max() * 2;
            let confirmed = async {
                let index = engine.read_index_here(limit).await?;
                engine.progress().wait_for(|at| *at >= index).await.ok()?;
                engine.look(|state| {
                    let leads = state.leadership().is_some_and(|current| current.activation == under);
                    leads.then(|| state.store().session(session).map(|open| open.ttl))
                })
            };
            let answered = match timeout(limit, confirmed).await {
                Ok(Some(Some(ttl))) => KeptAlive::Alive { ttl },
                Ok(Some(None)) => KeptAlive::Ended,
                Ok(None) | Err(_) => unconfirmed,
            };
            let _gone = answer.send(answered);
            drop(room);
        });
    }

    fn tick(&mut self) {
        let now = clock::reading();
        let stood_still = now.longest_since(std::mem::replace(&mut self.ticked, now));
        if stood_still > self.engine.config().timing.plan().lease / 4 {
            self.sessions.handle_pause(now);
        }
        let Some(under) = self.under else { return };
        let commands = self.engine.look(|state| self.sessions.poll(state, under, now));
        for command in commands {
            // Two commands are the same if their subject is the same; the wait in them grows from tick to tick.
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
            let engine = self.engine.clone();
            self.proposals.spawn(host::bound(async move {
                if let Err(error) = engine.propose_as_leader(command.clone()).await {
                    tracing::debug!(?command, %error, "the end of a session or delay was not committed");
                    sleep(engine.config().heartbeat()).await;
                }
                command
            }));
        }
    }
}
