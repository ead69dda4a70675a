//! The connections to other nodes: opened when first needed, kept, reopened with a back-off when they break.
//!
//! ```text
//!   (n2, Control) ──▶ Link ─┬─ connection            used as long as it is open
//!   (n2, Log)     ──▶ Link  ├─ attempt in progress   shared by all waiting calls; continues when one gives up
//!   (n2, Snapshot)──▶ Link  └─ pause                 20, 40, 80, 160, 250 ms … after failures in a row
//! ```
//!
//! An attempt tries the addresses in order, beginning with the chosen one (addresses.rs, dial.rs). It
//! runs in its own task, so that heartbeats, whose short deadlines expire again and again, cannot keep it from ever
//! reaching the second address. The pause bounds both how often a dead peer is tried and how long a revived one goes
//! unnoticed. When another address is chosen, or the addresses of a node change, the next call opens another connection; calls in
//! progress finish on the old one.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use quorate_raft_core::TransportError;
use tokio::time::{Instant, sleep_until, timeout};

use crate::addresses::Addresses;
use crate::call_stream::CallStream;
use crate::connection::Connection;
use crate::dial::{Traffic, dial};
use crate::settings::ClientSettings;
use crate::tls::Tls;

/// The pause after the first failure in a row; doubled by each further one.
const PAUSE: Duration = Duration::from_millis(20);

/// The longest pause: how long a revived peer may go unnoticed.
const PAUSE_LIMIT: Duration = Duration::from_millis(250);

/// A connection that broke sooner than this counts as a failure: the peer accepts and closes at once.
const STABLE: Duration = Duration::from_secs(1);

type Attempt = Shared<BoxFuture<'static, Result<Connection, Arc<str>>>>;

/// A connection that was opened.
#[derive(Debug)]
struct Made {
    connection: Connection,
    /// The index of its address.
    at: usize,
    since: Instant,
}

impl Made {
    /// Whether it was open for so long that its end is no failure of the peer to serve it.
    fn is_stable(&self) -> bool {
        self.since.elapsed() >= STABLE
    }
}

#[derive(Debug)]
struct State {
    /// The last connection. It may be closed by now.
    connection: Option<Made>,
    /// How often the credentials had been replaced when its attempt began.
    shown: u64,
    attempt: Option<Attempt>,
    /// The number of failures in a row.
    failures: u32,
    /// The earliest time of the next attempt.
    not_before: Instant,
}

/// The connection to one peer for one lane.
#[derive(Debug)]
pub(crate) struct Link {
    name: String,
    addresses: Arc<Addresses>,
    /// The index of the only address that it uses; `None`: whichever is chosen.
    only: Option<usize>,
    settings: ClientSettings,
    /// How it proves whom it reaches; `None`: not at all.
    tls: Option<Tls>,
    traffic: Traffic,
    state: Mutex<State>,
    /// The stream of small calls that was opened last. It may have ended by now.
    calls: Mutex<Option<CallStream>>,
}

impl Link {
    pub(crate) fn new(
        name: String,
        addresses: Arc<Addresses>,
        only: Option<usize>,
        settings: ClientSettings,
        tls: Option<Tls>,
        traffic: Traffic,
    ) -> Self {
        let state = State { connection: None, shown: 0, attempt: None, failures: 0, not_before: Instant::now() };
        Self { name, addresses, only, settings, tls, traffic, state: Mutex::new(state), calls: Mutex::default() }
    }

    /// The addresses of its node.
    pub(crate) fn addresses(&self) -> &Arc<Addresses> {
        &self.addresses
    }

    /// The addresses that it tries, in this order.
    fn order(&self) -> Vec<usize> {
        self.only.map_or_else(|| self.addresses.order(), |only| vec![only])
    }

    /// The stream of small calls on this connection, opened by `open` if there is none.
    pub(crate) fn call_stream(&self, connection: &Connection, open: impl FnOnce() -> CallStream) -> CallStream {
        let mut calls = self.calls.lock();
        if let Some(stream) = calls.as_ref().filter(|stream| stream.is_open_on(connection)) {
            return stream.clone();
        }
        calls.insert(open()).clone()
    }

    /// [`Self::connection`], and the rest of the deadline once it is open.
    pub(crate) async fn connect(
        self: &Arc<Self>,
        deadline: Duration,
    ) -> Result<(Connection, Duration), TransportError> {
        let begun = Instant::now();
        let connection = self.connection(deadline).await?;
        Ok((connection, deadline.saturating_sub(begun.elapsed())))
    }

