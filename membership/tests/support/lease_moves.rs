//! The steps of the lease model: what each does to the world. `lease_steps.rs` says which may come.
//!
//! ```text
//!   take ─▶ time and consensus ──▶ take_of_leases ─▶ renewals, reads, grants ──▶ take_of_work ─▶ jobs, lives, fencing
//! ```

use std::sync::Arc;

use quorate_membership::*;

use crate::leader_side::{LeaderSide, Read};
use crate::log::{Entry, MEMBERS, NODES, id};
use crate::member::{Member, Renewal, at};
use crate::steps::Step;
use crate::world::{Bounds, Call, Mistake, Situation, World, Wrong};

impl World {
    /// Does a step. `None` if it turns out to be none.
    pub(crate) fn take(&mut self, step: Step, bounds: &Bounds) -> Option<()> {
        match step {
            Step::Tick(rates, dogs) => {
                (0..NODES).for_each(|node| self.now[node] += u64::from(rates[node]));
                let (now, lease) = (self.now, bounds.lease);
                let young = |r: &Renewal| now[r.who.node.get() as usize - 1] - r.sent < lease;
                self.wire.retain(|r| young(r) || (bounds.doubles && r.granted));
                for (at, dog) in dogs.into_iter().enumerate() {
                    let now = self.now[at];
                    let measured = self.members[at].as_ref().is_some_and(|m| m.works != 0);
                    if measured && self.member(at)?.is_stopped(now, dog, bounds) {
                        self.end(at, bounds);
                        self.seen_if(true, Situation::Stopped);
                    }
                }
            }
            Step::Elect { node, voter, from } => {
                self.votes().elect(node, voter, from);
                if self.desks[node].grantor.activation().is_none() && self.used.gains < bounds.activations {
                    self.gain(node);
                }
            }
            Step::Gain(node) => self.gain(node),
            Step::Lose(node) => self.leader_side(node).grantor.handle_loss(),
            Step::Pause(node) => {
                let (now, leader_side) = (self.now[node], self.leader_side(node));
                leader_side.grantor.handle_pause(at(now));
                let noted: Vec<_> =
                    leader_side.grantor.watched().filter(|who| !leader_side.grantor.is_expiring(*who)).collect();
                noted.into_iter().for_each(|who| self.noted(node, who));
            }
            Step::RestartLeader(node) => {
                self.used.restarts += 1;
                self.desks[node] = Arc::new(LeaderSide::new(node, self.committed.clone(), bounds));
                self.reads_ended(node);
                if self.used.gains < bounds.activations {
                    self.gain(node);
                }
            }
            Step::ProposeActivation(node) => {
                let nonce = self.desks[node].grantor.poll_activation()?;
                self.votes().append(node, Command::ActivateLeader { leader: id(node), nonce });
            }
            Step::Append(node, at) => {
                let command = self.leader_side(node).pending.remove(at);
                self.votes().append(node, command);
            }
            Step::Commit(node) => {
                let Entry { term, command } = self.votes().take(node)?;
                self.commit(node, term, &command);
            }
            Step::Apply(node) => self.apply(node),
            Step::Expire(node) => {
                let now = self.now[node];
                self.leader_side(node).conclude(now).then_some(())?;
            }
            _ => return self.take_of_leases(step, bounds),
        }
        Some(())
    }

