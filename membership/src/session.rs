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
//! after the receipt, so whoever leads later has activated later, and waits anew from there. A session ends late after a
//! change of leader, and never early.
//!
//! It is no proof that the client has stopped; see [`lock`](crate::lock).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::command::Command;
use crate::contract::Drift;
use crate::id::{Activation, Revision, SessionId};
use crate::lease::Reading;
use crate::text::{Name, Reason};

/// The most sessions that may be open at a time.
pub const MAX_SESSIONS: usize = 4096;

/// The shortest time to live of a session.
pub const MIN_TTL: Duration = Duration::from_millis(500);

/// The longest time to live, and the longest lock-delay.
pub const MAX_TTL: Duration = Duration::from_secs(3600);

/// A session of a client.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Session {
    /// How long it lives at least after a keep-alive. [`MIN_TTL`] to [`MAX_TTL`].
    pub ttl: Duration,
    /// How long its locks are held back if it ends without having been closed. At most [`MAX_TTL`].
    pub lock_delay: Duration,
    /// Whose it is: for people.
    pub label: Reason,
}

/// How long a leader has to wait on its own clock, so that at least `ttl` has passed on any client's: E1 with nothing to
/// stop and nothing in flight, for clocks that are off by up to 1 % each.
pub const fn wait(ttl: Duration) -> Duration {
    let drift = Drift::ppm(10_000);
    drift.on_a_fast_clock(drift.on_a_slow_clock(ttl))
}

/// What the leader hears of sessions, and how long it has waited: no clock inside, `now` is an argument.
#[derive(Debug, Clone, Default)]
pub struct Sessions {
    heard: BTreeMap<SessionId, Reading>,
    delayed: BTreeMap<(Name, Revision), Reading>,
}

impl Sessions {
    /// Follows the committed state: what is new is waited for from `now` on, what is gone is forgotten.
    pub fn handle_applied(&mut self, state: &Cluster, now: Reading) {
        let store = state.store();
        self.heard.retain(|session, _| store.session(*session).is_some());
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
        self.delayed.clear();
    }

    /// A keep-alive was received. `false` if no such session is open, as far as is known here.
    pub fn handle_keep_alive(&mut self, session: SessionId, now: Reading) -> bool {
        self.heard.get_mut(&session).map(|heard| *heard = now).is_some()
    }

    /// This leader itself stood still, and may not have received what was sent: every wait begins anew.
    pub fn handle_pause(&mut self, now: Reading) {
        self.heard.values_mut().for_each(|heard| *heard = now);
    }

    /// What has been waited for long enough, to be proposed under `under`.
    pub fn poll(&self, state: &Cluster, under: Activation, now: Reading) -> Vec<Command> {
        let store = state.store();
        let ended = self.heard.iter().filter_map(|(session, heard)| {
            let waited = now.shortest_since(*heard);
            let due = waited >= wait(store.session(*session)?.ttl);
            due.then_some(Command::ExpireSession { session: *session, under, waited })
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
