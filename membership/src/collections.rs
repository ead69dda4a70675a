//! How persistent maps and vectors are read back: with no more memory than their entries take that are really there.
//!
//! imbl asks for as much memory as the bytes announce, before it has read a single entry. A snapshot that says it has 10^15 members then
//! ends the process: a failed allocation is no error that could be returned. So each such field names a function of this file
//! (`#[serde(deserialize_with = …)]`). What is announced is believed up to a bound, as serde does for the collections of `std`.

use std::fmt;
use std::marker::PhantomData;

use imbl::{OrdMap, Vector};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Up to how many entries the memory is taken at once.
const BELIEVED: usize = 1024;

fn believed(announced: Option<usize>) -> usize {
    announced.unwrap_or_default().min(BELIEVED)
}

struct Entries<K, V>(PhantomData<(K, V)>);

impl<'de, K: Deserialize<'de> + Ord + Clone, V: Deserialize<'de> + Clone> Visitor<'de> for Entries<K, V> {
    type Value = OrdMap<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut read = Vec::with_capacity(believed(access.size_hint()));
        while let Some(entry) = access.next_entry()? {
            read.push(entry);
        }
        Ok(OrdMap::from(read))
    }
}

/// Reads a map.
pub(crate) fn map<'de, D, K, V>(deserializer: D) -> Result<OrdMap<K, V>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de> + Ord + Clone,
    V: Deserialize<'de> + Clone,
{
    deserializer.deserialize_map(Entries(PhantomData))
}

struct Elements<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + Clone> Visitor<'de> for Elements<T> {
    type Value = Vector<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut read = Vec::with_capacity(believed(access.size_hint()));
        while let Some(element) = access.next_element()? {
            read.push(element);
        }
        Ok(Vector::from(read))
    }
}

/// Reads a vector.
pub(crate) fn vector<'de, D, T>(deserializer: D) -> Result<Vector<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Clone,
{
    deserializer.deserialize_seq(Elements(PhantomData))
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