    fn take_of_leases(&mut self, step: Step, bounds: &Bounds) -> Option<()> {
        match step {
            Step::Send(at_node) => {
                let now = self.now[at_node];
                let member = self.member(at_node)?;
                let (who, seq) = (member.who(), member.holder.poll_renewal(at(now))?);
                if bounds.sends[at_node] < u8::MAX {
                    self.used.sends[at_node] += 1;
                }
                let of_node = |r: &&Renewal| r.who.node == who.node;
                if self.wire.iter().filter(of_node).count() >= bounds.renewals {
                    let oldest = self.wire.iter().position(|r| r.who.node == who.node)?;
                    self.wire.remove(oldest);
                }
                let after_last = (1 << NODES) - 1;
                let reads = (0..NODES).filter(|node| self.desks[*node].read.is_some());
                let after_read = reads.fold(0, |bits, node| bits | 1 << node);
                self.wire.push(Renewal {
                    who,
                    seq,
                    sent: now,
                    granted: false,
                    delivered: false,
                    after_last,
                    after_read,
                });
                self.wire.sort_by_key(|r| (r.who, r.seq));
                self.seen_if(self.wire.iter().filter(of_node).count() > 1, Situation::TwoInFlight);
            }
            Step::Receive { node, renewal, newest } => {
                let Renewal { who, seq, .. } = self.wire[renewal];
                let now = at(self.now[node]);
                let state = if newest { self.committed.clone() } else { self.desks[node].applied.clone() };
                match self.leader_side(node).grantor.handle_renewal(who, seq, &state.cluster, now) {
                    Ok(()) => self.noted(node, who),
                    Err(lease::NotRenewed::Expiring(_)) => self.seen_if(true, Situation::ExpiringRefused),
                    Err(lease::NotRenewed::NotLive(_)) => {
                        let newer = state.cluster.newest(who.node).is_some_and(|newest| newest != who);
                        self.seen_if(newer && !state.over(who), Situation::ClosingRefused);
                    }
                    Err(_) => {}
                }
            }
            Step::BeginRead(node) => {
                let confirmed = self.votes.is_followed(node) && !bounds.receipts;
                let begun = self.committed.clone();
                let round = self.leader_side(node).grantor.poll_read()?;
                self.reads_ended(node);
                self.leader_side(node).read = Some(Read { round, begun, confirmed });
                if bounds.receipts {
                    self.note_receipts(node, node);
                }
            }
            Step::ConfirmRead(node) => self.leader_side(node).read.as_mut()?.confirmed = true,
            Step::ConfirmReadBy { node, voter } => self.confirm_read_by(node, voter)?,
            Step::AskForReceipts { node, voter } => self.ask_for_receipts(node, voter),
            Step::RestartVoter(node) => self.restart_voter(node),
            Step::TakeReceipts(node) => self.take_receipts(node)?,
            Step::EndRead { node, newest } => {
                let read = self.leader_side(node).read.take()?;
                let state = if newest { self.committed.clone() } else { self.desks[node].applied.clone() };
                let answers = self.leader_side(node).grantor.handle_read(read.round, &state.cluster);
                self.answered(node, &answers, Some(&read));
            }
            Step::FailRead(node) => {
                let read = self.leader_side(node).read.take()?;
                let _refused = self.leader_side(node).grantor.handle_read_failed(read.round);
                self.reads_ended(node);
            }
            Step::EndFormerRead(node) => {
                let read = self.leader_side(node).former.take()?;
                let applied = self.desks[node].applied.clone();
                let answers = self.leader_side(node).grantor.handle_read(read.round, &applied.cluster);
                // Whatever it might answer was received after it had begun.
                self.wrong_if(answers.iter().any(|(_, _, granted)| *granted), Wrong::Expiry);
            }
            Step::GrantUnread(node) => {
                let answers = self.unread(node);
                self.answered(node, &answers, None);
            }
            Step::Deliver(renewal) => {
                self.deliver(renewal)?;
                if !bounds.doubles {
                    self.wire.remove(renewal);
                }
            }
            _ => return self.take_of_work(step, bounds),
        }
        Some(())
    }

    #[cfg(quorate_mutants)]
    fn unread(&mut self, node: usize) -> Vec<(Identity, u64, bool)> {
        self.leader_side(node).grantor.poll_unread()
    }

    #[cfg(not(quorate_mutants))]
    fn unread(&mut self, _: usize) -> Vec<(Identity, u64, bool)> {
        vec![]
    }

