//! One heartbeat, and those that need not be sent: to a node without a vote that calls this leader itself.
//!
//! ```text
//!   learner ─ renewal ─▶ leader        both have heard the other, as from a heartbeat
//!           ◀─ grant ──                      │
//!   openraft ─ heartbeat to the learner ─▶ has it called lately, and does it know ballot and commit? ─ yes ─▶ answered here
//!                                                                                                 └ no ──▶ sent
//! ```
//!
//! A heartbeat does three things. It keeps others from standing for election, which a node without a vote does not. It shows
//! each side that the other is there, as a renewal does. And it carries the commit, which the learner was told before. With a
//! thousand members they are most of what a leader does.
//!
//! openraft takes what is answered here for an answer of the learner. It counts the answers of voters only, and a member whose role
//! has a vote is sent every heartbeat, also before and after it votes.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_membership::NodeId;
use quorate_membership::detector::Moment;
use tokio::time::Instant;

use crate::engine::peers::Peers;
use crate::error::TransportError;
use crate::host::clock;
use crate::rpc::{Append, Appended, Ballot, Position, StreamAppended};

/// What a heartbeat tells.
type Tells = (Ballot, Option<Position>);

/// What one node was told by the heartbeat that it has answered last. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Told(Arc<Mutex<Option<Tells>>>);

impl Told {
    /// Notes that a heartbeat which tells this was answered.
    pub(super) fn note(&self, tells: Tells) {
        *self.0.lock() = Some(tells);
    }
}

/// Decides which heartbeats to one node are sent.
pub(super) struct Spared {
    lately: Duration,
    told: Told,
}

impl Spared {
    /// `lately`: how long ago a node may have called that needs no heartbeat.
    pub(super) fn new(lately: Duration) -> Self {
        Self { lately, told: Told::default() }
    }

    /// Where to note what was answered.
    pub(super) fn told(&self) -> Told {
        self.told.clone()
    }

    /// The answer to a heartbeat that need not be sent; `None` if it must be.
    pub(super) fn answer(&self, heartbeat: &Append, peers: &Peers, to: NodeId) -> Option<StreamAppended> {
        let spared = self.spares(heartbeat, peers.contacts.called(to), clock::now()) && !peers.has_a_vote(to);
        spared.then_some(StreamAppended::Flushed(heartbeat.prev))
    }

    fn spares(&self, heartbeat: &Append, called: Option<Moment>, now: Moment) -> bool {
        let told = *self.told.0.lock() == Some((heartbeat.ballot, heartbeat.commit));
        (told || quorate_membership::mutant!("spared_untold")) && called.is_some_and(|at| now.since(at) < self.lately)
    }
}

