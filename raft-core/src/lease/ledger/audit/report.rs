//! The report of an audit: its verdict, the rules violated, what is missing, and how it is printed.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use quorate_membership::{Identity, NodeId, Revision};

use crate::lease::ledger::note::LineError;
use crate::lease::ledger::reader::{LedgerLine, Place};

/// The result of an audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Everything is on record, and no rule is violated.
    Clean,
    /// A rule is violated.
    Overlap,
    /// No rule is violated by what is on record, but not everything is on record.
    Incomplete,
}

/// A rule for the lines of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// A life can do no more harm when others hear that it has ended (I6).
    EndedBeforeToldSo,
    /// A work has one holder at a time (I7).
    OneHolder,
    /// A later holder of a work has a higher token (I1).
    TokensGrow,
    /// Before a leader concludes an end from time, it waits as long as the contract asks (E1).
    WaitedLongEnough,
    /// Time proves nothing for a life that nothing stops within a bound (E1).
    BoundedByTime,
    /// The wait for an end begins after the activation that it is concluded under, or where the receipts of voters allow (P4,
    /// W3).
    WaitedSinceActivation,
    /// Nothing is granted to a life after its time was found to be up (P10).
    NothingGrantedAfter,
    /// Nothing is granted under a later activation than the one that ended the life (P5).
    NoLaterGrant,
    /// A lease is counted from the sending of a renewal, which lies before its receipt (P9).
    CountedFromSending,
    /// The wait for an end begins after the last renewal was sent that was granted (I4). Checked where both clocks are of one
    /// machine.
    WaitedSinceSending,
    /// A life that leaves has stopped all its work (P19).
    LeftWithNothing,
    /// The stop mechanism acts: a process with protected work writes nothing after its lease and the bound (A6).
    MechanismActs,
    /// All nodes record the same end of a life (I17).
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
            Self::WaitedSinceActivation => {
                "a leader counted silence from before its activation, and no quorum had told it (P4, W3)"
            }
            Self::NothingGrantedAfter => "a leader granted a renewal that it received after the wait began (P10)",
            Self::NoLaterGrant => {
                "a renewal was granted under a later activation than the one that ended the life (P5)"
            }
            Self::CountedFromSending => "a lease was counted from after the receipt of its renewal (P9)",
            Self::WaitedSinceSending => "a lease was counted from after the wait for its end began (I4)",
            Self::LeftWithNothing => "a life left with work that had not stopped (P19)",
            Self::MechanismActs => "a process with work protected outlived its lease: its mechanism did not act (A6)",
            Self::OneHistory => "two nodes record different ends of one life (I17)",
        })
    }
}

/// Two lines that contradict a rule, or one that does by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The rule.
    pub rule: Rule,
    /// The life that violated it.
    pub who: Identity,
    /// By how much, where that is a span of one clock.
    pub by: Option<Duration>,
    /// The lines that show it.
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
        /// The place of the line.
        place: Place,
        /// What is wrong with it.
        why: LineError,
    },
    /// A writer could not write everything.
    Dropped {
        /// The first file of that ledger.
        file: PathBuf,
        /// How many notes, at most.
        notes: u64,
    },
    /// A life held leases or ended, and its contract is not on record: the ledger of its node was not read, or begins
    /// later.
    NoContract {
        /// The life.
        who: Identity,
    },
    /// A life ended, and the ledger of its node, which would show whether it ever acted, was not read.
    NoLedger {
        /// The life.
        who: Identity,
        /// Its node.
        node: NodeId,
    },
    /// A life was ended by time by a leader on another machine, and no leader's line shows the grant of one of its renewals.
    NoGrant {
        /// The life.
        who: Identity,
        /// The line of the life itself.
        held: LedgerLine,
    },
    /// A life was ended by time by a leader on another machine, and the leader's line of its wait is not on record.
    NoWait {
        /// The life.
        who: Identity,
    },
    /// A life ended by a kind of proof that this version does not know.
    UnknownProof {
        /// The line of the end.
        ended: LedgerLine,
    },
    /// A work was held on two machines, and nothing shows that one ended before the other began.
    NotOrdered {
        /// The work.
        what: String,
        /// The lines that begin the two.
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
            Self::NoGrant { who, held } => write!(f, "{who}: no leader's grant of this is on record\n      {held}"),
            Self::NoWait { who } => write!(f, "{who}: the wait for its end is not on record"),
            Self::UnknownProof { ended } => write!(f, "this kind of proof is not known\n      {ended}"),
            Self::NotOrdered { what, lines } => {
                write!(f, "{what}: held on two machines, and nothing shows which was first")?;
                lines.iter().try_for_each(|line| write!(f, "\n      {line}"))
            }
        }
    }
}

