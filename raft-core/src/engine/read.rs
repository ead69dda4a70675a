//! Linearizable reads: how far a node must have applied the log so that its state is at least as new as the call.
//!
//! ```text
//!   read_barrier ─▶ leads here? ─▶ read_index_here: the end of what is committed, confirmed by a round (confirm.rs)
//!                      └ no: ask the leader for it, once for all that wait      then wait until this node has applied as much
//! ```

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, stream};
use openraft::ReadPolicy;
use quorate_membership::Revision;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::engine::Engine;
use crate::engine::state_machine::revision;
use crate::engine::types::{log_id_from, vote_from};
use crate::error::ReadError;
use crate::feed::{FeedItem, Filter};

impl Engine {
    /// A confirmed read index from this node's own engine; `None` if it does not lead or finds no quorum in time.
    pub(crate) async fn read_index_here(&self, limit: Duration) -> Option<Revision> {
        self.read_index(limit, self.confirm()).await
    }

    /// As [`Self::read_index_here`], confirmed by the next heartbeats.
    pub(crate) async fn read_index_by_heartbeats(&self, limit: Duration) -> Option<Revision> {
        self.read_index(limit, self.confirm_by_heartbeats()).await
    }

    async fn read_index(&self, limit: Duration, confirmed: impl Future<Output = Option<Revision>>) -> Option<Revision> {
        // Never `LeaseRead`: with one restarted voter and one partition, it returned stale state in 97 of 100 runs.
        let by_lease = quorate_membership::mutant!("lease_reads_without_embargo");
        let engines = quorate_membership::mutant!("engine_confirms_reads");
        let policy = if by_lease { ReadPolicy::LeaseRead } else { ReadPolicy::ReadIndex };
        let reading = async {
            if by_lease || engines {
                let linearizer = self.0.raft.get_read_linearizer(policy).await.ok()?;
                return Some(revision(linearizer.read_log_id().index()));
            }
            confirmed.await
        };
        tokio::time::timeout(limit, reading).await.ok()?
    }

    /// The term of this node as leader, and the end of what is committed; `None` if it does not lead, or has not committed an entry
    /// of its own term.
    /// Before that entry a new leader does not know how much its predecessors have committed (Ongaro, section 6.4).
    pub(super) async fn committed_in_term(&self) -> Option<(u64, Revision)> {
        let me = self.0.node;
        let of_term = self.0.raft.with_raft_state(move |state| {
            let (ballot, committed) = (vote_from(state.vote_ref()), log_id_from(state.local_committed()?));
            let own = ballot.committed && ballot.node == me && committed.term == ballot.term;
            (own || quorate_membership::mutant!("reads_before_own_entry"))
                .then(|| (ballot.term, revision(committed.index)))
        });
        of_term.await.ok().flatten()
    }

    /// A confirmed read index from the leader, which all who ask for one meanwhile share; `None` if it has none, or leads no more.
    async fn read_index_there(&self) -> Option<Revision> {
        let core = Arc::downgrade(&self.0);
        let round = move || async move {
            let engine = Self(core.upgrade()?);
            let leader = engine.leader().filter(|leader| *leader != engine.0.node)?;
            let limit = engine.0.config.election_max() * 2;
            // A leader that hangs must not hold up those who come after, either.
            tokio::select! { biased;
                found = engine.0.peers.read_index(leader, limit) => found.ok(),
                () = engine.another_leads(Some(leader), limit) => None,
            }
        };
        self.0.asked.share(self.0.config.heartbeat(), round).await
    }

    /// Waits until this node has applied everything that was committed before the call. Returns the revision that it
    /// had to reach.
    ///
    /// # Errors
    /// [`ReadError::MaybeStale`] if that takes longer than `limit`.
    pub(crate) async fn read_barrier(&self, limit: Duration) -> Result<Revision, ReadError> {
        let give_up = Instant::now() + limit;
        let stale = ReadError::MaybeStale { waited: limit };
        let index = loop {
            if let Some(fatal) = self.stopped() {
                return Err(fatal.into());
            }
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(stale);
            }
            // A leader that hangs must not use up the whole timeout, because another may be elected soon.
            let once = left.min(self.0.config.election_max() * 2);
            let found = match self.leader() {
                Some(leader) if leader != self.0.node => timeout(once, self.read_index_there()).await.ok().flatten(),
                Some(_) => self.read_index_here(left).await,
                None => None,
            };
            if let Some(index) = found {
                break index;
            }
            sleep(self.0.config.heartbeat() / 4).await;
        };
        let mut progress = self.progress();
        let reached = timeout_at(give_up, progress.wait_for(|at| *at >= index)).await;
        if matches!(reached, Ok(Ok(_))) { Ok(index) } else { Err(stale) }
    }

    /// Every wanted event after `after`, then each as it is committed; or [`FeedItem::Ahead`] alone, if `after` does not
    /// exist yet. A follower that lags behind `after` first reaches it.
    pub(crate) fn events_since(&self, after: Revision, filter: Filter) -> BoxStream<'static, FeedItem> {
        if after <= *self.progress().borrow() {
            return self.feed().since(after, filter);
        }
        // A reader that is not polled must not keep the log of a node open that was shut down.
        let (core, feed) = (Arc::downgrade(&self.0), self.feed().clone());
        let checked = async move {
            let newest = match core.upgrade() {
                Some(core) => Self(core).newest_if_before(after).await,
                None => None,
            };
            match newest {
                Some(newest) => stream::iter([FeedItem::Ahead { after, newest }]).boxed(),
                None => feed.since(after, filter),
            }
        };
        checked.flatten_stream().boxed()
    }

    /// The newest revision, if it lies before `revision`. Waits for a quorum if this node has not applied as much. `None`
    /// also when this node stops.
    async fn newest_if_before(&self, revision: Revision) -> Option<Revision> {
        while *self.progress().borrow() < revision {
            match self.read_barrier(self.0.config.propose_timeout).await {
                Ok(newest) => return (newest < revision).then_some(newest),
                Err(ReadError::Stopped(_)) => return None,
                Err(error) => tracing::debug!(node = %self.0.node, %error, %revision, "a reader of events waits"),
            }
        }
        None
    }
}
