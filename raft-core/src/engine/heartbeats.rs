//! Heartbeats whose answers are late, and what they show: which nodes follow this leader, and whether a quorum does.
//!
//! ```text
//!   openraft ─ a heartbeat, and 80 ms for its answer ─▶ Heartbeats ─▶ transport, and election_min for its answer
//!                 ◀─ the first answer, to this one or an earlier ─┤
//!   a quorum follows?  ◀── when what each node has answered was sent ─┘
//! ```
//!
//! openraft gives up a heartbeat that is not answered within one heartbeat interval, and does not count a later answer. On a
//! thin link that carries entries, and between distant sites, an answer takes longer. The followers receive every heartbeat,
//! and their leader believes that it has lost them: it takes no command, and falls silent. So what was sent is waited for
//! here for as long as its answer says that a follower follows, and openraft is given the first answer that comes.
//!
//! openraft counts that answer from the sending of its *newest* heartbeat, which is later by up to `election_min`. Nothing that
//! must be true depends on it: openraft decides by it whether it takes commands and keeps sending, and reads and leases are
//! confirmed by calls of their own (`confirm.rs`). What this crate itself concludes counts from the sending of what was
//! answered.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use parking_lot::Mutex;
use quorate_membership::{Configuration, NodeId};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::error::TransportError;
use crate::rpc::StreamAppended;

/// When what each other node has answered was sent, in which term, and how long that answer took.
#[derive(Debug, Default)]
pub(crate) struct Answered {
    all: Mutex<BTreeMap<NodeId, (u64, Instant, Duration)>>,
    /// Notified of each answer.
    noted: Notify,
}

impl Answered {
    /// Notes that `node` follows the leader of `term`: it has just answered a heartbeat that was sent then.
    pub(crate) fn note(&self, node: NodeId, term: u64, sent: Instant) {
        let (mut all, answer) = (self.all.lock(), (term, sent, sent.elapsed()));
        let newest = all.entry(node).or_insert(answer);
        *newest = (*newest).max(answer);
        drop(all);
        self.noted.notify_waiters();
    }

    /// How long the answer to the newest heartbeat took that was answered.
    pub(crate) fn round_trip(&self, node: NodeId) -> Duration {
        self.all.lock().get(&node).map(|(.., took)| *took).unwrap_or_default()
    }

    /// The nodes that have answered in `term` what was sent no longer ago than `limit`.
    pub(crate) fn within(&self, term: u64, limit: Duration) -> BTreeSet<NodeId> {
        let all = self.all.lock();
        all.iter().filter(|(_, (of, sent, _))| *of == term && sent.elapsed() < limit).map(|(node, _)| *node).collect()
    }

    /// The latest time so that a quorum, with `me`, has answered in `term` what was sent then or later.
    pub(crate) fn by_quorum(&self, term: u64, me: NodeId, configuration: &Configuration) -> Option<Instant> {
        let all = self.all.lock();
        let of_term = all.iter().filter(|(_, (of, ..))| *of == term);
        let mut newest: Vec<_> = of_term.map(|(node, (_, sent, _))| (*sent, *node)).collect();
        newest.sort_unstable_by(|a, b| b.cmp(a));
        let mut answered = BTreeSet::from([me]);
        newest.into_iter().find_map(|(at, node)| {
            answered.insert(node);
            configuration.has_quorum(&answered).then_some(at)
        })
    }
}

impl Answered {
    /// Waits until a quorum, with `me`, has answered in `term` something that was sent after `begun`.
    pub(crate) async fn quorum_since(&self, begun: Instant, term: u64, me: NodeId, configuration: &Configuration) {
        loop {
            let noted = self.noted.notified();
            tokio::pin!(noted);
            // From here on no answer is missed.
            noted.as_mut().enable();
            let newest = self.by_quorum(term, me, configuration);
            if newest.is_some_and(|sent| sent > begun || quorate_membership::mutant!("earlier_heartbeats_confirm")) {
                return;
            }
            noted.await;
        }
    }
}

/// The answer to a heartbeat.
type Answer = Result<StreamAppended, TransportError>;

/// The heartbeats to one node that were sent and are not answered, each with its number. Those that openraft has given up go
/// on while a later one is waited for; all end with the leadership that sent them.
#[derive(Default)]
pub(crate) struct Heartbeats {
    under_way: Mutex<FuturesUnordered<BoxFuture<'static, (u64, Answer)>>>,
    sent: u64,
}

