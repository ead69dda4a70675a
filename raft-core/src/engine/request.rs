//! Requests that take effect at most once, and whose outcome is settled.
//!
//! ```text
//!   ask ─▶ propose Request{nonce, since} ─▶ applied ─────────────────────────────▶ Done at its revision
//!               │                        └▶ rejected ────────────────────────────▶ Rejected: nothing changed
//!               └─ no answer: the outcome is unknown ─▶ propose Settle{request} ─┬▶ it had taken effect: Done
//!                                                                                └▶ it never will: ask anew
//! ```
//!
//! A retry never reuses a nonce. A settled nonce takes no effect any more, however late a copy of its request arrives;
//! see [`quorate_membership::request`].
//!
//! A client may name its request ([`RequestName`]) and have copies of it under way that this node does not know. So
//! such a request is not retried under another name, and the rejection of one copy is reported only once no other copy
//! can take effect.

use std::time::Duration;

use quorate_membership::{Command, Fate, Nonce, Rejection, Request, Revision};
use tokio::time::Instant;

use crate::engine::Engine;
use crate::error::{Fatal, ProposeError};
use crate::host::random;
use crate::transport::RequestName;

impl Engine {
    /// A new request, with a random nonce. It counts as made now.
    ///
    /// # Errors
    /// [`ProposeError::Stopped`] when the system gives no randomness; nothing was proposed.
    pub(crate) fn request(&self) -> Result<Request, ProposeError> {
        let bits = random().map_err(|error| Fatal::Engine(error.to_string()))?;
        Ok(self.request_named(Nonce::new(bits)))
    }

    /// A request with a nonce that the client drew. It counts as made now.
    pub(crate) fn request_named(&self, nonce: Nonce) -> Request {
        Request { nonce, since: self.applied() }
    }

    /// Proposes the command that `make` builds so that it takes effect once, within `timeout`. Returns the request that
    /// took effect, and its revision.
    ///
    /// # Errors
    /// Any error but [`ProposeError::OutcomeUnknown`] means that nothing was changed. The outcome stays unknown only if
    /// no leader was found to settle it either.
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
                // It was under way for too long. Under a new nonce it is a new request.
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

    /// Proposes the command that `make` builds so that it takes effect once under the name that the client gave it,
    /// within `timeout`. Returns the request and the revision where it took effect, now or at an earlier attempt.
    ///
    /// # Errors
    /// [`ProposeError::Rejected`]: no copy has taken effect and none will; after [`Rejection::Outdated`] a copy may
    /// have taken effect before, but none will. Every other error concerns this copy alone.
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
                    None => return Err(unsettled("it took effect, but so long ago that its revision is forgotten")),
                },
                // This node stamped it, not the client, so this node may stamp it again.
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
                (None, ProposeError::Rejected(why)) => unsettled(&format!(
                    "one copy was refused ({why}), and no leader was found to rule out that another takes effect"
                )),
                (None, unknown) => unknown,
            });
        }
    }

    /// Waits until this node has applied `at` or `give_up` has passed. A request stamped before would be outdated
    /// again.
    pub(crate) async fn caught_up_with(&self, at: Revision, give_up: Instant) {
        let mut progress = self.progress();
        // The caller retries or gives up in either case.
        let _late = tokio::time::timeout_at(give_up, progress.wait_for(|applied| *applied >= at)).await.is_err();
    }

    /// The revision where a request took effect; `None` if it did not, or it is no longer remembered.
    fn done_at(&self, request: Request) -> Option<Revision> {
        match self.look(|state| state.store().answered().fate(request.nonce))? {
            Fate::Done(revision) => Some(revision),
            Fate::Void(_) => None,
        }
    }

    /// Settles a request: afterwards it has taken effect or never will. `None` if no leader settled it in time. If the
    /// request waits for a lock, it keeps its place in the queue.
    pub(crate) async fn settle(&self, request: Request, give_up: Instant) -> Option<Fate> {
        loop {
            let left = give_up.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            match self.propose(Command::Settle { request, lock: None }, left).await {
                Ok(_) => return self.look(|state| state.store().answered().fate(request.nonce)),
                Err(ProposeError::OutcomeUnknown { .. }) => tokio::time::sleep(self.0.config.heartbeat() / 4).await,
                Err(_) => return None,
            }
        }
    }
}

fn unsettled(reason: &str) -> ProposeError {
    ProposeError::OutcomeUnknown { reason: reason.into() }
}
