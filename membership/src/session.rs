//! Sessions as the leader sees them: which ones it has heard, and which ones are to expire.
//!
//! ```text
//!   client ──KeepAlive──▶ any node ──▶ leader: noted on receipt, confirmed by a read begun after it ──▶ "alive"
//!                                        │ nothing for ttl · (1 + 2ρ) on its own clock, under its activation
//!                                        ▼
//!                             ExpireSession{under, waited} ──▶ SessionEnded, its locks delayed, then passed on
//! ```
//!
//! The time to live is a lower bound: a session lives for at least that long on its client's clock, from the sending of
//! a keep-alive that was answered. The argument is that of a lease's grant (P7, P8). The answer is a linearizable read
//! begun after the receipt, so a later leader was activated later and begins its wait there. And once the end of a
//! session is proposed, no keep-alive of it is answered under that activation. After a change of leaders a session ends
//! late, never early.
//!
//! The end of a session does not prove that its client has stopped; see [`lock`](crate::lock).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cluster::ClusterState;
use crate::command::Command;
use crate::id::{Activation, Revision, SessionId};
use crate::lease::Reading;
use crate::store::lock::Name;
pub use crate::store::session::{MAX_SESSIONS, MAX_TTL, MIN_TTL, Session, wait};

/// When the leader heard each session last, and since when each lock-delay lasts. It has no clock: `now` is an
/// argument.
#[derive(Debug, Clone, Default)]
pub struct Sessions {
    heard: BTreeMap<SessionId, Reading>,
    /// The sessions whose end is being proposed, with the time waited. Final under this activation: the proposal may
    /// have been committed already.
    ending: BTreeMap<SessionId, Duration>,
    delayed: BTreeMap<(Name, Revision), Reading>,
}

impl Sessions {
    /// Follows the committed state. The waits for new sessions and lock-delays begin at `now`; ended ones are
    /// forgotten.
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

    /// Another activation has begun: every wait begins again (P4).
    pub fn handle_activation(&mut self) {
        self.heard.clear();
        self.ending.clear();
        self.delayed.clear();
    }

    /// A keep-alive of a session was received at `now`. `false` if its end is being proposed: then the keep-alive must
    /// not be answered, since the session may have ended before the answer arrives.
    pub fn handle_keep_alive(&mut self, session: SessionId, now: Reading) -> bool {
        if self.ending.contains_key(&session) && !mutant!("session_spared_too_late") {
            return false;
        }
        if let Some(heard) = self.heard.get_mut(&session) {
            *heard = now;
        }
        true
    }

    /// This leader itself was paused until `now`, so it may have missed keep-alives. Every wait for a session begins
    /// again.
    pub fn handle_pause(&mut self, now: Reading) {
        self.heard.values_mut().for_each(|heard| *heard = now);
    }

    /// The commands to propose under the activation `under`: for sessions and lock-delays whose wait is over at `now`.
    /// A session is marked in the same step, and proposed again until it has ended.
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
    use crate::bounded_text::Reason;
    use crate::event::Event;
    use crate::evolve::evolve;

    /// Once its end is proposed it may be committed at any time, and the answer "alive" would be wrong when it arrives.
    #[test]
    fn whose_end_is_proposed_is_not_told_that_it_lives() {
        let (mut state, id, under) = (ClusterState::new(), SessionId::new(7), Activation::new(3));
        let label = Reason::clipped("tool");
        let session = Session { ttl: MIN_TTL, lock_delay: Duration::ZERO, label, owner: None };
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