/// Sends one heartbeat, and notes its answer, however late it is.
pub(super) async fn heartbeat(
    peers: Arc<Peers>,
    to: NodeId,
    mut heartbeat: Append,
    limit: Duration,
    told: Told,
) -> Result<StreamAppended, TransportError> {
    let (sent, term) = (Instant::now(), heartbeat.ballot.term);
    let tells = (heartbeat.ballot, heartbeat.commit);
    // Whoever waits for answers to what is sent from now on has named the lives before.
    heartbeat.renewed = Some(peers.receipts.round());
    let prev = heartbeat.prev;
    let answer = peers.call(to, heartbeat, limit).await;
    // This process may have stood still while the answer waited for it.
    if sent.elapsed() > limit {
        return Err(TransportError::Timeout(limit));
    }
    let answer = peers.heard(to, answer)?;
    // As openraft has it: whose log differs follows all the same.
    if !matches!(answer, Appended::HigherBallot(_)) {
        peers.answered.note(to, term, sent);
    }
    if matches!(answer, Appended::Success | Appended::Partial(_)) {
        told.note(tells);
    }
    Ok(match answer {
        Appended::Success => StreamAppended::Flushed(prev),
        Appended::Partial(at) => StreamAppended::Flushed(at),
        // Nothing comes before the beginning of a log, so it cannot differ there.
        Appended::Conflict => prev.map_or(StreamAppended::Flushed(None), StreamAppended::Conflict),
        Appended::HigherBallot(ballot) => StreamAppended::HigherBallot(ballot),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use quorate_membership::{Command, Key, Role};
    use tokio::time::{sleep, timeout};

    use crate::testing::{TestCluster, fast};

    use super::*;

    /// How often the leader has called, as the node at the other end of `peers` has noted it in so many heartbeats.
    async fn calls(peers: &Peers, leader: NodeId, heartbeats: u32) -> usize {
        let mut noted = BTreeSet::new();
        for _ in 0..heartbeats * 5 {
            noted.extend(peers.contacts.called(leader));
            sleep(fast().heartbeat() / 5).await;
        }
        noted.len()
    }

    #[test]
    fn who_called_lately_and_knows_the_commit_is_spared() {
        let (at, spared) = (Moment::new, Spared::new(Duration::from_millis(320)));
        let ms = Duration::from_millis;
        let heartbeat = |term, index| Append {
            ballot: Ballot { term, node: NodeId::new(1), committed: true },
            prev: None,
            entries: vec![],
            commit: Some(Position { term, index }),
            renewed: None,
        };
        let tells = |append: &Append| (append.ballot, append.commit);
        let (older, newer, other) = (heartbeat(1, 7), heartbeat(1, 8), heartbeat(2, 8));
        let now = at(ms(10_000));
        assert!(!spared.spares(&older, Some(now), now), "nothing was told yet");
        spared.told().note(tells(&older));
        for (append, called, expected) in [
            (&older, Some(at(ms(9_681))), true),
            (&older, Some(at(ms(9_680))), false),
            (&older, None, false),
            (&newer, Some(now), false),
            (&other, Some(now), false),
        ] {
            assert_eq!(spared.spares(append, called, now), expected, "{append:?} {called:?}");
        }
        // The answer to the older one, which comes after that to the newer one, does not count for the newer.
        spared.told().note(tells(&newer));
        spared.told().note(tells(&older));
        assert!(!spared.spares(&newer, Some(now), now));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_learner_that_renews_its_lease_is_spared_heartbeats_and_hears_of_each_commit() -> anyhow::Result<()> {
        let mut t = TestCluster::start(3).await?;
        t.add(4, Role::Learner).await?;
        t.until_active("n4#1").await?;
        let leader = t.leader().await?;
        let engine = t.node(4)?.handle()?.parts.engine.clone();
        let spared = calls(engine.peers(), leader, 40).await;
        assert!(spared < 20, "{spared} calls in 40 heartbeats");
        assert!(t.node(4)?.handle()?.view().local.quorate, "a grant shows as much as a heartbeat");
        for round in ["a", "b"] {
            let put = t.node(leader.get())?.handle()?.records().put(Key::new(round)?, "written").await?;
            let mut applied = engine.progress();
            timeout(fast().propose_timeout, applied.wait_for(|at| *at >= put)).await??;
        }
        // Who is to vote gets all of them, and so does who cannot be heard.
        let to_vote = Command::SetRole { node: NodeId::new(4), role: Role::Voter, by: None };
        t.node(leader.get())?.handle()?.propose(to_vote).await?;
        t.until("n4 votes", |state| state.configuration().is_voter(NodeId::new(4))).await?;
        let sent = calls(engine.peers(), leader, 40).await;
        assert!(sent > spared * 2, "{sent} calls in 40 heartbeats, and {spared} before");
        let to_learn = Command::SetRole { node: NodeId::new(4), role: Role::Learner, by: None };
        t.node(leader.get())?.handle()?.propose(to_learn).await?;
        t.until("n4 learns", |state| !state.configuration().is_voter(NodeId::new(4))).await?;
        t.network.cut_one_way(NodeId::new(4), leader);
        sleep(fast().heartbeat() * 8).await;
        let sent = calls(engine.peers(), leader, 40).await;
        assert!(sent > spared * 2, "{sent} calls in 40 heartbeats, and {spared} before");
        Ok(())
    }
}
