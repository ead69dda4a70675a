//! What befalls the cluster, by name.
//!
//! ```text
//!   the work passes on        the work stays          either, as time has it
//!   crash daemon hand-over    leader followers pair   pause=0.5 pause=5 (times a lease)
//!   freeze freeze-alone
//!   cut cut-alone cut-leading-alone
//!   both block spin
//! ```
//!
//! *alone*: no fencer reaches anybody meanwhile, so that time alone has to prove the end.

use std::fmt;
use std::str::FromStr;

use anyhow::Context;

/// What befalls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Everything that the owner has started is killed: daemon and worker.
    Crash,
    /// The owner's daemon alone is killed. Its worker is bound to it.
    Daemon,
    /// Nothing: the work is handed over by plan.
    HandOver,
    /// The owner's daemon and worker are stopped, and a fencer ends them.
    Freeze,
    /// The same, and nobody can end them but the dead-man.
    FreezeAlone,
    /// The owner is cut off from both others, and a fencer ends it.
    Cut,
    /// The same, and nobody can end it but itself.
    CutAlone,
    /// The same of an owner that leads.
    CutLeadingAlone,
    /// The leader, who is not the owner, is killed.
    Leader,
    /// Owner and leader are killed at once; the leader is started again.
    Both,
    /// The link between the two who do not lead is cut.
    Followers,
    /// The link between the leader and the one who does not own the work is cut.
    Pair,
    /// The owner's async runtime is blocked for good.
    Block,
    /// The owner is cut off and takes all cores for itself.
    Spin,
    /// The owner's daemon and worker are stopped for so many percent of a lease, and nobody can end them.
    Pause(u32),
}

impl Fault {
    /// What a run shows when it is not told otherwise.
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

    /// How it is asked for.
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

    /// Whether no fencer reaches anybody while it lasts.
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

/// As the tables have it.
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
            anyhow::ensure!((0.1..=20.0).contains(&leases), "`{text}`: 0.1 to 20 leases");
            return Ok(Self::Pause((leases * 100.0).round() as u32));
        }
        let all = Self::STORY.into_iter().chain(Self::MORE);
        let mut known = all.clone().filter(|fault| fault.key() == text);
        let names = || all.map(Self::key).collect::<Vec<_>>().join(", ");
        known.next().with_context(|| format!("`{text}` is not a fault: {}, pause=LEASES", names()))
    }
}
