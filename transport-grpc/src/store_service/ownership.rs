//! Whose a session is: a client uses the sessions that its own certificate has opened, and no others.
//!
//! ```text
//!   OpenSession ──▶ the session says its owner, in the log
//!   KeepAlive, CloseSession, Lock, Unlock, a record bound to a session    the owner of that session
//!   Take, an item acknowledged                                            the owner of what holds the lock under that token
//! ```
//!
//! The number of a session, and the token of a lock, are the revision of an entry. The owner never changes, so what this node has
//! applied is enough to judge by, if it has applied that revision. A number from the future is refused, or a caller could wait
//! until another's session has it. Nodes and operators may use every session, and so may everybody where there is no TLS.

use quorate_membership::{Change, ClusterState, Holder, Name, Principal, Rejection, Revision, SessionId};
use quorate_raft_core::{ClientServiceExt, Refusal};
use tonic::Status;

use super::{StoreService, TIMEOUT};
use crate::enrollment::RESERVED;
use crate::grpc_errors::{command_failed, read_failed, refused};
use crate::rights;
use crate::tls::CallerRole;

/// What is known here about something that a client wants to use.
enum Known {
    /// It may use it, or it will be rejected because it has ended.
    Allowed,
    /// This node has not applied so much yet, or there is no such thing.
    NotYet(Rejection),
    /// It is another's.
    Refused(String),
}

impl StoreService {
    /// The owner of what this caller opens.
    pub(super) fn owner(&self) -> Result<Option<Principal>, Status> {
        rights::principal(self.role.as_ref()).map_err(|refusal| refused(&refusal))
    }

    /// Whether this caller may use the session.
    ///
    /// # Errors
    /// [`Refusal::NotAllowed`] if it is another client's.
    pub(super) async fn may_use(&self, session: SessionId) -> Result<(), Status> {
        let Some(own) = self.client() else { return Ok(()) };
        self.check(|state| session_known(state, session, &own)).await
    }

    /// Whether this caller may act as the holder of a lock under this token.
    ///
    /// # Errors
    /// [`Refusal::NotAllowed`] if what holds it is another client's session, or a node.
    pub(super) async fn may_act_under(&self, lock: &Name, token: Revision) -> Result<(), Status> {
        let Some(own) = self.client() else { return Ok(()) };
        self.check(|state| token_known(state, lock, token, &own)).await
    }

    /// Whether this caller may make these changes.
    ///
    /// # Errors
    /// [`Refusal::NotAllowed`] for a record that is bound to another's session or to the life of a node, or for an item that another
    /// has taken.
    pub(super) async fn may_change(&self, changes: &[Change]) -> Result<(), Status> {
        let Some(own) = self.client() else { return Ok(()) };
        for change in changes {
            match change {
                Change::Put { bound: Some(Holder::Session(session)), .. } => self.may_use(*session).await?,
                Change::Put { key, bound: Some(other), .. } => {
                    let why = format!("record `{key}` would be bound to {other}, and the certificate is that of {own}");
                    return Err(refused(&Refusal::NotAllowed(format!("{why}; bind it to a session of its own"))));
                }
                Change::Acknowledge { queue, token, .. } => self.may_act_under(queue, *token).await?,
                Change::Put { bound: None, .. } | Change::Delete { .. } | Change::Push { .. } => {}
                // One that is added one day is nobody's until somebody decides otherwise.
                other => return Err(refused(&Refusal::NotAllowed(format!("{other:?} is not for clients")))),
            }
        }
        Ok(())
    }

    /// The principal of this caller, if it is a client: the only role that is judged here.
    fn client(&self) -> Option<String> {
        let client = self.role.as_ref().filter(|role| matches!(role, CallerRole::Client(_)));
        client.map(CallerRole::principal).filter(|_| !quorate_membership::mutant!("others_sessions_too"))
    }

    async fn check(&self, known: impl Fn(&ClusterState) -> Known) -> Result<(), Status> {
        let mut found = self.service.looked(&known);
        if let Known::NotYet(_) = found {
            self.service.read_barrier(TIMEOUT).await.map_err(|error| read_failed(&error))?;
            found = self.service.looked(&known);
        }
        match found {
            Known::Allowed => Ok(()),
            Known::NotYet(rejection) => Err(command_failed(&rejection.into())),
            Known::Refused(why) => Err(refused(&Refusal::NotAllowed(why))),
        }
    }
}

/// Whether none of these changes touches a record of quorate's own, such as an invitation.
///
/// # Errors
/// [`Refusal::NotAllowed`]. Nothing was changed.
pub(super) fn not_reserved(changes: &[Change]) -> Result<(), Status> {
    let keys = changes.iter().filter_map(|change| match change {
        Change::Put { key, .. } | Change::Delete { key } => Some(key),
        _ => None,
    });
    match { keys }.find(|key| key.as_str().starts_with(RESERVED)) {
        Some(key) if !quorate_membership::mutant!("reserved_keys_written") => {
            let why = format!("`{key}`: keys that begin with `{RESERVED}` are quorate's own; choose another");
            Err(refused(&Refusal::NotAllowed(why)))
        }
        _ => Ok(()),
    }
}

fn session_known(state: &ClusterState, session: SessionId, own: &str) -> Known {
    match state.store().session(session) {
        Some(open) => match open.owner.as_ref().map(Principal::as_str) {
            Some(owner) if owner == own => Known::Allowed,
            owner => Known::Refused(format!(
                "{session} is that of {}, and the certificate is that of {own}; open a session of its own",
                owner.unwrap_or("nobody with a certificate")
            )),
        },
        None if session.get() > state.revision().get() => Known::NotYet(Rejection::UnknownSession(session)),
        // It has ended. No other will ever have its number.
        None => Known::Allowed,
    }
}

fn token_known(state: &ClusterState, lock: &Name, token: Revision, own: &str) -> Known {
    let grant = state.store().lock(lock).and_then(|lock| lock.grant);
    match grant {
        Some(grant) if grant.token == token => match grant.holder {
            Holder::Session(session) => session_known(state, session, own),
            holder => Known::Refused(format!("{holder} holds lock `{lock}`, and the certificate is that of {own}")),
        },
        _ if token > state.revision() => {
            let current = grant.map(|grant| grant.token);
            Known::NotYet(Rejection::NotHolder { name: lock.clone(), token, current })
        }
        // It is not held under this token, and never will be again.
        _ => Known::Allowed,
    }
}
