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

use std::sync::Arc;
use std::time::Duration;

use openraft::ReadPolicy;
use openraft::errors::{ClientWriteError, ForwardReason, RaftError};
use quorate_membership::codec::encode;
use quorate_membership::{Command, NodeId, Revision};
use tokio::time::{Instant, sleep, timeout_at};

use crate::engine::state_machine::revision;
use crate::error::{ProposeError, ReadError, Refusal, TransportError};
use crate::inner::Inner;
use crate::node::Committed;
use crate::node::service;
use crate::rpc::{Payload, Proposed};

impl Inner {
    pub(crate) async fn propose(&self, command: Command, timeout: Duration) -> Result<Committed, ProposeError> {
        if let Command::Configure { .. } = command {
            return Err(ProposeError::Refused(service::only_raft()));
        }
        let payload = Payload::new(encode(&command)?);
        service::fits(&payload).map_err(ProposeError::Refused)?;
        let give_up = Instant::now() + timeout;
        let (mut hint, mut tries) = (None, 0);
        loop {
            if let Some(fatal) = self.stopped() {
                return Err(fatal.into());
            }
            let proposed = match self.leader().or_else(|| self.whom_to_ask(hint, tries)) {
                Some(leader) if leader != self.node => self.forward(leader, &payload, give_up).await?,
                Some(_) | None if self.leading() => self.propose_here(payload.clone(), give_up).await,
                Some(_) | None => Proposed::NotLeader { leader: None },
            };
            match proposed {
                Proposed::Applied { revision } => return self.applied(revision, give_up).await,
                Proposed::Rejected { rejection, .. } => return Err(rejection.into()),
                Proposed::Unknown { reason } => return Err(ProposeError::OutcomeUnknown { reason }),
                Proposed::NotLeader { leader } => {
                    if Instant::now() >= give_up {
                        return Err(ProposeError::NoLeader { waited: timeout });
                    }
                    tracing::trace!(?leader, ?hint, "no leader took the command yet");
                    (hint, tries) = (leader, tries + 1);
                    sleep(self.config.heartbeat() / 4).await;
                }
            }
        }
    }

    /// An engine that waits for its disk hears of no leader: then the others are asked one after the other, and whom they
    /// take for their leader. Who does not lead takes no command.
    fn whom_to_ask(&self, hint: Option<NodeId>, tries: usize) -> Option<NodeId> {
        self.takes_nothing()?;
        let voters = self.feed.state().configuration().voters();
        let others: Vec<NodeId> = voters.into_iter().filter(|node| *node != self.node).collect();
        let next = others.get(tries.checked_rem(others.len())?).copied();
        hint.filter(|node| *node != self.node).or(next)
    }

    async fn forward(&self, leader: NodeId, payload: &Payload, give_up: Instant) -> Result<Proposed, ProposeError> {
        let left = give_up.saturating_duration_since(Instant::now()).max(self.config.heartbeat());
        match self.peers.propose(leader, payload.clone(), left).await {
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
        let Ok(written) = timeout_at(give_up, self.raft.client_write(payload)).await else {
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

    async fn applied(&self, revision: Revision, give_up: Instant) -> Result<Committed, ProposeError> {
        let mut progress = self.machine.progress();
        let reached = timeout_at(give_up, progress.wait_for(|at| *at >= revision)).await;
        match reached {
            Ok(Ok(_)) => Ok(Committed { revision }),
            Ok(Err(_)) | Err(_) => {
                let reason = format!("it is committed as {revision}, but this node has not applied it in time");
                Err(ProposeError::OutcomeUnknown { reason })
            }
        }
    }

    /// A read index from this node's own engine; `None` when it does not lead or finds no quorum.
    pub(crate) async fn read_index_here(self: &Arc<Self>, timeout: Duration) -> Option<Revision> {
        // Never `LeaseRead`: with one restarted voter and one partition it read stale in 97 of 100 runs.
        let by_lease = cfg!(quorate_mutant = "lease_reads_without_embargo");
        let policy = if by_lease { ReadPolicy::LeaseRead } else { ReadPolicy::ReadIndex };
        let index = async {
            let linearizer = self.raft.get_read_linearizer(policy).await.ok()?;
            Some(revision(linearizer.read_log_id().index()))
        };
        let trusting = by_lease || cfg!(quorate_mutant = "engine_confirms_reads");
        let confirmed = async { (trusting || self.confirm().await).then_some(()) };
        let (index, _confirmed) = tokio::time::timeout(
            timeout,
            futures_util::future::try_join(async { index.await.ok_or(()) }, async { confirmed.await.ok_or(()) }),
        )
        .await
        .ok()?
        .ok()?;
        Some(index)
    }

    pub(crate) async fn read_barrier(self: &Arc<Self>, timeout: Duration) -> Result<Revision, ReadError> {
        let give_up = Instant::now() + timeout;
        let stale = ReadError::MaybeStale { waited: timeout };
        let index = loop {
            if let Some(fatal) = self.stopped() {
                return Err(fatal.into());
            }
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(stale);
            }
            // A leader that hangs must not use all of the time up: another may be there soon.
            let once = left.min(self.config.election_max() * 2);
            let found = match self.leader() {
                Some(leader) if leader != self.node => self.peers.read_index(leader, once).await.ok(),
                Some(_) => self.read_index_here(left).await,
                None => None,
            };
            if let Some(index) = found {
                break index;
            }
            sleep(self.config.heartbeat() / 4).await;
        };
        let mut progress = self.machine.progress();
        let reached = timeout_at(give_up, progress.wait_for(|at| *at >= index)).await;
        if matches!(reached, Ok(Ok(_))) { Ok(index) } else { Err(stale) }
    }
}
