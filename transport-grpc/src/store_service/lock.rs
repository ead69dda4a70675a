//! A client's wait for a lock. However the call ends, no request stays in line without a client that waits for it.
//!
//! ```text
//!   Lock ─▶ once ─▶ in line ──────────▶ granted ──────────────────────────▶ token
//!                     │ timeout     ──▶ Settle ─▶ out of the line ─────────▶ lock_timed_out
//!                     │                  └──────▶ granted in that moment ──▶ token
//!                     └ call cancelled ▶ Settle, until committed ─▶ granted meanwhile, and without a name ─▶ Unlock
//! ```
//!
//! A request with a name may have been answered by another node, unknown to this one. Its grant is not released here, or
//! a client would lose a lock that it knows it holds.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use parking_lot::Mutex;
use quorate_membership::{ClusterState, Command, Holder, Name, Nonce, Rejection, Request, Revision, SessionId, Topic};
use quorate_raft_core::transport::RequestName;
use quorate_raft_core::{ClientService, ClientServiceExt, Filter, ProposeError};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::convert;
use crate::grpc_errors::{command_failed, failed};
use crate::pb;
use crate::pb::failure::Kind;
use crate::store_service::TIMEOUT;

/// The pause before a withdrawal that was not committed is proposed again.
const RETRY: Duration = Duration::from_millis(500);

/// One client's request for a lock.
pub(super) struct LockWait {
    pub(super) service: Arc<dyn ClientService>,
    pub(super) stop: CancellationToken,
    pub(super) named: Option<RequestName>,
    pub(super) session: SessionId,
    pub(super) name: Name,
    pub(super) wait: Duration,
}

/// The state of the request in the log.
enum Standing {
    Granted(Revision),
    InLine,
    /// Neither granted nor in line: withdrawn, released, or never committed.
    Gone,
}

/// Why there is no token.
struct NotGranted {
    status: Status,
    /// Whether the request may still be in line, and has to be withdrawn.
    maybe_in_line: bool,
}

impl NotGranted {
    fn finally(status: Status) -> Self {
        Self { status, maybe_in_line: false }
    }
}

/// The request that was proposed last.
type LastRequest = Arc<Mutex<Option<Request>>>;

impl LockWait {
    /// Waits for the lock. May be dropped at any time: a task of its own then withdraws the request.
    pub(super) async fn lock(self) -> Result<Revision, Status> {
        let (answer, answered) = oneshot::channel();
        tokio::spawn(self.run(answer));
        answered.await.unwrap_or_else(|_| Err(Status::unavailable("this node is stopping; ask another one")))
    }

    async fn run(self, mut client: oneshot::Sender<Result<Revision, Status>>) {
        let asked = LastRequest::default();
        let answer = tokio::select! {
            answer = self.answer(&asked) => Some(answer),
            () = client.closed() => None,
        };
        let unwanted = match answer {
            Some(Ok(token)) => client.send(Ok(token)).is_err(),
            Some(Err(NotGranted { status, maybe_in_line })) => {
                let _gone = client.send(Err(status));
                maybe_in_line
            }
            None => true,
        };
        if unwanted {
            let asked = *asked.lock();
            if let Some(request) = asked {
                self.clean_up(request).await;
            }
        }
    }

    /// Proposes the request, and waits until it is granted or the timeout. `asked` keeps the request that was proposed last.
    async fn answer(&self, asked: &LastRequest) -> Result<Revision, NotGranted> {
        let begun = Instant::now();
        let (name, holder, wait) = (self.name.clone(), Holder::Session(self.session), !self.wait.is_zero());
        let note = asked.clone();
        let make = move |request: Request| {
            // A request of zeros is not proposed, only looked at.
            if request.nonce != Nonce::default() {
                *note.lock() = Some(request);
            }
            Command::Lock { request, name: name.clone(), holder, wait }
        };
        let (request, _) = self.service.once(self.named, Box::new(make)).await.map_err(|error| {
            let maybe_in_line = matches!(error, ProposeError::OutcomeUnknown { .. });
            NotGranted { status: command_failed(&error), maybe_in_line }
        })?;
        let timeout = sleep_until(begun + self.wait);
        tokio::pin!(timeout);
        let (mut standing, at) =
            self.service.looked(|state| (self.standing_in(state, request.nonce), state.revision()));
        let mut events = None;
        loop {
            match standing {
                Standing::Granted(token) => return Ok(token),
                Standing::Gone => return Err(NotGranted::finally(self.request_gone())),
                Standing::InLine => {}
            }
            // Events since the first look at the state, so that none is missed between the two.
            let events = events.get_or_insert_with(|| {
                let filter = Filter::all().topics([Topic::Locks, Topic::Sessions]).prefix(self.name.as_str());
                self.service.events_since(at, filter)
            });
            tokio::select! {
                item = events.next() => if item.is_none() {
                    return Err(NotGranted { status: Status::unavailable("this node has stopped; ask another one"), maybe_in_line: true });
                },
                () = &mut timeout => break,
                () = self.stop.cancelled() => break,
            }
            standing = self.standing(request.nonce);
        }
        let settled = self.propose(self.settle(request)).await;
        match (settled, self.standing(request.nonce)) {
            (_, Standing::Granted(token)) => Ok(token),
            (_, Standing::Gone) if !self.is_open() => Err(NotGranted::finally(self.request_gone())),
            (Ok(()), _) | (_, Standing::Gone) => Err(NotGranted::finally(self.timed_out(begun.elapsed()))),
            (Err(error), Standing::InLine) => {
                let reason = format!("no leader has withdrawn the request for lock `{}` yet: {error}", self.name);
                let status = command_failed(&ProposeError::OutcomeUnknown { reason });
                Err(NotGranted { status, maybe_in_line: true })
            }
        }
    }

