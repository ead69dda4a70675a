//! Whether a process had ended of which it was said: an order because its machine refuses, an election in its place.
//!
//! ```text
//!   n2 kill -9 ●──── 2 s ────▶│     "no process of its node listens", "the process of the leader has ended": true
//!                             │●    said of n2 when it had not ended: a violation
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use quorate::fencing::Cause;
use tracing_subscriber::fmt::{format::Writer, time::FormatTime};

use crate::fleet::Ending;
use crate::log::now;

/// How long after the end of a process a sign of it is believed: until its silence would ask for an order anyway.
const BELIEVED: Duration = Duration::from_secs(2);

/// How much later than others the director may notice an end, on a busy machine.
const NOTICED: Duration = Duration::from_secs(1);

/// What a host says of a leader whose place it takes.
const STANDS: &str = "the process of the leader has ended, as a quorum sees it";

/// What the hosts log when they stand for election at such a sign.
pub(crate) const LOGGED: &str = "warn,openraft=off,quorate_raft_core::engine::lost_leader=info";

/// What a host's log line begins with: the clock that all of them read.
pub(crate) struct Clock;

impl FormatTime for Clock {
    fn format_time(&self, w: &mut Writer<'_>) -> std::fmt::Result {
        write!(w, "{}", now())
    }
}

/// The signs of a run, and those that were wrong.
#[derive(Debug, Default)]
pub(crate) struct Signs {
    pub(crate) orders: usize,
    pub(crate) elections: usize,
    pub(crate) wrong: Vec<String>,
}

/// Judges every sign of a run by the ends of processes.
pub(crate) fn judge(
    run: &Path,
    hosts: u64,
    told: &BTreeMap<(u64, String), u64>,
    endings: &[(u64, u64, Ending)],
) -> Result<Signs> {
    let mut found = Signs::default();
    let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    let ended = |node: u64, at: u64| {
        let lately = |ended: u64| ended <= at + nanos(NOTICED) && at <= ended.saturating_add(nanos(BELIEVED));
        endings.iter().any(|(whose, ended, _)| *whose == node && lately(*ended))
    };
    let refused = Cause::Refused.to_string();
    for ((revision, event), at) in told {
        let order = event.starts_with("fence ordered ") && event.ends_with(&refused);
        let Some((_, node)) = crate::audit::life(event).filter(|_| order) else { continue };
        found.orders += 1;
        if !ended(node, *at) {
            found.wrong.push(format!("n{node} runs, and at {:.3} s r{revision} says: {event}\n", *at as f64 / 1e9));
        }
    }
    for node in 1..=hosts {
        let text = std::fs::read_to_string(run.join(format!("n{node}.err"))).context("what a host logged")?;
        for line in text.lines().filter(|line| line.contains(STANDS)) {
            let at: u64 = line.split(' ').next().unwrap_or_default().parse().with_context(|| line.to_owned())?;
            let leader = line.rsplit_once("leader=n").context("whose place it takes")?.1;
            found.elections += 1;
            if !ended(leader.trim().parse().with_context(|| line.to_owned())?, at) {
                found.wrong.push(format!("n{leader} runs, and n{node} takes its place at {:.3} s\n", at as f64 / 1e9));
            }
        }
    }
    Ok(found)
}
