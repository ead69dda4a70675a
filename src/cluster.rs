//! The handle of a running node: look, listen, ask.
//!
//! ```text
//!   view(), watch()              level: the latest picture
//!   events(), events_since(r9)   edge:  every committed event in order, an explicit gap when too far behind
//!   lease()                      act:   this node's own right, here and now
//!   lock("vm/100") → LockGuard       hold:  exclusively, under a token, for as long as this life may act
//!   records()                    keep:  state of one's own, in transactions; queues for the holders of locks
//!   set_role(), remove(), …      ask:   a command to the log; answers when it is applied here
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quorate_membership::{Address, Cause, Command, Identity, Name, NodeId, Phase, Reason, Revision, Role, TextError};
use quorate_raft_core::ledger::LastEnd;
use quorate_raft_core::{Committed, Filter, Lease, LockError, LockGuard, Node, Records, Refusal, View};

use crate::builder::{Builder, Listening, unreachable};
use crate::dangerous::Dangerous;
use crate::error::{ActiveError, Fatal, HandOverError, ProposeError, ReadError};
use crate::events::{Events, Watch};

/// A node that belongs to a cluster. Dropping it stops the node without a word to the others, who will have its life
/// fenced, and without waiting: folder and port are free a little later. [`Cluster::shutdown`] waits for that,
/// [`Cluster::leave`] ends the life cleanly.
pub struct Cluster {
    pub(crate) node: Arc<Node>,
    pub(crate) identity: Identity,
    pub(crate) listening: Listening,
}

impl Cluster {
    /// Begins to describe a node; see [`Builder`].
    pub fn builder(node: NodeId) -> Builder {
        Builder::new(node)
    }

    /// The handle of a process in a [simulated world](crate::testing::sim), for tests of a program that embeds quorate: its
    /// code runs with the same handle on machines that lose power, links that break and clocks that drift, in seconds.
    /// `None` until the process has come into the cluster. The world keeps the process: dropping this stops nothing.
    ///
    /// What the program does is spawned on [`Running::host`](crate::testing::sim::Running), so that it is paused and ended
    /// with its process.
    ///
    /// ```
    /// # use std::{sync::Arc, sync::atomic::{AtomicU64, Ordering}, time::Duration};
    /// # use quorate::{Cluster, NodeId, Role, lease::Stop};
    /// # use quorate::testing::sim::{End, Rate, Setting, World};
    /// # use tokio::time::sleep;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let ms = Duration::from_millis;
    /// let stop = Some(Stop::Deadman { lateness: ms(250) });
    /// let worked = [(); 3].map(|()| Arc::new(AtomicU64::new(0)));
    /// World::run(7, async {
    ///     let setting = Setting { seed: 7, config: Default::default(), stop, device: false, aloud: false };
    ///     let mut world = World::new(setting);
    ///     for (number, worked) in (1..).zip(worked.clone()) {
    ///         world.add_machine(NodeId::new(number), Rate::default());
    ///         let running = world.start(NodeId::new(number)).await?;
    ///         world.enter(&running, number == 1, Role::Voter);
    ///         // The program: it works while it has the lock.
    ///         running.host.clone().spawn(async move {
    ///             let cluster = loop {
    ///                 match Cluster::in_world(&running) {
    ///                     Some(cluster) => break cluster,
    ///                     None => sleep(ms(10)).await,
    ///                 }
    ///             };
    ///             cluster.active().await.ok()?;
    ///             let guard = cluster.lock("vm/100").await.ok()?;
    ///             while guard.check().is_ok() {
    ///                 worked.fetch_add(1, Ordering::Relaxed);
    ///                 sleep(ms(100)).await;
    ///             }
    ///             Some(())
    ///         });
    ///         sleep(ms(5000)).await;
    ///     }
    ///     // The first machine loses power: in a few simulated seconds one of the others works on.
    ///     assert!(worked[0].load(Ordering::Relaxed) > 0);
    ///     world.end(NodeId::new(1), End::PowerCut);
    ///     sleep(ms(20_000)).await;
    ///     assert!(worked[1..].iter().any(|worked| worked.load(Ordering::Relaxed) > 0));
    ///     Ok(())
    /// })?
    /// # }
    /// ```
    #[cfg(feature = "testing")]
    pub fn in_world(running: &crate::testing::sim::Running) -> Option<Self> {
        let identity = running.node.identity()?;
        Some(Self { node: running.node.clone(), identity, listening: Listening::World })
    }

