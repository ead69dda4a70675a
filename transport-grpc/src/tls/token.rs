//! The join token: what a machine needs to ask for its first certificate, once.
//!
//! ```text
//!   quorate-join-1 _ cluster _ n4 _ voter _ SHA-256 of the authority _ secret _ 10.0.0.1:7400,10.0.0.2:7400 _ checksum
//!                    └───────────────────┘   whom it may believe       once     whom it asks
//!                     what it will be
//! ```
//!
//! It is one word, so that it can be pasted and passed in a variable. Who has it can become that node, once and until it expires.

use std::fmt;
use std::str::FromStr;

use quorate_membership::{Address, NodeId, Role};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use crate::tls::subject::is_label;

/// What every token begins with. The number is that of its format.
const BEGINNING: &str = "quorate-join-1";

/// What separates its parts. No part but the addresses may have it, and they are the last but the checksum.
const BETWEEN: char = '_';

/// The longest token: eight addresses of the longest kind.
const LIMIT: usize = 4096;

/// A token with which one machine gets the certificate of one node, once. Printed by `Display` as a whole, which is a secret until it
/// was used; `Debug` leaves the secret out.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    pub(crate) cluster: String,
    pub(crate) node: NodeId,
    pub(crate) role: Role,
    /// The SHA-256 of the certificate of the cluster's authority.
    pub(crate) authority: [u8; 32],
    pub(crate) secret: [u8; 32],
    /// Members that keep the authority, as far as was known.
    pub(crate) seeds: Vec<Address>,
}

/// A text that is not a join token. Nothing was asked of anybody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a join token: {0}; copy the whole of it, or make a new one")]
pub struct TokenError(String);

impl JoinToken {
    /// The node that its holder may become.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The role in which that node joins.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The public key that belongs to the secret; `None` for a secret that is none, which the system does not give.
    pub(crate) fn public_key(&self) -> Option<Vec<u8>> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&self.secret).ok()?;
        Some(pair.public_key().as_ref().to_vec())
    }

    /// Signs a request for a certificate with the secret.
    pub(crate) fn sign(&self, request: &[u8]) -> Option<Vec<u8>> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&self.secret).ok()?;
        Some(pair.sign(&signed(&self.cluster, self.node, request)).as_ref().to_vec())
    }

    /// The addresses of members, one of which is enough.
    pub fn seeds(&self) -> &[Address] {
        &self.seeds
    }

    fn without_checksum(&self) -> String {
        let Self { cluster, node, role, authority, secret, seeds } = self;
        let seeds: Vec<&str> = seeds.iter().map(Address::as_str).collect();
        let (authority, secret, seeds) = (hex(authority), hex(secret), seeds.join(","));
        [BEGINNING, cluster, &node.to_string(), named(*role), &authority, &secret, &seeds].join(&BETWEEN.to_string())
    }
}

/// Whether this request was signed with the secret that belongs to this public key.
pub(crate) fn is_signed(public_key: &[u8], cluster: &str, node: NodeId, request: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, public_key).verify(&signed(cluster, node, request), signature).is_ok()
}

/// What is signed, as `cluster.proto` says.
fn signed(cluster: &str, node: NodeId, request: &[u8]) -> Vec<u8> {
    [b"quorate enroll\0", cluster.as_bytes(), b"\0", &node.get().to_be_bytes(), request].concat()
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, node, role, seeds, .. } = self;
        let mut shown = f.debug_struct("JoinToken");
        shown.field("cluster", cluster).field("node", node).field("role", role).field("seeds", seeds);
        shown.finish_non_exhaustive()
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.without_checksum();
        write!(f, "{text}{BETWEEN}{:08x}", crc32c::crc32c(text.as_bytes()))
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let wrong = |why: &str| TokenError(why.into());
        let text = text.trim();
        if text.len() > LIMIT {
            return Err(TokenError(format!("it has {} bytes, more than the limit of {LIMIT}", text.len())));
        }
        if !text.starts_with(BEGINNING) {
            return Err(TokenError(format!("it does not begin with `{BEGINNING}`")));
        }
        let (rest, checksum) = text.rsplit_once(BETWEEN).ok_or_else(|| wrong("it is cut short"))?;
        if u32::from_str_radix(checksum, 16).ok() != Some(crc32c::crc32c(rest.as_bytes())) {
            return Err(wrong("its checksum is wrong, so it is cut short or mistyped"));
        }
        let parts: Vec<&str> = rest.splitn(7, BETWEEN).collect();
        let [BEGINNING, cluster, node, role, authority, secret, seeds] = parts.as_slice() else {
            return Err(wrong("it has too few parts"));
        };
        let seeds = seeds.split(',').map(Address::new).collect::<Result<Vec<_>, _>>();
        let token = Self {
            cluster: Some(*cluster).filter(|label| is_label(label)).ok_or_else(|| wrong("its cluster"))?.into(),
            node: node.parse().map_err(|_| wrong("its node"))?,
            role: role_named(role).ok_or_else(|| wrong("its role"))?,
            authority: unhex(authority).ok_or_else(|| wrong("its hash of the authority"))?,
            secret: unhex(secret).ok_or_else(|| wrong("its secret"))?,
            seeds: seeds.map_err(|error| TokenError(format!("an address: {error}")))?,
        };
        // One way of writing only.
        if token.to_string() == text { Ok(token) } else { Err(wrong("it is not written as a token is")) }
    }
}

