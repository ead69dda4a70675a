//! What clients did and what they were told, as lines that outlive their process.
//!
//! ```text
//!   > 20003000017 81234567890 n2#3/c1 cas k2 r41 20003000017      written before the call: clock, client, call
//!   < 20003000017 81239999999 done r44                            written after it; a kill -9 leaves it out
//! ```
//!
//! Times are nanoseconds of one clock of the machine, comparable between its processes. Every write stores its own number,
//! so that a value names the write that it came from.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use quorate::{ProposeError, Revision, state::Rejection};

/// When a call returns that nobody knows the end of.
pub(crate) const NEVER: u64 = u64::MAX;

/// Why nobody knows it where its process was killed in the middle.
pub(crate) const CUT_OFF: &str = "its process ended";

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    Put {
        key: String,
        value: u64,
    },
    /// Stores if the record has that version; `None`: if there is none.
    Cas {
        key: String,
        expected: Option<u64>,
        value: u64,
    },
    Delete {
        key: String,
    },
    /// A linearizable read.
    Get {
        key: String,
    },
    /// Stores, only while the lock is held under that token.
    Guarded {
        key: String,
        value: u64,
        name: String,
        token: u64,
    },
    Lock {
        name: String,
    },
    /// Did something that only the holder may, between two looks at its guard. Its times lie *between* the looks.
    Act {
        name: String,
        token: u64,
    },
    Release {
        name: String,
        token: u64,
    },
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CallResult {
    /// A write took effect, at that revision.
    Done(u64),
    /// A compare-and-set found another version than it expected.
    Conflict(Option<u64>),
    /// A read: version and value, and the revision that it names as its own.
    Read { at: u64, record: Option<(u64, u64)> },
    /// The lock, under that token.
    Granted(u64),
    /// It was not free: held under that token.
    Held(u64),
    /// A release is committed; or the holder might still act after its effect.
    Fine,
    /// Nothing changed, the library says.
    Failed(String),
    /// It may have taken effect, may do so yet, or never.
    Unknown(String),
}

/// One call of one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Op {
    pub(crate) client: String,
    pub(crate) call: Call,
    pub(crate) invoked: u64,
    /// [`NEVER`] when its end is unknown.
    pub(crate) returned: u64,
    pub(crate) outcome: CallResult,
}

impl Op {
    /// The record that it is about.
    pub(crate) fn key(&self) -> Option<&str> {
        match &self.call {
            Call::Put { key, .. }
            | Call::Cas { key, .. }
            | Call::Delete { key }
            | Call::Get { key }
            | Call::Guarded { key, .. } => Some(key),
            Call::Lock { .. } | Call::Act { .. } | Call::Release { .. } => None,
        }
    }

    /// The lock that it is about.
    pub(crate) fn lock(&self) -> Option<&str> {
        match &self.call {
            Call::Lock { name } | Call::Act { name, .. } | Call::Release { name, .. } => Some(name),
            Call::Put { .. } | Call::Cas { .. } | Call::Delete { .. } | Call::Get { .. } | Call::Guarded { .. } => None,
        }
    }

    /// What it stores, if it stores something.
    pub(crate) fn value(&self) -> Option<u64> {
        match self.call {
            Call::Put { value, .. } | Call::Cas { value, .. } | Call::Guarded { value, .. } => Some(value),
            Call::Delete { .. } | Call::Get { .. } | Call::Lock { .. } | Call::Act { .. } | Call::Release { .. } => {
                None
            }
        }
    }

    pub(crate) fn is_unknown(&self) -> bool {
        matches!(self.outcome, CallResult::Unknown(_))
    }

    /// Whether it says of itself that it changed nothing, and shows nothing either.
    pub(crate) fn has_failed(&self) -> bool {
        matches!(self.outcome, CallResult::Failed(_))
    }
}

