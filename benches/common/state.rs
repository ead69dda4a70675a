//! Makes the state of a cluster of any size: every command passes `apply`, as on a replica.
//!
//! ```text
//!   n1 … n7      voters           each with two addresses and one life, which is active
//!   n8 … n1000   learners         …  after `fence`: a second life, and the order against the first in history
//! ```

use anyhow::{Context, Result};
use quorate_membership::fencing::HISTORY;
use quorate_membership::{
    Address, BootId, Cause, ClusterId, ClusterState, Command, Configuration, Confirmation, Contract, Disk, DiskId,
    Evidence, FenceId, Identity, NodeId, Nonce, Reason, Revision, Role, apply,
};

/// The maximum number of voters of a cluster made here.
const VOTERS: u64 = 7;

/// A state, and the length of the log that leads to it.
pub(crate) struct Maker {
    pub(crate) state: ClusterState,
    revision: Revision,
}

impl Maker {
    /// A cluster of nodes `n1` to `n<members>`, all active, with no duty due.
    pub(crate) fn cluster(members: u64) -> Result<Self> {
        let mut made = Self { state: ClusterState::new(), revision: Revision::default() };
        made.apply(&Command::Found { cluster: ClusterId::new(7) })?;
        let (voters, learners) = (1..=members.min(VOTERS), VOTERS + 1..=members);
        let configuration = Configuration::uniform(voters.map(NodeId::new), learners.map(NodeId::new));
        made.apply(&Command::Configure { configuration })?;
        for node in 1..=members {
            made.apply(&join(node, 1)?)?;
            made.apply(&Command::Activate { who: made.newest(node)? })?;
        }
        made.apply(&Command::ActivateLeader { leader: NodeId::new(1), nonce: Nonce::new(1) })?;
        Ok(made)
    }

    /// The revision of the next command.
    pub(crate) fn next(&self) -> Revision {
        self.revision.next()
    }

    /// Applies a command, which must not be rejected.
    pub(crate) fn apply(&mut self, command: &Command) -> Result<()> {
        self.revision = self.next();
        apply(&mut self.state, self.revision, command)?;
        Ok(())
    }

    /// The newest life of a node.
    pub(crate) fn newest(&self, node: u64) -> Result<Identity> {
        self.state.newest(NodeId::new(node)).context("it has joined")
    }

    /// Orders the fencing of a node's newest life and begins the first attempt.
    pub(crate) fn begin_fence(&mut self, node: u64) -> Result<(FenceId, Identity)> {
        let target = self.newest(node)?;
        self.apply(&order(target)?)?;
        let order = self.state.fences().against(target).context("it was just ordered")?.id;
        self.apply(&Command::StartFence { order, by: NodeId::new(1), attempt: 1 })?;
        Ok((order, target))
    }

    /// One fencing from the order to the proof, and the return of its node as a new life.
    pub(crate) fn fence(&mut self, node: u64) -> Result<()> {
        let (order, target) = self.begin_fence(node)?;
        self.apply(&confirm(order, target)?)?;
        let opened = target.incarnation.next().get();
        self.apply(&join(node, opened)?)?;
        self.apply(&Command::Activate { who: self.newest(node)? })
    }
}

/// 1000 members, and as many ended orders as the history keeps.
pub(crate) fn full() -> Result<ClusterState> {
    let mut maker = Maker::cluster(1000)?;
    for turn in 0..HISTORY as u64 {
        maker.fence(1000 - turn % 100)?;
    }
    Ok(maker.state)
}

/// A join of a node whose data folder has been opened `opened` times.
pub(crate) fn join(node: u64, opened: u64) -> Result<Command> {
    Ok(Command::Join {
        node: NodeId::new(node),
        role: if node <= VOTERS { Role::Voter } else { Role::Learner },
        addresses: vec![
            Address::new(format!("node-{node}.cluster.example.net:7400"))?,
            Address::new(format!("10.0.{}.{}:7400", node / 256, node % 256))?,
        ],
        disk: Disk { id: DiskId::new(u128::from(node)), opened },
        boot: BootId::new(u128::from(opened)),
        nonce: Nonce::new(u128::from(node) << 64 | u128::from(opened)),
        contract: Contract::default(),
        left: None,
        hint: None,
    })
}

/// An order against a life that has gone silent.
pub(crate) fn order(target: Identity) -> Result<Command> {
    let reason = Reason::new("no answer on either network for 1.6 s")?;
    Ok(Command::OrderFence { target, cause: Cause::Requested { reason, by: None }, under: None })
}

/// The confirmation of a device in the first attempt.
pub(crate) fn confirm(order: FenceId, target: Identity) -> Result<Command> {
    let evidence = Evidence::new("chassis power status read back after power off: off")?;
    let confirmation = Confirmation::Device { by: NodeId::new(1), attempt: 1, evidence };
    Ok(Command::ConfirmFence { order, target, confirmation })
}
