//! The handle of a running node: what it observes, what it holds, and what it changes in the cluster.
//!
//! ```text
//!   view(), watch()              level: the latest view
//!   events(), events_since(r9)   edge:  every committed event in order, an explicit gap when too far behind
//!   lease()                      act:   whether this life may act now, and what stops its work when it may not
//!   lock("vm/100") → LockGuard   hold:  an exclusive right under a fencing token, while this life may act
//!   records()                    keep:  your own keys and values, in transactions; queues for the holders of locks
//!   set_role(), remove(), …      ask:   a command for the log; returns when it is applied here
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quorate_membership::{Address, Cause, Command, Identity, Name, NodeId, Phase, Reason, Revision, Role, TextError};
use quorate_raft_core::ledger::LastEnd;
use quorate_raft_core::{Committed, Departure, Filter, Lease, LockError, LockGuard, Node, Records, Refusal, View};
use quorate_transport_grpc::tls::{Credentials, CredentialsError};

use crate::dangerous::Dangerous;
use crate::error::{ActiveError, Fatal, HandOverError, ProposeError, ReadError};
use crate::events::{Events, Watch};
use crate::listening::{Listening, unreachable};

/// A running node that belongs to a cluster.
///
/// [`Cluster::leave`] ends its life cleanly. [`Cluster::shutdown`] stops it without ending its life. Dropping the
/// handle also stops the node, without telling the others and without waiting: the others have its life fenced, and the
/// data folder and the port become free a little later.
pub struct Cluster {
    pub(crate) node: Arc<Node>,
    pub(crate) identity: Identity,
    pub(crate) listening: Listening,
}

