//! What an event is about, in one word, and by which name or key: for readers that want only some.

use std::fmt;

use crate::event::Event;

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Topic {
    /// Who belongs to the cluster, in which phase and role, and who votes.
    Membership,
    /// Orders to end a life, attempts at them, proofs, ends.
    Fencing,
    /// Whose waits count.
    Leadership,
    /// Who holds what.
    Locks,
    /// What is stored.
    Records,
    /// What waits for whom.
    Queues,
    /// Clients that are no members.
    Sessions,
    /// What became of requests.
    Requests,
}

impl Topic {
    /// All of them.
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
    /// What it is about. `Fenced` and `Left`, upon which work is taken over, are of [`Topic::Fencing`].
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

    /// The name or key that it is about, if it is about one.
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

    /// Roughly how many bytes it takes to keep it.
    pub fn weight(&self) -> usize {
        let carried = match self {
            Self::Put { value, .. } | Self::Pushed { value, .. } => value.as_bytes().len(),
            _ => 0,
        };
        std::mem::size_of::<Self>() + self.subject().map_or(0, str::len) + carried
    }
}
