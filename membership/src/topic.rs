//! The topic of each event, and the name or key that it is about: for readers that want only some events.

use std::fmt;

use crate::event::Event;

/// The subject area of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Topic {
    /// Members: their lives, phases, roles and addresses, and who votes.
    Membership,
    /// Fence orders, the attempts at them, proofs, and ends of lives.
    Fencing,
    /// Activations of leaders.
    Leadership,
    /// Locks: grants, releases, delays and the line of waiters.
    Locks,
    /// Records that were stored or deleted.
    Records,
    /// Items in queues.
    Queues,
    /// Sessions of clients that are not members.
    Sessions,
    /// Requests that took effect or were voided.
    Requests,
}

impl Topic {
    /// All topics.
    pub const ALL: [Self; 8] = [
        Self::Membership,
        Self::Fencing,
        Self::Leadership,
        Self::Locks,
        Self::Records,
        Self::Queues,
        Self::Sessions,
        Self::Requests,
    ];
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Membership => "membership",
            Self::Fencing => "fencing",
            Self::Leadership => "leadership",
            Self::Locks => "locks",
            Self::Records => "records",
            Self::Queues => "queues",
            Self::Sessions => "sessions",
            Self::Requests => "requests",
        })
    }
}

impl Event {
    /// The topic of this event. `Fenced` and `Left`, after which work is taken over, belong to [`Topic::Fencing`].
    pub const fn topic(&self) -> Topic {
        match self {
            Self::Founded { .. }
            | Self::Joined { .. }
            | Self::Activated { .. }
            | Self::Superseded { .. }
            | Self::DeclaredProcessBound { .. }
            | Self::RoleChanged { .. }
            | Self::Readdressed { .. }
            | Self::Removed { .. }
            | Self::Configured { .. } => Topic::Membership,
            Self::FenceOrdered { .. }
            | Self::FenceStarted { .. }
            | Self::FenceFailed { .. }
            | Self::Fenced { .. }
            | Self::Left { .. }
            | Self::Corroborated { .. } => Topic::Fencing,
            Self::LeaderActivated { .. } => Topic::Leadership,
            Self::LockGranted { .. }
            | Self::LockQueued { .. }
            | Self::LockWithdrawn { .. }
            | Self::LockReleased { .. }
            | Self::LockDelayed { .. }
            | Self::LockLifted { .. } => Topic::Locks,
            Self::Put { .. } | Self::Deleted { .. } => Topic::Records,
            Self::Pushed { .. } | Self::Taken { .. } | Self::Acknowledged { .. } => Topic::Queues,
            Self::SessionOpened { .. } | Self::SessionEnded { .. } => Topic::Sessions,
            Self::Answered { .. } | Self::Voided { .. } => Topic::Requests,
        }
    }

    /// The name of the lock or queue, or the key of the record, that it is about; `None` for other events.
    pub fn subject(&self) -> Option<&str> {
        match self {
            Self::LockGranted { name, .. }
            | Self::LockQueued { name, .. }
            | Self::LockWithdrawn { name, .. }
            | Self::LockReleased { name, .. }
            | Self::LockDelayed { name, .. }
            | Self::LockLifted { name, .. } => Some(name.as_str()),
            Self::Put { key, .. } | Self::Deleted { key } => Some(key.as_str()),
            Self::Pushed { queue, .. } | Self::Taken { queue, .. } | Self::Acknowledged { queue, .. } => {
                Some(queue.as_str())
            }
            _ => None,
        }
    }

    /// Roughly how many bytes of memory it takes to keep this event.
    pub fn weight(&self) -> usize {
        let carried = match self {
            Self::Put { value, .. } | Self::Pushed { value, .. } => value.as_bytes().len(),
            _ => 0,
        };
        std::mem::size_of::<Self>() + self.subject().map_or(0, str::len) + carried
    }
}
