//! What everybody wrote down, set side by side and judged.
//!
//! ```text
//!   ledger    no effect of an older token after the first of a newer one, none of a life that was told to be over
//!   n*.log    every record and every lock has an order that explains all answers; no acknowledged write is missing
//!             in the last look of any host; replicas tell the same
//!   health    nobody was ordered to end, or ended, without a reason that this run gave
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};

use crate::agreement::Agreed;
use crate::fleet::Ending;
use crate::health::{Health, Taken};
use crate::host;
use crate::ledger::{self, Ledger};
use crate::op::{self, Call, CallResult, Op};
use crate::report::Violation;
use crate::signs::{self, Signs};
use crate::{locks, log, records, witness};

/// How something was taken, counted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Count {
    pub(crate) excused: usize,
    pub(crate) busy: usize,
    pub(crate) unexplained: usize,
}

impl Count {
    fn add(&mut self, taken: Taken) {
        match taken {
            Taken::Excused => self.excused += 1,
            Taken::Busy => self.busy += 1,
            Taken::Unexplained => self.unexplained += 1,
        }
    }

    pub(crate) const fn all(self) -> usize {
        self.excused + self.busy + self.unexplained
    }
}

/// All that was found.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    pub(crate) ledger: Ledger,
    pub(crate) lost: Vec<String>,
    pub(crate) wrong: Vec<String>,
    pub(crate) calls: usize,
    pub(crate) acknowledged: usize,
    pub(crate) unknown: usize,
    pub(crate) passed_on_by_proof: usize,
    pub(crate) fences: Count,
    pub(crate) elections: Count,
    pub(crate) ends: Count,
    pub(crate) signs: Signs,
    pub(crate) deadman: usize,
    /// Nodes that stopped by themselves, as they do when their disk fails.
    pub(crate) stopped: usize,
}

/// How long what was done to a host may be felt, in nanoseconds: its lease runs out, and somebody notices it after an
/// election.
pub(crate) fn window() -> u64 {
    let timing = host::config().timing;
    let long = timing.plan().lease + timing.leader_crash().unwrap_or_default();
    u64::try_from(long.as_nanos()).unwrap_or(u64::MAX)
}

/// Judges a run of so many hosts.
pub(crate) fn judge(run: &Path, hosts: u64, health: &Health, endings: &[(u64, u64, Ending)]) -> Result<Audit> {
    let mut found = Audit::default();
    let (mut agreed, mut ops, mut told) = (Agreed::default(), vec![], BTreeMap::new());
    let mut wrong: Vec<Violation> = vec![];
    for node in 1..=hosts {
        let text = std::fs::read_to_string(log::of(run, node)).with_context(|| format!("the log of n{node}"))?;
        wrong.extend(agreed.take_in(&text)?);
        op::read(&text, &mut ops)?;
        heard(&text, &mut told)?;
        found.stopped += text.lines().filter(|line| line.starts_with("! stopped ")).count();
    }
    found.lost = lost(&ops);
    op::from_the_first(&mut ops);
    wrong.extend(agreed.check(&ops));
    wrong.extend(records::check(&ops));
    wrong.extend(locks::check(&ops));
    wrong.extend(witness::check(&ops).wrong);
    found.wrong = wrong.iter().map(|violation| violation.to_string()).collect();
    found.calls = ops.len();
    found.acknowledged = ops.iter().filter(|op| matches!(op.outcome, CallResult::Done(_))).count();
    found.unknown = ops.iter().filter(|op| op.is_unknown() && op.value().is_some()).count();
    found.passed_on_by_proof = agreed.passed_on_by_proof();
    found.ledger = ledger::judge(&run.join("ledger"), &ended(&told))?;
    standing(&told, health, endings, &mut found);
    found.signs = signs::judge(run, hosts, &told, endings)?;
    found.wrong.append(&mut found.signs.wrong.clone());
    Ok(found)
}

