//! What an audit found, and how it is told.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use quorate_membership::{Identity, NodeId, Revision};

use crate::lease::ledger::note::LineError;
use crate::lease::ledger::reader::{LedgerLine, Place};

/// What an audit comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Everything is on record, and nothing contradicts the promise.
    Clean,
    /// Something does.
    Overlap,
    /// Nothing that is on record does, but not everything is.
    Incomplete,
}

/// What has to hold of the lines of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// A life could do no more harm when others heard that it had ended (I6).
    EndedBeforeToldSo,
    /// Two do not hold one work at once (I7).
    OneHolder,
    /// Who holds a work later holds it under a higher token (I1).
    TokensGrow,
    /// An end that was concluded from time was waited for as long as the contract asks (E1).
    WaitedLongEnough,
    /// Time proves nothing of a life without a bound.
    BoundedByTime,
    /// The wait for an end began after the activation that it was concluded under (P4).
    WaitedSinceActivation,
    /// Nothing is granted to a life whose time was found to be up (P10).
    NothingGrantedAfter,
    /// Nothing is granted under a later activation than the one that ended the life (P5).
    NoLaterGrant,
    /// A lease is counted from the sending of a renewal, which lies before its receipt (P9).
    CountedFromSending,
    /// Who leaves has stopped everything (P19).
    LeftWithNothing,
    /// The mechanism acts: a process with work protected writes nothing after the end of its lease and the bound (A6).
    MechanismActs,
    /// The log says the same everywhere (I17).
    OneHistory,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EndedBeforeToldSo => "a life may still have acted when others heard that it had ended (I6)",
            Self::OneHolder => "two may have held one work at once (I7)",
            Self::TokensGrow => "the later holder of a work has no higher token (I1)",
            Self::WaitedLongEnough => "a leader did not wait as long as the contract asks (E1)",
            Self::BoundedByTime => "time was taken as proof for a life that nothing stops (E1)",
            Self::WaitedSinceActivation => "a leader counted silence from before its activation (P4)",
            Self::NothingGrantedAfter => "a leader granted a renewal that it received after the wait began (P10)",
            Self::NoLaterGrant => {
                "a renewal was granted under a later activation than the one that ended the life (P5)"
            }
            Self::CountedFromSending => "a lease was counted from after the receipt of its renewal (P9)",
            Self::LeftWithNothing => "a life left with work that had not stopped (P19)",
            Self::MechanismActs => "a process with work protected outlived its lease: its mechanism did not act (A6)",
            Self::OneHistory => "two nodes have it differently how a life ended (I17)",
        })
    }
}

/// Two lines that contradict a rule, or one that does by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which rule.
    pub rule: Rule,
    /// Whose action.
    pub who: Identity,
    /// By how much, where that is a time of one clock.
    pub by: Option<Duration>,
    /// The lines, as they stand in the files.
    pub lines: Vec<LedgerLine>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.who, self.rule)?;
        if let Some(by) = self.by {
            write!(f, ", by {by:?}")?;
        }
        self.lines.iter().try_for_each(|line| write!(f, "\n      {line}"))
    }
}

/// What is missing for a proof.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Incomplete {
    /// A line cannot be read.
    Damaged {
        /// Where.
        place: Place,
        /// Why.
        why: LineError,
    },
    /// A writer could not write everything.
    Dropped {
        /// The first file of that ledger.
        file: PathBuf,
        /// How many notes, at the most.
        notes: u64,
    },
    /// A life held leases or ended, and what it promised is not on record: the ledger of its node is not among those
    /// read, or has dropped lines so old.
    NoContract {
        /// Which life.
        who: Identity,
    },
    /// A life ended, and the ledger of its node, where it would stand whether it ever acted, is not among those read.
    NoLedger {
        /// Which life.
        who: Identity,
        /// Its node.
        node: NodeId,
    },
    /// A life ended by time on another machine's word, and no leader's line says who granted one of its renewals.
    NoGrant {
        /// Which life.
        who: Identity,
        /// Its own line.
        held: LedgerLine,
    },
    /// A life ended by time on another machine's word, and the leader's line of its wait is not on record.
    NoWait {
        /// Which life.
        who: Identity,
    },
    /// A life ended by a kind of proof that this version does not know.
    UnknownProof {
        /// The line.
        ended: LedgerLine,
    },
    /// Two held one work on two machines, and nothing shows which of them was first to end.
    NotOrdered {
        /// Which work.
        what: String,
        /// The lines.
        lines: Vec<LedgerLine>,
    },
}

impl fmt::Display for Incomplete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged { place, why } => write!(f, "{place} is damaged: {why}"),
            Self::Dropped { file, notes } => write!(f, "{}: up to {notes} notes were dropped", file.display()),
            Self::NoContract { who } => write!(f, "{who}: what it promised is not on record"),
            Self::NoLedger { who, node } => write!(f, "{who}: the ledger of {node} is not here, or begins later"),
            Self::NoGrant { who, held } => write!(f, "{who}: nobody's grant of this is on record\n      {held}"),
            Self::NoWait { who } => write!(f, "{who}: the wait for its end is not on record"),
            Self::UnknownProof { ended } => write!(f, "this kind of proof is not known\n      {ended}"),
            Self::NotOrdered { what, lines } => {
                write!(f, "{what}: held on two machines, and nothing orders them")?;
                lines.iter().try_for_each(|line| write!(f, "\n      {line}"))
            }
        }
    }
}

