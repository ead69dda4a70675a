//! The effects of all workers, in the order in which they arrived; judged afterwards, for the ledger refuses nothing.
//!
//! ```text
//!   812345 a 40 n1#1 0          clock, lock, token, life, number
//!   822345 a 40 n1#1 1
//!   912345 a 71 n2#1 0          a takeover, 90 ms after the last effect
//!   913345 a 40 n1#1 2          an overlap: n1#1 still worked when n2#1 had begun
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

/// What is known of the work under one lock.
#[derive(Debug, Clone, Default)]
pub(crate) struct Work {
    pub(crate) effects: usize,
    /// Changes of the token, and those of them that went to another life.
    pub(crate) grants: usize,
    pub(crate) takeovers: usize,
    /// The longest time without an effect, and when it began.
    pub(crate) gap: u64,
    pub(crate) gap_at: u64,
    last: u64,
    token: u64,
    life: String,
}

/// What the ledger shows.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) locks: BTreeMap<String, Work>,
    pub(crate) overlaps: Vec<String>,
}

/// One effect.
struct Effect<'a> {
    at: u64,
    lock: &'a str,
    token: u64,
    life: &'a str,
}

fn parse(line: &str) -> Option<Effect<'_>> {
    let mut words = line.split_ascii_whitespace();
    let (at, lock, token, life) = (words.next()?, words.next()?, words.next()?, words.next()?);
    Some(Effect { at: at.parse().ok()?, lock, token: token.parse().ok()?, life })
}

/// Judges the ledger of a run; `ended` says when the first process heard that a life can do no more.
pub(crate) fn judge(path: &Path, ended: &BTreeMap<String, u64>) -> Result<Ledger> {
    let text = std::fs::read_to_string(path).context("the ledger")?;
    let mut found = Ledger::default();
    for line in text.lines() {
        let Effect { at, lock, token, life } = parse(line).with_context(|| format!("no effect: {line}"))?;
        let work = found.locks.entry(lock.into()).or_default();
        if work.effects > 0 && at.saturating_sub(work.last) > work.gap {
            (work.gap, work.gap_at) = (at - work.last, work.last);
        }
        if token < work.token {
            found.overlaps.push(format!("{line}: after an effect under token {} of {}", work.token, work.life));
        } else if token == work.token && life != work.life {
            found.overlaps.push(format!("{line}: the token is that of {}", work.life));
        }
        if let Some(told) = ended.get(life).filter(|told| **told < at) {
            let late = (at - told) as f64 / 1e6;
            found.overlaps.push(format!("{line}: {late:.3} ms after somebody heard that {life} can do no more"));
        }
        if token > work.token {
            work.grants += 1;
            work.takeovers += usize::from(!work.life.is_empty() && life != work.life);
            (work.token, work.life) = (token, life.into());
        }
        work.effects += 1;
        work.last = at.max(work.last);
    }
    Ok(found)
}

/// When each lock was last worked under, as far as the end of the ledger tells.
pub(crate) fn lately(path: &Path) -> BTreeMap<String, u64> {
    const ENOUGH: usize = 1 << 16;
    let text = std::fs::read(path).unwrap_or_default();
    let tail = text.get(text.len().saturating_sub(ENOUGH)..).unwrap_or_default();
    let tail = String::from_utf8_lossy(tail);
    tail.lines().skip(1).filter_map(parse).map(|effect| (effect.lock.to_string(), effect.at)).collect()
}
