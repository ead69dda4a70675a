//! Processes according to the kernel: the members of a process group, and whether a number still means the same
//! process.
//!
//! ```text
//!   (group, start time of its first process)  ─▶ same start time in /proc? ─▶ the group that was recorded
//!                                             └▶ later ─▶ another group, so the recorded one had ended before
//! ```

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal};

/// The time of CLOCK_MONOTONIC in nanoseconds. It is comparable between all processes of one machine.
pub(crate) fn monotonic_ns() -> u64 {
    let spec = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    spec.tv_sec as u64 * 1_000_000_000 + spec.tv_nsec as u64
}

/// A process in `/proc`: its state letter, its process group, and its start time in clock ticks since boot.
struct Stat {
    state: char,
    group: i32,
    started: u64,
}

/// Reads one `stat` file. `None` only if the kernel reports that there is no such process. Any other failure is an
/// error, because a process that cannot be read must not count as gone.
fn stat(path: &str) -> Result<Option<Stat>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("reading {path}")),
    };
    parse(&text).map(Some).with_context(|| format!("{path} has unexpected content: `{text}`"))
}

fn parse(text: &str) -> Option<Stat> {
    // The name in parentheses may contain spaces and parentheses.
    let mut fields = text[text.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let group = fields.nth(1)?.parse().ok()?;
    let started = fields.nth(16)?.parse().ok()?;
    Some(Stat { state, group, started })
}

/// Whether a process runs: its first thread, or another thread that outlives it.
fn runs(pid: i32, process: &Stat) -> Result<bool> {
    if !matches!(process.state, 'Z' | 'X') {
        return Ok(true);
    }
    let threads = match std::fs::read_dir(format!("/proc/{pid}/task")) {
        Ok(threads) => threads,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e).with_context(|| format!("the threads of {pid}")),
    };
    for thread in threads {
        let thread = match thread {
            Ok(thread) => thread.path().join("stat"),
            // The process ended during the walk.
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => return Ok(false),
            Err(e) => return Err(e.into()),
        };
        let thread = stat(thread.to_str().context("a path of /proc")?)?;
        if thread.is_some_and(|t| !matches!(t.state, 'Z' | 'X')) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The start time of a process in clock ticks since boot; `None` if no process of that number runs.
pub(crate) fn started(pid: i32) -> Result<Option<u64>> {
    let Some(process) = stat(&format!("/proc/{pid}/stat"))? else { return Ok(None) };
    Ok(runs(pid, &process)?.then_some(process.started))
}

/// The living members of a process group. Zombies count as dead.
pub(crate) fn members(group: i32) -> Result<Vec<i32>> {
    let mut found = vec![];
    for entry in std::fs::read_dir("/proc").context("reading /proc, which lists the members of a process group")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        let Some(process) = stat(&format!("/proc/{pid}/stat"))? else { continue };
        if process.group == group && runs(pid, &process)? {
            found.push(pid);
        }
    }
    Ok(found)
}

/// The [`members`] that could do work. This excludes the guardian of a bound child, which only waits for the death of
/// its parent and may remain stopped.
pub(crate) fn workers(group: i32) -> Result<Vec<i32>> {
    let name = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Ok(members(group)?.into_iter().filter(|pid| name(pid).trim_end() != "quorate-guard").collect())
}

/// Sends a signal to a whole process group. It is no error if the group is gone.
pub(crate) fn signal_group(group: i32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(group).filter(|_| group > 1).with_context(|| format!("{group} is not a process group"))?;
    match rustix::process::kill_process_group(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(errno) => Err(errno).with_context(|| format!("sending {signal:?} to the process group {group}")),
    }
}

/// Kills a whole process group with SIGKILL. It is no error if the group is gone.
pub(crate) fn kill_group(group: i32) -> Result<()> {
    signal_group(group, Signal::KILL)
}

/// Kills a process group until it has no members. Returns how many members it had. `since` is the start time of its
/// first process. If the first process of that number started later, it belongs to another group, nothing is killed,
/// and the result is `None`: the group that was meant had ended before.
pub(crate) async fn end_group((group, since): (i32, u64)) -> Result<Option<usize>> {
    if started(group)?.is_some_and(|started| started != since) {
        return Ok(None);
    }
    let before = members(group)?.len();
    loop {
        kill_group(group)?;
        if members(group)?.is_empty() {
            return Ok(Some(before));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Kills one process with SIGKILL. The rest of its group is not affected.
pub(crate) fn kill_one(process: i32) -> Result<()> {
    let pid = Pid::from_raw(process).filter(|_| process > 1).with_context(|| format!("{process} is not a process"))?;
    rustix::process::kill_process(pid, Signal::KILL).with_context(|| format!("killing the process {process}"))
}

/// Ends this whole process group once the process `guardian`, started at `since`, is gone, so that no process outlives
/// the demo.
pub(crate) fn end_with(guardian: i32, since: u64) {
    std::thread::spawn(move || {
        while matches!(started(guardian), Ok(Some(at)) if at == since) {
            std::thread::sleep(Duration::from_millis(200));
        }
        let _gone = kill_group(rustix::process::getpgrp().as_raw_nonzero().get());
    });
}

/// Reads a record of a group and its start time, which another process may replace atomically. `None` if there is no
/// file.
pub(crate) fn read_numbers(path: &Path) -> Result<Option<(i32, u64)>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("reading {}", path.display())),
    };
    numbers(&text).map(Some).with_context(|| format!("{} has unexpected content: `{text}`", path.display()))
}

/// A group and its start time, as they are written.
pub(crate) fn numbers(text: &str) -> Option<(i32, u64)> {
    let (group, since) = text.trim().split_once(' ')?;
    Some((group.parse().ok()?, since.parse().ok()?))
}
