//! When this voter heard of each life last, and what the voters say of it to a new leader.
//!
//! ```text
//!   this leader: name_renewed(lives) ─▶ in every call that may confirm a read ─▶ the voter notes each, then answers
//!   a new leader: ask_for_receipts ──Call::Receipts──▶ accepts the vote, has the log, tells what it has noted
//! ```
//!
//! The rules, and why they are safe, are in `membership` (`lease::ReceiptLog`). Here is what they require of a voter: it notes
//! before openraft sees the call, and so before it accepts it; it tells only after openraft has accepted the vote of the leader
//! that asks, and so confirms nothing more for another; and it begins anew with every change of the voters that comes to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use quorate_membership::lease::{Reading, ReceiptLog, Receipts};
use quorate_membership::{ClusterState, Configuration, Identity, NodeId, Revision};
use tokio::time::{Instant, sleep};

use crate::engine::Engine;
use crate::engine::state_machine::revision;
use crate::engine::types::{log_id_from, membership_from, vote_from};
use crate::error::Refusal;
use crate::host::clock;
use crate::rpc::{Append, Appended, AskReceipts, Ballot, Body, LogEntry, Position};

/// The answers of voters, each with a reading of the clock after it came.
pub(crate) type Answers = BTreeMap<NodeId, (Receipts, Reading)>;

/// What this process has noted, and which lives its own calls name while it leads.
#[derive(Debug)]
pub(crate) struct Noted {
    log: Mutex<ReceiptLog>,
    round: Mutex<Arc<[Identity]>>,
}

impl Noted {
    pub(super) fn new() -> Self {
        Self { log: Mutex::new(ReceiptLog::new(clock::reading())), round: Mutex::new([].into()) }
    }

    /// The lives that a call of this leader names now.
    pub(super) fn round(&self) -> Arc<[Identity]> {
        self.round.lock().clone()
    }

    /// Notes what the call of a leader says, before it is accepted. A configuration that is applied here has come before: a new
    /// leader sends again what it does not know to be here.
    pub(super) fn note_append(&self, append: &Append, applied: Revision) {
        if let Some(lives) = append.renewed.as_ref().filter(|lives| !lives.is_empty()) {
            self.log.lock().note(lives.iter().copied(), clock::reading());
        }
        let changes =
            |entry: &LogEntry| matches!(entry.body, Body::Configuration(_)) && revision(entry.at.index) > applied;
        if append.entries.iter().any(changes) {
            self.note_voters();
        }
    }

    /// Notes that the voters change.
    pub(super) fn note_voters(&self) {
        self.log.lock().begin_anew(clock::reading());
    }

    fn told(&self, state: &ClusterState) -> Receipts {
        let mut log = self.log.lock();
        log.forget_ended(state);
        log.receipts(clock::reading())
    }
}

impl Engine {
    /// The calls of this leader name these lives from now on, until it names others: a quorum that accepts them confirms their
    /// renewals. This node notes them too, because it counts towards the quorum. Names are never withdrawn, so that a read under
    /// way cannot be confirmed without them; a life that is named for longer than it must be is only noted later.
    pub(crate) fn name_renewed(&self, lives: Vec<Identity>) {
        let noted = &self.0.peers.receipts;
        noted.log.lock().note(lives.iter().copied(), clock::reading());
        *noted.round.lock() = lives.into();
    }

    /// Tells a new leader what this voter has noted.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] if this node does not follow that leader, or not as far as it must. The leader may ask again.
    pub(crate) async fn tell_receipts(&self, asked: AskReceipts) -> Result<Receipts, Refusal> {
        let AskReceipts { ballot, upto } = asked;
        let noted = &self.0.peers.receipts;
        let early = quorate_membership::mutant!("receipts_before_the_vote").then(|| noted.told(&self.state()));
        let empty = Append { ballot, prev: None, entries: vec![], commit: None, renewed: Some([].into()) };
        if let Appended::HigherBallot(other) = self.append(empty).await? {
            return Err(Refusal::Unavailable(format!("{} leads in term {}", other.node, other.term)));
        }
        // Of the term of that leader only it has written entries. So a log that reaches there has all that it had there.
        let reaches = |last: Position| last.term == ballot.term && last >= upto;
        if upto.term != ballot.term || !self.0.store.last().is_some_and(reaches) {
            return Err(Refusal::Unavailable(format!("the log of {} does not reach to {upto} yet", self.node())));
        }
        Ok(early.unwrap_or_else(|| noted.told(&self.state())))
    }

    /// Asks the voters what they have noted, until a quorum has answered or `limit` has passed. Returns the answers, this
    /// node's among them, and the voters that they were asked as. Call it when the activation of this leader is applied.
    pub(crate) async fn ask_for_receipts(&self, limit: Duration) -> Option<(Answers, Configuration)> {
        let give_up = Instant::now() + limit;
        let (ballot, configuration, upto) = self.leads_with().await?;
        let own = (self.0.peers.receipts.told(&self.state()), clock::reading());
        let mut answers = Answers::from([(self.node(), own)]);
        let others = configuration.voters().into_iter().filter(|voter| *voter != self.node());
        let mut asked: FuturesUnordered<_> =
            others.map(|voter| self.ask_voter(voter, AskReceipts { ballot, upto }, give_up)).collect();
        while !configuration.has_quorum(&answers.keys().copied().collect()) {
            if let Some((voter, receipts, at)) = asked.next().await? {
                answers.insert(voter, (receipts, at));
            }
        }
        Some((answers, configuration))
    }