    /// This life of this node.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Where the node listens, if it does on a socket: the port is the real one where 0 was asked for.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.listening.local_addr()
    }

    /// The latest picture: committed facts and this node's own observations. May be stale; see [`Self::read_barrier`].
    pub fn view(&self) -> View {
        self.node.view()
    }

    /// The latest picture, again and again.
    pub fn watch(&self) -> Watch {
        Watch { views: self.node.watch() }
    }

    /// Every event from now on. To lose none between a look and the events, use
    /// `events_since(view.cluster.revision())`.
    pub fn events(&self) -> Events {
        self.events_since(self.view().cluster.revision())
    }

    /// Every event after `revision`, then each as it is committed.
    pub fn events_since(&self, revision: Revision) -> Events {
        Events { items: self.node.events_since(revision), revision }
    }

    /// As [`Self::events_since`], only of what the filter wants: topics, and names or keys with a prefix. A gap is told in
    /// any case, with everything that holds then.
    pub fn watch_events(&self, revision: Revision, filter: Filter) -> Events {
        Events { items: self.node.events_matching(revision, filter), revision }
    }

    /// This life's lease: whether it may act now, what has to stop when it may not, and what makes sure of that.
    pub fn lease(&self) -> Lease {
        self.node.lease_of(self.identity)
    }

    /// Asks for the lock `name` and waits in line until this life has it. First come, first served. Cancel-safe: dropped at
    /// any moment, nothing stays behind.
    ///
    /// The guard is the lock, this life's lease and its stop mechanism in one; see [`LockGuard`].
    ///
    /// # Errors
    /// [`LockError`]: the lock was not had, and nothing of the request stays in the log.
    pub async fn lock(&self, name: impl TryInto<Name, Error: Into<TextError>>) -> Result<LockGuard, LockError> {
        self.node.lock_for(self.identity, name, Some(Duration::MAX)).await
    }

    /// As [`Self::lock`], and waits no longer than `timeout`.
    ///
    /// # Errors
    /// [`LockError::TimedOut`] says who holds it.
    pub async fn lock_with_timeout(
        &self,
        name: impl TryInto<Name, Error: Into<TextError>>,
        timeout: Duration,
    ) -> Result<LockGuard, LockError> {
        self.node.lock_for(self.identity, name, Some(timeout)).await
    }

    /// As [`Self::lock`], and does not wait in line.
    ///
    /// # Errors
    /// [`Rejection::LockHeld`](crate::state::Rejection::LockHeld) in [`LockError::Propose`] says who holds it.
    pub async fn try_lock(&self, name: impl TryInto<Name, Error: Into<TextError>>) -> Result<LockGuard, LockError> {
        self.node.lock_for(self.identity, name, None).await
    }

    /// The locks that a former life left to this one, and that nobody has asked for yet: [`Self::lock`] takes them up. Only
    /// where that life had said that its work dies with its process; see
    /// [`Config::work_dies_with_process`](crate::Config::work_dies_with_process).
    pub fn inherited(&self) -> Vec<(Name, Revision)> {
        self.node.inherited()
    }

    /// Gives up what a former life left and nobody has asked for, so that others can have it.
    pub fn disown(&self) {
        self.node.disown();
    }

    /// The consumer's own records, and the queues.
    pub fn records(&self) -> Records {
        self.node.records()
    }

    /// What became of the process that had this data folder before, as far as its ledger tells: whether it was closed, was
    /// ended by its own stop mechanism and why, or fell silent.
    pub fn last_end(&self) -> &LastEnd {
        self.node.last_end()
    }

    /// Waits until this life may be given work: it has caught up, has its vote, and every former life of this node is
    /// proved to have ended. Cancel-safe.
    ///
    /// # Errors
    /// [`ActiveError`] when that can no longer happen.
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

    /// Waits until this node has applied everything committed before the call (Raft's ReadIndex); a [`Self::view`]
    /// taken afterwards is linearizable.
    ///
    /// # Errors
    /// [`ReadError::MaybeStale`] when no quorum answers within `timeout`.
    pub async fn read_barrier(&self, timeout: Duration) -> Result<Revision, ReadError> {
        self.node.read_barrier(timeout).await
    }

    /// Changes what a node is for: promotes a learner, demotes a voter, makes a witness. The vote moves in the
    /// background, once a learner has caught up.
    ///
    /// # Errors
    /// [`ProposeError::Rejected`] when the rest would not hold a majority; nothing is changed then.
    pub async fn set_role(&self, node: NodeId, role: Role) -> Result<Committed, ProposeError> {
        self.node.propose(Command::SetRole { node, role }).await
    }

    /// Gives a node a vote. The same as [`Self::set_role`] with [`Role::Voter`].
    ///
    /// # Errors
    /// As [`Self::set_role`].
    pub async fn promote(&self, node: NodeId) -> Result<Committed, ProposeError> {
        self.set_role(node, Role::Voter).await
    }

    /// Takes a node's vote. The same as [`Self::set_role`] with [`Role::Learner`].
    ///
    /// # Errors
    /// As [`Self::set_role`].
    pub async fn demote(&self, node: NodeId) -> Result<Committed, ProposeError> {
        self.set_role(node, Role::Learner).await
    }

    /// Takes a node out for good: its number is never given again. Its lives must have ended, by leaving or by a proof.
    ///
    /// # Errors
    /// [`ProposeError::Rejected`] when it still lives, or when the rest could not decide without it.
    pub async fn remove(&self, node: NodeId) -> Result<Committed, ProposeError> {
        self.node.propose(Command::Remove { node }).await
    }

    /// Changes where a node can be reached, most preferred first.
    ///
    /// # Errors
    /// [`ProposeError::Rejected`] for none, too many, or blank addresses; [`ProposeError::Refused`] for a wildcard or a
    /// missing port. Nothing is changed then.
    pub async fn set_addresses(&self, node: NodeId, addresses: Vec<Address>) -> Result<Committed, ProposeError> {
        let wrong = addresses.iter().find_map(|a| Some(format!("{a}: {}", unreachable(a)?)));
        if let (Some(why), Some(_)) = (wrong, self.local_addr()) {
            return Err(ProposeError::Refused(Refusal::Malformed(why)));
        }
        self.node.propose(Command::SetAddresses { node, addresses }).await
    }

    /// Has a life fenced, for a reason of the caller's. Repeated for the same life it changes nothing.
    ///
    /// # Errors
    /// [`ProposeError::Rejected`] when the rest would not hold a majority, or there is nothing to fence.
    pub async fn fence(&self, target: Identity, reason: Reason) -> Result<Committed, ProposeError> {
        self.node.propose(Command::OrderFence { target, cause: Cause::Requested { reason }, under: None }).await
    }

    /// Hands leadership to `to`, or to the voter that has most of the log. Returns who leads now.
    ///
    /// # Errors
    /// [`HandOverError::NotLeader`] on a node that does not lead, with the one to ask.
    pub async fn hand_over(&self, to: Option<NodeId>) -> Result<NodeId, HandOverError> {
        self.node.hand_over(to).await
    }

    /// What only an operator may say, because only a person can answer for it.
    pub fn dangerous(&self) -> Dangerous<'_> {
        Dangerous { node: &self.node }
    }

    /// Ends this life cleanly and stops the node. Call it only when nothing that this node was given still runs: the
    /// others may take its work over at once. Whatever was protected under its lease must have been said to have
    /// stopped, or nobody is told. The node stays a member and comes back with `resume`.
    ///
    /// # Errors
    /// [`ProposeError`] when it is not known that the others were told; they will have this life fenced then. The node
    /// is stopped all the same, and its work must not be started again: the leave may still take effect. That is known
    /// after twice [`Config::propose_timeout`](crate::Config::propose_timeout) at the latest.
    pub async fn leave(self) -> Result<(), ProposeError> {
        let told = self.node.leave().await;
        self.listening.shut_down().await;
        told
    }

    /// Stops the node without ending its life: the others will have it fenced before they take its work over.
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
