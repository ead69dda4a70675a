//! Operations that rest on an operator's word instead of a proof. Search a program for `dangerous` to audit their use.

use quorate_membership::{Command, Confirmation, FenceId, Identity, Operator, ProvedEnd};
use quorate_raft_core::{Committed, Node, ProposeError, SucceedError};

/// Operations that rest on an operator's word instead of a device's. A wrong word can give one piece of work two
/// owners. The operator's name and reason are committed to the log and kept in the fence history.
///
/// Obtained from [`Cluster::dangerous`](crate::Cluster::dangerous).
///
/// ```no_run
/// # async fn example(cluster: &quorate::Cluster) -> Result<(), Box<dyn std::error::Error>> {
/// use quorate::Operator;
///
/// let alice = Operator::new("alice", "pulled the power cords of n3 and checked that it is off")?;
/// cluster.dangerous().vouch("n3#1".parse()?, alice).await?;
/// # Ok(())
/// # }
/// ```
pub struct Dangerous<'a> {
    pub(crate) node: &'a Node,
}

impl Dangerous<'_> {
    /// Confirms an open fence order. The operator has made sure that nothing of `target` runs any more. Other nodes may
    /// take its work over at once.
    ///
    /// # Errors
    /// [`ProposeError::Rejected`] when the order is not open, or is against another life; nothing was changed. See
    /// [`ProposeError`] for the rest.
    pub async fn confirm(
        &self,
        order: FenceId,
        target: Identity,
        operator: Operator,
    ) -> Result<Committed, ProposeError> {
        let Operator { name, reason } = operator;
        let confirmation = Confirmation::Operator { name, reason, by: None };
        self.node.propose(Command::ConfirmFence { order, target, confirmation }).await
    }

    /// Vouches for the end of a life, whether or not a fence order is open. Use it for a node that came back while
    /// nothing proves the end of its former life, and in a cluster without a fencing device. Other nodes may take the
    /// work of `target` over at once.
    ///
    /// # Errors
    /// [`ProposeError::Rejected`] when the life has already ended, was never active, or is the newest of its node and
    /// the remaining nodes would have no majority; nothing was changed. See [`ProposeError`] for the rest.
    pub async fn vouch(&self, target: Identity, operator: Operator) -> Result<Committed, ProposeError> {
        let Operator { name, reason } = operator;
        self.node.propose(Command::Vouch { target, name, reason, by: None }).await
    }

    /// Makes this node stand for election at once, because the leader `dead` has ended, instead of waiting until its
    /// silence triggers an election. This only shortens the election. It proves nothing: the end of `dead` still needs
    /// a fencer, time, or [`Self::vouch`] once another node leads. If the leader is in fact alive, the cost is one
    /// election.
    ///
    /// # Errors
    /// [`SucceedError`] when `dead` does not lead, or this node cannot stand for election; nothing was changed.
    pub async fn succeed(&self, dead: Identity, operator: Operator) -> Result<(), SucceedError> {
        self.node.succeed(&ProvedEnd::vouched(dead, operator)).await
    }
}