/// When the first process heard of each of the events that are timed.
fn heard(text: &str, told: &mut BTreeMap<(u64, String), u64>) -> Result<()> {
    for line in text.lines().filter_map(|line| line.strip_prefix("@ ")) {
        let mut words = line.splitn(3, ' ');
        let mut next = || words.next().with_context(|| line.to_string());
        let (at, revision, event): (u64, _, _) = (next()?.parse()?, next()?, next()?.to_string());
        let revision = revision.strip_prefix('r').context("a revision")?.parse()?;
        let first = told.entry((revision, event)).or_insert(at);
        *first = at.min(*first);
    }
    Ok(())
}

/// The life that an event is about: the first word that names one.
pub(crate) fn life(event: &str) -> Option<(&str, u64)> {
    event.split_ascii_whitespace().find_map(|word| {
        let name = word.trim_end_matches([',', ':']);
        let (node, _) = name.strip_prefix('n')?.split_once('#')?;
        Some((name, node.parse().ok()?))
    })
}

/// When it was first heard of each life that it can do no more.
fn ended(told: &BTreeMap<(u64, String), u64>) -> BTreeMap<String, u64> {
    let mut ended: BTreeMap<String, u64> = BTreeMap::new();
    for ((_, event), at) in told.iter().filter(|((_, e), _)| e.starts_with("fenced ") || e.starts_with("left ")) {
        if let Some((name, _)) = life(event) {
            let first = ended.entry(name.into()).or_insert(*at);
            *first = (*at).min(*first);
        }
    }
    ended
}

/// Records with an acknowledged write that the last look of some host does not show at all. Whether what it shows is
/// right is for the order of calls to tell.
fn lost(ops: &[Op]) -> Vec<String> {
    let (mut written, mut looks): (BTreeMap<&str, &Op>, BTreeMap<&str, BTreeSet<&str>>) = Default::default();
    for op in ops {
        let Some(key) = op.key() else { continue };
        match (&op.call, &op.outcome) {
            (Call::Get { .. }, CallResult::Read { record: Some(_), .. }) if op.client.ends_with("/last") => {
                looks.entry(&op.client).or_default().insert(key);
            }
            (_, CallResult::Done(_)) => {
                written.insert(key, op);
            }
            _ => {}
        }
    }
    let mut lost = vec![];
    for (key, write) in written {
        for (client, _) in looks.iter().filter(|(_, seen)| !seen.contains(key)) {
            lost.push(format!("{client} does not see {key} at all, of which this was acknowledged:\n    {write}"));
        }
    }
    lost
}

/// Whether anybody was ended, or ended, without a reason; and how many elections there were.
fn standing(told: &BTreeMap<(u64, String), u64>, health: &Health, endings: &[(u64, u64, Ending)], found: &mut Audit) {
    let window = window();
    let seconds = |at: u64| at as f64 / 1e9;
    for ((revision, event), at) in told {
        if event.starts_with("fence ordered ") {
            let Some((name, node)) = life(event) else { continue };
            let taken = health.of_host(node, *at, window);
            found.fences.add(taken);
            if taken == Taken::Unexplained {
                let at = seconds(*at);
                found
                    .wrong
                    .push(format!("{name} was well and connected, and at {at:.3} s r{revision} says: {event}\n"));
            }
        } else if event.starts_with("activated leader ") {
            found.elections.add(health.of_all(*at, window));
        }
    }
    for (node, at, ending) in endings {
        let taken = health.of_host(*node, *at, window);
        match ending {
            Ending::Killed | Ending::Failed => continue,
            Ending::Wrong(status) => found.wrong.push(format!("n{node} ended with {status}; see n{node}.err\n")),
            Ending::Deadman => found.deadman += 1,
            Ending::Own => {}
        }
        found.ends.add(taken);
        if taken == Taken::Unexplained {
            let at = seconds(*at);
            found.wrong.push(format!("n{node} was well and connected, and ended at {at:.3} s: {ending:?}\n"));
        }
    }
}
