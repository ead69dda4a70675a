//! What each caller may call, by the port that it has reached and the role in its certificate.
//!
//! ```text
//!                  Raft            Cluster                         Store
//!   node           as itself       all; it joins as itself         all
//!   operator       nothing         all but Join                    all
//!   client         nothing         Status, Members, Events         all
//! ```
//!
//! A node of the table is a member: one that was removed, or has never joined, may do nothing here but join. A port for nodes
//! has the first column and `Join`, a port for clients has the rest. "As itself" is checked where the call is read
//! (`places.rs`). What is not listed for a client is refused, so a method that is added one day is the operators' until
//! somebody decides otherwise.

use quorate_membership::{ClusterState, Command, Confirmation, NodeId, Principal, Reason};
use quorate_raft_core::Refusal;

use crate::pb::{cluster_server, raft_server, store_server};
use crate::settings::PortUse;
use crate::tls::CallerRole;

/// What a client may ask of the service Cluster: it changes nothing.
const FOR_CLIENTS: [&str; 3] = ["Status", "Members", "Events"];

/// The call of a machine that has a join token and no certificate yet.
const ENROLL: &str = "Enroll";

/// What only nodes ask of the service Cluster, or machines that are to become one.
const OF_NODES: [&str; 4] = ["Join", ENROLL, "Certify", "ShareAuthority"];

/// Whether a caller of this role may call this method on this port. Without TLS, and so without a role, everybody may call what
/// the port is for.
///
/// # Errors
/// [`Refusal::NotAllowed`], with who may, or where. Nothing was changed.
pub(crate) fn check(port: PortUse, role: Option<&CallerRole>, service: &str, method: &str) -> Result<(), Refusal> {
    let of_nodes = is_of_nodes(service, method);
    match port {
        PortUse::Nodes if !of_nodes => {
            let why = format!("`{method}` is for clients, and this port is for nodes; use the port for clients");
            return Err(Refusal::NotAllowed(why));
        }
        PortUse::Clients if of_nodes => {
            let why = format!("`{method}` is for nodes, and this port is for clients; use the port for nodes");
            return Err(Refusal::NotAllowed(why));
        }
        PortUse::All | PortUse::Nodes | PortUse::Clients => {}
    }
    let Some(role) = role else { return Ok(()) };
    let needed = match (role, service) {
        (CallerRole::Joiner, _) if method == ENROLL => return Ok(()),
        (CallerRole::Joiner, _) => {
            return Err(Refusal::NotAllowed(format!(
                "`{method}` needs a certificate of this cluster, and none was shown"
            )));
        }
        (CallerRole::Node(_), _) => return Ok(()),
        _ if of_nodes => "a node",
        (CallerRole::Operator(_), _) | (CallerRole::Client(_), store_server::SERVICE_NAME) => return Ok(()),
        (CallerRole::Client(_), cluster_server::SERVICE_NAME) if FOR_CLIENTS.contains(&method) => return Ok(()),
        (CallerRole::Client(_), _) => "an operator",
    };
    if quorate_membership::mutant!("clients_may_command") {
        return Ok(());
    }
    Err(Refusal::NotAllowed(format!("`{method}` is for {needed}, and the certificate is that of {role}")))
}

/// Whether a node may call what clients and operators may. The rules of Raft look at nodes themselves (`member/gate.rs`).
///
/// # Errors
/// [`Refusal::Retired`] for a node that was removed, and [`Refusal::NotAllowed`] for one that is no member. Nothing was changed.
pub(crate) fn of_member(state: &ClusterState, node: NodeId) -> Result<(), Refusal> {
    if quorate_membership::mutant!("removed_may_command") || state.member(node).is_some() {
        return Ok(());
    }
    match state.retired().contains(&node) {
        true => Err(Refusal::Retired(node)),
        false => Err(Refusal::NotAllowed(format!("{node} is no member of this cluster; it has to join first"))),
    }
}

