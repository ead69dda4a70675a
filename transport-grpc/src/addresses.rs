//! The addresses of one node: what is known of each, and which one carries entries, snapshots and commands.
//!
//! ```text
//!             answered     large answered
//!   Unknown ────────▶ Up ◀────────────▶ SmallOnly     large messages are lost on the way
//!      │               │                    │
//!      └───────────────┴────── Down ◀───────┘         no answer
//!
//!   chosen: the first that is Up and has been for STEADY; else the one of now, if it is Up; else the first that is Up;
//!           else the first that answers at all
//! ```
//!
//! The order of the addresses is their priority. A link that was lost is taken again only after it was steady for a while, as a
//! switch that restarts comes and goes for seconds (corosync's knet counts pongs for the same reason). What is seen without a
//! probe counts as well: a connection on which nothing came for too long makes its address unsteady.

use std::time::Duration;

use parking_lot::Mutex;
use quorate_membership::{Address, NodeId};
use quorate_raft_core::{LinkState, LinkView, NodeLinks};
use tokio::sync::watch;
use tokio::time::Instant;

/// For how long a link has to be up before it is preferred again.
pub(crate) const STEADY: Duration = Duration::from_secs(10);

/// What is known of one address.
#[derive(Debug, Clone, Copy)]
struct Health {
    /// Whether the last small probe was answered; `None`: there was none.
    small: Option<bool>,
    /// The same of the last large one, since it last was down.
    large: Option<bool>,
    /// When it last was down.
    down: Option<Instant>,
    /// Since when nothing spoke against it; `None`: from the beginning.
    steady_since: Option<Instant>,
}

impl Health {
    const NEW: Self = Self { small: None, large: None, down: None, steady_since: None };

    fn state(self) -> LinkState {
        match (self.small, self.large) {
            (Some(false), _) => LinkState::Down,
            (Some(true), Some(false)) => LinkState::SmallOnly,
            (Some(true), Some(true)) => LinkState::Up,
            (None, _) | (Some(true), None) => LinkState::Unknown,
        }
    }

    fn is_usable(self) -> bool {
        matches!(self.state(), LinkState::Up | LinkState::Unknown)
    }

    fn answers(self) -> bool {
        self.small != Some(false)
    }

    fn is_steady(self, now: Instant) -> bool {
        let steady = self.steady_since.is_none_or(|since| now.saturating_duration_since(since) >= STEADY);
        self.is_usable() && (steady || quorate_membership::mutant!("lost_link_taken_at_once"))
    }
}

#[derive(Debug)]
struct Known {
    seen: Vec<Health>,
    chosen: usize,
    /// To whom large messages pass from the node, as it has said last.
    reaches: Vec<NodeId>,
}

/// The addresses of one node, most preferred first.
#[derive(Debug)]
pub(crate) struct Addresses {
    /// The node, for people.
    name: String,
    all: Vec<Address>,
    known: Mutex<Known>,
    /// The index of the chosen address.
    chosen: watch::Sender<usize>,
}

impl Addresses {
    /// Addresses of which nothing is known, but what `former` knows of those that it has too.
    pub(crate) fn new(name: String, all: Vec<Address>, former: Option<&Self>) -> Self {
        let seen = |address: &Address| {
            let at = former.and_then(|former| Some((former, former.all.iter().position(|old| old == address)?)));
            at.map_or(Health::NEW, |(former, at)| former.known.lock().seen[at])
        };
        let known = Known { seen: all.iter().map(seen).collect(), chosen: 0, reaches: vec![] };
        let this = Self { name, all, known: Mutex::new(known), chosen: watch::Sender::new(0) };
        this.change(|_, _| {});
        this
    }

    /// The addresses themselves.
    pub(crate) fn all(&self) -> &[Address] {
        &self.all
    }

    /// The index of the one that carries entries, snapshots and commands.
    pub(crate) fn chosen(&self) -> usize {
        *self.chosen.borrow()
    }

    /// Waits until another than `current` is chosen.
    pub(crate) async fn moved_from(&self, current: usize) {
        let mut chosen = self.chosen.subscribe();
        // The sender lives as long as this.
        while *chosen.borrow_and_update() == current && chosen.changed().await.is_ok() {}
    }

    /// Waits until another is chosen because this one has failed.
    pub(crate) async fn lost(&self, at: usize) {
        let mut chosen = self.chosen.subscribe();
        while (*chosen.borrow_and_update() == at || self.is_usable(at)) && chosen.changed().await.is_ok() {}
    }

    fn is_usable(&self, at: usize) -> bool {
        self.known.lock().seen.get(at).is_some_and(|seen| seen.is_usable())
    }

