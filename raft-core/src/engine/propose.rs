//! How a command reaches the log: through the leader, from any node.
//!
//! ```text
//!   propose ─▶ leads here? ─▶ engine ───────────────▶ committed, applied ─▶ Committed │ Rejected
//!                 │ no        └▶ lost leadership ──▶ OutcomeUnknown
//!                 └──▶ forward ─▶ the leader ─▶ as above; then wait until it is applied here too
//! ```
//!
//! A command that was certainly not proposed is tried again until the timeout. One whose outcome is unknown is never
//! tried again, because only the caller knows whether it may be repeated.

use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, ForwardReason, RaftError};
use openraft::raft::ClientWriteResponse;
use quorate_membership::codec::encode;
use quorate_membership::{ClusterState, Command, NodeId, Revision};
use tokio::time::{Instant, timeout, timeout_at};

use crate::engine::Engine;
use crate::engine::state_machine::revision;
use crate::engine::types::Types;
use crate::error::{ProposeError, Refusal, TransportError};
use crate::rpc::{Call, Committed, Payload, Proposed};

impl Engine {
    /// Proposes a command through the leader, and waits until it is applied here.
    ///
    /// # Errors
    /// [`ProposeError`]. Only [`ProposeError::OutcomeUnknown`] leaves open whether the command takes effect.
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
                    self.another_leads(self.leader(), self.0.config.heartbeat() / 4).await;
                }
            }
        }
    }

    /// How long a command on the way out may take. Once the lives of a majority have ended there is nobody to wait for.
    pub(crate) fn time_to_leave(&self) -> Duration {
        match self.look(ClusterState::majority_has_ended) {
            true => self.0.config.propose_timeout.min(self.0.config.election_max() * 2),
            false => self.0.config.propose_timeout,
        }
    }

    /// The node to try when this node knows no leader because its engine waits for its disk: the leader that another
    /// node named, or else each other voter in turn. A node that does not lead refuses the command.
    fn whom_to_ask(&self, hint: Option<NodeId>, tries: usize) -> Option<NodeId> {
        self.takes_nothing()?;
        let voters = self.look(|state| state.configuration().voters());
        let others: Vec<NodeId> = voters.into_iter().filter(|node| *node != self.0.node).collect();
        let next = others.get(tries.checked_rem(others.len())?).copied();
        hint.filter(|node| *node != self.0.node).or(next)
    }

    /// Waits until this node knows another leader than `known`, for at most `limit`.
    pub(super) async fn another_leads(&self, known: Option<NodeId>, limit: Duration) {
        let mut metrics = self.0.raft.metrics();
        let changed = async {
            while self.leader() == known {
                if metrics.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let _as_long_as_it_takes = timeout(limit, changed).await;
    }

    async fn forward(&self, leader: NodeId, payload: &Payload, give_up: Instant) -> Result<Proposed, ProposeError> {
        let left = give_up.saturating_duration_since(Instant::now()).max(self.0.config.heartbeat());
        // A connection to a leader that is gone may not come for long. Nothing was sent yet, so another may be asked.
        let lane = Call::Propose(payload.clone()).lane();
        tokio::select! { biased;
            connected = self.0.peers.connected(leader, lane, left) => match connected {
                Ok(()) => {}
                Err(_) => return Ok(Proposed::NotLeader { leader: None }),
            },
            () = self.another_leads(Some(leader), left) => return Ok(Proposed::NotLeader { leader: self.leader() }),
        }
        match self.0.peers.propose(leader, payload.clone(), left).await {
            Ok(proposed) => Ok(proposed),
            Err(TransportError::Unreachable(_)) => Ok(Proposed::NotLeader { leader: None }),
            // The node itself refused, or another process answers at its former address: the command was not taken.
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

    /// Proposes on this node's own engine. Only a leader's engine accepts it.
    pub(crate) async fn propose_here(&self, payload: Payload, give_up: Instant) -> Proposed {
        match self.room_for_commands(give_up).await {
            true => self.in_a_batch(payload, give_up).await,
            false => Proposed::NotLeader { leader: None },
        }
    }

    /// With others that come at the same time.
    async fn in_a_batch(&self, payload: Payload, give_up: Instant) -> Proposed {
        match timeout_at(give_up, self.0.batches.write(payload)).await {
            Ok(Some(Ok(response))) => proposed(response),
            Ok(Some(Err(error))) => refused(&error),
            Ok(None) => self.stopped_meanwhile(|| "the engine did not answer".into()),
            Err(_) => not_in_time(),
        }
    }

    /// By itself.
    async fn at_once(&self, payload: Payload, give_up: Instant) -> Proposed {
        match timeout_at(give_up, self.0.raft.client_write(payload)).await {
            Ok(Ok(response)) => proposed(response),
            Ok(Err(RaftError::APIError(error))) => refused(&error),
            Ok(Err(RaftError::Fatal(fatal))) => self.stopped_meanwhile(|| fatal.to_string()),
            Err(_) => not_in_time(),
        }
    }

    /// The engine failed while it held the command, which may be in the log.
    fn stopped_meanwhile(&self, otherwise: impl FnOnce() -> String) -> Proposed {
        Proposed::Unknown { reason: self.stopped().map_or_else(otherwise, |why| why.to_string()) }
    }

    async fn reached(&self, revision: Revision, give_up: Instant) -> Result<Committed, ProposeError> {
        let mut progress = self.progress();
        let reached = timeout_at(give_up, progress.wait_for(|at| *at >= revision)).await;
        match reached {
            Ok(Ok(_)) => Ok(Committed { revision }),
            Ok(Err(_)) | Err(_) => {
                let reason = format!("it is committed at {revision}, but this node did not apply it in time");
                Err(ProposeError::OutcomeUnknown { reason })
            }
        }
    }

    /// Proposes a conclusion of this leader: once, on its own engine. A conclusion is never forwarded to another
    /// leader, which may well hear the nodes that this one could not. Returns whether it was applied: `false` if this node
    /// does not lead.
    ///
    /// # Errors
    /// [`ProposeError::Rejected`] when the rules refuse it, [`ProposeError::OutcomeUnknown`] when it was not committed
    /// in time.
    pub(crate) async fn propose_as_leader(&self, command: Command) -> Result<bool, ProposeError> {
        let payload = Payload::new(encode(&command)?);
        // It waits for no room and for no batch: what ends a life must not wait for writes.
        match self.at_once(payload, Instant::now() + self.0.config.election_max() * 2).await {
            Proposed::Applied { .. } => Ok(true),
            Proposed::NotLeader { .. } => Ok(false),
            Proposed::Rejected { rejection, .. } => Err(rejection.into()),
            Proposed::Unknown { reason } => Err(ProposeError::OutcomeUnknown { reason }),
        }
    }
}

fn proposed(response: ClientWriteResponse<Types>) -> Proposed {
    let revision = revision(response.log_id.index);
    match response.data {
        Ok(()) => Proposed::Applied { revision },
        Err(rejection) => Proposed::Rejected { revision, rejection },
    }
}

fn refused(error: &ClientWriteError<Types>) -> Proposed {
    match error {
        ClientWriteError::ForwardToLeader(to) => match to.reason {
            // A new leader refuses until a quorum first acknowledges it. Nothing was proposed; try again.
            ForwardReason::LeaseExpired | ForwardReason::LeadershipTransfer | ForwardReason::NotLeader => {
                Proposed::NotLeader { leader: to.leader_id.map(NodeId::new) }
            }
        },
        other => Proposed::Unknown { reason: other.to_string() },
    }
}

fn not_in_time() -> Proposed {
    Proposed::Unknown { reason: "it was not committed in time".into() }
}

/// The maximum size of one command in bytes: the largest write that the rules allow, with room for its envelope. A
/// larger command would enter the log before the rules could refuse it, and might not fit into a message to a follower.
const COMMAND: usize = 2 << 20;

/// Whether a command is small enough for the log.
pub(crate) fn fits(payload: &Payload) -> Result<(), Refusal> {
    let got = payload.as_bytes().len();
    let why = || format!("the command has {got} bytes, more than the maximum of {COMMAND}; split it");
    (got <= COMMAND).then_some(()).ok_or_else(|| Refusal::Malformed(why()))
}

/// The refusal of a command that sets the voters: only Raft's own entries do.
pub(crate) fn only_raft() -> Refusal {
    Refusal::Malformed(
        "a command cannot set the voters, which follow from Raft's own entries; change the role of a node instead"
            .into(),
    )
}
