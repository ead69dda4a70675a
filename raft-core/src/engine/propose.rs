//! Commands on their way to the log, and linearizable reads: through whoever leads.
//!
//! ```text
//!   propose ─▶ leads here? ─▶ engine ───────────────▶ committed, applied ─▶ Committed │ Rejected
//!                 │ no: who?  └▶ lost leadership ──▶ OutcomeUnknown
//!                 └──▶ forward ─▶ the leader ─▶ as above; then wait until it is applied here too
//! ```
//!
//! "Nothing was proposed" is tried again until the time is up; "unknown" never is: only the caller knows whether its
//! command may be repeated.

use std::time::Duration;

use openraft::errors::{ClientWriteError, ForwardReason, RaftError};
use quorate_membership::codec::encode;
use quorate_membership::{Command, NodeId, Revision};
use tokio::time::{Instant, sleep, timeout_at};

use crate::engine::Engine;
use crate::engine::state_machine::revision;
use crate::error::{ProposeError, Refusal, TransportError};
use crate::rpc::{Committed, Payload, Proposed};

impl Engine {
    /// Proposes a command, through whoever leads, and waits until it is applied here.
    ///
    /// # Errors
    /// [`ProposeError`].
    pub(crate) async fn propose(&self, command: Command, timeout: Duration) -> Result<Committed, ProposeError> {
        if let Command::Configure { .. } = command {
            return Err(ProposeError::Refused(only_raft()));
        }
        let payload = Payload::new(encode(&command)?);
        fits(&payload).map_err(ProposeError::Refused)?;
        let give_up = Instant::now() + timeout;
        let (mut hint, mut tries) = (None, 0);
        loop {
            if let Some(fatal) = self.stopped() {
                return Err(fatal.into());
            }
            let proposed = match self.leader().or_else(|| self.whom_to_ask(hint, tries)) {
                Some(leader) if leader != self.0.node => self.forward(leader, &payload, give_up).await?,
                Some(_) | None if self.leading() => self.propose_here(payload.clone(), give_up).await,
                Some(_) | None => Proposed::NotLeader { leader: None },
            };
            match proposed {
                Proposed::Applied { revision } => return self.reached(revision, give_up).await,
                Proposed::Rejected { rejection, .. } => return Err(rejection.into()),
                Proposed::Unknown { reason } => return Err(ProposeError::OutcomeUnknown { reason }),
                Proposed::NotLeader { leader } => {
                    if Instant::now() >= give_up {
                        return Err(ProposeError::NoLeader { waited: timeout });
                    }
                    tracing::trace!(?leader, ?hint, "no leader took the command yet");
                    (hint, tries) = (leader, tries + 1);
                    sleep(self.0.config.heartbeat() / 4).await;
                }
            }
        }
    }

    /// An engine that waits for its disk hears of no leader: then the others are asked one after the other, and whom they
    /// take for their leader. Who does not lead takes no command.
    fn whom_to_ask(&self, hint: Option<NodeId>, tries: usize) -> Option<NodeId> {
        self.takes_nothing()?;
        let voters = self.state().configuration().voters();
        let others: Vec<NodeId> = voters.into_iter().filter(|node| *node != self.0.node).collect();
        let next = others.get(tries.checked_rem(others.len())?).copied();
        hint.filter(|node| *node != self.0.node).or(next)
    }

    async fn forward(&self, leader: NodeId, payload: &Payload, give_up: Instant) -> Result<Proposed, ProposeError> {
        let left = give_up.saturating_duration_since(Instant::now()).max(self.0.config.heartbeat());
        match self.0.peers.propose(leader, payload.clone(), left).await {
            Ok(proposed) => Ok(proposed),
            Err(TransportError::Unreachable(_)) => Ok(Proposed::NotLeader { leader: None }),
            // Another process answers at an address that has passed on: nobody took the command.
            Err(TransportError::Refused(
                Refusal::NotReady
                | Refusal::Unavailable(_)
                | Refusal::Stopped(_)
                | Refusal::OtherNode { .. }
                | Refusal::OtherCluster { .. },
            )) => Ok(Proposed::NotLeader { leader: None }),
            Err(TransportError::Refused(refusal)) => Err(ProposeError::Refused(refusal)),
            Err(error @ (TransportError::Timeout(_) | TransportError::Broken(_))) => {
                Err(ProposeError::OutcomeUnknown { reason: format!("{leader}: {error}") })
            }
        }
    }

