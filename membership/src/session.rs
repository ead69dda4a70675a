//! Sessions: how a client that is no member holds locks, and how the leader knows that one has ended.
//!
//! ```text
//!   client ──KeepAlive──▶ any node ──▶ leader: noted on receipt, confirmed by a read begun after it ──▶ "alive"
//!                                        │ nothing for ttl · (1 + 2ρ) on its own clock, under its activation
//!                                        ▼
//!                             ExpireSession{under, waited} ──▶ SessionEnded, its locks delayed, then passed on
//! ```
//!
//! The time to live is a lower bound: from the sending of a keep-alive that was answered, the session lives at least so
//! long, on the client's clock. It is the argument of a lease's grant (P7, P8): the answer is a linearizable read begun
//! after the receipt, so whoever leads later has activated later, and waits anew from there; and a session whose end was
//! proposed is not told so any more under that activation. It ends late after a change of leader, and never early.
//!
//! It is no proof that the client has stopped; see [`lock`](crate::lock).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cluster::ClusterState;
use crate::command::Command;
use crate::id::{Activation, Revision, SessionId};
use crate::lease::Reading;
use crate::store::lock::Name;
pub use crate::store::session::{MAX_SESSIONS, MAX_TTL, MIN_TTL, Session, wait};

/// What the leader hears of sessions, and how long it has waited: no clock inside, `now` is an argument.
#[derive(Debug, Clone, Default)]
pub struct Sessions {
    heard: BTreeMap<SessionId, Reading>,
    /// Whose end is being proposed. For good under this activation: whoever speaks up now may be ended already.
    ending: BTreeMap<SessionId, Duration>,
    delayed: BTreeMap<(Name, Revision), Reading>,
}

impl Sessions {
    /// Follows the committed state: what is new is waited for from `now` on, what is gone is forgotten.
    pub fn handle_applied(&mut self, state: &ClusterState, now: Reading) {
        let store = state.store();
        self.heard.retain(|session, _| store.session(*session).is_some());
        self.ending.retain(|session, _| store.session(*session).is_some());
        for (session, _) in store.sessions() {
            self.heard.entry(session).or_insert(now);
        }
        let delays = || store.locks().filter_map(|(name, lock)| Some((name, lock.delay?)));
        self.delayed.retain(|(name, token), _| {
            store.lock(name).and_then(|lock| lock.delay).is_some_and(|delay| delay.token == *token)
        });
        for (name, delay) in delays() {
            self.delayed.entry((name.clone(), delay.token)).or_insert(now);
        }
    }

    /// Another activation counts from here on: every wait begins anew (P4).
    pub fn handle_activation(&mut self) {
        self.heard.clear();
        self.ending.clear();
        self.delayed.clear();
    }

    /// A keep-alive was received. `false` if its end is being proposed: then it must not be told that it lives, as it may
    /// have ended by the time that it hears so.
    pub fn handle_keep_alive(&mut self, session: SessionId, now: Reading) -> bool {
        if self.ending.contains_key(&session) && !cfg!(quorate_mutant = "session_spared_too_late") {
            return false;
        }
        if let Some(heard) = self.heard.get_mut(&session) {
            *heard = now;
        }
        true
    }

    /// This leader itself stood still, and may not have received what was sent: every wait begins anew.
    pub fn handle_pause(&mut self, now: Reading) {
        self.heard.values_mut().for_each(|heard| *heard = now);
    }

    /// What has been waited for long enough, to be proposed under `under`. A session is marked in the same step.
    pub fn poll(&mut self, state: &ClusterState, under: Activation, now: Reading) -> Vec<Command> {
        let store = state.store();
        for (session, heard) in &self.heard {
            let waited = now.shortest_since(*heard);
            if store.session(*session).is_some_and(|open| waited >= wait(open.ttl)) {
                self.ending.entry(*session).or_insert(waited);
            }
        }
        let ended = self.ending.iter().map(|(session, waited)| {
            let (session, waited) = (*session, *waited);
            Command::ExpireSession { session, under, waited }
        });
        let lifted = self.delayed.iter().filter_map(|((name, token), since)| {
            let waited = now.shortest_since(*since);
            let delay = store.lock(name)?.delay.filter(|delay| delay.token == *token)?;
            let due = waited >= wait(delay.at_least);
            due.then(|| Command::LiftDelay { name: name.clone(), token: *token, under, waited })
        });
        ended.chain(lifted).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;
    use crate::evolve::evolve;
    use crate::text::Reason;

    /// Proposed and not committed yet: an answer "alive" would be wrong by the time that it is heard.
    #[test]
    fn whose_end_is_proposed_is_not_told_that_it_lives() {
        let (mut state, id, under) = (ClusterState::new(), SessionId::new(7), Activation::new(3));
        let label = Reason::clipped("tool");
        let session = Session { ttl: MIN_TTL, lock_delay: Duration::ZERO, label };
        evolve(&mut state, Revision::new(7), &Event::SessionOpened { id, session });
        let at = |ms| Reading::steady(Duration::from_millis(ms));
        let mut sessions = Sessions::default();
        sessions.handle_applied(&state, at(0));
        assert!(sessions.handle_keep_alive(id, at(400)) && sessions.poll(&state, under, at(900)).is_empty());
        assert_eq!(sessions.poll(&state, under, at(1000)).len(), 1);
        assert!(!sessions.handle_keep_alive(id, at(1001)), "it may have ended already");
        sessions.handle_pause(at(1002));
        assert_eq!(sessions.poll(&state, under, at(1003)).len(), 1, "for good, under this activation");
        sessions.handle_activation();
        sessions.handle_applied(&state, at(1100));
        assert!(sessions.handle_keep_alive(id, at(1200)) && sessions.poll(&state, under, at(1300)).is_empty());
    }
}
