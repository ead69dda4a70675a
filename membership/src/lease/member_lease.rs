//! The member's side of a lease: which renewals it sent and when, until when it may act, and whether it has notice.
//!
//! ```text
//!                 grant                        E − M: notice                       E: lost
//!   Lapsed ─────────────────▶ Held ──────────────────────────────▶ Notice ──────────────────▶ Lapsed
//!                              ▲            a later grant            │ the consumer stops its work; or the
//!                              └─────────────────────────────────────┘ mechanism ends it at E
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use super::Reading;
use crate::id::Identity;

/// The stage of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// There is no lease: no work may begin or run.
    Lapsed,
    /// The lease ends soon, or the life is being fenced: no work may begin, and running work has to stop within `left`.
    Notice {
        /// The time left until the stop mechanism acts, on the member's clock.
        left: Duration,
    },
    /// The lease is held: work may begin and run.
    Held {
        /// The time left until the stop mechanism acts, on the member's clock.
        left: Duration,
    },
}

/// How many renewals may be under way. The oldest is forgotten first, and a grant for it then counts for nothing.
const UNDER_WAY: usize = 64;

/// The lease of one life.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MemberLease {
    who: Identity,
    lease: Duration,
    margin: Duration,
    renew: Duration,
    next: u64,
    sent: BTreeMap<u64, Reading>,
    /// When the renewal of the latest grant was sent. The lease is counted from here.
    from: Option<Reading>,
    last_sent: Option<Reading>,
    condemned: bool,
}

impl MemberLease {
    /// The lease of `who`. It lasts for `lease`, gives notice `margin` before its end, and is renewed every `renew`.
    pub fn new(who: Identity, lease: Duration, margin: Duration, renew: Duration) -> Self {
        let (sent, from, last_sent) = (BTreeMap::new(), None, None);
        Self { who, lease, margin, renew, next: 1, sent, from, last_sent, condemned: false }
    }

    /// The life that holds this lease.
    pub fn who(&self) -> Identity {
        self.who
    }

    /// The number of a renewal, if one is due at `now`. `now` is noted as the time of sending, so the bytes must be
    /// sent after this call (P6). No number is used twice.
    pub fn poll_renewal(&mut self, now: Reading) -> Option<u64> {
        if self.condemned || self.last_sent.is_some_and(|last| now.longest_since(last) < self.renew) {
            return None;
        }
        let seq = self.next;
        self.next = self.next.checked_add(1)?;
        self.last_sent = Some(now);
        let lease = self.lease;
        self.sent.retain(|_, at| now.longest_since(*at) < lease);
        if self.sent.len() >= UNDER_WAY {
            self.sent.pop_first();
        }
        self.sent.insert(seq, now);
        Some(seq)
    }

    /// The last renewal was refused by a node that named another leader: the next one is due at once.
    pub fn handle_refusal(&mut self) {
        self.last_sent = None;
    }

    /// A grant of renewal `seq` of `who` arrived (P9). It only refers to a time that this member noted itself, so a
    /// late, repeated or reordered grant is harmless. Returns whether it prolonged the lease.
    pub fn handle_grant(&mut self, who: Identity, seq: u64, now: Reading) -> bool {
        let accept_any = mutant!("stale_grant_accepted");
        if who != self.who && !accept_any {
            return false;
        }
        let sent = match self.sent.get(&seq) {
            Some(_) if mutant!("lease_from_receipt") => now,
            Some(at) => *at,
            None if accept_any => now,
            None => return false,
        };
        let better = self.from.is_none_or(|from| from.longest_since(sent).is_zero() && sent != from);
        if better {
            self.from = Some(sent);
        }
        // Renewals sent before the granted one can no longer prolong the lease.
        self.sent.retain(|earlier, _| *earlier > seq || accept_any);
        better
    }

    /// According to the log this life is being fenced or has ended: it renews no more, and has notice at once (P16).
    pub fn handle_condemned(&mut self) {
        self.condemned = true;
    }

