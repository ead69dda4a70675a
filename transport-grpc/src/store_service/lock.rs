//! A client's wait for a lock. Whatever becomes of the call, nothing stays in line that nobody waits for.
//!
//! ```text
//!   Lock ─▶ once ─▶ in line ──────────▶ granted ──────────────────────────▶ token
//!                     │ time is up  ──▶ Settle ─▶ out of the line ─────────▶ lock_timed_out
//!                     │                  └──────▶ granted in that moment ──▶ token
//!                     └ the call is gone ▶ Settle, again and again ─▶ granted meanwhile, and without a name ─▶ Unlock
//! ```
//!
//! A request with a name may have been answered by another node, which this one does not hear of: what it was granted is
//! not given back here, or a client would lose a lock that it was told it has.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use parking_lot::Mutex;
use quorate_membership::{Command, Holder, Name, Nonce, Rejection, Request, Revision, SessionId, Topic};
use quorate_raft_core::transport::RequestName;
use quorate_raft_core::{ClientService, Filter, ProposeError};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::convert;
use crate::pb;
use crate::pb::failure::Kind;
use crate::status::{command_failed, failed};

/// How long to wait before a withdrawal that did not get through is said again.
const AGAIN: Duration = Duration::from_millis(500);

/// One client's wish for a lock.
pub(super) struct Waiting {
    pub(super) service: Arc<dyn ClientService>,
    pub(super) stop: CancellationToken,
    pub(super) named: Option<RequestName>,
    pub(super) session: SessionId,
    pub(super) name: Name,
    pub(super) wait: Duration,
}

/// Where the log has the request.
enum Standing {
    Granted(Revision),
    InLine,
    Over,
}

/// Why there is no token, and whether something may still stand in line.
struct Unmet {
    status: Status,
    loose: bool,
}

impl Unmet {
    fn for_good(status: Status) -> Self {
        Self { status, loose: false }
    }
}

type Asked = Arc<Mutex<Option<Request>>>;

impl Waiting {
    /// Waits for the lock. Dropped at any moment, it is tidied up behind it.
    pub(super) async fn lock(self) -> Result<Revision, Status> {
        let (tell, told) = oneshot::channel();
        tokio::spawn(self.run(tell));
        told.await.unwrap_or_else(|_| Err(Status::unavailable("this node is stopping; ask another one")))
    }

    async fn run(self, mut tell: oneshot::Sender<Result<Revision, Status>>) {
        let asked = Asked::default();
        let answer = tokio::select! {
            answer = self.answer(&asked) => Some(answer),
            () = tell.closed() => None,
        };
        let unwanted = match answer {
            Some(Ok(token)) => tell.send(Ok(token)).is_err(),
            Some(Err(Unmet { status, loose })) => {
                let _gone = tell.send(Err(status));
                loose
            }
            None => true,
        };
        if unwanted {
            let asked = *asked.lock();
            if let Some(request) = asked {
                self.tidy(request).await;
            }
        }
    }

