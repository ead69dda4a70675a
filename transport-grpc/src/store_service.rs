//! The gRPC service Store: locks, records, queues and events for clients that are not members.
//!
//! ```text
//!   OpenSession, Write, Take ──▶ ClientService::once: takes effect exactly once, however often it is repeated
//!   Lock                     ──▶ the same, and then waits in line (lock.rs)
//!   Get, List, GetLock       ──▶ the state of this node, after a read barrier if the request asks for one
//!   Calls                    ──▶ all of the above, many on one stream (calls.rs)
//!   Watch                    ──▶ events; missing ones as a gap, its parts, and its end (watch.rs)
//!   each that names a session──▶ only by the owner of the session (ownership.rs)
//! ```

mod calls;
mod lock;
mod ownership;
mod watch;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt};
use prost::Message;
use quorate_membership::work_queue::Taken;
use quorate_membership::{Change, Check, Command, Holder, ItemId, Name, Nonce, Rejection, Revision, SessionId};
use quorate_raft_core::MakeCommand;
use quorate_raft_core::rpc::KeptAlive;
use quorate_raft_core::{ClientService, ClientServiceExt, ProposeError};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming};

use self::lock::LockWait;
use self::ownership::not_reserved;
use self::watch::Subscription;
use crate::convert::{self, FromWire, Malformed};
use crate::grpc_errors::{command_failed, failed, read_failed, refused};
use crate::pb;
use crate::pb::failure::Kind;
use crate::pb::store_server::Store;
use crate::settings::ServerSettings;
use crate::standing::with_standing;
use crate::tls::CallerRole;

/// How long a call without its own timeout looks for a leader that a quorum confirms.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The size at which an answer to List, or a part of a gap, is full, in bytes. The last item, of at most 65 KiB, may exceed
/// it.
const PAGE: usize = 900 << 10;

/// The most that an item of a repeated field takes beside itself, in bytes: its tag and its length.
const FRAME: usize = 6;

#[derive(Clone)]
pub(crate) struct StoreService {
    service: Arc<dyn ClientService>,
    max_lock_wait: Duration,
    /// How long a call of a stream may take, but for its wait for a lock.
    call_timeout: Duration,
    /// How many calls of one stream may be in progress.
    max_calls: usize,
    /// Whose certificate the connection has shown; `None` without TLS.
    role: Option<CallerRole>,
    stop: CancellationToken,
}

/// A request that cannot be understood.
fn invalid(malformed: Malformed) -> Status {
    refused(&malformed.into())
}

fn decode_all<P, T: FromWire<P>>(messages: Vec<P>) -> Result<Vec<T>, Status> {
    messages.into_iter().map(T::from_wire).collect::<Result<_, _>>().map_err(invalid)
}

impl StoreService {
    pub(crate) fn new(service: Arc<dyn ClientService>, settings: ServerSettings, stop: CancellationToken) -> Self {
        let ServerSettings { max_lock_wait, call_timeout, max_streams, .. } = settings;
        Self {
            service,
            max_lock_wait,
            call_timeout,
            max_calls: usize::try_from(max_streams).unwrap_or(usize::MAX),
            role: None,
            stop,
        }
    }

    /// The service of one connection, whose caller is this one.
    pub(crate) fn of(&self, role: Option<CallerRole>) -> Self {
        Self { role, ..self.clone() }
    }

    async fn once(&self, name: Option<pb::RequestName>, make: MakeCommand) -> Result<(Nonce, Revision), Status> {
        let named = convert::named(name).map_err(invalid)?;
        let done = self.service.once(named, make).await.map_err(|error| command_failed(&error))?;
        Ok((done.0.nonce, done.1))
    }

    async fn command(&self, command: Command) -> Result<Response<pb::CommandResponse>, Status> {
        let outcome = self.service.command(command).await.map_err(|error| command_failed(&error))?;
        Ok(Response::new(pb::CommandResponse { revision: outcome.revision.get() }))
    }

    /// Waits until the state here may be read from.
    async fn readable(&self, reading: Option<pb::Reading>) -> Result<(), Status> {
        let pb::Reading { linearizable, timeout_ms } = reading.unwrap_or_default();
        if linearizable {
            let timeout = if timeout_ms == 0 { TIMEOUT } else { Duration::from_millis(timeout_ms) };
            self.service.read_barrier(timeout).await.map_err(|error| read_failed(&error))?;
        }
        Ok(())
    }

