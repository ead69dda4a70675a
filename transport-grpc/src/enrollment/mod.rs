//! How a node gets its certificates, where the cluster has an authority of its own.
//!
//! ```text
//!   operator ── invite n4 ──▶ any node ──▶ log: a session, and bound to it the record quorate/invitations/n4 (invite.rs)
//!                                  └──▶ join token, which an operator carries to the machine
//!   machine ── Enroll(request, signed) ──▶ a voter: open? its secret? unused? ──▶ log: used by this key ──▶ certificate (grant.rs)
//!   member  ── Certify(request), ShareAuthority ──▶ a voter                                          (upkeep.rs asks, in time)
//! ```
//!
//! An invitation is a record like any other, so the log tells when it was made and when it was used. It ends when its session
//! does, and the leader ends that on its own clock, like every session. Once it is used its record stays: the number is that machine's.
//! The keys of such records are reserved: the service Store
//! refuses to write them.

mod ask;
mod grant;
mod invite;
mod upkeep;

use prost::Message;
use quorate_membership::{Key, NodeId, Record, TextError};

pub use self::ask::{EnrollError, enroll};
pub(crate) use self::grant::Grants;
pub use self::invite::{Invite, InviteError, invite};
pub use self::upkeep::keep_certificates;
use crate::pb;

/// What the keys of records begin with that are quorate's own.
pub(crate) const RESERVED: &str = "quorate/";

/// The largest request for a certificate, in bytes.
const REQUEST_LIMIT: usize = 4096;

/// The key of the record of an invitation.
fn key_of(node: NodeId) -> Result<Key, TextError> {
    Key::new(format!("{RESERVED}invitations/{node}"))
}

/// The invitation in a record.
fn read(record: &Record) -> Option<pb::Invitation> {
    pb::Invitation::decode(record.value.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use quorate_membership::{Revision, Value};

    use super::*;

    #[test]
    fn an_invitation_is_kept_under_the_number_of_its_node_and_noise_is_none() {
        assert_eq!(key_of(NodeId::new(4)).unwrap().as_str(), "quorate/invitations/n4");
        let at = Revision::new(7);
        let record = |value: Vec<u8>| Record { value: Value::from(value), version: at, created: at, bound: None };
        let kept = pb::Invitation { public_key: vec![1; 32].into(), used_by_sha256: None, session: 7 };
        assert_eq!(read(&record(kept.encode_to_vec())), Some(kept));
        assert_eq!(read(&record(vec![0xff; 40])), None);
        assert_eq!(read(&record(b"text".to_vec())), None);
    }
}
