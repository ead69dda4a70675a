//! What a voter does for a machine with a join token, and for members: certificates, and the authority itself for voters.
//!
//! ```text
//!   Enroll ─▶ the newest state: is n4 invited, and is this its token? ─▶ used? by this key? ─▶ certificate
//!                                                                          └ no ─▶ log: used by this key
//! ```
//!
//! Of two machines with one token, the log has one first: the write is checked against the version that was read. The other one is
//! told so. A machine that lost the answer asks again with the same key.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use quorate_membership::{Change, Check, ClusterState, Command, NodeId, Record, Rejection, Role, SessionId, Value};
use quorate_raft_core::{ClientService, ClientServiceExt, ProposeError, Refusal};
use tokio::sync::Semaphore;
use tonic::Status;

use super::{REQUEST_LIMIT, key_of, read};
use crate::grpc_errors::{command_failed, malformed, read_failed, refused};
use crate::pb;
use crate::rights;
use crate::tls::{CallerRole, CredentialsError, Managed, NODE_VALID, Tls, is_signed, key_hash};

/// How long it may take until a quorum confirms that the state here is the newest.
const TIMEOUT: Duration = Duration::from_secs(3);

/// How long the first certificate of a machine is valid: until it has joined, and is given the next one. One that never joins is not
/// let in after that.
const FIRST_VALID: Duration = Duration::from_secs(3600);

/// How many machines without a certificate are looked at together.
const TURNS: usize = 4;

/// What one node can grant. Clones share it.
#[derive(Clone)]
pub(crate) struct Grants {
    service: Arc<dyn ClientService>,
    tls: Option<Tls>,
    /// How many machines without a certificate may be looked at together.
    turns: Arc<Semaphore>,
}

/// What the log has of the invitation that a machine shows the secret of.
struct Open {
    record: Record,
    invitation: pb::Invitation,
    /// Whether the node has joined already.
    member: bool,
    /// Whether its time has not ended.
    open: bool,
}

fn not_allowed(why: impl Into<String>) -> Status {
    refused(&Refusal::NotAllowed(why.into()))
}

/// Ask another node.
fn elsewhere(why: impl Into<String>) -> Status {
    refused(&Refusal::Unavailable(why.into()))
}

impl Grants {
    pub(crate) fn new(service: Arc<dyn ClientService>, tls: Option<Tls>) -> Self {
        Self { service, tls, turns: Arc::new(Semaphore::new(TURNS)) }
    }

    /// The TLS of this node.
    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    fn managed(&self) -> Result<&Managed, Status> {
        let none = || not_allowed("this cluster has no authority of its own; its operator makes the certificates");
        self.tls.as_ref().and_then(Tls::managed).ok_or_else(none)
    }

    /// The first certificate of the machine that has a token.
    pub(crate) async fn enroll(&self, asked: pb::EnrollRequest) -> Result<pb::CertificateResponse, Status> {
        let managed = self.managed()?;
        let pb::EnrollRequest { node, signature, request } = asked;
        let node = NodeId::new(node);
        let key = key_in(&request)?;
        if !managed.keeps() {
            return Err(elsewhere("this node does not keep the authority of the cluster; ask a voter"));
        }
        // Few at a time: nobody knows yet who asks.
        let _turn = self.turns.acquire().await.map_err(|_| elsewhere("this node is stopping"))?;
        self.service.read_barrier(TIMEOUT).await.map_err(|error| read_failed(&error))?;
        let Open { record, invitation, member, open } = self.open(node)?;
        let signed = is_signed(&invitation.public_key, managed.cluster(), node, &request, &signature);
        if !signed && !quorate_membership::mutant!("any_secret_enrolls") {
            return Err(not_allowed(format!(
                "the token is not that of the open invitation of {node}, which was made at {}; use the newest one",
                record.created
            )));
        }
        match invitation.used_by_sha256.as_deref() {
            // It has lost the answer, or its certificate has expired meanwhile.
            Some(used) if used == key.as_slice() && (open || member) => {}
            Some(used) if used == key.as_slice() => {
                let why = "was used by this machine, which has not joined in time; make one for another number";
                return Err(not_allowed(format!("the token of {node} {why}")));
            }
            Some(_) => return Err(used_already(node, &record)),
            None if member => return Err(not_allowed(format!("{node} is a member already; choose another number"))),
            None => self.use_up(node, &record, invitation, &key).await?,
        }
        let valid = if member { NODE_VALID } else { FIRST_VALID };
        self.certificate(managed, node, &request, valid)
    }

    /// The invitation of a node, as the log has it.
    fn open(&self, node: NodeId) -> Result<Open, Status> {
        let key = key_of(node).map_err(|error| malformed(error.to_string()))?;
        let (found, open, retired, member) = self.service.looked(|state| {
            let found = state.store().record(&key).map(|record| (record.clone(), read(record)));
            let session = found.as_ref().and_then(|(_, invitation)| Some(SessionId::new(invitation.as_ref()?.session)));
            let open = session.is_some_and(|session| state.store().session(session).is_some());
            (found, open, state.retired().contains(&node), state.member(node).is_some())
        });
        if retired {
            return Err(refused(&Refusal::Retired(node)));
        }
        let none = || {
            let why = if member { "its node is a member already" } else { "it has expired, or was never made here" };
            not_allowed(format!("{node} has no open invitation: {why}; make a new one"))
        };
        let (record, invitation) = found.ok_or_else(none)?;
        let invitation = invitation.ok_or_else(|| not_allowed(format!("the invitation of {node} is not readable")))?;
        Ok(Open { record, invitation, member, open })
    }