    /// The items of a queue that an earlier holder took. Exact once the grant of `token` is applied here, because no other
    /// holder takes anything after it; `None` if that does not happen in time.
    async fn taken_before(&self, queue: &Name, token: Revision) -> Option<BTreeSet<ItemId>> {
        let mut applied = self.service.applied();
        timeout(TIMEOUT, applied.wait_for(|at| *at >= token)).await.ok()?.ok()?;
        let state = self.service.view().cluster;
        Some(state.store().queue(queue).filter(|(_, item)| item.taken.is_some()).map(|(id, _)| id).collect())
    }
}

#[tonic::async_trait]
impl Store for StoreService {
    type WatchStream = BoxStream<'static, Result<pb::WatchResponse, Status>>;
    type CallsStream = BoxStream<'static, Result<pb::CallsResponse, Status>>;

    async fn calls(
        &self,
        request: Request<Streaming<pb::CallsRequest>>,
    ) -> Result<Response<Self::CallsStream>, Status> {
        Ok(Response::new(calls::answers(self, request.into_inner())))
    }

    async fn open_session(
        &self,
        request: Request<pb::OpenSessionRequest>,
    ) -> Result<Response<pb::OpenSessionResponse>, Status> {
        let pb::OpenSessionRequest { name, ttl_ms, lock_delay_ms, label } = request.into_inner();
        let session = convert::session(ttl_ms, lock_delay_ms, label, self.owner()?).map_err(invalid)?;
        let make = move |request| Command::OpenSession { request, session: session.clone() };
        let (_, revision) = self.once(name, Box::new(make)).await?;
        Ok(Response::new(pb::OpenSessionResponse { session: revision.get() }))
    }

    async fn keep_alive(
        &self,
        request: Request<pb::KeepAliveRequest>,
    ) -> Result<Response<pb::KeepAliveResponse>, Status> {
        use pb::keep_alive_response::Result as Out;
        let session = SessionId::new(request.into_inner().session);
        self.may_use(session).await?;
        let result = match self.service.keep_session(session, TIMEOUT).await {
            KeptAlive::Alive { ttl } => Out::AliveTtlMs(convert::millis(ttl)),
            KeptAlive::Ended => Out::Ended(pb::Done {}),
            KeptAlive::NotLeader { leader } => {
                let seen = leader.map_or_else(|| "none is known here".into(), |leader| format!("{leader} may lead"));
                let text = format!("no leader confirmed within {TIMEOUT:?} that {session} is open ({seen}); ask again");
                return Err(failed(Code::Unavailable, &text, Kind::NoLeaderMs(convert::millis(TIMEOUT))));
            }
        };
        Ok(Response::new(pb::KeepAliveResponse { result: Some(result) }))
    }

    async fn close_session(
        &self,
        request: Request<pb::CloseSessionRequest>,
    ) -> Result<Response<pb::CommandResponse>, Status> {
        let session = SessionId::new(request.into_inner().session);
        self.may_use(session).await?;
        self.command(Command::CloseSession { session }).await
    }

    async fn lock(&self, request: Request<pb::LockRequest>) -> Result<Response<pb::LockResponse>, Status> {
        let pb::LockRequest { request: named, session, name, wait_ms } = request.into_inner();
        self.may_use(SessionId::new(session)).await?;
        let waiting = LockWait {
            service: self.service.clone(),
            stop: self.stop.clone(),
            named: convert::named(named).map_err(invalid)?,
            session: SessionId::new(session),
            name: convert::name(name).map_err(invalid)?,
            wait: Duration::from_millis(wait_ms).min(self.max_lock_wait),
        };
        let token = waiting.lock().await?;
        Ok(Response::new(pb::LockResponse { token: token.get() }))
    }

    async fn unlock(&self, request: Request<pb::UnlockRequest>) -> Result<Response<pb::CommandResponse>, Status> {
        let pb::UnlockRequest { session, name, token } = request.into_inner();
        self.may_use(SessionId::new(session)).await?;
        let (name, holder) = (convert::name(name).map_err(invalid)?, Holder::Session(SessionId::new(session)));
        self.command(Command::Unlock { name, holder, token: Revision::new(token) }).await
    }

    async fn get_lock(&self, request: Request<pb::GetLockRequest>) -> Result<Response<pb::GetLockResponse>, Status> {
        let pb::GetLockRequest { name, reading } = request.into_inner();
        let name = convert::name(name).map_err(invalid)?;
        self.readable(reading).await?;
        Ok(Response::new(self.service.looked(|state| {
            let lock = Some(convert::lock(&name, state.store().lock(&name)));
            pb::GetLockResponse { lock, at: state.revision().get() }
        })))
    }

