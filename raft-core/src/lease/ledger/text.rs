//! How the values of a note are spelt in a line: exact, and without a blank.
//!
//! ```text
//!   a time        nanoseconds                          left=700000000
//!   a reading     BOOTTIME/MONOTONIC_RAW               from=1203000/1199500
//!   nothing       -                                    order=-   protecting=-
//!   a text        %xx for blanks and , = % and a first -;  % alone is the empty text
//!   a list        joined by commas                     protecting=db,mail%20queue
//! ```

use std::str::FromStr;
use std::time::Duration;

use quorate_membership::lease::Reading;
use quorate_membership::{Activation, Drift, FenceId, Identity, Nonce, Revision, Stop};

/// Something that stands behind `key=` in a line. What is spelt is read back as it was.
pub(super) trait Value: Sized {
    /// Its spelling.
    fn spell(&self) -> String;

    /// What is spelt so, if anything is.
    fn read(text: &str) -> Option<Self>;
}

macro_rules! as_displayed {
    ($($type:ty)*) => {
        $(impl Value for $type {
            fn spell(&self) -> String {
                self.to_string()
            }

            fn read(text: &str) -> Option<Self> {
                Self::from_str(text).ok()
            }
        })*
    };
}

as_displayed!(u64 bool Identity Revision Activation FenceId Nonce);

impl Value for Duration {
    fn spell(&self) -> String {
        self.as_nanos().to_string()
    }

    fn read(text: &str) -> Option<Self> {
        let nanos: u128 = text.parse().ok()?;
        let (seconds, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
        Some(Self::new(u64::try_from(seconds).ok()?, u32::try_from(rest).ok()?))
    }
}

impl Value for Reading {
    fn spell(&self) -> String {
        format!("{}/{}", self.boottime().spell(), self.raw().spell())
    }

    fn read(text: &str) -> Option<Self> {
        let (boottime, raw) = text.split_once('/')?;
        Some(Self::new(Duration::read(boottime)?, Duration::read(raw)?))
    }
}

impl Value for Drift {
    fn spell(&self) -> String {
        self.get().to_string()
    }

    fn read(text: &str) -> Option<Self> {
        text.parse().ok().map(Self::ppm)
    }
}

impl Value for Stop {
    fn spell(&self) -> String {
        match self {
            Self::Unbounded => "unbounded".into(),
            Self::Tokens => "tokens".into(),
            Self::Watchdog { timeout, reset } => format!("watchdog:{}:{}", timeout.spell(), reset.spell()),
            Self::Deadman { lateness } => format!("deadman:{}", lateness.spell()),
            Self::Own { bound } => format!("own:{}", bound.spell()),
        }
    }

    fn read(text: &str) -> Option<Self> {
        let (kind, times) = text.split_once(':').unwrap_or((text, ""));
        match kind {
            "unbounded" if times.is_empty() => Some(Self::Unbounded),
            "tokens" if times.is_empty() => Some(Self::Tokens),
            "watchdog" => {
                let (timeout, reset) = times.split_once(':')?;
                Some(Self::Watchdog { timeout: Duration::read(timeout)?, reset: Duration::read(reset)? })
            }
            "deadman" => Some(Self::Deadman { lateness: Duration::read(times)? }),
            "own" => Some(Self::Own { bound: Duration::read(times)? }),
            _ => None,
        }
    }
}

impl Value for String {
    fn spell(&self) -> String {
        if self.is_empty() {
            return "%".into();
        }
        let mut spelt = Self::with_capacity(self.len());
        for (at, c) in self.char_indices() {
            let special = matches!(c, '%' | ',' | '=') || (c == '-' && at == 0);
            if special || c.is_whitespace() || c.is_control() {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    spelt.push_str(&format!("%{byte:02x}"));
                }
            } else {
                spelt.push(c);
            }
        }
        spelt
    }

    fn read(text: &str) -> Option<Self> {
        if text == "%" {
            return Some(Self::new());
        }
        let mut pieces = text.split('%');
        let mut bytes = pieces.next()?.as_bytes().to_vec();
        for piece in pieces {
            bytes.push(u8::from_str_radix(piece.get(..2)?, 16).ok()?);
            bytes.extend_from_slice(piece.get(2..)?.as_bytes());
        }
        Self::from_utf8(bytes).ok().filter(|read| !read.is_empty())
    }
}

/// The spelling of nothing: no text is spelt so.
const NOTHING: &str = "-";

impl Value for Vec<String> {
    fn spell(&self) -> String {
        match self.as_slice() {
            [] => NOTHING.into(),
            some => some.iter().map(Value::spell).collect::<Vec<_>>().join(","),
        }
    }

    fn read(text: &str) -> Option<Self> {
        match text {
            NOTHING => Some(vec![]),
            some => some.split(',').map(String::read).collect(),
        }
    }
}

impl<T: Value> Value for Option<T> {
    fn spell(&self) -> String {
        self.as_ref().map_or_else(|| NOTHING.into(), Value::spell)
    }

    fn read(text: &str) -> Option<Self> {
        match text {
            NOTHING => Some(None),
            some => T::read(some).map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_one_word_and_comes_back() {
        let texts =
            ["", "-", "-a", "a-b", "mail queue", "a,b=c%20", "tab\tnew\nline", "é\u{a0}\u{2028}日本", "%", "%%"];
        for text in texts {
            let spelt = text.to_string().spell();
            assert!(!spelt.chars().any(char::is_whitespace) && spelt != NOTHING, "`{spelt}`");
            assert_eq!(String::read(&spelt).as_deref(), Some(text), "`{spelt}`");
        }
        let lists: [&[&str]; 6] = [&[], &[""], &["", ""], &["-"], &["a", "b c"], &[",", "="]];
        for list in lists {
            let list: Vec<String> = list.iter().map(ToString::to_string).collect();
            assert_eq!(Vec::<String>::read(&list.spell()), Some(list));
        }
    }

    #[test]
    fn what_is_no_text_is_refused() {
        for bad in ["%2", "%zz", "a%", "%é0", "%ff"] {
            assert_eq!(String::read(bad), None, "`{bad}`");
        }
    }
}
