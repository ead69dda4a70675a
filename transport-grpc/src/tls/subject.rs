//! Whom a certificate names, in its DNS names.
//!
//! ```text
//!   n3.<cluster>.quorate.internal                    node n3
//!   alice.operators.<cluster>.quorate.internal       an operator
//!   billing.clients.<cluster>.quorate.internal       a client
//!   <cluster>.quorate.internal                       beside the name of a node: some node of the cluster
//! ```
//!
//! `<cluster>` is one label, which every certificate of a cluster has. A certificate has exactly one subject, and may have any
//! other names beside it: those by which clients reach the node. The ending is below `internal`, which no public registry gives
//! out. So an ordinary check of host names tells one node from another, in any language.

use std::fmt;

use quorate_membership::NodeId;

/// What all names of quorate end with.
const ENDING: &str = ".quorate.internal";

/// Whom a certificate names, and of which cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The label that every certificate of the cluster has.
    pub cluster: String,
    /// What its holder may do.
    pub role: CallerRole,
}

/// What the holder of a certificate may do: the role of a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallerRole {
    /// It is this node: it takes part in Raft, as itself only, and may do what operators may.
    Node(NodeId),
    /// An operator of this name: it may do everything but take part in Raft.
    Operator(String),
    /// A client of this name: it reads the cluster, and uses locks, records, queues and sessions.
    Client(String),
    /// It shows no certificate: it may ask for one, with a join token, and do nothing else. Only where the cluster has an authority
    /// of its own.
    Joiner,
}

impl fmt::Display for CallerRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node {node}"),
            Self::Operator(name) => write!(f, "operator `{name}`"),
            Self::Client(name) => write!(f, "client `{name}`"),
            Self::Joiner => f.write_str("nobody"),
        }
    }
}

impl CallerRole {
    /// The caller in the log: what its DNS name begins with, such as `billing.clients`, `alice.operators` or `n3`.
    pub fn principal(&self) -> String {
        match self {
            Self::Node(node) => node.to_string(),
            Self::Operator(name) => format!("{name}.operators"),
            Self::Client(name) => format!("{name}.clients"),
            Self::Joiner => "nobody".into(),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of cluster `{}`", self.role, self.cluster)
    }
}

impl Subject {
    /// The DNS name that a certificate of this subject has.
    pub fn dns_name(&self) -> String {
        format!("{}.{}{ENDING}", self.role.principal(), self.cluster)
    }

    /// The DNS name that the certificate of every node of `cluster` has beside its own.
    pub fn any_node(cluster: &str) -> String {
        format!("{cluster}{ENDING}")
    }

    /// The subject among the DNS names of a certificate.
    ///
    /// # Errors
    /// In words: there is none, or there are several.
    pub(crate) fn among<'a>(names: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let names: Vec<&str> = names.collect();
        let mut subjects = names.iter().filter_map(|name| Self::named(name));
        match (subjects.next(), subjects.next()) {
            (Some(only), None) => match names.iter().find(|name| !only.may_have(name)) {
                Some(other) => Err(format!("{only} may not have the name {other}; leave it out")),
                None => Ok(only),
            },
            (Some(one), Some(other)) => Err(format!("it names {one} and {other}; a certificate names one")),
            (None, _) => Err(format!(
                "none of its DNS names ({}) is that of a node, an operator or a client, such as n1.<cluster>{ENDING}",
                names.join(", ")
            )),
        }
    }

    /// Whether a certificate of this subject may have that name: its own, any that is not quorate's, and the name of any node if it
    /// is one.
    pub(crate) fn may_have(&self, name: &str) -> bool {
        let is_node = matches!(self.role, CallerRole::Node(_));
        let ours = is_quorates(name);
        !ours || name == self.dns_name() || is_node && name == Self::any_node(&self.cluster)
    }

    /// `None` for a name that is not a subject's.
    fn named(name: &str) -> Option<Self> {
        let labels: Vec<&str> = name.strip_suffix(ENDING)?.split('.').collect();
        if !labels.iter().all(|label| is_label(label)) {
            return None;
        }
        let (role, cluster) = match labels.as_slice() {
            [node, cluster] => (CallerRole::Node(number(node)?), cluster),
            [name, "operators", cluster] => (CallerRole::Operator((*name).into()), cluster),
            [name, "clients", cluster] => (CallerRole::Client((*name).into()), cluster),
            _ => return None,
        };
        Some(Self { cluster: (*cluster).into(), role })
    }
}

/// Whether a name is one of quorate's, however it is written.
fn is_quorates(name: &str) -> bool {
    name.trim_end_matches('.').to_ascii_lowercase().ends_with(ENDING)
}

/// Whether this can be one label of a DNS name, as this crate writes it: in small letters.
pub(crate) fn is_label(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(known) && !text.starts_with('-') && !text.ends_with('-')
}

/// The node in a label as this crate writes it: one way only, so that two labels never name the same node.
fn number(label: &str) -> Option<NodeId> {
    let node = NodeId::new(label.strip_prefix('n')?.parse().ok()?);
    (node.to_string() == label).then_some(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn among(names: &[&str]) -> Result<Subject, String> {
        Subject::among(names.iter().copied())
    }

    #[test]
    fn a_subject_is_read_from_the_name_that_it_writes() {
        let roles = [
            CallerRole::Node(NodeId::new(3)),
            CallerRole::Operator("alice".into()),
            CallerRole::Client("billing".into()),
        ];
        for role in roles {
            let subject = Subject { cluster: "blue".into(), role };
            let name = subject.dns_name();
            assert_eq!(among(&["db3.example.net", &name]), Ok(subject));
        }
    }

    #[test]
    fn a_certificate_with_no_subject_or_with_two_names_nobody() {
        for names in [
            &[][..],
            &["n1.blue.example.net"],
            &["blue.quorate.internal"],
            &["n01.blue.quorate.internal"],
            &["n+1.blue.quorate.internal"],
            &["1.blue.quorate.internal"],
            &["x.n1.blue.quorate.internal"],
            &["N1.blue.quorate.internal"],
            &["alice.admins.blue.quorate.internal"],
            &["Alice.operators.blue.quorate.internal"],
            &["-.clients.blue.quorate.internal"],
            &["*.clients.blue.quorate.internal"],
            &[".clients.blue.quorate.internal"],
        ] {
            assert!(among(names).unwrap_err().contains("none of its DNS names"), "{names:?}");
        }
        for other in [
            "N2.blue.quorate.internal",
            "n2.blue.quorate.internal.",
            "amber.quorate.internal",
            "x.y.z.quorate.internal",
        ] {
            let mixed = among(&["n1.blue.quorate.internal", other]).unwrap_err();
            assert!(mixed.contains("may not have the name"), "{mixed}");
        }
        among(&["n1.blue.quorate.internal", "blue.quorate.internal"]).unwrap();
        among(&["alice.operators.blue.quorate.internal", "blue.quorate.internal"]).unwrap_err();
        let two = among(&["n1.blue.quorate.internal", "alice.operators.blue.quorate.internal"]).unwrap_err();
        assert_eq!(
            two,
            "it names node n1 of cluster `blue` and operator `alice` of cluster `blue`; a certificate names one"
        );
    }
}
