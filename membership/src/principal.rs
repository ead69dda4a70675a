//! Who asks for something: a caller, as its certificate names it.
//!
//! ```text
//!   n3                  a node, or the program that runs it
//!   alice.operators     an operator
//!   billing.clients     a client
//! ```
//!
//! It stands in the log beside what was asked for: beside the commands that only an operator decides, and in each session.
//! A server takes it from the certificate of the connection, never from the request. So the forms cannot be mixed up: an
//! operator or a client has a dot in its name, a node has none.

use crate::bounded_text::text;
use crate::id::NodeId;

text!(
    /// Who asks, as a certificate names it: `billing.clients`, `alice.operators`, `n3`. At most 80 bytes.
    Principal, "a principal", 80
);

impl Principal {
    /// The node that it names, if it names one.
    ///
    /// ```
    /// use quorate_membership::{NodeId, Principal};
    ///
    /// assert_eq!(Principal::from(NodeId::new(3)).node(), Some(NodeId::new(3)));
    /// assert_eq!(Principal::new("alice.operators")?.node(), None);
    /// # Ok::<(), quorate_membership::TextError>(())
    /// ```
    pub fn node(&self) -> Option<NodeId> {
        self.as_str().parse().ok().filter(|node: &NodeId| node.to_string() == self.as_str())
    }
}

/// A node, and the program that runs it.
impl From<NodeId> for Principal {
    fn from(node: NodeId) -> Self {
        Self(node.to_string().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_found_in_its_own_name_only() {
        let node = NodeId::new(3);
        assert_eq!(Principal::from(node).as_str(), "n3");
        assert_eq!(Principal::from(node).node(), Some(node));
        for other in ["alice.operators", "n3.operators", "n03", "n+3", "3", "N3", "n3 ", "n18446744073709551616"] {
            assert_eq!(Principal::new(other).unwrap().node(), None, "{other}");
        }
    }

    #[test]
    fn the_longest_node_and_the_longest_label_fit() {
        assert!(Principal::from(NodeId::new(u64::MAX)).check().is_ok());
        assert!(Principal::new(format!("{}.operators", "a".repeat(63))).is_ok());
        assert!(Principal::new("a".repeat(81)).is_err());
        assert!(Principal::new(" ").is_err());
    }
}
