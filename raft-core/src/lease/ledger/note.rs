//! The notes of a ledger, what a node held, granted and proved, and the line that each becomes.
//!
//! ```text
//!   q1 1f0c…9a 8123456789 n3 held who=n3#2 seq=17 from=8120000000/8119999000 5d0f12ab
//!   │  │       │          │  └ verb and values     BOOTTIME/MONOTONIC_RAW    └ CRC-32C of all before it
//!   │  │       │          └ node
//!   │  │       └ CLOCK_BOOTTIME in nanoseconds, when it was noted
//!   │  └ boot id
//!   └ version of the format
//! ```

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use quorate_membership::lease::Reading;
use quorate_membership::{Activation, BootId, Drift, FenceId, Identity, NodeId, Nonce, Revision, Stop};

use super::text::Value;

/// One note. Its time, boot and node are in its [`Entry`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// A process of the node has started.
    Started {
        /// The random number of that process.
        session: Nonce,
    },
    /// The process has its identity, and registered this contract.
    Registered {
        /// The life.
        who: Identity,
        /// What stops its work.
        stop: Stop,
        /// The length of its leases.
        lease: Duration,
        /// How long an effect that began in time may still be in flight.
        in_flight: Duration,
        /// How far clocks may be off.
        drift: Drift,
    },
    /// A grant has arrived: the life may act until `from` plus the lease, on the lease clock.
    Held {
        /// The life.
        who: Identity,
        /// The renewal that was granted.
        seq: u64,
        /// When that renewal was sent.
        from: Reading,
    },
    /// Work is protected from now on: it may run under this token.
    Protects {
        /// The life.
        who: Identity,
        /// The work.
        what: String,
        /// The token that it runs under.
        token: Revision,
    },
    /// The work has stopped: its consumer reported it, or its processes are gone.
    Stopped {
        /// The life.
        who: Identity,
        /// The work.
        what: String,
        /// The token that it ran under.
        token: Revision,
    },
    /// The lease is about to end. Unless all protected work stops in time, the mechanism acts.
    Notice {
        /// The life.
        who: Identity,
        /// How much time is left.
        left: Duration,
        /// Whether the log showed that the life has ended or is being fenced; otherwise no grant arrived.
        condemned: bool,
        /// The work that is protected.
        protecting: Vec<String>,
    },
    /// The lease has ended.
    Lapsed {
        /// The life.
        who: Identity,
        /// The work that is still protected. The mechanism acts now.
        protecting: Vec<String>,
    },
    /// This node was activated as leader: it may conclude from time that a life has ended.
    Activated {
        /// The activation.
        activation: Activation,
        /// From when on it counts silence. No wait of this activation began before.
        since: Reading,
    },
    /// A quorum of the voters has told this leader when they heard of each life last.
    Receipts {
        /// The activation.
        activation: Activation,
        /// From when on it counts silence now. No wait of this activation began before.
        since: Reading,
    },
    /// This node, as leader, granted a renewal.
    Granted {
        /// The life.
        who: Identity,
        /// The renewal.
        seq: u64,
        /// The activation that it was granted under.
        activation: Activation,
        /// When that renewal was received, on this node's clocks.
        received: Reading,
    },
    /// This node, as leader, concluded that the time of a life is up.
    Expiring {
        /// The life.
        who: Identity,
        /// The activation that this was concluded under.
        under: Activation,
        /// How long nothing had been received.
        waited: Duration,
    },
    /// The log shows that a life has ended. From now on others may take its work over.
    Ended {
        /// The life.
        who: Identity,
        /// The token under which others take over.
        token: Revision,
        /// The fence order; `None` for a clean leave without one.
        order: Option<FenceId>,
        /// The kind of proof, as [`quorate_membership::FenceProof::kind`] names it.
        proof: String,
        /// For a proof by time, the activation that it was concluded under.
        under: Option<Activation>,
        /// For a proof by time, how long that leader had received nothing, on its own clock.
        waited: Option<Duration>,
    },
    /// The node was shut down. What it still protects stays protected, so notes may follow.
    Closed,
    /// Notes were lost before this line, because the queue or the disk was full.
    Dropped {
        /// How many notes, at most.
        notes: u64,
    },
    /// A new file begins. The notes of the previous file that are still in force follow, copied as they were.
    Rotated,
}

