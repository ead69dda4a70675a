//! An invitation: a record that says the hash of a secret, bound to a session whose end is the end of the invitation.

use std::time::Duration;

use prost::Message;
use quorate_membership::session::{MAX_TTL, MIN_TTL, Principal};
use quorate_membership::{
    Address, Change, Check, ClusterState, Command, Holder, Key, NodeId, Reason, Rejection, Request, Role, Session,
    SessionId, TextError, Value,
};
use quorate_raft_core::{ClientService, ProposeError, Refusal};
use ring::rand::{SecureRandom, SystemRandom};

use super::{RESERVED, key_of};
use crate::pb;
use crate::tls::{JoinToken, Managed, Tls, sha256};

/// How many voters a token names.
const SEEDS: usize = 5;

/// How often a free number is looked for, while others invite nodes as well.
const TRIES: usize = 8;

/// Whom to invite.
#[derive(Debug, Clone)]
pub struct Invite {
    /// The number of the node; `None` for one that no node has or had. An earlier invitation of it ends.
    pub node: Option<NodeId>,
    /// The role in which it joins. It is what the machine will ask for; the certificate of a node does not depend on it.
    pub role: Role,
    /// How long the token is valid, on the clock of the leader: half a second to an hour. A new leader begins to count anew.
    pub valid: Duration,
}

impl Invite {
    /// A voter with a free number, whose token is valid for 15 minutes.
    pub fn voter() -> Self {
        Self { node: None, role: Role::Voter, valid: Duration::from_secs(15 * 60) }
    }
}

/// Why there is no invitation. The log may have a session of a moment, and no more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InviteError {
    /// The certificates of this cluster are made elsewhere, or it has none.
    #[error(
        "this cluster has no authority of its own, which could make a certificate; make one with your own authority"
    )]
    NotManaged,
    /// The time is out of its bounds.
    #[error("an invitation is valid for {MIN_TTL:?} to {MAX_TTL:?}, and not for {0:?}")]
    Validity(Duration),
    /// The node is a member already.
    #[error("{0} is a member of this cluster already; choose another number")]
    Member(NodeId),
    /// The node was removed, and its number is never given again.
    #[error("{0} was removed from this cluster, and its number is never given again; choose another")]
    Retired(NodeId),
    /// Others invite nodes at the same time, and were faster each time.
    #[error("no free number was found, because other nodes are being invited; try again")]
    Busy,
    /// The log did not take it.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// The system gives no randomness.
    #[error("the system gives no randomness for a secret; nothing was changed")]
    Random,
}

impl From<TextError> for InviteError {
    fn from(error: TextError) -> Self {
        Self::Propose(ProposeError::Refused(Refusal::Malformed(error.to_string())))
    }
}

/// Invites a node, through any node of the cluster. `tls` is the one of that node.
///
/// # Errors
/// [`InviteError`].
pub async fn invite(service: &dyn ClientService, tls: &Tls, whom: Invite) -> Result<JoinToken, InviteError> {
    let managed = tls.managed().ok_or(InviteError::NotManaged)?;
    let Invite { node: wanted, role, valid } = whom;
    if !(MIN_TTL..=MAX_TTL).contains(&valid) {
        return Err(InviteError::Validity(valid));
    }
    for _ in 0..TRIES {
        let (node, seeds) = look(service, |state| (wanted.unwrap_or_else(|| free(state)), seeds(state)));
        look(service, |state| may_be_invited(state, node))?;
        let key = key_of(node)?;
        let former = look(service, |state| session_of(state, &key));
        let secret = random()?;
        let session = open(service, tls, node, valid).await?;
        let put = put(node, &secret, session, wanted.is_none())?;
        match service.once(None, Box::new(put)).await {
            Ok(_) => {
                if let Some(former) = former {
                    close(service, former).await;
                }
                return Ok(token(managed, node, role, secret, seeds));
            }
            Err(ProposeError::Rejected(Rejection::Version { .. })) if wanted.is_none() => {
                close(service, session).await;
            }
            Err(error) => {
                close(service, session).await;
                return Err(error.into());
            }
        }
    }
    Err(InviteError::Busy)
}

