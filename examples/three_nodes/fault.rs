//! The faults, by name.
//!
//! ```text
//!   the work moves            the work stays          either, depending on its length
//!   crash daemon hand-over    leader followers pair   pause=0.5 pause=5 (times a lease)
//!   freeze freeze-alone
//!   cut cut-alone cut-leading-alone
//!   both block spin
//! ```
//!
//! *alone*: every fencer is switched off, so elapsed time alone has to prove the end.

use std::fmt;
use std::str::FromStr;

use anyhow::Context;

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The owner's daemon and worker are killed.
    Crash,
    /// Only the owner's daemon is killed. Its worker is bound to it.
    Daemon,
    /// No fault: the owner leaves, and so hands the work over.
    HandOver,
    /// The owner's daemon and worker are stopped, and a fencer ends them.
    Freeze,
    /// The same with every fencer off, so only the dead-man can end them.
    FreezeAlone,
    /// The owner is cut off from both others, and a fencer ends it.
    Cut,
    /// The same with every fencer off, so only the owner itself can stop its work.
    CutAlone,
    /// The same for an owner that also leads.
    CutLeadingAlone,
    /// The leader, which is not the owner, is killed.
    Leader,
    /// Owner and leader are killed at once, and the leader is started again.
    Both,
    /// The link between the two nodes that do not lead is cut.
    Followers,
    /// The link between the leader and the other node that does not own the work is cut.
    Pair,
    /// Every thread of the owner's async runtime is blocked until the end of its process.
    Block,
    /// The owner is cut off and keeps all cores busy.
    Spin,
    /// The owner's daemon and worker are stopped for this many percent of a lease, with every fencer off. 10 to 2000.
    Pause(u32),
}

impl Fault {
    /// The faults of a run without `--faults`.
    pub(crate) const STORY: [Self; 12] = [
        Self::Crash,
        Self::Daemon,
        Self::HandOver,
        Self::Freeze,
        Self::FreezeAlone,
        Self::Cut,
        Self::CutAlone,
        Self::CutLeadingAlone,
        Self::Leader,
        Self::Both,
        Self::Followers,
        Self::Pair,
    ];

    const MORE: [Self; 2] = [Self::Block, Self::Spin];

    /// The name of the fault in `--faults`.
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Daemon => "daemon",
            Self::HandOver => "hand-over",
            Self::Freeze => "freeze",
            Self::FreezeAlone => "freeze-alone",
            Self::Cut => "cut",
            Self::CutAlone => "cut-alone",
            Self::CutLeadingAlone => "cut-leading-alone",
            Self::Leader => "leader",
            Self::Both => "both",
            Self::Followers => "followers",
            Self::Pair => "pair",
            Self::Block => "block",
            Self::Spin => "spin",
            Self::Pause(_) => "pause",
        }
    }

    /// Whether every fencer is switched off during the fault.
    pub(crate) const fn is_alone(self) -> bool {
        match self {
            Self::FreezeAlone | Self::CutAlone | Self::CutLeadingAlone | Self::Block | Self::Spin | Self::Pause(_) => {
                true
            }
            Self::Crash
            | Self::Daemon
            | Self::HandOver
            | Self::Freeze
            | Self::Cut
            | Self::Leader
            | Self::Both
            | Self::Followers
            | Self::Pair => false,
        }
    }
}

/// The name of the fault in the tables.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Crash => "kill -9 daemon and worker",
            Self::Daemon => "kill -9 daemon alone",
            Self::HandOver => "hand-over by plan",
            Self::Freeze => "SIGSTOP",
            Self::FreezeAlone => "SIGSTOP, no device",
            Self::Cut => "cut off",
            Self::CutAlone => "cut off, no device",
            Self::CutLeadingAlone => "cut off leading, no device",
            Self::Leader => "kill -9 leader",
            Self::Both => "kill -9 owner and leader",
            Self::Followers => "followers' link cut",
            Self::Pair => "leader's link cut",
            Self::Block => "runtime blocked, no device",
            Self::Spin => "cut off, all cores busy, no device",
            Self::Pause(percent) => return write!(f, "SIGSTOP for {} leases", f64::from(*percent) / 100.0),
        })
    }
}

impl FromStr for Fault {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(leases) = text.strip_prefix("pause=") {
            let leases: f64 = leases.parse().with_context(|| format!("`{text}`"))?;
            anyhow::ensure!((0.1..=20.0).contains(&leases), "`{text}` is out of range; a pause lasts 0.1 to 20 leases");
            return Ok(Self::Pause((leases * 100.0).round() as u32));
        }
        let all = Self::STORY.into_iter().chain(Self::MORE);
        let mut known = all.clone().filter(|fault| fault.key() == text);
        let names = || all.map(Self::key).collect::<Vec<_>>().join(", ");
        known.next().with_context(|| format!("`{text}` is not a fault; the faults are {}, pause=LEASES", names()))
    }
}
