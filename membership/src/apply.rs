//! `apply`: what a replica does with a committed entry.
//!
//! ```text
//!   Command ──decide──▶ Ok(events) ──evolve, one by one──▶ the state after it, and the events for consumers
//!                  └──▶ Err(rejection)                     the state as it was
//! ```
//!
//! Every replica runs it on the same log, and so holds the same state. Where the end of a holder has further
//! consequences in the same entry, `decide` has worked them out already, by evolving a copy of the state
//! (`decide/locks.rs`): the events that it returns are all of them.

use crate::cluster::ClusterState;
use crate::command::Command;
use crate::decide::decide;
use crate::event::Event;
use crate::evolve::evolve;
use crate::id::Revision;
use crate::rejection::Rejection;

/// Decides and evolves in one step.
///
/// # Errors
/// The [`Rejection`] of [`decide`]. The state was not changed.
pub fn apply(state: &mut ClusterState, revision: Revision, command: &Command) -> Result<Vec<Event>, Rejection> {
    let events = decide(state, revision, command)?;
    for event in &events {
        evolve(state, revision, event);
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ClusterId, NodeId};

    /// The first command of every cluster.
    fn found(cluster: u128) -> Command {
        Command::Found { cluster: ClusterId::new(cluster) }
    }

    #[test]
    fn an_accepted_command_takes_the_state_to_its_revision() {
        let mut state = ClusterState::new();
        let events = apply(&mut state, Revision::new(1), &found(7)).unwrap();
        assert_eq!(events, [Event::Founded { cluster: ClusterId::new(7) }]);
        assert_eq!((state.id(), state.revision()), (Some(ClusterId::new(7)), Revision::new(1)));
    }

    #[test]
    fn a_command_that_changes_nothing_and_one_that_is_rejected_leave_the_state_as_it_was() {
        let mut state = ClusterState::new();
        apply(&mut state, Revision::new(1), &found(7)).unwrap();
        let before = state.clone();
        assert_eq!(apply(&mut state, Revision::new(2), &found(7)), Ok(vec![]));
        let removed = apply(&mut state, Revision::new(3), &Command::Remove { node: NodeId::new(3), by: None });
        assert_eq!(removed, Err(Rejection::UnknownNode(NodeId::new(3))));
        assert_eq!(state, before);
    }
}