fn or_none(revision: Option<u64>) -> String {
    revision.map_or("-".into(), |r| format!("r{r}"))
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { key, value } => write!(f, "put {key} {value}"),
            Self::Cas { key, expected, value } => write!(f, "cas {key} {} {value}", or_none(*expected)),
            Self::Delete { key } => write!(f, "delete {key}"),
            Self::Get { key } => write!(f, "get {key}"),
            Self::Guarded { key, value, name, token } => write!(f, "guarded {key} {value} {name} r{token}"),
            Self::Lock { name } => write!(f, "lock {name}"),
            Self::Act { name, token } => write!(f, "act {name} r{token}"),
            Self::Release { name, token } => write!(f, "release {name} r{token}"),
        }
    }
}

impl fmt::Display for CallResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(at) => write!(f, "done r{at}"),
            Self::Conflict(found) => write!(f, "conflict {}", or_none(*found)),
            Self::Read { at, record: None } => write!(f, "seen r{at} -"),
            Self::Read { at, record: Some((version, value)) } => write!(f, "seen r{at} r{version} {value}"),
            Self::Granted(token) => write!(f, "granted r{token}"),
            Self::Held(token) => write!(f, "held r{token}"),
            Self::Fine => f.write_str("fine"),
            Self::Failed(why) => write!(f, "failed {why}"),
            Self::Unknown(why) => write!(f, "unknown {why}"),
        }
    }
}

/// In milliseconds, so that a person can set two of them beside each other.
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |nanos: u64| nanos as f64 / 1e6;
        write!(f, "{:<10} {:<28} {:>13.3} ms .. ", self.client, self.call.to_string(), ms(self.invoked))?;
        match self.returned {
            NEVER => write!(f, "{:>13}   ", "never")?,
            returned => write!(f, "{:>13.3} ms", ms(returned))?,
        }
        write!(f, "  {}", self.outcome)
    }
}

fn revision(word: &str) -> Result<u64> {
    Ok(word.strip_prefix('r').context("a revision begins with r")?.parse()?)
}

fn maybe(word: &str) -> Result<Option<u64>> {
    if word == "-" { Ok(None) } else { revision(word).map(Some) }
}

impl Call {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let words: Vec<_> = text.split_ascii_whitespace().collect();
        Ok(match words[..] {
            ["put", key, value] => Self::Put { key: key.into(), value: value.parse()? },
            ["cas", key, expected, value] => {
                Self::Cas { key: key.into(), expected: maybe(expected)?, value: value.parse()? }
            }
            ["delete", key] => Self::Delete { key: key.into() },
            ["get", key] => Self::Get { key: key.into() },
            ["guarded", key, value, name, token] => {
                Self::Guarded { key: key.into(), value: value.parse()?, name: name.into(), token: revision(token)? }
            }
            ["lock", name] => Self::Lock { name: name.into() },
            ["act", name, token] => Self::Act { name: name.into(), token: revision(token)? },
            ["release", name, token] => Self::Release { name: name.into(), token: revision(token)? },
            _ => bail!("no call: {text}"),
        })
    }
}

impl CallResult {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let words: Vec<_> = rest.split_ascii_whitespace().collect();
        Ok(match (word, &words[..]) {
            ("done", [at]) => Self::Done(revision(at)?),
            ("conflict", [found]) => Self::Conflict(maybe(found)?),
            ("seen", [at, "-"]) => Self::Read { at: revision(at)?, record: None },
            ("seen", [at, version, value]) => {
                Self::Read { at: revision(at)?, record: Some((revision(version)?, value.parse()?)) }
            }
            ("granted", [token]) => Self::Granted(revision(token)?),
            ("held", [token]) => Self::Held(revision(token)?),
            ("fine", []) => Self::Fine,
            ("failed", _) => Self::Failed(rest.into()),
            ("unknown", _) => Self::Unknown(rest.into()),
            _ => bail!("no outcome: {text}"),
        })
    }
}

