//! Whether a quorum still follows this leader: what makes a read linearizable.
//!
//! ```text
//!   read begins ─▶ next round ─▶ an empty append under this leader's vote, to every other voter
//!                                     │ a quorum (both sets of a joint configuration) accepted it: no other leader had
//! └ been elected by then, so this leader knows all that was committed before the read
//! ```
//!
//! This is Raft's ReadIndex (Ongaro, *Consensus*, 2014, section 6.4). openraft has one too, which is not used:
//! it may count the late answer to an *earlier* append of its pipelined stream as the answer to a later request, and then it
//! takes a deposed leader for a current one. The grant of a lease relies on this confirmation, so each read
//! is confirmed by a separate round of calls whose answers cannot be confused.
//!
//! Reads that arrive while a round is under way share the next one (`rounds.rs`), which also looks up for all of them how far the
//! log is committed. Renewals of leases can wait for the next heartbeats, which
//! confirm as much, so they need no round.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use quorate_membership::{Configuration, NodeId, Revision};
use tokio::time::{Instant, timeout};

use crate::engine::Engine;
use crate::engine::types::{membership_from, vote_from};
use crate::rpc::{Append, Appended, Ballot};

impl Engine {
    /// The end of what was committed at some time after this call began, once a quorum has accepted a message that this leader sent
    /// after that; `None` if it does not, or if this leader did not know the end.
    pub(super) async fn confirm(&self) -> Option<Revision> {
        let core = Arc::downgrade(&self.0);
        let round = move || async move {
            let engine = Engine(core.upgrade()?);
            // First the end, and then the confirmation, of the same term.
            let (of, committed) = engine.committed_in_term().await?;
            (engine.round().await? == of).then_some(committed)
        };
        self.0.rounds.share(self.0.config.heartbeat(), round).await
    }

    /// As [`Self::confirm`], by the heartbeats that are sent anyway: it takes up to one interval of them longer and sends
    /// nothing, unless they fail to come. Each heartbeat is a call of its own, whose answer cannot be taken for another's.
    ///
    /// Returns the end of what was committed when this call began; `None` if this leader did not know it, or is not confirmed.
    pub(super) async fn confirm_by_heartbeats(&self) -> Option<Revision> {
        let (of, committed) = self.committed_in_term().await?;
        let begun = Instant::now();
        let (ballot, configuration) = self.leading_as().filter(|(ballot, _)| ballot.term == of)?;
        let heartbeat = self.0.config.heartbeat();
        let since = self.0.peers.answered.quorum_since(begun, ballot.term, self.0.node, &configuration);
        let others = configuration.voters().into_iter().any(|voter| voter != self.0.node);
        match others && timeout(heartbeat * 2, since).await.is_ok() {
            true => self.holds(ballot).then_some(committed),
            false => self.confirm().await,
        }
    }

    /// The term in which a quorum follows this leader; `None` if it is not confirmed.
    async fn round(&self) -> Option<u64> {
        let (ballot, configuration) = self.leading_as()?;
        let limit = self.0.config.raft_lease();
        let mut took = BTreeSet::from([self.0.node]);
        let mut asked: FuturesUnordered<_> = configuration
            .voters()
            .into_iter()
            .filter(|to| *to != self.0.node)
            .map(|to| self.ask(to, ballot, limit))
            .collect();
        while !configuration.has_quorum(&took) {
            match asked.next().await {
                Some((node, Some(true))) => {
                    took.insert(node);
                }
                Some((_, None)) => {}
                // A voter follows a higher vote, so this leader is deposed or soon will be.
                Some((_, Some(false))) | None => return None,
            }
        }
        self.holds(ballot).then_some(ballot.term)
    }

    /// This node counts towards the quorum only if it has not voted for another leader meanwhile.
    fn holds(&self, ballot: Ballot) -> bool {
        self.0.store.vote().is_some_and(|vote| (vote.term, vote.node) == (ballot.term, ballot.node))
    }

    /// The vote under which this node leads, and the voters, according to openraft. `None` if it does not lead, or if
    /// it must stay silent so that others can be elected.
    pub(super) fn leading_as(&self) -> Option<(Ballot, Configuration)> {
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        let ballot = vote_from(&metrics.vote);
        // Once a leader has handed over or tried to, openraft sends no heartbeat in this term. An append from here must
        // not keep the others from standing for election.
        let speaks = !self.gave_up(metrics.current_term);
        let leads = speaks && metrics.state == ServerState::Leader && ballot.committed && ballot.node == self.0.node;
        let configuration = membership_from(metrics.membership_config.membership()).configuration();
        drop(metrics);
        // The same holds for a leader that no quorum has answered within an election timeout. openraft lets its followers
        // time out then, so that a majority can elect a leader that it hears. An append from here must not prevent
        // that.
        let heard = self.heard_by_quorum() || quorate_membership::mutant!("deaf_leader_goes_on");
        (leads && heard).then_some((ballot, configuration))
    }

    /// Whether `to` accepts an empty append; `None` if there is no answer within `limit`.
    async fn ask(&self, to: NodeId, ballot: Ballot, limit: Duration) -> (NodeId, Option<bool>) {
        let empty =
            Append { ballot, prev: None, entries: vec![], commit: None, renewed: Some(self.0.peers.receipts.round()) };
        let asked = timeout(limit, self.0.peers.append(to, empty, limit)).await;
        let took = match asked {
            Ok(Ok(Appended::Success | Appended::Partial(_) | Appended::Conflict)) => Some(true),
            Ok(Ok(Appended::HigherBallot(_))) => Some(false),
            Ok(Err(_)) | Err(_) => None,
        };
        (to, took)
    }
}
