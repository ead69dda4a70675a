//! `apply`: what a replica does with a committed entry.

use crate::cluster::ClusterState;
use crate::command::Command;
use crate::decide::decide;
use crate::event::Event;
use crate::evolve::evolve;
use crate::id::Revision;
use crate::rejection::Rejection;

/// Decides and evolves in one step: what a replica does with a committed entry.
///
/// # Errors
/// The [`Rejection`] of [`decide`]; the state is as it was.
pub fn apply(state: &mut ClusterState, revision: Revision, command: &Command) -> Result<Vec<Event>, Rejection> {
    let events = decide(state, revision, command)?;
    for event in &events {
        evolve(state, revision, event);
    }
    Ok(events)
}
