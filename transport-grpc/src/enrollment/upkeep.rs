//! What a node does about its certificate while it runs: renews it in time, keeps the authority while it is a voter, and warns.
//!
//! ```text
//!   every few seconds:  a third of the time left? ─▶ a new certificate, by its own copy of the authority or by a voter
//!                       a voter without the authority ─▶ asks the other members
//!                       no voter any more, and another one has it ─▶ deletes its key
//! ```
//!
//! All of it is about certificates, whose times are those of the wall clock, and none of it about leases or elections. What fails is
//! told and tried again.

use std::sync::Arc;
use std::time::Duration;

use quorate_membership::{Address, ClusterState, NodeId, Role};
use quorate_raft_core::{ClientService, ClientServiceExt};
use tokio::time::{Instant, sleep, timeout};

use super::ask::{ANSWER, on_disk, to_node};
use crate::pb;
use crate::tls::{CredentialsError, Managed, NODE_VALID, Tls};

/// The pause between two looks.
const LOOK: Duration = Duration::from_secs(5);

/// The pause while a voter waits for the authority, or a node for its role.
const SOON: Duration = Duration::from_secs(1);

/// Below this a node whose certificate is not renewed warns.
const WARNING: Duration = Duration::from_secs(14 * 24 * 3600);

/// The least time between two warnings.
const QUIET: Duration = Duration::from_secs(24 * 3600);

/// How long what is missing is not warned of, because it may be on its way.
const QUIET_FIRST: Duration = Duration::from_secs(60);

/// The pause after a renewal that failed.
const RENEW_AGAIN: Duration = Duration::from_secs(10);

/// Looks after the certificate of the node that `service` is, for as long as the future is polled.
pub async fn keep_certificates(service: Arc<dyn ClientService>, tls: Tls) {
    let began = Instant::now();
    let (mut warn_at, mut renew_at, mut missing_at) = (began + QUIET_FIRST, began, began + QUIET_FIRST);
    let mut last = String::new();
    loop {
        let mut pause = LOOK;
        if tls.is_managed() {
            if keep_authority(&*service, &tls).await {
                missing_at = Instant::now() + QUIET_FIRST;
            } else {
                pause = SOON;
            }
            if Instant::now() >= missing_at {
                missing_at = Instant::now() + QUIET;
                tracing::warn!(
                    "this node has not got the authority of the cluster yet: it is no voter so far, or reaches none that keeps it"
                );
            }
            if tls.valid_for() < NODE_VALID / 3 && Instant::now() >= renew_at {
                renew_at = Instant::now() + RENEW_AGAIN;
                match renew(&*service, &tls).await {
                    Ok(()) => tracing::info!("renewed the certificate of this node"),
                    Err(error) => {
                        tracing::debug!(%error, "no new certificate yet; will ask again");
                        last = error.to_string();
                    }
                }
            }
        }
        let left = tls.valid_for();
        if left < WARNING && Instant::now() >= warn_at {
            warn_at = Instant::now() + QUIET;
            let hours = left.as_secs() / 3600;
            tracing::warn!(
                hours,
                last_renewal = last,
                "the certificate of this node expires soon, and the others will close its connections then"
            );
        }
        sleep(pause).await;
    }
}

/// Whether this node has of the authority what its role says.
async fn keep_authority(service: &dyn ClientService, tls: &Tls) -> bool {
    let Some(own) = tls.node() else { return true };
    let (role, votes) = service.looked(|state| (role_of(state, own), state.configuration().voters().contains(&own)));
    match role {
        Some(Role::Voter) if tls.keeps_authority() => true,
        Some(Role::Voter) => votes && ask_for_authority(service, tls, own).await,
        // A witness votes, and is no voter by its role.
        Some(role) if tls.keeps_authority() && (role == Role::Witness || !votes) => {
            // Not before another one has it, or nobody would. And not if this node has become a voter meanwhile.
            let asked = ask_for_certificate(service, tls, own).await.is_ok();
            let is_voter = || service.looked(|state| role_of(state, own) == Some(Role::Voter));
            if asked && service.read_barrier(ANSWER).await.is_ok() && !is_voter() {
                forget(tls).await;
            }
            true
        }
        Some(_) => true,
        // It does not know its role yet. One that was removed hears no more, and deletes nothing that others may need.
        None => false,
    }
}

fn role_of(state: &ClusterState, node: NodeId) -> Option<Role> {
    state.member(node).map(|member| member.role)
}

async fn forget(tls: &Tls) {
    let own = tls.clone();
    match on_disk(move || own.managed().map_or(Ok(()), Managed::forget)).await {
        Ok(()) => tracing::info!("this node is no voter any more, and has deleted the authority of the cluster"),
        Err(error) => tracing::warn!(%error, "the key of the authority could not be deleted"),
    }
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Asks every member that may keep the authority for it.
async fn ask_for_authority(service: &dyn ClientService, tls: &Tls, own: NodeId) -> bool {
    for (node, address) in others(service, own, |_| true) {
        let asked = async {
            let mut client = to_node(tls, node, &address).await?;
            let answer = timeout(ANSWER, client.share_authority(pb::ShareAuthorityRequest {})).await??.into_inner();
            let own = tls.clone();
            let kept = move || own.managed().map_or(Ok(()), |managed| managed.keep(&answer.certificate, &answer.key));
            Ok::<(), AnyError>(on_disk(kept).await?)
        };
        match asked.await {
            Ok(()) => {
                tracing::info!(from = %node, "this voter keeps the authority of the cluster now");
                return true;
            }
            Err(error) => tracing::debug!(%node, %error, "no authority from there"),
        }
    }
    false
}

/// Replaces the certificate of this node by a new one, if that can be had.
async fn renew(service: &dyn ClientService, tls: &Tls) -> Result<(), AnyError> {
    let own = tls.node().ok_or("this is no node")?;
    let by_itself = tls.clone();
    let renewed =
        on_disk(move || by_itself.managed().and_then(|managed| managed.renew_by_itself(own)).transpose()).await?;
    let renewed = match renewed {
        Some(renewed) => renewed,
        None => {
            let answer = ask_for_certificate(service, tls, own).await?;
            let kept = tls.clone();
            let keep = move || {
                let managed = kept.managed().ok_or(CredentialsError::NoAuthority)?;
                managed.keep_renewed(&answer.certificate, &answer.authority)
            };
            on_disk(keep).await?
        }
    };
    Ok(tls.replace(renewed)?)
}

/// A certificate of this node by a voter that keeps the authority.
async fn ask_for_certificate(
    service: &dyn ClientService,
    tls: &Tls,
    own: NodeId,
) -> Result<pb::CertificateResponse, AnyError> {
    let wanted = tls.clone();
    let request = on_disk(move || wanted.managed().ok_or(CredentialsError::NoAuthority)?.request()).await?;
    let mut last = "no other voter is known here".into();
    for (node, address) in others(service, own, |role| role == Role::Voter) {
        let asked = async {
            let mut client = to_node(tls, node, &address).await?;
            let asked = pb::CertifyRequest { request: request.clone().into() };
            Ok::<_, AnyError>(timeout(ANSWER, client.certify(asked)).await??.into_inner())
        };
        match asked.await {
            Ok(answer) => return Ok(answer),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The other members of these roles, and where they are reached.
fn others(service: &dyn ClientService, own: NodeId, of: impl Fn(Role) -> bool) -> Vec<(NodeId, Address)> {
    service.looked(|state| {
        let members = state.members().filter(|(node, member)| *node != own && of(member.role));
        members.flat_map(|(node, member)| member.addresses.iter().map(move |at| (node, at.clone()))).collect()
    })
}
