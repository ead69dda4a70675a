//! How the former process of a node ended, as far as its ledger shows: why was I reset?
//!
//! ```text
//!                             the last note in the ledger
//!   nothing at all            None
//!   closed                    Closed
//!   notice or lapsed, and     SelfFenced: the mechanism acted, and this is why
//!     work left
//!   anything else, and work   Silent: stopped, blocked or killed from outside; the mechanism acted at the latest
//!     left                    when its lease had run out
//!   anything else             Unarmed: nothing was protected
//! ```

use std::fmt;
use std::time::Duration;

use quorate_membership::{BootId, Identity, Revision};

use super::note::{Entry, Note};

/// A time within a boot of the machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Timestamp {
    /// The boot of the machine.
    pub boot: BootId,
    /// What CLOCK_BOOTTIME showed in that boot.
    pub at: Duration,
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s after boot {}", self.at.as_secs_f64(), self.boot)
    }
}

/// Why a lease was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Loss {
    /// No grant came in time, or the stop mechanism did not work. The cluster had not ended this life.
    Ungranted,
    /// The log showed that the life had ended or was being fenced.
    Condemned,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ungranted => "its lease was not renewed in time",
            Self::Condemned => "the cluster had ended it",
        })
    }
}

/// How the former process of a node ended. It rests on the notes that came to the disk; see [the module](super).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LastEnd {
    /// No former process has left a note.
    #[default]
    None,
    /// It was shut down.
    Closed {
        /// When it was.
        at: Timestamp,
    },
    /// Its lease ended with work protected: the mechanism acted.
    SelfFenced {
        /// When the end of the lease was noted, or the notice before it if nothing could be noted any more.
        at: Timestamp,
        /// The life.
        who: Identity,
        /// The work that had not stopped.
        protecting: Vec<String>,
        /// Why its lease was lost.
        reason: Loss,
    },
    /// It wrote no last note while it protected something: it was stopped, blocked, or killed from outside. If it had not
    /// ended by itself, the mechanism ended it at the end of its lease.
    Silent {
        /// Its last note.
        last: Timestamp,
        /// The life.
        who: Identity,
        /// The work that it protected.
        protecting: Vec<String>,
        /// Until when its lease ran, on CLOCK_BOOTTIME of the same boot; `None` if that is not on record.
        until: Option<Duration>,
    },
    /// It wrote no last note, and protected nothing.
    Unarmed {
        /// Its last note.
        last: Timestamp,
    },
}

impl LastEnd {
    /// Sums up the notes of one process, oldest first.
    pub fn of(entries: &[Entry]) -> Self {
        let Some(last) = entries.last() else { return Self::None };
        let timestamp = |entry: &Entry| Timestamp { boot: entry.boot, at: entry.at };
        let mut works: Vec<(Identity, &str, Revision)> = vec![];
        let (mut told, mut closed, mut lease, mut from) = (None, None, None, None);
        let mut reason = Loss::Ungranted;
        for entry in entries {
            match &entry.note {
                Note::Registered { lease: length, .. } => lease = Some(*length),
                Note::Held { from: sent, .. } => (from, told) = (Some(sent.boottime()), None),
                Note::Protects { who, what, token } => works.push((*who, what, *token)),
                Note::Stopped { who, what, token } => {
                    if let Some(at) = works.iter().position(|work| *work == (*who, what.as_str(), *token)) {
                        works.remove(at);
                    }
                }
                Note::Notice { condemned, .. } => {
                    reason = if *condemned { Loss::Condemned } else { Loss::Ungranted };
                    told = Some(timestamp(entry));
                }
                Note::Lapsed { .. } => told = Some(timestamp(entry)),
                Note::Closed => closed = Some(timestamp(entry)),
                _ => {}
            }
        }
        let protecting: Vec<String> = works.iter().map(|(_, what, _)| (*what).to_string()).collect();
        match (works.first(), told, closed) {
            (Some((who, ..)), Some(at), _) => Self::SelfFenced { at, who: *who, protecting, reason },
            (_, _, Some(at)) => Self::Closed { at },
            (Some((who, ..)), None, None) => {
                let until = from.zip(lease).map(|(from, lease): (Duration, Duration)| from.saturating_add(lease));
                Self::Silent { last: timestamp(last), who: *who, protecting, until }
            }
            (None, _, None) => Self::Unarmed { last: timestamp(last) },
        }
    }
}

impl fmt::Display for LastEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("no process ran here before"),
            Self::Closed { at } => write!(f, "it was shut down, {at}"),
            Self::SelfFenced { at, who, protecting, reason } => {
                let left = protecting.join(", ");
                write!(f, "{who} lapsed with {left} protected, and its stop mechanism acted: {reason}; noted {at}")
            }
            Self::Silent { last, who, protecting, until } => {
                let left = protecting.join(", ");
                write!(
                    f,
                    "{who} ended without a word while {left} was protected (stopped, blocked, or killed from outside)"
                )?;
                match until {
                    Some(until) => {
                        write!(f, ", and its lease ran until {:.3} s; last noted {last}", until.as_secs_f64())
                    }
                    None => write!(f, ", and held no lease on record; last noted {last}"),
                }
            }
            Self::Unarmed { last } => {
                write!(f, "it ended without a word, and nothing was protected; last noted {last}")
            }
        }
    }
}
