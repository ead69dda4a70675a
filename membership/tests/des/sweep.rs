//! Many runs: which seeds, on how many threads, what came of them, and how to see one of them again.
//!
//! ```text
//!   QUORATE_SIM=full   the long sweep of `make sim`, in place of the short one of every `cargo test`
//!   SEEDS=7 FIRST=100  seeds 100 to 106, in place of the default ones
//! ```
//!
//! A run is one seed on one thread, and nothing in it depends on the others. So a failure is a test, a setup and a seed.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::setup::Setup;
use crate::tally::Tally;
use crate::world::World;

pub(crate) fn full() -> bool {
    std::env::var_os("QUORATE_SIM").is_some_and(|wanted| wanted == "full")
}

fn number(name: &str) -> Option<u64> {
    std::env::var_os(name)?.to_str()?.parse().ok()
}

/// The seeds to run: so many, unless the environment chooses.
pub(crate) fn seeds(short: u64, long: u64) -> std::ops::Range<u64> {
    let (first, count) = (number("FIRST").unwrap_or(1), number("SEEDS"));
    first..first + count.unwrap_or(if full() { long } else { short })
}

/// Whether the environment chose how many: then too few may have been run to have seen everything.
pub(crate) fn chosen() -> bool {
    number("SEEDS").is_some()
}

/// What came of one run.
pub(crate) struct Run {
    pub(crate) tally: Tally,
    pub(crate) violation: Option<String>,
    pub(crate) trace: u64,
}

pub(crate) fn run(setup: &Setup, seed: u64) -> Run {
    finish(World::new(setup.clone(), seed))
}

fn finish(mut world: World) -> Run {
    world.run();
    let trace = world.trace();
    Run { tally: world.tally, violation: world.oracle.violation, trace }
}

/// Runs every setup under every seed, and adds up what was counted, by setup. Fails at the first broken promise, with the
/// last things that happened before it and the command that shows it again.
pub(crate) fn sweep(test: &str, setups: &[Setup], seeds: std::ops::Range<u64>) -> Vec<Tally> {
    let jobs: Vec<(u64, usize)> = seeds.flat_map(|seed| (0..setups.len()).map(move |at| (seed, at))).collect();
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let totals = Mutex::new(vec![Tally::default(); setups.len()]);
    std::thread::scope(|scope| {
        for _ in 0..threads() {
            scope.spawn(|| {
                while let Some((seed, at)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)).copied() {
                    let Run { tally, violation, .. } = run(&setups[at], seed);
                    if let Some(violation) = violation {
                        next.store(jobs.len(), Ordering::Relaxed);
                        locked(&failed).insert((seed, at), violation);
                    }
                    locked(&totals)[at].merge(tally);
                }
            });
        }
    });
    if let Some(((seed, at), violation)) = locked(&failed).pop_first() {
        let mut world = World::new(setups[at].clone(), seed);
        world.tally.tell();
        let story = finish(world).tally.story();
        let mode = if full() { "QUORATE_SIM=full " } else { "" };
        let again = format!("FIRST={seed} SEEDS=1 {mode}cargo test -p quorate-membership --test des -- --exact {test}");
        assert!(
            violation.is_empty(),
            "a promise was broken: {}, seed {seed}: {violation}\n{story}\n  {again}",
            setups[at].name
        );
    }
    std::mem::take(&mut *locked(&totals))
}

/// For each setup the first of `seeds` under which a promise is broken: which, how, and after how many simulated hours.
pub(crate) fn hunt(setups: &[Setup], seeds: &std::ops::Range<u64>) -> Vec<Option<(u64, String, f64)>> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(vec![None; setups.len()]));
    std::thread::scope(|scope| {
        for _ in 0..threads() {
            scope.spawn(|| {
                while let Some(at) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|at| *at < setups.len()) {
                    let mut hours = 0.0;
                    let caught = seeds.clone().find_map(|seed| {
                        let Run { tally, violation, .. } = run(&setups[at], seed);
                        hours += tally.hours();
                        violation.map(|violation| (seed, violation, hours))
                    });
                    locked(&found)[at] = caught;
                }
            });
        }
    });
    std::mem::take(&mut *locked(&found))
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