fn named(role: Role) -> &'static str {
    match role {
        Role::Voter => "voter",
        Role::Learner => "learner",
        Role::Witness => "witness",
    }
}

fn role_named(text: &str) -> Option<Role> {
    [Role::Voter, Role::Learner, Role::Witness].into_iter().find(|role| named(*role) == text)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    (text.len() == 64).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(node: u64, role: Role) -> JoinToken {
        let seeds = ["10.0.0.1:7400", "[fd00::1]:7400", "db_2.example.net:7400"];
        JoinToken {
            cluster: "blue".into(),
            node: NodeId::new(node),
            role,
            authority: [0xab; 32],
            secret: [0x5c; 32],
            seeds: seeds.map(|seed| Address::new(seed).unwrap()).into(),
        }
    }

    #[test]
    fn a_token_is_read_as_it_was_written_and_shows_its_secret_only_when_it_is_meant_to() {
        for role in [Role::Voter, Role::Learner, Role::Witness] {
            let written = token(4, role).to_string();
            assert_eq!(written.parse::<JoinToken>().unwrap(), token(4, role));
            assert_eq!(format!(" {written}\n").parse::<JoinToken>().unwrap(), token(4, role));
        }
        let shown = format!("{:?}", token(4, Role::Voter));
        assert!(!shown.contains("5c5c") && !shown.contains("92, 92"), "{shown}");
    }

    #[test]
    fn a_signature_counts_for_one_cluster_one_node_and_one_request() {
        let token = token(4, Role::Voter);
        let (key, signature) = (token.public_key().unwrap(), token.sign(b"request").unwrap());
        let counts = |cluster, node, request: &[u8], signature: &[u8]| {
            is_signed(&key, cluster, NodeId::new(node), request, signature)
        };
        assert!(counts("blue", 4, b"request", &signature));
        assert!(!counts("amber", 4, b"request", &signature));
        assert!(!counts("blue", 5, b"request", &signature));
        assert!(!counts("blue", 4, b"another", &signature));
        assert!(!counts("blue", 4, b"request", &signature[1..]));
        assert!(!is_signed(&[], "blue", NodeId::new(4), b"request", &signature));
    }

    #[test]
    fn what_is_cut_short_or_mistyped_says_so() {
        let written = token(4, Role::Voter).to_string();
        for end in 0..written.len() {
            let error = written[..end].parse::<JoinToken>().unwrap_err().to_string();
            assert!(error.starts_with("not a join token: "), "{error}");
        }
        for at in 0..written.len() {
            let mut bytes = written.clone().into_bytes();
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(changed == written || changed.parse::<JoinToken>().is_err(), "{changed}");
        }
        let long = "quorate-join-1".repeat(1000).parse::<JoinToken>().unwrap_err().to_string();
        assert!(long.contains("more than the limit"), "{long}");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_what_is_read_is_written_the_same(text in "\\PC*", parts in "[a-z0-9_.:,-]{0,80}") {
            for text in [text, parts.clone(), format!("{BEGINNING}_{parts}_{:08x}", crc32c::crc32c(format!("{BEGINNING}_{parts}").as_bytes()))] {
                if let Ok(read) = text.parse::<JoinToken>() {
                    prop_assert_eq!(read.to_string(), text.trim());
                }
            }
        }
    }
}