/// What a write was told.
impl From<Result<Revision, ProposeError>> for CallResult {
    fn from(result: Result<Revision, ProposeError>) -> Self {
        match result {
            Ok(at) => Self::Done(at.get()),
            Err(ProposeError::Rejected(Rejection::Version { found, .. })) => Self::Conflict(found.map(Revision::get)),
            Err(unknown @ ProposeError::OutcomeUnknown { .. }) => Self::Unknown(unknown.to_string()),
            // Whatever else it is, nothing changed: that is what the library says, and what is checked.
            Err(other) => Self::Failed(other.to_string()),
        }
    }
}

/// Times from the first call on: numbers that a person can compare.
pub(crate) fn from_the_first(ops: &mut [Op]) {
    let first = ops.iter().map(|op| op.invoked).min().unwrap_or_default();
    for op in ops {
        op.invoked -= first;
        op.returned = if op.returned == NEVER { NEVER } else { op.returned - first };
    }
}

/// Reads what one process after another has appended to one file. Lines that begin otherwise are not of the history.
pub(crate) fn read(text: &str, into: &mut Vec<Op>) -> Result<()> {
    let mut open = BTreeMap::new();
    for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        let (sign, rest) = line.split_once(' ').unwrap_or((line, ""));
        let read = || -> Result<Option<(u64, u64, &str)>> {
            if !matches!(sign, ">" | "<") {
                return Ok(None);
            }
            let (id, rest) = rest.split_once(' ').context("a number")?;
            let (time, rest) = rest.split_once(' ').context("a time")?;
            Ok(Some((id.parse()?, time.parse()?, rest)))
        };
        let Some((id, time, rest)) = read().with_context(|| line.to_string())? else { continue };
        if sign == ">" {
            let (client, call) = rest.split_once(' ').with_context(|| line.to_string())?;
            let outcome = CallResult::Unknown(CUT_OFF.into());
            let call = Call::parse(call)?;
            let op = Op { client: client.into(), call, invoked: time, returned: NEVER, outcome };
            ensure!(open.insert(id, into.len()).is_none(), "a number was used twice: {line}");
            into.push(op);
        } else {
            let op = open.get(&id).and_then(|at| into.get_mut(*at)).with_context(|| format!("never begun: {line}"))?;
            op.outcome = CallResult::parse(rest)?;
            op.returned = if op.is_unknown() { NEVER } else { time };
            ensure!(op.returned >= op.invoked, "the clock went backwards: {line}");
        }
    }
    Ok(())
}

#[test]
fn what_was_written_is_read_and_a_call_without_an_end_is_unknown() {
    let calls = ["put k 1", "cas k r4 2", "cas k - 3", "delete k", "get k", "guarded j 4 a r9", "lock a", "act a r9"];
    let ends = ["done r5", "conflict r5", "conflict -", "seen r9 r5 1", "seen r9 -", "granted r9", "held r9", "fine"];
    let mut text = "! n1#1 is up\n".to_string();
    for (id, (call, end)) in calls.iter().zip(ends).enumerate() {
        assert_eq!(Call::parse(call).unwrap().to_string(), *call);
        assert_eq!(CallResult::parse(end).unwrap().to_string(), end);
        text += &format!("> {id} 10 n1#1/c1 {call}\n< {id} 20 {end}\n");
    }
    text += "> 90 30 n1#1/c1 release a r9\n> 91 30 n1#1/c2 get k\n< 91 40 failed no quorum\n< 90 5";
    let mut ops = vec![];
    read(&text, &mut ops).unwrap();
    assert_eq!(ops.len(), 10);
    assert!(ops[8].is_unknown() && ops[8].returned == NEVER && ops[9].has_failed() && ops[0].returned == 20);
    assert!(read("< 7 5 fine\n", &mut ops).is_err() && read("> 7 5 n1#1/c1 dance\n", &mut ops).is_err());
}