    fn is_open(&self) -> bool {
        self.service.looked(|state| state.may_hold(Holder::Session(self.session)))
    }

    fn standing(&self, request: Nonce) -> Standing {
        self.service.looked(|state| self.standing_in(state, request))
    }

    fn standing_in(&self, state: &ClusterState, request: Nonce) -> Standing {
        let Some(lock) = state.store().lock(&self.name) else { return Standing::Gone };
        // The nonce alone does not suffice: another session could have drawn the same one.
        let own = |holder, asked| holder == Holder::Session(self.session) && asked == request;
        match lock.grant {
            Some(grant) if own(grant.holder, grant.request) => Standing::Granted(grant.token),
            _ if lock.waiters().any(|waiter| own(waiter.holder, waiter.request)) => Standing::InLine,
            _ => Standing::Gone,
        }
    }

    /// Whether another holder has made the request of this name: it is not this client's to withdraw.
    fn is_of_another(&self, state: &ClusterState, request: Nonce) -> bool {
        let Some(lock) = state.store().lock(&self.name) else { return false };
        let other = |holder, asked| asked == request && holder != Holder::Session(self.session);
        lock.grant.is_some_and(|grant| other(grant.holder, grant.request))
            || lock.waiters().any(|waiter| other(waiter.holder, waiter.request))
    }

    /// The error for a request that took effect, and is neither granted nor in line any more.
    fn request_gone(&self) -> Status {
        if !self.is_open() {
            return command_failed(&Rejection::MayNotHold(Holder::Session(self.session)).into());
        }
        let text =
            format!("the request for lock `{}` was withdrawn, or its grant has ended; make a new one", self.name);
        failed(Code::FailedPrecondition, &text, Kind::LockRequestOver(pb::Done {}))
    }

    fn timed_out(&self, waited: Duration) -> Status {
        let grant = self.service.looked(|state| state.store().lock(&self.name).and_then(|lock| lock.grant));
        let now = grant.map_or_else(|| "it is free now".into(), |grant| format!("{} holds it", grant.holder));
        let text = format!("lock `{}` was not granted within {waited:.1?}; {now}", self.name);
        let timed_out = pb::LockTimedOut {
            name: self.name.to_string(),
            waited_ms: convert::millis(waited),
            holder: grant.map(|grant| grant.holder.into()),
            token: grant.map(|grant| grant.token.get()),
        };
        failed(Code::DeadlineExceeded, &text, Kind::LockTimedOut(timed_out))
    }

    fn settle(&self, request: Request) -> Command {
        Command::Settle { request, lock: Some(self.name.clone()) }
    }

    /// Has a command committed. If the rules reject it, there is nothing left to change.
    async fn propose(&self, command: Command) -> Result<(), ProposeError> {
        match self.service.command(command).await {
            Ok(_) | Err(ProposeError::Rejected(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Proposes a command until it is committed, the session has ended, or the node has stopped.
    async fn propose_until_committed(&self, command: Command) {
        loop {
            match self.propose(command.clone()).await {
                Ok(()) | Err(ProposeError::Stopped(_) | ProposeError::Refused(_) | ProposeError::Encoding(_)) => return,
                Err(error) => tracing::debug!(lock = %self.name, session = %self.session, %error, "will propose again"),
            }
            if !self.is_open() {
                return;
            }
            sleep(RETRY).await;
        }
    }

    /// Withdraws a request without a client that waits for it, and releases what it was granted meanwhile.
    async fn clean_up(&self, request: Request) {
        if self.named.is_some() {
            // A name may be another's, whose request this node has perhaps not applied yet.
            while let Err(error) = self.service.read_barrier(TIMEOUT).await {
                tracing::debug!(lock = %self.name, session = %self.session, %error, "will look again whose request it is");
                if !self.is_open() || self.stop.is_cancelled() {
                    return;
                }
                sleep(RETRY).await;
            }
            if self.service.looked(|state| self.is_of_another(state, request.nonce)) {
                return;
            }
        }
        self.propose_until_committed(self.settle(request)).await;
        if let (None, Standing::Granted(token)) = (self.named, self.standing(request.nonce)) {
            let holder = Holder::Session(self.session);
            self.propose_until_committed(Command::Unlock { name: self.name.clone(), holder, token }).await;
        }
    }
}
