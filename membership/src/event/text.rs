//! The printed form of each event: one line, the same in logs, scripts and documentation.

use std::fmt;

use super::Event;
use crate::member::Address;
use crate::principal::Principal;

fn list(addresses: &[Address]) -> String {
    addresses.iter().map(Address::as_str).collect::<Vec<_>>().join(" ")
}

/// The end of the line of what an operator decides.
fn asked(by: &Option<Principal>) -> String {
    by.as_ref().map(|by| format!(", asked by {by}")).unwrap_or_default()
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Founded { cluster } => write!(f, "founded {cluster}"),
            Self::Joined { who, role, addresses, .. } => write!(f, "joined {who} as {role} at {}", list(addresses)),
            Self::Activated { who } => write!(f, "activated {who}"),
            Self::FenceOrdered { order, target, cause } => write!(f, "fence ordered {order} against {target}: {cause}"),
            Self::FenceStarted { order, target, by, attempt } => {
                write!(f, "fence started {order} against {target} by {by}, attempt {attempt}")
            }
            Self::FenceFailed { order, target, attempt, reason } => {
                write!(f, "fence failed {order} against {target} in attempt {attempt}: {reason}")
            }
            Self::Fenced { order, who, proof, token } => write!(f, "fenced {who} by {order}, token {token}: {proof}"),
            Self::Left { who, token } => write!(f, "left {who}, token {token}"),
            Self::Superseded { who } => write!(f, "superseded {who}"),
            Self::RoleChanged { node, role, by } => write!(f, "role of {node} is {role}{}", asked(by)),
            Self::Readdressed { node, addresses, by } => write!(f, "{node} is at {}{}", list(addresses), asked(by)),
            Self::Removed { node, by } => write!(f, "removed {node}{}", asked(by)),
            Self::Configured { configuration } => write!(f, "configured {configuration}"),
            Self::LeaderActivated { leadership } => {
                write!(f, "activated leader {} as {}", leadership.leader, leadership.activation)
            }
            Self::Corroborated { order, who, proof } => write!(f, "corroborated {order}, the end of {who}: {proof}"),
            Self::DeclaredProcessBound { who } => write!(f, "the work of {who} dies with its process"),
            Self::Answered { request } => write!(f, "answered {request}"),
            Self::Voided { request } => write!(f, "voided {request}"),
            Self::LockGranted { name, holder, token, request: _ } => {
                write!(f, "granted lock `{name}` to {holder}, token {token}")
            }
            Self::LockQueued { name, holder, request: _ } => write!(f, "{holder} waits for lock `{name}`"),
            Self::LockWithdrawn { name, holder, request: _ } => write!(f, "{holder} waits for lock `{name}` no more"),
            Self::LockReleased { name, holder, token, why } => {
                write!(f, "released lock `{name}`, {token} of {holder}: {why}")
            }
            Self::LockDelayed { name, token, at_least } => {
                write!(f, "lock `{name}` is held back for {at_least:?}, after {token}")
            }
            Self::LockLifted { name, token } => write!(f, "lock `{name}` is held back no more, after {token}"),
            Self::Put { key, value, bound: None } => write!(f, "put `{key}` = {value:?}"),
            Self::Put { key, value, bound: Some(holder) } => write!(f, "put `{key}` = {value:?}, bound to {holder}"),
            Self::Deleted { key } => write!(f, "deleted `{key}`"),
            Self::Pushed { queue, item, value } => write!(f, "pushed {item} to `{queue}`: {value:?}"),
            Self::Taken { queue, item, token, request: _ } => write!(f, "took {item} from `{queue}` under {token}"),
            Self::Acknowledged { queue, item } => write!(f, "acknowledged {item} of `{queue}`"),
            Self::SessionOpened { id, session } => {
                write!(f, "opened session {id} of {}, ttl {:?}", session.label, session.ttl)
            }
            Self::SessionEnded { id, clean: true } => write!(f, "closed session {id}"),
            Self::SessionEnded { id, clean: false } => write!(f, "session {id} has run out"),
        }
    }
}
