//! The messages that the keeper takes, and the handle to send them.
//!
//! ```text
//!   renewer   ── Begin, Granted, Again, Condemned, Close ──▶ KeeperHandle ──▶ keeper
//!   consumer  ── Protect, Stopped ─────────────────────────▶      │
//!   slow disk ── Unfit ────────────────────────────────────▶      │
//!   shutdown  ── Surrender ────────────────────────────────▶      └─ rings a bell, for a keeper that is a task
//! ```

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use quorate_membership::{Identity, Revision};
use tokio::sync::{Notify, oneshot};

use crate::lease::error::ProtectError;
use crate::rpc::Renewal;

/// What a bound child runs at the end of the lease.
pub(crate) type AtEnd = Box<dyn FnMut() + Send>;

/// A message to the keeper.
pub(crate) enum Message {
    /// This life may hold a lease from now on.
    Begin { who: Identity },
    /// A renewal was granted.
    Granted(Renewal),
    /// A renewal was not granted, or another leader is known: ask again.
    Again,
    /// The log shows that this life has ended or is being fenced.
    Condemned,
    /// This life is about to report that it has stopped, and must not hold a lease any more. The reply names what is still
    /// protected.
    Surrender { reply: oneshot::Sender<Vec<String>> },
    /// Why no work may be protected here yet; `None` once it may.
    Unfit(Option<String>),
    /// Work is about to begin.
    Protect {
        what: String,
        token: Revision,
        at_end: Option<AtEnd>,
        /// For the [`Offer`] that is the reply. The keeper itself has no handle: it ends with the last one.
        keeper: KeeperHandle,
        reply: oneshot::Sender<Result<Offer, ProtectError>>,
    },
    /// Work has stopped.
    Stopped { id: u64 },
    /// The node shuts down: no renewal any more.
    Close,
}

/// The keeper has ended.
#[derive(Debug)]
pub(crate) struct Closed;

/// Sends messages to the keeper.
#[derive(Clone)]
pub(crate) struct KeeperHandle {
    inbox: Sender<Message>,
    bell: Arc<Notify>,
}

impl KeeperHandle {
    /// A handle, and where its messages arrive.
    pub(crate) fn new() -> (Self, Receiver<Message>) {
        let (inbox, messages) = channel();
        (Self { inbox, bell: Arc::default() }, messages)
    }

    /// Rings for each message.
    pub(crate) fn bell(&self) -> Arc<Notify> {
        self.bell.clone()
    }

    pub(crate) fn send(&self, message: Message) -> Result<(), Closed> {
        self.inbox.send(message).map_err(|_| Closed)?;
        self.bell.notify_one();
        Ok(())
    }
}

/// Protection on its way to its consumer. The work has not begun: an offer that is dropped reports that it has stopped.
pub(crate) struct Offer {
    id: u64,
    keeper: Option<KeeperHandle>,
}

impl Offer {
    pub(crate) fn new(id: u64, keeper: KeeperHandle) -> Self {
        Self { id, keeper: Some(keeper) }
    }

    /// The number under which the work is protected. From here on the caller reports its end.
    pub(crate) fn take(mut self) -> u64 {
        self.keeper = None;
        self.id
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            // A keeper that has ended has nothing armed.
            let _keeper_gone = keeper.send(Message::Stopped { id: self.id });
        }
    }
}
