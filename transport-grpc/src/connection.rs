//! One HTTP/2 connection to a node, in the form that the generated clients expect.
//!
//! ```text
//!   generated client ──Request──▶ Connection ──▶ hyper ──▶ TCP
//!                                     └─ NeverSent: the connection closed before the call was sent
//! ```

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tower_service::Service;

use crate::pb::raft_client::RaftClient;

type AnyError = Box<dyn Error + Send + Sync>;

/// The call did not leave this process, so the peer has certainly not acted on it.
#[derive(Debug)]
pub(crate) struct NeverSent(hyper::Error);

impl fmt::Display for NeverSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Error for NeverSent {}

/// The scheme and host in front of every path. They are ignored: the connection decides where a call goes.
pub(crate) fn origin() -> Uri {
    Uri::from_static("http://quorate")
}

/// A connection. Clones share it; it closes when the last is gone and the last call on it has ended.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    sender: http2::SendRequest<Body>,
    /// Shared by the clones of this connection, and by no other.
    id: Arc<()>,
}

impl Connection {
    /// Opens HTTP/2 on a stream of bytes, such as TCP. Pings detect a peer that has vanished without closing the
    /// connection, which TCP alone would report only after minutes.
    ///
    /// `ended` is called when it has closed, whoever closed it.
    pub(crate) async fn open<T>(
        io: T,
        ping_every: Duration,
        ping_timeout: Duration,
        ended: impl FnOnce() + Send + 'static,
    ) -> Result<Self, hyper::Error>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).keep_alive_interval(ping_every).keep_alive_timeout(ping_timeout);
        let (sender, driver) = builder.keep_alive_while_idle(true).handshake(TokioIo::new(io)).await?;
        tokio::spawn(async move {
            if let Err(error) = driver.await {
                // With its causes: the outer error of an unanswered ping is only "http2 error".
                tracing::debug!(error = &error as &dyn Error, "connection closed");
            }
            ended();
        });
        Ok(Self { sender, id: Arc::default() })
    }

    /// The calls between nodes on it.
    pub(crate) fn raft(&self) -> RaftClient<Self> {
        RaftClient::with_origin(self.clone(), origin())
    }

    /// Whether no more calls can be made on it.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whether the two are clones of one connection.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.id, &other.id)
    }
}

impl Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = AnyError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, AnyError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), AnyError>> {
        // `call` reports a closed connection, together with whether the call was sent.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.sender.try_send_request(request);
        Box::pin(async move {
            answer.await.map_err(|mut failed| match failed.take_message() {
                Some(_) => NeverSent(failed.into_error()).into(),
                None => failed.into_error().into(),
            })
        })
    }
}
