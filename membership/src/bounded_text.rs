//! Texts from outside (reasons, evidence, addresses, names, keys): checked and bounded, so that no text can fill the
//! log.
//!
//! The macro [`text`] makes a type with a bound. A clone allocates nothing: short texts lie in the value itself, where a map finds
//! them without following a pointer, and long ones are shared. Names and keys are copied with every event, and with every part
//! of a map that a write copies. Each such type stands beside what it is for: `Address` in `member.rs`,
//! `Name` in `store/lock.rs`, `Key` in `store/record.rs`, `Evidence` in `proof.rs`.

use serde::{Deserialize, Serialize};

/// A text that is blank or longer than its bound. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum TextError {
    /// The text is empty, or consists of white space only.
    #[error("{what} must not be empty or blank")]
    Empty {
        /// The text, in words: "a reason", "an address".
        what: String,
    },
    /// The text is longer than its bound.
    #[error("{what} has {length} bytes, more than the limit of {limit}; shorten it")]
    TooLong {
        /// The text, in words: "a reason", "an address".
        what: String,
        /// Its length in bytes.
        length: u64,
        /// The bound in bytes.
        limit: u64,
    },
}

/// So that a text which was checked before can be given where a text is converted.
impl From<std::convert::Infallible> for TextError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $what:literal, $limit:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub struct $name(smol_str::SmolStr);

        impl $name {
            /// The longest text allowed, in bytes.
            pub const LIMIT: usize = $limit;

            /// Takes a text that is not blank and has at most [`Self::LIMIT`] bytes.
            ///
            /// # Errors
            /// [`TextError`](crate::TextError) if it is blank or too long.
            pub fn new(text: impl Into<String>) -> Result<Self, $crate::bounded_text::TextError> {
                let made = Self(text.into().into());
                made.check().map(|()| made)
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Checks a text that was deserialized, which the type alone does not do.
            pub(crate) fn check(&self) -> Result<(), $crate::bounded_text::TextError> {
                if self.0.trim().is_empty() {
                    return Err($crate::bounded_text::TextError::Empty { what: $what.into() });
                }
                if self.0.len() > Self::LIMIT {
                    let (length, limit) = (self.0.len() as u64, Self::LIMIT as u64);
                    return Err($crate::bounded_text::TextError::TooLong { what: $what.into(), length, limit });
                }
                Ok(())
            }
        }

        impl TryFrom<&str> for $name {
            type Error = $crate::bounded_text::TextError;

            fn try_from(text: &str) -> Result<Self, Self::Error> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::bounded_text::TextError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::new(text)
            }
        }

        impl TryFrom<&String> for $name {
            type Error = $crate::bounded_text::TextError;

            fn try_from(text: &String) -> Result<Self, Self::Error> {
                Self::new(text)
            }
        }

        impl TryFrom<&$name> for $name {
            type Error = $crate::bounded_text::TextError;

            fn try_from(text: &$name) -> Result<Self, Self::Error> {
                Ok(text.clone())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::bounded_text::TextError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::new(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

pub(crate) use text;

text!(
    /// Why something was done, who asked for it, or how it failed: for operators. At most 1 024 bytes.
    Reason, "a reason", 1024
);
impl Reason {
    /// Makes a reason of any text: cut at the bound, and "unspecified" if it is blank. For errors of a fencer, which
    /// must be recorded however they are worded.
    pub fn clipped(text: &str) -> Self {
        let mut end = text.len().min(Self::LIMIT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Self::new(&text[..end]).unwrap_or_else(|_| Self("unspecified".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::Address;
    use crate::proof::Evidence;

    #[test]
    fn a_text_says_something_and_keeps_its_bound() {
        assert!(matches!(Evidence::new("  "), Err(TextError::Empty { .. })));
        assert!(matches!(Address::new("a".repeat(256)), Err(TextError::TooLong { length: 256, limit: 255, .. })));
        assert!(Reason::new("é".repeat(512)).is_ok());
        assert_eq!(Reason::clipped(&"é".repeat(600)).as_str().len(), 1024);
        assert_eq!(Reason::clipped("").as_str(), "unspecified");
    }
}