    async fn write(&self, request: Request<pb::WriteRequest>) -> Result<Response<pb::WriteResponse>, Status> {
        let pb::WriteRequest { name, checks, changes } = request.into_inner();
        let (checks, changes): (Vec<Check>, Vec<Change>) = (decode_all(checks)?, decode_all(changes)?);
        not_reserved(&changes)?;
        self.may_change(&changes).await?;
        let make = move |request| Command::Write { request, checks: checks.clone(), changes: changes.clone() };
        let (_, revision) = self.once(name, Box::new(make)).await?;
        Ok(Response::new(pb::WriteResponse { revision: revision.get() }))
    }

    async fn get(&self, request: Request<pb::GetRequest>) -> Result<Response<pb::GetResponse>, Status> {
        let pb::GetRequest { key, reading } = request.into_inner();
        let key = convert::key(key).map_err(invalid)?;
        self.readable(reading).await?;
        Ok(Response::new(self.service.looked(|state| {
            let record = state.store().record(&key).map(|record| convert::record(&key, record));
            pb::GetResponse { record, at: state.revision().get() }
        })))
    }

    async fn list(&self, request: Request<pb::ListRequest>) -> Result<Response<pb::ListResponse>, Status> {
        let pb::ListRequest { prefix, reading, limit, after_key } = request.into_inner();
        self.readable(reading).await?;
        let state = self.service.view().cluster;
        let limit = usize::try_from(limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let mut page = pb::ListResponse { at: state.revision().get(), ..pb::ListResponse::default() };
        let mut room = PAGE;
        for (key, record) in state.store().records(&prefix).skip_while(|(key, _)| *key.as_str() <= *after_key) {
            if page.records.len() >= limit || room == 0 {
                page.more = true;
                break;
            }
            let record = convert::record(key, record);
            room = room.saturating_sub(record.encoded_len() + FRAME);
            page.records.push(record);
        }
        Ok(Response::new(page))
    }

    async fn take(&self, request: Request<pb::TakeRequest>) -> Result<Response<pb::TakeResponse>, Status> {
        use pb::take_response::Result as Out;
        let pb::TakeRequest { name, queue, token } = request.into_inner();
        let named = convert::named(name).map_err(invalid)?;
        let (queue, token) = (convert::name(queue).map_err(invalid)?, Revision::new(token));
        let before = self.taken_before(&queue, token).await;
        self.may_act_under(&queue, token).await?;
        let make = {
            let queue = queue.clone();
            move |request| Command::Take { request, queue: queue.clone(), token }
        };
        let nonce = match self.service.once(named, Box::new(make)).await {
            Ok((request, _)) => request.nonce,
            Err(ProposeError::Rejected(Rejection::QueueEmpty(_))) => {
                return Ok(Response::new(pb::TakeResponse { result: Some(Out::Empty(pb::Done {})) }));
            }
            Err(error) => return Err(command_failed(&error)),
        };
        let state = self.service.view().cluster;
        let store = state.store();
        let by_it = |taken: Taken| taken.request == nonce && taken.token == token;
        let took = store.queue(&queue).find(|(_, item)| item.taken.is_some_and(by_it));
        let result = match took {
            Some((id, item)) => {
                let again = before.is_none_or(|before| before.contains(&id));
                Out::Item(convert::queued(&queue, id, item, again))
            }
            None if store.holds(&queue, token) => Out::Acknowledged(pb::Done {}),
            // The item has passed on to the next holder, or will.
            None => {
                let current = store.lock(&queue).and_then(|lock| lock.grant).map(|grant| grant.token);
                return Err(command_failed(&Rejection::NotHolder { name: queue, token, current }.into()));
            }
        };
        Ok(Response::new(pb::TakeResponse { result: Some(result) }))
    }

    async fn watch(&self, request: Request<pb::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let subscription = Arc::new(Subscription::from_wire(request.into_inner()).map_err(invalid)?);
        let events = self.service.events_since(subscription.after, subscription.filter());
        let messages = events.flat_map(move |item| stream::iter(watch::messages(&subscription, &item)));
        let messages = with_standing(self.service.clone(), messages, |standing| {
            Ok(pb::WatchResponse { item: Some(pb::watch_response::Item::Standing(standing)) })
        });
        Ok(Response::new(messages.take_until(self.stop.clone().cancelled_owned()).boxed()))
    }
}
