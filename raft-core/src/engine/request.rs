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
//!
//! A request that its asker named ([`RequestName`]) may have copies under way that this node knows nothing of. So it is not asked
//! anew under another name, and a rejection of this copy is told only once no other one can take effect any more.

use std::time::Duration;

use quorate_membership::{Command, Fate, Nonce, Rejection, Request, Revision};
use tokio::time::Instant;

use crate::engine::Engine;
use crate::error::{Fatal, ProposeError};
use crate::host::random;
use crate::transport::RequestName;

impl Engine {
    /// A name for a request that begins now.
    pub(crate) fn request(&self) -> Result<Request, ProposeError> {
        let bits = random().map_err(|error| Fatal::Engine(error.to_string()))?;
        Ok(self.request_named(Nonce::new(bits)))
    }

    /// A request under a name that its asker drew.
    pub(crate) fn request_named(&self, nonce: Nonce) -> Request {
        Request { nonce, since: self.applied() }
    }

    /// Has `make`'s command take effect once, within `timeout`. Returns the request that did, and where.
    ///
    /// # Errors
    /// Anything but [`ProposeError::OutcomeUnknown`] means that nothing changed. Unknown it stays only if no leader was
    /// there to settle it either.
    pub(crate) async fn ask_once(
        &self,
        timeout: Duration,
        make: impl Fn(Request) -> Command,
    ) -> Result<(Request, Revision), ProposeError> {
        let give_up = Instant::now() + timeout;
        loop {
            let request = self.request()?;
            let left = give_up.saturating_duration_since(Instant::now());
            match self.propose(make(request), left).await {
                Ok(outcome) => return Ok((request, self.done_at(request).unwrap_or(outcome.revision))),
                // It stood in line for too long; under a new name it is another request.
                Err(ProposeError::Rejected(Rejection::Outdated { at, .. })) if Instant::now() < give_up => {
                    self.caught_up_with(at, give_up).await;
                }
                Err(unknown @ ProposeError::OutcomeUnknown { .. }) => {
                    match self.settle(request, give_up.max(Instant::now() + timeout / 4)).await {
                        Some(Fate::Done(revision)) => return Ok((request, revision)),
                        Some(Fate::Void(_)) if Instant::now() < give_up => {}
                        Some(Fate::Void(_)) => return Err(ProposeError::NoLeader { waited: timeout }),
                        None => return Err(unknown),
                    }
                }
                Err(other) => return Err(other),
            }
        }
    }

    /// Has `make`'s command take effect once under the name that its asker gave it, within `timeout`. Returns the request,
    /// and where it took effect: now, or when it was asked for the first time.
    ///
    /// # Errors
    /// [`ProposeError::Rejected`]: no copy of it has taken effect, and none will; after [`Rejection::Outdated`] only the
    /// second is certain. The others say what they say of this copy alone.
    pub(crate) async fn ask_named(
        &self,
        named: RequestName,
        timeout: Duration,
        make: impl Fn(Request) -> Command,
    ) -> Result<(Request, Revision), ProposeError> {
        let give_up = Instant::now() + timeout;
        loop {
            let mut request = self.request_named(named.nonce);
            request.since = named.since.unwrap_or(request.since);
            let left = give_up.saturating_duration_since(Instant::now());
            let failed = match self.propose(make(request), left).await {
                Ok(_) => match self.done_at(request) {
                    Some(revision) => return Ok((request, revision)),
                    None => return Err(unsettled("it is not remembered any more where it took effect")),
                },
                // Stamped here, and not by its asker, it may be stamped anew.
                Err(ProposeError::Rejected(Rejection::Outdated { at, .. }))
                    if named.since.is_none() && Instant::now() < give_up =>
                {
                    self.caught_up_with(at, give_up).await;
                    continue;
                }
                Err(over @ ProposeError::Rejected(Rejection::Void(_) | Rejection::Outdated { .. })) => {
                    return Err(over);
                }
                Err(failed @ (ProposeError::Rejected(_) | ProposeError::OutcomeUnknown { .. })) => failed,
                Err(other) => return Err(other),
            };
            let settled = self.settle(request, give_up.max(Instant::now() + timeout / 4)).await;
            return Err(match (settled, failed) {
                (Some(Fate::Done(revision)), _) => return Ok((request, revision)),
                (Some(Fate::Void(_)), rejected @ ProposeError::Rejected(_)) => rejected,
                (Some(Fate::Void(_)), _) => Rejection::Void(request).into(),
                (None, ProposeError::Rejected(why)) => {
                    unsettled(&format!("one copy was refused ({why}), and no leader was found to rule out another"))
                }
                (None, unknown) => unknown,
            });
        }
    }

    /// Waits until this node has applied so much: what it asks for before would be as late again.
    pub(crate) async fn caught_up_with(&self, at: Revision, give_up: Instant) {
        let mut progress = self.progress();
        // Whether or not it comes so far in time, it is asked again, or given up.
        let _late = tokio::time::timeout_at(give_up, progress.wait_for(|applied| *applied >= at)).await.is_err();
    }

    /// Where a request took effect, as far as it did and is remembered.
    fn done_at(&self, request: Request) -> Option<Revision> {
        match self.state().store().answered().fate(request.nonce)? {
            Fate::Done(revision) => Some(revision),
            Fate::Void(_) => None,
        }
    }

    /// What became of a request: after this it has taken effect or never will. `None` if that could not be found out. A
    /// place in a line that it has is kept.
    pub(crate) async fn settle(&self, request: Request, give_up: Instant) -> Option<Fate> {
        loop {
            let left = give_up.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            match self.propose(Command::Settle { request, lock: None }, left).await {
                Ok(_) => return self.state().store().answered().fate(request.nonce),
                Err(ProposeError::OutcomeUnknown { .. }) => tokio::time::sleep(self.0.config.heartbeat() / 4).await,
                Err(_) => return None,
            }
        }
    }
}

fn unsettled(reason: &str) -> ProposeError {
    ProposeError::OutcomeUnknown { reason: reason.into() }
}
