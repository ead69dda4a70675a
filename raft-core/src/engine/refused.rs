//! What this node and the other voters say of a node whose connections were closed: whether its machine refuses new ones.
//!
//! ```text
//!   Peers::refuses ─▶ what is seen here ┐
//!   Call::Refuses ──▶ the other voters  ┴─▶ is a quorum refused?   no proof: a firewall can answer in its place
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use quorate_membership::NodeId;
use tokio::time::timeout;

use crate::engine::Engine;
use crate::host::clock;
use crate::rpc::{Refused, Refuses};

impl Engine {
    /// What this node says of `node`, to itself and when another voter asks. It tries for itself.
    pub(crate) async fn sees_refusal(&self, node: NodeId) -> Refused {
        let follows = self.leader().is_none_or(|known| known == node) && node != self.node();
        let refuses = node != self.node() && self.peers().refuses(node).await;
        let connected = node == self.node() || self.peers().contacts.is_connected(node) == Some(true);
        Refused { refuses, connected, follows, last: self.0.store.last(), may_stand: self.may_stand_now() }
    }

    /// Whether the machine of `node` refuses connections from this one, and has closed those that it held to it. A node that
    /// never called may run behind a firewall.
    pub(crate) async fn is_parted_from(&self, node: NodeId) -> bool {
        let parted = self.peers().contacts.is_connected(node) == Some(false);
        (parted || cfg!(quorate_mutant = "firewalled_taken_for_ended")) && self.peers().refuses(node).await
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
        if !self.is_parted_from(node).await {
            return false;
        }
        if cfg!(quorate_mutant = "leaders_refusal_suffices") {
            return true;
        }
        let gone = |said: &Refused| said.refuses && !said.connected;
        let said = self.ask_of_refusal(node, self.config().election_min() / 2).await;
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
