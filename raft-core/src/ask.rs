//! Requests that take effect at most once, and whose end is known.
//!
//! ```text
//!   ask ─▶ propose Request{nonce, since} ─▶ applied ─────────────────────────────▶ Done at its revision
//!               │                        └▶ rejected ────────────────────────────▶ Rejected: nothing changed
//!               └─ no answer: the outcome is unknown ─▶ propose Settle{request} ─┬▶ it had taken effect: Done
//!                                                                                └▶ it never will: ask anew
//! ```
//!
//! A retry never carries an old nonce, and a nonce that was settled takes no effect any more, however late a copy of it
//! comes; see [`quorate_membership::request`].

use std::sync::Arc;
use std::time::Duration;

use quorate_membership::{Command, Fate, Name, Nonce, Rejection, Request, Revision};
use tokio::time::Instant;

use crate::error::{Fatal, ProposeError};
use crate::folder::random;
use crate::inner::Inner;

impl Inner {
    /// A name for a request that begins now.
    pub(crate) fn request(&self) -> Result<Request, ProposeError> {
        let bits = random().map_err(|error| Fatal::Engine(error.to_string()))?;
        Ok(self.request_named(Nonce::new(bits)))
    }

    /// A request under a name that its asker drew.
    pub(crate) fn request_named(&self, nonce: Nonce) -> Request {
        Request { nonce, since: *self.machine.progress().borrow() }
    }

    /// Has `make`'s command take effect once, within `patience`. Returns the request that did, and where.
    ///
    /// # Errors
    /// Anything but [`ProposeError::OutcomeUnknown`] means that nothing changed. Unknown it stays only if no leader was
    /// there to settle it either.
    pub(crate) async fn ask_once(
        self: &Arc<Self>,
        patience: Duration,
        make: impl Fn(Request) -> Command,
    ) -> Result<(Request, Revision), ProposeError> {
        let give_up = Instant::now() + patience;
        loop {
            let request = self.request()?;
            let command = make(request);
            let lock = match &command {
                Command::Lock { name, .. } => Some(name.clone()),
                _ => None,
            };
            let left = give_up.saturating_duration_since(Instant::now());
            match self.propose(command, left).await {
                Ok(outcome) => return Ok((request, outcome.revision)),
                // It stood in line for too long; under a new name it is another request.
                Err(ProposeError::Rejected(Rejection::Outdated { .. })) if Instant::now() < give_up => {}
                Err(unknown @ ProposeError::OutcomeUnknown { .. }) => {
                    match self.settle(request, lock, give_up.max(Instant::now() + patience / 4)).await {
                        Some(Fate::Done(revision)) => return Ok((request, revision)),
                        Some(Fate::Void(_)) if Instant::now() < give_up => {}
                        Some(Fate::Void(_)) => return Err(ProposeError::NoLeader { waited: patience }),
                        None => return Err(unknown),
                    }
                }
                Err(other) => return Err(other),
            }
        }
    }

    /// What became of a request: after this it has taken effect or never will. `None` if that could not be found out.
    pub(crate) async fn settle(
        self: &Arc<Self>,
        request: Request,
        lock: Option<Name>,
        give_up: Instant,
    ) -> Option<Fate> {
        loop {
            let left = give_up.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            match self.propose(Command::Settle { request, lock: lock.clone() }, left).await {
                Ok(_) => return self.feed.state().store().answered().fate(request.nonce),
                Err(ProposeError::OutcomeUnknown { .. }) => tokio::time::sleep(self.config.heartbeat() / 4).await,
                Err(_) => return None,
            }
        }
    }
}
