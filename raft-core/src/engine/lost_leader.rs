//! A leader whose process has ended is succeeded at once, without waiting for its silence.
//!
//! ```text
//!   connection to the leader closed by its side ─▶ refused when opened again, twice ─▶ ask the other voters
//!                                                        │ no: nothing                      │ Refuses
//!                                                        ▼                                  ▼
//!                        a quorum is refused as well, and this one is first among them ─▶ stand for election
//! ```
//!
//! The kernel of a host closes the connections of a process that has ended, and refuses new ones. That is an opinion and no
//! proof: a firewall can answer in its place. It needs to be no more. An election is safe at any time, and no promise rests
//! on a leader's lease, because reads are confirmed by a round of their own. A mistake costs a change of leaders; so a quorum
//! of the voters has to be refused, and each of them tries for itself when it is asked. Where a cut or a silence is seen
//! instead, by one of them or by all, the election timeout decides as before.
//!
//! All who notice ask each other at the same time and see the same answers. Only the first stands: the one with the longest
//! log, and of these the lowest number. If it fails, an ordinary election follows.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt;
use openraft::async_runtime::WatchReceiver;
use parking_lot::Mutex;
use quorate_membership::NodeId;
use quorate_membership::detector::Moment;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::engine::types::OrTransfer;
use crate::host::clock;
use crate::rpc::Refused;

/// A node that stood so often at this sign within [`SPAN`] does not stand at it for the rest of that: a firewall that comes and
/// goes must not keep the cluster in elections. Another voter may, or the timeout decides.
const MOST: usize = 10;

const SPAN: Duration = Duration::from_secs(60);

/// How many closed connections are taken together.
const CLOSED: usize = 64;

/// Runs until `stop`.
pub(crate) async fn run(engine: Engine, stop: CancellationToken) {
    // All that close at a time: a node has several connections, and one look at it is enough.
    let mut closed = engine.peers().closed().ready_chunks(CLOSED);
    loop {
        let nodes: BTreeSet<NodeId> = tokio::select! { biased;
            () = stop.cancelled() => return,
            nodes = closed.next() => match nodes {
                Some(nodes) => nodes.into_iter().collect(),
                None => return,
            },
        };
        for node in nodes {
            if engine.leader() == Some(node) && node != engine.node() && engine.is_lost(node).await {
                engine.stand_in_place_of(node).await;
            }
        }
    }
}

/// When this node stood at this sign, lately.
#[derive(Debug, Default)]
pub(super) struct Stood(Mutex<Vec<Moment>>);

impl Stood {
    pub(super) fn often(&self, now: Moment) -> bool {
        let mut stood = self.0.lock();
        stood.retain(|at| now.since(*at) < SPAN);
        stood.len() >= MOST
    }

    fn note(&self, now: Moment) {
        self.0.lock().push(now);
    }
}

impl Engine {
    /// Whether a quorum of the voters is refused by the leader, and this node is the one to stand.
    async fn is_lost(&self, leader: NodeId) -> bool {
        let own = self.sees_refusal(leader).await;
        if !own.refuses || !own.follows || !own.may_stand {
            tracing::debug!(%leader, ?own, "a connection to the leader was closed");
            return false;
        }
        let me = self.node();
        let mut agreed = self.ask_of_refusal(leader, self.config().election_min() / 2).await;
        agreed.retain(|(_, said)| said.refuses && said.follows);
        let refused: BTreeSet<NodeId> = agreed.iter().map(|(node, _)| *node).chain([me]).collect();
        if !self.state().configuration().has_quorum(&refused) && !quorate_membership::mutant!("one_refusal_suffices") {
            tracing::debug!(%leader, ?refused, "the leader refuses this node, and no quorum; its timeout decides");
            return false;
        }
        let before = |(node, said): &(NodeId, Refused)| {
            said.may_stand && (said.last > own.last || (said.last == own.last && *node < me))
        };
        !agreed.iter().any(before) && self.leader() == Some(leader)
    }

    /// Stands for election at once. Votes for it do not wait for the timeout of the leader that is lost.
    async fn stand_in_place_of(&self, leader: NodeId) {
        self.0.stood.note(clock::now());
        let (vote, last) = {
            let metrics = self.0.raft.metrics();
            let metrics = metrics.borrow_watched();
            (metrics.vote, metrics.last_applied)
        };
        tracing::info!(%leader, "the process of the leader has ended, as a quorum sees it; standing for election");
        let asked = self.0.raft.handle_transfer_leader(OrTransfer::new(vote, self.0.node.get(), last)).await;
        if !matches!(asked, Ok(Ok(()))) {
            tracing::debug!(?asked, "not standing: another vote was cast meanwhile");
        }
    }
}
