//! Looks on while a world goes on: every entry goes to the oracle, the book and the counts, and what is known of the world
//! from them says whether all is well.
//!
//! ```text
//!   world ── entries ─▶ see ─┬─ oracle: a promise is broken ─▶ the run ends
//!                              ├─ calm: something happened although nothing was wrong (I13) ─▶ the run ends
//!                              └─ counts, writes, who is gone, who acted last ─▶ all_well, picture, tell
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate::lease::ledger::Note;
use quorate::testing::sim::{Observation, TraceEntry, World};
use quorate::{Event, Name, NodeId, Revision, View, lease::LeaseStage, state::duties};

use crate::coverage::Tally;
use crate::oracle::{Book, Oracle, Verdict, Written};

/// What came of a run.
pub(crate) struct Told {
    pub(crate) violation: Option<String>,
    pub(crate) tally: Tally,
    pub(crate) simulated: Duration,
    pub(crate) trace: (u64, u64),
    /// How many faults there were.
    pub(crate) faults: u64,
}

pub(crate) struct Judge {
    oracle: Oracle,
    written: Written,
    pub(crate) book: Book,
    pub(crate) tally: Tally,
    /// Who was removed.
    pub(crate) gone: BTreeSet<NodeId>,
    /// When something was last done under each lock.
    acted: BTreeMap<Name, Duration>,
    /// Nothing is wrong, so nothing may happen.
    /// In calm: the last revision before it.
    calm: Option<Revision>,
}

impl Judge {
    pub(crate) fn new() -> Self {
        Self {
            oracle: Oracle::new(),
            written: Written::default(),
            book: Book::default(),
            tally: Tally::default(),
            gone: BTreeSet::new(),
            acted: BTreeMap::new(),
            calm: None,
        }
    }

    /// Takes in what was seen next.
    pub(crate) fn see(&mut self, entry: &TraceEntry) -> Verdict {
        self.oracle.see(entry)?;
        self.written.see(entry);
        self.tally.see(entry);
        match &entry.seen {
            Observation::Acted { lock, .. } => drop(self.acted.insert(lock.clone(), entry.at)),
            Observation::Applied { answer: Ok(events), .. } => {
                let removed = |event: &Event| if let Event::Removed { node, .. } = event { Some(*node) } else { None };
                self.gone.extend(events.iter().filter_map(removed));
            }
            _ => {}
        }
        if self.calm.is_some_and(|after| disturbs(&entry.seen, after)) {
            return Err(format!("violated: in calm nobody is suspected, ended or told to stop (I13): {entry}"));
        }
        Ok(())
    }

    /// From now on nothing may happen. What was committed before may still be applied by a node that is behind.
    pub(crate) fn begin_calm(&mut self, world: &World) {
        self.calm = world.running().map(|running| running.node.view().local.applied).max();
    }

    pub(crate) fn end_calm(&mut self) {
        self.calm = None;
    }

    /// What clients were told is what was written.
    pub(crate) fn judge_writes(&self) -> Verdict {
        self.written.judge(&self.book)
    }

    /// Everybody is there, may act, and agrees; nothing is owed; each of so many locks is worked under.
    pub(crate) fn all_well(&self, world: &World, locks: u64) -> bool {
        let here: Vec<NodeId> = world.nodes().into_iter().filter(|node| !self.gone.contains(node)).collect();
        let views: Vec<View> = here.iter().filter_map(|node| Some(world.process(*node)?.node.view())).collect();
        let well = |view: &View| {
            let Some(who) = view.local.identity else { return false };
            view.local.quorate
                && view.local.stopped.is_none()
                && view.local.lease.stage == LeaseStage::Held
                && view.cluster.active().any(|active| active == who)
                && duties(&view.cluster).is_empty()
                && view.cluster.lives().filter(|(_, life)| life.phase.may_work()).count() == here.len()
        };
        let recent = |at: &Duration| world.age().saturating_sub(*at) < Duration::from_secs(2);
        let applied = || views.iter().map(|view| view.local.applied.get());
        views.len() == here.len()
            // Nobody is far behind.
            && applied().max().unwrap_or_default() - applied().min().unwrap_or_default() <= 16
            && views.iter().all(well)
            && views.iter().all(|view| view.local.leader == views.first().and_then(|first| first.local.leader))
            && self.acted.len() as u64 == locks
            && self.acted.values().all(recent)
    }

    /// How everything stands, for a person who wants to know why it is not well.
    pub(crate) fn picture(&self, world: &World) -> String {
        let mut lines = vec![];
        for node in world.nodes() {
            let Some(running) = world.process(node) else {
                lines.push(format!("{node}: no process (removed: {})", self.gone.contains(&node)));
                continue;
            };
            let view = running.node.view();
            lines.push(format!("{node}: {:#?}", view.local));
            lines.push(format!("{node} owes {:?}", duties(&view.cluster)));
            lines.push(format!("{node} counts votes by {:?}", view.cluster.configuration()));
            let lives = view.cluster.lives().map(|(who, life)| format!("{who} {}", life.phase));
            lines.push(format!("{node} lives {}", lives.collect::<Vec<_>>().join(", ")));
        }
        for (lock, at) in &self.acted {
            lines.push(format!("{lock}: the last effect {:?} ago", world.age().saturating_sub(*at)));
        }
        lines.join("\n")
    }

    /// The end of a run.
    pub(crate) fn tell(mut self, world: &World, violation: Option<String>, faults: u64) -> Told {
        let [done, refused, unknown, reads] = self.book.counts();
        for (what, times) in
            [("write done", done), ("write refused", refused), ("write unknown", unknown), ("read", reads)]
        {
            self.tally.add(what, times);
        }
        Told { violation, simulated: world.age(), trace: world.trace(), faults, tally: self.tally }
    }
}

/// Whether the process of a node is a member that may be given work.
pub(crate) fn is_active(world: &World, node: NodeId) -> bool {
    world.process(node).is_some_and(|running| {
        let view = running.node.view();
        running.node.identity().is_some_and(|who| view.cluster.active().any(|active| active == who))
    })
}

/// Whether a process has no future: its node has stopped for good, or its life is over for all others.
pub(crate) fn has_ended(view: &View) -> Option<&'static str> {
    let life = view.local.identity.and_then(|who| view.cluster.life(who));
    if view.local.stopped.is_some() {
        Some("a node stopped for good")
    } else if life.is_some_and(|life| life.phase.has_ended()) {
        Some("a life that was ended began anew")
    } else {
        None
    }
}

/// What must not happen while nothing is wrong.
fn disturbs(seen: &Observation, calm_after: Revision) -> bool {
    match seen {
        Observation::Noted(Note::Notice { .. } | Note::Lapsed { .. })
        | Observation::Fired
        | Observation::Ended { .. } => true,
        Observation::Applied { at, answer: Ok(events), .. } => {
            at.index >= calm_after.get()
                && events.iter().any(|event| matches!(event, Event::Fenced { .. } | Event::FenceOrdered { .. }))
        }
        _ => false,
    }
}