    /// Has the log say that this key has used the invitation.
    async fn use_up(
        &self,
        node: NodeId,
        record: &Record,
        invitation: pb::Invitation,
        by: &[u8; 32],
    ) -> Result<(), Status> {
        let key = key_of(node).map_err(|error| malformed(error.to_string()))?;
        let version = Some(record.version).filter(|_| !quorate_membership::mutant!("token_used_twice"));
        let used = pb::Invitation { used_by_sha256: Some(by.to_vec().into()), ..invitation };
        // It stays beyond the end of the invitation: the number is this machine's, or nobody's.
        let (value, bound) = (Value::from(used.encode_to_vec()), None);
        let make = move |request| {
            let checks = version.map(|version| Check::Version { key: key.clone(), version: Some(version) });
            let changes = vec![Change::Put { key: key.clone(), value: value.clone(), bound }];
            Command::Write { request, checks: checks.into_iter().collect(), changes }
        };
        match self.service.once(None, Box::new(make)).await {
            Ok(_) => Ok(()),
            // It was used, replaced or ended in this moment; perhaps by this very machine, which asked another node before.
            Err(ProposeError::Rejected(Rejection::Version { .. })) => {
                match self.open(node)?.invitation.used_by_sha256 {
                    Some(used) if used == by.as_slice() => Ok(()),
                    _ => Err(used_already(node, record)),
                }
            }
            Err(error) => Err(command_failed(&error)),
        }
    }

    /// The next certificate of a member.
    pub(crate) async fn certify(
        &self,
        role: Option<&CallerRole>,
        asked: pb::CertifyRequest,
    ) -> Result<pb::CertificateResponse, Status> {
        let Some(CallerRole::Node(node)) = role else { return Err(not_allowed("only a node has a certificate here")) };
        let managed = self.managed()?;
        key_in(&asked.request)?;
        // What this node knows may be old: a member that was removed meanwhile gets nothing.
        self.service.read_barrier(TIMEOUT).await.map_err(|error| read_failed(&error))?;
        let own = self.tls.as_ref().and_then(Tls::node);
        let (member, keeps) = self
            .service
            .looked(|state| (rights::of_member(state, *node), own.is_some_and(|own| keeps_authority(state, own))));
        member.map_err(|refusal| refused(&refusal))?;
        if !keeps {
            // Who asks may be about to delete its own copy, and this node may be as well.
            return Err(elsewhere("this node is no voter; ask one"));
        }
        self.certificate(managed, *node, &asked.request, NODE_VALID)
    }

    fn certificate(
        &self,
        managed: &Managed,
        node: NodeId,
        request: &[u8],
        valid: Duration,
    ) -> Result<pb::CertificateResponse, Status> {
        let made = managed.certify(node, request, valid);
        let made =
            made.ok_or_else(|| elsewhere("this node does not keep the authority of the cluster; ask a voter"))?;
        let (certificate, authority) = made.map_err(|error: CredentialsError| malformed(error.to_string()))?;
        tracing::info!(%node, "made a certificate");
        Ok(pb::CertificateResponse { certificate, authority })
    }

    /// The authority with its key, for another voter.
    pub(crate) async fn share(&self, role: Option<&CallerRole>) -> Result<pb::ShareAuthorityResponse, Status> {
        let managed = self.managed()?;
        let Some(CallerRole::Node(node)) = role else { return Err(not_allowed("only voters keep the authority")) };
        // A key cannot be taken back, so what this node knows has to be the newest.
        self.service.read_barrier(TIMEOUT).await.map_err(|error| read_failed(&error))?;
        let votes = self.service.looked(|state| keeps_authority(state, *node));
        if !votes && !quorate_membership::mutant!("learners_keep_the_authority") {
            return Err(not_allowed(format!(
                "only voters keep the authority, and {node} is none, or has not its vote yet"
            )));
        }
        let shared =
            managed.share().ok_or_else(|| elsewhere("this node does not keep the authority; ask another voter"));
        let (certificate, key) = shared?;
        tracing::info!(%node, "gave the authority to a voter");
        Ok(pb::ShareAuthorityResponse { certificate, key })
    }
}

/// Whether a node is to keep the authority: it has the role of a voter and the vote.
fn keeps_authority(state: &ClusterState, node: NodeId) -> bool {
    let role = state.member(node).is_some_and(|member| member.role == Role::Voter);
    role && state.configuration().voters().contains(&node)
}

fn used_already(node: NodeId, record: &Record) -> Status {
    not_allowed(format!(
        "the token of {node} was used by another machine, or replaced; it was last changed at {}. If no machine of yours has used it, \
         make a new one for another number, and find out who has it",
        record.version
    ))
}

/// The hash of the key that a request is signed with.
fn key_in(request: &[u8]) -> Result<[u8; 32], Status> {
    if request.len() > REQUEST_LIMIT {
        return Err(malformed(format!("the request has {} bytes, more than {REQUEST_LIMIT}", request.len())));
    }
    key_hash(request).map_err(|error| malformed(error.to_string()))
}
