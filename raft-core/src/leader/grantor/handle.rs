//! The way to the grantor's task, and what it is at.

use std::sync::Mutex;

use quorate_membership::Activation;
use tokio::sync::{mpsc, oneshot, watch};

use crate::rpc::{RenewRefusal, Renewal, Renewed};

/// How many renewals may wait to be looked at. What comes beyond is refused, and asked again.
const QUEUE: usize = 8192;

/// One renewal, and who waits for the answer.
pub(crate) struct PendingRenewal {
    pub(crate) renewal: Renewal,
    pub(crate) answer: oneshot::Sender<Renewed>,
}

/// The way to the task, and what it is at.
pub(crate) struct GrantorHandle {
    asks: mpsc::Sender<PendingRenewal>,
    pub(crate) queue: Mutex<Option<mpsc::Receiver<PendingRenewal>>>,
    pub(crate) activation: watch::Sender<Option<Activation>>,
}

impl GrantorHandle {
    pub(crate) fn new() -> Self {
        let (asks, queue) = mpsc::channel(QUEUE);
        Self { asks, queue: Mutex::new(Some(queue)), activation: watch::Sender::new(None) }
    }

    /// The activation that this node acts under as leader, if it does.
    pub(crate) fn activation(&self) -> Option<Activation> {
        *self.activation.borrow()
    }

    /// Answers a renewal, once a read that was begun after this call has confirmed it.
    pub(crate) async fn renew(&self, renewal: Renewal) -> Renewed {
        let (answer, answered) = oneshot::channel();
        let refused = Renewed::Refused { refusal: RenewRefusal::NotConfirmed, leader: None };
        if self.asks.try_send(PendingRenewal { renewal, answer }).is_err() {
            return refused;
        }
        answered.await.unwrap_or(refused)
    }
}
