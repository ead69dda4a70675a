//! How a node joins a cluster, and how it resumes its membership. How it founds one is in `bootstrap.rs`.
//!
//! ```text
//!   join      ─▶ ask a member ─▶ Join, through the leader ─▶ folder marked with the cluster ─▶ wait for the log
//!   resume    ─▶ Join: through the leader if one is known, or through any member at a known address, or at a seed
//! ```
//!
//! Each of them ends when the join is applied here: the life then has its identity and is `Joining`. A join carries the
//! nonce of its process and may be repeated, so every step can be repeated after a crash or a lost answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_membership::codec::encode;
use quorate_membership::{Address, Command, Identity, Incarnation, Role};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use crate::engine::Engine;
use crate::error::{ProposeError, Refusal, StartError, TransportError};
use crate::folder::Folder;
use crate::host::clock;
use crate::rpc::Payload;
use crate::view::View;

/// What entering a cluster needs.
pub(crate) struct Entrance {
    pub(crate) engine: Engine,
    /// The open data folder; `None` once the node has shut down.
    pub(crate) folder: Arc<Mutex<Option<Folder>>>,
    /// The addresses at which other nodes reach this one.
    pub(crate) addresses: Vec<Address>,
    pub(crate) views: watch::Sender<View>,
    /// The former life that had stopped all its work before it ended; the join reports it.
    pub(crate) left: Option<Incarnation>,
}

impl Entrance {
    /// Asks the members at `seeds` in turn to admit this node, until one does or `timeout` has passed.
    ///
    /// # Errors
    /// [`StartError::Occupied`] when the folder belongs to a cluster, [`StartError::Config`] without a seed, and
    /// [`StartError::Join`] when no member admitted it. None of these changes anything here. A rejection by the rules
    /// ends the search at once. [`StartError::NotActive`] when this node was admitted, and so is a member, but the log
    /// did not arrive in time.
    pub(crate) async fn join(&self, seeds: &[Address], role: Role, timeout: Duration) -> Result<Identity, StartError> {
        self.vacant()?;
        let engine = &self.engine;
        let command = Payload::new(encode(&self.arrival(role)).map_err(ProposeError::from)?);
        if seeds.is_empty() {
            let why = "the address of at least one member is needed".into();
            return Err(StartError::Config { what: "the list of seeds", value: "empty".into(), why });
        }
        let give_up = Instant::now() + timeout;
        let mut last = "no seed was asked within the timeout".to_string();
        while Instant::now() < give_up {
            for seed in seeds {
                let left = give_up.saturating_duration_since(Instant::now());
                let deadline = engine.config().propose_timeout.min(left);
                match engine.peers().join(seed, command.clone(), deadline).await {
                    Ok(answer) => {
                        self.belong_to(answer.cluster)?;
                        self.wait_for_identity(give_up, timeout).await?;
                        return Ok(answer.who);
                    }
                    Err(TransportError::Refused(Refusal::Unavailable(why))) => last = format!("{seed}: {why}"),
                    Err(TransportError::Refused(Refusal::NotReady)) => last = format!("{seed}: {}", Refusal::NotReady),
                    Err(TransportError::Refused(refusal)) => {
                        let tried = seed.to_string();
                        return Err(StartError::Join { tried, last: refusal.to_string() });
                    }
                    Err(error) => last = format!("{seed}: {error}"),
                }
            }
            sleep(engine.config().heartbeat()).await;
        }
        let tried = seeds.iter().map(Address::as_str).collect::<Vec<_>>().join(", ");
        Err(StartError::Join { tried, last })
    }

    /// Resumes membership after a stop: proposes the join of a new life of this node. `seeds`: addresses at which other
    /// members may be now, beside those that the log has.
    ///
    /// # Errors
    /// [`StartError::Vacant`] when the folder belongs to no cluster; nothing was changed. [`StartError::Propose`] when
    /// the join was refused. [`StartError::Resume`] when no leader took it for certain within `timeout`.
    pub(crate) async fn resume(&self, seeds: &[Address], timeout: Duration) -> Result<Identity, StartError> {
        if self.engine.peers().cluster().is_none() {
            return Err(StartError::Vacant(self.engine.data().to_path_buf()));
        }
        // A member keeps the role that the log has for it. The role here counts only at a first join.
        self.announce(Role::Voter, seeds, timeout).await
    }

