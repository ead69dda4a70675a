//! Carries this node's renewals to whoever leads, and the answers back to the keeper.
//!
//! ```text
//!   keeper ──renewal──▶ leader here? ─▶ its own grantor          own life in the log ──▶ Begin, Condemned
//!                          └─ no ─────▶ Transport::renew         another leader ───────▶ ask again at once
//! ```
//!
//! It may be as slow or as dead as it likes: then the lease lapses, which the keeper sees by its own clock.
//!
//! A renewal needs no disk here. While the engine waits for its disk it may not hear who was elected, so that every voter
//! is asked: who does not lead cannot grant.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use quorate_membership::{Contract, Identity, NodeId, Phase};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::host;
use crate::inner::Inner;
use crate::lease::ledger::Note;
use crate::lease::message::Message;
use crate::rpc::{Renewal, Renewed};

/// Renewals that come out of the keeper, until the task takes them.
pub(crate) type Outbox = Mutex<Option<mpsc::UnboundedReceiver<Renewal>>>;

/// Runs until `stop`.
pub(crate) async fn run(inner: Arc<Inner>, mut stop: watch::Receiver<bool>) {
    let Some(mut outbox) = inner.outbox.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
    let mut progress = inner.machine.progress();
    let mut pace = interval(inner.config.heartbeat() / 2);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut asked, mut own, mut leader) = (JoinSet::new(), Own::Unknown, None);
    loop {
        tokio::select! { biased;
            _ = stop.wait_for(|stop| *stop) => break,
            Some(renewal) = outbox.recv() => {
                asked.spawn(host::bound(ask(inner.clone(), renewal)));
            }
            Some(_) = asked.join_next() => {}
            changed = progress.changed() => match changed {
                Ok(()) => own = own.look(&inner),
                Err(_) => break,
            },
            _ = pace.tick() => {
                // P21: a node whose store or engine has failed is not kept looking well by its renewals.
                if inner.stopped().is_some() {
                    break;
                }
                let known = inner.leader();
                // The last one that was known: during an election nobody is.
                if known.is_some() && known != leader {
                    tell(&inner, Message::Again);
                    leader = known;
                }
                own = own.look(&inner);
            }
        }
    }
    tell(&inner, Message::Close);
}

fn tell(inner: &Inner, message: Message) {
    // A keeper that is gone keeps no lease: there is nothing to tell it.
    let _keeper_gone = inner.keeper.handle.send(message);
}

/// How far this life has come, as far as the keeper was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Own {
    Unknown,
    Begun(Identity),
    Condemned,
}

impl Own {
    fn look(self, inner: &Inner) -> Self {
        let Some(who) = inner.identity() else { return Self::Unknown };
        let state = inner.feed.state();
        let over = match state.life(who).map(|life| life.phase) {
            Some(Phase::Joining | Phase::Active) => state.newest(who.node) != Some(who),
            Some(Phase::Fencing | Phase::Fenced | Phase::Left) | None => true,
        };
        match self {
            Self::Condemned => self,
            Self::Unknown if state.may_renew(who) => {
                let contract = inner.config.timing.contract();
                let Contract { stop, lease, in_flight, drift } = contract;
                inner.ledger.note(Note::Registered { who, stop, lease, in_flight, drift });
                tell(inner, Message::Begin { who });
                Self::Begun(who)
            }
            Self::Unknown => self,
            Self::Begun(_) if over => {
                tell(inner, Message::Condemned);
                Self::Condemned
            }
            Self::Begun(_) => self,
        }
    }
}

async fn ask(inner: Arc<Inner>, renewal: Renewal) {
    let deadline = inner.config.timing.plan().lease / 2;
    let answer = match inner.leader() {
        known if inner.disk_trouble().is_some() && (known != Some(inner.node) || inner.has_made_way()) => {
            inquire(&inner, renewal, deadline).await
        }
        Some(leader) if leader == inner.node => timeout(deadline, inner.grantor.renew(renewal)).await.ok(),
        Some(leader) => remote(&inner, leader, renewal, deadline).await,
        None => None,
    };
    match answer {
        Some(Renewed::Granted(granted)) if granted == renewal => tell(&inner, Message::Granted(granted)),
        Some(Renewed::Granted(granted)) => tracing::warn!(?renewal, ?granted, "a grant of what was not asked for"),
        Some(Renewed::Refused { refusal, leader }) => {
            tracing::trace!(?renewal, %refusal, ?leader, "not renewed");
            sleep(inner.config.heartbeat() / 2).await;
            tell(&inner, Message::Again);
        }
        None => {
            sleep(inner.config.heartbeat() / 2).await;
            tell(&inner, Message::Again);
        }
    }
}

/// Asks every other voter: the first grant, or else some answer.
async fn inquire(inner: &Inner, renewal: Renewal, deadline: std::time::Duration) -> Option<Renewed> {
    let voters = inner.feed.state().configuration().voters();
    let others = voters.into_iter().filter(|node| *node != inner.node);
    let mut asked: FuturesUnordered<_> = others.map(|node| remote(inner, node, renewal, deadline)).collect();
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

async fn remote(inner: &Inner, leader: NodeId, renewal: Renewal, deadline: std::time::Duration) -> Option<Renewed> {
    match inner.peers.renew(leader, renewal, deadline).await {
        Ok(answer) => Some(answer),
        Err(error) => {
            tracing::trace!(?renewal, %leader, %error, "no answer to a renewal");
            None
        }
    }
}
