//! What counts as proof that a life has ended.
//!
//! ```text
//!   Device       a fencer isolated the target, verified it, and reports what it saw
//!   CleanLeave   the life itself reported that it had stopped all its work
//!   Operator     a person vouches with a name
//!   Expired      its lease ran out and its stop mechanism acted: nothing was received for D (E1)
//!   Succeeded    its work died with its process, and the next life on the same boot reports that the process is gone
//! ```
//!
//! A proof is made from something that was seen or reported, never from an absence: there is no constructor for a
//! fencer that timed out. The rules that decide whether a proof is accepted are in `decide/ending.rs`.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bounded_text::{Reason, TextError, text};
use crate::id::{Activation, Identity, NodeId};
use crate::principal::Principal;

text!(
    /// What a fencer saw that shows the target can do no more harm ("power status read back: off"). At most 4 096
    /// bytes.
    Evidence, "the evidence of a fence", 4096
);

/// What a fencer or an operator reports about an order. The command that carries it names the order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Confirmation {
    /// A fencer isolated the target and verified that it did.
    Device {
        /// The node that ran the fencer.
        by: NodeId,
        /// The number of the attempt, from 1.
        attempt: u32,
        /// What the fencer saw, in words.
        evidence: Evidence,
    },
    /// An operator vouches for it.
    Operator {
        /// The name of the operator.
        name: Reason,
        /// How the operator knows.
        reason: Reason,
        /// Who gave the word, by its certificate. `None` for a caller without one.
        by: Option<Principal>,
    },
}

/// Why it is certain that a life can do no more harm. Kept with its order in the history of the last
/// [`HISTORY`](crate::fencing::HISTORY) orders. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FenceProof {
    /// A fencer isolated the target and verified it.
    Device {
        /// The node that ran the fencer.
        by: NodeId,
        /// The number of the attempt, from 1.
        attempt: u32,
        /// What the fencer saw, in words.
        evidence: Evidence,
    },
    /// The life itself reported that it had stopped all its work.
    CleanLeave,
    /// An operator vouched for it.
    Operator {
        /// The name of the operator.
        name: Reason,
        /// How the operator knows.
        reason: Reason,
        /// Who gave the word, by its certificate. `None` for a caller without one.
        by: Option<Principal>,
    },
    /// Its lease ran out and its stop mechanism acted: a leader received nothing of it for as long as its contract
    /// requires (E1), under the activation that was current when this was applied.
    Expired {
        /// The activation of the leader that waited.
        under: Activation,
        /// For how long it received nothing, on its own clock. At least D of the contract.
        waited: Duration,
    },
    /// Its work died with its process, as it had declared. Its successor on the same boot and the same disk, which
    /// holds the lock on the data folder, reports that the process is gone (P3).
    Succeeded {
        /// The next life of the same node.
        by: Identity,
    },
}

impl From<Confirmation> for FenceProof {
    fn from(confirmation: Confirmation) -> Self {
        match confirmation {
            Confirmation::Device { by, attempt, evidence } => Self::Device { by, attempt, evidence },
            Confirmation::Operator { name, reason, by } => Self::Operator { name, reason, by },
        }
    }
}

impl fmt::Display for FenceProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device { by, attempt, evidence } => write!(f, "device, by {by} in attempt {attempt}: {evidence}"),
            Self::CleanLeave => f.write_str("clean leave"),
            Self::Operator { name, reason, by: None } => write!(f, "word of {name}: {reason}"),
            Self::Operator { name, reason, by: Some(by) } => write!(f, "word of {name}, given by {by}: {reason}"),
            Self::Expired { under, waited } => write!(f, "expired, {waited:.1?} without a renewal, under {under}"),
            Self::Succeeded { by } => write!(f, "succeeded by {by} on the same boot"),
        }
    }
}

impl FenceProof {
    /// The kind of proof, in one or two words, as the ledger records it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Device { .. } => "device",
            Self::CleanLeave => "clean leave",
            Self::Operator { .. } => "operator",
            Self::Expired { .. } => "expired",
            Self::Succeeded { .. } => "succeeded",
        }
    }
}

/// A person who answers for something that no machine can prove, with a name and a reason. Both are committed to the log.
///
/// The two texts have names of their own here, so that they cannot be swapped by mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// The name of the person. At most 1 024 bytes.
    pub name: Reason,
    /// How the person knows. At most 1 024 bytes.
    pub reason: Reason,
}

impl Operator {
    /// The operator `name`, who has made sure as `reason` tells.
    ///
    /// # Errors
    /// [`TextError`] when one of the two is blank or too long.
    pub fn new(name: impl Into<String>, reason: impl Into<String>) -> Result<Self, TextError> {
        Ok(Self { name: Reason::new(name)?, reason: Reason::new(reason)? })
    }
}
