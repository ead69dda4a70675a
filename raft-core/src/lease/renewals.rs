//! How renewals reach the grantor of the node that leads, and what others may know of it.
//!
//! ```text
//!   the wire, this node's renewer ──renew──▶ GrantorHandle ──▶ GrantorQueue ──▶ the grantor's task (leader/grantor.rs)
//!                                                │ activation: under which this node acts as leader, if it does
//!                                                └──────▶ reconciler, session table
//! ```

use quorate_membership::Activation;
use tokio::sync::{mpsc, oneshot, watch};

use crate::rpc::{RenewRefusal, Renewal, Renewed};

/// The maximum number of renewals that wait to be handled. Further ones are refused, and the member sends them again.
const QUEUE: usize = 8192;

/// One renewal, and the way back to the member that waits for the answer.
pub(crate) struct PendingRenewal {
    pub(crate) renewal: Renewal,
    pub(crate) answer: oneshot::Sender<Renewed>,
}

/// Sends renewals to the task. Clones reach the same task.
#[derive(Clone)]
pub(crate) struct GrantorHandle {
    /// Renewals on their way to the task, at most [`QUEUE`].
    renewals: mpsc::Sender<PendingRenewal>,
    activation: watch::Receiver<Option<Activation>>,
}

/// The task's end of the channels.
pub(crate) struct GrantorQueue {
    /// The renewals that wait, in the order of their arrival.
    pub(crate) renewals: mpsc::Receiver<PendingRenewal>,
    /// Publishes the activation of this leader; `None` while it does not lead.
    pub(crate) activation: watch::Sender<Option<Activation>>,
}

/// A handle, and the end that the task takes.
pub(crate) fn channel() -> (GrantorHandle, GrantorQueue) {
    let (sender, renewals) = mpsc::channel(QUEUE);
    let (activation, watched) = watch::channel(None);
    (GrantorHandle { renewals: sender, activation: watched }, GrantorQueue { renewals, activation })
}

impl GrantorHandle {
    /// Follows the activation under which this node acts as leader; `None` while it does not lead.
    pub(crate) fn activation(&self) -> watch::Receiver<Option<Activation>> {
        self.activation.clone()
    }

    /// Answers a renewal, once a read that began after this call has confirmed it.
    pub(crate) async fn renew(&self, renewal: Renewal) -> Renewed {
        let (answer, answered) = oneshot::channel();
        let refused = Renewed::Refused { refusal: RenewRefusal::NotConfirmed, leader: None };
        if self.renewals.try_send(PendingRenewal { renewal, answer }).is_err() {
            return refused;
        }
        answered.await.unwrap_or(refused)
    }
}
