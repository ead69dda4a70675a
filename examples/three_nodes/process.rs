//! Processes as the kernel knows them: who is in a group, and whether it is the one that was meant.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal};

/// Nanoseconds of CLOCK_MONOTONIC: comparable between all processes of one machine.
pub(crate) fn monotonic_ns() -> u64 {
    let spec = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    spec.tv_sec as u64 * 1_000_000_000 + spec.tv_nsec as u64
}

/// One process of `/proc`: its state letter, its group, and when it was started (in ticks since boot).
struct Stat {
    state: char,
    group: i32,
    started: u64,
}

/// `None` only where the kernel says that there is no such process. That it could not be read is an error: who is
/// not seen must not be taken for gone.
fn stat(path: &str) -> Result<Option<Stat>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("reading {path}")),
    };
    parse(&text).map(Some).with_context(|| format!("{path} says `{text}`"))
}

fn parse(text: &str) -> Option<Stat> {
    // The name in brackets may hold anything, blanks and brackets included.
    let mut fields = text[text.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let group = fields.nth(1)?.parse().ok()?;
    let started = fields.nth(16)?.parse().ok()?;
    Some(Stat { state, group, started })
}

/// Whether a process runs: it, or a thread of it that outlives its first one.
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
            // The process went away under the walk.
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

/// When a process was started; `None` if there is none of that number that still runs.
pub(crate) fn started(pid: i32) -> Result<Option<u64>> {
    let Some(process) = stat(&format!("/proc/{pid}/stat"))? else { return Ok(None) };
    Ok(runs(pid, &process)?.then_some(process.started))
}

/// Everybody in a process group who is not dead. A dead process that nobody has waited for counts as dead.
pub(crate) fn members(group: i32) -> Result<Vec<i32>> {
    let mut found = vec![];
    for entry in std::fs::read_dir("/proc").context("/proc is needed to see who is in a process group")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        let Some(process) = stat(&format!("/proc/{pid}/stat"))? else { continue };
        if process.group == group && runs(pid, &process)? {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Those of [`members`] that could do any work. The guardian that a bound child is started beside does none: it waits for
/// the death of its parent, and may do so stopped.
pub(crate) fn workers(group: i32) -> Result<Vec<i32>> {
    let name = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Ok(members(group)?.into_iter().filter(|pid| name(pid).trim_end() != "quorate-guard").collect())
}

/// Sends a signal to a whole process group. A group that is gone is no error.
pub(crate) fn signal_group(group: i32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(group).filter(|_| group > 1).with_context(|| format!("{group} is not a process group"))?;
    match rustix::process::kill_process_group(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(errno) => Err(errno).with_context(|| format!("sending {signal:?} to the process group {group}")),
    }
}

/// Kills a whole process group with SIGKILL. A group that is gone is no error.
pub(crate) fn kill_group(group: i32) -> Result<()> {
    signal_group(group, Signal::KILL)
}

/// Kills a process group until nobody of it is left. Returns how many there were. `since` is when its first process was
/// started: a group of that number whose first process was started later is another one, and `None` says that the one
/// that was meant had ended before.
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

/// Kills one process with SIGKILL and leaves the rest of its group alone.
pub(crate) fn kill_one(process: i32) -> Result<()> {
    let pid = Pid::from_raw(process).filter(|_| process > 1).with_context(|| format!("{process} is not a process"))?;
    rustix::process::kill_process(pid, Signal::KILL).with_context(|| format!("killing the process {process}"))
}

/// Ends this whole process group once the process `guardian`, started at `since`, is gone: nobody outlives the demo.
pub(crate) fn end_with(guardian: i32, since: u64) {
    std::thread::spawn(move || {
        while matches!(started(guardian), Ok(Some(at)) if at == since) {
            std::thread::sleep(Duration::from_millis(200));
        }
        let _gone = kill_group(rustix::process::getpgrp().as_raw_nonzero().get());
    });
}

/// Reads a record that another process may be about to replace as a whole. `None` only if there is none.
pub(crate) fn read_numbers(path: &Path) -> Result<Option<(i32, u64)>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("reading {}", path.display())),
    };
    let numbers =
        text.trim().split_once(' ').and_then(|(group, since)| Some((group.parse().ok()?, since.parse().ok()?)));
    numbers.map(Some).with_context(|| format!("{} says `{text}`", path.display()))
}
