//! One HTTP/2 connection to a node, as the generated clients want it.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tonic::body::Body;
use tower_service::Service;

type AnyError = Box<dyn Error + Send + Sync>;

/// The call did not leave this process: certainly nothing happened over there.
#[derive(Debug)]
pub(crate) struct NeverSent(hyper::Error);

impl fmt::Display for NeverSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Error for NeverSent {}

/// A connection. Clones share it; it closes when the last is gone and the last call on it has ended.
#[derive(Debug, Clone)]
pub(crate) struct Connection(http2::SendRequest<Body>);

impl Connection {
    /// Opens HTTP/2 on a stream of bytes: TCP today, TLS on top of it one day. Pings find out when the other side has
    /// vanished without a word, which TCP alone would not say for minutes.
    pub(crate) async fn open<T>(io: T, ping_every: Duration, ping_timeout: Duration) -> Result<Self, hyper::Error>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).keep_alive_interval(ping_every).keep_alive_timeout(ping_timeout);
        let (sender, driver) = builder.keep_alive_while_idle(true).handshake(TokioIo::new(io)).await?;
        tokio::spawn(async move {
            if let Err(error) = driver.await {
                // With its causes: on the outside a ping without an answer is but an "http2 error".
                tracing::debug!(error = &error as &dyn Error, "connection closed");
            }
        });
        Ok(Self(sender))
    }

    /// Whether it is of no more use.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

/// Ties the messages of a stream to whoever reads its answers. Once the first part of an answer is there, hyper goes on
/// sending although nobody reads any more; so the messages end when this is dropped, and then the call is reset.
#[derive(Debug)]
pub(crate) struct Tether {
    _held: oneshot::Sender<()>,
}

impl Tether {
    /// `messages`, for as long as the tether is held.
    pub(crate) fn tie<S: Stream>(messages: S) -> (Self, impl Stream<Item = S::Item>) {
        let (held, dropped) = oneshot::channel();
        (Self { _held: held }, messages.take_until(dropped))
    }
}

impl Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = AnyError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, AnyError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), AnyError>> {
        // Whether it is closed is told by `call`, together with whether the call was sent.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.0.try_send_request(request);
        Box::pin(async move {
            answer.await.map_err(|mut failed| match failed.take_message() {
                Some(_) => NeverSent(failed.into_error()).into(),
                None => failed.into_error().into(),
            })
        })
    }
}