macro_rules! forms {
    ($($verb:literal $variant:ident ($($field:ident)*))*) => {
        impl fmt::Display for Note {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant { $($field),* } => {
                        f.write_str($verb)?;
                        $(write!(f, concat!(" ", stringify!($field), "={}"), $field.spell())?;)*
                        Ok(())
                    })*
                }
            }
        }

        impl Note {
            fn read(verb: &str, values: &mut Values<'_>) -> Option<Self> {
                match verb {
                    $($verb => Some(Self::$variant { $($field: values.take(stringify!($field))?),* }),)*
                    _ => None,
                }
            }
        }
    };
}

forms! {
    "started" Started (session)
    "named" Registered (who stop lease in_flight drift)
    "held" Held (who seq from)
    "protects" Protects (who what token)
    "stopped" Stopped (who what token)
    "notice" Notice (who left condemned protecting)
    "lapsed" Lapsed (who protecting)
    "activated" Activated (activation since)
    "receipts" Receipts (activation since)
    "granted" Granted (who seq activation received)
    "expiring" Expiring (who under waited)
    "ended" Ended (who token order proof under waited)
    "closed" Closed ()
    "dropped" Dropped (notes)
    "rotated" Rotated ()
}

/// The `key=value` words of a line, in their order.
struct Values<'a>(std::str::Split<'a, char>);

impl Values<'_> {
    fn take<T: Value>(&mut self, key: &str) -> Option<T> {
        T::read(self.0.next()?.strip_prefix(key)?.strip_prefix('=')?)
    }
}

impl Note {
    /// Whether the note has to be on the disk before the mechanism may act, because it is the reason of a reset (P16).
    pub(super) fn must_be_durable(&self) -> bool {
        match self {
            Self::Notice { .. } | Self::Closed => true,
            Self::Lapsed { protecting, .. } => !protecting.is_empty(),
            _ => false,
        }
    }
}

/// A note with its time and node: one line of a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The boot of the machine. Clocks compare only within one boot.
    pub boot: BootId,
    /// The time of the note, on CLOCK_BOOTTIME of that boot.
    pub at: Duration,
    /// The node that wrote the note.
    pub node: NodeId,
    /// The note itself.
    pub note: Note,
}

/// The version of the format of a line.
const VERSION: &str = "q1";

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { boot, at, node, note } = self;
        let body = format!("{VERSION} {boot} {} {node} {note}", at.spell());
        write!(f, "{body} {:08x}", crc32c::crc32c(body.as_bytes()))
    }
}

/// Why a line is not an [`Entry`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// The line is not as it was written: torn, overwritten, or never a line of a ledger.
    #[error("its checksum does not match")]
    Damaged,
    /// The line has a format that this version does not know.
    #[error("its format is `{0}`, and this version knows only `{VERSION}`")]
    Version(String),
    /// The line is whole, and this version does not know its note.
    #[error("this version does not know its note")]
    Unknown,
}

impl FromStr for Entry {
    type Err = LineError;

    fn from_str(line: &str) -> Result<Self, LineError> {
        let (body, sum) = line.rsplit_once(' ').filter(|(_, sum)| sum.len() == 8).ok_or(LineError::Damaged)?;
        if u32::from_str_radix(sum, 16) != Ok(crc32c::crc32c(body.as_bytes())) {
            return Err(LineError::Damaged);
        }
        let mut words = body.split(' ');
        let mut word = || words.next().ok_or(LineError::Unknown);
        let version = word()?;
        if version != VERSION {
            return Err(LineError::Version(version.chars().take(20).collect()));
        }
        let (boot, at, node, verb) = (word()?, word()?, word()?, word()?);
        let mut values = Values(words);
        let mut entry = || {
            let (boot, at, node) = (boot.parse().ok()?, Duration::read(at)?, node.parse().ok()?);
            let note = Note::read(verb, &mut values)?;
            values.0.next().is_none().then_some(Self { boot, at, node, note })
        };
        entry().ok_or(LineError::Unknown)
    }
}
