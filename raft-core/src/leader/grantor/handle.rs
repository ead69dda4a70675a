//! The channel from the callers to the grantor's task, and the activation that the task publishes.
//!
//! ```text
//!   GrantorHandle::renew ──renewal──▶ GrantorQueue ──▶ the task ──answer──▶ back to the caller
//!   GrantorHandle::activation ◀──watch── the task
//! ```

use quorate_membership::Activation;
use tokio::sync::{mpsc, oneshot, watch};

use crate::rpc::{RenewRefusal, Renewal, Renewed};

/// The maximum number of renewals that wait to be handled. Further ones are refused, and the member sends them again.
const QUEUE: usize = 8192;

/// One renewal, and the channel to the member that waits for the answer.
pub(super) struct PendingRenewal {
    pub(super) renewal: Renewal,
    pub(super) answer: oneshot::Sender<Renewed>,
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
    pub(super) renewals: mpsc::Receiver<PendingRenewal>,
    /// Publishes the activation of this leader; `None` while it does not lead.
    pub(super) activation: watch::Sender<Option<Activation>>,
}

/// A handle, and the queue that the task reads.
pub(crate) fn handle() -> (GrantorHandle, GrantorQueue) {
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
