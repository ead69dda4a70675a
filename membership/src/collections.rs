//! How persistent maps and vectors are read back: with no more memory than their entries take that are really there.
//!
//! imbl asks for as much memory as the bytes announce, before it has read a single entry. A snapshot that says it has 10^15 members then
//! ends the process: a failed allocation is no error that could be returned. So each such field names a function of this file
//! (`#[serde(deserialize_with = …)]`). It reads a collection of `std` first: there serde believes what is announced up to a bound only.

use std::collections::BTreeMap;

use imbl::{OrdMap, Vector};
use serde::{Deserialize, Deserializer};

/// Reads a map.
pub(crate) fn map<'de, D, K, V>(deserializer: D) -> Result<OrdMap<K, V>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de> + Ord + Clone,
    V: Deserialize<'de> + Clone,
{
    BTreeMap::deserialize(deserializer).map(OrdMap::from)
}

/// Reads a vector.
pub(crate) fn vector<'de, D, T>(deserializer: D) -> Result<Vector<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Clone,
{
    Vec::deserialize(deserializer).map(Vector::from)
}

#[cfg(test)]
mod tests {
    use crate::codec::{self, CodecError};
    use crate::{ClusterState, Command};

    /// The envelope of a state, around other bytes.
    fn enveloped(payload: &[u8]) -> Vec<u8> {
        let mut bytes = codec::encode(&ClusterState::new()).unwrap();
        bytes.truncate(16);
        bytes[8..12].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
        let sum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), payload);
        bytes[12..16].copy_from_slice(&sum.to_le_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    /// Each eight bytes of an empty state may be the number of entries of something: with each of them huge, it is an error.
    #[test]
    fn whatever_number_of_entries_is_announced_the_memory_is_that_of_those_that_are_there() {
        let empty = codec::encode(&ClusterState::new()).unwrap();
        let payload = &empty[16..];
        let mut refused = 0;
        for at in 0..payload.len().saturating_sub(7) {
            for announced in [u64::MAX, 1 << 50, 1 << 30] {
                let mut changed = payload.to_vec();
                changed[at..at + 8].copy_from_slice(&announced.to_le_bytes());
                match codec::decode::<ClusterState>(&enveloped(&changed)) {
                    Err(CodecError::Payload(_)) => refused += 1,
                    Err(other) => panic!("at {at}: {other}"),
                    // It was a number, and not one of entries.
                    Ok(_) => {}
                }
            }
        }
        assert!(refused > 20, "{refused}");
        assert!(codec::decode::<ClusterState>(&enveloped(payload)).is_ok());
        assert!(codec::decode::<Command>(&enveloped(payload)).is_err());
    }
}