    /// The two best ones: the chosen one, and the best of the others. `None` if there is one only.
    pub(crate) fn best_two(&self) -> Option<[usize; 2]> {
        let known = self.known.lock();
        let rank = |at: &usize| {
            let seen = known.seen[*at];
            (!seen.is_usable(), !seen.answers(), *at)
        };
        let other = (0..self.all.len()).filter(|at| *at != known.chosen).min_by_key(rank)?;
        Some([known.chosen, other])
    }

    /// The order in which they are tried for entries, snapshots and commands.
    pub(crate) fn order(&self) -> Vec<usize> {
        let known = self.known.lock();
        let rank = |at: &usize| {
            let seen = known.seen[*at];
            (*at != known.chosen, !seen.is_usable(), !seen.answers(), *at)
        };
        let mut order: Vec<usize> = (0..self.all.len()).collect();
        order.sort_by_key(rank);
        order
    }

    /// Notes whether a small probe was answered.
    pub(crate) fn note_small(&self, at: usize, answered: bool) {
        self.note(at, |seen, now| {
            seen.small = Some(answered);
            if !answered {
                (seen.large, seen.down) = (None, Some(now));
            }
        });
    }

    /// Notes whether a large probe was answered that was sent at `sent`. While the node answered no small one either, nothing is
    /// known of large ones.
    pub(crate) fn note_large(&self, at: usize, answered: bool, sent: Instant) {
        self.note(at, |seen, _| {
            let was_up = seen.small == Some(true) && seen.down.is_none_or(|down| down < sent);
            if answered || was_up {
                seen.large = Some(answered);
            }
        });
    }

    fn note(&self, at: usize, note: impl FnOnce(&mut Health, Instant)) {
        self.change(|all, now| {
            let Some(seen) = all.get_mut(at) else { return };
            let before = seen.state();
            note(seen, now);
            let after = seen.state();
            let lost = |state| matches!(state, LinkState::Down | LinkState::SmallOnly);
            if lost(after) || lost(before) {
                seen.steady_since = Some(now);
            }
            if before != after {
                self.tell(at, before, after);
            }
        });
    }

    /// Notes that nothing came from this address for too long, or that no connection could be opened, outside of any probe.
    pub(crate) fn suspect(&self, at: usize) {
        self.change(|seen, now| {
            if let Some(seen) = seen.get_mut(at) {
                seen.steady_since = Some(now);
            }
        });
    }

    /// Notes that a connection was opened to this address after it could not be to those that `failed`.
    pub(crate) fn settle(&self, failed: &[usize], worked: usize) {
        if failed.is_empty() {
            return;
        }
        self.known.lock().chosen = worked;
        self.change(|seen, now| failed.iter().for_each(|at| seen[*at].steady_since = Some(now)));
    }

    /// Notes to whom large messages pass from the node, as it says.
    pub(crate) fn note_reaches(&self, reaches: Vec<NodeId>) {
        self.known.lock().reaches = reaches;
    }

    /// Whether another address than this one answers.
    pub(crate) fn another_answers(&self, at: usize) -> bool {
        let known = self.known.lock();
        known.seen.iter().enumerate().any(|(other, seen)| other != at && seen.small == Some(true))
    }

    /// What is known of all of them.
    pub(crate) fn view(&self) -> NodeLinks {
        let known = self.known.lock();
        let view = |(at, (address, seen)): (usize, (&Address, &Health))| LinkView {
            address: address.clone(),
            state: seen.state(),
            used: at == known.chosen,
        };
        let links: Vec<LinkView> = self.all.iter().zip(&known.seen).enumerate().map(view).collect();
        let answers = known.seen.iter().any(|seen| seen.answers());
        let reaches = if answers { known.reaches.iter().copied().collect() } else { Default::default() };
        NodeLinks { links, reaches }
    }

    fn change(&self, change: impl FnOnce(&mut [Health], Instant)) {
        let (mut known, now) = (self.known.lock(), Instant::now());
        change(&mut known.seen, now);
        known.chosen = choose(&known.seen, known.chosen, now);
        let chosen = known.chosen;
        self.chosen.send_if_modified(|told| std::mem::replace(told, chosen) != chosen);
    }

    fn tell(&self, at: usize, before: LinkState, state: LinkState) {
        let (node, address) = (&self.name, self.all[at].as_str());
        match state {
            LinkState::Up if before == LinkState::Unknown => {}
            LinkState::Up => tracing::info!(%node, address, "this link is up again"),
            LinkState::SmallOnly => {
                tracing::warn!(%node, address, "large messages are lost on this link; look for a smaller MTU on its way");
            }
            LinkState::Down => tracing::warn!(%node, address, "the node does not answer over this link"),
            LinkState::Unknown => {}
        }
    }
}

