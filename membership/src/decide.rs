//! `decide`: the events that follow from a command. The rules of the cluster, each in one place.
//!
//! ```text
//!   decide(&state, revision, &command) ─▶ Ok(events)      everything that changes; none if nothing does
//!                                      └▶ Err(rejection)  nothing changed; the text names a remedy
//! ```
//!
//! The state is a shared reference, so "a rejection changes nothing" (I16) holds by type. Every command may be
//! repeated: a network repeats messages, and a proposer that lost an outcome must be able to ask again.
//!
//! Members, roles and activations are in `decide/members.rs`, fence orders in `decide/fencing.rs`, proofs in
//! `decide/ending.rs`, locks in `decide/locks.rs`, and records, queues and sessions in `decide/writes.rs`. What several
//! of them check is in `decide/checks.rs`.
//!
//! The `mutant!` branches are seeded mistakes. Only `make mutants` builds them, to check that a named test
//! catches each.

mod checks;
mod ending;
mod fencing;
mod lock_waiters;
mod locks;
mod members;
mod writes;

use checks::unknown;

use crate::cluster::{ClusterState, Leadership};
use crate::command::Command;
use crate::event::Event;
use crate::id::{Activation, NodeId, Nonce, Revision};
use crate::principal::Principal;
use crate::rejection::Rejection;

/// Answers the command of the entry at `revision`.
///
/// # Errors
/// The [`Rejection`] of a command that the rules do not accept in this state.
pub fn decide(state: &ClusterState, revision: Revision, command: &Command) -> Result<Vec<Event>, Rejection> {
    let mut events = answer(state, revision, command)?;
    locks::pass_on(state, revision, &mut events);
    Ok(events)
}

fn answer(state: &ClusterState, revision: Revision, command: &Command) -> Result<Vec<Event>, Rejection> {
    command.asker().map_or(Ok(()), Principal::check).map_err(Rejection::Text)?;
    match command {
        Command::Found { cluster } => match state.id {
            None => Ok(vec![Event::Founded { cluster: *cluster }]),
            Some(known) if known == *cluster => Ok(vec![]),
            Some(known) => Err(Rejection::AlreadyFounded(known)),
        },
        Command::Configure { configuration } => {
            let same = *state.configuration == *configuration;
            Ok(if same { vec![] } else { vec![Event::Configured { configuration: configuration.clone() }] })
        }
        _ if state.id.is_none() => Err(Rejection::NotFounded),
        Command::Join { node, role, addresses, disk, boot, nonce, contract, left, hint } => {
            let (node, role, disk, boot, nonce, contract) = (*node, *role, *disk, *boot, *nonce, *contract);
            let (left, hint) = (*left, hint.as_ref());
            members::Arrival { node, role, addresses, disk, boot, nonce, contract, left, hint }.join(state, revision)
        }
        Command::Activate { who } => members::activate(state, *who),
        Command::OrderFence { target, cause, under } => fencing::order(state, revision, *target, cause, *under),
        Command::StartFence { order, by, attempt } => fencing::start(state, *order, *by, *attempt),
        Command::FailFence { order, attempt, reason } => fencing::fail(state, *order, *attempt, reason),
        Command::ConfirmFence { order, target, confirmation } => {
            ending::confirm(state, revision, *order, *target, confirmation)
        }
        Command::Vouch { target, name, reason, by } => {
            ending::vouch(state, revision, *target, ending::Word { name, reason, by: by.as_ref() })
        }
        Command::Leave { who } => ending::leave(state, revision, *who),
        Command::ActivateLeader { leader, nonce } => activate_leader(state, revision, *leader, *nonce),
        Command::Expire { target, under, waited } => ending::expire(state, revision, *target, *under, *waited),
        Command::SetRole { node, role, by } => members::set_role(state, *node, *role, by.as_ref()),
        Command::SetAddresses { node, addresses, by } => members::set_addresses(state, *node, addresses, by.as_ref()),
        Command::Remove { node, by } => members::remove(state, *node, by.as_ref()),
        Command::DeclareProcessBound { who } => ending::declare_process_bound(state, *who),
        Command::Inherit { who, former } => ending::inherit(state, revision, *who, *former),
        Command::Lock { request, name, holder, wait } => locks::lock(state, revision, *request, name, *holder, *wait),
        Command::Unlock { name, holder, token } => Ok(locks::unlock(state, revision, name, *holder, *token)),
        Command::Settle { request, lock } => locks::settle(state, revision, *request, lock.as_ref()),
        Command::Write { request, checks, changes } => writes::write(state, revision, *request, checks, changes),
        Command::Take { request, queue, token } => writes::take(state, revision, *request, queue, *token),
        Command::OpenSession { request, session } => writes::open(state, revision, *request, session),
        Command::CloseSession { session } => Ok(writes::close(state, *session)),
        Command::ExpireSession { session, under, waited } => writes::expire(state, *session, *under, *waited),
        Command::LiftDelay { name, token, under, waited } => {
            locks::lift(state, revision, name, *token, *under, *waited)
        }
    }
}

/// P4. The number of the activation is that of its entry, so activations strictly grow (I20). Repeated with the same
/// nonce, the command begins one activation only.
fn activate_leader(
    state: &ClusterState,
    revision: Revision,
    leader: NodeId,
    nonce: Nonce,
) -> Result<Vec<Event>, Rejection> {
    if !state.members.contains_key(&leader) {
        return Err(unknown(state, leader));
    }
    if state.leadership.is_some_and(|current| current.leader == leader && current.nonce == nonce) {
        return Ok(vec![]);
    }
    let activation = Activation::new(revision.get());
    Ok(vec![Event::LeaderActivated { leadership: Leadership { activation, leader, nonce } }])
}