    pub(super) async fn announce(
        &self,
        role: Role,
        seeds: &[Address],
        timeout: Duration,
    ) -> Result<Identity, StartError> {
        let give_up = Instant::now() + timeout;
        let engine = &self.engine;
        let arrival = self.arrival(role);
        let (mut tried, mut failed) = (BTreeMap::new(), false);
        loop {
            let left = give_up.saturating_duration_since(Instant::now());
            // While no leader is known, the others may not know the present address of this node. So it calls them at
            // the addresses that it knows. Repeating a join is safe, because it carries its nonce.
            // So it does when the leader that it knows cannot be reached: that one may have moved, too.
            if (engine.leader().is_none() || failed) && self.ask_members(&arrival, seeds, left, &mut tried).await? {
                break;
            }
            match engine.propose(arrival.clone(), left.min(engine.config().election_max() * 2)).await {
                Ok(_) => break,
                Err(ProposeError::OutcomeUnknown { .. } | ProposeError::NoLeader { .. })
                    if Instant::now() < give_up =>
                {
                    failed = true;
                }
                Err(ProposeError::NoLeader { .. } | ProposeError::OutcomeUnknown { .. }) => {
                    let answers: Vec<_> = tried.iter().map(|(at, answer)| format!("{at}: {answer}")).collect();
                    let answers = if answers.is_empty() { "no other member".into() } else { answers.join("; ") };
                    return Err(StartError::Resume { node: engine.node(), waited: timeout, answers });
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.wait_for_identity(give_up, timeout).await
    }

    async fn wait_for_identity(&self, give_up: Instant, waited: Duration) -> Result<Identity, StartError> {
        let mut view = self.views.subscribe();
        let known = async {
            loop {
                if let Some(who) = self.engine.identity() {
                    return Some(who);
                }
                view.changed().await.ok()?;
            }
        };
        let why = "its join is not applied here yet, although it is a member".to_string();
        let missing = || StartError::NotActive { who: self.engine.node(), waited, why };
        timeout_at(give_up, known).await.ok().flatten().ok_or_else(missing)
    }

    /// Asks each known member and each seed once to forward the join of this node to the leader. Returns whether one
    /// did. Whoever is asked learns where this node is, so that it can be called for a vote. Notes the last answers in
    /// `tried`.
    async fn ask_members(
        &self,
        arrival: &Command,
        seeds: &[Address],
        timeout: Duration,
        tried: &mut BTreeMap<Address, String>,
    ) -> Result<bool, ProposeError> {
        let command = Payload::new(encode(arrival)?);
        let state = self.engine.state();
        let others = state.members().filter(|(node, _)| *node != self.engine.node());
        let known = others.flat_map(|(_, member)| &member.addresses);
        let all: BTreeSet<&Address> = seeds.iter().chain(known).collect();
        for address in all.into_iter().filter(|address| !self.addresses.contains(address)) {
            let deadline = timeout.min(self.engine.config().election_max() * 2);
            match self.engine.peers().join(address, command.clone(), deadline).await {
                Ok(_) => return Ok(true),
                Err(TransportError::Refused(Refusal::Rejected(rejection))) => return Err(rejection.into()),
                Err(error) => {
                    tracing::debug!(%address, %error, "this member did not forward the join");
                    tried.insert(address.clone(), error.to_string());
                }
            }
        }
        Ok(false)
    }

    fn arrival(&self, role: Role) -> Command {
        Command::Join {
            node: self.engine.node(),
            role,
            addresses: self.addresses.clone(),
            disk: self.engine.peers().disk(),
            boot: clock::boot_id(),
            nonce: self.engine.process(),
            contract: self.engine.config().timing.contract(),
            left: self.left,
            hint: self.engine.config().fence_hint.clone(),
        }
    }
}
