//! What counts as proof that a life has ended.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{Activation, Identity, NodeId};
use crate::text::{Reason, TextError, text};

text!(
    /// What a fencer saw that shows the target can do no more harm ("power status read back: off"). At most 4 096 bytes.
    Evidence, "the evidence of a fence", 4096
);

/// What an executor or an operator reports of an order. Bound to the order's number by the command that carries it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Confirmation {
    /// A fencer isolated the target and verified that it did.
    Device {
        /// Which node ran the fencer.
        by: NodeId,
        /// In which attempt, from 1.
        attempt: u32,
        /// What it saw.
        evidence: Evidence,
    },
    /// A person says so, and answers for it with a name.
    Operator {
        /// Who.
        name: Reason,
        /// How they know.
        reason: Reason,
    },
}

/// Why it is certain that a life can do no more harm. Recorded with the order, in the history of the last
/// [`HISTORY`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FenceProof {
    /// A fencer isolated the target and verified it.
    Device {
        /// Which node ran the fencer.
        by: NodeId,
        /// In which attempt, from 1.
        attempt: u32,
        /// What it saw.
        evidence: Evidence,
    },
    /// The life itself said that it had stopped everything.
    CleanLeave,
    /// A person said so.
    Operator {
        /// Who.
        name: Reason,
        /// How they know.
        reason: Reason,
    },
    /// Its lease had run out and its stop mechanism had acted: a leader received nothing of it for as long as its
    /// contract asks for (E1), under the activation that was current when this was applied.
    Expired {
        /// The activation.
        under: Activation,
        /// For how long nothing was received, on that leader's clock.
        waited: Duration,
    },
    /// Its work died with its process, as it had declared, and its successor on the same boot and the same disk, which
    /// holds the lock on the data folder, says that the process is gone (P3).
    Succeeded {
        /// The successor.
        by: Identity,
    },
}

impl From<Confirmation> for FenceProof {
    fn from(confirmation: Confirmation) -> Self {
        match confirmation {
            Confirmation::Device { by, attempt, evidence } => Self::Device { by, attempt, evidence },
            Confirmation::Operator { name, reason } => Self::Operator { name, reason },
        }
    }
}

impl fmt::Display for FenceProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device { by, attempt, evidence } => write!(f, "device, by {by} in attempt {attempt}: {evidence}"),
            Self::CleanLeave => f.write_str("clean leave"),
            Self::Operator { name, reason } => write!(f, "word of {name}: {reason}"),
            Self::Expired { under, waited } => write!(f, "expired, {waited:.1?} without a renewal, under {under}"),
            Self::Succeeded { by } => write!(f, "succeeded by {by} on the same boot"),
        }
    }
}

impl FenceProof {
    /// What kind of proof it is, in a word or two.
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
