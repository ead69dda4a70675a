//! What a voter does for a machine with a join token, and for members: certificates, and the authority itself for voters.
//!
//! ```text
//!   Enroll ─▶ this node keeps the authority? ─▶ the newest state: is n4 invited, with this secret? ─▶ used? by this key? ─▶ certificate
//!                                                                                                 └ no ─▶ log: used by this key
//! ```
//!
//! Of two machines with one token, the log has one first: the write is checked against the version that was read. The other one is
//! told so. A machine that lost the answer asks again with the same key.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use quorate_membership::{Change, Check, Command, NodeId, Record, Rejection, Role, Value};
use quorate_raft_core::{ClientService, ProposeError, Refusal};
use tonic::Status;

use super::{REQUEST_LIMIT, key_of, read};
use crate::grpc_errors::{command_failed, malformed, read_failed, refused};
use crate::pb;
use crate::tls::{CallerRole, CredentialsError, Managed, Tls, key_hash, sha256};

/// How long it may take until a quorum confirms that the state here is the newest.
const TIMEOUT: Duration = Duration::from_secs(3);

/// What one node can grant. Clones share it.
#[derive(Clone)]
pub(crate) struct Grants {
    service: Arc<dyn ClientService>,
    tls: Option<Tls>,
}

/// What the log has of the invitation that a machine shows the secret of.
struct Open {
    record: Record,
    invitation: pb::Invitation,
    /// Whether the node has joined already.
    member: bool,
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
        Self { service, tls }
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
        let pb::EnrollRequest { node, secret, request } = asked;
        let node = NodeId::new(node);
        let key = key_in(&request)?;
        if !managed.keeps() {
            return Err(elsewhere("this node does not keep the authority of the cluster; ask a voter"));
        }
        self.service.read_barrier(TIMEOUT).await.map_err(|error| read_failed(&error))?;
        let Open { record, invitation, member } = self.open(node, &secret)?;
        match invitation.used_by_sha256.as_deref() {
            Some(used) if used == key.as_slice() => {}
            Some(_) => return Err(used_already(node, &record)),
            None if member => return Err(not_allowed(format!("{node} is a member already; choose another number"))),
            None => self.use_up(node, &record, invitation, &key).await?,
        }
        self.certificate(managed, node, &request)
    }

    /// The open invitation of a node, if this is the secret of its token.
    fn open(&self, node: NodeId, secret: &[u8]) -> Result<Open, Status> {
        let key = key_of(node).map_err(|error| malformed(error.to_string()))?;
        let (mut found, mut retired, mut member) = (None, false, false);
        self.service.look(&mut |state| {
            found = state.store().record(&key).cloned();
            retired = state.retired().contains(&node);
            member = state.member(node).is_some();
        });
        if retired {
            return Err(refused(&Refusal::Retired(node)));
        }
        let none = || {
            let why = if member { "its node is a member already" } else { "it has expired, or was never made here" };
            not_allowed(format!("{node} has no open invitation: {why}; make a new one"))
        };
        let record = found.ok_or_else(none)?;
        let invitation =
            read(&record).ok_or_else(|| not_allowed(format!("the invitation of {node} is not readable")))?;
        if invitation.secret_sha256 != sha256(secret).as_slice() && !quorate_membership::mutant!("any_secret_enrolls") {
            return Err(not_allowed(format!(
                "this is not the secret of the open invitation of {node}, which was made at {}; use the newest token",
                record.created
            )));
        }
        Ok(Open { record, invitation, member })
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
        let (value, bound) = (Value::from(used.encode_to_vec()), record.bound);
        let make = move |request| {
            let checks = version.map(|version| Check::Version { key: key.clone(), version: Some(version) });
            let changes = vec![Change::Put { key: key.clone(), value: value.clone(), bound }];
            Command::Write { request, checks: checks.into_iter().collect(), changes }
        };
        match self.service.once(None, Box::new(make)).await {
            Ok(_) => Ok(()),
            // It was used, replaced or ended in this moment.
            Err(ProposeError::Rejected(Rejection::Version { .. } | Rejection::MayNotHold(_))) => {
                Err(used_already(node, record))
            }
            Err(error) => Err(command_failed(&error)),
        }
    }

    /// The next certificate of a member.
    pub(crate) fn certify(
        &self,
        role: Option<&CallerRole>,
        asked: pb::CertifyRequest,
    ) -> Result<pb::CertificateResponse, Status> {
        let Some(CallerRole::Node(node)) = role else { return Err(not_allowed("only a node has a certificate here")) };
        key_in(&asked.request)?;
        self.certificate(self.managed()?, *node, &asked.request)
    }

    fn certificate(&self, managed: &Managed, node: NodeId, request: &[u8]) -> Result<pb::CertificateResponse, Status> {
        let made = managed.certify(node, request);
        let made =
            made.ok_or_else(|| elsewhere("this node does not keep the authority of the cluster; ask a voter"))?;
        let (certificate, authority) = made.map_err(|error: CredentialsError| malformed(error.to_string()))?;
        tracing::info!(%node, "made a certificate");
        Ok(pb::CertificateResponse { certificate, authority })
    }

    /// The authority with its key, for another voter.
    pub(crate) fn share(&self, role: Option<&CallerRole>) -> Result<pb::ShareAuthorityResponse, Status> {
        let managed = self.managed()?;
        let Some(CallerRole::Node(node)) = role else { return Err(not_allowed("only voters keep the authority")) };
        let mut voter = false;
        self.service.look(&mut |state| voter = state.member(*node).is_some_and(|member| member.role == Role::Voter));
        if !voter && !quorate_membership::mutant!("learners_keep_the_authority") {
            return Err(not_allowed(format!(
                "only voters keep the authority, and {node} is none as far as is known here"
            )));
        }
        let shared =
            managed.share().ok_or_else(|| elsewhere("this node does not keep the authority; ask another voter"));
        let (certificate, key) = shared?;
        tracing::info!(%node, "gave the authority to a voter");
        Ok(pb::ShareAuthorityResponse { certificate, key })
    }
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
