//! Each number its own type and its own printed form.
//!
//! ```text
//!   n3      a node                       NodeId          given once, never reused
//!   #2      which life of it             Incarnation     grows with every start of the node
//!   n3#2    one life of one node         Identity        the thing that is fenced
//!   e8      the membership view          Epoch           grows with every change of members, phases or voters
//!   r1042   a position in the log        Revision        also the fencing token of what it grants
//!   f9      a fence order                FenceId         what a confirmation must name
//!   a57     an activation of a leader    Activation      what an expiry must name
//!   s77     a session of a client        SessionId       holds locks for a client that is not a member
//!   q12     an item in a queue           ItemId          grows with every item of any queue
//! ```
//!
//! The forms are the same in logs, errors, scripts and documentation, and each type parses what it prints.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text that is not the printed form of the expected id. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct ParseIdError {
    text: String,
    expected: &'static str,
}

impl ParseIdError {
    fn new(text: &str, expected: &'static str) -> Self {
        Self { text: text.chars().take(80).collect(), expected }
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(u64);

        impl $name {
            /// Wraps the bare number.
            pub const fn new(number: u64) -> Self {
                Self(number)
            }

            /// The bare number.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The next number. At the top of the range it stays there instead of wrapping around.
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let digits = text.strip_prefix($prefix).filter(|d| d.bytes().all(|b| b.is_ascii_digit()));
                digits.and_then(|d| d.parse().ok()).map(Self).ok_or_else(|| ParseIdError::new(text, $expected))
            }
        }
    };
}

number!(
    /// A node, `n3`: a machine with its disk. Chosen once, when the node is added, and never used for another disk.
    NodeId, "n", "a node (n3)"
);
number!(
    /// The number of a life of a node, `#2`. Every start of its daemon begins a new life. The first is `#1`.
    Incarnation, "#", "an incarnation (#2)"
);
number!(
    /// The number of the membership view, `e8`: grows with every change of members, of the phases of their lives, and
    /// of voters.
    Epoch, "e", "an epoch (e8)"
);
number!(
    /// A position in the committed log, `r1042`. The revision that grants a right is its fencing token: it strictly
    /// grows across the whole cluster and is decided by the log alone (unlike a Raft term, which several entries
    /// share).
    Revision, "r", "a revision (r1042)"
);
number!(
    /// A fence order, `f9`. A confirmation counts only for the order that it names.
    FenceId, "f", "a fence order (f9)"
);
number!(
    /// An activation of a leader, `a57`: the number of the entry that began it. What a leader concludes from time
    /// counts only if its activation is still current when the conclusion is applied.
    Activation, "a", "an activation (a57)"
);
number!(
    /// A session, `s77`: the number of the entry that opened it. A client that is not a member holds locks by it.
    SessionId, "s", "a session (s77)"
);
number!(
    /// An item in a queue, `q12`. Grows with every item of any queue, and is never reused.
    ItemId, "q", "a queued item (q12)"
);

/// One life of one node, `n3#2`: from a start of its daemon until a proof that this life can do no more harm.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// The number of the life.
    pub incarnation: Incarnation,
}

impl Identity {
    /// The life `incarnation` of `node`.
    pub const fn new(node: NodeId, incarnation: Incarnation) -> Self {
        Self { node, incarnation }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.node, self.incarnation)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Identity {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let bad = || ParseIdError::new(text, "a life of a node (n3#2)");
        let at = text.find('#').ok_or_else(bad)?;
        let node = text[..at].parse().map_err(|_| bad())?;
        let incarnation = text[at..].parse().map_err(|_| bad())?;
        Ok(Self { node, incarnation })
    }
}

macro_rules! token {
    ($(#[$doc:meta])* $name:ident, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(u128);

        impl $name {
            /// Wraps 128 bits, drawn at random by the caller: the core has no randomness of its own.
            pub const fn new(bits: u128) -> Self {
                Self(bits)
            }

            /// The bare bits.
            pub const fn get(self) -> u128 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let hex = Some(text).filter(|t| t.len() == 32 && t.bytes().all(|b| b.is_ascii_hexdigit()));
                let bits = hex.and_then(|t| u128::from_str_radix(t, 16).ok());
                bits.map(Self).ok_or_else(|| ParseIdError::new(text, $expected))
            }
        }
    };
}

token!(
    /// The id of a cluster, drawn at random when it is founded. Checked on every call between nodes.
    ClusterId, "a cluster id (32 hexadecimal digits)"
);
token!(
    /// The id of a data folder, drawn at random when it is created. A wiped disk is another disk, and so another node.
    DiskId, "a disk id (32 hexadecimal digits)"
);
token!(
    /// The id of one boot of a machine. Information for operators and fencers; it proves nothing, as a cloned disk
    /// boots too.
    BootId, "a boot id (32 hexadecimal digits)"
);
token!(
    /// Drawn at random for one process, activation or request, so that a repetition is told from a second one.
    Nonce, "a nonce (32 hexadecimal digits)"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_parses_what_it_prints() {
        assert_eq!("n3#2".parse::<Identity>().unwrap().to_string(), "n3#2");
        assert_eq!("r1042".parse::<Revision>().unwrap(), Revision::new(1042));
        assert_eq!("e8".parse::<Epoch>().unwrap().to_string(), "e8");
        assert_eq!("f9".parse::<FenceId>().unwrap().next().to_string(), "f10");
        let cluster = ClusterId::new(0xabc);
        assert_eq!(cluster.to_string().parse::<ClusterId>().unwrap(), cluster);
    }

    #[test]
    fn what_is_not_an_id_says_so_and_names_the_text() {
        for bad in ["", "3", "n", "n-1", "n+1", "n3", "n3#", "#2", "n3#x", "n3#2 ", "n99999999999999999999#1"] {
            let error = bad.parse::<Identity>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{bad}`")), "{error}");
        }
    }
}
