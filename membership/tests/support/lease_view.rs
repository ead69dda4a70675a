//! Which worlds of the lease model are the same: the fingerprint.
//!
//! Absolute times, revisions, activations and numbers of renewals never enter it; they only grow, and no rule reads more
//! of them than ages and whether two are equal. Ages are counted to where nothing changes any more: a lease to its length,
//! a silence to the wait D. An activation is the current one or none, for what is not current never becomes it again.

use std::hash::{Hash, Hasher};

use quorate_membership::*;

use crate::log::{MEMBERS, NODES, State, id, under};
use crate::member::{Renewal, at, units};
use crate::world::{Call, Used, World};

impl Hash for World {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (self.committed.digest, self.votes.latest, self.wrong).hash(hasher);
        let open = |call: Call| self.committed.cluster.fences().get(call.order).is_some();
        self.call.map(|call| (call.target, call.by, call.verified, open(call))).hash(hasher);
        Used { activated: 0, ..self.used }.hash(hasher);
        for node in 0..NODES {
            self.hash_voter(node, hasher);
            self.hash_leader(node, hasher);
            self.hash_receipts(node, hasher);
        }
        (0..MEMBERS).for_each(|member| self.hash_member(member, hasher));
        let current = (0..NODES).filter(|node| self.desks[*node].is_current(&self.committed));
        let noting = current.fold(0, |bits, node| bits | 1 << node);
        self.wire.len().hash(hasher);
        for Renewal { who, seq, sent, granted, delivered, after_last, after_read } in &self.wire {
            let node = who.node.get() as usize - 1;
            let awaited = self.members[node].as_ref().is_some_and(|m| m.who() == *who && m.holder.awaits(*seq));
            let age = (self.now[node] - sent).min(self.lease);
            (who, age, granted, delivered, awaited, after_last & noting, after_read).hash(hasher);
        }
        for job in &self.jobs {
            let code = |token: Revision| (token > job.landed, token >= job.floor, token == job.token);
            let under_way = job.under_way.map(|token| token.map(code));
            (job.owner, job.token > job.floor, job.landed >= job.token, under_way).hash(hasher);
        }
    }
}

impl World {
    fn hash_command<H: Hasher>(&self, node: usize, command: &Command, hasher: &mut H) {
        let wanted = match command {
            Command::ActivateLeader { nonce, .. } => self.desks[node].grantor.poll_activation() == Some(*nonce),
            _ => false,
        };
        let counts = under(command) == self.committed.activation();
        let own = under(command) == self.desks[node].grantor.activation();
        (std::mem::discriminant(command), crate::log::target(command), counts, own, wanted).hash(hasher);
    }

    fn hash_voter<H: Hasher>(&self, node: usize, hasher: &mut H) {
        let voter = &self.votes.voters[node];
        (voter.promised, voter.leads, voter.up, voter.uncommitted.len()).hash(hasher);
        for entry in &voter.uncommitted {
            entry.term.hash(hasher);
            if let Command::ActivateLeader { leader, .. } = &entry.command {
                leader.hash(hasher);
                self.hash_command(leader.get() as usize - 1, &entry.command, hasher);
            } else {
                self.hash_command(node, &entry.command, hasher);
            }
        }
    }

    fn hash_leader<H: Hasher>(&self, node: usize, hasher: &mut H) {
        let leader_side = &self.desks[node];
        let (grantor, activation) = (&leader_side.grantor, leader_side.grantor.activation());
        leader_side.pending.len().hash(hasher);
        leader_side.pending.iter().for_each(|command| self.hash_command(node, command, hasher));
        (leader_side.gained, leader_side.told, activation.is_some()).hash(hasher);
        leader_side.former.as_ref().map(|read| read.confirmed).hash(hasher);
        if let Some(nonce) = grantor.poll_activation() {
            let applies = |state: &State| state.cluster.leadership().is_some_and(|l| l.nonce == nonce);
            (1_u8, applies(&self.committed)).hash(hasher);
        }
        if activation.is_none() {
            return;
        }
        let (current, now) = (leader_side.is_current(&self.committed), at(self.now[node]));
        (current, leader_side.applied.digest, leader_side.applied.activation() == activation).hash(hasher);
        for who in grantor.watched().filter(|who| who.node != id(MEMBERS)) {
            // Of a life that no wait ends, silence says nothing.
            let ends = leader_side.applied.cluster.life(who).is_some_and(|life| life.contract.own_wait().is_some());
            let silence = grantor.silence(who, now).filter(|_| ends).map_or(0, units).min(self.wait);
            (who, silence, grantor.is_expiring(who), grantor.is_unheard(who)).hash(hasher);
            (current && leader_side.overtaken.contains(&who)).hash(hasher);
        }
        let (waiting, round) = grantor.renewals();
        waiting.for_each(|(who, seq)| (who, self.rank(who, seq)).hash(hasher));
        round.is_some().hash(hasher);
        if let Some(read) = &leader_side.read {
            (2_u8, round.is_some_and(|(number, _)| number == read.round), read.confirmed).hash(hasher);
            (read.begun.version <= leader_side.applied.version).hash(hasher);
            for (who, seq) in grantor.taken() {
                (who, self.rank(who, seq), read.begun.over(who)).hash(hasher);
            }
        }
    }

    /// Receipts older than the wait prove the same, and so does a process that has noted for longer.
    fn hash_receipts<H: Hasher>(&self, node: usize, hasher: &mut H) {
        let hash = |said: &lease::Receipts, hasher: &mut H| {
            let age = |age| units(age).min(self.oldest());
            age(said.since).hash(hasher);
            said.of.iter().for_each(|(who, noted)| (who, age(*noted)).hash(hasher));
        };
        if self.asks {
            hash(&self.receipts[node].receipts(at(self.now[node])), hasher);
        }
        if let Some((voter, said, _)) = &self.desks[node].asked {
            voter.hash(hasher);
            hash(said, hasher);
        }
    }

    fn hash_member<H: Hasher>(&self, member: usize, hasher: &mut H) {
        let Some(process) = &self.members[member] else { return 0_u8.hash(hasher) };
        let (holder, left) = (&process.holder, process.left(self.now[member]));
        (process.who(), left, holder.is_condemned(), process.works, process.feeding, process.dog).hash(hasher);
        for (job, resource) in self.jobs.iter().enumerate().filter(|(job, _)| process.works & (1 << job) != 0) {
            (process.tokens[job] == resource.token, process.tokens[job] >= resource.floor).hash(hasher);
        }
    }

    /// Between which renewals on the wire that one was sent, and whether it still is there itself.
    fn rank(&self, who: Identity, seq: u64) -> (usize, bool) {
        let mut sent = self.wire.iter().filter(|renewal| renewal.who == who).map(|renewal| renewal.seq);
        (sent.clone().filter(|earlier| *earlier < seq).count(), sent.any(|this| this == seq))
    }
}