impl Heartbeats {
    /// Sends one more, and waits for its answer, or for the answer to an earlier one. Dropping the future leaves all on their
    /// way.
    ///
    /// # Errors
    /// The fault of this one. Those of earlier ones say nothing new.
    pub(crate) async fn send(&mut self, heartbeat: impl Future<Output = Answer> + Send + 'static) -> Answer {
        self.sent += 1;
        let (number, under_way) = (self.sent, self.under_way.get_mut());
        under_way.push(heartbeat.map(move |answer| (number, answer)).boxed());
        while let Some((of, answer)) = under_way.next().await {
            if of == number || counts_later(&answer) {
                // What has come in as well does not wait for the next heartbeat.
                self.look();
                return answer;
            }
        }
        Err(TransportError::Broken("the heartbeat was lost on this node".into()))
    }

    /// Notes the answers that have come in, and waits for none.
    pub(crate) fn look(&mut self) {
        while let Some(Some(_)) = self.under_way.get_mut().next().now_or_never() {}
    }
}

/// Whether the answer to an earlier heartbeat may stand for a later one. That the follower follows, and that it has seen a
/// higher vote, may. That its log differs may not: openraft takes it to differ in the place that the later one names.
fn counts_later(answer: &Answer) -> bool {
    matches!(answer, Ok(StreamAppended::Flushed(_) | StreamAppended::HigherBallot(_)))
        && !quorate_membership::mutant!("late_answers_ignored")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::Position;

    const ELECTION: Duration = Duration::from_millis(800);

    fn n(number: u64) -> NodeId {
        NodeId::new(number)
    }

    #[tokio::test(start_paused = true)]
    async fn a_quorum_is_as_old_as_the_oldest_sending_that_it_needs() {
        let configuration = Configuration::uniform((1..=5).map(n), []);
        let (answered, began) = (Answered::default(), Instant::now());
        let at = |ms| began + Duration::from_millis(ms);
        answered.note(n(2), 7, at(300));
        answered.note(n(3), 6, at(400));
        assert_eq!(answered.by_quorum(7, n(1), &configuration), None, "n3 has answered in another term");
        answered.note(n(3), 7, at(100));
        answered.note(n(3), 7, at(50));
        assert_eq!(answered.by_quorum(7, n(1), &configuration), Some(at(100)), "a later answer to an earlier one");
        answered.note(n(4), 7, at(200));
        assert_eq!(answered.by_quorum(7, n(1), &configuration), Some(at(200)));
        tokio::time::advance(Duration::from_millis(900)).await;
        assert_eq!(
            answered.within(7, ELECTION),
            [n(2), n(4)].into(),
            "n3 was sent nothing for 800 ms that it answered"
        );
        assert_eq!(answered.within(6, ELECTION), BTreeSet::new());
    }

    /// Sends one every 80 ms, each answered by `answers` after 200 ms. Returns what each was told.
    async fn told(answers: impl Fn(u64) -> StreamAppended, count: u64) -> Vec<Option<StreamAppended>> {
        let (mut heartbeats, mut told) = (Heartbeats::default(), vec![]);
        for number in 0..count {
            let answer = answers(number);
            let heartbeat = async move {
                tokio::time::sleep(Duration::from_millis(200)).await;
                Ok(answer)
            };
            let next = Instant::now() + Duration::from_millis(80);
            told.push(tokio::time::timeout_at(next, heartbeats.send(heartbeat)).await.ok().and_then(Result::ok));
            tokio::time::sleep_until(next).await;
        }
        told
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_comes_while_a_later_heartbeat_waits_is_taken() {
        let at = |number| StreamAppended::Flushed(Some(Position { term: 1, index: number }));
        let told = told(at, 5).await;
        assert_eq!(told, [None, None, Some(at(0)), Some(at(1)), Some(at(2))]);
    }

    #[tokio::test(start_paused = true)]
    async fn that_a_log_differs_is_said_of_no_other_heartbeat() {
        let told = told(|number| StreamAppended::Conflict(Position { term: 1, index: number }), 5).await;
        assert_eq!(told, [None, None, None, None, None]);
    }

    /// After a pause there are many answers, and the next heartbeat takes them all.
    #[tokio::test(start_paused = true)]
    async fn answers_do_not_pile_up() {
        let mut heartbeats = Heartbeats::default();
        let soon = || async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok(StreamAppended::Flushed(None))
        };
        for _ in 0..5 {
            assert!(heartbeats.send(soon()).now_or_never().is_none());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(heartbeats.send(soon()).await.is_ok());
        assert!(heartbeats.under_way.get_mut().len() <= 1, "only the newest may wait");
    }
}
