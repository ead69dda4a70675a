//! An invitation: a record with the public key of a secret, bound to a session whose end is the end of the invitation.

use std::time::Duration;

use prost::Message;
use quorate_membership::session::{MAX_TTL, MIN_TTL};
use quorate_membership::{
    Address, Change, Check, ClusterState, Command, Holder, Key, NodeId, Principal, Reason, Record, Rejection, Request,
    Revision, Role, Session, SessionId, TextError, Value,
};
use quorate_raft_core::{ClientService, ClientServiceExt, ProposeError, Refusal};
use ring::rand::{SecureRandom, SystemRandom};

use super::{RESERVED, key_of, read};
use crate::pb;
use crate::tls::{JoinToken, Tls};

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

/// Why there is no invitation. The log may have a session that ends by itself, and no more.
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
    /// A machine has used an invitation of the node, and has not joined.
    #[error(
        "a machine got the certificate of {node} at {at}, and has not joined; choose another number, unless it is yours and joins"
    )]
    Used {
        /// The node.
        node: NodeId,
        /// When the machine got it.
        at: Revision,
    },
    /// Others invited the same node, or took the same free number, at the same time, and were faster each time.
    #[error("other invitations were made at the same time, again and again; try again")]
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

/// Invites a node, through any node of the cluster. `tls` is the one of that node, and `by` who asked: the program of that node if
/// it is `None`. It stands in the label of the invitation's session.
///
/// # Errors
/// [`InviteError`].
pub async fn invite(
    service: &dyn ClientService,
    tls: &Tls,
    whom: Invite,
    by: Option<Principal>,
) -> Result<JoinToken, InviteError> {
    let managed = tls.managed().ok_or(InviteError::NotManaged)?;
    let Invite { node: wanted, role, valid } = whom;
    if !(MIN_TTL..=MAX_TTL).contains(&valid) {
        return Err(InviteError::Validity(valid));
    }
    let own = Principal::new(tls.subject().role.principal())?;
    let by = by.unwrap_or_else(|| own.clone());
    for _ in 0..TRIES {
        let node = service.looked(|state| wanted.unwrap_or_else(|| free(state)));
        let key = key_of(node)?;
        let former = service.looked(|state| may_be_invited(state, node, &key))?;
        let seeds = service.looked(seeds);
        let (cluster, authority, secret) = (managed.cluster().to_owned(), managed.hash(), random()?);
        let token = JoinToken { cluster, node, role, authority, secret, seeds };
        let public_key = token.public_key().ok_or(InviteError::Random)?;
        let label = Reason::new(format!("the invitation of {node}, asked by {by}"))?;
        let session = Session { ttl: valid, lock_delay: Duration::ZERO, label, owner: Some(own.clone()) };
        let session = open(service, session).await?;
        let put = put(key, public_key, session, former.map(|(version, _)| version));
        match service.once(None, Box::new(put)).await {
            Ok(_) => {
                if let Some((_, Some(former))) = former {
                    close(service, former).await;
                }
                return Ok(token);
            }
            // It was used, or invited again, in this moment.
            Err(ProposeError::Rejected(Rejection::Version { .. })) => close(service, session).await,
            Err(error) => {
                close(service, session).await;
                return Err(error.into());
            }
        }
    }
    Err(InviteError::Busy)
}

/// Opens the session of an invitation. It belongs to this node, so no client can keep it alive.
async fn open(service: &dyn ClientService, session: Session) -> Result<SessionId, InviteError> {
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

/// Makes the command that writes an invitation, where there is none yet or an unused one of this version.
fn put(
    key: Key,
    public_key: Vec<u8>,
    session: SessionId,
    version: Option<Revision>,
) -> impl Fn(Request) -> Command + Send + Sync + 'static {
    let kept = pb::Invitation { public_key: public_key.into(), used_by_sha256: None, session: session.get() };
    let value = Value::from(kept.encode_to_vec());
    move |request| {
        let checks = vec![Check::Version { key: key.clone(), version }];
        let bound = Some(Holder::Session(session));
        let changes = vec![Change::Put { key: key.clone(), value: value.clone(), bound }];
        Command::Write { request, checks, changes }
    }
}

/// The version and the session of the unused invitation that a new one replaces, if there is one.
fn may_be_invited(
    state: &ClusterState,
    node: NodeId,
    key: &Key,
) -> Result<Option<(Revision, Option<SessionId>)>, InviteError> {
    if state.member(node).is_some() {
        return Err(InviteError::Member(node));
    }
    if state.retired().contains(&node) {
        return Err(InviteError::Retired(node));
    }
    let Some(record) = state.store().record(key) else { return Ok(None) };
    match read(record) {
        Some(invitation) if invitation.used_by_sha256.is_some() => Err(InviteError::Used { node, at: record.version }),
        _ => Ok(Some((record.version, session_of(record)))),
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
fn session_of(record: &Record) -> Option<SessionId> {
    match record.bound? {
        Holder::Session(session) => Some(session),
        _ => None,
    }
}

fn random() -> Result<[u8; 32], InviteError> {
    let mut secret = [0; 32];
    SystemRandom::new().fill(&mut secret).map_err(|_| InviteError::Random)?;
    Ok(secret)
}
