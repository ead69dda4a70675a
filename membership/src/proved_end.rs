//! That a life has ended, as a value that only a proof can make.

use crate::cluster::ClusterState;
use crate::id::Identity;
use crate::member::Phase;
use crate::proof::{FenceProof, Operator};

/// That a life has ended, with what proves it. It cannot be made from the absence of something: only from what is
/// committed, or from the word of a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvedEnd {
    who: Identity,
    proof: FenceProof,
}

impl ProvedEnd {
    /// What the committed state says of that life; `None` while it has not ended, or is forgotten.
    pub fn committed(state: &ClusterState, who: Identity) -> Option<Self> {
        let proof = match state.life(who)?.phase {
            Phase::Left => FenceProof::CleanLeave,
            Phase::Fenced => state.fences().ended(who)?.proof.clone(),
            Phase::Joining | Phase::Active | Phase::Fencing => return None,
        };
        Some(Self { who, proof })
    }

    /// A person says so, and answers for it with a name.
    pub fn vouched(who: Identity, operator: Operator) -> Self {
        let Operator { name, reason } = operator;
        Self { who, proof: FenceProof::Operator { name, reason } }
    }

    /// Which life.
    pub fn who(&self) -> Identity {
        self.who
    }

    /// How it is known.
    pub fn proof(&self) -> &FenceProof {
        &self.proof
    }
}
