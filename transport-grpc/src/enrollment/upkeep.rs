//! What a node does about its certificate while it runs: renews it in time, keeps the authority while it is a voter, and warns.
//!
//! ```text
//!   every few seconds:  a third of the time left? ─▶ a new certificate, by this node's own authority or by a voter ─▶ files, connections
//!                  a voter without the authority ─▶ asks the other voters          no voter any more ─▶ deletes its key
//! ```
//!
//! All of it is about certificates, whose times are those of the wall clock, and none of it about leases or elections. What fails is
//! told and tried again.

use std::sync::Arc;
use std::time::Duration;

use quorate_membership::{Address, NodeId, Role};
use quorate_raft_core::ClientService;
use tokio::time::{Instant, sleep};

use super::ask::to_node;
use crate::pb;
use crate::tls::{CallerRole, Managed, NODE_VALID, Tls};

/// The pause between two looks.
const LOOK: Duration = Duration::from_secs(5);

/// The pause while a voter waits for the authority, or a node for its role.
const SOON: Duration = Duration::from_secs(1);

/// Below this a node whose certificate is not renewed warns.
const WARNING: Duration = Duration::from_secs(14 * 24 * 3600);

/// The least time between two warnings.
const QUIET: Duration = Duration::from_secs(24 * 3600);

/// The pause after a renewal that failed.
const RENEW_AGAIN: Duration = Duration::from_secs(10);

/// Looks after the certificate of the node that `service` is, for as long as the future is polled.
pub async fn keep_certificates(service: Arc<dyn ClientService>, tls: Tls) {
    let (mut warn_at, mut renew_at) = (Instant::now(), Instant::now());
    loop {
        let mut pause = LOOK;
        if let Some(managed) = tls.managed() {
            if !keep_authority(&*service, &tls, managed).await {
                pause = SOON;
            }
            if tls.valid_for() < NODE_VALID / 3 && Instant::now() >= renew_at {
                renew_at = Instant::now() + RENEW_AGAIN;
                renew(&*service, &tls, managed).await;
            }
        }
        let left = tls.valid_for();
        if left < WARNING && Instant::now() >= warn_at {
            warn_at = Instant::now() + QUIET;
            let hours = left.as_secs() / 3600;
            tracing::warn!(
                hours,
                "the certificate of this node expires soon, and the others will close its connections then"
            );
        }
        sleep(pause).await;
    }
}

/// Whether this node has of the authority what its role says.
async fn keep_authority(service: &dyn ClientService, tls: &Tls, managed: &Managed) -> bool {
    let Some(own) = own(tls) else { return true };
    let mut role = None;
    service.look(&mut |state| role = state.member(own).map(|member| member.role));
    match role {
        Some(Role::Voter) if !managed.keeps() => {
            for (node, address) in others(service, own) {
                match ask_for_authority(tls, managed, node, &address).await {
                    Ok(()) => {
                        tracing::info!(from = %node, "this voter keeps the authority of the cluster now");
                        return true;
                    }
                    Err(error) => tracing::debug!(%node, %error, "no authority from there"),
                }
            }
            false
        }
        // It does not know its role yet.
        None => false,
        Some(Role::Learner | Role::Witness) if managed.keeps() => {
            match managed.forget() {
                Ok(()) => {
                    tracing::info!("this node is no voter any more, and has deleted the authority of the cluster")
                }
                Err(error) => tracing::warn!(%error, "the key of the authority could not be deleted"),
            }
            true
        }
        _ => true,
    }
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

async fn ask_for_authority(tls: &Tls, managed: &Managed, node: NodeId, address: &Address) -> Result<(), AnyError> {
    let mut client = to_node(tls, node, address).await?;
    let answer = client.share_authority(pb::ShareAuthorityRequest {}).await?.into_inner();
    Ok(managed.keep(&answer.certificate, &answer.key)?)
}

/// Replaces the certificate of this node by a new one, if that can be had.
async fn renew(service: &dyn ClientService, tls: &Tls, managed: &Managed) {
    let Some(own) = own(tls) else { return };
    let renewed = match managed.renew_by_itself(own) {
        Some(renewed) => renewed.map_err(AnyError::from),
        None => {
            let mut last = Err("no voter is known here".into());
            for (node, address) in others(service, own) {
                last = ask_for_certificate(tls, managed, node, &address).await;
                if last.is_ok() {
                    break;
                }
            }
            last
        }
    };
    match renewed.and_then(|credentials| Ok(tls.replace(credentials)?)) {
        Ok(()) => tracing::info!("renewed the certificate of this node"),
        Err(error) => tracing::warn!(%error, "the certificate of this node could not be renewed; will try again"),
    }
}

async fn ask_for_certificate(
    tls: &Tls,
    managed: &Managed,
    node: NodeId,
    address: &Address,
) -> Result<crate::tls::Credentials, AnyError> {
    let request = managed.request()?;
    let mut client = to_node(tls, node, address).await?;
    let answer = client.certify(pb::CertifyRequest { request: request.into() }).await?.into_inner();
    Ok(managed.keep_renewed(&answer.certificate, &answer.authority)?)
}

/// The node that this process is.
fn own(tls: &Tls) -> Option<NodeId> {
    match tls.subject().role {
        CallerRole::Node(node) => Some(node),
        _ => None,
    }
}

/// The other voters, and where they are reached.
fn others(service: &dyn ClientService, own: NodeId) -> Vec<(NodeId, Address)> {
    let mut found = Vec::new();
    service.look(&mut |state| {
        let voters = state.members().filter(|(node, member)| *node != own && member.role == Role::Voter);
        found = voters.flat_map(|(node, member)| member.addresses.iter().map(move |at| (node, at.clone()))).collect();
    });
    found
}
