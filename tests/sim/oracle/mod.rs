//! The promises, each a function of what is seen of a simulated world; one file a property.
//!
//! | number | property | file |
//! |---|---|---|
//! | I1, I7 | under different tokens of one lock nothing overlaps, and tokens grow | `one_actor.rs` |
//! | I6 | a life whose end is told has no effect any more | `the_ended_rest.rs` |
//! | I3 | nobody grants to a life whose end it has applied | `grants.rs` |
//! | I9, I20 | what was concluded under an earlier activation changes nothing; activations and terms grow | `activations.rs` |
//! | I10, I18 | a device's proof follows its own success under that order; no order breaks the majority | `fences.rs` |
//! | I12 | a disk never goes back behind what it acknowledged | `disks.rs` |
//! | I16, I17 | a rejection changes nothing; the same entry gives the same state everywhere, by log or by snapshot | `same_state.rs` |
//! | I19 | only who protects something is ended by its mechanism | `resets.rs` |
//! | Raft: election safety, log matching, leader completeness | | `logs.rs` |
//! | Raft: committed entries are on a quorum and never change | | `committed.rs` |
//! | clients | an acknowledged write is there, a refused one is not, reads are linearizable and monotonic | `clients.rs` |
//!
//! I2, I4, I5, I8 and I11 are of the pure rules and proved by the models of `membership`; I13 is judged in calm,
//! I15 in a small world and, for each majority that is whole among faults, in `majority.rs`, I14 after healing by the story.

mod activations;
mod clients;
mod committed;
mod disks;
mod fences;
mod grants;
mod held;
mod logs;
mod one_actor;
mod resets;
mod same_state;
mod the_ended_rest;

use quorate::testing::sim::TraceEntry;

pub(crate) use clients::{Ask, Book, Written};

/// What was promised and is not so.
pub(crate) type Verdict = Result<(), String>;

/// One promise.
pub(crate) trait Property {
    /// The promise, as a sentence.
    fn claim(&self) -> &'static str;

    /// Takes in what was seen next.
    fn see(&mut self, entry: &TraceEntry) -> Verdict;
}

/// All of them.
pub(crate) struct Oracle(Vec<Box<dyn Property>>);

impl Oracle {
    pub(crate) fn new() -> Self {
        Self(vec![
            Box::new(one_actor::OneActor::default()),
            Box::new(the_ended_rest::TheEndedRest::default()),
            Box::new(grants::Grants::default()),
            Box::new(activations::Activations::default()),
            Box::new(fences::Fences::default()),
            Box::new(disks::Disks::default()),
            Box::new(same_state::SameState::default()),
            Box::new(resets::Resets::default()),
            Box::new(logs::Logs::default()),
            Box::new(committed::Committed::default()),
        ])
    }

    pub(crate) fn see(&mut self, entry: &TraceEntry) -> Verdict {
        for property in &mut self.0 {
            let claim = property.claim();
            property.see(entry).map_err(|why| format!("violated: {claim}: {why}"))?;
        }
        Ok(())
    }
}
