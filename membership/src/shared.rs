//! A part of the state that changes rarely: clones of the state share it, and a change copies it first.
//!
//! ```text
//!   state ──▶ Shared ◀── the picture that was published       a change of `state` copies what the picture shares
//! ```
//!
//! A picture of the state shares everything with it. Configuration and fence orders hardly ever change between two pictures, and what
//! a map has of a member or a record is copied only when that member or record changes.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A value behind a reference that is counted. On disks and on the wire it is the value.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Shared<T>(Arc<T>);

impl<T> From<T> for Shared<T> {
    fn from(value: T) -> Self {
        Self(Arc::new(value))
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Clone> DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut T {
        Arc::make_mut(&mut self.0)
    }
}

impl<T: Serialize> Serialize for Shared<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        T::serialize(self, serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Shared<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_copies_what_another_clone_shares_and_nothing_else() {
        let mut own = Shared::from(vec![1, 2]);
        let picture = own.clone();
        assert!(std::ptr::eq(&*own, &*picture));
        own.push(3);
        assert_eq!((&*picture, &*own), (&vec![1, 2], &vec![1, 2, 3]));
        let before: *const Vec<i32> = &raw const *own;
        own.push(4);
        assert!(std::ptr::eq(before, &raw const *own), "nobody shares it");
    }
}
