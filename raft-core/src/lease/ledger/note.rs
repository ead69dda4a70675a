//! What a node writes down of leases, and the line that it becomes: what it held, granted, proved.
//!
//! ```text
//!   q1 1f0c…9a 8123456789 n3 held who=n3#2 seq=17 from=8120000000/8119999000 5d0f12ab
//!   │  │       │          │  └ verb and values     BOOTTIME/MONOTONIC_RAW    └ CRC-32C of all before it
//!   │  │       │          └ node
//!   │  │       └ CLOCK_BOOTTIME in nanoseconds, when it was noted
//!   │  └ boot id
//!   └ version of the form
//! ```

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use quorate_membership::lease::Reading;
use quorate_membership::{Activation, BootId, Drift, FenceId, Identity, NodeId, Nonce, Revision, Stop};

use super::text::Value;

/// One thing that a node writes down. When, in which boot and by which node stands beside it in an [`Entry`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// A process of the node has started.
    Started {
        /// Drawn by it.
        session: Nonce,
    },
    /// It has a name, and this is what stops it.
    RequestName {
        /// The life.
        who: Identity,
        /// What was registered with it.
        stop: Stop,
        /// How long its leases last.
        lease: Duration,
        /// For how long something that was begun in time may still land.
        in_flight: Duration,
        /// What the clocks may be off.
        drift: Drift,
    },
    /// A grant has come: the life may act until `from` plus the lease, on the lease clock.
    Held {
        /// The life.
        who: Identity,
        /// Which renewal was granted.
        seq: u64,
        /// When it was sent.
        from: Reading,
    },
    /// Work is protected from here on: it may run under this token.
    Protects {
        /// The life.
        who: Identity,
        /// Which work.
        what: String,
        /// The token that it runs under.
        token: Revision,
    },
    /// The work has stopped: the consumer said so, or its processes were seen to be gone.
    Stopped {
        /// The life.
        who: Identity,
        /// Which work.
        what: String,
        /// The token that it ran under.
        token: Revision,
    },
    /// The lease runs out with something protected: unless all of it stops in time, the mechanism acts.
    Notice {
        /// The life.
        who: Identity,
        /// How much time is left.
        left: Duration,
        /// Whether the log said that the life is being fenced or over, rather than that grants stayed away.
        condemned: bool,
        /// What is protected.
        protecting: Vec<String>,
    },
    /// The lease is over.
    Lapsed {
        /// The life.
        who: Identity,
        /// What is still protected, against which the mechanism acts now.
        protecting: Vec<String>,
    },
    /// This node counts as leader, as far as conclusions from time go.
    Activated {
        /// Under which number.
        activation: Activation,
        /// From when on it counts silence: no wait of this activation began before.
        since: Reading,
    },
    /// This node, as leader, granted a renewal.
    Granted {
        /// The life.
        who: Identity,
        /// Which renewal.
        seq: u64,
        /// Under which activation.
        activation: Activation,
        /// When that renewal had been received, on this node's clocks: it was sent before.
        received: Reading,
    },
    /// This node, as leader, found the time of a life to be up.
    Expiring {
        /// The life.
        who: Identity,
        /// Under which activation.
        under: Activation,
        /// For how long nothing had been received.
        waited: Duration,
    },
    /// The log says that a life has ended: from here on others may take its work over.
    Ended {
        /// The life.
        who: Identity,
        /// The token of those who take over.
        token: Revision,
        /// The order; `None` for a clean leave without one.
        order: Option<FenceId>,
        /// The kind of proof, as [`quorate_membership::FenceProof::kind`] names it.
        proof: String,
        /// For a proof by time: the activation that it was concluded under.
        under: Option<Activation>,
        /// For a proof by time: for how long that leader had received nothing, on its own clock.
        waited: Option<Duration>,
    },
    /// The node has been shut down. What it still protects stays protected: notes may follow.
    Closed,
    /// So many notes were lost before this line, for want of room in the queue or on the disk.
    Dropped {
        /// How many, at the most.
        notes: u64,
    },
    /// A new file was begun: what is still in force of the one before follows, copied as it stood there.
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
    "named" RequestName (who stop lease in_flight drift)
    "held" Held (who seq from)
    "protects" Protects (who what token)
    "stopped" Stopped (who what token)
    "notice" Notice (who left condemned protecting)
    "lapsed" Lapsed (who protecting)
    "activated" Activated (activation since)
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
    /// Whether it has to be on the disk before the mechanism may act: the reason of a reset (P16).
    pub(super) fn must_be_durable(&self) -> bool {
        match self {
            Self::Notice { .. } | Self::Closed => true,
            Self::Lapsed { protecting, .. } => !protecting.is_empty(),
            _ => false,
        }
    }
}

/// A note with when and where it was made: one line of a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// In which boot of the machine: clocks compare only within one.
    pub boot: BootId,
    /// When, on CLOCK_BOOTTIME of that boot.
    pub at: Duration,
    /// Which node.
    pub node: NodeId,
    /// What.
    pub note: Note,
}

/// The version of the form of a line.
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
    /// It is not as it was written: torn, overwritten, or never a line of a ledger.
    #[error("its checksum does not fit")]
    Damaged,
    /// It was written in a form that this version does not know.
    #[error("it is of the form `{0}`, and only `{VERSION}` is known")]
    Version(String),
    /// It is whole, but says nothing that this version knows.
    #[error("it says nothing that is known")]
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
