//! What only an operator may say. One search for `dangerous` shows an auditor every place that does.

use quorate_membership::{Command, Confirmation, FenceId, Identity, Operator, ProvedEnd};
use quorate_raft_core::{Committed, Node, ProposeError, SucceedError};

/// Confirmations that rest on a person's word instead of a device's. A wrong word makes two owners: the name and the
/// reason are committed to the log, and kept in the fence history.
pub struct Dangerous<'a> {
    pub(crate) node: &'a Node,
}

impl Dangerous<'_> {
    /// Confirms an open fence order: the operator has made sure that `target` can do no more harm.
    ///
    /// # Errors
    /// [`ProposeError::Rejected`] when no order of that number is open, or it is against another life; nothing changed.
    pub async fn confirm(
        &self,
        order: FenceId,
        target: Identity,
        operator: Operator,
    ) -> Result<Committed, ProposeError> {
        let Operator { name, reason } = operator;
        let confirmation = Confirmation::Operator { name, reason };
        self.node.propose(Command::ConfirmFence { order, target, confirmation }).await
    }

    /// Vouches for the end of a life, whether or not an order is open: for a node that came back while nothing proves
    /// that its former life has ended, and for a cluster without a fencing device.
    ///
    /// # Errors
    /// [`ProposeError::Rejected`] when the life is over already, never worked, or is the newest of its node and the
    /// rest would not hold a majority; nothing changed.
    pub async fn vouch(&self, target: Identity, operator: Operator) -> Result<Committed, ProposeError> {
        let Operator { name, reason } = operator;
        self.node.propose(Command::Vouch { target, name, reason }).await
    }

    /// Says that the life that leads has ended, so that this node stands for election at once instead of waiting for
    /// its silence. It only shortens the election; the end itself is proved to the others by a fencer, by time, or by
    /// [`Self::vouch`] once somebody leads. A wrong word costs an election and no more.
    ///
    /// # Errors
    /// [`SucceedError`] when that life does not lead, or this node does not vote; nothing changed.
    pub async fn succeed(&self, dead: Identity, operator: Operator) -> Result<(), SucceedError> {
        self.node.succeed(&ProvedEnd::vouched(dead, operator)).await
    }
}
