//! What this node and the other voters say of a node whose connections were closed: whether its machine refuses new ones.
//!
//! ```text
//!   Peers::refuses ─▶ what is seen here ┐
//!   Call::Refuses ──▶ the other voters  ┴─▶ is a quorum refused?   no proof: a firewall can answer in its place
//! ```
//!
//! The kernel closes the sockets of a process that has ended one after the other, and the one that listens may be the last. So
//! a node that does not refuse yet is tried again for a moment, at pauses that double. After a cut has healed every node does
//! this at once, to nodes that run: a few connections each must be all.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use quorate_membership::NodeId;
use tokio::time::{sleep, timeout};

use crate::engine::Engine;
use crate::host::clock;
use crate::rpc::{Refused, Refuses};

/// The pause after the first attempt, and the one after which there is no further attempt. One that took longer is the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(16));

impl Engine {
    /// What this node says of `node`, to itself and when another voter asks. It tries for itself.
    pub(crate) async fn sees_refusal(&self, node: NodeId) -> Refused {
        let follows = self.leader().is_none_or(|known| known == node) && node != self.node();
        let refuses = node != self.node() && self.refuses_in_a_moment(node).await;
        let connected = node == self.node() || self.peers().contacts.is_connected(node) == Some(true);
        Refused { refuses, connected, follows, last: self.0.store.last(), may_stand: self.may_stand_now() }
    }

    /// Whether the machine of `node` refuses connections now, or within some milliseconds.
    async fn refuses_in_a_moment(&self, node: NodeId) -> bool {
        let mut pause = PAUSES.0;
        loop {
            let began = clock::now();
            if self.peers().refuses(node).await {
                return true;
            }
            if pause > PAUSES.1 || clock::now().since(began) > PAUSES.1 {
                return false;
            }
            sleep(pause).await;
            pause *= 2;
        }
    }

    /// Whether the machine of `node` refuses connections from this one, and has closed those that it held to it. A node that
    /// never called may run behind a firewall.
    pub(crate) async fn is_parted_from(&self, node: NodeId) -> bool {
        let parted = self.peers().contacts.is_connected(node) == Some(false);
        (parted || quorate_membership::mutant!("firewalled_taken_for_ended")) && self.peers().refuses(node).await
    }

    /// What the other voters say of `node`, as far as they answer within `limit`.
    pub(super) async fn ask_of_refusal(&self, node: NodeId, limit: Duration) -> Vec<(NodeId, Refused)> {
        let (configuration, me) = (self.state().configuration().clone(), self.node());
        let others: Vec<NodeId> =
            configuration.voters().into_iter().filter(|voter| ![me, node].contains(voter)).collect();
        let asked = others.into_iter().map(|voter| async move {
            let said = timeout(limit, self.peers().call(voter, Refuses(node), limit)).await;
            said.ok().and_then(Result::ok).map(|said| (voter, said))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// Whether a quorum of the voters is refused by the machine of `node`, and none of those that answer says otherwise, or has
    /// a connection from it.
    pub(crate) async fn is_refused_by(&self, node: NodeId) -> bool {
        // Both at once, for each takes some milliseconds; but where it is not refused here, no answer is waited for.
        let parted = async { self.is_parted_from(node).await.then_some(()) };
        let asked = self.ask_of_refusal(node, self.config().election_min() / 2);
        let both = tokio::try_join!(parted.map(|found| found.ok_or(())), asked.map(Ok));
        let Ok(((), said)) = both else { return false };
        if quorate_membership::mutant!("leaders_refusal_suffices") {
            return true;
        }
        let gone = |said: &Refused| said.refuses && !said.connected;
        let agree: BTreeSet<NodeId> = said.iter().map(|(voter, _)| *voter).chain([self.node()]).collect();
        said.iter().all(|(_, said)| gone(said)) && self.state().configuration().has_quorum(&agree)
    }

    /// Whether nothing forbids this node to stand for election: it is a voter, past its embargo (P22), with a disk that works,
    /// and has not stood in place of lost leaders too often.
    fn may_stand_now(&self) -> bool {
        let now = clock::now();
        let past = self.embargo_ends().is_none_or(|ends| now >= ends) && !self.0.stood.often(now);
        let voter = self.state().configuration().is_lasting_voter(self.node());
        past && voter && self.disk_trouble().is_none() && self.stopped().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestCluster;

    /// After a cut has healed every node looks at every other: that must not be a flood.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_node_that_runs_is_tried_a_few_times_and_one_that_is_about_to_refuse_is_found_out() -> anyhow::Result<()>
    {
        let mut t = TestCluster::start(3).await?;
        t.until_active("n3#1").await?;
        let engine = t.node(1)?.handle()?.parts.engine.clone();
        let (one, two, three) = (NodeId::new(1), NodeId::new(2), NodeId::new(3));
        assert!(!engine.sees_refusal(two).await.refuses);
        let tried = t.network.attempts(one, two);
        assert!((2..=5).contains(&tried), "{tried} attempts");
        // The kernel closes the sockets of a process one after the other.
        let network = t.network.clone();
        let closes = tokio::spawn(async move {
            sleep(Duration::from_millis(6)).await;
            network.reject(one, three);
        });
        assert!(engine.sees_refusal(three).await.refuses);
        closes.await?;
        Ok(())
    }
}