    /// Proposes on this node's own engine, which has to lead for that.
    pub(crate) async fn propose_here(&self, payload: Payload, give_up: Instant) -> Proposed {
        let Ok(written) = timeout_at(give_up, self.0.raft.client_write(payload)).await else {
            return Proposed::Unknown { reason: "it was not committed in time".into() };
        };
        match written {
            Ok(response) => {
                let revision = revision(response.log_id.index);
                match response.data {
                    Ok(()) => Proposed::Applied { revision },
                    Err(rejection) => Proposed::Rejected { revision, rejection },
                }
            }
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => match to.reason {
                // A fresh leader refuses until its first quorum ack: nothing was proposed, ask again.
                ForwardReason::LeaseExpired | ForwardReason::LeadershipTransfer | ForwardReason::NotLeader => {
                    Proposed::NotLeader { leader: to.leader_id.map(NodeId::new) }
                }
            },
            Err(RaftError::APIError(other)) => Proposed::Unknown { reason: other.to_string() },
            // The engine failed while it had the command: it may be in the log.
            Err(RaftError::Fatal(fatal)) => {
                Proposed::Unknown { reason: self.stopped().map_or_else(|| fatal.to_string(), |why| why.to_string()) }
            }
        }
    }

    async fn reached(&self, revision: Revision, give_up: Instant) -> Result<Committed, ProposeError> {
        let mut progress = self.progress();
        let reached = timeout_at(give_up, progress.wait_for(|at| *at >= revision)).await;
        match reached {
            Ok(Ok(_)) => Ok(Committed { revision }),
            Ok(Err(_)) | Err(_) => {
                let reason = format!("it is committed as {revision}, but this node has not applied it in time");
                Err(ProposeError::OutcomeUnknown { reason })
            }
        }
    }

    /// Proposes a conclusion of this leader: one try, on this node's own engine. A conclusion that outlived its leadership is
    /// not handed to another leader, who may hear well what this one could not. That this node does not lead is no error.
    ///
    /// # Errors
    /// [`ProposeError::Rejected`], or [`ProposeError::OutcomeUnknown`].
    pub(crate) async fn propose_as_leader(&self, command: Command) -> Result<(), ProposeError> {
        let payload = Payload::new(encode(&command)?);
        match self.propose_here(payload, Instant::now() + self.0.config.election_max() * 2).await {
            Proposed::Applied { .. } | Proposed::NotLeader { .. } => Ok(()),
            Proposed::Rejected { rejection, .. } => Err(rejection.into()),
            Proposed::Unknown { reason } => Err(ProposeError::OutcomeUnknown { reason }),
        }
    }
}

/// The most bytes of one command: that of the largest write, with room for what is around it. A larger one would be in the
/// log before the rules could refuse it, and might not fit into any message to a follower.
const COMMAND: usize = 2 << 20;

/// Whether a command is small enough for the log.
pub(crate) fn fits(payload: &Payload) -> Result<(), Refusal> {
    let got = payload.as_bytes().len();
    let why = || format!("the command has {got} bytes, and {COMMAND} is the most; split it");
    (got <= COMMAND).then_some(()).ok_or_else(|| Refusal::Malformed(why()))
}

/// Who votes is said by Raft's own entries; a command that claims it is not proposed.
pub(crate) fn only_raft() -> Refusal {
    Refusal::Malformed("who votes follows from the log of Raft alone; change the role of a node instead".into())
}
