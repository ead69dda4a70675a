//! What happens in a simulated world, in order: oracles judge it, and the trace is made of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_membership::{ClusterState, Command, Event, Identity, Name, NodeId, Rejection, Revision};

use super::time::Time;
use crate::lease::ledger::Note;
use crate::rpc::{Ballot, Position, VoterSets};

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Killed: what it had written is in the memory of the machine, and comes to the disk.
    Killed,
    /// The machine lost power: of what was not synced, pieces are on the disk or not, as chance will have it.
    PowerCut,
}

/// What is called when a process ends.
pub(super) type Told = Box<dyn FnOnce(NodeId, End) + Send>;

/// One thing that happened on a machine. A new kind is added here, and made in `host`, `process` or `log_writer`.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "each is looked at once and let go")]
pub enum Observation {
    /// A process began.
    Began,
    /// A process ended.
    Ended {
        /// How it ended.
        how: End,
    },
    /// A note for its ledger: leases, grants, proofs, and what is protected.
    Noted(Note),
    /// The log, as opened from its disk.
    Opened {
        /// The vote.
        vote: Option<Ballot>,
        /// The last entry, or the place up to which everything was purged.
        last: Option<Position>,
        /// The end of its snapshot.
        snapshot: Option<Position>,
        /// Every entry in it.
        entries: Vec<Stored>,
    },
    /// Something was acknowledged as durable.
    Durable(Durable),
    /// It applied an entry.
    Applied {
        /// The position of the entry.
        at: Position,
        /// Its command; `None` for a blank entry.
        command: Option<Command>,
        /// The result of the command.
        answer: Result<Vec<Event>, Rejection>,
        /// The state after it.
        state: Arc<ClusterState>,
        /// The voters, if the entry changed them.
        voters: Option<VoterSets>,
    },
    /// It took its state from a snapshot of another node or of its own disk.
    Installed {
        /// The last entry that is in it.
        last: Option<Position>,
        /// The state.
        state: Arc<ClusterState>,
    },
    /// Work under a lock had an effect.
    Acted {
        /// The lock.
        lock: Name,
        /// The life that works.
        who: Identity,
        /// The token of the work.
        token: Revision,
    },
    /// These may be durable or not: the process ended while it wrote them.
    Unsure(Vec<Durable>),
    /// Its stop mechanism acted.
    Fired,
    /// A line of the test that drives the world.
    Said(String),
}

/// An entry on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The position of the entry.
    pub at: Position,
    /// The checksum of its content.
    pub sum: u32,
    /// The voters, if it changes them.
    pub voters: Option<VoterSets>,
}

/// What a disk has acknowledged.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Durable {
    /// A vote.
    Vote(Ballot),
    /// Entries.
    Entries(Vec<Stored>),
    /// Everything from this index on is gone.
    Truncated(u64),
    /// Everything up to this index is gone.
    Purged(u64),
    /// A snapshot that ends there.
    Snapshot(Option<Position>),
}

/// An observation with its time in the world, and the node on whose machine it was made (`n0`: the world itself).
#[derive(Debug, Clone)]
pub struct TraceEntry {
    /// The time of the world.
    pub at: Duration,
    /// The node.
    pub node: NodeId,
    /// The observation.
    pub seen: Observation,
}

impl fmt::Display for TraceEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, node, seen } = self;
        write!(f, "{:>14.6} {node} ", at.as_secs_f64())?;
        match seen {
            Observation::Noted(note) => write!(f, "{note}"),
            Observation::Applied { at, command, answer, voters, .. } => {
                let command = command.as_ref().map_or_else(|| "blank".into(), |command| format!("{command:?}"));
                let command = command.split([' ', '{', '(']).next().unwrap_or_default();
                write!(f, "applied {at} {command}")?;
                match answer {
                    Ok(events) => events.iter().try_for_each(|event| write!(f, " [{event}]"))?,
                    Err(rejection) => write!(f, " rejected: {rejection}")?,
                }
                voters.iter().try_for_each(|voters| write!(f, " {:?}", voters.sets))
            }
            Observation::Installed { last, .. } => write!(f, "installed a snapshot up to {last:?}"),
            Observation::Opened { vote, last, snapshot, entries } => {
                write!(f, "opened vote={vote:?} last={last:?} snapshot={snapshot:?} entries={}", entries.len())
            }
            Observation::Durable(Durable::Entries(entries)) => match (entries.first(), entries.last()) {
                (Some(first), Some(last)) => write!(f, "durable {} to {}", first.at, last.at),
                _ => write!(f, "durable nothing"),
            },
            Observation::Durable(other) => write!(f, "durable {other:?}"),
            Observation::Acted { lock, who, token } => write!(f, "{who} acts under {lock} {token}"),
            Observation::Said(text) => write!(f, "{text}"),
            other => write!(f, "{other:?}"),
        }
    }
}

#[derive(Default)]
struct Trace {
    unread: Vec<TraceEntry>,
    lines: u64,
    hash: u64,
    aloud: bool,
}

/// Where all observations go.
#[derive(Clone)]
pub(super) struct Sink {
    time: Time,
    trace: Arc<Mutex<Trace>>,
}

impl Sink {
    pub(super) fn new(time: Time, aloud: bool) -> Self {
        let trace = Trace { hash: 0xcbf2_9ce4_8422_2325, aloud, ..Trace::default() };
        Self { time, trace: Arc::new(Mutex::new(trace)) }
    }

    pub(super) fn tell(&self, node: NodeId, seen: Observation) {
        let entry = TraceEntry { at: self.time.elapsed(), node, seen };
        let mut trace = self.trace.lock();
        let line = entry.to_string();
        if trace.aloud {
            #[expect(clippy::print_stderr, reason = "asked for, to look at one run")]
            {
                eprintln!("{line}");
            }
        }
        trace.lines += 1;
        // FNV-1a.
        trace.hash = line.bytes().fold(trace.hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        trace.unread.push(entry);
    }

    pub(super) fn take(&self) -> Vec<TraceEntry> {
        std::mem::take(&mut self.trace.lock().unread)
    }

    pub(super) fn trace(&self) -> (u64, u64) {
        let trace = self.trace.lock();
        (trace.lines, trace.hash)
    }
}
