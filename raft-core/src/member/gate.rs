//! The gate: checks the caller of every call between nodes, before anything else handles the call.
//!
//! ```text
//!   cluster? ─▶ meant for me? ─▶ same timing? ─▶ not retired? ─▶ the disk that the log knows? ─▶ not a copy? ─▶ admitted
//! ```
//!
//! The log knows the disk of a node from its last join. A restarted node calls before its new join is applied, so the
//! disk of its last call is also kept in memory. A disk that was opened less often than before is an old state or a
//! copy. Equal disks with different process nonces are two processes on two copies.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use quorate_membership::{ClusterId, ClusterState, Disk, NodeId, Nonce};

use crate::error::Refusal;
use crate::rpc::Caller;

/// What the gate compares callers with: the identity and timing of this node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Here {
    pub(crate) node: NodeId,
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) timing: u64,
    pub(crate) disk: Disk,
}

/// Checks callers, and remembers the last admitted disk and process of each node.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    seen: Mutex<BTreeMap<NodeId, (Disk, Nonce)>>,
}

impl Gate {
    /// Admits `caller`, or refuses it with the reason. `state` is what this node has applied.
    ///
    /// # Errors
    /// [`Refusal`]; the refused caller is not remembered.
    pub(crate) fn check(&self, here: Here, state: &ClusterState, caller: &Caller) -> Result<(), Refusal> {
        let ours = here.cluster.ok_or(Refusal::NotReady)?;
        let node = caller.from;
        if caller.cluster != ours {
            return Err(Refusal::OtherCluster { ours, theirs: caller.cluster });
        }
        if caller.to != here.node {
            return Err(Refusal::OtherNode { meant: caller.to, here: here.node });
        }
        if caller.timing != here.timing {
            return Err(Refusal::OtherTiming);
        }
        // The reverse check: if the caller's log knows a later state of this node's disk, this node must not answer.
        if let Some(known) = caller.callee {
            let (node, got) = (here.node, here.disk);
            if known.id != got.id {
                return Err(Refusal::OtherDisk { node, known, got });
            }
            if got.opened < known.opened {
                return Err(Refusal::ClonedDisk { node, known, got });
            }
        }
        if state.retired().contains(&node) {
            return Err(Refusal::Retired(node));
        }
        let joined = state.member(node).and_then(|member| {
            let (_, life) = member.newest()?;
            Some((member.disk, life.nonce))
        });
        if let Some(known) = joined {
            compare(node, known, caller)?;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = seen.get(&node)
            // The log takes precedence: a disk seen before another one joined does not count any more.
            && joined.is_none_or(|(disk, _)| disk.id == known.0.id)
        {
            compare(node, *known, caller)?;
        }
        seen.insert(node, (caller.disk, caller.process));
        Ok(())
    }
}

fn compare(node: NodeId, (known, process): (Disk, Nonce), caller: &Caller) -> Result<(), Refusal> {
    let got = caller.disk;
    if got.id != known.id {
        return Err(Refusal::OtherDisk { node, known, got });
    }
    if got.opened < known.opened {
        return Err(Refusal::ClonedDisk { node, known, got });
    }
    if got.opened == known.opened && caller.process != process {
        return Err(Refusal::TwoProcesses(node));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use quorate_membership::{Address, BootId, Command, DiskId, Revision, Role, apply};

    use super::*;

    const HERE: Here = Here {
        node: NodeId::new(1),
        cluster: Some(ClusterId::new(5)),
        timing: 77,
        disk: Disk { id: DiskId::new(1), opened: 4 },
    };

    fn caller() -> Caller {
        let disk = Disk { id: DiskId::new(3), opened: 4 };
        let process = Nonce::new(40);
        Caller {
            cluster: ClusterId::new(5),
            from: NodeId::new(3),
            to: NodeId::new(1),
            disk,
            process,
            callee: Some(HERE.disk),
            timing: 77,
        }
    }

    fn state() -> ClusterState {
        let mut state = ClusterState::new();
        let join = |node, id, nonce| Command::Join {
            node: NodeId::new(node),
            role: Role::Voter,
            addresses: vec![Address::new("a:1").unwrap()],
            disk: Disk { id: DiskId::new(id), opened: 4 },
            boot: BootId::default(),
            nonce: Nonce::new(nonce),
            contract: Default::default(),
            left: None,
            hint: None,
        };
        let commands = [
            Command::Found { cluster: ClusterId::new(5) },
            join(1, 1, 10),
            join(3, 3, 40),
            join(4, 4, 50),
            Command::Remove { node: NodeId::new(4), by: None },
        ];
        for (at, command) in commands.iter().enumerate() {
            apply(&mut state, Revision::new(at as u64 + 1), command).unwrap();
        }
        state
    }

    fn refused(change: impl FnOnce(&mut Caller)) -> Refusal {
        let mut caller = caller();
        change(&mut caller);
        Gate::default().check(HERE, &state(), &caller).unwrap_err()
    }

    #[test]
    fn each_stranger_is_refused_with_its_reason() {
        assert_eq!(Gate::default().check(HERE, &state(), &caller()), Ok(()));
        assert!(matches!(refused(|c| c.cluster = ClusterId::new(6)), Refusal::OtherCluster { .. }));
        assert!(matches!(refused(|c| c.to = NodeId::new(2)), Refusal::OtherNode { .. }));
        assert_eq!(refused(|c| c.timing = 78), Refusal::OtherTiming);
        assert_eq!(refused(|c| c.from = NodeId::new(4)), Refusal::Retired(NodeId::new(4)));
        assert!(matches!(refused(|c| c.disk.id = DiskId::new(8)), Refusal::OtherDisk { .. }));
        assert!(matches!(refused(|c| c.disk.opened = 3), Refusal::ClonedDisk { .. }));
        assert_eq!(refused(|c| c.process = Nonce::new(41)), Refusal::TwoProcesses(NodeId::new(3)));
        // An old state of this node's own disk neither votes nor acknowledges.
        let known = |id, opened| Some(Disk { id: DiskId::new(id), opened });
        assert!(matches!(refused(|c| c.callee = known(1, 5)), Refusal::ClonedDisk { .. }));
        assert!(matches!(refused(|c| c.callee = known(2, 1)), Refusal::OtherDisk { .. }));
        let nowhere = Here { cluster: None, ..HERE };
        assert_eq!(Gate::default().check(nowhere, &state(), &caller()), Err(Refusal::NotReady));
    }

    #[test]
    fn a_restarted_node_is_let_in_and_its_former_process_no_longer() {
        let (gate, state, old) = (Gate::default(), state(), caller());
        let new = Caller { disk: Disk { opened: 5, ..old.disk }, process: Nonce::new(41), ..old };
        assert_eq!(gate.check(HERE, &state, &old), Ok(()));
        assert_eq!(gate.check(HERE, &state, &new), Ok(()));
        assert!(matches!(gate.check(HERE, &state, &old), Err(Refusal::ClonedDisk { .. })));
        let copy = Caller { process: Nonce::new(42), ..new };
        assert_eq!(gate.check(HERE, &state, &copy), Err(Refusal::TwoProcesses(NodeId::new(3))));
    }
}
