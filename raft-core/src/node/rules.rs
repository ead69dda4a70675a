//! Who may say what: of its own life each process speaks itself, of time the leader, of Raft's log Raft, and a person of
//! what a person decides. These checks guard against mistakes; without TLS anybody at the port may claim to be anybody.

use quorate_membership::codec::decode;
use quorate_membership::{Cause, Change, ClusterState, Command, Confirmation, Holder, Identity, Name, Revision};

use crate::engine::{Engine, fits, only_raft};
use crate::error::Refusal;
use crate::rpc::{Caller, Payload};

/// A command that another node may hand to the leader: one that this one can read, not one that only Raft may say, and
/// a leave only from the very process whose life it ends.
pub(crate) fn proposable(payload: &Payload, caller: &Caller, engine: &Engine) -> Result<(), Refusal> {
    fits(payload)?;
    let command: Command = decode(payload.as_bytes()).map_err(|e| Refusal::Malformed(e.to_string()))?;
    if let Some(who) = on_behalf_of(&command, &engine.state()).filter(|who| !own_life(*who, caller, engine)) {
        return Err(Refusal::Malformed(format!("only {who} itself may say this")));
    }
    match command {
        Command::Configure { .. } => Err(only_raft()),
        // What a leader concludes it proposes on its own engine.
        Command::ActivateLeader { .. }
        | Command::Expire { .. }
        | Command::ExpireSession { .. }
        | Command::LiftDelay { .. } => Err(Refusal::Malformed("only a leader says this, and to itself".into())),
        Command::Leave { who } => {
            if own_life(who, caller, engine) {
                return Ok(());
            }
            Err(only_itself())
        }
        // Nobody asks for a lock, gives one back or says how it would die on behalf of another life.
        Command::DeclareProcessBound { who }
        | Command::Inherit { who, .. }
        | Command::Lock { holder: Holder::Life(who), .. }
        | Command::Unlock { holder: Holder::Life(who), .. } => {
            let state = engine.state();
            if own_life(who, caller, engine) {
                return Ok(());
            }
            // Its join is not applied here yet: asked again, it will be.
            if who.node == caller.from && state.newest(who.node).is_none_or(|newest| newest < who) {
                return Err(Refusal::NotReady);
            }
            Err(Refusal::Malformed(format!("only {who} itself may say this")))
        }
        // Whoever moved while a majority was away can be reached again only where it says that it is now.
        Command::Join { node, addresses, .. } => {
            engine.peers().hint(node, addresses);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The life on whose behalf this speaks, by a token or a place in a line that is its: only it may.
fn on_behalf_of(command: &Command, state: &ClusterState) -> Option<Identity> {
    let life = |holder: Holder| match holder {
        Holder::Life(who) => Some(who),
        Holder::Session(_) => None,
    };
    let under = |queue: &Name, token: Revision| {
        let grant = state.store().lock(queue)?.grant.filter(|grant| grant.token == token)?;
        life(grant.holder)
    };
    match command {
        Command::Take { queue, token, .. } => under(queue, *token),
        Command::Write { changes, .. } => changes.iter().find_map(|change| match change {
            Change::Acknowledge { queue, token, .. } => under(queue, *token),
            _ => None,
        }),
        Command::Settle { request, lock: Some(name) } => {
            let waiters = &state.store().lock(name)?.waiters;
            life(waiters.iter().find(|waiter| waiter.request == request.nonce)?.holder)
        }
        _ => None,
    }
}

/// Whether the caller is the very process whose life this is.
fn own_life(who: Identity, caller: &Caller, engine: &Engine) -> bool {
    let state = engine.state();
    who.node == caller.from && state.life(who).is_some_and(|life| life.nonce == caller.process)
}

/// What may be asked for from outside: what a person decides. What nodes say of themselves and of their work they say
/// to each other.
pub(crate) fn for_operators(command: &Command, state: &ClusterState) -> Result<(), Refusal> {
    if let Some(who) = on_behalf_of(command, state) {
        return Err(Refusal::Malformed(format!("only {who} itself may say this")));
    }
    match command {
        Command::OrderFence { cause: Cause::Requested { .. }, .. }
        | Command::ConfirmFence { confirmation: Confirmation::Operator { .. }, .. }
        | Command::Vouch { .. }
        | Command::SetRole { .. }
        | Command::SetAddresses { .. }
        | Command::Remove { .. }
        | Command::Lock { holder: Holder::Session(_), .. }
        | Command::Unlock { holder: Holder::Session(_), .. }
        | Command::Settle { .. }
        | Command::Write { .. }
        | Command::Take { .. }
        | Command::OpenSession { .. }
        | Command::CloseSession { .. } => Ok(()),
        Command::Configure { .. } => Err(only_raft()),
        Command::Leave { .. } => Err(only_itself()),
        other => Err(Refusal::Malformed(format!("nobody outside may say {other:?}"))),
    }
}

fn only_itself() -> Refusal {
    Refusal::Malformed(
        "only the life itself may say that it has stopped everything; fence it, or vouch for its end".into(),
    )
}
