//! How a life leaves: it gives its lease up, and commits that it has stopped; or else notes it in its data folder.
//!
//! ```text
//!   lease given up ─▶ nothing protected ─▶ Leave ─┬▶ committed ───────────▶ hands over, lingers ─▶ Committed
//!                                                 ├▶ the others have left ─▶ note in the folder ─▶ LastToLeave
//!                                                 └▶ not within the limit ─▶ note in the folder ─▶ error
//! ```
//!
//! A cluster that stops as a whole loses its majority before its last nodes have left. Two things keep that from being an
//! error. A node whose departure leaves the others without a majority votes on for a moment, so that they can commit
//! theirs. And the note in the folder travels with the join of the next life, so that the life which could not commit its
//! leave needs no fencing.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_membership::{Command, Identity, NodeId};
use tokio::time::{Instant, sleep, timeout};

use crate::engine::Engine;
use crate::error::{ProposeError, Refusal};
use crate::folder::Folder;
use crate::host::clock;
use crate::lease::keeper::Keeper;

/// How long a node that has left votes on for others that cannot decide without it. Services of one cluster are stopped
/// within a few seconds of each other.
const LINGER: Duration = Duration::from_secs(3);

/// How a life ended that left cleanly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Departure {
    /// Its leave is committed: the others know that it has stopped.
    Committed,
    /// The others had left before, so that no majority was there to commit it. The data folder says that this life has
    /// stopped; its next life reports that with its join, and needs no fencing.
    LastToLeave,
}

/// What leaving needs.
pub(crate) struct Departing {
    pub(crate) engine: Engine,
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) folder: Arc<Mutex<Option<Folder>>>,
}

impl Departing {
    /// Leaves, within `limit`. Does not shut the node down.
    pub(crate) async fn leave(&self, limit: Duration) -> Result<Departure, ProposeError> {
        let (engine, began) = (&self.engine, Instant::now());
        let Some(who) = engine.identity() else { return Ok(Departure::Committed) };
        let left = || limit.saturating_sub(began.elapsed());
        self.surrender(left()).await?;
        loop {
            if self.is_last() {
                tracing::info!(%who, "the other nodes have left; the next life of this node reports that it has, too");
                self.note(who);
                return Ok(Departure::LastToLeave);
            }
            match engine.propose(Command::Leave { who }, engine.time_to_leave().min(left())).await {
                Ok(_) => break,
                // A leave may be repeated; a second one changes nothing.
                Err(ProposeError::OutcomeUnknown { .. } | ProposeError::NoLeader { .. }) if !left().is_zero() => {}
                Err(error) => {
                    self.note(who);
                    return Err(error);
                }
            }
        }
        if engine.leading() {
            match timeout(left(), engine.hand_over(None)).await {
                Ok(Ok(successor)) => tracing::debug!(%successor, "leadership handed over before leaving"),
                Ok(Err(error)) => {
                    tracing::info!(%error, "leadership was not handed over; the others will elect a leader")
                }
                Err(_) => tracing::info!("no time to hand leadership over; the others will elect a leader"),
            }
        }
        self.linger(left().min(LINGER)).await;
        Ok(Departure::Committed)
    }

    /// P19: the lease is given up first. A life that still protects work has not stopped, and must not leave.
    async fn surrender(&self, limit: Duration) -> Result<(), ProposeError> {
        let lease = self.engine.config().timing.plan().lease;
        match self.keeper.surrender(lease.min(limit)).await {
            Some(protected) if protected.is_empty() => Ok(()),
            Some(protected) => Err(still_protected(&protected.join(", "))),
            None => Err(still_protected("work that its keeper did not report on")),
        }
    }

    /// Nothing was committed, so the next life has to tell it.
    fn note(&self, who: Identity) {
        let noted = self.folder.lock().as_mut().map_or(Ok(()), |folder| folder.set_left(who.incarnation));
        if let Err(error) = noted {
            tracing::warn!(%who, %error, "that this life has stopped could not be noted; the others may have to fence it");
        }
    }

    /// Whether the log says that the lives of a majority have ended, and none of the others was heard for an election timeout.
    fn is_last(&self) -> bool {
        let (engine, now) = (&self.engine, clock::now());
        let unheard = |node: &NodeId| {
            engine.peers().contacts.last(*node).is_none_or(|at| now.since(at) > engine.config().election_max())
        };
        let silent = || engine.state().configuration().voters().iter().all(unheard);
        engine.state().majority_has_ended() && silent()
    }

    /// Votes on while others are there that cannot decide without this node.
    async fn linger(&self, limit: Duration) {
        let (engine, until) = (&self.engine, Instant::now() + limit);
        while Instant::now() < until && engine.stopped().is_none() {
            let state = engine.state();
            if !state.majority_has_ended() || state.voters_not_ended().is_empty() {
                return;
            }
            sleep(engine.config().heartbeat() / 2).await;
        }
    }
}

fn still_protected(what: &str) -> ProposeError {
    let why = format!("this life still protects {what}; report it as stopped before leaving (nothing was committed)");
    ProposeError::Refused(Refusal::Malformed(why))
}
