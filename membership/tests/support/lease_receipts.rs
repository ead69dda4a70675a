//! Receipts in the lease model: what the voters note, and what a new leader hears of it.
//!
//! ```text
//!   BeginRead ─▶ the leader notes          AskForReceipts ─▶ a voter promises the term, and says what it has noted
//!   ConfirmReadBy ─▶ a voter notes         TakeReceipts ───▶ handle_receipts, at any later time: the answer was under way
//!                                          RestartVoter ───▶ a voter has noted nothing
//! ```
//!
//! One voter beside the leader is a majority of three, and the smallest one: whoever else has noted something makes a wait
//! longer and never shorter.

use std::sync::Arc;

use quorate_membership::*;

use crate::log::{NODES, id};
use crate::member::{at, units};
use crate::world::{Situation, World};

impl World {
    /// The other voters that take messages of a leader.
    pub(crate) fn followers(&self, node: usize) -> impl Iterator<Item = usize> + '_ {
        let voters = &self.votes.voters;
        (0..NODES).filter(move |at| *at != node && voters[*at].up && voters[*at].promised <= voters[node].leads)
    }

    /// Whether a voter has noted something, or has begun to note, so lately that its age matters.
    pub(crate) fn is_noting(&self, node: usize) -> bool {
        let said = self.receipts[node].receipts(at(self.now[node]));
        said.of.values().chain([&said.since]).any(|age| units(*age) < self.oldest())
    }

    /// Beyond this age all notes prove the same.
    pub(crate) fn oldest(&self) -> u64 {
        (self.wait * 3).div_ceil(2)
    }

    /// A voter follows that leader, and no earlier one any more.
    fn promise(&mut self, leader: usize, voter: usize) {
        let term = self.votes.voters[leader].leads;
        let promised = &mut self.votes().voters[voter].promised;
        *promised = term.max(*promised);
    }

    pub(crate) fn confirm_read_by(&mut self, node: usize, voter: usize) -> Option<()> {
        self.promise(node, voter);
        self.note_receipts(node, voter);
        self.leader_side(node).read.as_mut()?.confirmed = true;
        Some(())
    }

    pub(crate) fn ask_for_receipts(&mut self, node: usize, voter: usize) {
        self.promise(node, voter);
        let said = self.receipts[voter].receipts(at(self.now[voter]));
        let lost = said.of.is_empty();
        self.leader_side(node).asked = Some((voter, said, lost));
    }

    /// The process of a voter that neither works nor leads starts anew.
    pub(crate) fn restart_voter(&mut self, node: usize) {
        self.used.crashes += 1;
        self.receipts[node] = Arc::new(lease::ReceiptLog::new(at(self.now[node])));
    }

    /// A voter confirms the read of a leader. It notes first whom that is for.
    pub(crate) fn note_receipts(&mut self, leader: usize, voter: usize) {
        let lives: Vec<_> = self.desks[leader].grantor.taken().map(|(who, _)| who).collect();
        let now = at(self.now[voter]);
        Arc::make_mut(&mut self.receipts[voter]).note(lives, now);
    }

    /// A leader hears what a voter has said of receipts, if one has, and counts itself. Alone it concludes nothing.
    pub(crate) fn take_receipts(&mut self, node: usize) -> Option<()> {
        let now = at(self.now[node]);
        let asked = self.leader_side(node).asked.take();
        let under = self.desks[node].grantor.activation()?;
        let own = self.receipts[node].receipts(now);
        let lost = asked.as_ref().is_some_and(|(.., lost)| *lost);
        let other = asked.map(|(voter, said, _)| (id(voter), (said, now)));
        let answers = std::iter::once((id(node), (own, now))).chain(other).collect();
        let silence = |world: &Self| {
            let grantor = &world.desks[node].grantor;
            grantor.watched().filter_map(|who| grantor.silence(who, now)).max()
        };
        let before = silence(self);
        let configuration = self.committed.cluster.configuration().clone();
        self.leader_side(node).grantor.handle_receipts(under, &answers, &configuration, now)?;
        let moved = silence(self) > before;
        self.seen_if(moved, Situation::WaitMovedBack);
        self.seen_if(moved && lost, Situation::LostReceipts);
        Some(())
    }
}