/// The time in which a life could act, as far as it is on record, on the clock of its own boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interval {
    /// The life.
    pub who: Identity,
    /// When it first protected something; `None` if that is presumed, because its machine died and may have lost the line.
    pub from: Option<Duration>,
    /// Until when it could act, in flight and all; `None` if only the proof of its end bounds it.
    pub until: Option<Duration>,
    /// The kind of proof that ended it, if it has ended.
    pub proof: Option<String>,
}

/// The gap between the last possible action of a life and the first line that reports its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The length of the gap.
    pub gap: Duration,
    /// The life.
    pub who: Identity,
    /// The line that its possible action is counted from.
    pub last: LedgerLine,
    /// The first line of any node that reports its end.
    pub ended: LedgerLine,
}

/// What an audit found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// How many ledgers were read.
    pub ledgers: usize,
    /// How many lines were read.
    pub lines: usize,
    /// How many lines were torn off at the end of a process. They are no fault.
    pub torn: usize,
    /// How many lives are on record.
    pub lives: usize,
    /// How many renewals leaders granted.
    pub granted: usize,
    /// How many grants arrived.
    pub held: usize,
    /// How many of those have no leader's line: the leader was killed before it was written.
    pub unmatched: usize,
    /// How many lives ended by each kind of proof.
    pub proofs: BTreeMap<String, usize>,
    /// How many lives with protected work were ended by a device's or an operator's proof, which is accepted.
    pub vouched: usize,
    /// The time in which each life could act, for lives that ever could.
    pub intervals: Vec<Interval>,
    /// How many times work was protected, by name.
    pub works: BTreeMap<String, usize>,
    /// How many hand-overs of work between machines rest on the consumer's report that it had stopped.
    pub by_word: usize,
    /// The highest token of all work.
    pub highest_token: Option<Revision>,
    /// The smallest gap between the last possible action of a life and the first line that reports its end.
    pub smallest_gap: Option<Gap>,
    /// The rules that are violated.
    pub violations: Vec<Violation>,
    /// What is missing for a proof.
    pub incomplete: Vec<Incomplete>,
}

impl Report {
    /// The result.
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
        writeln!(f, "grants     {granted} made, {held} arrived ({unmatched} without the leader's line)")?;
        let proofs: Vec<_> = self.proofs.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        writeln!(
            f,
            "ends       {} ({vouched} with work left, by the proof of a device or an operator)",
            proofs.join(", ")
        )?;
        let works = self.works.len();
        write!(
            f,
            "works      {works}, protected {times} times ({by_word} moved between machines on the report of their consumer)"
        )?;
        if let Some(Gap { gap, who, last, ended }) = &self.smallest_gap {
            write!(
                f,
                "\nsmallest gap between the last possible action and the first report of the end: {gap:?}, of {who}"
            )?;
            write!(f, "\n    {last}\n    {ended}")?;
        }
        list(f, "violations", &self.violations)?;
        list(f, "incomplete", &self.incomplete)?;
        write!(
            f,
            "\n{}",
            match self.verdict() {
                Verdict::Clean => "clean: no life could act when others heard that it had ended",
                Verdict::Overlap => "NOT SOUND: see the lines above",
                Verdict::Incomplete => "incomplete: nothing on record is unsound, but not everything is on record",
            }
        )
    }
}
