//! `evolve`: what an event does to the state.
//!
//! It is total: every event can be applied to every state. So the events alone rebuild the state, and a snapshot with
//! the events after it gives the state to any watcher that starts late (I17). Locks, records, queues and sessions are
//! in `evolve/store.rs`.

mod store;

use std::collections::BTreeMap;

use crate::cluster::ClusterState;
use crate::event::Event;
use crate::fencing::{FenceOrder, Progress};
use crate::id::{Identity, NodeId, Revision};
use crate::member::{Life, Member, Phase};

/// Applies one committed event of the entry at `revision`.
pub fn evolve(state: &mut ClusterState, revision: Revision, event: &Event) {
    state.revision = state.revision.max(revision);
    store::evolve(&mut state.store, revision, event);
    let changes_view = match event {
        Event::Founded { cluster } => {
            state.id = Some(*cluster);
            true
        }
        Event::Joined { who, role, addresses, disk, boot, nonce, contract, hint } => {
            let fresh = || Member { role: *role, addresses: vec![], disk: *disk, lives: BTreeMap::new() }.into();
            let member = state.members.entry(who.node).or_insert_with(fresh);
            member.addresses.clone_from(addresses);
            member.disk = *disk;
            let (phase, addresses) = (Phase::Joining, addresses.clone());
            let (since, contract) = (revision, *contract);
            let (boot, nonce, hint) = (*boot, *nonce, hint.clone());
            let life = Life { phase, boot, nonce, since, addresses, contract, process_bound: false, hint };
            member.lives.insert(who.incarnation, life);
            forget_ended(state, who.node);
            true
        }
        Event::Activated { who } => enter(state, *who, Phase::Active),
        Event::FenceOrdered { order, target, cause } => {
            state.fences.insert(FenceOrder {
                id: *order,
                target: *target,
                cause: cause.clone(),
                ordered: revision,
                attempts: 0,
                progress: Progress::Ordered,
            });
            enter(state, *target, Phase::Fencing)
        }
        Event::FenceStarted { order, target, by, attempt } => {
            if let Some(open) = state.fences.get_mut(*order) {
                open.attempts = *attempt;
                open.progress = Progress::Executing { by: *by };
            }
            mutant!("fence_told_before_proof") && enter(state, *target, Phase::Fenced)
        }
        Event::FenceFailed { order, target: _, attempt: _, reason } => {
            if let Some(open) = state.fences.get_mut(*order) {
                open.progress = Progress::Failed { reason: reason.clone() };
            }
            false
        }
        Event::Fenced { order, who, proof, token } => {
            state.fences.close(*order, *token, proof.clone());
            enter(state, *who, Phase::Fenced)
        }
        Event::Left { who, token: _ } => enter(state, *who, Phase::Left),
        Event::Superseded { who } => {
            if let Some(member) = state.members.get_mut(&who.node) {
                member.lives.remove(&who.incarnation);
            }
            true
        }
        Event::RoleChanged { node, role, by: _ } => {
            if let Some(member) = state.members.get_mut(node) {
                member.role = *role;
            }
            true
        }
        Event::Readdressed { node, addresses, by: _ } => {
            if let Some(member) = state.members.get_mut(node) {
                member.addresses.clone_from(addresses);
                if let Some(mut newest) = member.lives.last_entry() {
                    newest.get_mut().addresses.clone_from(addresses);
                }
            }
            true
        }
        Event::Removed { node, by: _ } => {
            state.members.remove(node);
            state.retired.insert(*node);
            true
        }
        Event::Configured { configuration } => {
            state.configuration = configuration.clone().into();
            true
        }
        Event::LeaderActivated { leadership } => {
            state.leadership = Some(*leadership);
            false
        }
        Event::Corroborated { order, who: _, proof } => {
            state.fences.corroborate(*order, proof.clone());
            false
        }
        Event::DeclaredProcessBound { who } => {
            let member = state.members.get_mut(&who.node);
            if let Some(life) = member.and_then(|member| member.lives.get_mut(&who.incarnation)) {
                life.process_bound = true;
            }
            false
        }
        Event::Answered { .. }
        | Event::Voided { .. }
        | Event::LockGranted { .. }
        | Event::LockQueued { .. }
        | Event::LockWithdrawn { .. }
        | Event::LockReleased { .. }
        | Event::LockDelayed { .. }
        | Event::LockLifted { .. }
        | Event::Put { .. }
        | Event::Deleted { .. }
        | Event::Pushed { .. }
        | Event::Taken { .. }
        | Event::Acknowledged { .. }
        | Event::SessionOpened { .. }
        | Event::SessionEnded { .. } => false,
    };
    if changes_view {
        state.epoch = state.epoch.next();
    }
}

fn enter(state: &mut ClusterState, who: Identity, phase: Phase) -> bool {
    let life = state.members.get_mut(&who.node).and_then(|member| member.lives.get_mut(&who.incarnation));
    let Some(life) = life else { return false };
    life.phase = phase;
    forget_ended(state, who.node);
    true
}

/// Forgets the lives of a node that have ended, except the newest.
fn forget_ended(state: &mut ClusterState, node: NodeId) {
    let Some(member) = state.members.get_mut(&node) else { return };
    let newest = member.newest().map(|(incarnation, _)| incarnation);
    member.lives.retain(|incarnation, life| Some(*incarnation) == newest || !life.phase.has_ended());
}
