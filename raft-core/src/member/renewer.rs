//! Carries the renewals of this node's lease to the leader, and the answers back to the keeper.
//!
//! ```text
//!   keeper ──renewal──▶ leader here? ─▶ its own grantor          own life in the log ──▶ Begin, Condemned
//!                          └─ no ─────▶ Peers::renew             another leader ───────▶ ask again at once
//! ```
//!
//! Safety does not depend on this task. If it is slow or fails, the lease runs out, and the keeper notices by its own
//! clock.
//!
//! A renewal needs no disk on this node, and no call from the leader. While the engine waits for its disk, or nothing
//! reaches this node, it may not learn of a new leader. So the renewal goes to every voter when no leader is known, the
//! known one does not answer, or this node itself has made way. Only a leader can grant it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use quorate_membership::{Contract, Identity, NodeId, Phase};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::host;
use crate::lease::keeper::Keeper;
use crate::lease::ledger::{Ledger, Note};
use crate::lease::message::Message;
use crate::lease::renewals::GrantorHandle;
use crate::rpc::{Renewal, Renewed};

/// Sends renewals and returns their answers to the keeper.
#[derive(Clone)]
pub(crate) struct Renewer {
    pub(crate) engine: Engine,
    pub(crate) keeper: Arc<Keeper>,
    /// This node's own grantor, which answers while this node leads.
    pub(crate) grantor: GrantorHandle,
    pub(crate) ledger: Ledger,
}

impl Renewer {
    /// Runs until `stop`. `outbox`: the renewals that the keeper wants to send.
    pub(crate) async fn run(self, mut outbox: mpsc::UnboundedReceiver<Renewal>, stop: CancellationToken) {
        let mut standing = self.engine.standing();
        let mut pace = self.engine.beat().every(1);
        let (mut asked, mut own, mut leader) = (JoinSet::new(), Own::Unknown, None);
        loop {
            tokio::select! { biased;
                () = stop.cancelled() => break,
                Some(renewal) = outbox.recv() => {
                    asked.spawn(host::bound(self.clone().ask(renewal)));
                }
                Some(_) = asked.join_next() => {}
                changed = standing.changed() => match changed {
                    Ok(()) => own = own.look(&self),
                    Err(_) => break,
                },
                _ = pace.tick() => {
                    // P21: a node whose store or engine has failed must not appear healthy through its renewals.
                    if self.engine.stopped().is_some() {
                        break;
                    }
                    let known = self.engine.leader();
                    // `leader` keeps the last known leader, because there is none during an election.
                    if known.is_some() && known != leader {
                        self.tell(Message::Again);
                        leader = known;
                    }
                    own = own.look(&self);
                }
            }
        }
        self.tell(Message::Close);
    }

    fn tell(&self, message: Message) {
        // A keeper that has ended keeps no lease: there is nothing to tell it.
        let _keeper_gone = self.keeper.handle.send(message);
    }

    async fn ask(self, renewal: Renewal) {
        let deadline = self.engine.config().timing.plan().lease / 2;
        let (me, in_trouble) = (self.engine.node(), self.engine.disk_trouble().is_some());
        let answer = match self.engine.leader() {
            Some(leader) if leader == me && !self.engine.has_made_way() => {
                timeout(deadline, self.grantor.renew(renewal)).await.ok()
            }
            Some(leader) if leader != me && !in_trouble => self.ask_first(leader, renewal, deadline).await,
            _ => self.ask_every_voter(renewal, deadline).await,
        };
        match answer {
            Some(Renewed::Granted(granted)) if granted == renewal => self.tell(Message::Granted(granted)),
            Some(Renewed::Granted(granted)) => {
                tracing::warn!(?renewal, ?granted, "the grant does not match the renewal; it is ignored")
            }
            Some(Renewed::Refused { refusal, leader }) => {
                tracing::trace!(?renewal, %refusal, ?leader, "the renewal was refused");
                sleep(self.engine.config().heartbeat() / 2).await;
                self.tell(Message::Again);
            }
            None => {
                sleep(self.engine.config().heartbeat() / 2).await;
                self.tell(Message::Again);
            }
        }
    }

    /// Sends the renewal to the leader, and to every other voter if that may not be the leader any more: it names another
    /// one, cannot be reached, or does not answer for long.
    async fn ask_first(&self, leader: NodeId, renewal: Renewal, deadline: Duration) -> Option<Renewed> {
        let mut first = Box::pin(self.ask_node(leader, renewal, deadline));
        let soon = deadline / 3;
        match timeout(soon, &mut first).await {
            Ok(Some(Renewed::Refused { leader: Some(other), .. })) if other != leader => {
                self.ask_every_voter(renewal, deadline).await
            }
            Ok(None) => self.ask_every_voter(renewal, deadline).await,
            Ok(answer) => answer,
            Err(_) => {
                let others = self.ask_every_voter(renewal, deadline - soon);
                best([first.boxed(), others.boxed()].into_iter().collect()).await
            }
        }
    }

    /// Sends the renewal to every other voter. Returns the first grant, or else one of the answers.
    async fn ask_every_voter(&self, renewal: Renewal, deadline: Duration) -> Option<Renewed> {
        let voters = self.engine.look(|state| state.configuration().voters());
        let others = voters.into_iter().filter(|node| *node != self.engine.node());
        best(others.map(|node| self.ask_node(node, renewal, deadline).boxed()).collect()).await
    }

    async fn ask_node(&self, node: NodeId, renewal: Renewal, deadline: Duration) -> Option<Renewed> {
        match self.engine.peers().renew(node, renewal, deadline).await {
            Ok(answer) => {
                // A leader that grants leads a quorum. To a learner it sends few heartbeats beside (`engine/spared.rs`).
                let me = self.engine.node();
                if matches!(answer, Renewed::Granted(_)) && !self.engine.peers().has_a_vote(me) {
                    self.engine.peers().contacts.note_answer(node);
                }
                Some(answer)
            }
            Err(error) => {
                tracing::trace!(?renewal, %node, %error, "no answer to a renewal");
                None
            }
        }
    }
}

/// The first grant, or else one of the answers.
async fn best(mut asked: FuturesUnordered<BoxFuture<'_, Option<Renewed>>>) -> Option<Renewed> {
    let mut refused = None;
    while let Some(answer) = asked.next().await {
        match answer {
            Some(Renewed::Granted(_)) => return answer,
            Some(Renewed::Refused { .. }) => refused = answer,
            None => {}
        }
    }
    refused
}

/// What the keeper was told about this life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Own {
    Unknown,
    Begun(Identity),
    Condemned,
}

impl Own {
    fn look(self, renewer: &Renewer) -> Self {
        let engine = &renewer.engine;
        let Some(who) = engine.identity() else { return Self::Unknown };
        let (ended, renewable) = engine.look(|state| {
            let ended = match state.life(who).map(|life| life.phase) {
                Some(Phase::Joining | Phase::Active) => state.newest(who.node) != Some(who),
                Some(Phase::Fencing | Phase::Fenced | Phase::Left) | None => true,
            };
            (ended, state.may_renew(who))
        });
        match self {
            Self::Condemned => self,
            Self::Unknown if renewable => {
                let contract = engine.config().timing.contract();
                let Contract { stop, lease, in_flight, drift } = contract;
                renewer.ledger.note(Note::Registered { who, stop, lease, in_flight, drift });
                renewer.tell(Message::Begin { who });
                Self::Begun(who)
            }
            Self::Unknown => self,
            Self::Begun(_) if ended => {
                renewer.tell(Message::Condemned);
                Self::Condemned
            }
            Self::Begun(_) => self,
        }
    }
}
