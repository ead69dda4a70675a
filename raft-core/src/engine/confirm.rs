//! Whether a quorum still follows this leader: the half of a linearizable read that is not left to the engine.
//!
//! ```text
//!   read begins ─▶ next round ─▶ an empty append under this leader's vote, to every other voter
//!                                     │ a quorum (both sets of a joint configuration) took it: nobody else was elected
//!                                     └ before they did, so what was committed before the read began is ours, and known
//! ```
//!
//! Raft's ReadIndex (Ongaro, *Consensus*, 2014, section 6.4). The engine does the same, and this one does not replace its
//! index: but the engine may count the late answer to an *earlier* append of its pipelined stream as one to a later
//! request, and then takes a deposed leader for a current one. A grant of a lease rests on this, so each read is confirmed
//! by a round of its own, of calls that cannot be mistaken for each other.
//!
//! Reads that come while a round is under way share the next one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, Shared};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use openraft::async_runtime::WatchReceiver;
use openraft::{Instant as _, ServerState};
use parking_lot::Mutex;
use quorate_membership::{Configuration, NodeId};
use tokio::time::timeout;

use crate::engine::Engine;
use crate::engine::types::{membership_from, vote_from};
use crate::rpc::{Append, Appended, Ballot};

type Round = Shared<BoxFuture<'static, bool>>;

/// The round that the reads of now will share: one that has not begun.
#[derive(Default)]
pub(crate) struct Rounds {
    next: Mutex<Option<Round>>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Engine {
    /// Whether a quorum took something of this leader that was sent after this call began.
    pub(crate) async fn confirm(&self) -> bool {
        let round = {
            let mut next = self.0.rounds.next.lock();
            let begin = || {
                let core = Arc::downgrade(&self.0);
                let turn = self.0.rounds.turn.clone();
                let round = async move {
                    let _turn = turn.lock().await;
                    let Some(core) = core.upgrade() else { return false };
                    // Who asks from here on asks too late for this round.
                    core.rounds.next.lock().take();
                    Engine(core).round().await
                };
                round.boxed().shared()
            };
            next.get_or_insert_with(begin).clone()
        };
        round.await
    }

    async fn round(&self) -> bool {
        let Some((ballot, configuration)) = self.leading_as() else { return false };
        let limit = self.0.config.election_max();
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
                // Somebody follows a higher vote: this leader is none any more, or will not be for long.
                Some((_, Some(false))) | None => return false,
            }
        }
        // Its own voice counts as that of a voter who has not gone over to another meanwhile.
        self.0.store.vote().is_some_and(|vote| (vote.term, vote.node) == (ballot.term, ballot.node))
    }

    /// The vote under which this node leads, and who votes, as far as the engine believes.
    fn leading_as(&self) -> Option<(Ballot, Configuration)> {
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        let ballot = vote_from(&metrics.vote);
        // A leader that hands over, or tried to, speaks no more in this term, and the engine sends no heartbeat: what is sent
        // here must not keep the others from standing.
        let speaks = !self.gave_up(metrics.current_term);
        let leads = speaks && metrics.state == ServerState::Leader && ballot.committed && ballot.node == self.0.node;
        let configuration = membership_from(metrics.membership_config.membership()).configuration();
        // Nor does one that a quorum has not answered for so long: the engine then lets its followers' timeout end by and
        // by, so that a majority elects which it can still speak to and no longer hear, and what is sent here must not keep
        // them from it.
        let heard = metrics.last_quorum_acked.is_some_and(|acked| acked.elapsed() < self.0.config.election_max());
        let alone = configuration.has_quorum(&BTreeSet::from([self.0.node]));
        (leads && (heard || alone || cfg!(quorate_mutant = "deaf_leader_goes_on"))).then_some((ballot, configuration))
    }

    /// Whether `to` took an empty append: `None` when nothing is known.
    async fn ask(&self, to: NodeId, ballot: Ballot, limit: Duration) -> (NodeId, Option<bool>) {
        let empty = Append { ballot, prev: None, entries: vec![], commit: None };
        let asked = timeout(limit, self.0.peers.append(to, empty, limit)).await;
        let took = match asked {
            Ok(Ok(Appended::Success | Appended::Partial(_) | Appended::Conflict)) => Some(true),
            Ok(Ok(Appended::HigherBallot(_))) => Some(false),
            Ok(Err(_)) | Err(_) => None,
        };
        (to, took)
    }
}
