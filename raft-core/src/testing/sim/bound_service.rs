//! A service that runs on the simulated machine it belongs to, whoever calls it: with its clocks, and only while its
//! process is awake and alive.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, Stream, StreamExt};
use quorate_membership::{ClusterState, Command, NodeId, Request, Revision, SessionId};

use super::host::SimHost;
use crate::client_service::{ClientService, MakeCommand, Service};
use crate::error::{HandOverError, ProposeError, ReadError, Refusal};
use crate::feed::{FeedItem, Filter};
use crate::rpc::Committed;
use crate::rpc::{Answer, Append, Call, Caller, KeptAlive, StreamAppended};
use crate::transport::{JoinAnswer, JoinRequest, PeerService, RequestName};
use crate::view::View;

pub(super) struct Bound {
    service: Arc<dyn Service>,
    host: Arc<SimHost>,
}

impl Bound {
    pub(super) fn new(service: Arc<dyn Service>, host: Arc<SimHost>) -> Self {
        Self { service, host }
    }

    fn bind<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn Service) -> BoxFuture<'static, T>,
    ) -> BoxFuture<'static, T> {
        if !self.host.is_alive() {
            return Box::pin(std::future::pending());
        }
        Box::pin(self.host.bind(self.host.enter(|| call(self.service.as_ref()))))
    }

    fn stream<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn Service) -> BoxStream<'static, T>,
    ) -> BoxStream<'static, T> {
        if !self.host.is_alive() {
            return futures_util::stream::pending().boxed();
        }
        let stream = self.host.enter(|| call(self.service.as_ref()));
        Items { stream, host: self.host.clone() }.boxed()
    }
}

/// A stream that is polled only while its host admits it, and dropped there.
struct Items<T> {
    stream: BoxStream<'static, T>,
    host: Arc<SimHost>,
}

impl<T> Stream for Items<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let Self { stream, host } = self.get_mut();
        // Each item is one step of the process.
        let next = host.bind(stream.next());
        tokio::pin!(next);
        next.poll(cx)
    }
}

impl PeerService for Bound {
    fn call(&self, caller: Caller, call: Call) -> BoxFuture<'static, Result<Answer, Refusal>> {
        self.bind(|service| service.call(caller, call))
    }

    fn append_stream(
        &self,
        caller: Caller,
        requests: BoxStream<'static, Append>,
    ) -> BoxStream<'static, Result<StreamAppended, Refusal>> {
        self.stream(|service| service.append_stream(caller, requests))
    }

    fn disconnected(&self, node: NodeId) {
        if self.host.is_alive() {
            self.host.enter(|| self.service.disconnected(node));
        }
    }

    fn join(&self, request: JoinRequest) -> BoxFuture<'static, Result<JoinAnswer, Refusal>> {
        self.bind(|service| service.join(request))
    }
}

impl ClientService for Bound {
    fn view(&self) -> View {
        self.host.enter(|| self.service.view())
    }

    fn look(&self, look: &mut dyn FnMut(&ClusterState)) {
        self.host.enter(|| self.service.look(look));
    }

    fn command(&self, command: Command) -> BoxFuture<'static, Result<Committed, ProposeError>> {
        self.bind(|service| service.command(command))
    }

    fn once(
        &self,
        named: Option<RequestName>,
        make: MakeCommand,
    ) -> BoxFuture<'static, Result<(Request, Revision), ProposeError>> {
        self.bind(|service| service.once(named, make))
    }

    fn hand_over(&self, to: Option<NodeId>) -> BoxFuture<'static, Result<NodeId, HandOverError>> {
        self.bind(|service| service.hand_over(to))
    }

    fn events_since(&self, revision: Revision, filter: Filter) -> BoxStream<'static, FeedItem> {
        self.stream(|service| service.events_since(revision, filter))
    }

    fn keep_session(&self, session: SessionId, timeout: Duration) -> BoxFuture<'static, KeptAlive> {
        self.bind(|service| service.keep_session(session, timeout))
    }

    fn read_barrier(&self, timeout: Duration) -> BoxFuture<'static, Result<Revision, ReadError>> {
        self.bind(|service| service.read_barrier(timeout))
    }

    fn applied(&self) -> tokio::sync::watch::Receiver<Revision> {
        self.service.applied()
    }
}
