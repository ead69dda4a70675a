//! Which caller may propose which command.
//!
//! ```text
//!   about a life (leave, locks, inherit)           only the process of that life
//!   about elapsed time (expiries, activations)     only the leader, on its own engine
//!   about the voters                               only Raft itself
//!   about an operator's decision                   any client; with TLS any operator (transport-grpc/src/rights.rs)
//! ```
//!
//! These checks prevent mistakes, not attacks: without TLS, any caller can claim any identity. Who asked for what an operator
//! decides stands in the command. The server that the caller reached puts it there, and the other nodes believe that node.

use quorate_membership::codec::decode;
use quorate_membership::{Cause, Change, ClusterState, Command, Confirmation, Holder, Identity, Name, Revision};

use crate::engine::{Engine, fits, only_raft};
use crate::error::Refusal;
use crate::rpc::{Caller, Payload};

/// Checks a command that another node forwards to this leader.
///
/// # Errors
/// [`Refusal::Malformed`] for a command that this node cannot decode or that `caller` may not propose, and
/// [`Refusal::NotReady`] if the caller's join is not applied here yet. Nothing was proposed.
pub(crate) fn proposable(payload: &Payload, caller: &Caller, engine: &Engine) -> Result<(), Refusal> {
    fits(payload)?;
    let command: Command = decode(payload.as_bytes()).map_err(|e| Refusal::Malformed(e.to_string()))?;
    let lives = engine.look(|state| on_behalf_of(&command, state));
    if let Some(who) = lives.into_iter().find(|who| !own_life(*who, caller, engine)) {
        not_known_yet(who, caller, engine)?;
        return Err(Refusal::Malformed(format!("only {who} itself may propose this")));
    }
    match command {
        Command::Configure { .. } => Err(only_raft()),
        // A leader proposes its conclusions on its own engine.
        Command::ActivateLeader { .. }
        | Command::Expire { .. }
        | Command::ExpireSession { .. }
        | Command::LiftDelay { .. } => {
            Err(Refusal::Malformed("only the leader may propose this, on its own engine".into()))
        }
        Command::Leave { who } => {
            if own_life(who, caller, engine) {
                return Ok(());
            }
            Err(only_itself())
        }
        // A life acquires and releases locks and declares how it dies only for itself.
        Command::DeclareProcessBound { who }
        | Command::Inherit { who, .. }
        | Command::Lock { holder: Holder::Life(who), .. }
        | Command::Unlock { holder: Holder::Life(who), .. } => {
            if own_life(who, caller, engine) {
                return Ok(());
            }
            not_known_yet(who, caller, engine)?;
            Err(Refusal::Malformed(format!("only {who} itself may propose this")))
        }
        // A node that moved while no majority was up is reachable only at the addresses in its new join.
        Command::Join { node, addresses, .. } => {
            engine.peers().hint(node, addresses);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The lives to which a command refers through a token or its place in a queue. Only such a life itself may propose the command.
fn on_behalf_of(command: &Command, state: &ClusterState) -> Vec<Identity> {
    let life = |holder: Holder| match holder {
        Holder::Life(who) => Some(who),
        Holder::Session(_) => None,
    };
    let under = |queue: &Name, token: Revision| {
        let grant = state.store().lock(queue)?.grant.filter(|grant| grant.token == token)?;
        life(grant.holder)
    };
    match command {
        Command::Take { queue, token, .. } => under(queue, *token).into_iter().collect(),
        Command::Write { changes, .. } => {
            let lives = changes.iter().filter_map(|change| match change {
                Change::Acknowledge { queue, token, .. } => under(queue, *token),
                _ => None,
            });
            lives.collect()
        }
        Command::Settle { request, lock: Some(name) } => {
            let waiters = state.store().lock(name).into_iter().flat_map(|lock| lock.waiters());
            waiters.filter(|waiter| waiter.request == request.nonce).filter_map(|waiter| life(waiter.holder)).collect()
        }
        _ => vec![],
    }
}

/// Refuses for now what a life of the caller asks whose join is not applied here yet. The caller tries again.
fn not_known_yet(who: Identity, caller: &Caller, engine: &Engine) -> Result<(), Refusal> {
    let unknown = engine.look(|state| state.newest(who.node)).is_none_or(|newest| newest < who);
    if who.node == caller.from && unknown { Err(Refusal::NotReady) } else { Ok(()) }
}

/// Whether the caller is the process of the life `who`.
fn own_life(who: Identity, caller: &Caller, engine: &Engine) -> bool {
    who.node == caller.from && engine.look(|state| state.life(who).is_some_and(|life| life.nonce == caller.process))
}

/// Checks a command of a client: only what an operator or a session decides. Nodes report about themselves to each
/// other.
///
/// # Errors
/// [`Refusal::Malformed`] with the reason; nothing was proposed.
pub(crate) fn for_operators(command: &Command, state: &ClusterState) -> Result<(), Refusal> {
    if let Some(who) = on_behalf_of(command, state).first() {
        return Err(Refusal::Malformed(format!("only {who} itself may propose this")));
    }
    // A member may bind a record to the life of another: a scheduler does.
    if let Command::Write { changes, .. } = command
        && let Some(who) = changes.iter().find_map(bound_to_a_life)
    {
        return Err(Refusal::Malformed(format!("only a member may bind a record to {who}; bind it to a session")));
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
        other => Err(Refusal::Malformed(format!("a client may not propose {other:?}"))),
    }
}

fn bound_to_a_life(change: &Change) -> Option<Identity> {
    match change {
        Change::Put { bound: Some(Holder::Life(who)), .. } => Some(*who),
        _ => None,
    }
}

fn only_itself() -> Refusal {
    Refusal::Malformed(
        "only the life itself may declare that its work has stopped; fence it, or vouch for its end".into(),
    )
}
