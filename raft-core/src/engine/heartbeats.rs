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
use tokio::time::Instant;

use crate::error::TransportError;

/// When what each other node has answered was sent, in which term, and how long that answer took.
#[derive(Debug, Default)]
pub(crate) struct Answered(Mutex<BTreeMap<NodeId, (u64, Instant, Duration)>>);

impl Answered {
    /// Notes that `node` follows the leader of `term`: it has just answered a heartbeat that was sent then.
    pub(crate) fn note(&self, node: NodeId, term: u64, sent: Instant) {
        let (mut all, answer) = (self.0.lock(), (term, sent, sent.elapsed()));
        let newest = all.entry(node).or_insert(answer);
        *newest = (*newest).max(answer);
    }

    /// How long the answer to the newest heartbeat took that was answered.
    pub(crate) fn round_trip(&self, node: NodeId) -> Duration {
        self.0.lock().get(&node).map(|(.., took)| *took).unwrap_or_default()
    }

    /// The nodes that have answered in `term` what was sent no longer ago than `limit`.
    pub(crate) fn within(&self, term: u64, limit: Duration) -> BTreeSet<NodeId> {
        let all = self.0.lock();
        all.iter().filter(|(_, (of, sent, _))| *of == term && sent.elapsed() < limit).map(|(node, _)| *node).collect()
    }

    /// The latest time so that a quorum, with `me`, has answered in `term` what was sent then or later.
    pub(crate) fn by_quorum(&self, term: u64, me: NodeId, configuration: &Configuration) -> Option<Instant> {
        let all = self.0.lock();
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

/// What became of a heartbeat: its number, and its answer.
type Ended<T> = (u64, Result<T, TransportError>);

/// The heartbeats to one node that were sent and are not answered. Those that openraft has given up go on while a later one
/// is waited for; all end with the leadership that sent them.
pub(crate) struct Heartbeats<T> {
    under_way: Mutex<FuturesUnordered<BoxFuture<'static, Ended<T>>>>,
    sent: u64,
}

impl<T> Default for Heartbeats<T> {
    fn default() -> Self {
        Self { under_way: Mutex::default(), sent: 0 }
    }
}

impl<T: Send + 'static> Heartbeats<T> {
    /// Sends one more, and waits for the first answer to it or to an earlier one. Dropping the future leaves all on their
    /// way.
    ///
    /// # Errors
    /// The fault of this one. Those of earlier ones say nothing new.
    pub(crate) async fn send(
        &mut self,
        heartbeat: impl Future<Output = Result<T, TransportError>> + Send + 'static,
    ) -> Result<T, TransportError> {
        self.sent += 1;
        let (number, under_way) = (self.sent, self.under_way.get_mut());
        under_way.push(heartbeat.map(move |answer| (number, answer)).boxed());
        while let Some((of, answer)) = under_way.next().await {
            let counts = answer.is_ok() && !cfg!(quorate_mutant = "late_answers_ignored");
            if of == number || counts {
                return answer;
            }
        }
        Err(TransportError::Broken("the heartbeat was lost on this node".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_comes_while_a_later_heartbeat_waits_is_taken() {
        use std::sync::Arc;
        let (answered, mut heartbeats) = (Arc::new(Answered::default()), Heartbeats::default());
        let (began, mut counted) = (Instant::now(), vec![]);
        for _ in 0..5 {
            let answered = answered.clone();
            let heartbeat = async move {
                let sent = Instant::now();
                tokio::time::sleep(Duration::from_millis(200)).await;
                answered.note(n(2), 1, sent);
                Ok(sent)
            };
            let next = Instant::now() + Duration::from_millis(80);
            counted.push(tokio::time::timeout_at(next, heartbeats.send(heartbeat)).await.ok().and_then(Result::ok));
            tokio::time::sleep_until(next).await;
        }
        let counted: Vec<_> = counted.iter().map(|sent| sent.map(|sent| (sent - began).as_millis())).collect();
        assert_eq!(counted, [None, None, Some(0), Some(80), Some(160)], "each is answered after 200 ms");
        assert_eq!(answered.round_trip(n(2)), Duration::from_millis(200));
    }
}