    fn take_of_work(&mut self, step: Step, bounds: &Bounds) -> Option<()> {
        match step {
            Step::Begin(at, job) => {
                let token = self.jobs[job].token;
                self.member(at)?.begin(job, token, bounds);
                if bounds.stop == Stop::Tokens && bounds.mistake != Some(Mistake::WorkBeforeTheFloor) {
                    self.jobs[job].floor = self.jobs[job].floor.max(token);
                }
                let successor = self.jobs[job].owner != Identity::new(id(job), Incarnation::new(1));
                self.seen_if(successor, Situation::TookOver);
            }
            Step::LayDown(at) => self.member(at)?.lay_down(),
            Step::LookBeforeFeeding(at) => self.member(at)?.feeding = true,
            Step::Feed(at) => self.member(at)?.feed(bounds),
            Step::StartEffect(at, job) => self.jobs[job].under_way[at] = Some(self.member(at)?.tokens[job]),
            Step::LandEffect(at, job) => {
                let token = self.jobs[job].under_way[at].take()?;
                let refused = token < self.jobs[job].floor;
                self.seen_if(refused, Situation::FloorRefused);
                if !refused {
                    self.wrong_if(token < self.jobs[job].landed, Wrong::Effects);
                    self.jobs[job].landed = self.jobs[job].landed.max(token);
                }
            }
            Step::Crash(at) => {
                self.used.crashes += 1;
                self.end(at, bounds);
            }
            Step::Rejoin(at) => {
                let captain = self.votes.captain()?;
                let opened = self.committed.cluster.newest(id(at))?.incarnation.get() + 1;
                self.commit_after_all(captain, &join(at, opened, bounds.contract()));
                let who = self.committed.cluster.newest(id(at))?;
                self.members[at] = Some(Arc::new(Member::new(who, bounds)));
                self.votes().voters[at].up = true;
            }
            Step::ActivateLife(who) => {
                let captain = self.votes.captain()?;
                self.commit_after_all(captain, &Command::Activate { who });
            }
            Step::Order(node, target) => {
                self.used.orders += 1;
                let under = self.desks[node].grantor.activation();
                let order = Command::OrderFence { target, cause: Cause::Silent { for_ms: 1 }, under };
                let pending = &mut self.leader_side(node).pending;
                pending.push(order);
                pending.sort();
            }
            Step::CallFencer(order) => {
                let by = self.votes.captain()?;
                let target = self.committed.cluster.fences().get(order)?.target;
                self.commit_after_all(by, &Command::StartFence { order, by: id(by), attempt: 1 });
                self.call = Some(Call { order, target, by, verified: false });
            }
            Step::Shoot => {
                let call = self.call.as_mut()?;
                call.verified = true;
                let target = call.target;
                let node = (0..MEMBERS).find(|node| id(*node) == target.node)?;
                if self.members[node].as_ref().is_some_and(|member| member.who() == target) {
                    self.end(node, bounds);
                }
            }
            Step::ConfirmFence => {
                let (captain, call) = (self.votes.captain()?, self.call.take()?);
                let evidence = Evidence::new("read back as off").ok()?;
                let confirmation = Confirmation::Device { by: id(call.by), attempt: 1, evidence };
                let (order, target) = (call.order, call.target);
                self.commit_after_all(captain, &Command::ConfirmFence { order, target, confirmation });
            }
            Step::HearOfFencing(at) => self.member(at)?.holder.handle_condemned(),
            Step::TakeOver(at, who) => {
                self.used.takeovers += 1;
                let ended = self.committed.cluster.fences().ended(self.jobs[at].owner);
                let token = ended.map_or(self.committed.cluster.revision(), |record| record.confirmed);
                self.wrong_if(token <= self.jobs[at].token, Wrong::Token);
                (self.jobs[at].owner, self.jobs[at].token) = (who, token);
            }
            _ => return None,
        }
        Some(())
    }
}

/// The request of a process of a member to be let in.
pub(crate) fn join(at: usize, process: u64, contract: Contract) -> Command {
    let disk = Disk { id: DiskId::new(at as u128), opened: process };
    let (node, boot, nonce) = (id(at), BootId::new(process.into()), Nonce::new(process.into()));
    let addresses = Address::new("host:1").into_iter().collect();
    let role = if at < MEMBERS { Role::Voter } else { Role::Witness };
    Command::Join { node, role, addresses, disk, boot, nonce, contract, left: None, hint: None }
}