    /// Whether this life is being fenced or has ended, according to the log.
    pub fn is_condemned(&self) -> bool {
        self.condemned
    }

    /// The time left at `now` until E, where the stop mechanism acts.
    pub fn left(&self, now: Reading) -> Duration {
        self.from.map_or(Duration::ZERO, |from| self.lease.saturating_sub(now.longest_since(from)))
    }

    /// When the renewal was sent that the lease is counted from. `None` before the first grant.
    pub fn held_from(&self) -> Option<Reading> {
        self.from
    }

    /// Whether a grant of renewal `seq` would still count.
    pub fn awaits(&self, seq: u64) -> bool {
        self.sent.contains_key(&seq)
    }

    /// The time left at `now` until the next renewal is due.
    pub fn until_renewal(&self, now: Reading) -> Duration {
        self.last_sent.map_or(Duration::ZERO, |last| self.renew.saturating_sub(now.longest_since(last)))
    }

    /// The stage at `now` (P15, P16).
    pub fn stage(&self, now: Reading) -> Stage {
        match self.left(now) {
            left if left.is_zero() => Stage::Lapsed,
            left if left <= self.margin || self.condemned => Stage::Notice { left },
            left => Stage::Held { left },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Incarnation, NodeId};

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn at(t: u64) -> Reading {
        Reading::steady(ms(t))
    }

    fn holder() -> MemberLease {
        MemberLease::new(Identity::new(NodeId::new(3), Incarnation::new(2)), ms(3000), ms(600), ms(300))
    }

    #[test]
    fn a_lease_is_counted_from_the_sending_and_gives_notice_before_its_end() {
        let (mut h, who) = (holder(), holder().who());
        assert_eq!(h.poll_renewal(at(1000)), Some(1));
        assert_eq!(h.poll_renewal(at(1299)), None);
        assert_eq!(h.stage(at(1300)), Stage::Lapsed);
        assert!(h.handle_grant(who, 1, at(1400)));
        assert_eq!(h.stage(at(1400)), Stage::Held { left: ms(2600) });
        assert_eq!(h.stage(at(3399)), Stage::Held { left: ms(601) });
        assert_eq!(h.stage(at(3400)), Stage::Notice { left: ms(600) });
        assert_eq!(h.stage(at(4000)), Stage::Lapsed);
    }

    #[test]
    fn doubled_late_reordered_and_foreign_grants_are_harmless() {
        let (mut h, who) = (holder(), holder().who());
        let (first, second) = (h.poll_renewal(at(0)), h.poll_renewal(at(300)));
        assert_eq!((first, second), (Some(1), Some(2)));
        let other = Identity::new(who.node, who.incarnation.next());
        assert!(!h.handle_grant(other, 2, at(400)) && !h.handle_grant(who, 7, at(400)));
        assert!(h.handle_grant(who, 2, at(400)));
        assert!(!h.handle_grant(who, 2, at(2000)) && !h.handle_grant(who, 1, at(2000)));
        assert_eq!(h.left(at(300)), ms(3000));
        assert_eq!(h.left(at(3300)), ms(0));
    }

    #[test]
    fn who_is_condemned_has_notice_at_once_and_asks_no_more() {
        let (mut h, who) = (holder(), holder().who());
        assert_eq!(h.poll_renewal(at(0)), Some(1));
        assert!(h.handle_grant(who, 1, at(10)));
        h.handle_condemned();
        assert_eq!(h.stage(at(20)), Stage::Notice { left: ms(2980) });
        assert_eq!(h.poll_renewal(at(900)), None);
    }

    #[test]
    fn a_refusal_lets_it_ask_again_at_once_under_a_new_number() {
        let mut h = holder();
        assert_eq!(h.poll_renewal(at(0)), Some(1));
        h.handle_refusal();
        assert_eq!(h.poll_renewal(at(1)), Some(2));
    }
}
