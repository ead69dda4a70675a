//! What a reader of the feed wants to hear of: topics, and names or keys with a prefix.

use std::collections::BTreeSet;

use quorate_membership::{Event, Topic};

/// Which events a reader is told. A [gap](crate::FeedItem::Gap) it is told in any case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    topics: Option<BTreeSet<Topic>>,
    prefix: String,
}

impl Filter {
    /// Everything.
    pub fn all() -> Self {
        Self::default()
    }

    /// Only these topics.
    pub fn topics(mut self, topics: impl IntoIterator<Item = Topic>) -> Self {
        self.topics = Some(topics.into_iter().collect());
        self
    }

    /// Of locks, queues and records only those whose name or key begins so. Events about neither are told all the same,
    /// if their topic is wanted.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Whether an event is wanted.
    pub fn wants(&self, event: &Event) -> bool {
        let topic = self.topics.as_ref().is_none_or(|topics| topics.contains(&event.topic()));
        topic && event.subject().is_none_or(|subject| subject.starts_with(&self.prefix))
    }
}