    /// The answer of one voter, which is asked again for as long as it does not follow.
    async fn ask_voter(
        &self,
        voter: NodeId,
        asked: AskReceipts,
        give_up: Instant,
    ) -> Option<(NodeId, Receipts, Reading)> {
        let heartbeat = self.config().heartbeat();
        loop {
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            // An append from a leader that must be silent would keep others from standing for election. A leader that has just
            // been elected speaks as soon as a quorum has answered it.
            if self.leading_as().is_some_and(|(ballot, _)| ballot == asked.ballot) {
                match self.peers().call(voter, asked, left.min(heartbeat * 4)).await {
                    Ok(receipts) => return Some((voter, receipts, clock::reading())),
                    Err(error) => tracing::debug!(%voter, %error, "no receipts yet"),
                }
            }
            sleep(heartbeat / 2).await;
        }
    }

    /// The vote under which this node leads, the voters, and where its log ends: their entry is in it, and so is an activation
    /// that was applied.
    async fn leads_with(&self) -> Option<(Ballot, Configuration, Position)> {
        let me = self.node();
        let read = self.0.raft.with_raft_state(move |state| {
            let (ballot, effective) = (vote_from(state.vote_ref()), state.membership_state.effective());
            let configuration = membership_from(effective.membership()).configuration();
            let leads = ballot.committed && ballot.node == me;
            leads.then(|| (ballot, configuration, effective.log_id().as_ref().map(log_id_from)))
        });
        let (ballot, configuration, configured) = read.await.ok().flatten()?;
        let upto = self.0.store.last().max(configured).filter(|last| last.term == ballot.term)?;
        Some((ballot, configuration, upto))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use quorate_membership::Incarnation;

    use super::*;
    use crate::testing::TestCluster;

    fn life(node: u64) -> Identity {
        Identity::new(NodeId::new(node), Incarnation::new(9))
    }

    fn naming(ballot: Ballot, who: Identity) -> Append {
        Append { ballot, prev: None, entries: vec![], commit: None, renewed: Some([who].into()) }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_voter_tells_whom_it_follows_once_it_has_the_log_and_all_that_it_noted_until_then() -> anyhow::Result<()>
    {
        let mut t = TestCluster::start(3).await?;
        t.until_active("n3#1").await?;
        let leader = t.leader().await?.get();
        let follower = leader % 3 + 1;
        let (led, voter) =
            (t.node(leader)?.handle()?.parts.engine.clone(), t.node(follower)?.handle()?.parts.engine.clone());
        let (ballot, _, _) = led.leads_with().await.ok_or_else(|| anyhow::anyhow!("n{leader} leads"))?;
        let upto = loop {
            match voter.0.store.last().filter(|last| last.term == ballot.term) {
                Some(last) => break last,
                None => sleep(Duration::from_millis(5)).await,
            }
        };
        let deposed = Ballot { term: ballot.term - 1, ..ballot };
        for (asked, why) in [
            (AskReceipts { ballot: deposed, upto }, "leads in term"),
            (AskReceipts { ballot, upto: Position { index: upto.index + 1000, ..upto } }, "does not reach"),
            (AskReceipts { ballot, upto: Position { term: 0, index: 0 } }, "does not reach"),
        ] {
            match voter.tell_receipts(asked).await {
                Err(Refusal::Unavailable(told)) => assert!(told.contains(why), "{told}"),
                other => anyhow::bail!("{asked:?}: {other:?}"),
            }
        }
        voter.append(naming(ballot, life(5))).await?;
        // A leader that is deposed meanwhile confirms a read: the voter has noted that before it tells.
        let telling = voter.tell_receipts(AskReceipts { ballot, upto });
        tokio::pin!(telling);
        assert!(telling.as_mut().now_or_never().is_none(), "it waits until the vote is accepted");
        let refused = voter.append(naming(deposed, life(7))).await?;
        assert!(matches!(refused, Appended::HigherBallot(_)), "{refused:?}");
        let told = telling.await?;
        assert!([life(5), life(7)].iter().all(|who| told.of.contains_key(who)), "was not told: {told:?}");
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_change_of_voters_is_noted_by_everybody_who_hears_of_it() -> anyhow::Result<()> {
        let mut t = TestCluster::start(3).await?;
        t.until_active("n3#1").await?;
        let engines: Vec<Engine> =
            (1..=3).map(|node| Ok(t.node(node)?.handle()?.parts.engine.clone())).collect::<anyhow::Result<_>>()?;
        sleep(Duration::from_millis(100)).await;
        let told = |engine: &Engine| engine.0.peers.receipts.told(&engine.state()).since;
        let before: Vec<Duration> = engines.iter().map(told).collect();
        assert!(before.iter().all(|since| *since >= Duration::from_millis(100)), "{before:?}");
        let changed = clock::reading();
        t.add(4, quorate_membership::Role::Voter).await?;
        t.until_active("n4#1").await?;
        for engine in &engines {
            let elapsed = clock::reading().longest_since(changed);
            assert!(told(engine) <= elapsed, "{} vouches for what others confirmed", engine.node());
        }
        Ok(())
    }
}
