//! Changes of Raft's own configuration: which nodes receive the log, and which of them vote.
//!
//! ```text
//!   VoterChange ─▶ only if no other change came in between ─▶ one entry, or two when votes move (joint, then final)
//! ```
//!
//! Raft changes its voters one step at a time. If this node dies between the two entries, the next leader finishes the
//! change.

use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use openraft::raft::Precondition;
use quorate_membership::NodeId;
use tokio::time::timeout;

use crate::engine::Engine;

/// One change of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VoterChange {
    /// Finish a change of voters that was begun.
    Finish,
    /// Send the log to the node, without giving it a vote.
    AddLearner(NodeId),
    /// Give the learner a vote.
    AddVoter(NodeId),
    /// Take the voter's vote. It still receives the log.
    Demote(NodeId),
    /// Take the node's vote, or stop sending it the log if it has none.
    Remove(NodeId),
}

/// Why a change was not made. If it had been proposed, it may still be committed.
#[derive(Debug, thiserror::Error)]
#[error("the voters were not changed: {0}")]
pub(crate) struct ChangeError(String);

impl Engine {
    /// Changes the voters, but only if no other change is committed after this call has read the configuration.
    ///
    /// # Errors
    /// [`ChangeError`]. The change may have been proposed, and then it may still be committed.
    pub(crate) async fn change_voters(&self, change: VoterChange) -> Result<(), ChangeError> {
        let is_voter = |node| self.state().configuration().is_voter(node);
        let ids = |node: NodeId| [node.get()].into();
        let (members, retain) = match change {
            VoterChange::Finish => (ChangeMembers::AddVoterIds(Default::default()), true),
            VoterChange::AddLearner(node) => (ChangeMembers::AddNodes([(node.get(), ())].into()), true),
            VoterChange::AddVoter(node) => (ChangeMembers::AddVoterIds(ids(node)), true),
            VoterChange::Demote(node) => (ChangeMembers::RemoveVoters(ids(node)), true),
            VoterChange::Remove(node) if is_voter(node) => (ChangeMembers::RemoveVoters(ids(node)), false),
            VoterChange::Remove(node) => (ChangeMembers::RemoveNodes(ids(node)), true),
        };
        let last_membership_log_id = *self.0.raft.metrics().borrow_watched().membership_config.log_id();
        let unchanged = Precondition::LastMembershipLogId { last_membership_log_id };
        let limit = self.0.config.propose_timeout;
        self.0.peers.receipts.note_voters();
        let changing = self.0.raft.change_membership_if(members, retain, [unchanged]);
        match timeout(limit, changing).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(ChangeError(error.to_string())),
            Err(_) => Err(ChangeError(format!("not committed within {limit:?}"))),
        }
    }

    /// Initialises Raft with this node as its only voter, and waits until it leads.
    ///
    /// # Errors
    /// [`ChangeError`] when it does not lead within `limit`. The call may be repeated.
    pub(crate) async fn found(&self, limit: Duration) -> Result<(), ChangeError> {
        let failed = |error: &dyn std::fmt::Display| ChangeError(error.to_string());
        if !self.0.raft.is_initialized().await.map_err(|e| failed(&e))? {
            let me = std::collections::BTreeSet::from([self.0.node.get()]);
            self.0.raft.initialize(me).await.map_err(|e| failed(&e))?;
        }
        let leads = self.0.raft.wait(Some(limit)).state(openraft::ServerState::Leader, "founder leads").await;
        if let Err(error) = leads {
            tracing::debug!(%error, "the founder did not become leader");
            return Err(ChangeError(format!(
                "the founder did not become leader within {limit:?}; bootstrap again with a longer timeout"
            )));
        }
        Ok(())
    }
}