fn token(managed: &Managed, node: NodeId, role: Role, secret: [u8; 32], seeds: Vec<Address>) -> JoinToken {
    JoinToken { cluster: managed.cluster().into(), node, role, authority: managed.hash(), secret, seeds }
}

/// Opens the session of an invitation. It belongs to this node, so no client can keep it alive.
async fn open(service: &dyn ClientService, tls: &Tls, node: NodeId, valid: Duration) -> Result<SessionId, InviteError> {
    let owner = Some(Principal::new(tls.subject().role.principal())?);
    let label = Reason::new(format!("the invitation of {node}"))?;
    let session = Session { ttl: valid, lock_delay: Duration::ZERO, label, owner };
    let make = move |request| Command::OpenSession { request, session: session.clone() };
    let (_, revision) = service.once(None, Box::new(make)).await?;
    Ok(SessionId::new(revision.get()))
}

/// Ends the session of an invitation. If that fails, it ends by itself.
async fn close(service: &dyn ClientService, session: SessionId) {
    if let Err(error) = service.command(Command::CloseSession { session }).await {
        tracing::debug!(%session, %error, "an invitation that was replaced ends later by itself");
    }
}

/// Makes the command that writes an invitation; `only_first`: where there is none yet.
fn put(
    node: NodeId,
    secret: &[u8; 32],
    session: SessionId,
    only_first: bool,
) -> Result<impl Fn(Request) -> Command + Send + Sync + 'static, TextError> {
    let key = key_of(node)?;
    let kept = pb::Invitation { secret_sha256: sha256(secret).to_vec().into(), used_by_sha256: None };
    let value = Value::from(kept.encode_to_vec());
    Ok(move |request| {
        let checks = only_first.then(|| Check::Version { key: key.clone(), version: None });
        let bound = Some(Holder::Session(session));
        let changes = vec![Change::Put { key: key.clone(), value: value.clone(), bound }];
        Command::Write { request, checks: checks.into_iter().collect(), changes }
    })
}

fn look<T>(service: &dyn ClientService, look: impl Fn(&ClusterState) -> T) -> T {
    let mut found = None;
    service.look(&mut |state| found = Some(look(state)));
    found.unwrap_or_else(|| look(&service.view().cluster))
}

fn may_be_invited(state: &ClusterState, node: NodeId) -> Result<(), InviteError> {
    match () {
        () if state.member(node).is_some() => Err(InviteError::Member(node)),
        () if state.retired().contains(&node) => Err(InviteError::Retired(node)),
        () => Ok(()),
    }
}

/// The first number after all that nodes have, had, or are invited under.
fn free(state: &ClusterState) -> NodeId {
    let prefix = format!("{RESERVED}invitations/");
    let invited =
        state.store().records(&prefix).filter_map(|(key, _)| key.as_str().strip_prefix(&prefix)?.parse().ok());
    let members = state.members().map(|(node, _)| node);
    let last = members.chain(state.retired().iter().copied()).chain(invited).max();
    NodeId::new(last.map_or(0, NodeId::get).saturating_add(1))
}

/// Where voters are reached, which keep the authority.
fn seeds(state: &ClusterState) -> Vec<Address> {
    let voters = state.members().filter(|(_, member)| member.role == Role::Voter);
    voters.filter_map(|(_, member)| member.addresses.first().cloned()).take(SEEDS).collect()
}

/// The session of the open invitation in this record.
fn session_of(state: &ClusterState, key: &Key) -> Option<SessionId> {
    match state.store().record(key)?.bound? {
        Holder::Session(session) => Some(session),
        _ => None,
    }
}

fn random() -> Result<[u8; 32], InviteError> {
    let mut secret = [0; 32];
    SystemRandom::new().fill(&mut secret).map_err(|_| InviteError::Random)?;
    Ok(secret)
}
