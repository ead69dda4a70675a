//! That a life has ended, as a value that only a proof can make.
//!
//! ```text
//!   committed state: Fenced (with its proof), Left ──┐
//!   an operator's word, with a name ─────────────────┴──▶ ProvedEnd ──▶ stand for election in the place of that leader
//! ```
//!
//! It has no other constructor, so no code can conclude an end from silence.

use crate::cluster::ClusterState;
use crate::id::Identity;
use crate::member::Phase;
use crate::proof::{FenceProof, Operator};

/// The proved end of a life. Made only from the committed state, or from the word of an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvedEnd {
    who: Identity,
    proof: FenceProof,
}

impl ProvedEnd {
    /// The end of that life as the committed state has it. `None` if the life has not ended, or is no longer
    /// remembered.
    pub fn committed(state: &ClusterState, who: Identity) -> Option<Self> {
        let proof = match state.life(who)?.phase {
            Phase::Left => FenceProof::CleanLeave,
            Phase::Fenced => state.fences().ended(who)?.proof.clone(),
            Phase::Joining | Phase::Active | Phase::Fencing => return None,
        };
        Some(Self { who, proof })
    }

    /// The end of that life as an operator vouches for it.
    pub fn vouched(who: Identity, operator: Operator) -> Self {
        let Operator { name, reason } = operator;
        Self { who, proof: FenceProof::Operator { name, reason, by: None } }
    }

    /// The life that has ended.
    pub fn who(&self) -> Identity {
        self.who
    }

    /// What proves it.
    pub fn proof(&self) -> &FenceProof {
        &self.proof
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::apply;
    use crate::bounded_text::Reason;
    use crate::command::Command;
    use crate::contract::Contract;
    use crate::fencing::Cause;
    use crate::id::{BootId, ClusterId, DiskId, Incarnation, NodeId, Nonce, Revision};
    use crate::member::{Address, Disk, Role};

    fn joined() -> (ClusterState, Identity) {
        let (mut state, node) = (ClusterState::new(), NodeId::new(3));
        let found = Command::Found { cluster: ClusterId::new(7) };
        let (disk, addresses) = (Disk { id: DiskId::new(3), opened: 1 }, vec![Address::new("n3:7400").unwrap()]);
        let (boot, nonce, contract) = (BootId::new(1), Nonce::new(1), Contract::default());
        let join =
            Command::Join { node, role: Role::Learner, addresses, disk, boot, nonce, contract, left: None, hint: None };
        for (number, command) in [found, join].iter().enumerate() {
            apply(&mut state, Revision::new(number as u64 + 1), command).unwrap();
        }
        (state, Identity::new(node, Incarnation::new(1)))
    }

    #[test]
    fn a_life_that_left_has_a_proved_end_and_one_that_may_act_has_none() {
        let (mut state, who) = joined();
        assert_eq!(ProvedEnd::committed(&state, who), None);
        apply(&mut state, Revision::new(3), &Command::Leave { who }).unwrap();
        let end = ProvedEnd::committed(&state, who).unwrap();
        assert_eq!((end.who(), end.proof()), (who, &FenceProof::CleanLeave));
    }

    #[test]
    fn an_order_is_no_proof_and_the_word_of_an_operator_is_one() {
        let (mut state, who) = joined();
        let (order, reason) = (state.fences().upcoming(), Reason::clipped("maintenance"));
        let ordered =
            crate::event::Event::FenceOrdered { order, target: who, cause: Cause::Requested { reason, by: None } };
        crate::evolve::evolve(&mut state, Revision::new(3), &ordered);
        assert_eq!(ProvedEnd::committed(&state, who), None);
        let end = ProvedEnd::vouched(who, Operator::new("alice", "I pulled the plug").unwrap());
        assert_eq!(end.proof().kind(), "operator");
    }
}