    /// Asks, and waits until it is granted or the time is up. What was asked for last stands in `asked`.
    async fn answer(&self, asked: &Asked) -> Result<Revision, Unmet> {
        let begun = Instant::now();
        let (name, holder, wait) = (self.name.clone(), Holder::Session(self.session), !self.wait.is_zero());
        let note = asked.clone();
        let make = move |request: Request| {
            // Of zeros it is only to be looked at.
            if request.nonce != Nonce::default() {
                *note.lock() = Some(request);
            }
            Command::Lock { request, name: name.clone(), holder, wait }
        };
        let (request, _) = self.service.once(self.named, Box::new(make)).await.map_err(|error| {
            let loose = matches!(error, ProposeError::OutcomeUnknown { .. });
            Unmet { status: command_failed(&error), loose }
        })?;
        let time_is_up = sleep_until(begun + self.wait);
        tokio::pin!(time_is_up);
        // From before the first look, so that nothing passes between the two.
        let filter = Filter::all().topics([Topic::Locks, Topic::Sessions]).prefix(self.name.as_str());
        let mut news = self.service.events_since(self.service.view().cluster.revision(), filter);
        loop {
            match self.standing(request.nonce) {
                Standing::Granted(token) => return Ok(token),
                Standing::Over => return Err(Unmet::for_good(self.over())),
                Standing::InLine => {}
            }
            tokio::select! {
                item = news.next() => if item.is_none() {
                    return Err(Unmet { status: Status::unavailable("this node has stopped; ask another one"), loose: true });
                },
                () = &mut time_is_up => break,
                () = self.stop.cancelled() => break,
            }
        }
        let settled = self.say(self.settle(request)).await;
        match (settled, self.standing(request.nonce)) {
            (_, Standing::Granted(token)) => Ok(token),
            (_, Standing::Over) if !self.is_open() => Err(Unmet::for_good(self.over())),
            (Ok(()), _) | (_, Standing::Over) => Err(Unmet::for_good(self.timed_out(begun.elapsed()))),
            (Err(error), Standing::InLine) => {
                let reason = format!("no leader took the request for `{}` out of the line yet: {error}", self.name);
                let status = command_failed(&ProposeError::OutcomeUnknown { reason });
                Err(Unmet { status, loose: true })
            }
        }
    }

    fn is_open(&self) -> bool {
        self.service.view().cluster.may_hold(Holder::Session(self.session))
    }

    fn standing(&self, request: Nonce) -> Standing {
        let state = self.service.view().cluster;
        let Some(lock) = state.store().lock(&self.name) else { return Standing::Over };
        // A nonce that is somebody else's is not taken for theirs.
        let own = |holder, asked| holder == Holder::Session(self.session) && asked == request;
        match lock.grant {
            Some(grant) if own(grant.holder, grant.request) => Standing::Granted(grant.token),
            _ if lock.waiters.iter().any(|waiter| own(waiter.holder, waiter.request)) => Standing::InLine,
            _ => Standing::Over,
        }
    }

    /// Why a request that took effect neither waits nor holds.
    fn over(&self) -> Status {
        if !self.is_open() {
            return command_failed(&Rejection::MayNotHold(Holder::Session(self.session)).into());
        }
        let text = format!("the request for lock `{}` is over; make a new one", self.name);
        failed(Code::FailedPrecondition, &text, Kind::LockRequestOver(pb::Done {}))
    }

    fn timed_out(&self, waited: Duration) -> Status {
        let state = self.service.view().cluster;
        let grant = state.store().lock(&self.name).and_then(|lock| lock.grant);
        let now = grant.map_or_else(|| "nobody holds it now".into(), |grant| format!("{} holds it", grant.holder));
        let text = format!("lock `{}` was not had within {waited:.1?}; {now}", self.name);
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

    /// Has a command committed. One that the rules refuse has nothing to change any more.
    async fn say(&self, command: Command) -> Result<(), ProposeError> {
        match self.service.command(command).await {
            Ok(_) | Err(ProposeError::Rejected(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Says something until it is committed, the session has ended, or the node has stopped.
    async fn insist(&self, command: Command) {
        loop {
            match self.say(command.clone()).await {
                Ok(()) | Err(ProposeError::Stopped(_) | ProposeError::Refused(_) | ProposeError::Encoding(_)) => return,
                Err(error) => tracing::debug!(lock = %self.name, session = %self.session, %error, "said again"),
            }
            if !self.is_open() {
                return;
            }
            sleep(AGAIN).await;
        }
    }

    /// Leaves nothing behind of a request that nobody waits for.
    async fn tidy(&self, request: Request) {
        self.insist(self.settle(request)).await;
        if let (None, Standing::Granted(token)) = (self.named, self.standing(request.nonce)) {
            let holder = Holder::Session(self.session);
            self.insist(Command::Unlock { name: self.name.clone(), holder, token }).await;
        }
    }
}