/// When a life could act, as far as is on record: on the clock of its own boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interval {
    /// The life.
    pub who: Identity,
    /// When it first protected something; `None` if that is presumed, for its machine died and may have lost the line.
    pub from: Option<Duration>,
    /// Until when it could act, in flight and all; `None` if only the proof of its end bounds it.
    pub until: Option<Duration>,
    /// The kind of proof that ended it, if it has ended.
    pub proof: Option<String>,
}

/// How long before others heard of the end of a life it could act no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// How long.
    pub gap: Duration,
    /// The life.
    pub who: Identity,
    /// The line that its possible action is counted from.
    pub last: LedgerLine,
    /// The first line of anyone that says that it has ended.
    pub ended: LedgerLine,
}

/// What an audit found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// How many ledgers were read.
    pub ledgers: usize,
    /// How many lines.
    pub lines: usize,
    /// How many lines were torn off at the end of a process, which proves nothing against anybody.
    pub torn: usize,
    /// How many lives are on record.
    pub lives: usize,
    /// How many renewals leaders granted.
    pub granted: usize,
    /// How many grants came.
    pub held: usize,
    /// How many of those no leader's line is on record for: it was killed before the line was written.
    pub unmatched: usize,
    /// How many lives ended by each kind of proof.
    pub proofs: BTreeMap<String, usize>,
    /// How many ended with work protected by a device's or an operator's proof, which is taken as what it is.
    pub vouched: usize,
    /// When each life could act that ever could.
    pub intervals: Vec<Interval>,
    /// How many times work was protected, by name.
    pub works: BTreeMap<String, usize>,
    /// How many hand-overs of work between machines rest on the word of its consumer that it had stopped.
    pub by_word: usize,
    /// The highest token of all work.
    pub highest_token: Option<Revision>,
    /// The smallest gap between the end of possible action and the first word of it.
    pub smallest_gap: Option<Gap>,
    /// What contradicts the promise.
    pub violations: Vec<Violation>,
    /// What is missing for a proof.
    pub incomplete: Vec<Incomplete>,
}

impl Report {
    /// What it comes to.
    pub fn verdict(&self) -> Verdict {
        match (self.violations.is_empty(), self.incomplete.is_empty()) {
            (false, _) => Verdict::Overlap,
            (true, false) => Verdict::Incomplete,
            (true, true) => Verdict::Clean,
        }
    }

    pub(super) fn violated<'a>(
        &mut self,
        rule: Rule,
        who: Identity,
        by: Option<Duration>,
        lines: impl IntoIterator<Item = &'a LedgerLine>,
    ) {
        let lines = lines.into_iter().cloned().collect();
        self.violations.push(Violation { rule, who, by, lines });
    }
}

/// How many findings of a kind are shown.
const SHOWN: usize = 20;

fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, title: &str, items: &[T]) -> fmt::Result {
    if items.is_empty() {
        return Ok(());
    }
    write!(f, "\n{title}: {}", items.len())?;
    items.iter().take(SHOWN).try_for_each(|item| write!(f, "\n    {item}"))?;
    match items.len().saturating_sub(SHOWN) {
        0 => Ok(()),
        more => write!(f, "\n    and {more} more"),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ledgers, lines, torn, lives, granted, held, unmatched, vouched, by_word, .. } = self;
        let times: usize = self.works.values().sum();
        writeln!(f, "ledgers    {ledgers}, of {lines} lines ({torn} torn off at the end of a process)")?;
        writeln!(f, "lives      {lives}, of which {} could act", self.intervals.len())?;
        writeln!(f, "grants     {granted} made, {held} came ({unmatched} without the leader's line)")?;
        let proofs: Vec<_> = self.proofs.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        writeln!(
            f,
            "ends       {} ({vouched} with work left, on the word of a device or a person)",
            proofs.join(", ")
        )?;
        let works = self.works.len();
        write!(
            f,
            "works      {works}, protected {times} times ({by_word} moved between machines on the word of their consumer)"
        )?;
        if let Some(Gap { gap, who, last, ended }) = &self.smallest_gap {
            write!(f, "\nsmallest gap between the end of possible action and its first word: {gap:?}, of {who}")?;
            write!(f, "\n    {last}\n    {ended}")?;
        }
        list(f, "violations", &self.violations)?;
        list(f, "incomplete", &self.incomplete)?;
        write!(
            f,
            "\n{}",
            match self.verdict() {
                Verdict::Clean => "clean: nobody could act when others were told that it had ended",
                Verdict::Overlap => "NOT SOUND: see the lines above",
                Verdict::Incomplete => "incomplete: nothing on record is unsound, but not everything is on record",
            }
        )
    }
}
