//! Leaves out messages that carry nothing but a commit while others are about to carry a later one.
//!
//! ```text
//!   entries 7, 8 ──▶ commit 6 ──▶ entries 9 ──▶ commit 9          the log ends at 9
//!                      └ left out: 7 and 8 are on their way, and so is their commit
//! ```
//!
//! openraft sends a message without entries whenever the commit moves and no entry waits to be sent. Under load that is one for
//! each group, and each costs both sides as much as a message with entries. While entries beyond that commit are in the log, the
//! next message carries a later commit: one with entries, or the one that commits them. Should they not be committed for want
//! of a quorum, the next heartbeat carries the commit.

use std::future::ready;

use futures_util::{Stream, StreamExt};

use crate::rpc::Append;

/// The requests of one stream of appends, without those that only carry a commit before the end of the log. `last` says where
/// the log ends now. Nothing is left out before the first entries: openraft finds out by requests without entries where a
/// follower's log begins to differ.
pub(super) fn without_early_commits(
    requests: impl Stream<Item = Append> + Send + 'static,
    last: impl Fn() -> Option<u64> + Send + 'static,
) -> impl Stream<Item = Append> + Send + 'static {
    let mut begun = false;
    requests.filter(move |append| {
        begun |= !append.entries.is_empty();
        let commit = append.commit.map(|at| at.index);
        let early = begun && append.entries.is_empty() && commit < last();
        ready(!early)
    })
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use quorate_membership::NodeId;

    use super::*;
    use crate::rpc::{Ballot, Body, LogEntry, Position};

    fn append(prev: u64, entries: u64, commit: u64) -> Append {
        let at = |index| Position { term: 1, index };
        let entry = |index| LogEntry { at: at(index), body: Body::Blank };
        let ballot = Ballot { term: 1, node: NodeId::new(1), committed: true };
        let entries = (prev + 1..=prev + entries).map(entry).collect();
        Append { ballot, prev: Some(at(prev)), entries, commit: Some(at(commit)), renewed: None }
    }

    #[tokio::test]
    async fn a_commit_before_the_end_of_the_log_is_left_out_once_entries_were_sent() {
        let probe = append(5, 0, 5);
        let all = vec![probe, append(5, 2, 5), append(7, 0, 6), append(7, 2, 6), append(9, 0, 8), append(9, 0, 9)];
        let passed: Vec<Append> = without_early_commits(stream::iter(all.clone()), || Some(9)).collect().await;
        assert_eq!(passed, [0, 1, 3, 5].map(|at: usize| all[at].clone()));
        // Where nothing says where the log ends, each passes.
        let passed: Vec<Append> = without_early_commits(stream::iter(all.clone()), || None).collect().await;
        assert_eq!(passed, all);
    }
}