impl Cluster {
    /// The identity of this life: its node and incarnation, such as `n3#2`.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The address that the node listens on, with the actual port if 0 was requested. `None` without a socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.listening.local_addr()
    }

    /// The address at which clients and operators are served, if it is one of its own; see
    /// [`clients_at`](crate::builder::Ready::clients_at).
    pub fn client_addr(&self) -> Option<SocketAddr> {
        self.listening.client_addr()
    }

    /// Shows and trusts other certificates from now on, such as renewed ones, or those of a CA that replaces another: on each
    /// connection that opens, of this node to others and of others to it. Calls in progress go on. A connection to this node whose
    /// certificate is not trusted any more is closed.
    ///
    /// To replace a CA, first give every node credentials that trust both, then certificates of the new one, and then credentials
    /// that trust the new one alone.
    ///
    /// # Errors
    /// [`CredentialsError`]; the former stay in use. [`CredentialsError::Plaintext`] if this node listens without TLS, and
    /// [`CredentialsError::Managed`] if it listens with [`listen`](crate::builder::WantsWire::listen).
    pub fn replace_credentials(&self, credentials: Credentials) -> Result<(), CredentialsError> {
        let tls = self.listening.tls().ok_or(CredentialsError::Plaintext)?;
        if tls.is_managed() { Err(CredentialsError::Managed) } else { tls.replace(credentials) }
    }

    /// The latest view: the committed state and this node's own observations. It may be stale; see
    /// [`Self::read_barrier`].
    pub fn view(&self) -> View {
        self.node.view()
    }

    /// Follows the view of this node. It shows a change of members, sessions or leadership at once, and one of records, queues
    /// or locks within 50 ms, and the first within a heartbeat. That a node has been silent for longer is no change, until its
    /// signal changes. [`Self::events`] has each change.
    pub fn watch(&self) -> Watch {
        Watch { views: self.node.watch() }
    }

    /// Every event from now on. To miss none after reading a view, use `events_since(view.cluster.revision())` instead.
    pub fn events(&self) -> Events {
        self.events_since(self.view().cluster.revision())
    }

    /// Every event after `revision`: first those of the past, then each one as it is committed. A revision that does not
    /// exist yet gives [`EventsError::Ahead`](crate::EventsError::Ahead), as soon as a quorum confirms it.
    pub fn events_since(&self, revision: Revision) -> Events {
        Events { items: self.node.events_since(revision), revision }
    }

    /// As [`Self::events_since`], limited to the events that `filter` selects by topic and by the prefix of a name or
    /// key. A gap is always reported, with the whole committed state.
    pub fn watch_events(&self, revision: Revision, filter: Filter) -> Events {
        Events { items: self.node.events_matching(revision, filter), revision }
    }

    /// The lease of this life: whether it may act now, which work it protects, and what stops that work at its end.
    pub fn lease(&self) -> Lease {
        self.node.lease_of(self.identity)
    }

    /// Acquires the lock `name`, waiting as long as it takes. Waiters are served in the order of their requests.
    /// Cancel-safe: dropping the future withdraws the request, and releases the lock if it was already granted.
    ///
    /// The guard stands for the lock, the lease of this life and its stop mechanism together; see [`LockGuard`].
    ///
    /// # Errors
    /// [`LockError`]: the lock was not acquired, and the request is withdrawn.
    pub async fn lock(&self, name: impl TryInto<Name, Error: Into<TextError>>) -> Result<LockGuard, LockError> {
        self.node.lock_for(self.identity, name, Some(Duration::MAX)).await
    }

    /// As [`Self::lock`], but waits no longer than `timeout`.
    ///
    /// # Errors
    /// [`LockError::TimedOut`] names the holder. The request is withdrawn.
    pub async fn lock_with_timeout(
        &self,
        name: impl TryInto<Name, Error: Into<TextError>>,
        timeout: Duration,
    ) -> Result<LockGuard, LockError> {
        self.node.lock_for(self.identity, name, Some(timeout)).await
    }

    /// As [`Self::lock`], but fails at once when another holder has the lock.
    ///
    /// # Errors
    /// [`Rejection::LockHeld`](crate::state::Rejection::LockHeld) in [`LockError::Propose`] names the holder. Nothing
    /// was changed then.
    pub async fn try_lock(&self, name: impl TryInto<Name, Error: Into<TextError>>) -> Result<LockGuard, LockError> {
        self.node.lock_for(self.identity, name, None).await
    }

    /// The locks that this life inherited from a former life of the node and has not yet adopted, with their tokens.
    /// [`Self::lock`] adopts one. A life inherits locks only if its predecessor had declared that its work dies with
    /// its process; see [`Config::work_dies_with_process`](crate::Config::work_dies_with_process).
    pub fn inherited(&self) -> Vec<(Name, Revision)> {
        self.node.inherited()
    }

    /// Releases every inherited lock that was not adopted, so that other nodes can acquire it.
    pub fn disown(&self) {
        self.node.disown();
    }

    /// Your own keys and values in the log, and the queues.
    pub fn records(&self) -> Records {
        self.node.records()
    }

    /// How the previous process on this data folder ended, according to its ledger: closed, ended by its own stop
    /// mechanism and why, or silent without a last entry.
    pub fn last_end(&self) -> &LastEnd {
        self.node.last_end()
    }

    /// Waits until this life is active and may be given work: it has caught up with the log, has its vote if its role
    /// includes one, and every former life of this node is proved to have ended. Cancel-safe.
    ///
    /// # Errors
    /// [`ActiveError`] when it can no longer become active.
    pub async fn active(&self) -> Result<(), ActiveError> {
        let mut views = self.node.watch();
        loop {
            let view = views.borrow_and_update().clone();
            if let Some(fatal) = view.local.stopped {
                return Err(fatal.into());
            }
            match view.cluster.life(self.identity).map(|life| life.phase) {
                Some(Phase::Active) => return Ok(()),
                Some(Phase::Joining) => {}
                Some(Phase::Fencing | Phase::Fenced | Phase::Left) => return Err(ActiveError::Over(self.identity)),
                None if view.cluster.retired().contains(&self.identity.node) => {
                    return Err(ActiveError::Over(self.identity));
                }
                None if view.cluster.newest(self.identity.node).is_some_and(|newest| newest > self.identity) => {
                    return Err(ActiveError::Over(self.identity));
                }
                None => {}
            }
            if views.changed().await.is_err() {
                return Err(Fatal::Shutdown.into());
            }
        }
    }

    /// Waits until this node has applied everything that was committed before the call (Raft's ReadIndex), and returns
    /// how far it must have applied. A [`Self::view`] taken afterwards is linearizable.
    ///
    /// # Errors
    /// [`ReadError::MaybeStale`] when no quorum answers within `timeout`; [`Self::view`] still works.
    pub async fn read_barrier(&self, timeout: Duration) -> Result<Revision, ReadError> {
        self.node.read_barrier(timeout).await
    }

    /// Changes the role of a node: promotes a learner, demotes a voter, or makes a witness. Returns once the new role
    /// is committed. The vote itself moves in the background, for a promoted learner once it has caught up.
    ///
    /// # Errors
    /// [`ProposeError::Rejected`] when the remaining voters would have no majority; nothing was changed. See
    /// [`ProposeError`] for the rest.
    pub async fn set_role(&self, node: NodeId, role: Role) -> Result<Committed, ProposeError> {
        self.node.propose(Command::SetRole { node, role, by: None }).await
    }

    /// Makes a node a voter. The same as [`Self::set_role`] with [`Role::Voter`].
    ///
    /// # Errors
    /// As [`Self::set_role`].
    pub async fn promote(&self, node: NodeId) -> Result<Committed, ProposeError> {
        self.set_role(node, Role::Voter).await
    }

    /// Makes a node a learner, which has no vote. The same as [`Self::set_role`] with [`Role::Learner`].
    ///
    /// # Errors
    /// As [`Self::set_role`].
    pub async fn demote(&self, node: NodeId) -> Result<Committed, ProposeError> {
        self.set_role(node, Role::Learner).await
    }

    /// Removes a node permanently: its number is never accepted again. All its lives must have ended, by leaving or by
    /// a proof.
    ///
    /// # Errors
    /// [`ProposeError::Rejected`] when one of its lives has not ended, or the remaining voters would have no majority;
    /// nothing was changed. See [`ProposeError`] for the rest.
    pub async fn remove(&self, node: NodeId) -> Result<Committed, ProposeError> {
        self.node.propose(Command::Remove { node, by: None }).await
    }

    /// Sets the addresses at which other nodes reach `node`: 1 to 8, most preferred first.
    ///
    /// # Errors
    /// [`ProposeError::Rejected`] for no address or too many; [`ProposeError::Refused`] for a wildcard or a missing
    /// port. Nothing was changed then. See [`ProposeError`] for the rest.
    pub async fn set_addresses(&self, node: NodeId, addresses: Vec<Address>) -> Result<Committed, ProposeError> {
        let wrong = addresses.iter().find_map(|a| Some(format!("{a}: {}", unreachable(a)?)));
        if let (Some(why), Some(_)) = (wrong, self.local_addr()) {
            return Err(ProposeError::Refused(Refusal::Malformed(why)));
        }
        self.node.propose(Command::SetAddresses { node, addresses, by: None }).await
    }

    /// Orders the fencing of a life, for a reason that the caller gives. Returns once the order is committed; the event
    /// `Fenced` reports the end of the life. Repeating the order for the same life changes nothing.
    ///
    /// # Errors
    /// [`ProposeError::Rejected`] when the remaining voters would have no majority, or there is no such life to fence;
    /// nothing was changed. See [`ProposeError`] for the rest.
    pub async fn fence(&self, target: Identity, reason: Reason) -> Result<Committed, ProposeError> {
        let cause = Cause::Requested { reason, by: None };
        self.node.propose(Command::OrderFence { target, cause, under: None }).await
    }

    /// Hands leadership to `to`, or to a voter that this leader prefers: one that answers, carries work and has the
    /// longest log. Returns the new leader. Only the leader can do this.
    ///
    /// # Errors
    /// [`HandOverError::NotLeader`] on any other node, with the leader to ask. After [`HandOverError::TimedOut`] the
    /// hand-over may still happen.
    pub async fn hand_over(&self, to: Option<NodeId>) -> Result<NodeId, HandOverError> {
        self.node.hand_over(to).await
    }

    /// The operations that rest on an operator's word instead of a proof.
    pub fn dangerous(&self) -> Dangerous<'_> {
        Dangerous { node: &self.node }
    }

    /// Ends this life cleanly and stops the node. First stop all work that this node was given: the others may take it
    /// over at once. Drop every [`LockGuard`] and call `stopped` on every [`Protection`](crate::lease::Protection)
    /// before; otherwise the node stops without leaving. The node stays a member and returns with `resume`.
    ///
    /// When the whole cluster stops, the last node finds no majority that could commit its leave. It then answers
    /// [`Departure::LastToLeave`] at once, and its next life needs no fencing. A node whose departure leaves the others
    /// without a majority votes on for up to 3 s, so that they can leave, too.
    ///
    /// # Errors
    /// [`ProposeError`] when it is not known whether the leave was committed: no majority was reached within twice
    /// [`Config::propose_timeout`](crate::Config::propose_timeout). The node is stopped in any case, and its work must not be
    /// started again, because the leave may still take effect. Unless work was still protected, the data folder says that
    /// this life has stopped, and the join of its next life reports it; the others may have it fenced before.
    pub async fn leave(self) -> Result<Departure, ProposeError> {
        let left = self.node.leave().await;
        self.listening.shut_down().await;
        left
    }

    /// As [`Self::leave`], and tries for at most `limit`, such as the time that a supervisor allows for a stop.
    ///
    /// # Errors
    /// As [`Self::leave`].
    pub async fn leave_within(self, limit: Duration) -> Result<Departure, ProposeError> {
        let left = self.node.leave_within(limit).await;
        self.listening.shut_down().await;
        left
    }

    /// Stops the node without ending its life. The others have the life fenced before they take its work over. Returns
    /// when the data folder and the port are free.
    pub async fn shutdown(self) {
        self.node.shutdown().await;
        self.listening.shut_down().await;
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("identity", &self.identity).finish_non_exhaustive()
    }
}