/// The address that carries entries, given the one that does now.
fn choose(seen: &[Health], current: usize, now: Instant) -> usize {
    let first = |fits: &dyn Fn(Health) -> bool| seen.iter().position(|seen| fits(*seen));
    let stays = || seen.get(current).filter(|seen| seen.is_usable() && seen.steady_since != Some(now)).map(|_| current);
    let steady = first(&|seen| seen.is_steady(now));
    let other = || (0..seen.len()).find(|at| *at != current && seen[*at].is_usable());
    let usable = || first(&Health::is_usable);
    steady.or_else(stays).or_else(other).or_else(usable).or_else(|| first(&Health::answers)).unwrap_or(current)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Addresses {
        let all = ["a:1", "b:1", "c:1"].map(|text| Address::new(text).unwrap());
        Addresses::new("n2".into(), all.into(), None)
    }

    fn up(addresses: &Addresses, at: usize) {
        addresses.note_small(at, true);
        addresses.note_large(at, true, Instant::now());
    }

    /// As if nothing had spoken against this address for so long.
    fn pass(addresses: &Addresses, at: usize, time: Duration) {
        addresses
            .change(|seen, _| seen[at].steady_since = seen[at].steady_since.and_then(|since| since.checked_sub(time)));
    }

    #[test]
    fn a_link_that_was_lost_is_taken_again_only_after_it_was_steady() {
        let addresses = three();
        (0..3).for_each(|at| up(&addresses, at));
        assert_eq!((addresses.chosen(), addresses.best_two()), (0, Some([0, 1])));
        addresses.note_small(0, false);
        assert_eq!((addresses.chosen(), addresses.best_two(), addresses.order()), (1, Some([1, 2]), vec![1, 2, 0]));
        up(&addresses, 0);
        assert_eq!((addresses.chosen(), addresses.best_two()), (1, Some([1, 0])), "up for a moment");
        pass(&addresses, 0, STEADY - Duration::from_millis(500));
        assert_eq!(addresses.chosen(), 1);
        pass(&addresses, 0, Duration::from_millis(500));
        assert_eq!(addresses.chosen(), 0);
    }

    #[test]
    fn a_silent_connection_moves_to_another_address_and_so_do_lost_large_messages() {
        let addresses = three();
        addresses.suspect(0);
        assert_eq!(addresses.chosen(), 1, "nothing speaks against it");
        addresses.note_small(1, true);
        addresses.note_large(1, false, Instant::now());
        assert_eq!((addresses.chosen(), addresses.best_two()), (2, Some([2, 0])));
        addresses.note_small(2, false);
        assert_eq!(addresses.chosen(), 0, "unsteady, and yet the only one that is left");
        addresses.note_small(0, false);
        assert_eq!(addresses.chosen(), 1, "small messages are better than none");
    }

    #[test]
    fn a_large_probe_says_nothing_of_a_time_in_which_the_node_did_not_answer_at_all() {
        let addresses = three();
        let state = || addresses.view().links[0].state;
        let sent = Instant::now();
        addresses.note_small(0, true);
        assert_eq!(state(), LinkState::Unknown);
        addresses.note_small(0, false);
        addresses.note_large(0, false, sent);
        addresses.note_small(0, true);
        addresses.note_large(0, false, sent);
        assert_eq!(state(), LinkState::Unknown);
        std::thread::sleep(Duration::from_millis(1));
        addresses.note_large(0, false, Instant::now());
        assert_eq!(state(), LinkState::SmallOnly);
    }

    #[test]
    fn what_is_known_of_an_address_stays_when_others_come_and_go() {
        let former = three();
        former.note_small(1, false);
        let now = ["b:1", "d:1"].map(|text| Address::new(text).unwrap());
        let addresses = Addresses::new("n2".into(), now.into(), Some(&former));
        let states: Vec<LinkState> = addresses.view().links.iter().map(|link| link.state).collect();
        assert_eq!((states, addresses.chosen()), (vec![LinkState::Down, LinkState::Unknown], 1));
    }

    #[tokio::test]
    async fn who_waits_is_told_of_another_choice() {
        let addresses = std::sync::Arc::new(three());
        let waiting = tokio::spawn({
            let addresses = addresses.clone();
            async move { addresses.moved_from(0).await }
        });
        addresses.suspect(0);
        waiting.await.unwrap();
    }
}
