//! What happened in a run, counted: faults, interesting states, and how long things took.

use std::collections::{BTreeMap, VecDeque};

use crate::clocks::Nanos;

/// How many of the last things are told of a run that failed.
const TOLD: usize = 40;

#[derive(Default, Clone)]
pub(crate) struct Tally {
    pub(crate) counts: BTreeMap<&'static str, u64>,
    /// Simulated time.
    pub(crate) simulated: Nanos,
    /// From the crash of a member that did not lead to its end by time.
    pub(crate) member: Vec<Nanos>,
    /// From the crash of a leader to its end by time, if the first election succeeded.
    pub(crate) leader: Vec<Nanos>,
    /// The same if it took more elections than one.
    pub(crate) leader_later: Vec<Nanos>,
    /// Real time now.
    pub(crate) now: Nanos,
    told: Option<VecDeque<(Nanos, String)>>,
}

impl Tally {
    pub(crate) fn count(&mut self, what: &'static str) {
        self.add(what, 1);
        self.note(|| what.into());
    }

    pub(crate) fn add(&mut self, what: &'static str, times: u64) {
        *self.counts.entry(what).or_default() += times;
    }

    pub(crate) fn of(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or_default()
    }

    /// Remembers the last things from here on.
    pub(crate) fn tell(&mut self) {
        self.told = Some(VecDeque::new());
    }

    /// Something for the story of a failed run; what happens all the time is left out of it.
    pub(crate) fn note(&mut self, what: impl FnOnce() -> String) {
        let Some(told) = &mut self.told else { return };
        let what = what();
        if !what.starts_with("message") && what != "effects" && what != "two leaders at once" {
            told.push_back((self.now, what));
            if told.len() > TOLD {
                told.pop_front();
            }
        }
    }

    pub(crate) fn story(&self) -> String {
        let told = self.told.iter().flatten();
        told.map(|(at, what)| format!("  {:10.4} s  {what}\n", *at as f64 / 1e9)).collect()
    }

    pub(crate) fn merge(&mut self, other: Self) {
        for (what, times) in other.counts {
            self.add(what, times);
        }
        self.simulated += other.simulated;
        self.member.extend(other.member);
        self.leader.extend(other.leader);
        self.leader_later.extend(other.leader_later);
    }

    pub(crate) fn hours(&self) -> f64 {
        self.simulated as f64 / 3.6e12
    }
}

/// Number, median, 99th percentile and worst in milliseconds.
pub(crate) fn spread(samples: &[Nanos]) -> String {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let at = |percent: usize| sorted.get(sorted.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default();
    let ms = |nanos: Nanos| nanos as f64 / 1e6;
    format!("{:6} times, p50 {:7.0}, p99 {:7.0}, worst {:8.1} ms", sorted.len(), ms(at(50)), ms(at(99)), ms(at(100)))
}
