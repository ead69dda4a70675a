//! What each caller may call, by the role in its certificate.
//!
//! ```text
//!                  Raft            Cluster                         Store
//!   node           as itself       all; it joins as itself         all
//!   operator       nothing         all but Join                    all
//!   client         nothing         Status, Members, Events         all
//! ```
//!
//! "As itself" is checked where the call is read (`places.rs`). What is not listed for a client is refused, so a method that is added
//! one day is the operators' until somebody decides otherwise.

use quorate_raft_core::Refusal;

use crate::pb::{cluster_server, raft_server};
use crate::tls::CallerRole;

/// What a client may ask of the service Cluster: it changes nothing.
const FOR_CLIENTS: [&str; 3] = ["Status", "Members", "Events"];

/// Whether a caller of this role may call this method. Without TLS (`None`) everybody may call everything.
///
/// # Errors
/// [`Refusal::NotAllowed`], with who may. Nothing was changed.
pub(crate) fn check(role: Option<&CallerRole>, service: &str, method: &str) -> Result<(), Refusal> {
    let Some(role) = role else { return Ok(()) };
    let needed = match (role, service) {
        (CallerRole::Node(_), _) => return Ok(()),
        (_, raft_server::SERVICE_NAME) => "a node",
        (_, cluster_server::SERVICE_NAME) if method == "Join" => "a node",
        (CallerRole::Client(_), cluster_server::SERVICE_NAME) if !FOR_CLIENTS.contains(&method) => "an operator",
        (CallerRole::Operator(_) | CallerRole::Client(_), _) => return Ok(()),
    };
    if quorate_membership::mutant!("clients_may_command") {
        return Ok(());
    }
    Err(Refusal::NotAllowed(format!("`{method}` is for {needed}, and the certificate is that of {role}")))
}

#[cfg(test)]
mod tests {
    use quorate_membership::NodeId;

    use super::*;
    use crate::pb::store_server;

    const RAFT: &str = raft_server::SERVICE_NAME;
    const CLUSTER: &str = cluster_server::SERVICE_NAME;
    const STORE: &str = store_server::SERVICE_NAME;

    fn may(role: &CallerRole, service: &str, method: &str) -> bool {
        check(Some(role), service, method).is_ok()
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
        ] {
            assert_eq!(
                [&node, &operator, &client].map(|role| may(role, service, method)),
                allowed,
                "{service}/{method}"
            );
            assert!(check(None, service, method).is_ok());
        }
        let refused = check(Some(&client), CLUSTER, "Vouch").unwrap_err().to_string();
        assert_eq!(refused, "not allowed: `Vouch` is for an operator, and the certificate is that of client `billing`");
    }
}