/// The caller, as it stands in the log. `None` without TLS.
///
/// # Errors
/// [`Refusal::Malformed`] for a name that does not fit. Nothing was changed.
pub(crate) fn principal(role: Option<&CallerRole>) -> Result<Option<Principal>, Refusal> {
    let named = |role: &CallerRole| Principal::new(role.principal());
    let role = role.filter(|_| !quorate_membership::mutant!("nobody_asked"));
    role.map(named).transpose().map_err(|error| Refusal::Malformed(error.to_string()))
}

/// Whether a caller gives its own word: an operator confirms in the name that its certificate has.
///
/// # Errors
/// [`Refusal::NotAllowed`] for the word of another. Nothing was changed.
pub(crate) fn in_own_name(role: Option<&CallerRole>, command: &Command) -> Result<(), Refusal> {
    let (Some(CallerRole::Operator(own)), Some(name)) = (role, word_of(command)) else { return Ok(()) };
    if name.as_str() == own {
        return Ok(());
    }
    Err(Refusal::NotAllowed(format!(
        "the word is that of `{name}`, and the certificate is that of operator `{own}`; give it in that name"
    )))
}

/// The operator who answers for a command, if one does.
fn word_of(command: &Command) -> Option<&Reason> {
    match command {
        Command::Vouch { name, .. }
        | Command::ConfirmFence { confirmation: Confirmation::Operator { name, .. }, .. } => Some(name),
        _ => None,
    }
}

/// Whether a node makes this call before it is a member.
pub(crate) fn is_of_a_stranger(method: &str) -> bool {
    matches!(method, "Join" | ENROLL)
}

/// Whether only nodes make this call.
fn is_of_nodes(service: &str, method: &str) -> bool {
    service == raft_server::SERVICE_NAME || service == cluster_server::SERVICE_NAME && OF_NODES.contains(&method)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAFT: &str = raft_server::SERVICE_NAME;
    const CLUSTER: &str = cluster_server::SERVICE_NAME;
    const STORE: &str = store_server::SERVICE_NAME;

    fn may(role: &CallerRole, service: &str, method: &str) -> bool {
        check(PortUse::All, Some(role), service, method).is_ok()
    }

    #[test]
    fn each_role_may_call_what_the_table_says_and_nothing_else() {
        let node = CallerRole::Node(NodeId::new(1));
        let (operator, client) = (CallerRole::Operator("alice".into()), CallerRole::Client("billing".into()));
        // Node, operator, client.
        for (service, method, allowed) in [
            (RAFT, "Append", [true, false, false]),
            (RAFT, "CallStream", [true, false, false]),
            (CLUSTER, "Join", [true, false, false]),
            (CLUSTER, "Vouch", [true, true, false]),
            (CLUSTER, "OrderFence", [true, true, false]),
            (CLUSTER, "OneThatIsAddedOneDay", [true, true, false]),
            (CLUSTER, "Status", [true, true, true]),
            (STORE, "Write", [true, true, true]),
            ("quorate.v1.OneThatIsAddedOneDay", "Any", [true, true, false]),
        ] {
            assert_eq!(
                [&node, &operator, &client].map(|role| may(role, service, method)),
                allowed,
                "{service}/{method}"
            );
            assert!(check(PortUse::All, None, service, method).is_ok());
        }
        let refused = check(PortUse::All, Some(&client), CLUSTER, "Vouch").unwrap_err().to_string();
        assert_eq!(refused, "not allowed: `Vouch` is for an operator, and the certificate is that of client `billing`");
    }

    #[test]
    fn a_port_for_nodes_and_one_for_clients_share_no_method() {
        let on = |port, service, method| check(port, None, service, method).is_ok();
        for (service, method, of_nodes) in
            [(RAFT, "Append", true), (CLUSTER, "Join", true), (CLUSTER, "Status", false), (STORE, "Write", false)]
        {
            let found = [PortUse::Nodes, PortUse::Clients].map(|port| on(port, service, method));
            assert_eq!(found, [of_nodes, !of_nodes], "{service}/{method}");
        }
        let refused = check(PortUse::Clients, None, RAFT, "Vote").unwrap_err().to_string();
        assert!(refused.contains("use the port for nodes"), "{refused}");
    }
}
