//! Appends to one follower, in the order of the engine: empty ones as calls on the lane of small calls, entries as a stream
//! on a lane of their own.
//!
//! ```text
//!   heartbeat (no entries) ──▶ one call, Lane::Control ──▶ answer
//!   entries ─────────────────▶ stream, Lane::Log ────────▶ answers, for as long as the engine keeps it
//! ```
//!
//! openraft sends a heartbeat as a stream of one append. On the connection of the entries it would wait behind megabytes of
//! them on a thin link, the leader would hear no quorum, and all leases would run out.

use std::time::Duration;

use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use openraft::errors::RPCError;
use openraft::network::RPCTypes;

use crate::engine::network::Network;
use crate::engine::types::{OrAppend, OrStreamResult, Types, append_from, stream_to};
use crate::error::TransportError;
use crate::rpc::{Append, Appended, StreamAppended};
use crate::transport::AppendReplies;

/// How long a stream that could not be opened is not tried again.
const OPEN_AGAIN: Duration = Duration::from_millis(20);

type Answer = Result<OrStreamResult, RPCError<Types>>;

enum State<S> {
    /// No entries were sent yet.
    Small(S),
    Entries(AppendReplies),
    Ended,
}

impl Network {
    /// The answers to `input`, in its order.
    pub(super) fn appends<'s, S>(&'s self, input: S, idle: Duration) -> BoxStream<'s, Answer>
    where
        S: Stream<Item = OrAppend> + Send + Unpin + 'static,
    {
        stream::unfold(State::Small(input), move |state| self.next_answer(state, idle)).boxed()
    }

    async fn next_answer<S>(&self, state: State<S>, idle: Duration) -> Option<(Answer, State<S>)>
    where
        S: Stream<Item = OrAppend> + Send + Unpin + 'static,
    {
        let mut replies = match state {
            State::Small(mut input) => {
                let append = append_from(&input.next().await?);
                if append.entries.is_empty() {
                    let answer = self.small(append, idle).await;
                    let goes_on = matches!(answer, Ok(Ok(_)));
                    return Some((answer, if goes_on { State::Small(input) } else { State::Ended }));
                }
                let rest = input.map(|rpc| append_from(&rpc));
                match self.open(stream::once(async { append }).chain(rest).boxed(), idle).await {
                    Ok(replies) => replies,
                    Err(error) => return Some((Err(error), State::Ended)),
                }
            }
            State::Entries(replies) => replies,
            State::Ended => return None,
        };
        // That a stream could be opened is no sign of life of what is behind it: only an answer is.
        let reply = self.peers.heard(self.to, replies.next().await?);
        let answer = reply.map(stream_to).map_err(|error| self.failed(RPCTypes::AppendEntries, error));
        Some((answer, State::Entries(replies)))
    }

    async fn small(&self, append: Append, deadline: Duration) -> Answer {
        let prev = append.prev;
        let answer = self.peers.append(self.to, append, deadline).await;
        let answer = self.peers.heard(self.to, answer).map_err(|error| self.failed(RPCTypes::AppendEntries, error))?;
        let told = match (answer, prev) {
            (Appended::Success, _) => StreamAppended::Flushed(prev),
            (Appended::Partial(at), _) => StreamAppended::Flushed(at),
            (Appended::Conflict, Some(at)) => StreamAppended::Conflict(at),
            (Appended::Conflict, None) => {
                let why = TransportError::Broken("a conflict with an append that follows on nothing".into());
                return Err(self.failed(RPCTypes::AppendEntries, why));
            }
            (Appended::HigherBallot(ballot), _) => StreamAppended::HigherBallot(ballot),
        };
        Ok(stream_to(told))
    }

    async fn open(
        &self,
        requests: BoxStream<'static, Append>,
        idle: Duration,
    ) -> Result<AppendReplies, RPCError<Types>> {
        let opened = match self.peers.address(self.to) {
            Ok((peer, caller)) => self.peers.transport.append_stream(&peer, caller, requests, idle).await,
            Err(error) => Err(error),
        };
        match opened {
            Ok(replies) => Ok(replies),
            Err(error) => {
                // The engine's own backing off is in the stream of requests, of which only the first was polled: without a
                // pause here its core would spin for as long as the other is not there.
                tokio::time::sleep(OPEN_AGAIN).await;
                Err(self.failed(RPCTypes::AppendEntries, error))
            }
        }
    }
}
