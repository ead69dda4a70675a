//! Which events a reader of the feed sees: those of some topics, and of names or keys with a prefix.
//!
//! ```text
//!   event ──▶ topic wanted? ──▶ about a lock, queue or record? ──▶ does its name begin with the prefix? ──▶ reader
//!                  │ no: hidden           │ no: shown                        │ no: hidden
//! ```

use std::collections::BTreeSet;

use quorate_membership::{Event, Topic};

/// Which events a reader sees. It sees a [gap](crate::FeedItem::Gap) in any case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    topics: Option<BTreeSet<Topic>>,
    prefix: String,
}

impl Filter {
    /// All events.
    pub fn all() -> Self {
        Self::default()
    }

    /// Only events of these topics.
    pub fn topics(mut self, topics: impl IntoIterator<Item = Topic>) -> Self {
        self.topics = Some(topics.into_iter().collect());
        self
    }

    /// Of events about locks, queues and records, only those whose name or key begins with `prefix`. Other events are not
    /// affected.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Whether the reader sees `event`.
    pub fn wants(&self, event: &Event) -> bool {
        let topic = self.topics.as_ref().is_none_or(|topics| topics.contains(&event.topic()));
        topic && event.subject().is_none_or(|subject| subject.starts_with(&self.prefix))
    }
}

#[cfg(test)]
mod tests {
    use quorate_membership::ClusterId;

    use super::*;

    #[test]
    fn a_prefix_does_not_hide_what_is_about_no_name_and_a_topic_does() {
        let founded = Event::Founded { cluster: ClusterId::new(1) };
        let topic = founded.topic();
        assert!(Filter::all().wants(&founded));
        assert!(Filter::all().prefix("vm/").wants(&founded));
        assert!(Filter::all().topics([topic]).prefix("vm/").wants(&founded));
        assert!(!Filter::all().topics([]).wants(&founded));
    }
}