    /// An open connection. Takes at most `within`; on every error, nothing was sent.
    pub(crate) async fn connection(self: &Arc<Self>, within: Duration) -> Result<Connection, TransportError> {
        let attempt = match self.current() {
            Ok(connection) => return Ok(connection),
            Err(attempt) => attempt,
        };
        match timeout(within, attempt).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(why)) => Err(TransportError::Unreachable(format!("no connection to {}: {why}", self.name))),
            Err(_) => Err(TransportError::Unreachable(format!(
                "no connection to {} within {within:?}; still trying {}",
                self.name,
                self.order().into_iter().map(|at| self.addresses.all()[at].as_str()).collect::<Vec<_>>().join(", ")
            ))),
        }
    }

    /// Another node answers at the address that worked. Closes the connection, so that the next call begins with the
    /// next address.
    pub(crate) fn reject_address(&self) {
        let mut state = self.state.lock();
        if let Some(Made { at, .. }) = state.connection.take() {
            self.addresses.suspect(at);
            state.note_failure(true);
        }
    }

    /// Nothing was heard on this connection for too long: the next call opens another one. TCP may wait for many seconds
    /// before it sends again what was lost, although the network is well by then. A connection younger than [`STABLE`] is
    /// kept: the peer may just be slow, and a connection for each silence would not make it faster.
    pub(crate) fn replace(&self, silent: &Connection) {
        self.replace_if(|made| made.connection.is_same(silent));
    }

    /// The same for whichever connection it has.
    pub(crate) fn replace_current(&self) {
        self.replace_if(|_| true);
    }

    fn replace_if(&self, which: impl Fn(&Made) -> bool) {
        let mut state = self.state.lock();
        let Some(made) = state.connection.take_if(|made| which(made) && made.is_stable()) else { return };
        tracing::debug!(peer = self.name, "a connection was silent for too long; the next call opens another");
        self.addresses.suspect(made.at);
    }

    /// Waits until entries should go over another address than that of this connection.
    pub(crate) fn moves_from(self: Arc<Self>, connection: &Connection) -> impl Future<Output = ()> + Send + use<> {
        // At once: by the first poll this link may have another connection.
        let at = self.place_of(connection);
        async move {
            match self.only {
                None => self.addresses.moved_from(at).await,
                Some(_) => std::future::pending().await,
            }
        }
    }

    /// Waits until the address of this connection has failed, and another one is chosen.
    pub(crate) fn lost_from(self: Arc<Self>, connection: &Connection) -> impl Future<Output = ()> + Send + use<> {
        // At once: by the first poll this link may have another connection.
        let at = self.place_of(connection);
        async move {
            match self.only {
                None => self.addresses.lost(at).await,
                Some(_) => std::future::pending().await,
            }
        }
    }

    /// The same for the current connection.
    pub(crate) async fn lost(&self) {
        let at = self.state.lock().connection.as_ref().map(|made| made.at);
        self.addresses.lost(at.unwrap_or_else(|| self.addresses.chosen())).await;
    }

    fn place_of(&self, connection: &Connection) -> usize {
        let state = self.state.lock();
        let made = state.connection.as_ref().filter(|made| made.connection.is_same(connection));
        made.map_or_else(|| self.addresses.chosen(), |made| made.at)
    }

    /// The open connection, or the attempt to open one, which starts now if none is in progress.
    fn current(self: &Arc<Self>) -> Result<Connection, Attempt> {
        let mut state = self.state.lock();
        let replaced = self.tls.as_ref().map_or(0, Tls::replaced);
        let wanted = self.only.unwrap_or_else(|| self.addresses.chosen());
        match &state.connection {
            // One that shows former credentials, or goes to another address than is chosen now, is left to the calls that are on it.
            Some(made) if !made.connection.is_closed() && (state.shown != replaced || made.at != wanted) => {
                state.connection = None;
            }
            Some(made) if !made.connection.is_closed() => return Ok(made.connection.clone()),
            Some(made) => {
                let stable = made.is_stable();
                state.connection = None;
                state.note_failure(!stable);
            }
            None => {}
        }
        if let Some(attempt) = state.attempt.as_ref().filter(|attempt| attempt.peek().is_none()) {
            return Err(attempt.clone());
        }
        state.shown = replaced;
        let running = tokio::spawn(self.clone().attempt(state.not_before));
        let ended = |end: Result<_, tokio::task::JoinError>| end.unwrap_or_else(|error| Err(error.to_string().into()));
        let attempt = running.map(ended).boxed().shared();
        state.attempt = Some(attempt.clone());
        Err(attempt)
    }

    async fn attempt(self: Arc<Self>, not_before: Instant) -> Result<Connection, Arc<str>> {
        sleep_until(not_before).await;
        let made = self.dial().await;
        let mut state = self.state.lock();
        state.attempt = None;
        match made {
            Ok(made) => {
                tracing::debug!(peer = self.name, address = self.addresses.all()[made.at].as_str(), "connected");
                let connection = made.connection.clone();
                state.connection = Some(made);
                Ok(connection)
            }
            Err(why) => {
                tracing::debug!(peer = self.name, why, "no connection");
                state.note_failure(true);
                Err(why.into())
            }
        }
    }

    /// Tries each address once, from the chosen one on.
    async fn dial(&self) -> Result<Made, String> {
        let (mut failed, mut told) = (vec![], vec![]);
        for at in self.order() {
            let address = self.addresses.all()[at].as_str();
            match dial(address, &self.settings, self.tls.as_ref(), &self.traffic).await {
                Ok(connection) => {
                    self.addresses.settle(&failed, at);
                    return Ok(Made { connection, at, since: Instant::now() });
                }
                Err(why) => {
                    told.push(format!("{address}: {why}"));
                    failed.push(at);
                }
            }
        }
        match told.is_empty() {
            true => Err("no address of it is known".into()),
            false => Err(told.join("; ")),
        }
    }
}

impl State {
    /// Counts a failure, or resets the count, and sets the pause accordingly.
    fn note_failure(&mut self, failed: bool) {
        self.failures = if failed { self.failures.saturating_add(1) } else { 0 };
        self.not_before = Instant::now() + pause(self.failures);
    }
}

fn pause(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        n => PAUSE.saturating_mul(1 << (n - 1).min(8)).min(PAUSE_LIMIT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_to_a_quarter_of_a_second_and_no_further() {
        let ms: Vec<_> = [0, 1, 2, 3, 4, 5, 6, 40, u32::MAX].map(|n| pause(n).as_millis()).into();
        assert_eq!(ms, [0, 20, 40, 80, 160, 250, 250, 250, 250]);
    }
}
