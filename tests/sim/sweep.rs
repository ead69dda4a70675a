//! Many worlds: a process for each, as many at once as there are cores, and one table of what they saw.
//!
//! A process of its own makes a world the same whether it runs alone or in a sweep, and keeps a world that panics, hangs or
//! leaks from the others.

#![expect(clippy::expect_used, clippy::panic, reason = "a test says by panicking what is wrong")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::coverage::Tally;
use crate::judge::Told;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The seeds to run: so many, unless the environment chooses.
pub(crate) fn seeds(short: u64, long: u64) -> Range<u64> {
    let full = std::env::var_os("QUORATE_SIM").is_some_and(|wanted| wanted == "full");
    let first = number("FIRST").unwrap_or(1);
    first..first + number("SEEDS").unwrap_or(if full { long } else { short })
}

/// What a world's process tells the sweep, a line each.
pub(crate) fn report(seed: u64, told: &Told) {
    let (lines, hash) = told.trace;
    // On a line of its own: the test harness has begun one.
    println!("\nworld {seed} trace {lines} {hash:016x}");
    println!("world {seed} simulated {}", told.simulated.as_millis());
    println!("world {seed} faults {}", told.faults);
    for (what, times) in &told.tally.counts {
        println!("world {seed} count {times} {what}");
    }
    assert!(told.violation.is_none(), "seed {seed}: {}", told.violation.as_deref().unwrap_or_default());
}

/// What came of a sweep.
#[derive(Default)]
pub(crate) struct Swept {
    pub(crate) traces: BTreeMap<u64, String>,
    tally: Tally,
    simulated: Duration,
    took: Duration,
    failed: BTreeMap<u64, String>,
}

/// Runs `child` of this test binary once for each seed.
pub(crate) fn run(seeds: Range<u64>, child: &str) -> Swept {
    let (next, began, end) = (AtomicU64::new(seeds.start), Instant::now(), seeds.end);
    let swept = Mutex::new(Swept::default());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let (worked, text) = one(seed, child, None);
                    let mut swept = swept.lock().expect("nobody panics with it");
                    swept.take(seed, &text);
                    if !worked {
                        swept.failed.insert(seed, text);
                        next.store(end, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let mut swept = swept.into_inner().expect("nobody panics with it");
    swept.took = began.elapsed();
    if let Some((&seed, text)) = swept.failed.first_key_value() {
        let told = shorter(seed, child, text);
        swept.failed.insert(seed, told);
    }
    swept
}

/// Runs one world; whether it was well, and what it said.
fn one(seed: u64, child: &str, upto: Option<u64>) -> (bool, String) {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", child, "--ignored", "--nocapture", "--test-threads=1"]).env("WORLD", seed.to_string());
    if let Some(upto) = upto {
        command.env("UPTO", upto.to_string());
    }
    let output = command.output().expect("this binary runs again");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.success(), text)
}

/// How the violation reads.
fn violation(text: &str) -> &str {
    text.lines().find(|line| line.contains("violated")).unwrap_or("it ended without a word")
}

/// Bisects the schedule of faults of a failed world: the fewest, counted from the beginning, with which it still fails.
fn shorter(seed: u64, child: &str, text: &str) -> String {
    let (mut good, mut bad) = (0, number_after(text, "faults").unwrap_or(0));
    let mut said = text.to_string();
    while good + 1 < bad {
        let middle = good.midpoint(bad);
        match one(seed, child, Some(middle)) {
            (true, _) => good = middle,
            (false, text) => (bad, said) = (middle, text),
        }
    }
    let why = said.split_once("seed ").map_or(said.as_str(), |(_, why)| why);
    let again = format!(
        "WORLD={seed} UPTO={bad} ALOUD=1 cargo test --release --test {} -- --exact {child} --ignored --nocapture",
        env!("CARGO_CRATE_NAME")
    );
    format!("{}\n{why}\nwith the first {bad} faults; again:\n  {again}", violation(&said))
}

fn number_after(text: &str, word: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with("world ") && line.contains(word))?;
    line.rsplit(' ').next()?.parse().ok()
}

impl Swept {
    fn take(&mut self, seed: u64, text: &str) {
        let head = format!("world {seed} ");
        for line in text.lines().filter_map(|line| line.strip_prefix(&head)) {
            match line.split_once(' ') {
                Some(("trace", trace)) => drop(self.traces.insert(seed, trace.into())),
                Some(("simulated", ms)) => self.simulated += Duration::from_millis(ms.parse().unwrap_or(0)),
                Some(("count", counted)) => {
                    if let Some((times, what)) = counted.split_once(' ') {
                        self.tally.add(what, times.parse().unwrap_or(0));
                    }
                }
                _ => {}
            }
        }
    }

    pub(crate) fn print(&self) {
        let (hours, wall) = (self.simulated.as_secs_f64() / 3600.0, self.took.as_secs_f64());
        println!(
            "{} worlds, {hours:.3} cluster-hours in {wall:.1} s: {:.2} cluster-hours a minute",
            self.traces.len(),
            hours / wall * 60.0
        );
        for (what, times) in &self.tally.counts {
            println!("  {times:>10}  {what}");
        }
    }

    /// Fails at a broken promise, and where a sweep that was long enough has missed something.
    pub(crate) fn must_hold(&self) {
        if let Some((_, why)) = self.failed.first_key_value() {
            panic!("{why}");
        }
        let missing = self.tally.missing();
        if self.traces.len() >= 100 {
            assert!(missing.is_empty(), "never happened in {} worlds: {missing:?}", self.traces.len());
        } else if !missing.is_empty() {
            println!("  never in so few worlds: {}", missing.join(", "));
        }
    }
}
